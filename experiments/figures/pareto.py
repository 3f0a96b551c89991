"""Robust accuracy against leakage: every run, the mean and cost of every row, the front, the paper's points behind."""

import os
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.figures import style
from experiments.sweep import tables
from experiments.sweep.tables import RowResult

_LEGEND_WIDTH = 44  # characters
_LINE_INCHES = 0.16
_LARGEST_MARK, _SMALLEST_MARK = 11.0, 3.5  # points across
_CROWDED = 0.2  # a box of less than this share of the picture is drawn again, magnified
_AXES = {"p_max": "membership inference accuracy P_MAX (in-sample; left is better)", "r_test": "robust accuracy R_test"}

Box = tuple[tuple[float, float], tuple[float, float]]  # from and to along x, along y


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points (leakage, accuracy) that no other beats in both, by rising leakage.

    Example:
        >>> front([(0.5, 0.6), (0.6, 0.7), (0.6, 0.5)])
        [0, 1]
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    kept: list[int] = []
    for i in order:
        if not kept or points[i][1] > points[kept[-1]][1]:
            kept.append(i)
    return kept


def write(path: str | os.PathLike, results: Sequence[RowResult], *, title: str, with_paper: bool = True) -> None:
    """Draws the picture; the area of a row's mark is the cost of its training in forward passes.

    Where a few rows or the paper's points lie far off, the part where most rows are is drawn again below, magnified.

    Args:
        path: the PNG to write.
        results: rows with at least one run each.
        title: what was run.
        with_paper: draw the paper's points for the same rows, which are at full scale.
    """
    looks = style.looks([(result.row.group, result.row.label) for result in results])
    sizes = _sizes(results)
    entries = style.legend(looks) + _size_legend(sizes)
    for entry in entries:
        entry.set_label(textwrap.fill(entry.get_label(), _LEGEND_WIDTH))
    num_lines = sum(entry.get_label().count("\n") + 1 for entry in entries)
    figure = Figure(figsize=(10, max(6.2, 1.5 + _LINE_INCHES * num_lines)), dpi=120, layout="constrained")
    axes = figure.subplots()
    _draw(axes, results, looks, sizes, with_paper)
    axes.set(title=title)
    handles, _ = axes.get_legend_handles_labels()
    axes.legend(handles=entries + handles, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    whole = axes.get_xlim(), axes.get_ylim()
    crowd = _crowd(results, whole)
    if _area(crowd) < _CROWDED * _area(whole):
        figure.set_figheight(2 * figure.get_figheight())
        magnified = figure.add_subplot(2, 1, 2)
        axes.set_subplotspec(magnified.get_gridspec()[0])
        _draw(magnified, results, looks, sizes, with_paper)
        magnified.set(xlim=crowd[0], ylim=crowd[1], title="Magnified")
        axes.indicate_inset((crowd[0][0], crowd[1][0], np.ptp(crowd[0]), np.ptp(crowd[1])), edgecolor="black")
    style.save(figure, path)


def _draw(axes: Axes, results: Sequence[RowResult], looks: style.Looks, sizes: dict[float, float], paper: bool) -> None:
    style.clean(axes)
    axes.set(xlabel=_AXES["p_max"], ylabel=_AXES["r_test"])
    for result in results:
        _draw_row(axes, result, *looks[result.row.group, result.row.label], sizes[result.estimate("forwards").mean])
    if paper:
        _draw_paper(axes, results, looks)
    _draw_front(axes, results)
    for number, (mean, upper) in enumerate(tables.noise_floors(results)):
        label = None if number else "no leak (noise floor)"
        axes.axvline(mean, color=style.GREY, linestyle=":", linewidth=1.2, label=label)
        axes.axvspan(mean, upper, color=style.GREY, alpha=0.08, linewidth=0)


def _crowd(results: Sequence[RowResult], whole: Box) -> Box:
    """The part of the whole picture around the runs of the front, and of rows within Tukey's fences."""
    means = _means(results)
    low, high = np.percentile(means, (25, 75), axis=0)
    fence = 1.5 * (high - low)
    inside = np.all((means >= low - fence) & (means <= high + fence), axis=1)
    inside[front(means)] = True
    runs = np.concatenate([np.transpose(_runs(result)) for result, kept in zip(results, inside, strict=True) if kept])
    low, high = runs.min(axis=0), runs.max(axis=0)
    margin = 0.06 * (high - low) + 1e-3
    left, bottom = np.maximum(low - margin, np.min(whole, axis=1))
    right, top = np.minimum(high + margin, np.max(whole, axis=1))
    return (left, right), (bottom, top)


def _area(box: Box) -> float:
    return float(np.ptp(box[0]) * np.ptp(box[1]))


def _sizes(results: Sequence[RowResult]) -> dict[float, float]:
    """The diameter of a mark, by forward passes."""
    costs = [result.estimate("forwards").mean for result in results]
    return {cost: max(_SMALLEST_MARK, _LARGEST_MARK * (cost / max(costs)) ** 0.5) for cost in costs}


def _size_legend(sizes: dict[float, float]) -> list[Line2D]:
    return [
        style.sample(f"{cost:,.0f} forward passes", style.GREY, "o", sizes[cost])
        for cost in sorted({min(sizes), max(sizes)})
    ]


def _draw_row(axes: Axes, result: RowResult, colour: str, mark: str, size: float) -> None:
    x, y = result.estimate("p_max"), result.estimate("r_test")
    axes.scatter(*_runs(result), s=12, color=colour, alpha=0.35, linewidths=0, marker=mark)
    bars = {}
    if x.sd is not None:
        bars = {"xerr": [[x.mean - x.low], [x.high - x.mean]], "yerr": [[y.mean - y.low], [y.high - y.mean]]}
    options = {"color": colour, "marker": mark, "markersize": size, "linestyle": "", "elinewidth": 1, "capsize": 2}
    axes.errorbar(x.mean, y.mean, **bars, **options)


def _means(results: Sequence[RowResult]) -> np.ndarray:
    return np.array([[result.estimate(name).mean for name in _AXES] for result in results])


def _runs(result: RowResult) -> tuple[list[float], list[float]]:
    return list(result.values("p_max").values()), list(result.values("r_test").values())


def _draw_paper(axes: Axes, results: Sequence[RowResult], looks: style.Looks) -> None:
    drawn = False
    for result in results:
        if result.paper:
            colour, mark = looks[result.row.group, result.row.label]
            place = (result.paper["p_max"], result.paper["r_test"])
            label = None if drawn else "in the paper, at full scale"
            options = {"facecolors": "none", "edgecolors": colour, "linewidths": 0.9, "alpha": 0.45}
            axes.scatter(*place, s=46, marker=mark, zorder=0, label=label, **options)
            drawn = True


def _draw_front(axes: Axes, results: Sequence[RowResult]) -> None:
    means = _means(results)
    steps = means[front(means)]
    options = {"where": "post", "color": "black", "linewidth": 1, "alpha": 0.6, "zorder": 1}
    axes.step(steps[:, 0], steps[:, 1], **options, label="front of the means")
