"""How the pictures of results look: colours that the colour-blind can tell apart, and marks by row."""

import os

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments import files

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#B8860B")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "*", "h")
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star", "hexagon", "pentagon")
"""Marks of the interactive plot, in Plotly's words."""

GREY = "#666666"

Looks = dict[tuple[str, str], tuple[str, str]]  # colour and mark of a row, by its group and label


def colours(groups: list[str]) -> dict[str, str]:
    """A colour for each group in the order of their first appearance; grey for rows of no group."""
    named = [group for group in dict.fromkeys(groups) if group]
    return {"": GREY} | {group: COLOURS[i % len(COLOURS)] for i, group in enumerate(named)}


def looks(titles: list[tuple[str, str]]) -> Looks:
    """A colour and a mark for each row, given as (group, label).

    Several groups have a colour each and labels a mark each; the rows of a single group each a pair of their own.
    """
    by_group = colours([group for group, _ in titles])
    if len(by_group) > 2:
        labels = list(dict.fromkeys(label for _, label in titles))
        return {(group, label): (by_group[group], MARKS[labels.index(label) % len(MARKS)]) for group, label in titles}
    return {
        title: (COLOURS[i % len(COLOURS)], MARKS[(i + i // len(COLOURS)) % len(MARKS)])
        for i, title in enumerate(titles)
    }


def legend(looks: Looks) -> list[Line2D]:
    """What explains the looks of rows: groups by colour, then labels by mark; or every row by both."""
    by_group = {group: colour for (group, _), (colour, _) in looks.items() if group}
    if len(by_group) < 2:
        return [sample(f"{group} {label}".strip(), *look) for (group, label), look in looks.items()]
    by_label = {label: (GREY, mark) for (_, label), (_, mark) in looks.items()}
    of_groups = [sample(group, colour, "o") for group, colour in by_group.items()]
    return of_groups + [sample(label, *look) for label, look in by_label.items()]


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
