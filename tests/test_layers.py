"""The architecture as a test: what may import what, and how long things may get."""

import ast
import graphlib
import importlib
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# From the bottom up: a module imports only from lines above its own (or its own package).
LAYERS = [
    ["types", "distribution", "files"],
    ["tracing"],
    ["checks", "heads", "seeds", "serialization"],
    ["progress", "accounting", "coupling"],
    ["statistics", "losses", "projections", "schedules", "accelerate"],
    ["threat", "pixel_scale"],
    ["attacks.parts"],
    ["attacks.attacked"],
    ["attacks.gradient", "attacks.apgd", "attacks.square"],
    ["attacks.fast", "attacks.fab", "attacks.deepfool"],
    ["attacks.suites"],
    ["bounds.box"],
    ["bounds.rules"],
    ["bounds.propagation"],
    ["bounds"],
    ["attacks", "companions", "objectives", "perturbations"],
    ["round", "defences"],
    ["data", "ensembles", "evaluation_state"],
    ["wrapped"],
    ["training", "predictions", "verification"],
    ["distilled", "free", "private", "queries", "recipes"],
    ["membership.scores"],
    ["membership.thresholds", "membership.bounds"],
    ["membership.shadow", "membership.label_only", "membership.learned", "membership.quantile"],
    ["membership.calibration"],
    ["membership.uncertainty"],
    ["membership.results"],
    ["membership.audit"],
    ["membership.risk", "membership.canaries", "membership.one_run", "membership.pools"],
    ["membership"],
    ["masking"],
    ["presentation", "zoo"],
    ["robust_accuracy"],
    ["callbacks"],
    ["report"],
    [""],
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
MODULES = sorted((ROOT / "pineat_tf").rglob("*.py"))
SOURCES = MODULES + sorted((ROOT / "experiments").rglob("*.py"))


def module_name(path):
    parts = path.relative_to(ROOT / "pineat_tf").with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module, alias.name) for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_go_only_to_lower_layers(path):
    own = module_name(path)
    for module, name in imports(path):
        assert not module.startswith("experiments"), f"the library imports the runner: {module}"
        if module.split(".")[0] == "pineat_tf":
            inner = module.removeprefix("pineat_tf").lstrip(".")
            target = f"{inner}.{name}".lstrip(".") if f"{inner}.{name}".lstrip(".") in RANK else inner
            assert RANK[target] < RANK[own], f"{own} imports {target}"


def runner_module(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def folder_of(module):
    folders = module.split(".")[1:]
    return folders[0] if len(folders) > 1 or (ROOT / "experiments" / folders[0]).is_dir() else module


@pytest.mark.parametrize("unit", [str, folder_of], ids=["modules", "folders"])
def test_the_runner_has_no_circle_of_imports(unit):
    files = {runner_module(path): path for path in SOURCES if "experiments" in path.relative_to(ROOT).parts}
    del files["experiments"]
    below = {unit(module): set() for module in files}
    for module, path in files.items():
        targets = (f"{name}.{item}" if f"{name}.{item}" in files else name for name, item in imports(path))
        below[unit(module)] |= {unit(target) for target in targets if target in files} - {unit(module)}
    while leaves := [name for name, targets in below.items() if not targets & below.keys()]:
        for name in leaves:
            del below[name]
    assert not below, f"a circle among {sorted(below)}"


def test_every_module_has_its_layer():
    assert {module_name(path) for path in MODULES} == set(RANK)


def test_rooms_of_the_runner_import_each_other_one_way_only():
    below: dict[str, set[str]] = {}
    for path in (ROOT / "experiments").rglob("*.py"):
        own = path.relative_to(ROOT / "experiments").with_suffix("").parts[0]
        for module, name in imports(path):
            if module and module.split(".")[0] == "experiments":
                room = (module.split(".") + [name])[1]
                below.setdefault(own, set()).update({room} - {own})
    graphlib.TopologicalSorter(below).prepare()  # raises CycleError


def test_the_library_needs_only_what_it_names():
    used = {module.split(".")[0] for path in MODULES for module, _ in imports(path)}
    outside = used - set(sys.stdlib_module_names) - {"pineat_tf"}
    extras = {"matplotlib", "dp_accounting"}  # of pictures and of private training, imported where they are asked for
    assert outside - extras <= {"keras", "numpy", "scipy", "sklearn", "tensorflow"}


@pytest.mark.parametrize("path", [p for p in SOURCES if "absl" in p.read_text()], ids=lambda p: p.name)
def test_flags_stay_with_the_commands(path):
    shared = "plan.py"  # the flags of a sweep, which three commands read
    assert path.parent.name in ("experiments", "study") or path.name in ("__main__.py", shared)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_functions_and_files_stay_readable(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node) or _is_short(node), f"{node.name} says nothing of itself"
        if isinstance(node, ast.FunctionDef):
            doc = ast.get_docstring(node) or ""
            length = node.end_lineno - node.lineno + 1 - len(doc.splitlines())
            assert length <= 50, f"{node.name} has {length} lines"


def _is_short(node):
    return node.name.startswith("on_") or node.end_lineno - node.lineno < 12


def test_importing_the_library_brings_neither_data_nor_plots_nor_flags():
    loaded = "{name.split('.')[0] for name in sys.modules}"
    code = f"import sys, keras, tensorflow; before = {loaded}; import pineat_tf; print({loaded} - before)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ast.literal_eval(run.stdout) == {"pineat_tf"}


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_every_module_lists_what_it_exports(path):
    module = importlib.import_module(f"pineat_tf.{module_name(path)}".rstrip("."))
    listed = module.__all__
    assert len(set(listed)) == len(listed) and all(hasattr(module, name) for name in listed)


def test_what_an_audit_shows_fits_a_screen():
    import pineat_tf

    assert len(pineat_tf.membership.__all__) <= 40
