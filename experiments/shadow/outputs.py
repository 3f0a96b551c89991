"""What a shadow study leaves: JSON with every figure, tables, and ROC curves on logarithmic axes."""

import json
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd

matplotlib.use("Agg")
from matplotlib import pyplot

from experiments import files, results, statistics
from experiments.figures import style
from experiments.shadow import decisions
from experiments.shadow.attackers import ATTACKERS, DECIDED, FPRS, GRID, QUERIES, Leakage
from experiments.shadow.decisions import Decisions
from experiments.sweep.tables import csv_cell, signed_interval
from pineat_tf.membership import noise_floor
from pineat_tf.report import markdown_table, quoted

SCHEMA_VERSION = 2
FIGURES = {"auc": "AUC", "balanced_accuracy": "balanced accuracy"} | {
    f"tpr_{fpr:g}": f"TPR at {100 * fpr:g} % FPR" for fpr in FPRS
}
DECISIONS = {
    f"decided_{name}_{fpr:g}": f"{label} at {100 * fpr:g} %"
    for fpr in decisions.FPRS
    for name, label in {
        "tpr": "TPR",
        "fpr": "attained FPR",
        "jaccard": "Jaccard index of flagged sets",
        "by_chance": "Jaccard index by chance",
    }.items()
}
"""By thresholds from the shadows."""

_SHOWN = ("tpr_0.001", "tpr_0.01", "auc", "balanced_accuracy")
_BY_QUERIES = ("RMIA online", "LiRA online, fixed variance")  # the strongest of their kind with few shadow models
_DECIDES = "BaVarIA online"  # whose decisions are shown by queries and priors
_COMPARED = ("tpr_0.001", "tpr_0.01", "auc")
_ABOUT = ["method", "attacker", "queries", "examples", "figure"]
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


def read(path: pathlib.Path) -> dict[str, Study]:
    """The studies that `write` has written, by title; none if there is no such file.

    Raises:
        ValueError: if the file is no such thing.
    """
    if not os.path.lexists(path):
        return {}
    try:
        plain = files.read_json(path)
        if plain["schema_version"] != SCHEMA_VERSION:
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
    studies = [_from_plain(method) for method in methods]  # as `read` gives them: tables made later are the same
    grid = [round(rate, 8) for rate in GRID.tolist()]
    record = {"schema_version": SCHEMA_VERSION, "title": title, "fpr_grid": grid, "methods": methods}
    files.write_text(f"{base}.json", json.dumps(record, allow_nan=False, separators=(",", ":")) + "\n")
    lines = frame(studies)
    named = lines.drop(columns="values").assign(method=lines["method"].map(csv_cell))
    files.write_text(f"{base}.csv", named.to_csv(index=False, float_format="%.6f", lineterminator="\n"))
    files.write_text(f"{base}.md", markdown(title, studies, references, lines))
    _curves(pathlib.Path(f"{base}.png"), title, studies)


def frame(studies: Sequence[Study]) -> pd.DataFrame:
    """What every attacker learns: a line a method, attacker, kind of query, examples judged and figure.

    Figures are those of `FIGURES` and `DECISIONS`, and "ppv_FPR_PRIOR": the precision of those who are flagged.

    Returns:
        Those, then mean, ends of the 95 % interval, number of models, and the "values" themselves (None where a model
        does not show the figure, and of precisions, which are of all models together).
    """
    lines = []
    for study in studies:
        for one in study.leakage:
            about = (study.title, one.attacker, one.queries, one.examples)
            figures = (*FIGURES, *(DECISIONS if one.decided else ()))
            lines += [(*about, figure, *_estimated(one.values(figure))) for figure in figures]
            for fpr, decided in one.decided.items():
                for prior in decisions.PRIORS:
                    found = decided and decisions.precision(decided, prior)
                    lines.append((*about, f"ppv_{fpr:g}_{prior:g}", *_ends(found), None))
    names = [*_ABOUT, "mean", "low", "high", "num", "values"]
    return pd.DataFrame(lines, columns=names).astype({name: float for name in ("mean", "low", "high")})


def _ends(found: statistics.Estimate | None) -> tuple[float | None, float | None, float | None, int]:
    return (found.mean, found.low, found.high, found.num) if found else (None, None, None, 0)


def _estimated(values: list[float] | None) -> tuple:
    return (*_ends(statistics.estimate(values) if values else None), values)


