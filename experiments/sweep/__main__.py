"""Runs a grid of experiments and lays its results out, beside those of the paper.

    python -m experiments.sweep --flagfile=table1_fmnist.flags
    python -m experiments.sweep --flagfile=table1_fmnist.flags --overlay=study.flags --seeds=0-4 --jobs=2

A row is a method, run once with every seed. Runs that are done are not done again: give the same command to go on.
Results: runs.csv, a line a run, then tables (.md, .csv), pictures (.png) and a report (.html) under --name.
"""

import sys

from experiments import command_line, cost
from experiments.sweep import executors, outputs, plan
from pineat_tf import accelerate


@command_line.program
def main(argv: list[str]) -> None:
    """Does what a command line says."""
    sweep = plan.read(argv, __doc__)
    if sweep is None:
        return
    pending = sweep.pending()
    total = sum(len(row.configs) for row in sweep.rows)
    print(f"{len(sweep.rows)} rows, {total} runs, of which {total - len(pending)} are done.")
    if sweep.tables_only:
        if len(pending) == total:
            raise ValueError("--tables_only lays out what is done, which is nothing yet. Leave it out to run.")
        pending = []
    if pending:
        cost.print_estimate([job.config for job in pending])
    if sweep.dry_run:
        print(sweep.grid_text())
        return
    outputs.check_writable(sweep.output_dir, sweep.name)  # rather now than after hours
    sweep.runs.check_writable()
    failed = executors.train(pending, sweep.executor, sweep.jobs, sweep.runs)
    runs = sweep.finished()
    if len(runs):
        outputs.write(runs, sweep.output_dir, name=sweep.name, title=sweep.title, references=sweep.references)
        print(f"Tables and report are in {sweep.output_dir}.")
    executors.check_none(failed, len(pending))


if __name__ == "__main__":
    accelerate.set_threads()
    sys.exit(main())
