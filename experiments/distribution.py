"""Training on several devices and machines: strategies of `tf.distribute`, and what a run needs around them.

Every worker of `multi_worker` runs the same command. The first one, the chief, keeps the files of the run, evaluates
and prints; the others train with it. `TF_CONFIG` in the environment says who is who, as TensorFlow's guide has it.
"""

import contextlib
import functools
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from experiments import signals
from experiments.signals import InterruptedRun

_SECONDS_BETWEEN_CALLS = 0.5
LOST_WORKER = 75  # the exit code that the system's own list has for "try again"


@functools.cache
def strategy(name: str) -> tf.distribute.Strategy:
    """The strategy of a name, one a process.

    Args:
        name: "none" for TensorFlow's default device, "mirrored" for all GPUs of this machine (without any: all its
            CPU devices), "multi_worker" for all workers of `TF_CONFIG`. The last must come before anything else
            is asked of TensorFlow.

    Raises:
        ValueError: if `TF_CONFIG` is missing or does not describe this worker.
    """
    if name == "multi_worker":
        _wait_for_workers(*_read_tf_config(os.environ.get("TF_CONFIG", "")))
        handlers = {number: signal.getsignal(number) for number in signals.ENDING}
        made = tf.distribute.MultiWorkerMirroredStrategy()
        for number, handler in handlers.items():  # TensorFlow has its own for SIGTERM, which ends nothing
            if handler is not None:
                signal.signal(number, handler)
        return made
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.get_strategy()


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Tells if this process is the one that keeps the files."""
    if not has_workers(strategy):
        return True
    resolver = strategy.cluster_resolver
    chiefs = resolver.cluster_spec().as_dict().get("chief")
    return resolver.task_type == "chief" or (not chiefs and resolver.task_id == 0)


def has_workers(strategy: tf.distribute.Strategy) -> bool:
    """Tells if there may be other processes."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def check_batch_size(batch_size: int, strategy: tf.distribute.Strategy) -> None:
    """Raises `ValueError` unless every replica gets as large a part of a batch."""
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise ValueError(
            f"`batch_size` is that of all devices together and must divide by their number, {replicas}. "
            f"Received: batch_size={batch_size}. Give e.g. {max(1, batch_size // replicas) * replicas}."
        )


def parts(batches: tf.data.Dataset, batch_size: int, strategy: tf.distribute.Strategy) -> Iterable:
    """The batches as this process's replicas get them: replica r of R has the r-th of R equal parts of each batch."""
    size = batch_size // strategy.num_replicas_in_sync

    def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        replicas = context.num_replicas_in_sync // context.num_input_pipelines
        first = context.input_pipeline_id * replicas * size

        def part(tensor: tf.Tensor) -> tf.Tensor:
            return tf.reshape(tensor[first : first + replicas * size], (replicas, size, *tensor.shape[1:]))

        return batches.flat_map(lambda *batch: tf.data.Dataset.from_tensor_slices(tuple(map(part, batch))))

    one_device = strategy.num_replicas_in_sync == 1 and not has_workers(strategy)
    return batches if one_device else strategy.distribute_datasets_from_function(of_worker)


def train_function(model: keras.Model) -> Callable[[Iterator], dict]:
    """Returns a function that trains a model on the next batch of an iterator and gives its logs; compiled once."""
    strategy = model.distribute_strategy
    if not has_workers(strategy):
        model.make_train_function()
        return model.train_function

    @tf.function(autograph=False)
    def on_next(iterator: Iterator) -> dict:
        logs = strategy.run(model.train_step, args=(next(iterator),))
        return {name: tf.reduce_mean(strategy.experimental_local_results(value)) for name, value in logs.items()}

    model.train_function = model.train_function or on_next
    return model.train_function


