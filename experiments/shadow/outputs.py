"""What a shadow study leaves: JSON with every figure, tables, and ROC curves on logarithmic axes."""

import csv
import io
import json
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot

from experiments import files, results, statistics
from experiments.figures import style
from experiments.shadow.attackers import ATTACKERS, FPRS, GRID, QUERIES, Leakage
from experiments.sweep.tables import csv_cell
from pineat_tf.membership import noise_floor
from pineat_tf.report import markdown_table, quoted

SCHEMA_VERSION = 2
_READ = (1, SCHEMA_VERSION)  # 1 gave a TPR at every rate, also where there were too few non-members to show it
FIGURES = {"auc": "AUC", "balanced_accuracy": "balanced accuracy"} | {
    f"tpr_{fpr:g}": f"TPR at {100 * fpr:g} % FPR" for fpr in FPRS
}
_SHOWN = ("tpr_0.001", "tpr_0.01", "auc", "balanced_accuracy")
_BY_QUERIES = ("RMIA online", "LiRA online, fixed variance")  # the strongest of their kind with few shadow models
NOT_AVAILABLE = "n/a"
_UTILITY = ("a_train", "a_test", "r_train", "r_test", "p_max")


class Study(NamedTuple):
    """One method under audit.

    Attributes:
        title: of its row.
        flags: of its first model.
        runs: the records of its models.
        leakage: what each attacker learns; empty where the models were trained and not asked.
        num_members: of each model.
        num_non_members: of each model.
    """

    title: str
    flags: dict
    runs: list[dict]
    leakage: list[Leakage]
    num_members: int
    num_non_members: int

    def of(self, attacker: str, queries: str, examples: str = "all") -> Leakage:
        """What one attacker learns by one kind of query."""
        wanted = (attacker, queries, examples)
        return next(one for one in self.leakage if (one.attacker, one.queries, one.examples) == wanted)

    @property
    def has_canaries(self) -> bool:
        """Whether some of the labels were wrong on purpose."""
        return any(one.examples == "canaries" for one in self.leakage)


def read(path: pathlib.Path) -> dict[str, Study]:
    """The studies that `write` has written, by title; none if there is no such file.

    Raises:
        ValueError: if the file is no such thing.
    """
    if not os.path.lexists(path):
        return {}
    try:
        plain = files.read_json(path)
        if plain["schema_version"] not in _READ:
            raise ValueError(f"its schema_version is {plain['schema_version']}, not {SCHEMA_VERSION}")
        return {method["title"]: _from_plain(method) for method in plain["methods"]}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = " ".join(repr(error).split())[:300]
        raise ValueError(f"{str(path)!r} holds no results of shadow models: {why}. Remove it.") from error


def check_writable(base: pathlib.Path) -> None:
    """Raises `OSError` if `write` could not, and makes the folder."""
    base.parent.mkdir(parents=True, exist_ok=True)
    for ending in (".json", ".csv", ".md", ".png"):
        files.check_replaceable(f"{base}{ending}")


def write(base: pathlib.Path, title: str, studies: Sequence[Study], references: Sequence[str]) -> None:
    """Writes `base`.json, .md, .csv and .png."""
    base.parent.mkdir(parents=True, exist_ok=True)
    methods = [_plain(study) for study in studies]
    studies = [
        _from_plain(method) for method in methods
    ]  # as `read` gives them, so that tables made later are the same
    grid = [round(rate, 8) for rate in GRID.tolist()]
    record = {"schema_version": SCHEMA_VERSION, "title": title, "fpr_grid": grid, "methods": methods}
    text = json.dumps(record, allow_nan=False, separators=(",", ":"))
    files.write_text(f"{base}.json", text + "\n")
    files.write_text(f"{base}.csv", _csv(studies))
    files.write_text(f"{base}.md", markdown(title, studies, references))
    _curves(pathlib.Path(f"{base}.png"), title, studies)


