"""Robust accuracy against leakage: the mean, interval and cost of every row, and the front that none beats."""

import os
import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from experiments import paper, statistics
from experiments.figures import style
from pineat_tf.statistics import clopper_pearson

_LEGEND_WIDTH = 40  # characters
_LINE_INCHES = 0.19
_LARGEST_MARK, _SMALLEST_MARK = 11.0, 4.0  # points across
_LEAST_SPAN = np.array([0.02, 0.05])  # along x and y: differences below this fill no page
_MOST_LABELLED = 8  # rows; of more, the front, the original and PINEAT-1/1 alone have their names beside them
_LONGEST_LABEL = 40  # characters
_HALO = [withStroke(linewidth=3, foreground="white")]
_ALWAYS_LABELLED = ("Original", "PINEAT-1/1")
_AXES = {"p_max": "leakage: membership inference accuracy P_MAX, in-sample", "r_test": "robust accuracy R_test"}

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

    The large part shows where most rows are. Where a few rows or the paper's points lie far off, a small one beside it
    shows all of them. Intervals are Student's t over seeds; of a single run they are binomial: exact for R_test, normal
    for P_MAX, with each of the two error rates taken as half of the errors.

    Args:
        path: the PNG to write.
        runs: of `results.tidy`, at least one.
        title: what was run.
        with_paper: draw the paper's points for the same rows, which are at full scale.
    """
    looks, sizes = style.looks(runs), _sizes(runs)
    entries = style.legend(looks) + _size_legend(sizes)
    for entry in entries:
        entry.set_label(textwrap.fill(entry.get_label(), _LEGEND_WIDTH))
    num_lines = sum(entry.get_label().count("\n") + 1 for entry in entries)
    figure = Figure(figsize=(11, max(6.4, 3.6 + _LINE_INCHES * num_lines)), dpi=120, layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=(2.6, 1), height_ratios=(1, 0.6))
    axes, aside = figure.add_subplot(grid[:, 0]), figure.add_subplot(grid[0, 1])
    aside.set_axis_off()
    _draw(axes, runs, looks, sizes, with_paper)
    crowd = _crowd(runs)
    axes.set(xlim=crowd[0], ylim=crowd[1], xlabel=f"{_AXES['p_max']} (less is better)", ylabel=_AXES["r_test"])
    axes.set_title(title, loc="left")
    _label(axes, runs, looks)
    handles, _ = axes.get_legend_handles_labels()
    aside.legend(handles=entries + handles, loc="upper left", bbox_to_anchor=(0, 1), frameon=False, fontsize=8.5)
    if not _holds(crowd, runs, with_paper):
        far = figure.add_subplot(grid[1, 1])
        _draw(far, runs, looks, {cost: 0.5 * size for cost, size in sizes.items()}, with_paper)
        (left, right), (bottom, top) = far.get_xlim(), far.get_ylim()
        far.set(xlim=(min(left, crowd[0][0]), max(right, crowd[0][1])))
        far.set(ylim=(min(bottom, crowd[1][0]), max(top, crowd[1][1])))
        far.set_title("all of them", loc="left", fontsize=9)
        far.tick_params(labelsize=8)
        far.indicate_inset((crowd[0][0], crowd[1][0], np.ptp(crowd[0]), np.ptp(crowd[1])), edgecolor="black")
    style.save(figure, path)


def intervals(runs: pd.DataFrame) -> dict[str, tuple[tuple[float, float], tuple[float, float]]]:
    """The ends of the 95 % intervals of P_MAX and R_test, by title."""
    found = {}
    for title, of_row in runs.groupby("title", sort=False):
        estimates = statistics.summary(of_row, list(_AXES)).loc[title]
        if estimates["p_max"].sd is None:
            found[title] = _binomial(of_row.iloc[0])
        else:
            found[title] = tuple((estimates[name].low, estimates[name].high) for name in _AXES)
    return found


def _binomial(run: pd.Series) -> tuple[tuple[float, float], tuple[float, float]]:
    members, others = int(run["data.num_members"]), int(run["data.num_non_members"])
    p_max = run["p_max"]
    half = 1.96 * 0.5 * np.sqrt(p_max * (1 - p_max) * (1 / members + 1 / others))
    return (p_max - half, p_max + half), tuple(clopper_pearson(round(run["r_test"] * others), others))


def _draw(axes: Axes, runs: pd.DataFrame, looks: style.Looks, sizes: dict[float, float], with_paper: bool) -> None:
    style.clean(axes)
    estimates = statistics.summary(runs, [*_AXES, "forwards"])
    ends = intervals(runs)
    for title, of_row in runs.groupby("title", sort=False):
        colour, mark, *_ = looks[title]
        if len(of_row) > 1:
            axes.scatter(of_row["p_max"], of_row["r_test"], s=9, color=colour, alpha=0.3, linewidths=0, marker=mark)
        x, y, cost = (one.mean for one in estimates.loc[title])
        for across, along in ((ends[title][0], (y, y)), ((x, x), ends[title][1])):
            axes.plot(across, along, color=colour, linewidth=1, alpha=0.6)
        axes.plot(x, y, color=colour, marker=mark, markersize=sizes[cost], linestyle="")
    if with_paper:
        _draw_paper(axes, runs, looks)
    means = _means(runs)
    steps = means[front(means)]
    options = {"where": "post", "color": "black", "linewidth": 1, "alpha": 0.6, "zorder": 1}
    axes.step(steps[:, 0], steps[:, 1], **options, label="front of the means")
    for number, (mean, upper) in enumerate(_floors(runs)):
        label = None if number else "no leak: mean, and below in 95 %"
        axes.axvline(mean, color=style.GREY, linestyle=":", linewidth=1.2, label=label)
        axes.axvspan(mean, upper, color=style.GREY, alpha=0.08, linewidth=0)


def _draw_paper(axes: Axes, runs: pd.DataFrame, looks: style.Looks) -> None:
    label = "in the paper, at full scale"
    for title, point in _of_paper(runs).items():
        colour, mark, *_ = looks[title]
        options = {"facecolors": "none", "edgecolors": colour, "linewidths": 0.9, "alpha": 0.45}
        axes.scatter(*point, s=46, marker=mark, zorder=0, label=label, **options)
        label = None


def _of_paper(runs: pd.DataFrame) -> dict[str, tuple[float, float]]:
    rows = runs.drop_duplicates("title").set_index("title")["config"].map(paper.paper_row)
    return {title: (row["p_max"], row["r_test"]) for title, row in rows.items() if row}


def _label(axes: Axes, runs: pd.DataFrame, looks: style.Looks) -> None:
    """Names rows beside their marks, each on the side where the fewest marks and names are."""
    means, titles = _means(runs), list(runs["title"].unique())
    kept = set(range(len(titles)))
    if len(titles) > _MOST_LABELLED:
        named = (i for i, title in enumerate(titles) if looks[title].label in _ALWAYS_LABELLED)
        kept = {*front(means), *named}
    several = len({look.group for look in looks.values()}) > 1
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    places = (means - (left, bottom)) / (right - left, top - bottom)  # in shares of the picture
    inside = np.all((places >= 0) & (places <= 1), axis=1)
    taken = [tuple(place) for place in places[inside]]
    for i in sorted(kept, key=lambda i: -places[i][1]):
        if inside[i]:
            look = looks[titles[i]]
            name = titles[i] if several else look.label or look.group
            name = name if len(name) <= _LONGEST_LABEL else f"{name[:_LONGEST_LABEL]}..."
            x, y, options = _free_side(places[i], name, taken)
            axes.text(
                x, y, name, transform=axes.transAxes, color=look.colour, fontsize=8.5, path_effects=_HALO, **options
            )


def _free_side(place: np.ndarray, name: str, taken: list[tuple[float, float]]) -> tuple[float, float, dict[str, str]]:
    """Where a name goes: the side of its mark with the most room; its points count as taken."""
    width, height = 0.0105 * len(name), 0.024

    def points(side: tuple[int, int]) -> np.ndarray:
        left = place[0] + 0.012 * side[0] - width * (side[0] < 0)
        return np.array(
            [(left + share * width, place[1] + side[1] * height) for share in np.linspace(0, 1, 2 + int(width / 0.02))]
        )

    def cost(side: tuple[int, int]) -> float:
        there = points(side)
        near = np.abs(there[:, None] - np.array(taken)[None]) < (0.014, height)
        beyond = np.count_nonzero((there < 0.005) | (there > 0.995))
        return np.count_nonzero(near.all(axis=-1)) + 5 * beyond + 0.7 * abs(side[1])

    best = min(((side, up) for up in (1, -1, 2, -2, 3, -3, 4, -4) for side in (1, -1)), key=cost)
    taken.extend(map(tuple, points(best)))
    align = "left" if best[0] > 0 else "right"
    return place[0] + 0.012 * best[0], place[1] + best[1] * height, {"ha": align, "va": "center"}


def _crowd(runs: pd.DataFrame) -> Box:
    """The part around the front and the rows within Tukey's fences, with the noise floor."""
    means = _means(runs)
    low, high = np.percentile(means, (25, 75), axis=0)
    fence = 1.5 * (high - low)
    inside = np.all((means >= low - fence) & (means <= high + fence), axis=1)
    inside[front(means)] = True
    seeds = runs.loc[runs["title"].isin(runs["title"].unique()[inside]), list(_AXES)].to_numpy()
    low, high = seeds.min(axis=0), seeds.max(axis=0)
    low[0] = min(low[0], *(mean for mean, _ in _floors(runs)), 1.0)
    margin = np.maximum(0.06 * (high - low), (_LEAST_SPAN - (high - low)) / 2)
    (left, bottom), (right, top) = low - margin, high + margin
    return (left, right), (max(bottom, -0.02), min(top, 1.02))


def _holds(crowd: Box, runs: pd.DataFrame, with_paper: bool) -> bool:
    """Whether the part shows all points."""
    points = np.array([*_means(runs), *(_of_paper(runs).values() if with_paper else ())])
    (left, right), (bottom, top) = crowd
    return bool(np.all((points >= (left, bottom)) & (points <= (right, top))))


def _floors(runs: pd.DataFrame) -> list[tuple[float, float]]:
    return sorted(set(zip(runs["noise_floor.mean"], runs["noise_floor.upper_95"])))


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