def markdown(title: str, studies: Sequence[Study], references: Sequence[str], lines: pd.DataFrame) -> str:
    """The tables: what the models are worth, attackers by natural queries, queries by one attacker, differences.

    Args:
        title: headline.
        studies: one or more.
        references: endings of the titles that others are compared with.
        lines: the `frame` of the studies.
    """
    asked = [study for study in studies if study.leakage]
    parts = [f"# {quoted(title)}"]
    if not asked:
        return "\n\n".join([*parts, "## The models", _utility(studies), *_not_asked(studies)]) + "\n"
    first, lines = asked[0], lines.set_index(_ABOUT)
    values = lines["values"]
    parts += [
        f"{len(first.runs)} shadow models a method, each trained on a random half of {first.num_members * 2:,} images. "
        "Each in turn is the network under audit and the others are its shadows: means over the models with their "
        "95 % intervals (Student's t; the audits share their shadows, so the intervals are approximate).",
        "## The models",
        _utility(studies),
        *_not_asked(studies),
        "## Attackers, by natural queries",
        *(_table(values, figure, "attacker", queries="natural") for figure in _SHOWN),
    ]
    for attacker in _BY_QUERIES:
        shown = (_table(values, figure, "queries", attacker=attacker) for figure in _COMPARED)
        parts += [f"## Queries, by {attacker}", *shown]
    floor = noise_floor(first.num_members, first.num_non_members)
    parts.append(
        "Balanced accuracies are of the best threshold in-sample: without leakage "
        f"{floor.mean:.4f} (95 %: below {floor.upper_95:.4f}). Without leakage the AUC is .5, and the TPR is the FPR. "
        "n/a: a rate that the non-members of some model are too few, or too often alike, to show."
    )
    parts += _decided(asked, lines)
    if all(any(one.examples == "canaries" for one in study.leakage) for study in asked):
        figures = ["tpr_0.01", "auc", *(name for name in DECISIONS if name in values.index.unique("figure"))]
        shown = (_table(values, f, "attacker", queries="natural", examples="canaries") for f in figures)
        count = first.flags["canaries"]
        parts += ["## Canaries", f"The same attackers on the {count} images with wrong labels alone.", *shown]
    for reference in references:
        of_reference = next((study.title for study in asked if study.title.endswith(reference)), None)
        others = [study.title for study in asked if study.title not in (of_reference, "Natural")]
        if of_reference and others:
            parts += [f"## Paired differences from {quoted(of_reference)}", _differences(values, others, of_reference)]
    return "\n\n".join(parts) + "\n"


def _utility(studies: Sequence[Study]) -> str:
    rows = [("method", "A_train", "A_test", "R_train", "R_test", "P_MAX (in-sample)")]
    for study in studies:
        rows.append((study.title, *(_cell([run[name] for run in study.runs]) for name in _UTILITY)))
    return markdown_table(rows)


def _not_asked(studies: Sequence[Study]) -> list[str]:
    """A line about methods whose models are trained and were asked nothing."""
    titles = ", ".join(study.title for study in studies if not study.leakage)
    return [f"Trained, and not yet attacked: {titles}."] if titles else []


def _decided(studies: Sequence[Study], lines: pd.DataFrame) -> list[str]:
    """What is decided by thresholds from the shadows, how precisely, and whether for the same members each time."""
    studies = [study for study in studies if any(one.decided for one in study.leakage)]
    if not studies:
        return []
    rows = [("PPV: attacker, queries, FPR, prior", *(study.title for study in studies))]
    for queries in DECIDED:
        for fpr in decisions.FPRS:
            for prior in decisions.PRIORS:
                found = [
                    lines.loc[(study.title, _DECIDES, queries, "all", f"ppv_{fpr:g}_{prior:g}")] for study in studies
                ]
                about = f"{_DECIDES}, {queries}, {100 * fpr:g} %, {100 * prior:g} %"
                rows.append((about, *(_interval(one["mean"], one["low"], one["high"]) for one in found)))
    return [
        "## Thresholds from the shadows alone",
        "For each network the threshold is set on what its shadows score on examples that they were not trained on, "
        "each by the other shadows; no label of the network decides. PPV is the share of members among those who are "
        "flagged where a share (prior) of those who are judged are members. The Jaccard index says how far the sets "
        "flagged in two networks agree, among the members of both, beside what independent draws of these sizes would "
        "give. Audits share their shadows, so sets agree more than that even where nothing leaks.",
        *(_table(lines["values"], figure, "attacker", queries="natural") for figure in DECISIONS),
        *(_table(lines["values"], figure, "queries", attacker=_DECIDES) for figure in DECISIONS),
        markdown_table(rows),
    ]


def _table(values: pd.Series, figure: str, by: str, *, examples: str = "all", **other: str) -> str:
    """One figure of every method by attacker or by kind of query; the other of these two is given."""
    chosen = values.xs((figure, examples, *other.values()), level=("figure", "examples", *other)).unstack("method")
    titles = values.index.unique("method")
    rows = [(f"{(FIGURES | DECISIONS)[figure]}: {by}", *titles)]
    for name in ATTACKERS if by == "attacker" else QUERIES:
        if name in chosen.index:  # results of before there was this attacker have none of it
            rows.append((name, *map(_cell, chosen.loc[name, titles])))
    return markdown_table(rows)


