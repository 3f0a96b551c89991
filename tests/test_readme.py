"""What README.md and docs/study.md claim is true of this checkout."""

import ast
import json
import pathlib
import re

import numpy as np
import pytest

import pineat_tf as pt

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
STUDY = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
RESULTS = ROOT / "experiments" / "results"


@pytest.mark.parametrize(
    "command",
    [
        "pip install -e . && python -m experiments.run --flagfile=quickstart.flags",
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


@pytest.mark.parametrize("text, num_rows, num_data_sets", [(README, 15, 1), (STUDY, 39, 2)])
def test_tables_show_the_committed_results(text, num_rows, num_data_sets):
    printed = printed_rows()
    lines = tables(text, "| method | seeds | A_test")
    assert len(lines) >= num_rows and set(lines) <= printed.keys()
    floors = {printed[line] for line in lines}
    assert len(floors) == num_data_sets and all(floor in text for floor in floors)


def test_paired_differences_are_those_of_the_committed_tables():
    committed = {line for path in RESULTS.glob("study_*/*.md") for line in path.read_text("utf-8").splitlines()}
    lines = tables(STUDY, "| method | against |") + tables(STUDY, "|  | statement |")
    assert len(lines) >= 30 and set(lines) <= committed


def test_the_table_is_of_the_committed_records():
    values = {}
    for path in (RESULTS / "study_fmnist" / "records").glob("pgd-pineat-1-1-seed*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        values[record["flags"]["seed"]] = record["p_max"]
    assert len(values) >= 5 and f"| {np.mean(list(values.values())):.4f} ± " in README


def test_files_that_they_name_exist():
    for text, folder in ((README, ROOT), (STUDY, ROOT / "docs")):
        for target in re.findall(r"\]\(([^)#]+)", text):
            assert (folder / target).exists(), target
    for name in re.findall(r"--flagfile=(\w+\.flags)", README):
        assert (ROOT / "experiments" / "flagfiles" / name).is_file(), name


def test_its_python_names_things_that_exist():
    code = "\n".join(re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL))
    names = [ast.unparse(node) for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Attribute)]
    ours = [name for name in names if name.startswith("pt.")]
    assert len(ours) >= 8
    for name in ours:
        value = pt
        for part in name.split(".")[1:]:
            value = getattr(value, part)
