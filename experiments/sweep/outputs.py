"""What a sweep leaves: tables as Markdown and CSV, pictures, and one HTML report."""

import pathlib
from collections.abc import Sequence

import pandas as pd

from experiments import files
from experiments.figures import pareto, ratios
from experiments.sweep import page, tables
from pineat_tf.report import quoted

_MOST_EXAMPLES = 4  # of about 100 KB each


def check_writable(output_dir: pathlib.Path, name: str) -> None:
    """Raises `OSError` if `write` could not, and makes the folder."""
    output_dir.mkdir(parents=True, exist_ok=True)
    for ending in (".md", ".csv", ".html", "_pareto.png", "_ratios.png"):
        files.check_replaceable(output_dir / f"{name}{ending}")


def write(runs: pd.DataFrame, output_dir: pathlib.Path, *, name: str, title: str, references: Sequence[str]) -> None:
    """Writes tables, pictures and the report.

    Args:
        runs: of `results.tidy`, at least one.
        output_dir: where to; made if need be.
        name: of the files.
        title: headline of tables and report.
        references: labels of the rows that those of their group are tested against.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    base = output_dir / name
    files.write_text(f"{base}.md", _markdown(runs, title, references))
    files.write_text(f"{base}.csv", tables.csv_text(runs))
    pareto.write(f"{base}_pareto.png", runs, title=title)
    if ratios.has_ratios(runs):
        ratios.write(f"{base}_ratios.png", runs, title=title)
    text = page.report(runs, title=title, references=references, examples=_examples(runs))
    files.write_text(f"{base}.html", text)


def _examples(runs: pd.DataFrame) -> list[tuple[str, bytes]]:
    """Pictures of a run of each row, where its directory is still there."""
    paths = {title: pathlib.Path(row["config"].run_dir, "examples.png") for title, row in tables.rows(runs).iterrows()}
    caption = "{}: natural, adversarial and reverse-symmetry images, and their noises magnified"
    found = [(caption.format(title), path.read_bytes()) for title, path in paths.items() if path.exists()]
    return found[:_MOST_EXAMPLES]


def _varied(runs: pd.DataFrame) -> str:
    """Says if seeds draw other images."""
    pools = set(runs["flags.pools"])
    return {("split",): "never the images", ("exchangeable",): "which images are members"}.get(
        tuple(pools), "in some rows which images are members"
    )


def _markdown(runs: pd.DataFrame, title: str, references: Sequence[str]) -> str:
    floors = [f"{mean:.4f} (95 %: below {upper:.4f})" for mean, upper in tables.noise_floors(runs)]
    parts = [
        f"# {quoted(title)}",
        tables.markdown(runs),
        f"Mean ± standard deviation over seeds, which vary the training and {_varied(runs)}. **Bold**: the best of all "
        "rows; <u>underlined</u>: the best of a group of rows. P are in-sample membership inference accuracies: a "
        f"network that leaks nothing has a P_MAX of {' or '.join(floors)} on average where members and non-members are "
        "random parts of one set, and more where they differ anyhow. Gap attack: calling a member whatever is "
        "classified correctly, on natural or adversarial images, whichever leaks more. Minutes: of training. Passes: "
        "of 100 images each; a backward pass counts as 1 forward pass to the images and as 2 to images and weights.",
    ]
    tested = tables.tests_markdown(runs, references)
    if tested:
        parts += [
            "## Paired differences",
            tested,
            "Mean difference over seeds with its 95 % interval (Student's t), and p-values of the paired t-test, "
            "adjusted for the number of rows tested against the same reference (Holm).",
        ]
    return "\n\n".join(parts) + "\n"