def markdown(title: str, studies: Sequence[Study], references: Sequence[str]) -> str:
    """The tables: what the models are worth, attackers by natural queries, queries by one attacker, differences."""
    all_studies, studies = studies, [study for study in studies if study.leakage]
    if not studies:
        return "\n\n".join([f"# {title}", "## The models", _utility(all_studies), *_not_asked(all_studies)]) + "\n"
    first = studies[0]
    floor = noise_floor(first.num_members, first.num_non_members)
    by_attacker = [(name, "natural") for name in ATTACKERS]
    by_queries = [[(name, queries) for queries in QUERIES] for name in _BY_QUERIES]
    parts = [
        f"# {quoted(title)}",
        f"{len(first.runs)} shadow models a method, each trained on a random half of {first.num_members * 2:,} images. "
        "Each in turn is the network under audit and the others are its shadows: means over the models with their "
        "95 % intervals (Student's t; the audits share their shadows, so the intervals are approximate).",
        "## The models",
        _utility(all_studies),
        *_not_asked(all_studies),
        "## Attackers, by natural queries",
        *(_table(studies, by_attacker, figure, "attacker") for figure in _SHOWN),
        *(
            part
            for name, pairs in zip(_BY_QUERIES, by_queries)
            for part in (
                f"## Queries, by {name}",
                *(_table(studies, pairs, figure, "queries") for figure in ("tpr_0.001", "tpr_0.01", "auc")),
            )
        ),
        "Balanced accuracies are of the best threshold in-sample: without leakage "
        f"{floor.mean:.4f} (95 %: below {floor.upper_95:.4f}). Without leakage the AUC is .5, and the TPR is the FPR. "
        "n/a: a rate that the non-members of some model are too few, or too often alike, to show.",
    ]
    if all(study.has_canaries for study in studies):
        parts += [
            "## Canaries",
            f"The same attackers on the {first.flags['canaries']} images with wrong labels alone.",
            *(_table(studies, by_attacker, figure, "attacker", "canaries") for figure in ("tpr_0.01", "auc")),
        ]
    for reference in references:
        of_reference = next((study for study in studies if study.title.endswith(reference)), None)
        others = [study for study in studies if study is not of_reference and study.title != "Natural"]
        if of_reference and others:
            pairs = list(dict.fromkeys(sum(by_queries, by_attacker)))
            parts += [
                f"## Paired differences from {quoted(of_reference.title)}",
                _differences(others, of_reference, pairs),
            ]
    return "\n\n".join(parts) + "\n"


def _utility(studies: Sequence[Study]) -> str:
    rows = [("method", "A_train", "A_test", "R_train", "R_test", "P_MAX (in-sample)")]
    for study in studies:
        rows.append((study.title, *(_cell([run[name] for run in study.runs]) for name in _UTILITY)))
    return markdown_table(rows)


def _not_asked(studies: Sequence[Study]) -> list[str]:
    """What to say of methods whose models are trained and were asked nothing."""
    titles = ", ".join(study.title for study in studies if not study.leakage)
    return [f"Trained, and not yet attacked: {titles}."] if titles else []


def _table(
    studies: Sequence[Study], pairs: Sequence[tuple[str, str]], figure: str, what: str, examples: str = "all"
) -> str:
    rows = [(f"{FIGURES[figure]}: {what}", *(study.title for study in studies))]
    for attacker, queries in pairs:
        cells = (_cell(study.of(attacker, queries, examples).values(figure)) for study in studies)
        rows.append((attacker if what == "attacker" else queries, *cells))
    return markdown_table(rows)


def _differences(studies: Sequence[Study], reference: Study, pairs: Sequence[tuple[str, str]]) -> str:
    figures = ("tpr_0.001", "tpr_0.01", "auc")
    rows = [("method", "attacker", "queries", *(FIGURES[figure] for figure in figures))]
    for study in studies:
        for pair in pairs:
            mine, others = study.of(*pair), reference.of(*pair)
            cells = (_signed(mine.values(name), others.values(name)) for name in figures)
            rows.append((study.title, *pair, *cells))
    return markdown_table(rows)


def _cell(values: Sequence[float] | None) -> str:
    if values is None:
        return NOT_AVAILABLE
    estimate = statistics.estimate(values)
    if estimate.low is None:
        return f"{estimate.mean:.4f}"
    return f"{estimate.mean:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"


def _signed(values: Sequence[float] | None, others: Sequence[float] | None) -> str:
    if values is None or others is None:
        return NOT_AVAILABLE
    difference = statistics.paired_difference(values, others)
    if difference.low is None:
        return f"{difference.mean:+.4f}"
    return f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"


