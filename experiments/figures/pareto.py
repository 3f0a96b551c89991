"""Robust accuracy against leakage: every run, the mean and cost of every row, the front, the paper's points behind."""

import os
import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments import paper, statistics
from experiments.figures import style

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


def write(path: str | os.PathLike, runs: pd.DataFrame, *, title: str, with_paper: bool = True) -> None:
    """Draws the picture; the area of a row's mark is the cost of its training in forward passes.

    Where a few rows or the paper's points lie far off, the part where most rows are is drawn again below, magnified.

    Args:
        path: the PNG to write.
        runs: of `results.tidy`, at least one.
        title: what was run.
        with_paper: draw the paper's points for the same rows, which are at full scale.
    """
    looks = style.looks(runs)
    sizes = _sizes(runs)
    entries = style.legend(looks) + _size_legend(sizes)
    for entry in entries:
        entry.set_label(textwrap.fill(entry.get_label(), _LEGEND_WIDTH))
    num_lines = sum(entry.get_label().count("\n") + 1 for entry in entries)
    figure = Figure(figsize=(10, max(6.2, 1.5 + _LINE_INCHES * num_lines)), dpi=120, layout="constrained")
    axes = figure.subplots()
    _draw(axes, runs, looks, sizes, with_paper)
    axes.set(title=title)
    handles, _ = axes.get_legend_handles_labels()
    axes.legend(handles=entries + handles, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    whole = axes.get_xlim(), axes.get_ylim()
    crowd = _crowd(runs, whole)
    if _area(crowd) < _CROWDED * _area(whole):
        figure.set_figheight(2 * figure.get_figheight())
        magnified = figure.add_subplot(2, 1, 2)
        axes.set_subplotspec(magnified.get_gridspec()[0])
        _draw(magnified, runs, looks, sizes, with_paper)
        magnified.set(xlim=crowd[0], ylim=crowd[1], title="Magnified")
        axes.indicate_inset((crowd[0][0], crowd[1][0], np.ptp(crowd[0]), np.ptp(crowd[1])), edgecolor="black")
    style.save(figure, path)


def _draw(axes: Axes, runs: pd.DataFrame, looks: style.Looks, sizes: dict[float, float], with_paper: bool) -> None:
    style.clean(axes)
    axes.set(xlabel=_AXES["p_max"], ylabel=_AXES["r_test"])
    estimates = statistics.summary(runs, [*_AXES, "forwards"])
    for title, of_row in runs.groupby("title", sort=False):
        colour, mark, *_ = looks[title]
        axes.scatter(of_row["p_max"], of_row["r_test"], s=12, color=colour, alpha=0.35, linewidths=0, marker=mark)
        x, y, cost = estimates.loc[title]
        bars = {}
        if x.sd is not None:
            bars = {"xerr": [[x.mean - x.low], [x.high - x.mean]], "yerr": [[y.mean - y.low], [y.high - y.mean]]}
        options = {"markersize": sizes[cost.mean], "linestyle": "", "elinewidth": 1, "capsize": 2}
        axes.errorbar(x.mean, y.mean, **bars, color=colour, marker=mark, **options)
    if with_paper:
        _draw_paper(axes, runs, looks)
    means = _means(runs)
    steps = means[front(means)]
    options = {"where": "post", "color": "black", "linewidth": 1, "alpha": 0.6, "zorder": 1}
    axes.step(steps[:, 0], steps[:, 1], **options, label="front of the means")
    floors = sorted(set(zip(runs["noise_floor.mean"], runs["noise_floor.upper_95"])))
    for number, (mean, upper) in enumerate(floors):
        label = None if number else "no leak (noise floor)"
        axes.axvline(mean, color=style.GREY, linestyle=":", linewidth=1.2, label=label)
        axes.axvspan(mean, upper, color=style.GREY, alpha=0.08, linewidth=0)


def _draw_paper(axes: Axes, runs: pd.DataFrame, looks: style.Looks) -> None:
    label = "in the paper, at full scale"
    for title, config in runs.drop_duplicates("title").set_index("title")["config"].items():
        of_paper = paper.paper_row(config)
        if of_paper:
            colour, mark, *_ = looks[title]
            options = {"facecolors": "none", "edgecolors": colour, "linewidths": 0.9, "alpha": 0.45}
            axes.scatter(of_paper["p_max"], of_paper["r_test"], s=46, marker=mark, zorder=0, label=label, **options)
            label = None


def _crowd(runs: pd.DataFrame, whole: Box) -> Box:
    """The part of the whole picture around the runs of the front, and of rows within Tukey's fences."""
    means = _means(runs)
    low, high = np.percentile(means, (25, 75), axis=0)
    fence = 1.5 * (high - low)
    inside = np.all((means >= low - fence) & (means <= high + fence), axis=1)
    inside[front(means)] = True
    points = runs.loc[runs["title"].isin(runs["title"].unique()[inside]), list(_AXES)].to_numpy()
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.06 * (high - low) + 1e-3
    left, bottom = np.maximum(low - margin, np.min(whole, axis=1))
    right, top = np.minimum(high + margin, np.max(whole, axis=1))
    return (left, right), (bottom, top)


def _area(box: Box) -> float:
    return float(np.ptp(box[0]) * np.ptp(box[1]))


def _sizes(runs: pd.DataFrame) -> dict[float, float]:
    """The diameter of a mark, by forward passes."""
    costs = [one.mean for one in statistics.summary(runs, ["forwards"])["forwards"]]
    return {cost: max(_SMALLEST_MARK, _LARGEST_MARK * (cost / max(costs)) ** 0.5) for cost in costs}


def _size_legend(sizes: dict[float, float]) -> list[Line2D]:
    return [
        style.sample(f"{cost:,.0f} forward passes", style.GREY, "o", sizes[cost])
        for cost in sorted({min(sizes), max(sizes)})
    ]


def _means(runs: pd.DataFrame) -> np.ndarray:
    return np.array([[one.mean for one in row] for row in statistics.summary(runs, list(_AXES)).to_numpy()])
