"""Reports in words, as HTML and as pictures: a verdict, the figures, what they mean, and what was not tested."""

import html
from collections.abc import Sequence
from typing import Any

from pineat_tf.membership.thresholds import noise_floor
from pineat_tf.statistics import Interval, clopper_pearson

__all__ = [
    "GLOSSARY",
    "floor_of_p_max",
    "plot_report",
    "plot_robustness",
    "report_html",
    "robustness_html",
    "robustness_text",
    "untested",
    "verdict",
    "verdict_of_robustness",
]

GLOSSARY = {
    "A_train, A_test": "accuracy on members (the training data) and on non-members",
    "R_train, R_test": "accuracy on the same examples under the attack of the report",
    "V_test": "share of the non-members that are proved to be classified correctly under every noise of a radius; no "
    "attack of it leaves less",
    "P_Enat, P_Eadv": "how often the best threshold on the cross-entropy of natural or attacked examples is right "
    "about who was a member, where half are; chosen on the scores that it is judged on (in-sample)",
    "P_MAX": "the larger of the two",
    "noise floor": "what such a threshold reaches where nothing leaks: its mean, and what it exceeds in 5 % of audits",
    "gap attack": "how often it is right to call a member whatever is classified correctly",
    "TPR at a FPR": "share of members that are found while that share of non-members is called members",
    "AUC": "chance that a member has a higher score than a non-member",
}
"""What the figures of a report mean."""

_quoted = html.escape
_BLUE, _ORANGE, _GREY = "#0072b2", "#d55e00", "#6b7280"  # Okabe and Ito's, which the colour-blind tell apart


def verdict(report: Any) -> str:
    """Says in two sentences what a report comes to.

    Accuracies have exact 95 % intervals (Clopper and Pearson). P_MAX is compared with what the better of as many
    thresholds exceeds by chance in 5 % of audits (Bonferroni).
    """
    non_members = report.natural.membership[0].num_non_members
    parts = [f"Accuracy {_share(report.natural.test_accuracy, non_members)}"]
    if report.robustness is not None:
        parts.append(verdict_of_robustness(report.robustness))
    elif report.adversarial is not None:
        parts.append(f"accuracy under attack {_share(report.adversarial.test_accuracy, non_members)}")
    if report.verification is not None:
        low, high = report.verification.interval()
        proved = f"verified accuracy {report.verification.accuracy:.3f} [{low:.3f}, {high:.3f}]"
        parts.append(f"{proved} at linf radius {report.verification.epsilon:g}")
    band = floor_of_p_max(report)
    if report.p_max > band:
        found = f"above the 95 % band of no leakage ({band:.4f}): a leak is shown"
    else:
        found = f"within the 95 % band of no leakage ({band:.4f}): no leak shown by these attackers"
    return f"{'; '.join(parts)}. Membership inference accuracy (P_MAX) {report.p_max:.4f}, {found}."


def verdict_of_robustness(result: Any) -> str:
    """Says what the ensemble leaves at the largest radius."""
    epsilon = result.epsilons[-1]
    low, high = result.interval(epsilon)
    return f"robust accuracy {result.accuracy(epsilon):.3f} at {result.norm} radius {epsilon:g} [{low:.3f}, {high:.3f}]"


def floor_of_p_max(report: Any) -> float:
    """The balanced accuracy that the better of the report's thresholds exceeds in 5 % of audits where nothing leaks."""
    first, audits = report.natural.membership[0], 1 + (report.adversarial is not None)
    return noise_floor(first.num_members, first.num_non_members, audits).upper_95


def untested(report: Any) -> list[str]:
    """Lists what no figure of a report speaks of."""
    missing = []
    if report.adversarial is None:
        missing.append("robustness: no attack was given")
    if report.robustness is None:
        missing.append("stronger attacks than that of the report: see `robustness` with `attacks.auto_attack()`")
    if report.verification is None:
        missing.append("proofs of robustness: see `verify`")
    missing.append("attackers with shadow models (LiRA, RMIA), which find more than thresholds do: see `membership`")
    missing.append("whether members and non-members are alike: data sets drawn apart look like a leak")
    return missing


def report_html(report: Any, rows: Sequence[Sequence[str]]) -> str:
    """Writes a report for a notebook: the verdict, the table, and two lists that unfold."""
    glossary = "".join(f"<dt><b>{_quoted(word)}</b></dt><dd>{_quoted(text)}</dd>" for word, text in GLOSSARY.items())
    missing = "".join(f"<li>{_quoted(text)}</li>" for text in untested(report))
    return (
        f"<p><b>{_quoted(verdict(report))}</b></p>{_table(rows)}"
        f"<details><summary>Not tested</summary><ul>{missing}</ul></details>"
        f"<details><summary>What the figures mean</summary><dl>{glossary}</dl></details>"
    )


