"""setup.py asks for every package that is imported, and takes along every file that is read."""

import ast
import importlib.metadata
import pathlib
import re
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
DISTRIBUTIONS = {"PIL": "pillow", "absl": "absl-py", "sklearn": "scikit-learn"}
PEERS = {"art", "cleverhans", "foolbox", "pyautoattack", "torch", "torchattacks"}  # compared with where they are
ON_REQUEST = {"pineat_tf": {"matplotlib"}, "experiments": PEERS}


def asked(*extras):
    """The distributions that are asked for, with these extras."""
    found = set()
    for requirement in importlib.metadata.requires("pineat_tf"):
        extra = re.search(r"extra == [\"'](\w+)", requirement)
        if extra is None or extra[1] in extras:
            found.add(re.match(r"[\w-]+", requirement)[0].lower().replace("_", "-"))
    return found


def imported(path):
    """First parts of the names of modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]


@pytest.mark.parametrize(
    "package, extras", [("pineat_tf", ("dp",)), ("experiments", ("experiments", "ray", "dask", "export", "tune"))]
)
def test_every_import_is_asked_for(package, extras):
    modules = {name for path in (ROOT / package).rglob("*.py") for name in imported(path)}
    others = modules - sys.stdlib_module_names - {"pineat_tf", "experiments"} - ON_REQUEST[package]
    assert {DISTRIBUTIONS.get(name, name.replace("_", "-")) for name in others} <= asked(*extras)
    assert {"tensorflow", "keras", "numpy"} <= others


def test_the_library_asks_for_five_packages():
    assert asked() == {"tensorflow", "keras", "numpy", "scipy", "scikit-learn"}


def test_every_file_that_the_library_reads_is_taken_along():
    call = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body[-1].value
    patterns = ast.literal_eval(next(keyword.value for keyword in call.keywords if keyword.arg == "package_data"))
    files = {path.name for path in (ROOT / "pineat_tf").rglob("*.*") if path.is_file()}
    assert {name for name in files if not name.endswith((".py", ".pyc"))} == set(patterns["pineat_tf"])