def _csv(studies: Sequence[Study]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("method", "attacker", "queries", "examples", "figure", "mean", "low", "high", "num"))
    for study in studies:
        title = csv_cell(study.title)
        for one in study.leakage:
            for figure in FIGURES:
                values = one.values(figure)
                value = statistics.estimate(values) if values else statistics.Estimate(*[None] * 4, num=0)
                numbers = ("" if number is None else f"{number:.6f}" for number in (value.mean, value.low, value.high))
                writer.writerow((title, one.attacker, one.queries, one.examples, figure, *numbers, value.num))
    return text.getvalue()


def _plain(study: Study) -> dict:
    return {
        "title": study.title,
        "flags": study.flags,
        "num_members": study.num_members,
        "num_non_members": study.num_non_members,
        "models": {name: [run[name] for run in study.runs] for name in _UTILITY},
        "leakage": [
            {"attacker": one.attacker, "queries": one.queries, "examples": one.examples}
            | {figure: _rounded(one.values(figure)) for figure in FIGURES}
            | {"curve": _rounded(one.curve)}
            for one in study.leakage
        ],
    }


def _rounded(values: Sequence[float | None] | None) -> list[float | None] | None:
    return values and [None if value is None else round(value, 6) for value in values]


def _from_plain(method: dict) -> Study:
    models = {name: _numbers(method["models"], name) for name in _UTILITY}
    # Of canaries half are non-members, give or take; files of version 2 have no figure to drop.
    judged = {"all": _number(method, "num_non_members"), "canaries": method["flags"].get("canaries", 0) // 2}
    finest = {examples: 1 / max(num, 1) for examples, num in judged.items()}
    return Study(
        title=str(method["title"]),
        flags=dict(method["flags"]),
        runs=[dict(zip(models, values)) for values in zip(*models.values(), strict=True)],
        leakage=[
            Leakage(
                **{name: str(one[name]) for name in ("attacker", "queries", "examples")},
                **{name: _numbers(one, name) for name in ("balanced_accuracy", "auc")},
                tpr={fpr: _available(one, f"tpr_{fpr:g}") if fpr >= finest[one["examples"]] else None for fpr in FPRS},
                curve=[
                    tpr if fpr >= finest[one["examples"]] else None for fpr, tpr in zip(GRID, _available(one, "curve"))
                ],
            )
            for one in method["leakage"]
        ],
        num_members=_number(method, "num_members"),
        num_non_members=_number(method, "num_non_members"),
    )


def _numbers(values: dict, name: str) -> list[float]:
    if not isinstance(values[name], list) or not values[name] or not all(map(results.is_number, values[name])):
        raise ValueError(f"{name} is no list of finite numbers")
    return values[name]


def _available(values: dict, name: str) -> list[float | None] | None:
    """Numbers, of which some or all may not be available."""
    if values[name] is None:
        return None
    if not isinstance(values[name], list) or not all(v is None or results.is_number(v) for v in values[name]):
        raise ValueError(f"{name} is no list of finite numbers")
    return values[name]


def _number(values: dict, name: str) -> int:
    if not results.is_number(values[name]):
        raise ValueError(f"{name} is no finite number")
    return values[name]


def _curves(path: pathlib.Path, title: str, studies: Sequence[Study]) -> None:
    """A panel for each of some kinds of query, a line a method, and the global threshold's in grey dots."""
    shown = ("natural", "adversarial", "all four")
    studies = [study for study in studies if study.leakage]
    figure, panels = pyplot.subplots(1, len(shown), figsize=(11, 4.2), dpi=130, sharey=True, layout="constrained")
    colours = style.colours([study.title for study in studies])
    for axes, queries in zip(panels, shown):
        axes.plot(GRID, GRID, color=style.GREY, linewidth=0.8, linestyle="--", label="no leakage")
        for study in studies:
            colour = colours[study.title]
            curves = [np.array(study.of(name, queries).curve, float) for name in (_BY_QUERIES[0], "global threshold")]
            axes.plot(GRID, curves[0], color=colour, label=study.title)  # a gap where there is no figure
            axes.plot(GRID, curves[1], color=colour, linewidth=0.9, linestyle=":")
        axes.set(xscale="log", yscale="log", xlim=(1e-4, 1), ylim=(1e-4, 1), xlabel="false positive rate")
        axes.set_title(f"{queries} queries", fontsize=10)
        style.clean(axes)
    panels[0].set_ylabel("true positive rate")
    panels[0].legend(fontsize=8, frameon=False)
    figure.suptitle(f"{title}: {_BY_QUERIES[0]}; dotted: global threshold", fontsize=11)
    style.save(figure, path)
    pyplot.close(figure)
