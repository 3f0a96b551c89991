"""Accuracy, robustness and leakage against a scale, such as the number of training images: a line a method."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import offset_copy

from experiments.figures import style

_APART = 3.0
"""Points between lines at one scale, so that their intervals do not lie on each other."""


class Line(NamedTuple):
    """A method.

    Attributes:
        label: for the legend.
        colour: of the line.
        mark: of its points.
        points: an `Estimate` or `Difference` of each figure, by scale; one of no scale (None) is a dashed line.
    """

    label: str
    colour: str
    mark: str
    points: dict[float | None, pd.Series]


class Panel(NamedTuple):
    """A scale.

    Attributes:
        title: above it.
        label: of the scale.
        lines: what stands against it.
        ticks: at these scales, which then are logarithmic; empty for a linear axis.
    """

    title: str
    label: str
    lines: Sequence[Line]
    ticks: Sequence[float] = ()


def write(path: str | os.PathLike, panels: Sequence[Panel], *, title: str) -> None:
    """Draws a row a figure and a column a scale, with 95 % intervals where there is more than one seed.

    Args:
        path: the PNG to write.
        panels: the scales.
        title: what was run.
    """
    figure = Figure(figsize=(1.6 + 4.4 * len(panels), 9), dpi=120, layout="constrained")
    grid = figure.subplots(len(style.FIGURES), len(panels), sharey="row", sharex="col", squeeze=False)
    for column, panel in zip(grid.T, panels):
        for axes, name in zip(column, style.FIGURES):
            style.clean(axes)
            with_scale = [line for line in panel.lines if None not in line.points]
            for number, line in enumerate(with_scale):
                _draw(axes, line, name, aside=_APART * (number - (len(with_scale) - 1) / 2))
            for line in panel.lines:
                if None in line.points:
                    axes.axhline(line.points[None][name].mean, color=line.colour, linestyle="--", linewidth=1)
            axes.margins(0.06, 0.1)
        if panel.ticks:
            column[-1].set_xscale("log")
            column[-1].set_xticks(panel.ticks, [f"{tick:,}" for tick in panel.ticks])
            column[-1].minorticks_off()
        column[0].set_title(panel.title, loc="left")
        column[-1].set_xlabel(panel.label)
    for axes, label in zip(grid[:, 0], style.FIGURES.values()):
        axes.set_ylabel(label)
    samples = {line.label: style.sample(line.label, line.colour, line.mark) for panel in panels for line in panel.lines}
    figure.legend(handles=list(samples.values()), loc="outside lower left", ncols=1 + len(panels), frameon=False)
    figure.suptitle(f"{title}\n95 % intervals", x=0.01, ha="left")
    style.save(figure, path)


def _draw(axes: Axes, line: Line, name: str, *, aside: float) -> None:
    """Draws the points of a line so many typographic points to the right of their scales."""
    estimates = [point[name] for point in line.points.values()]
    spreads = [0.0 if one.low is None else one.mean - one.low for one in estimates]
    options = {"color": line.colour, "marker": line.mark, "markersize": 5, "linewidth": 1, "elinewidth": 0.8}
    means = [one.mean for one in estimates]
    place = offset_copy(axes.transData, axes.figure, x=aside, units="points")
    axes.errorbar(list(line.points), means, yerr=spreads, transform=place, **options)
    for sign in (-1, 1):  # which axes do not take from what stands aside
        axes.update_datalim([(x, mean + sign * spread) for x, mean, spread in zip(line.points, means, spreads)])
    axes.autoscale_view()