def _differences(values: pd.Series, titles: Sequence[str], reference: str) -> str:
    """Paired differences of methods from a reference: attackers by natural queries, then queries by one attacker."""
    pairs = [(name, "natural") for name in ATTACKERS if name in values.index.unique("attacker")]
    pairs += [(name, queries) for name in _BY_QUERIES for queries in QUERIES]
    rows = [("method", "attacker", "queries", *(FIGURES[figure] for figure in _COMPARED))]
    for title in titles:
        for pair in dict.fromkeys(pairs):
            mine, others = ([values.get((m, *pair, "all", f)) for f in _COMPARED] for m in (title, reference))
            rows.append((title, *pair, *map(_signed, mine, others)))
    return markdown_table(rows)


def _cell(values: Sequence[float] | None) -> str:
    if not isinstance(values, list):  # None, or the NaN of an attacker that another method alone was asked by
        return NOT_AVAILABLE
    return _interval(*_ends(statistics.estimate(values))[:3])


def _interval(mean: float | None, low: float | None, high: float | None) -> str:
    if mean is None or np.isnan(mean):
        return NOT_AVAILABLE
    return f"{mean:.4f}" if low is None else f"{mean:.4f} [{low:.4f}, {high:.4f}]"


def _signed(values: Sequence[float] | None, others: Sequence[float] | None) -> str:
    if values is None or others is None:
        return NOT_AVAILABLE
    return signed_interval(statistics.paired_difference(values, others))


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
            | {"decided": {f"{fpr:g}": _plain_decisions(decided) for fpr, decided in one.decided.items()}}
            for one in study.leakage
        ],
    }


def _plain_decisions(decided: Decisions | None) -> dict | None:
    return decided and decided._asdict() | {name: _rounded(getattr(decided, name)) for name in ("jaccard", "by_chance")}


def _rounded(values: Sequence[float | None] | None) -> list[float | None] | None:
    return values and [None if value is None else round(value, 6) for value in values]


def _from_plain(method: dict) -> Study:
    models = {name: _numbers(method["models"], name) for name in _UTILITY}
    return Study(
        title=str(method["title"]),
        flags=dict(method["flags"]),
        runs=[dict(zip(models, values)) for values in zip(*models.values(), strict=True)],
        leakage=[
            Leakage(
                **{name: str(one[name]) for name in ("attacker", "queries", "examples")},
                **{name: _numbers(one, name) for name in ("balanced_accuracy", "auc")},
                tpr={fpr: _available(one, f"tpr_{fpr:g}") for fpr in FPRS},
                curve=_available(one, "curve"),
                decided={float(fpr): _decisions(plain) for fpr, plain in one.get("decided", {}).items()},
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


def _decisions(plain: dict | None) -> Decisions | None:
    if plain is None:
        return None
    counts = {name: _numbers(plain, name) for name in ("true_positives", "members", "false_positives", "non_members")}
    return Decisions(**counts, **{name: _available(plain, name) for name in ("jaccard", "by_chance")})


def _number(values: dict, name: str) -> int:
    if not results.is_number(values[name]):
        raise ValueError(f"{name} is no finite number")
    return values[name]


def _curves(path: pathlib.Path, title: str, studies: Sequence[Study]) -> None:
    """A panel for each of some kinds of query, a line a method, and the global threshold's in grey dots."""
    shown = ("natural", "adversarial", "all four")
    studies = [study for study in studies if study.leakage]
    figure, panels = pyplot.subplots(1, len(shown), figsize=(11, 4.5), dpi=130, sharey=True, layout="constrained")
    colours = style.colours([study.title for study in studies])
    for axes, queries in zip(panels, shown):
        axes.plot(GRID, GRID, color=style.GREY, linewidth=0.8, linestyle="--", label="no leakage")
        for number, study in enumerate(studies):
            colour, line = colours[study.title], "-" if number < len(style.COLOURS) else "--"  # colours come again then
            curves = [np.array(study.of(name, queries).curve, float) for name in (_BY_QUERIES[0], "global threshold")]
            axes.plot(GRID, curves[0], line, color=colour, label=study.title)  # a gap where there is no figure
            axes.plot(GRID, curves[1], color=colour, linewidth=0.9, linestyle=":")
        axes.set(xscale="log", yscale="log", xlim=(1e-4, 1), ylim=(1e-4, 1), xlabel="false positive rate")
        axes.set_title(f"{queries} queries", fontsize=10)
        style.clean(axes)
    panels[0].set_ylabel("true positive rate")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8, frameon=False
    )
    figure.suptitle(f"{title}: {_BY_QUERIES[0]}; dotted: global threshold", fontsize=11)
    style.save(figure, path)
    pyplot.close(figure)
