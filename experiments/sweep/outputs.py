"""What a sweep leaves: tables as Markdown and CSV, pictures, and one HTML report."""

import pathlib
from collections.abc import Sequence

from experiments import cost, files
from experiments.figures import pareto, ratios
from experiments.sweep import page, tables
from experiments.sweep.grid import Row
from experiments.sweep.records import Records
from pineat_tf.report import markdown_table, quoted

_MOST_EXAMPLES = 4  # of about 100 KB each


def grid_text(rows: Sequence[Row], records: Records) -> str:
    """The grid as a table: each row with its runs, how many are done, and what one costs."""
    lines = [("row", "runs", "done", "updates", "gradient passes", "forward passes of an image")]
    for row in rows:
        done = sum(records.find(config) is not None for config in row.configs)
        config = row.configs[0]
        counts = (len(row.configs), done, config.scaled_updates, cost.gradient_passes(config), cost.forwards(config))
        lines.append((row.title, *(f"{count:,}" for count in counts)))
    return markdown_table(lines)


def check_writable(output_dir: pathlib.Path, name: str) -> None:
    """Raises `OSError` if `write` could not, and makes the folder."""
    output_dir.mkdir(parents=True, exist_ok=True)
    for ending in (".md", ".csv", ".html", "_pareto.png", "_ratios.png"):
        files.check_replaceable(output_dir / f"{name}{ending}")


def write(
    results: Sequence[tables.RowResult], output_dir: pathlib.Path, *, name: str, title: str, references: Sequence[str]
) -> None:
    """Writes what a sweep leaves beside its records.

    Args:
        results: rows with at least one finished run each.
        output_dir: where to; made if need be.
        name: of the files.
        title: headline of tables and report.
        references: labels of the rows that those of their group are tested against.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    base = output_dir / name
    files.write_text(f"{base}.md", _markdown(results, title, references))
    files.write_text(f"{base}.csv", tables.csv_text(results))
    pareto.write(f"{base}_pareto.png", results, title=title)
    if ratios.has_ratios(results):
        ratios.write(f"{base}_ratios.png", results, title=title)
    text = page.report(results, title=title, references=references, examples=_examples(results))
    files.write_text(f"{base}.html", text)


def _examples(results: Sequence[tables.RowResult]) -> list[tuple[str, bytes]]:
    """Pictures of a run of each row, where its directory is still there."""
    found = []
    for result in results:
        path = pathlib.Path(result.row.configs[0].run_dir, "examples.png")
        if path.exists():
            caption = (
                f"{result.row.title}: natural, adversarial and reverse-symmetry images, and their noises magnified"
            )
            found.append((caption, path.read_bytes()))
    return found[:_MOST_EXAMPLES]


def _markdown(results: Sequence[tables.RowResult], title: str, references: Sequence[str]) -> str:
    floors = [f"{mean:.4f} (95 %: below {upper:.4f})" for mean, upper in tables.noise_floors(results)]
    parts = [
        f"# {quoted(title)}",
        tables.markdown(results),
        "Mean ± standard deviation over seeds, which vary the training and never the images. **Bold**: the best of all "
        "rows; <u>underlined</u>: the best of a group of rows. P are in-sample membership inference accuracies: a "
        f"network that leaks nothing scores {' or '.join(floors)} on average where members and non-members are random "
        "parts of one set, and more where they differ anyhow. Gap attack: calling a member whatever is classified "
        "correctly, on natural or adversarial images, whichever leaks more. Minutes: of training. Passes: of 100 "
        "images each; a backward pass counts as 1 forward pass to the images and as 2 to images and weights.",
    ]
    tested = tables.tests_markdown(results, references)
    if tested:
        parts += [
            "## Paired differences",
            tested,
            "Mean difference over seeds with its 95 % interval (Student's t), and p-values of the paired t-test, "
            "adjusted for the number of rows tested against the same reference (Holm).",
        ]
    return "\n\n".join(parts) + "\n"