def robustness_rows(result: Any) -> list[tuple[str, ...]]:
    """Tabulates radius, robust accuracy and its interval, and what each attack left."""
    rows = [
        (f"{result.norm} radius", "robust accuracy", "95 % interval", *(f"after {name}" for name in result.attacks))
    ]
    for epsilon in result.epsilons:
        low, high = result.interval(epsilon)
        left = result.after_each_attack(epsilon) if epsilon else dict.fromkeys(result.attacks, result.accuracy(0.0))
        cells = (
            f"{result.accuracy(epsilon):.4f}",
            f"[{low:.4f}, {high:.4f}]",
            *(f"{value:.4f}" for value in left.values()),
        )
        rows.append((f"{epsilon:g}", *cells))
    return rows


def robustness_text(result: Any) -> str:
    """Writes robust accuracy for a terminal: the verdict, the table, and why figures may be too good."""
    warned = [f"Warning: {warning}" for warning in result.warnings]
    return "\n".join([_sentence(verdict_of_robustness(result)), "", aligned(robustness_rows(result)), *warned])


def robustness_html(result: Any) -> str:
    """Writes robust accuracy for a notebook."""
    warned = "".join(f"<p>Warning: {_quoted(warning)}</p>" for warning in result.warnings)
    return f"<p><b>{_quoted(_sentence(verdict_of_robustness(result)))}</b></p>{_table(robustness_rows(result))}{warned}"


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Lays rows of cells out in columns."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def plot_report(report: Any, axes: Any = None) -> Any:
    """Draws accuracy with and without attack, and leakage beside its band of no leakage.

    Args:
        report: what is drawn.
        axes: two axes of Matplotlib; None for a new figure.

    Returns:
        The figure.
    """
    figure, (left, right) = _axes(axes, 2)
    queries = {"natural": report.natural, "under attack": report.adversarial}
    queries = {name: figures for name, figures in queries.items() if figures is not None}
    count = report.natural.membership[0]
    members = (-0.17, _GREY, "members", "train_accuracy", count.num_members)
    others = (0.17, _BLUE, "non-members", "test_accuracy", count.num_non_members)
    for offset, colour, who, name, num in (members, others):
        values = [getattr(figures, name) for figures in queries.values()]
        ends = [clopper_pearson(round(value * num), num) for value in values]
        places = [place + offset for place in range(len(values))]
        left.bar(places, values, 0.32, color=colour, label=who, yerr=_lengths(values, ends), capsize=3)
    left.set(xticks=range(len(queries)), xticklabels=list(queries), xlim=(-0.5, len(queries) - 0.5))
    left.set(ylim=(0, 1), ylabel="accuracy")
    left.legend(loc="lower right")
    right.axhspan(0.5, floor_of_p_max(report), color=_GREY, alpha=0.25, label="no leakage, 95 %")
    right.plot(
        range(len(queries)), [f.p_e for f in queries.values()], "o", color=_ORANGE, label="cross-entropy threshold"
    )
    right.set(xticks=range(len(queries)), xticklabels=list(queries), xlim=(-0.5, len(queries) - 0.5))
    right.set(ylim=(0.495, max(0.52, 0.01 + report.p_max)), ylabel="membership inference accuracy")
    right.legend(frameon=False)
    return figure


def plot_robustness(result: Any, axes: Any = None) -> Any:
    """Draws robust accuracy by radius, with exact 95 % intervals.

    Args:
        result: what is drawn.
        axes: an axes of Matplotlib in a list; None for a new figure.

    Returns:
        The figure.
    """
    figure, (axis,) = _axes(axes, 1)
    ends = [result.interval(epsilon) for epsilon in result.epsilons]
    axis.fill_between(result.epsilons, *zip(*ends), color=_BLUE, alpha=0.2, label="95 % interval")
    axis.plot(result.epsilons, result.accuracies, "o-", color=_BLUE, label=", ".join(result.attacks))
    axis.set(xlabel=f"{result.norm} radius", ylabel="robust accuracy", ylim=(0, 1))
    axis.legend(frameon=False)
    return figure


def _axes(axes: Any, num: int) -> tuple[Any, Any]:
    if axes is not None:
        return axes[0].figure, axes
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise ImportError("`plot` needs Matplotlib, which is not installed: pip install matplotlib.") from None
    figure, axes = plt.subplots(1, num, figsize=(4.2 * num + 0.6, 3.6), layout="constrained", squeeze=False)
    return figure, axes[0]


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    cells = "".join(f"<th>{_quoted(cell)}</th>" for cell in head)
    return f"<table><tr>{cells}</tr>{''.join(map(_line, body))}</table>"


def _line(row: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<td>{_quoted(cell)}</td>' for cell in row)}</tr>"


def _lengths(values: Sequence[float], ends: Sequence[Interval]) -> list[list[float]]:
    return [[v - end.low for v, end in zip(values, ends)], [end.high - v for v, end in zip(values, ends)]]


def _share(value: float, num: int) -> str:
    low, high = clopper_pearson(round(value * num), num)
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"
