"""What the ratio n/m of PINEAT gives for what it costs: accuracy, robustness and leakage by forward passes."""

import os

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import results, statistics
from experiments.figures import style


def has_ratios(runs: pd.DataFrame) -> bool:
    """Whether there is something to draw: PINEAT with at least three ratios, alike in all else."""
    return _alike(_rows(runs))["ratio"].nunique() >= 3


def write(path: str | os.PathLike, runs: pd.DataFrame, *, title: str) -> None:
    """Draws a row of panels a figure and a column a group of rows, the original method as a square and a dashed line.

    Args:
        path: the PNG to write.
        runs: of `results.tidy`, with ratios.
        title: what was run.
    """
    rows = _rows(runs)
    pineat = _alike(rows)
    colours = style.colours(list(pineat["group"]))
    estimates = statistics.summary(runs, [*style.FIGURES, "forwards"])
    groups = [group for group in colours if (pineat["group"] == group).any()]
    figure = Figure(figsize=(1.2 + 4.2 * len(groups), 8.5), dpi=120, layout="constrained")
    panels = figure.subplots(len(style.FIGURES), len(groups), sharey="row", sharex="col", squeeze=False)
    for column, group in zip(panels.T, groups):
        of_group = pineat[pineat["group"] == group]
        original = rows[(rows["variant"] == "original") & (rows["settings"] == of_group["settings"].iloc[0])]
        for axes, name in zip(column, style.FIGURES):
            style.clean(axes)
            _draw(axes, estimates.loc[of_group["title"]], list(of_group["ratio"]), name, colours[group])
            if len(original):
                _draw_original(axes, estimates.loc[original["title"].iloc[0]], name)
            axes.margins(0.08, 0.12)
        column[0].set_title(group or "PINEAT", loc="left", color=colours[group])
        column[-1].set_xlabel("forward passes of 100 images")
    for axes, label in zip(panels[:, 0], style.FIGURES.values()):
        axes.set_ylabel(label)
    figure.suptitle(f"{title}: n/m is adversarial / reverse-symmetry examples; 95 % intervals", x=0.01, ha="left")
    style.save(figure, path)


def _draw(axes: Axes, estimates: pd.DataFrame, ratios: list[str], name: str, colour: str) -> None:
    """Draws ratios in the order of their cost; those of one cost stand beside each other, as 1/1 and 2/2."""
    points = sorted(zip((one.mean for one in estimates["forwards"]), ratios, estimates[name]))
    step = 0.05 * (points[-1][0] - points[0][0])
    places: list[float] = []
    for cost, _, _ in points:
        places.append(max(cost, places[-1] + step) if places else cost)
    means = [one.mean for *_, one in points]
    spreads = [0.0 if one.low is None else one.mean - one.low for *_, one in points]
    axes.errorbar(places, means, yerr=spreads, color=colour, marker="o", markersize=4.5, linewidth=1, elinewidth=0.8)
    for number, (place, (_, ratio, one)) in enumerate(zip(places, points)):
        up = 1 if number % 2 else -1
        end = one.mean + up * spreads[number]
        options = {"textcoords": "offset points", "ha": "center", "va": "bottom" if up > 0 else "top"}
        axes.annotate(ratio, (place, end), (0, 3 * up), fontsize=7.5, color="#333333", **options)


def _draw_original(axes: Axes, estimates: pd.Series, name: str) -> None:
    one, cost = estimates[name], estimates["forwards"].mean
    spread = 0.0 if one.low is None else one.mean - one.low
    axes.axhline(one.mean, color=style.GREY, linestyle="--", linewidth=1, alpha=0.7)
    axes.errorbar(cost, one.mean, yerr=spread, color=style.GREY, marker="s", markersize=5.5, elinewidth=0.8)
    options = {"textcoords": "offset points", "ha": "right", "va": "bottom", "color": style.GREY}
    axes.annotate("Original", (cost, one.mean), (-6, 3), fontsize=8, **options)


def _rows(runs: pd.DataFrame) -> pd.DataFrame:
    """Every row with its "variant", its "ratio", and "settings": all flags but its seed and these two."""
    rows = runs.drop_duplicates("title").set_index("title", drop=False)
    configs = rows["config"]
    return rows.assign(
        variant=[config.variant for config in configs],
        ratio=[str(config.round_ratio) for config in configs],
        settings=[results.key(config.to_dict(), without=("seed", "ratio", "variant")) for config in configs],
    )


def _alike(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of PINEAT, of each group those that differ in the ratio alone, where most ratios were run."""
    pineat = rows[rows["variant"] == "pineat"].drop_duplicates(["group", "settings", "ratio"])
    sizes = pineat.groupby(["group", "settings"], sort=False).size()
    largest = [size.idxmax() for _, size in sizes.groupby("group", sort=False)]
    return pineat[pd.MultiIndex.from_frame(pineat[["group", "settings"]]).isin(largest)]
