"""Ranks finished runs by robustness and leakage together, and draws the front of those that none beats in both.

    python -m experiments.compare runs/fmnist-pgd-original-1-0-seed0 runs/fmnist-pgd-pineat-1-1-seed0

Each argument is a run's directory, its metrics.json, or the runs.csv of a sweep. Runs that differ in nothing but the
seed are one method, with its mean and spread. Where a run's directory holds audit.json, written by experiments.audit
with --epsilons, the accuracy that AutoAttack left is shown as well. Results: NAME.md, .csv, .html, _pareto.png and
_ranking.md in the output directory.
"""

import dataclasses
import os
import pathlib
import statistics
import sys
from collections.abc import Sequence

import pandas as pd
from absl import flags

from experiments import command_line, files, paper, results
from experiments.config import ExperimentConfig
from experiments.figures import pareto
from experiments.sweep import grid, outputs, tables
from pineat_tf.report import markdown_table, quoted

_AUDIT = "audit.json"


def read(path: pathlib.Path) -> list[dict]:
    """The runs at a path, each with what AutoAttack left of it, from its audit.json, as "robustness".

    Args:
        path: directory of a run, a metrics.json, or a file of runs.

    Raises:
        ValueError: if there is none, or the file there is none of runs.
    """
    if path.is_dir():
        if not (path / results.METRICS).is_file():
            raise ValueError(
                f"{str(path)!r} holds no finished run: no {results.METRICS}. A sweep's runs are in its runs.csv."
            )
        path = path / results.METRICS
    if path.suffix == ".csv":
        runs = [run | {"robustness": None} for run in results.read_csv(path)]
    else:
        runs = [results.flat(results.read_metrics(path)) | {"robustness": _robustness(path.with_name(_AUDIT))}]
    for run in runs:
        try:
            run["config"] = results.config_of(run)
        except ValueError as error:
            raise ValueError(f"{str(path)!r} is no record of a run that there can be: {error}") from error
    return runs


def grouped(runs: Sequence[dict]) -> pd.DataFrame:
    """The runs as `results.tidy` has them, those of a method under one label.

    Raises:
        ValueError: if two runs have the same flags and seed.
    """
    frame = pd.DataFrame({"method": [results.key(run["config"].to_dict(), without=("seed",)) for run in runs]})
    methods = list(dict.fromkeys(frame["method"]))
    labels = dict(zip(methods, _labels([runs[(frame["method"] == method).idxmax()]["config"] for method in methods])))
    frame = results.tidy(
        [{**run, "group": "", "label": labels[method]} for run, method in zip(runs, frame["method"])],
        [run["config"] for run in runs],
    )
    twice = frame[frame.duplicated(["label", "seed"])]
    if len(twice):
        raise ValueError(f"two runs of {twice['label'].iloc[0]!r} have the same seed and flags. Name each run once.")
    order = frame["label"].map(list(labels.values()).index)
    return frame.assign(order=order).sort_values(["order", "seed"], kind="stable", ignore_index=True)


def ranking(runs: pd.DataFrame) -> str:
    """A table: first the methods that none beats in robust accuracy and leakage, by leakage; then the others."""
    estimates, seeds = tables.estimates(runs), tables.rows(runs)["seeds"]
    points = [(one["p_max"].mean, one["r_test"].mean) for _, one in estimates.iterrows()]
    front = pareto.front(points)
    rest = sorted(set(range(len(points))) - set(front), key=lambda i: (points[i][0], -points[i][1]))
    audits = runs.groupby("title")["robustness"].apply(lambda found: [one for one in found if one])
    attacked = ["AutoAttack"] * any(map(len, audits))
    verified = [name for name in tables.OPTIONAL if name in estimates]
    titles = ("A_test", "R_test", *attacked, *(tables.OPTIONAL[name] for name in verified), "P_MAX", "forward passes")
    lines = [("rank", "method", "seeds", *titles, "beaten by")]
    for rank, i in enumerate([*front, *rest], start=1):
        title = estimates.index[i]
        beaten_by = [str(place) for place, j in enumerate(front, start=1) if _beats(points[j], points[i])]
        cells = [
            tables.cell(name, estimates.loc[title, name])
            for name in ("a_test", "r_test", *verified, "p_max", "forwards")
        ]
        if attacked:
            cells.insert(2, _left(audits[title]))
        lines.append((str(rank), title, str(len(seeds[title].split())), *cells, ", ".join(beaten_by) or "none"))
    return markdown_table(lines)


