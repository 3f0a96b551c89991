"""What README.md and docs/study.md claim is true of this checkout."""

import importlib.metadata
import importlib.util
import pathlib
import re

import pandas as pd
import pytest

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = ROOT / "experiments" / "study" / "results"
PAGES = [ROOT / "README.md", ROOT / "BUILD_NOTES.md", *sorted((ROOT / "docs").glob("**/*.md"))]


@pytest.mark.parametrize(
    "command",
    [
        'pip install -e ".[experiments]" && python -m experiments.run --flagfile=quickstart.flags',
        'pip install -e ".[test]" && python -m pytest',
    ],
)
def test_the_two_commands_stand(command):
    assert command in README


def printed_rows():
    """The lines that tables of results may have, from the committed Markdown, and the noise floor of each."""
    columns = ("method", "seeds", "A_test", "R_test", "P_Enat", "P_Eadv", "P_MAX", "forward passes")
    found = {}
    for path in RESULTS.glob("study_*/*.md"):
        text = re.sub(r"\*\*|</?u>", "", path.read_text(encoding="utf-8"))
        for block in text.split("\n\n"):
            if block.startswith("| method | seeds | A_train"):
                header, _, *lines = (line.strip("| ").split(" | ") for line in block.splitlines())
                for row in (dict(zip(header, line)) for line in lines if not line[0].startswith("*")):
                    found[f"| {' | '.join(row[name] for name in columns)} |"] = row["noise floor"]
    return found


def tables(text, header):
    """The lines of all tables that begin so."""
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith(header)]
    return [line for block in blocks for line in block[2:]]


def test_the_table_shows_the_committed_results():
    printed = printed_rows()
    lines = tables(README, "| method | seeds | A_test | R_test | P_Enat")
    assert len(lines) >= 5 and set(lines) <= printed.keys()
    floors = {printed[line] for line in lines}
    assert len(floors) == 1 and all(floor in README for floor in floors)


def test_the_table_is_of_the_committed_runs():
    runs = pd.read_csv(RESULTS / "study_fmnist" / "runs.csv")
    values = runs.loc[(runs["group"] == "PGD") & (runs["label"] == "PINEAT-1/1"), "p_max"]
    assert len(values) >= 5 and f"| {values.mean():.4f} ± " in README


def test_files_that_they_name_exist():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", text):
            assert (page.parent / target).exists(), (page.name, target)
        for name in re.findall(r"--flagfile=(\w+\.flags)", text):
            assert (ROOT / "experiments" / "flagfiles" / name).is_file(), (page.name, name)
        for name in re.findall(r"python -m (experiments[\w.]*)", text):
            assert importlib.util.find_spec(name), (page.name, name)


def test_the_long_description_needs_nothing_of_the_repository():
    """Links and pictures of the repository do not resolve where a package index shows it."""
    text = importlib.metadata.metadata("pineat_tf").get_payload()
    assert "reverse-symmetry examples" in text and "The study" in text
    assert not re.findall(r"\]\((?!https?://)", text)


def test_readme_is_short():
    assert len(README.splitlines()) <= 130
