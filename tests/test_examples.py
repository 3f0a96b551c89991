"""The Python of README.md, docs/ and every docstring runs, and gives what it is said to give."""

import ast
import doctest
import importlib
import inspect
import pathlib
import pkgutil
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SHAPE, dense_network

import experiments
import pineat_tf as pt

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = pathlib.Path(__file__).parents[1]
NUM_CLASSES = 5  # the targeted difference of logits ratio needs four
OTHER_FRAMEWORKS = tuple(f"experiments.study.benchmark.{name}" for name in ("peers", "peer_worker"))  # not beside TF
PAGES = [ROOT / "README.md", ROOT / "BUILD_NOTES.md", *sorted((ROOT / "docs").glob("**/*.md"))]


def modules(package):
    """The package and all modules in it."""
    names = (found.name for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."))
    return [package, *(importlib.import_module(name) for name in names if name not in OTHER_FRAMEWORKS)]


def docstring_examples():
    """An example a docstring that has one."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = (finder.find(module, module.__name__) for package in (pt, experiments) for module in modules(package))
    return [example for examples in found for example in examples if example.examples]


def python_blocks(page):
    """The Python of a page of Markdown; it is one program."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def programs():
    """A page for each program: where two pages show the same, it runs once."""
    pages = [page for page in PAGES if python_blocks(page)]
    return list({ast.dump(ast.parse("".join(python_blocks(page)))): page for page in pages}.values())


def public_names():
    """What an example may use without an import: all that the library's modules define."""
    names = {}
    for module in modules(pt):
        for name, value in vars(module).items():
            if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__:
                names[name] = value
    return names


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder to write in, and trainings of five epochs where the reader is shown more."""
    monkeypatch.chdir(tmp_path)
    fit = pt.AdversarialTraining.fit

    def short_fit(self, *args, epochs=1, **options):
        return fit(self, *args, epochs=min(epochs, 5), **options)

    monkeypatch.setattr(pt.AdversarialTraining, "fit", short_fit)


def namespace(source):
    """What the reader of an example is taken to have; of what takes time to make, only what it names."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)

    def split(num):
        return rng.uniform(size=(num, *SHAPE)).astype(np.float32), np.arange(num) % NUM_CLASSES

    attack = pt.attacks.pgd(epsilon=0.1, step_size=0.05, num_steps=2)
    splits = {name: split(num) for name, num in (("train", 100), ("test", 8), ("validation", 8), ("public", 60))}
    arrays = {f"{letter}_{name}": part for name, pair in splits.items() for letter, part in zip("xy", pair)}
    groups = {name: split(30) for name in ("members", "non_members", "shadow_members", "shadow_non_members")}
    made = {}
    if any(name in source for name in ("network", "model", *groups)):
        made["network"] = network = dense_network(num_classes=NUM_CLASSES)
        made |= {name: pt.predict_logits(network, group) for name, group in groups.items() if name in source}
    if "model" in source:
        made["model"] = model = pt.AdversarialTraining(network, attack=attack, ratio="1/0", seed=0)
        model.compile(optimizer=keras.optimizers.Adam(1e-3), metrics=["accuracy"])
    x, y = map(tf.constant, splits["test"])
    return {
        **{"keras": keras, "np": np, "pt": pt, "tf": tf, "attack": attack, **made},
        **{**arrays, **splits, "held_out": splits["validation"], "x": x, "y": y, "x_adv": x + 0.05},
    }


def public(place, owner):
    """All that can be reached by the names that modules list: (place, what)."""
    for name in owner.__all__:
        value = getattr(owner, name)
        if inspect.ismodule(value):
            yield from public(f"{place}.{name}", value)
        elif inspect.isclass(value) or inspect.isfunction(value):
            yield f"{place}.{name}", value


def test_every_public_name_has_an_example():
    found = dict(public("pineat_tf", pt))
    assert len(found) > 100
    examples = doctest.DocTestParser().get_examples
    assert [place for place, value in found.items() if not examples(value.__doc__ or "")] == []


class OutputThatIsPrinted(doctest.OutputChecker):
    """Compares what an example gives with what is printed below it, if anything is."""

    def check_output(self, want, got, optionflags):
        return not want or super().check_output(want, got, optionflags)


@pytest.mark.parametrize("example", docstring_examples(), ids=lambda example: example.name)
def test_docstring(example):
    example.globs = {**public_names(), **namespace(example.docstring), **example.globs}
    runner = doctest.DebugRunner(OutputThatIsPrinted(), verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    try:
        runner.run(example)
    except doctest.DocTestFailure as failure:
        pytest.fail(f"{failure.example.source}gave {failure.got}where {failure.example.want}is printed")
    except doctest.UnexpectedException as failure:
        raise failure.exc_info[1] from None


@pytest.mark.parametrize("page", programs(), ids=lambda page: page.name)
def test_page(page):
    names = namespace(page.read_text(encoding="utf-8"))
    for block in python_blocks(page):
        statements = ast.parse(block)
        statements.body = [node for node in statements.body if not _is_left_to_the_reader(node)]
        exec(compile(statements, page.name, "exec"), names)


def _is_left_to_the_reader(node):
    """Whether a statement is `name = ...`, which the namespace has an answer to."""
    return isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and node.value.value is Ellipsis
