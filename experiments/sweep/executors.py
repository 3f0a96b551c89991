"""Where runs are executed: processes of this machine, or a Ray cluster."""

import concurrent.futures
import contextlib
import functools
import getpass
import os
import pathlib
import queue
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import filelock
import tensorflow as tf
from tqdm import tqdm

from experiments import child, command_line, files, signals
from experiments.config import ExperimentConfig
from experiments.sweep import records

EXECUTORS = ("local", "ray")
_HINT = "Name another --output_dir or --run_dir, or remove it."


class Job(NamedTuple):
    """One run to do: its name and its config."""

    name: str
    config: ExperimentConfig


class Outcome(NamedTuple):
    """What became of a job: the contents of its metrics.json, or the line that says what went wrong."""

    job: Job
    metrics: dict | None
    error: str


def check_directories(jobs: Sequence[Job]) -> None:
    """Raises `ValueError` if the directory of a job holds a run with other flags, or there cannot be such a one."""
    for job in jobs:
        files.check_committable(job.config.run_dir)
        path, flags = pathlib.Path(job.config.run_dir), command_line.recorded_flags(job.config)
        for directory in (path, files.unfinished(path)):
            files.check_same_flags(directory, flags, hint=_HINT)


def run_local(jobs: Sequence[Job], num_processes: int) -> Iterator[Outcome]:
    """Runs jobs in processes of this machine, each on its share of the cores, and of the GPUs if there are any.

    Each run writes what it says into a file beside its directory. When the iterator is closed early, runs at work
    get SIGTERM, keep a checkpoint and end.

    Args:
        jobs: what to run, in this order.
        num_processes: how many run at once.

    Yields:
        An outcome as each run ends.
    """
    places: queue.SimpleQueue[_Place] = queue.SimpleQueue()
    for place in _places(num_processes):
        places.put(place)
    stopping, processes = threading.Event(), set()

    def run(job: Job) -> Outcome:
        place = places.get()
        try:
            return _run_process(job, place, stopping, processes)
        finally:
            places.put(place)

    with concurrent.futures.ThreadPoolExecutor(num_processes) as pool:
        futures = [pool.submit(run, job) for job in jobs]
        try:
            for future in concurrent.futures.as_completed(futures):
                yield future.result()
        finally:
            stopping.set()
            for future in futures:
                future.cancel()
            for process in list(processes):
                process.terminate()


def run_ray(jobs: Sequence[Job], num_processes: int) -> Iterator[Outcome]:
    """Runs jobs on a Ray cluster: that of `RAY_ADDRESS` or of this machine, or a new one on this machine.

    Every node needs this package and the data. Figures come back to the driver; networks and pictures stay in the
    run directories of the nodes.

    Args:
        jobs: what to run.
        num_processes: by how many parts the cores of a node are divided, one for each run.

    Yields:
        An outcome as each run ends.

    Raises:
        ValueError: if Ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise ValueError("--executor=ray needs Ray: pip install 'pineat_tf[ray]'") from None
    at_sigterm = signal.getsignal(signal.SIGTERM)
    ray.init(ignore_reinit_error=True, log_to_driver=False)
    signal.signal(signal.SIGTERM, at_sigterm)  # Ray's own aborts the process
    nodes = [node for node in ray.nodes() if node["Alive"]]
    cores = max(1, int(min(node["Resources"].get("CPU", 1) for node in nodes)) // num_processes)
    gpus = 1 if ray.cluster_resources().get("GPU") else 0
    task = ray.remote(num_cpus=cores, num_gpus=gpus, max_retries=2)(_run_anywhere)
    references = [task.remote(job, cores) for job in jobs]
    futures = {reference.future(): job for reference, job in zip(references, jobs)}
    try:
        for future in concurrent.futures.as_completed(futures):  # in ray.wait, SIGTERM would wait too
            try:
                yield Outcome(futures[future], *future.result())
            except ray.exceptions.RayError as error:
                yield Outcome(futures[future], None, " ".join(str(error).split())[:300])
    finally:
        for reference in references:
            ray.cancel(reference)
        ray.shutdown()


class _Place(NamedTuple):
    """Where one process works: its cores, and which GPU it sees ("" for none or all)."""

    cores: frozenset[int]
    gpu: str


def _places(num_processes: int) -> list[_Place]:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    gpus = len(tf.config.list_physical_devices("GPU"))
    shares = [frozenset(cores[i % max(1, len(cores)) :: num_processes]) for i in range(num_processes)]
    return [_Place(share, str(i % gpus) if gpus else "") for i, share in enumerate(shares)]


def _run_process(job: Job, place: _Place, stopping: threading.Event, processes: set) -> Outcome:
    tell = functools.partial(tqdm.write, file=sys.stderr)
    files.wait_until_free(job.config.run_dir, tell, stopping)  # of a run whose sweep was killed, say
    if stopping.is_set():
        return Outcome(job, None, "not begun")
    if place.cores:
        os.sched_setaffinity(0, place.cores)  # of this thread, whose child has it too
    environment = os.environ | ({"CUDA_VISIBLE_DEVICES": place.gpu} if place.gpu else {})
    log, errors = (pathlib.Path(f"{job.config.run_dir}.{suffix}") for suffix in ("log", "error"))
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", encoding="utf-8") as output:  # another sweep's run may be writing to it
        with child.start(_flags(job.config), errors=errors, output=output, environment=environment) as process:
            processes.add(process)
            if stopping.is_set():  # in between
                process.terminate()
            try:
                code = process.wait()
            finally:
                processes.discard(process)
    return Outcome(job, *_result(job.config, code, errors))


def _run_anywhere(job: Job, cores: int) -> tuple[dict | None, str]:
    """A job as a Ray task, on whatever node: its figures, or what went wrong."""
    with tempfile.TemporaryDirectory() as directory, _on_cores_of_its_own(cores):
        errors = pathlib.Path(directory, "error")
        with open(pathlib.Path(directory, "log"), "w", encoding="utf-8") as output:
            with child.start(_flags(job.config), errors=errors, output=output) as process:
                code = process.wait()
        return _result(job.config, code, errors)


@contextlib.contextmanager
def _on_cores_of_its_own(num: int) -> Iterator[None]:
    """Keeps this process, and those it starts, to so many cores of the node that no other run of a cluster has."""
    before = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    folder = pathlib.Path(tempfile.gettempdir(), f"pineat_tf-{getpass.getuser()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    with contextlib.ExitStack() as stack:
        for share in (before[i : i + num] for i in range(0, len(before) - num + 1, num)):
            with contextlib.suppress(filelock.Timeout):
                stack.enter_context(filelock.FileLock(folder / f"core{share[0]}.lock", timeout=0))
                os.sched_setaffinity(0, share)
                stack.callback(os.sched_setaffinity, 0, before)
                break
        yield


def _flags(config: ExperimentConfig) -> list[str]:
    return [*command_line.recorded_flags(config).splitlines(), "--resume"]


def _result(config: ExperimentConfig, code: int, errors: pathlib.Path) -> tuple[dict | None, str]:
    if code == 0:
        try:
            return records.read(pathlib.Path(config.run_dir, "metrics.json")), ""
        except (OSError, ValueError) as error:
            return None, str(error)
    if code in (128 + number for number in signals.ENDING) or -code in signals.ENDING:
        return None, "stopped"
    return None, child.why_it_failed(code, errors)
