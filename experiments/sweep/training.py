"""Many runs trained with a progress bar, after an estimate, and ended in order when the command is."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf

from experiments import cost, progress
from experiments.config import ExperimentConfig
from experiments.signals import InterruptedRun
from experiments.sweep import executors

_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed} spent, {remaining} to go"


def print_estimate(configs: Sequence[ExperimentConfig]) -> None:
    """Says what runs will cost, of which there is at least one."""
    for gpu in tf.config.list_physical_devices("GPU"):  # else the estimate would leave the runs no memory
        tf.config.experimental.set_memory_growth(gpu, True)
    print(cost.estimate_all(configs), flush=True)


def train(
    jobs: Sequence[executors.Job], executor: str, num_processes: int, keep: Callable[[str, dict], None]
) -> list[executors.Outcome]:
    """Trains what is to be trained.

    Args:
        jobs: what to run.
        executor: one of `executors.EXECUTORS`.
        num_processes: how many run at once.
        keep: called as each run ends with its name and the contents of its metrics.json.

    Returns:
        Those that failed.

    Raises:
        ValueError: before any begins, if the directory of one holds a run with other flags.
    """
    if not jobs:
        return []
    executors.check_directories(jobs)
    execute = executors.run_ray if executor == "ray" else executors.run_local
    weights = {job.name: cost.forwards(job.config) for job in jobs}
    failed = []
    bar = progress.bar(total=sum(weights.values()), desc=f"0/{len(jobs)} runs", bar_format=_BAR)
    with _telling_how_to_go_on(), bar:
        for done, outcome in enumerate(execute(jobs, num_processes), start=1):
            if outcome.metrics is None:
                failed.append(outcome)
                bar.write(f"{outcome.job.name} failed: {outcome.error}", file=sys.stderr)
            else:
                keep(outcome.job.name, outcome.metrics)
            bar.set_description_str(f"{done}/{len(jobs)} runs", refresh=False)
            bar.update(weights[outcome.job.name])
    return failed


def check_none(failed: Sequence[executors.Outcome], of: int) -> None:
    """Raises `ValueError` if any of so many runs failed."""
    if failed:
        names = "; ".join(f"{outcome.job.name}: {outcome.error}" for outcome in failed[:3])
        raise ValueError(f"{len(failed)} of {of} runs failed ({names}). Give the command again to go on.")


@contextlib.contextmanager
def _telling_how_to_go_on() -> Iterator[None]:
    try:
        yield
    except InterruptedRun as interrupted:
        raise InterruptedRun("give the same command to go on.", interrupted.exit_code) from None
