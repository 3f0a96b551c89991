"""What README.md claims is true of this checkout."""

import ast
import csv
import json
import pathlib
import re

import numpy as np
import pytest

import pineat_tf as pt

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = ROOT / "experiments" / "results" / "study_fmnist"


@pytest.mark.parametrize(
    "command",
    [
        "pip install -e . && python -m experiments.run --flagfile=quickstart.flags",
        'pip install -e ".[test]" && python -m pytest',
    ],
)
def test_the_two_commands_stand(command):
    assert command in README


def test_the_table_shows_the_committed_results():
    found = {}
    for name in ("table1", "recipes"):
        with open(RESULTS / f"{name}.csv", newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                found.setdefault(f"{row['group']} {row['label']}".strip(), row)
    table = README[README.index("| method | seeds |") : README.index("P is how often")]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()]
    assert len(lines) == 2 + 15
    for method, seeds, *cells, forwards in lines[2:]:
        row = found[method]
        assert int(seeds) == len(row["seeds"].split()) and forwards == f"{float(row['forwards_mean']):,.0f}"
        names = ("a_test", "r_test", "p_e_nat", "p_e_adv", "p_max")
        assert cells == [f"{float(row[f'{name}_mean']):.4f} ± {float(row[f'{name}_sd']):.4f}" for name in names]
    (floor,) = {row["noise_floor"] for row in found.values()}
    assert f"{float(floor):.4f}" in README


def test_the_table_is_of_the_committed_records():
    values = {}
    for path in (RESULTS / "records").glob("pgd-pineat-1-1-seed*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        values[record["flags"]["seed"]] = record["p_max"]
    assert len(values) >= 5 and f"| {np.mean(list(values.values())):.4f} ± " in README


def test_files_that_it_names_exist():
    for target in re.findall(r"\]\(([^)#]+)", README):
        assert (ROOT / target).is_file(), target
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
