"""Ranks finished runs by robustness and leakage together, and draws the front of those that none beats in both.

    python -m experiments.compare runs/fmnist-pgd-original-1-0-seed0 runs/fmnist-pgd-pineat-1-1-seed0

Each argument is a run's directory, its metrics.json, or a folder of records that a sweep has kept. Runs that differ in
nothing but the seed are one method, with its mean and spread. Where a run's directory holds audit.json, written by
experiments.audit with --epsilons, the accuracy that AutoAttack left is shown as well. Results: NAME.md, .csv, .html
and _pareto.png in the output directory.
"""

import dataclasses
import os
import pathlib
import statistics
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from absl import flags

from experiments import command_line, files, paper
from experiments.config import ExperimentConfig
from experiments.figures import pareto
from experiments.pipeline import METRICS
from experiments.sweep import grid, outputs, records, tables
from pineat_tf.report import markdown_table, quoted

AUDIT = "audit.json"


class Run(NamedTuple):
    """One finished run.

    Attributes:
        record: the contents of its metrics.json.
        robustness: what AutoAttack left, from its audit.json; None without one.
    """

    record: dict
    robustness: dict | None


def main(argv: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: program name and arguments; `sys.argv` if None.

    Returns:
        The exit code: 0, or 2 after one line on stderr.
    """
    return command_line.guarded(_run, argv)


def read(path: pathlib.Path) -> Iterator[Run]:
    """The runs at a path: a directory of one, a metrics.json or record, or a folder of records.

    Raises:
        ValueError: if there is none, or a file there is no record of a run.
    """
    if (path / METRICS).is_file():
        path = path / METRICS
    if path.is_dir():
        found = sorted(path.glob("*.json"))
        if not found:
            raise ValueError(f"{str(path)!r} holds no finished run: neither {METRICS} nor records.")
    else:
        found = [path]
    for file in found:
        record = records.read(file)
        try:
            _config(record)
        except ValueError as error:
            raise ValueError(f"{str(file)!r} is no record of a run that there can be: {error}") from error
        yield Run(record, _robustness(file.with_name(AUDIT)))


def grouped(runs: Sequence[Run]) -> list[tuple[tables.RowResult, list[dict]]]:
    """Methods with their runs by seed, and what AutoAttack left of each.

    Raises:
        ValueError: if two runs have the same flags and seed.
    """
    by_flags: dict[str, list[Run]] = {}
    for run in runs:
        by_flags.setdefault(records.key(run.record["flags"], without=("seed",)), []).append(run)
    methods = list(by_flags.values())
    labels = _labels([_config(of_method[0].record) for of_method in methods])
    found = []
    for label, of_method in zip(labels, methods):
        by_seed = {run.record["flags"]["seed"]: run.record for run in of_method}
        if len(by_seed) < len(of_method):
            raise ValueError(f"two runs of {label!r} have the same seed and flags. Name each run once.")
        configs = tuple(_config(by_seed[seed]) for seed in sorted(by_seed))
        row = grid.Row(group="", label=label, configs=configs)
        result = tables.RowResult(row, {seed: by_seed[seed] for seed in sorted(by_seed)})
        found.append((result, [run.robustness for run in of_method if run.robustness]))
    return found


def ranking(methods: Sequence[tuple[tables.RowResult, list[dict]]]) -> str:
    """A table: first the methods that none beats in robust accuracy and leakage, by leakage; then the others."""
    points = [(method.estimate("p_max").mean, method.estimate("r_test").mean) for method, _ in methods]
    front = pareto.front(points)
    rest = sorted(set(range(len(points))) - set(front), key=lambda i: (points[i][0], -points[i][1]))
    with_attack = any(robustness for _, robustness in methods)
    lines = [
        (
            "rank",
            "method",
            "seeds",
            "A_test",
            "R_test",
            *(["AutoAttack"] * with_attack),
            "P_MAX",
            "forward passes",
            "beaten by",
        )
    ]
    for rank, i in enumerate([*front, *rest], start=1):
        method, robustness = methods[i]
        beaten_by = [str(place) for place, j in enumerate(front, start=1) if _beats(points[j], points[i])]
        cells = [tables.cell(method, name) for name in ("a_test", "r_test", "p_max", "forwards")]
        if with_attack:
            cells.insert(2, _left(robustness))
        lines.append((str(rank), method.row.label, str(len(method.records)), *cells, ", ".join(beaten_by) or "none"))
    return markdown_table(lines)


def _run(argv: list[str]) -> None:
    values = flags.FlagValues()
    flags.DEFINE_string("output_dir", "runs/compare", "Where tables, picture and report go.", flag_values=values)
    flags.DEFINE_string("name", "compare", "What the files are called.", flag_values=values)
    flags.DEFINE_string("title", "Comparison", "Headline.", flag_values=values)
    flags.DEFINE_list("reference", [], "Labels of the methods to test the others against.", flag_values=values)
    for name in ("help", "helpshort"):
        flags.DEFINE_bool(name, False, "Print this text.", flag_values=values)
    values.set_gnu_getopt(True)
    paths = values(argv)[1:]
    if values.help or values.helpshort:
        print(__doc__.strip(), *(f"\n  --{name}: {values[name].help}" for name in values), sep="")
        return
    if not paths:
        raise ValueError("name at least one run: its directory, its metrics.json, or a folder of records. See --help.")
    files.check_name(values.name)
    methods = grouped([run for path in paths for run in read(pathlib.Path(path).expanduser())])
    results = [method for method, _ in methods]
    grid.check_references(values.reference, [result.row.label for result in results], "the methods")
    output_dir = pathlib.Path(values.output_dir).expanduser()
    outputs.check_writable(output_dir, values.name)
    outputs.write(results, output_dir, name=values.name, title=values.title, references=values.reference)
    table = ranking(methods)
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
        if not isinstance(numbers, list) or not numbers or not all(map(records.is_number, numbers)):
            raise ValueError(f"its robustness.{name} is no list of finite numbers")
    if type(value.get("num")) is not int or not 0 < value["num"] < 1 << 63:
        raise ValueError("its robustness.num is no number of images")


def _left(robustness: Sequence[dict]) -> str:
    if not robustness:
        return "-"
    found: dict[tuple[float, int], list[float]] = {}
    for one in robustness:
        found.setdefault((one["epsilons"][-1], one["num"]), []).append(one["accuracies"][-1])
    means = {alike: sum(accuracies) / len(accuracies) for alike, accuracies in sorted(found.items())}
    return "; ".join(f"{mean:.4f} at {epsilon:g} ({num:,})" for (epsilon, num), mean in means.items())


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] <= other[0] and one[1] >= other[1] and one != other


def _config(record: dict) -> ExperimentConfig:
    """The flags that decide figures, and where the data were."""
    values = records.deciding(record["flags"]) | {"data_dir": record["flags"].get("data_dir", "")}
    return ExperimentConfig(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})


def _labels(configs: Sequence[ExperimentConfig]) -> list[str]:
    """A name for each method: data, attack and variant, and the flags in which it departs from what is usual."""
    names = [paper.label(config, records.data_name(config.dataset, config.data_dir)) for config in configs]
    labels = []
    for config, name in zip(configs, names):
        alike = [other for other, its in zip(configs, names) if its == name]
        departing = [
            f"{field.name}={_text(getattr(config, field.name))}"
            for field in dataclasses.fields(config)
            if field.name not in ("seed", *records.WITHOUT_EFFECT)
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
