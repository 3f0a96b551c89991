"""What a sweep leaves: tables as Markdown and CSV, pictures, and one HTML report."""

import dataclasses
import pathlib
from collections.abc import Sequence

from experiments import cost, files
from experiments.sweep import tables
from experiments.sweep.grid import Row
from experiments.sweep.records import Records
from pineat_tf.report import markdown_table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """How results are presented.

    Attributes:
        title: headline of tables and report.
        name: what the files are called.
        references: labels of the rows that those of their group are tested against.
    """

    title: str
    name: str
    references: tuple[str, ...]


def grid_text(rows: Sequence[Row], records: Records) -> str:
    """The grid as a table: each row with its runs, how many are done, and what one costs."""
    lines = [("row", "runs", "done", "updates", "gradient passes", "forward passes of an image")]
    for row in rows:
        done = sum(records.find(config) is not None for config in row.configs)
        config = row.configs[0]
        counts = (len(row.configs), done, config.scaled_updates, cost.gradient_passes(config), cost.forwards(config))
        lines.append((row.title, *(f"{count:,}" for count in counts)))
    return markdown_table(lines)


def write(directory: pathlib.Path, rows: Sequence[Row], records: Records, layout: Layout) -> None:
    """Writes all that a sweep leaves beside its records; rows without a finished run are left out."""
    directory.mkdir(parents=True, exist_ok=True)
    results = tables.results(rows, records)
    files.write_text(directory / f"{layout.name}.md", _markdown(results, layout))
    files.write_text(directory / f"{layout.name}.csv", tables.csv_text(results))


def _markdown(results: Sequence[tables.RowResult], layout: Layout) -> str:
    floor = next(iter(results[0].records.values()))["noise_floor"]
    parts = [
        f"# {layout.title}",
        tables.markdown(results),
        "Mean ± standard deviation over seeds. **Bold**: the best of all rows; <u>underlined</u>: the best of a group "
        "of rows. P are in-sample membership inference accuracies: a network that leaks nothing scores "
        f"{floor['mean']:.4f} (95 %: below {floor['upper_95']:.4f}). Gap attack: calling a member whatever is "
        "classified correctly, on natural or adversarial images, whichever leaks more. Minutes: of training.",
    ]
    tested = tables.tests_markdown(results, layout.references)
    if tested:
        parts += [
            "## Paired differences",
            tested,
            "Mean difference over seeds with its 95 % interval (Student's t), and p-values of the paired t-test, "
            "adjusted for the number of rows tested against the same reference (Holm).",
        ]
    return "\n\n".join(parts) + "\n"
