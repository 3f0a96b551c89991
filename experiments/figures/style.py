"""How the pictures of results look: colours that the colour-blind can tell apart, and marks by row."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments import files

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#B8860B", "#882255", "#3D3D3D")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "*", "h")
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star", "hexagon", "pentagon")
"""Marks of the interactive plot, in Plotly's words."""

GREY = "#666666"

FIGURES = {"a_test": "accuracy A_test", "r_test": "robust accuracy R_test", "p_max": "leakage P_MAX\n(less is better)"}
"""What pictures of several figures show, a panel each."""


class Look(NamedTuple):
    """Colour and mark of a row, with the group and the label that they may stand for."""

    colour: str
    mark: str
    group: str
    label: str


Looks = dict[str, Look]
"""By title of a row."""


def colours(groups: Sequence[str]) -> dict[str, str]:
    """A colour for each group in the order of their first appearance; grey for rows of no group."""
    named = [group for group in dict.fromkeys(groups) if group]
    return {"": GREY} | {group: COLOURS[i % len(COLOURS)] for i, group in enumerate(named)}


def looks(runs: pd.DataFrame) -> Looks:
    """A colour and a mark for each row of `results.tidy`, by its title: a colour a family, a mark a row of it.

    Families are groups, where there are several, and labels have the same mark in each; else they are the variants
    (natural, original, PINEAT ...), and each row has a mark that no other of its family has.
    """
    rows = runs.drop_duplicates("title")
    by_group = colours(list(rows["group"]))
    labels = list(dict.fromkeys(rows["label"]))
    by_variant = colours([config.variant for config in rows["config"]])
    found, members = {}, dict.fromkeys(by_variant, 0)
    for title, group, label, config in zip(rows["title"], rows["group"], rows["label"], rows["config"]):
        if len(by_group) > 2:
            found[title] = Look(by_group[group], MARKS[labels.index(label) % len(MARKS)], group, label)
        else:
            number = members[config.variant]
            found[title] = Look(by_variant[config.variant], MARKS[number % len(MARKS)], group, label)
            members[config.variant] += 1
    return found


def legend(looks: Looks) -> list[Line2D]:
    """What explains the looks of rows: groups by colour, then labels by mark; or every row by both."""
    by_group = {look.group: look.colour for look in looks.values() if look.group}
    if len(by_group) < 2:
        return [sample(title, look.colour, look.mark) for title, look in looks.items()]
    by_label = {look.label: look.mark for look in looks.values()}
    of_groups = [sample(group, colour, "o") for group, colour in by_group.items()]
    return of_groups + [sample(label, GREY, mark) for label, mark in by_label.items()]


def sample(label: str, colour: str, mark: str, size: float = 6) -> Line2D:
    """A mark for a legend, `size` points across."""
    return Line2D([], [], color=colour, marker=mark, linestyle="", markersize=size, label=label)


def clean(axes: Axes) -> None:
    """Takes away what only frames the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def save(figure: Figure, path: str | os.PathLike) -> None:
    """Writes a PNG, whole or not at all."""
    with files.replacing(path) as temporary:
        figure.savefig(temporary, format="png")