def fit(
    model: keras.Model,
    batches: Iterable,
    *,
    initial_epoch: int,
    epochs: int,
    steps_per_epoch: int,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """`model.fit`, or with several workers the same by the loop of TensorFlow's guide, as Keras 3 cannot train them.

    The logs of a batch are then those of this worker; those of an epoch are always those of all.
    """
    if not has_workers(model.distribute_strategy):
        counts = {"initial_epoch": initial_epoch, "epochs": epochs, "steps_per_epoch": steps_per_epoch}
        model.fit(batches, callbacks=list(callbacks), shuffle=False, verbose=0, **counts)  # they are in their order
        return
    listeners = keras.callbacks.CallbackList(list(callbacks), model=model, epochs=epochs, steps=steps_per_epoch)
    train, iterator = train_function(model), iter(batches)
    listeners.on_train_begin()
    for epoch in range(initial_epoch, epochs):
        model.reset_metrics()
        listeners.on_epoch_begin(epoch)
        for step in range(steps_per_epoch):
            listeners.on_train_batch_begin(step)
            listeners.on_train_batch_end(step, train(iterator))
        listeners.on_epoch_end(epoch, model.get_metrics_result())
    listeners.on_train_end()


def follow_chief(model: keras.Model) -> None:
    """Gives every worker's model and optimizer the state of the chief's."""
    variables = model.variables + model.optimizer.variables
    if has_workers(model.distribute_strategy):
        values = from_chief(model.distribute_strategy, [variable.numpy() for variable in variables])
        for variable, value in zip(variables, values):
            variable.assign(value)


def from_chief(strategy: tf.distribute.Strategy, values: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The chief's values, which every worker gets for its own of the same shapes."""
    values = [np.asarray(value) for value in values]
    if not has_workers(strategy):
        return values

    @tf.function(autograph=False)
    def send(values: list[tf.Tensor]) -> list[tf.Tensor]:
        def in_replica(values: list[tf.Tensor]) -> list[tf.Tensor]:
            context = tf.distribute.get_replica_context()
            is_first = tf.equal(context.replica_id_in_sync_group, 0)
            own = [tf.where(is_first, value, tf.zeros_like(value)) for value in values]
            return [context.all_reduce(tf.distribute.ReduceOp.SUM, value) for value in own]

        return [strategy.experimental_local_results(sent)[0] for sent in strategy.run(in_replica, args=(values,))]

    whole = [value.astype(np.int64) if value.dtype.kind in "biu" else value for value in values]  # what can be added
    received = send([tf.convert_to_tensor(value) for value in whole])
    return [result.numpy().astype(value.dtype) for result, value in zip(received, values)]


@contextlib.contextmanager
def lost_workers_told(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Turns the end of another worker, which TensorFlow tells in many ways, into `InterruptedRun`."""
    try:
        yield
    except tf.errors.OpError as error:
        told = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.InternalError)
        if not has_workers(strategy) or not isinstance(error, told):
            raise
        said = " ".join(error.message.split())[:300]
        raise InterruptedRun(
            "another worker is gone or out of reach; start all workers again with --resume to go on from the last "
            f"checkpoint. TensorFlow says: {said}",
            LOST_WORKER,
        ) from error


_HINT = (
    "Give every worker the same cluster and its own index, e.g. TF_CONFIG='"
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}\'.'
)


def _read_tf_config(text: str) -> tuple[dict[str, str], str]:
    """The cluster that TF_CONFIG describes.

    Returns:
        The addresses of its workers by their names, "worker 1"; and the name of this one.

    Raises:
        ValueError: if it describes none.
    """
    if not text:
        raise ValueError(f"--strategy=multi_worker needs TF_CONFIG in the environment, which is not set. {_HINT}")
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        workers = {
            f"{kind} {index}": address
            for kind in ("chief", "worker")
            for index, address in enumerate(_checked_addresses(cluster, kind))
        }
        if type(task["index"]) is not int:
            raise ValueError("the task's index is no whole number")
        own = f"{task['type']} {task['index']}"
        _check_cluster(cluster, workers, own)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        why = " ".join(str(error).split())[:200]
        if not isinstance(error, ValueError):  # in Python's words
            why = f"it lacks {error}" if isinstance(error, KeyError) else "it is no object of `cluster` and `task`"
        raise ValueError(
            f"TF_CONFIG does not say which worker this is. Received: TF_CONFIG={text[:300]!r} ({why}). {_HINT}"
        ) from None
    return workers, own


def _checked_addresses(cluster: dict, kind: str) -> list[str]:
    addresses = cluster.get(kind, []) if isinstance(cluster, dict) else None
    if not isinstance(addresses, list):
        raise ValueError(f"the addresses of {kind} are no list")
    for address in addresses:
        host, _, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
        if not host or not (port.isascii() and port.isdigit()) or not 1 <= int(port[:6]) <= 65535:
            raise ValueError(f"{address!r:.80} is no address like host:2222")
    return addresses


def _check_cluster(cluster: dict, workers: dict[str, str], own: str) -> None:
    others = ", ".join(map(repr, sorted(cluster.keys() - {"chief", "worker"})))
    if others:
        raise ValueError(f"there is no use for {others[:80]}: a cluster has a chief and workers")
    if len(cluster.get("chief", [])) > 1:
        raise ValueError("there is more than one chief")
    if len(set(workers.values())) < len(workers):
        raise ValueError("two workers have the same address")
    if own not in workers:
        raise ValueError(f"the cluster has no {own[:80]!r}")


def _wait_for_workers(workers: dict[str, str], own: str) -> None:
    """Waits until every worker is there, as TensorFlow does, but says for whom and can be ended by signals.

    A worker is there while it listens at its port, first here and then as TensorFlow's server.
    """
    missing = {name: address for name, address in workers.items() if name != own}
    if not missing:
        return
    told = None
    with _listening(workers[own]):
        while missing:
            missing = {name: address for name, address in missing.items() if not _answers(address)}
            if missing and missing != told:
                names = ", ".join(f"{name} ({address})" for name, address in missing.items())
                print(f"{own} waits for {names}", file=sys.stderr, flush=True)
                told = missing
            if missing:
                time.sleep(_SECONDS_BETWEEN_CALLS)


def _listening(address: str) -> socket.socket:
    port = int(address.rpartition(":")[2])
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        raise OSError(error.errno, f"cannot listen at the port of this worker: {error.strerror}", address) from None


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=2.0).close()
    except (OSError, UnicodeError):  # a name that cannot be one is a host that is not there yet
        return False
    return True
