"""What README.md claims is true of this checkout."""

import ast
import json
import pathlib
import re

import pytest

import pineat_tf as pt
from experiments.paper import COLUMNS

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = ROOT / "experiments" / "results" / "small"


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
    for path in RESULTS.glob("*/metrics.json"):
        metrics = json.loads(path.read_text(encoding="utf-8"))
        flags = metrics["flags"]
        found[flags["attack"], flags["variant"]] = metrics
    assert set(found) == {(a, v) for a in ("pgd", "dist", "diff") for v in ("original", "pineat")}
    for (attack, variant), metrics in found.items():
        assert metrics["data"]["num_members"] >= 10_000
        name = {"original": "original", "pineat": "PINEAT-1/1"}[variant]
        cells = [f"{metrics[column]:.4f}" for column in list(COLUMNS)[:-1]]
        minutes = f"{60 * metrics['hours']:.1f}"
        assert f"| {attack} | {name} | {' | '.join(cells)} | {minutes} |" in README
        floor = metrics["noise_floor"]
        assert f"{floor['mean']:.4f}" in README and f"{floor['upper_95']:.4f}" in README


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