@command_line.program
def main(argv: list[str]) -> None:
    """Does what a command line says."""
    values = flags.FlagValues()
    flags.DEFINE_string("output_dir", "runs/compare", "Where tables, picture and report go.", flag_values=values)
    flags.DEFINE_string("name", "compare", "What the files are called.", flag_values=values)
    flags.DEFINE_string("title", "Comparison", "Headline.", flag_values=values)
    flags.DEFINE_list("reference", [], "Labels of the methods to test the others against.", flag_values=values)
    paths = command_line.arguments(values, argv, __doc__)
    if paths is None:
        return
    if not paths:
        raise ValueError("name at least one run: its directory, its metrics.json, or a sweep's runs.csv. See --help.")
    files.check_name(values.name)
    found = [run for path in paths for run in read(pathlib.Path(path).expanduser())]
    if not found:
        raise ValueError(f"there is no finished run in {', '.join(map(repr, paths))}. Name others.")
    runs = grouped(found)
    grid.check_references(values.reference, list(runs["label"]), "the methods")
    output_dir = pathlib.Path(values.output_dir).expanduser()
    outputs.check_writable(output_dir, values.name)
    outputs.write(runs, output_dir, name=values.name, title=values.title, references=values.reference)
    table = ranking(runs)
    ranked = output_dir / f"{values.name}_ranking.md"
    files.write_text(ranked, f"# {quoted(values.title)}\n\n{table}\n\n{_NOTE}\n")
    print(table)
    print(f"\nTables, picture and report are in {output_dir}.")


_NOTE = (
    "Means ± standard deviations over seeds. First those that no other method beats in both robust accuracy (R_test) "
    "and leakage (P_MAX, in-sample); then the others with the ranks of those of the first that beat them. AutoAttack: "
    "accuracy left at the largest radius of audit.json, on as many images as in brackets."
)


def _robustness(path: pathlib.Path) -> dict | None:
    if not os.path.lexists(path):
        return None
    try:
        audit = files.read_json(path)
        robustness = audit.get("robustness") if isinstance(audit, dict) else None
        _check_robustness(robustness)
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is no audit: {error}. It is written by experiments.audit --json.") from error
    return robustness


def _check_robustness(value: object) -> None:
    """Raises `ValueError`, which names the field, unless there is all that the table shows."""
    if not isinstance(value, dict):
        raise ValueError("it lacks robustness, which --epsilons gives")
    for name in ("epsilons", "accuracies"):
        numbers = value.get(name)
        if not isinstance(numbers, list) or not numbers or not all(map(results.is_number, numbers)):
            raise ValueError(f"its robustness.{name} is no list of finite numbers")
    if type(value.get("num")) is not int or not 0 < value["num"] < 1 << 63:
        raise ValueError("its robustness.num is no number of images")


def _left(robustness: Sequence[dict]) -> str:
    """The mean accuracy left, for each radius and number of images."""
    if not robustness:
        return "-"
    found = [{"epsilon": o["epsilons"][-1], "num": o["num"], "left": o["accuracies"][-1]} for o in robustness]
    means = pd.DataFrame(found).groupby(["epsilon", "num"])["left"].mean()
    return "; ".join(f"{mean:.4f} at {epsilon:g} ({num:,})" for (epsilon, num), mean in means.items())


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] <= other[0] and one[1] >= other[1] and one != other


def _labels(configs: Sequence[ExperimentConfig]) -> list[str]:
    """A name for each method: data, attack and variant, and the flags in which it departs from what is usual."""
    names = [paper.label(config, results.data_name(config.dataset, config.data_dir)) for config in configs]
    labels = []
    for config, name in zip(configs, names):
        alike = [other for other, its in zip(configs, names) if its == name]
        departing = [
            f"{field.name}={_text(getattr(config, field.name))}"
            for field in dataclasses.fields(config)
            if field.name not in ("seed", *results.WITHOUT_EFFECT)
            and getattr(config, field.name) != _usual(field, [getattr(other, field.name) for other in alike])
        ]
        labels.append(", ".join([name, *departing]))
    return labels


def _usual(field: dataclasses.Field, values: Sequence[object]) -> object:
    """The value that needs no mention: the default if any method has it, else the most frequent one."""
    return field.default if field.default in values else statistics.mode(values)


def _text(value: object) -> str:
    return "/".join(map(str, value)) if isinstance(value, tuple) else str(value)


if __name__ == "__main__":
    sys.exit(main())
