"""Many runs trained at once, each in a process of its own: on this machine, or on a cluster by joblib's backends."""

import contextlib
import functools
import getpass
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import filelock
import joblib
import tensorflow as tf
from tqdm import tqdm

from experiments import child, command_line, cost, files, machine, progress, results, signals
from experiments.config import ExperimentConfig
from pineat_tf import accelerate

EXECUTORS = ("local", "ray", "dask")
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed} spent, {remaining} to go"
_HINT = "Name another --output_dir or --run_dir, or remove it."


class Job(NamedTuple):
    """One run to do: its name, its config, and the row that it is of."""

    name: str
    config: ExperimentConfig
    group: str
    label: str


class Outcome(NamedTuple):
    """How a job ended: with the contents of its metrics.json, or with the line that says what went wrong."""

    job: Job
    metrics: dict | None
    error: str


def train(jobs: Sequence[Job], executor: str, num: int, runs: results.Runs) -> list[Outcome]:
    """Trains what is to be trained, with a progress bar. Interrupted, it lets runs at work keep a checkpoint.

    Args:
        jobs: what to run.
        executor: one of `EXECUTORS`.
        num: how many run at once.
        runs: keeps the figures of each run as it ends.

    Returns:
        Those that failed.

    Raises:
        ValueError: before any begins, if the directory of one holds a run with other flags, or the executor is not
            installed.
    """
    _check_directories(jobs)
    costs = {job.name: cost.forwards(job.config) for job in jobs}
    failed: list[Outcome] = []
    if not jobs:
        return failed
    bar = progress.bar(total=sum(costs.values()), desc=f"0/{len(jobs)} runs", bar_format=_BAR)
    with _telling_how_to_go_on(), bar, _outcomes(jobs, executor, num) as outcomes:
        for done, outcome in enumerate(outcomes, start=1):
            if outcome.metrics is None:
                failed.append(outcome)
                bar.write(f"{outcome.job.name} failed: {outcome.error}", file=sys.stderr)
            else:
                runs.add(outcome.job.group, outcome.job.label, outcome.metrics)
            bar.set_description_str(f"{done}/{len(jobs)} runs", refresh=False)
            bar.update(costs[outcome.job.name])
    return failed


def check_none(failed: Sequence[Outcome], of: int) -> None:
    """Raises `ValueError` if any of so many runs failed."""
    if failed:
        names = "; ".join(f"{outcome.job.name}: {outcome.error}" for outcome in failed[:3])
        raise ValueError(f"{len(failed)} of {of} runs failed ({names}). Give the command again to go on.")


