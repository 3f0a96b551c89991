"""Runs a grid of experiments and lays its results out, beside those of the paper.

    python -m experiments.sweep --flagfile=table1_fmnist.flags
    python -m experiments.sweep --flagfile=table1_fmnist.flags --overlay=small.flags --seeds=0-4 --jobs=2

A row is a method, run once with every seed. Runs that are done are not done again: give the same command to go on.
Results: records/*.json, one a run, then table.md, table.csv, pareto.png and report.html.
"""

import pathlib
import sys
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from absl import flags
from tqdm.auto import tqdm

from experiments import command_line, cost
from experiments.sweep import executors, grid, outputs
from experiments.sweep.records import Records
from pineat_tf import cpu
from pineat_tf.checks import check_choice, check_count


class _Sweep(NamedTuple):
    """What the command line asks for."""

    rows: list[grid.Row]
    records: Records
    output_dir: pathlib.Path
    layout: outputs.Layout
    jobs: int
    executor: str
    dry_run: bool

    def pending(self) -> list[executors.Job]:
        """The runs that have no record, seed by seed, so that every row has its first before any has its second."""
        by_seed = zip(*(row.configs for row in self.rows))
        jobs = [
            executors.Job(f"{row.slug}-seed{config.seed}", config)
            for configs in by_seed
            for row, config in zip(self.rows, configs)
        ]
        return [job for job in jobs if self.records.find(job.config) is None]


def main(argv: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: program name and arguments; `sys.argv` if None.

    Returns:
        The exit code: 0, 2 for bad input or runs that failed, 130 for Ctrl-C, 143 for SIGTERM.
    """
    return command_line.guarded(_run, argv)


def _run(argv: list[str]) -> None:
    values = _flags()
    rest = values(command_line.expand_flagfiles(argv))[1:]
    if values.help or values.helpshort:
        print(_usage(values))
        return
    if rest:
        raise ValueError(f"there is no use for {rest}; flags begin with --. See --helpshort.")
    sweep = _sweep(values)
    pending = sweep.pending()
    total = sum(len(row.configs) for row in sweep.rows)
    print(f"{len(sweep.rows)} rows, {total} runs, of which {total - len(pending)} are done.")
    if pending:
        print(cost.estimate([job.config for job in pending]), flush=True)
    if sweep.dry_run:
        print(outputs.grid_text(sweep.rows, sweep.records))
        return
    failed = _execute(sweep, pending)
    if len(sweep.records):
        outputs.write(sweep.output_dir, sweep.rows, sweep.records, sweep.layout)
        print(f"Tables and report are in {sweep.output_dir}.")
    if failed:
        names = "; ".join(f"{outcome.job.name}: {outcome.error}" for outcome in failed[:3])
        raise ValueError(f"{len(failed)} of {len(pending)} runs failed ({names}). Give the command again to go on.")


def _execute(sweep: _Sweep, pending: Sequence[executors.Job]) -> list[executors.Outcome]:
    """Runs what is pending and keeps a record of each as it ends; gives those that failed."""
    if not pending:
        return []
    execute = executors.run_ray if sweep.executor == "ray" else executors.run_local
    weights = {job.name: cost.forwards(job.config) for job in pending}
    failed, outcomes = [], execute(pending, sweep.jobs)
    with tqdm(total=sum(weights.values()), desc=f"0/{len(pending)} runs", bar_format=_BAR) as bar:
        for done, outcome in enumerate(outcomes, start=1):
            if outcome.metrics is None:
                failed.append(outcome)
                bar.write(f"{outcome.job.name} failed: {outcome.error}", file=sys.stderr)
            else:
                sweep.records.add(outcome.job.name, outcome.metrics)
            bar.set_description(f"{done}/{len(pending)} runs", refresh=False)
            bar.update(weights[outcome.job.name])
    return failed


_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed} spent, {remaining} to go"


def _sweep(values: flags.FlagValues) -> _Sweep:
    check_choice("executor", values.executor, executors.EXECUTORS)
    check_count("jobs", values.jobs, 1, "It is how many runs are trained at once.")
    output_dir = pathlib.Path(values.output_dir).expanduser()
    seeds, overlays = grid.parse_seeds(values.seeds), [name for name in values.overlay if name]
    if not values.row:
        raise ValueError("a sweep needs rows: give e.g. --flagfile=table1_fmnist.flags, or --row; see --helpshort")
    run_dir = str(values.run_dir or output_dir / "runs")
    rows = [grid.parse_row(text, overlays=overlays, seeds=seeds, output_dir=run_dir) for text in values.row]
    slugs = [row.slug for row in rows]
    if twice := sorted({slug for slug in slugs if slugs.count(slug) > 1}):
        raise ValueError(f"rows need titles of their own; there are several of {', '.join(twice)}")
    layout = outputs.Layout(title=values.title, name=values.name, references=tuple(values.reference))
    return _Sweep(
        rows=grid.select(rows, [pattern for pattern in values.only if pattern]),
        records=Records(pathlib.Path(values.records_dir or output_dir / "records").expanduser()),
        output_dir=output_dir,
        layout=layout,
        jobs=values.jobs,
        executor=values.executor,
        dry_run=values.dry_run,
    )


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    own = {"flag_values": values}
    flags.DEFINE_multi_string("row", [], "GROUP | LABEL | FILES FLAGS: one method. Give one for each.", **own)
    flags.DEFINE_list("overlay", [], "Flag files to read after those of every row.", **own)
    flags.DEFINE_string("seeds", "0", "Each row runs with these: 0,1,2 or 0-4.", **own)
    flags.DEFINE_list(
        "reference", ["Original"], "Labels of the rows that those of their group are tested against.", **own
    )
    flags.DEFINE_string("title", "Sweep", "Headline of the tables and the report.", **own)
    flags.DEFINE_string("name", "table", "What the files of tables and report are called.", **own)
    flags.DEFINE_string("output_dir", "runs/sweep", "Where tables and report go.", **own)
    flags.DEFINE_string("records_dir", "", "Records of finished runs; empty for records/ in the output_dir.", **own)
    flags.DEFINE_string("run_dir", "", "Run directories; empty for runs/ in the output_dir.", **own)
    flags.DEFINE_list("only", [], "Run and show only rows whose title fits a pattern, as in 'PGD *,Natural'.", **own)
    flags.DEFINE_integer("jobs", 1, "How many runs are trained at once.", **own)
    flags.DEFINE_string("executor", "local", "Processes of this machine (local) or a cluster (ray).", **own)
    flags.DEFINE_bool("dry_run", False, "Print the grid and its cost, and run nothing.", **own)
    for name in ("help", "helpshort"):
        flags.DEFINE_bool(name, False, "Print this text.", **own)
    return values


def _usage(values: flags.FlagValues) -> str:
    lines = [__doc__.strip(), ""]
    for name in values:
        if name not in ("help", "helpshort"):
            lines += textwrap.wrap(
                f"--{name}: {values[name].help}", 100, initial_indent="  ", subsequent_indent=" " * 6
            )
    return "\n".join(lines)


if __name__ == "__main__":
    cpu.set_threads()
    sys.exit(main())
