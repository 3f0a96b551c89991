"""The grid of a sweep: rows of flags, each run with every seed."""

import dataclasses
import fnmatch
import re
import shlex
from collections.abc import Sequence

from experiments import command_line
from experiments.config import ExperimentConfig

_ROW = "--row='GROUP | LABEL | FILES FLAGS', as in 'PGD | PINEAT-1/1 | fmnist_pgd.flags --variant=pineat --ratio=1/1'"

_MOST_SEEDS = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table: a method, run with every seed.

    Attributes:
        group: what rows are compared within, e.g. the attack; may be empty.
        label: what the row is called.
        configs: one for each seed, alike in all else.
    """

    group: str
    label: str
    configs: tuple[ExperimentConfig, ...]

    @property
    def title(self) -> str:
        """Group and label."""
        return f"{self.group} {self.label}".strip()

    @property
    def slug(self) -> str:
        """The title as a name of files."""
        return re.sub(r"[^a-z0-9.]+", "-", self.title.lower()).strip("-.")


def parse_row(text: str, *, overlays: Sequence[str], seeds: Sequence[int], output_dir: str) -> Row:
    """Reads a row as a flag file has it.

    Args:
        text: `GROUP | LABEL | FILES FLAGS`: names of flag files, then flags for all runs of the row.
        overlays: flag files to read after those of the row and before its flags.
        seeds: one run for each.
        output_dir: where the run directories go, each under the row's name and its seed.

    Raises:
        ValueError: if the row is not written so, or its flags are no run.
    """
    parts = [part.strip() for part in text.split("|")]
    if len(parts) != 3 or not parts[1]:
        raise ValueError(f"a row is {_ROW}, not {text!r}")
    group, label, arguments = parts
    try:
        words = shlex.split(arguments)
        num_files = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
        own = next((word for word in words if re.match("--?(seed|output_dir)(=|$)", word)), None)
        if own:
            raise ValueError(f"{own} cannot be set by a row; use the sweep's --seeds, --output_dir and --run_dir")
        files = [f"--flagfile={name}" for name in (*words[:num_files], *overlays)]
        configs = command_line.configs_of_seeds([*files, *words[num_files:]], seeds)
    except ValueError as error:
        raise ValueError(f"row {text!r}: {error}") from error
    row = Row(group=group, label=label, configs=configs)
    named = [dataclasses.replace(config, output_dir=f"{output_dir}/{row.slug}-seed{{seed}}") for config in configs]
    return dataclasses.replace(row, configs=tuple(named))


def select(rows: Sequence[Row], patterns: Sequence[str]) -> list[Row]:
    """The rows whose title fits one of the patterns, all of them without patterns.

    Args:
        rows: of the whole grid.
        patterns: as for files: `PGD *`; upper and lower case count the same.

    Raises:
        ValueError: if no row fits a pattern.
    """
    chosen = []
    for pattern in patterns:
        fitting = [row for row in rows if fnmatch.fnmatchcase(row.title.lower(), pattern.strip().lower())]
        if not fitting:
            titles = ", ".join(repr(row.title) for row in rows)
            raise ValueError(f"--only={pattern!r} fits no row; the rows are {titles}. Patterns are like 'PGD *'.")
        chosen += fitting
    return [row for row in rows if not patterns or row in chosen]


def check_references(references: Sequence[str], labels: Sequence[str], what: str) -> None:
    """Raises `ValueError`, which calls the labels `what`, if a reference is none of them."""
    unknown = ", ".join(repr(label) for label in references if label not in labels)
    if unknown:
        known = ", ".join(dict.fromkeys(map(repr, labels)))
        raise ValueError(f"--reference names no row by {unknown}; {what} are {known}.")


def parse_seeds(text: str) -> tuple[int, ...]:
    """Reads seeds as in `0,1,2` or `0-4`.

    Raises:
        ValueError: if they are not written so, or one comes twice.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if not match or (match[2] and int(match[2]) < int(match[1])):
            raise ValueError(f"--seeds are like 0,1,2 or 0-4, not {text!r}")
        first, last = int(match[1]), int(match[2] or match[1])
        if last - first >= _MOST_SEEDS:
            raise ValueError(f"--seeds={text!r} are more than {_MOST_SEEDS}")
        seeds += range(first, last + 1)
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"--seeds={text!r} names a seed twice; each is one run")
    return tuple(seeds)
