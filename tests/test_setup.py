"""setup.py asks for every package that is imported, and takes along every file that is read."""

import ast
import pathlib
import re
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("pineat_tf", "experiments")
DISTRIBUTIONS = {"PIL": "pillow", "absl": "absl-py", "sklearn": "scikit-learn"}
PEERS = {"art", "cleverhans", "foolbox", "pyautoattack", "torch", "torchattacks"}  # compared with where they are


def said(name):
    """What setup.py gives `setup` by this name."""
    call = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body[-1].value
    return ast.literal_eval(next(keyword.value for keyword in call.keywords if keyword.arg == name))


def imported(path):
    """First parts of the names of modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_import_is_asked_for(package):
    requirements = [*said("install_requires"), *said("extras_require")["ray"]]
    asked = {re.match(r"[\w-]+", requirement)[0].lower() for requirement in requirements}
    modules = {name for path in (ROOT / package).rglob("*.py") for name in imported(path)}
    others = modules - sys.stdlib_module_names - set(PACKAGES) - PEERS
    assert {DISTRIBUTIONS.get(name, name.replace("_", "-")) for name in others} <= asked
    assert {"tensorflow", "keras", "numpy"} <= others


def test_every_file_that_is_read_is_taken_along():
    taken = {
        path
        for package, patterns in said("package_data").items()
        for pattern in patterns
        for path in ROOT.joinpath(*package.split(".")).glob(pattern)
    }
    files = {path for package in PACKAGES for path in (ROOT / package).rglob("*.*") if path.is_file()}
    results = ROOT / "experiments" / "study" / "results"
    assert {path for path in files if path.suffix not in (".py", ".pyc") and results not in path.parents} == taken
