"""One experiment from data to results: `run(config)`. No flags, no globals."""

import contextlib
import dataclasses
import pathlib
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

import pineat_tf as pt
from experiments import (
    command_line,
    datasets,
    distribution,
    export,
    files,
    machine,
    method,
    networks,
    progress,
    tracking,
)
from experiments.audit import QUERIES
from experiments.config import ExperimentConfig
from experiments.figures import examples

METRICS, PREDICTIONS, HISTORY, EXAMPLES = "metrics.json", "predictions.npz", "history.csv", "examples.png"
_ROUND_OF_WORKERS = 60.0  # seconds; those who end without a checkpoint after a signal have lost about as much


@dataclasses.dataclass(frozen=True)
class _Plan:
    """How long the training is: its rounds, and how many of them are one pass over the data."""

    rounds: int
    rounds_per_pass: int
    updates_per_round: int

    def segments(self, first_round: int) -> list[tuple[int, int, int]]:
        """What is left from `first_round` as (epoch, its rounds, epochs alike): Keras' epochs must be alike."""
        segments, done = [], first_round
        while done < self.rounds:
            epoch, into = divmod(done, self.rounds_per_pass)
            rounds = min(self.rounds_per_pass - into, self.rounds - done)
            alike = max(1, (self.rounds - done) // self.rounds_per_pass) if not into else 1
            segments.append((epoch, rounds, alike))
            done += rounds * alike
        return segments

    def place(self, done: int) -> str:
        """The last of so many rounds, in words."""
        epoch, into = divmod(done - 1, self.rounds_per_pass)
        return f"round {done:,} (pass {epoch + 1:,}, batch {into + 1:,} of {self.rounds_per_pass:,})"


def run(config: ExperimentConfig) -> dict | None:
    """Trains, evaluates, exports and records one experiment.

    Args:
        config: what to do; its `run_dir` says where the results go.

    Returns:
        The contents of metrics.json; None in a worker that is not the chief, which only trains.

    Raises:
        ValueError: if the config does not fit the data, the run directory is taken, or training diverges.
        InterruptedRun: if a signal ended the training, or that of another worker; a checkpoint is kept.
    """
    strategy = distribution.strategy(config.strategy)  # before anything else is asked of TensorFlow
    with distribution.lost_workers_told(strategy):
        is_chief = distribution.is_chief(strategy)
        metrics = _finished(config) if is_chief else None
        if distribution.from_chief(strategy, [metrics is not None])[0]:
            return metrics
        if config.deterministic:
            tf.config.experimental.enable_op_determinism()
        data = method.data(config)
        plan = _plan(config, data)
        distribution.check_batch_size(config.batch_size, strategy)
        with strategy.scope():
            model = _model(config, data)
        return _lead(config, data, model, plan) if is_chief else _follow(config, data, model, plan)


class Speed(NamedTuple):
    """How fast this machine trains: forward passes of an image a second; and how many images there are to evaluate."""

    forwards: float
    images: int

    def training(self, config: ExperimentConfig, rounds: int) -> float:
        """Seconds that so many rounds take."""
        return rounds * method.round_cost(config).forwards * config.batch_size / self.forwards

    def evaluation(self, config: ExperimentConfig) -> float:
        """Seconds that the evaluation takes."""
        return self.images * method.evaluation_forwards(config) / self.forwards


def speed(config: ExperimentConfig) -> Speed:
    """Measures a few rounds of a run that is not begun."""
    data = method.data(config)
    return _speed(config, data, _model(config, data), 0, _plan(config, data).rounds)


def train(
    config: ExperimentConfig, callbacks: Callable[[datasets.Dataset], Sequence[keras.callbacks.Callback]]
) -> pt.AdversarialTraining:
    """Trains as `run` does and keeps nothing: for those who look at the training itself.

    Args:
        config: of the run, on one device.
        callbacks: gives what listens, once the data is known.

    Returns:
        The trained model.
    """
    data = method.data(config)
    plan = _plan(config, data)
    model = _model(config, data)
    _print_estimate(config, data, model, plan, 0)
    bar = tracking.ProgressBar(plan.rounds * plan.updates_per_round, 0, plan.updates_per_round)
    with contextlib.closing(bar):
        _fit(config, data, model, plan, 0, [tracking.StopOnDivergence(model.network), bar, *callbacks(data)])
    return model


def _finished(config: ExperimentConfig) -> dict | None:
    """The contents of metrics.json, if this run is to go on and has nothing left to do."""
    path = pathlib.Path(config.run_dir)
    is_finished = (path / METRICS).exists() and not files.unfinished(path).exists()
    if not is_finished or not config.resume or config.overwrite:
        return None
    files.check_same_flags(path, command_line.recorded_flags(config))
    files.check_same_data(path, method.data_fingerprint(config))
    print(f"{path} is finished already.")
    try:
        return files.read_json(path / METRICS)
    except ValueError as error:
        raise ValueError(f"{str(path / METRICS)!r} is damaged: {error}. Give --overwrite to run anew.") from error


def _lead(config: ExperimentConfig, data: datasets.Dataset, model: pt.AdversarialTraining, plan: _Plan) -> dict:
    path, options = pathlib.Path(config.run_dir), {"overwrite": config.overwrite, "resume": config.resume}
    flags, fingerprint = command_line.recorded_flags(config), method.data_fingerprint(config)
    directory = files.RunDirectory(path, flags=flags, data=fingerprint, **options)
    try:
        metrics = _run_in(directory.unfinished, config, data, model, plan)
        directory.commit()
    finally:
        directory.release()
    print(f"Results are in {path}.")
    return metrics


def _follow(config: ExperimentConfig, data: datasets.Dataset, model: pt.AdversarialTraining, plan: _Plan) -> None:
    """Trains with the chief, step by step what `_train` does there, and keeps nothing."""
    distribution.follow_chief(model)
    first_round = int(model.rounds)
    if first_round < plan.rounds:
        _speed(config, data, model, first_round, plan.rounds)
    _fit(config, data, model, plan, first_round, [])


def _run_in(
    directory: pathlib.Path,
    config: ExperimentConfig,
    data: datasets.Dataset,
    model: pt.AdversarialTraining,
    plan: _Plan,
) -> dict:
    seconds = {"training": _train(directory, config, data, model, plan)}
    begun = time.monotonic()
    predictions = _predict(config, data, _in_evaluation_precision(config, data, model.network))
    report = _report(predictions)
    seconds["evaluation"] = time.monotonic() - begun
    metrics = _metrics(config, data, model, report, seconds)
    _write_predictions(directory / PREDICTIONS, predictions)
    examples.write(directory / EXAMPLES, config, model.network, data.train)
    export.export(model.network, directory, config.export)
    files.write_json(directory / METRICS, metrics)
    return metrics


def _plan(config: ExperimentConfig, data: datasets.Dataset) -> _Plan:
    rounds_per_pass = len(data.train.labels) // config.batch_size
    if not rounds_per_pass:
        raise ValueError(
            f"`batch_size` must be at most the number of training images, {len(data.train.labels)}. "
            f"Received: batch_size={config.batch_size}."
        )
    return _Plan(config.rounds, rounds_per_pass, config.round_ratio.updates_per_round)


def _model(config: ExperimentConfig, data: datasets.Dataset) -> pt.AdversarialTraining:
    keras.utils.set_random_seed(config.seed)
    model = method.trainer(config, _network(config, data, config.precision))
    model.optimizer.build(model.trainable_variables)
    return model


def _network(config: ExperimentConfig, data: datasets.Dataset, precision: str) -> keras.Model:
    shape = data.train.images.shape[1:]
    return method.network(config, input_shape=shape, num_classes=data.num_classes, precision=precision)


def _in_evaluation_precision(config: ExperimentConfig, data: datasets.Dataset, network: keras.Model) -> keras.Model:
    """The network, or its twin of the same weights in another precision."""
    if config.eval_precision in ("", config.precision):
        return network
    twin = _network(config, data, config.eval_precision)
    twin.set_weights(network.get_weights())
    return twin


def _train(
    directory: pathlib.Path,
    config: ExperimentConfig,
    data: datasets.Dataset,
    model: pt.AdversarialTraining,
    plan: _Plan,
) -> float:
    """Trains to the end, from the last checkpoint if there is one; gives the seconds it took in all."""
    clock = tracking.Clock()
    checkpoints = tracking.Checkpoints(model, directory / "checkpoints", config.checkpoint_seconds, clock)
    if checkpoints.restore():
        print(f"Going on from update {int(model.rounds) * plan.updates_per_round}.")
    distribution.follow_chief(model)
    first_round = int(model.rounds)
    if first_round < plan.rounds:
        _print_estimate(config, data, model, plan, first_round)
    clock.start()
    history = tracking.History(directory / HISTORY, first_round * plan.updates_per_round, clock)
    bar = tracking.ProgressBar(
        plan.rounds * plan.updates_per_round, first_round * plan.updates_per_round, plan.updates_per_round
    )
    stop = tracking.StopOnSignal(checkpoints)
    patience = _ROUND_OF_WORKERS if distribution.has_workers(model.distribute_strategy) else None
    tensorboard = keras.callbacks.TensorBoard(str(directory / "tensorboard"), write_graph=False)
    callbacks = [tracking.StopOnDivergence(model.network), bar, history, tensorboard, checkpoints, stop]
    with _divergence_placed(model, plan, checkpoints), stop.listening(patience), contextlib.closing(bar):
        _fit(config, data, model, plan, first_round, callbacks)
        stop.end_if_told()
        checkpoints.save()
    model.optimizer.finalize_variable_values(model.trainable_variables)  # the averages, if it keeps any
    return clock.seconds


def _fit(
    config: ExperimentConfig,
    data: datasets.Dataset,
    model: pt.AdversarialTraining,
    plan: _Plan,
    first_round: int,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    with tracking.no_finalization(model.optimizer):
        for epoch, rounds, alike in plan.segments(first_round):
            distribution.fit(
                model,
                _batches(config, data, model, first_round, first_round + rounds * alike),
                initial_epoch=epoch,
                epochs=epoch + alike,
                steps_per_epoch=rounds,
                callbacks=callbacks,
            )
            first_round += rounds * alike


@contextlib.contextmanager
def _divergence_placed(model: pt.AdversarialTraining, plan: _Plan, checkpoints: tracking.Checkpoints) -> Iterator[None]:
    """Says of a divergence where in training it was, and what is left."""
    try:
        yield
    except tracking.Diverged as error:
        kept = checkpoints.updates()
        checkpoint = f"the checkpoint of update {kept[-1]:,} is kept" if kept else "there is no checkpoint before it"
        place = plan.place(int(model.rounds))
        raise ValueError(
            f"training diverged: {error} in {place}; {checkpoint}. Give smaller --learning_rates, with --overwrite or "
            "another --output_dir."
        ) from error


def _batches(
    config: ExperimentConfig, data: datasets.Dataset, model: pt.AdversarialTraining, first_round: int, last_round: int
) -> Iterable:
    batches = datasets.training_batches(
        data.train,
        batch_size=config.batch_size,
        seed=config.seed,
        first_round=first_round,
        num_rounds=last_round,
        pad=config.augment_pad,
        flip=config.augment_flip,
    )
    return distribution.parts(batches, config.batch_size, model.distribute_strategy)


def _print_estimate(
    config: ExperimentConfig, data: datasets.Dataset, model: pt.AdversarialTraining, plan: _Plan, first_round: int
) -> None:
    rounds, gradients = plan.rounds - first_round, method.round_cost(config).gradients
    speed = _speed(config, data, model, first_round, plan.rounds)
    training = speed.training(config, rounds)
    updates = rounds * plan.updates_per_round
    print(
        f"{config.run_dir}: {rounds:,} rounds of {config.round_ratio} = {updates:,} updates, {rounds * gradients:,} "
        f"gradient passes of {config.batch_size} images\n"
        f"measured {config.batch_size * updates / training:,.0f} images/s; estimated {minutes(training)} for training "
        f"and {minutes(speed.evaluation(config))} for evaluation{precision_note(config)}",
        flush=True,
    )


def precision_note(config: ExperimentConfig) -> str:
    """A line for the estimate if this machine computes the wanted precision slowly, else nothing."""
    if config.precision != "mixed_bfloat16" or not machine.emulates_bfloat16():
        return ""
    return (
        "\nThis CPU has no bfloat16 instructions: --precision=float32 is several times as fast here (in a sweep, in a "
        "flag file of your own: --overlay=study.flags,own.flags)."
    )


def _speed(
    config: ExperimentConfig, data: datasets.Dataset, model: pt.AdversarialTraining, first_round: int, last_round: int
) -> Speed:
    """Measures a few real rounds, which are then undone."""
    rounds = min(3, last_round - first_round)
    variables = model.variables + model.optimizer.variables
    before = [variable.numpy() for variable in variables]
    train = distribution.train_function(model)
    iterator = iter(_batches(config, data, model, first_round, first_round + rounds + 1))
    train(iterator)  # traces
    start = time.monotonic()
    for _ in range(rounds):
        train(iterator)
    seconds = (time.monotonic() - start) / rounds
    for variable, value in zip(variables, before):
        variable.assign(value)
    model.reset_metrics()
    per_round = method.round_cost(config).forwards * config.batch_size
    return Speed(per_round / seconds, len(data.train.labels) + len(data.test.labels))


def _predict(config: ExperimentConfig, data: datasets.Dataset, network: keras.Model) -> dict[str, dict]:
    """Predictions by kind of input, then by split: `predictions["natural"]["train"]`."""
    attacks = {"natural": None, "adversarial": method.evaluation_attack(config)}
    splits = {"train": data.train, "test": data.test}
    total = len(attacks) * sum(len(split.labels) for split in splits.values())
    predictions = {}
    with progress.bar(total=total, unit=" images", desc="evaluation") as bar:
        for queries, attack in attacks.items():
            predict = pt.Predictor(pt.accelerate.compute_twin(network), attack)
            predictions[queries] = {
                split: predict(tuple(data), batch_size=config.eval_batch_size, on_batch=bar.update)
                for split, data in splits.items()
            }
    return predictions


def _report(predictions: dict[str, dict]) -> pt.Report:
    figures_by_queries = {
        queries: pt.report.QueryFigures.from_predictions(by_split["train"], by_split["test"], queries)
        for queries, by_split in predictions.items()
    }
    return pt.Report(**figures_by_queries)


def _metrics(
    config: ExperimentConfig,
    data: datasets.Dataset,
    model: pt.AdversarialTraining,
    report: pt.Report,
    seconds: dict[str, float],
) -> dict:
    rounds = int(model.rounds)
    updates = rounds * config.round_ratio.updates_per_round
    cost = method.round_cost(config)
    return {
        **report.to_dict(),
        "hours": seconds["training"] / 3600,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "data": {
            "name": data.name,
            "num_members": len(data.train.labels),
            "num_non_members": len(data.test.labels),
            "fingerprint": method.data_fingerprint(config),
        },
        "cost": {
            "rounds": rounds,
            "updates": updates,
            "gradient_passes": rounds * cost.gradients,
            "forward_units": rounds * cost.forwards,
            "parameters": model.network.count_params(),
            "flops_per_forward": networks.forward_flops(model.network),
        },
        "flags": config.to_dict(without=(*command_line.NOT_RECORDED, "output_dir")),
        "machine": machine.description(),
        "versions": {
            "pineat_tf": pt.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def _write_predictions(path: pathlib.Path, predictions: dict[str, dict]) -> None:
    arrays = {f"{split}_label": predictions["natural"][split].labels for split in ("train", "test")}
    for queries, by_split in predictions.items():
        for split, predicted in by_split.items():
            arrays[f"logits_{split}_{QUERIES[queries]}"] = predicted.logits
    with files.replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
