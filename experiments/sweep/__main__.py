"""Runs a grid of experiments and lays its results out, beside those of the paper.

    python -m experiments.sweep --flagfile=table1_fmnist.flags
    python -m experiments.sweep --flagfile=table1_fmnist.flags --overlay=study.flags --seeds=0-4 --jobs=2

A row is a method, run once with every seed. Runs that are done are not done again: give the same command to go on.
Results: records/*.json, one a run, then tables (.md, .csv), pictures (.png) and a report (.html) under --name.
"""

import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence

import tensorflow as tf
from tqdm.auto import tqdm

from experiments import command_line, cost
from experiments.sweep import executors, outputs, plan
from pineat_tf import cpu

_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed} spent, {remaining} to go"


def main(argv: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: program name and arguments; `sys.argv` if None.

    Returns:
        The exit code: 0, 2 for bad input or runs that failed, 130 for Ctrl-C, 143 for SIGTERM.
    """
    return command_line.guarded(_run, argv)


def _run(argv: list[str]) -> None:
    sweep = plan.read(argv, __doc__)
    if sweep is None:
        return
    pending = sweep.pending()
    total = sum(len(row.configs) for row in sweep.rows)
    print(f"{len(sweep.rows)} rows, {total} runs, of which {total - len(pending)} are done.")
    if sweep.tables_only:
        pending = []
    if pending:
        for gpu in tf.config.list_physical_devices("GPU"):  # else the estimate would leave the runs no memory
            tf.config.experimental.set_memory_growth(gpu, True)
        print(cost.estimate([job.config for job in pending]), flush=True)
    if sweep.dry_run:
        print(outputs.grid_text(sweep.rows, sweep.records))
        return
    with _ending_in_order():
        failed = _execute(sweep, pending)
    if outputs.write(sweep):
        print(f"Tables and report are in {sweep.output_dir}.")
    if failed:
        names = "; ".join(f"{outcome.job.name}: {outcome.error}" for outcome in failed[:3])
        raise ValueError(f"{len(failed)} of {len(pending)} runs failed ({names}). Give the command again to go on.")


def _execute(sweep: plan.Sweep, pending: Sequence[executors.Job]) -> list[executors.Outcome]:
    """Runs what is pending and keeps a record of each as it ends; gives those that failed."""
    if not pending:
        return []
    execute = executors.run_ray if sweep.executor == "ray" else executors.run_local
    weights = {job.name: cost.forwards(job.config) for job in pending}
    failed = []
    with tqdm(total=sum(weights.values()), desc=f"0/{len(pending)} runs", bar_format=_BAR) as bar:
        for done, outcome in enumerate(execute(pending, sweep.jobs), start=1):
            if outcome.metrics is None:
                failed.append(outcome)
                bar.write(f"{outcome.job.name} failed: {outcome.error}", file=sys.stderr)
            else:
                sweep.records.add(outcome.job.name, outcome.metrics)
            bar.set_description_str(f"{done}/{len(pending)} runs", refresh=False)
            bar.update(weights[outcome.job.name])
    return failed


@contextlib.contextmanager
def _ending_in_order() -> Iterator[None]:
    """Makes SIGTERM an exception, so that runs at work are told to keep a checkpoint and end."""

    def stop(number: int, frame: object) -> None:
        raise command_line.InterruptedRun("give the same command to go on", 128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    cpu.set_threads()
    sys.exit(main())