class AtWork:
    """The runs at work in this process, so that they can be told to end."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self._processes: set[subprocess.Popen] = set()

    def wait(self, process: subprocess.Popen) -> int:
        """Waits for a run; gives its exit code."""
        self._processes.add(process)
        if self.stopping.is_set():  # in between
            process.terminate()
        try:
            return process.wait()
        finally:
            self._processes.discard(process)

    def stop(self) -> None:
        """Sends SIGTERM to all of them and waits until they have kept their checkpoints."""
        self.stopping.set()
        processes = list(self._processes)
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


_at_work = AtWork()


def run(job: Job, num_shares: int) -> Outcome:
    """Runs a job in a process of its own, on a share of this machine's cores, and of its GPUs if there are any.

    What it prints goes into a file beside its directory.

    Args:
        job: what to run.
        num_shares: into how many shares the cores are divided.
    """
    tell = functools.partial(tqdm.write, file=sys.stderr)
    files.wait_until_free(job.config.run_dir, tell, _at_work.stopping)  # of a run whose sweep was killed, say
    if _at_work.stopping.is_set():
        return Outcome(job, None, "not begun")
    log, errors = (pathlib.Path(f"{job.config.run_dir}.{suffix}") for suffix in ("log", "error"))
    log.parent.mkdir(parents=True, exist_ok=True)
    flags = [*command_line.recorded_flags(job.config).splitlines(), "--resume"]
    with _share_of_the_machine(num_shares) as environment, open(log, "a", encoding="utf-8") as output:
        with child.start(flags, errors=errors, output=output, environment=environment) as process:
            code = _at_work.wait(process)
    if code in (128 + number for number in signals.ENDING) or -code in signals.ENDING:
        return Outcome(job, None, "stopped")
    if code:
        return Outcome(job, None, child.why_it_failed(code, errors))
    try:
        return Outcome(job, results.read_metrics(pathlib.Path(job.config.run_dir, results.METRICS)), "")
    except (OSError, ValueError) as error:
        return Outcome(job, None, str(error))


@contextlib.contextmanager
def _outcomes(jobs: Sequence[Job], executor: str, num: int) -> Iterator[Iterator[Outcome]]:
    """Outcomes as runs end. When the context is left early, runs at work get SIGTERM, keep a checkpoint and end."""
    global _at_work
    _at_work = AtWork()
    with _backend(executor, num) as num_nodes, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="joblib")  # of a sweep that is broken off, which says so itself
        parallel = joblib.Parallel(n_jobs=num, return_as="generator_unordered", batch_size=1, pre_dispatch="all")
        outcomes = parallel(joblib.delayed(run)(job, -(-num // num_nodes)) for job in jobs)
        try:
            yield outcomes
        finally:
            _at_work.stop()
            outcomes.close()


@contextlib.contextmanager
def _backend(executor: str, num: int) -> Iterator[int]:
    """Lets joblib use an executor; gives the number of machines."""
    if executor == "local":
        with joblib.parallel_config(backend="threading"):
            yield 1
        return
    if num < 2:
        raise ValueError(f"--executor={executor} is for several runs at once on a cluster. Give --jobs, at least 2.")
    at_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        num_nodes, disconnect = {"ray": _connect_to_ray, "dask": _connect_to_dask}[executor](num)
    except ImportError as error:
        raise ValueError(f"--executor={executor} needs a package ({error}): pip install '.[{executor}]'") from None
    try:
        signal.signal(signal.SIGTERM, at_sigterm)  # Ray's own handler aborts the process
        with joblib.parallel_config(backend=executor):
            yield num_nodes
    finally:
        disconnect()


def _connect_to_ray(num: int) -> tuple[int, Callable[[], None]]:
    """Joins the cluster of `RAY_ADDRESS`, or begins one on this machine."""
    import ray
    from ray.util.joblib.ray_backend import RayBackend

    class Backend(RayBackend):
        supports_return_generator = True  # the pool outlives the call, as that of threads does

    joblib.register_parallel_backend("ray", Backend)
    ray.init(ignore_reinit_error=True, log_to_driver=False)
    return sum(node["Alive"] for node in ray.nodes()), ray.shutdown


def _connect_to_dask(num: int) -> tuple[int, Callable[[], None]]:
    """Joins the cluster of `DASK_SCHEDULER_ADDRESS`, or begins one on this machine."""
    import dask.config
    import dask.distributed

    own = {} if dask.config.get("scheduler-address", None) else {"n_workers": num, "threads_per_worker": 1}
    client = dask.distributed.Client(**own)
    return len({worker["host"] for worker in client.scheduler_info()["workers"].values()}) or 1, client.shutdown


@contextlib.contextmanager
def _share_of_the_machine(num: int) -> Iterator[dict[str, str]]:
    """Keeps this thread, and the processes that it starts, to cores that no other run has.

    Args:
        num: into how many shares the cores are divided.

    Yields:
        The environment of a process, which names the GPU that goes with the cores.
    """
    cores = accelerate.cores()
    gpus = len(tf.config.list_physical_devices("GPU"))
    folder = pathlib.Path(tempfile.gettempdir(), f"pineat_tf-{getpass.getuser()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    environment = dict(os.environ)
    with contextlib.ExitStack() as stack:
        for number in range(num):
            with contextlib.suppress(filelock.Timeout):
                stack.enter_context(filelock.FileLock(folder / f"share{number}of{num}.lock", timeout=0))
                stack.enter_context(machine.kept_to(cores[number % len(cores) :: num]))
                if gpus:
                    environment["CUDA_VISIBLE_DEVICES"] = str(number % gpus)
                break
        yield environment


def _check_directories(jobs: Sequence[Job]) -> None:
    """Raises `ValueError` if the directory of a job holds a run with other flags, or there cannot be such a one."""
    for job in jobs:
        files.check_committable(job.config.run_dir)
        path, flags = pathlib.Path(job.config.run_dir), command_line.recorded_flags(job.config)
        may_differ = command_line.MAY_DIFFER
        files.check_same_flags(files.unfinished(path), flags, may_differ=may_differ, hint=_HINT)
        files.check_same_flags(path, flags, may_differ=may_differ - {"export"}, hint=_HINT)  # it is not exported again


@contextlib.contextmanager
def _telling_how_to_go_on() -> Iterator[None]:
    try:
        yield
    except signals.InterruptedRun as interrupted:
        raise signals.InterruptedRun("give the same command to go on.", interrupted.exit_code) from None
