"""The flags of a sweep: its rows, seeds and finished runs, and where results go."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
from absl import flags

from experiments import command_line, cost, files, results
from experiments.sweep import executors, grid
from pineat_tf.checks import check_choice, check_count
from pineat_tf.report import markdown_table


class Sweep(NamedTuple):
    """A grid of runs, and how its results are presented.

    Attributes:
        rows: those that --only leaves.
        runs: those that are done.
        output_dir: where tables, pictures and report go.
        title: headline of tables and report.
        name: what their files are called.
        references: labels of the rows that those of their group are tested against.
        jobs: how many runs are trained at once.
        executor: where they are trained.
        dry_run: print the grid and its cost, and run nothing.
        tables_only: lay out what is done, and run nothing.
    """

    rows: list[grid.Row]
    runs: results.Runs
    output_dir: pathlib.Path
    title: str
    name: str
    references: tuple[str, ...]
    jobs: int
    executor: str
    dry_run: bool
    tables_only: bool

    def pending(self) -> list[executors.Job]:
        """The runs that have no record, seed by seed, so that every row has its first before any has its second."""
        by_seed = zip(*(row.configs for row in self.rows))
        jobs = [
            executors.Job(f"{row.slug}-seed{config.seed}", config, row.group, row.label)
            for configs in by_seed
            for row, config in zip(self.rows, configs)
        ]
        return [job for job in jobs if self.runs.find(job.config) is None]

    def finished(self) -> pd.DataFrame:
        """The runs that are done, as `results.tidy` has them, under the groups and labels of the rows."""
        pairs = [(row, config) for row in self.rows for config in row.configs]
        found = [(row, config, run) for row, config in pairs if (run := self.runs.find(config)) is not None]
        runs = [{**run, "group": row.group, "label": row.label} for row, _, run in found]
        return results.tidy(runs, [config for _, config, _ in found])

    def grid_text(self) -> str:
        """The grid as a table: each row with its runs, the number of those done, and the cost of one."""
        lines = [("row", "runs", "done", "updates", "gradient passes", "forward passes of an image")]
        for row in self.rows:
            done, config = sum(self.runs.find(config) is not None for config in row.configs), row.configs[0]
            costs = (config.scaled_updates, cost.gradient_passes(config), cost.forwards(config))
            lines.append((row.title, *(f"{count:,}" for count in (len(row.configs), done, *costs))))
        return markdown_table(lines)


def define_flags(values: flags.FlagValues) -> None:
    """Defines the flags of a sweep."""
    own = {"flag_values": values}
    flags.DEFINE_multi_string("row", [], "GROUP | LABEL | FILES FLAGS: one method. Give one for each.", **own)
    flags.DEFINE_list("overlay", [], "Flag files to read after those of every row.", **own)
    flags.DEFINE_string("seeds", "0", "Each row runs with these: 0,1,2 or 0-4.", **own)
    flags.DEFINE_list("reference", ["Original"], "Labels of the rows to test those of their group against.", **own)
    flags.DEFINE_string("title", "Sweep", "Headline of the tables and the report.", **own)
    flags.DEFINE_string("name", "table", "What the files of tables and report are called.", **own)
    flags.DEFINE_string("output_dir", "runs/sweep", "Where tables and report go.", **own)
    flags.DEFINE_string("runs_file", "", "CSV file of finished runs; empty for runs.csv in the output_dir.", **own)
    flags.DEFINE_string("run_dir", "", "Run directories; empty for runs/ in the output_dir.", **own)
    flags.DEFINE_list("only", [], "Run and show only rows whose title fits a pattern, as in 'PGD *,Natural'.", **own)
    flags.DEFINE_integer("jobs", 1, "How many runs are trained at once.", **own)
    flags.DEFINE_string("executor", "local", "Processes of this machine (local), or a cluster (ray, dask).", **own)
    flags.DEFINE_bool("dry_run", False, "Print the grid and its cost, and run nothing.", **own)
    flags.DEFINE_bool("tables_only", False, "Lay out what is done, and run nothing.", **own)


def from_flags(values: flags.FlagValues) -> Sweep:
    """The sweep that the flags describe.

    Raises:
        ValueError: if a flag is out of its range, a row is no run, or two rows have one title.
    """
    check_choice("executor", values.executor, executors.EXECUTORS)
    check_count("jobs", values.jobs, 1, "It is how many runs are trained at once.")
    files.check_name(values.name)
    output_dir = pathlib.Path(values.output_dir).expanduser()
    rows = _rows(values, str(values.run_dir or output_dir / "runs"))
    if values["reference"].present:
        grid.check_references(values.reference, [row.label for row in rows], "the labels of the rows")
    return Sweep(
        rows=grid.select(rows, [pattern for pattern in values.only if pattern]),
        runs=results.Runs(pathlib.Path(values.runs_file or output_dir / "runs.csv").expanduser()),
        output_dir=output_dir,
        title=values.title,
        name=values.name,
        references=tuple(values.reference),
        jobs=values.jobs,
        executor=values.executor,
        dry_run=values.dry_run,
        tables_only=values.tables_only,
    )


def read(argv: Sequence[str], intro: str) -> Sweep | None:
    """Reads a command line; None if it asks for help, which is then printed."""
    values = flags.FlagValues()
    define_flags(values)
    is_to_go_on = command_line.parsed(values, command_line.expand_flagfiles(argv), intro)
    return from_flags(values) if is_to_go_on else None


def _rows(values: flags.FlagValues, run_dir: str) -> list[grid.Row]:
    """The rows of all flag files; one that several of them hold alike counts once."""
    if not values.row:
        raise ValueError("a sweep needs rows: give e.g. --flagfile=table1_fmnist.flags, or --row; see --helpshort")
    seeds, overlays = grid.parse_seeds(values.seeds), [name for name in values.overlay if name]
    by_slug: dict[str, grid.Row] = {}
    for text in values.row:
        row = grid.parse_row(text, overlays=overlays, seeds=seeds, output_dir=run_dir)
        other = by_slug.setdefault(row.slug, row)
        if other.title != row.title:
            raise ValueError(
                "rows need titles that differ in letters a to z, digits or dots, as their runs are called by them; "
                f"{other.title!r} and {row.title!r} would both be {row.slug!r}"
            )
        if other != row:
            raise ValueError(
                f"rows need titles of their own; there are two of {row.title!r} with other flags or groups"
            )
    return list(by_slug.values())
