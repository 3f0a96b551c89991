"""What the ratio n/m of PINEAT does to accuracy, robustness, leakage and time."""

import os
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import results, statistics
from experiments.figures import style
from pineat_tf.types import Ratio

_PANELS = {
    "a_test": "A_test",
    "r_test": "R_test",
    "p_max": "P_MAX (less is better)",
    "forwards": "forward passes",
    "minutes": "minutes of training",
}


def has_ratios(runs: pd.DataFrame) -> bool:
    """Whether there is something to draw: PINEAT with at least three ratios, alike in all else."""
    return _alike(_rows(runs))["ratio"].nunique() >= 3


def write(path: str | os.PathLike, runs: pd.DataFrame, *, title: str) -> None:
    """Draws figures and costs against the ratio, a colour a group of rows, the original methods as dashed lines.

    Ratios are placed by the share n / (n + m) of adversarial examples.

    Args:
        path: the PNG to write.
        runs: of `results.tidy`, with ratios.
        title: what was run.
    """
    figure = Figure(figsize=(14, 8), dpi=120, layout="constrained")
    *panels, spare = figure.subplots(2, 3).flat
    rows = _rows(runs)
    pineat = _alike(rows)
    colours = style.colours(list(pineat["group"]))
    places = _places(list(pineat["ratio"]))
    estimates = statistics.summary(runs, list(_PANELS))
    groups = [group for group in colours if (pineat["group"] == group).any()]
    for axes, (name, label) in zip(panels, _PANELS.items()):
        style.clean(axes)
        for number, group in enumerate(groups):
            shift = 0.005 * (number - (len(groups) - 1) / 2)
            titles = pineat[pineat["group"] == group].set_index("ratio")["title"]
            at = [ratio for ratio in places if ratio in titles]
            _draw(axes, [places[ratio] + shift for ratio in at], estimates.loc[titles[at], name], group, colours[group])
            original = rows[(rows["variant"] == "original") & (rows["settings"] == pineat["settings"][titles.iloc[0]])]
            for one in estimates.loc[original["title"][:1], name]:
                axes.axhline(one.mean, color=colours[group], linestyle="--", linewidth=1, alpha=0.7)
        axes.set_xticks(list(places.values()), list(places))
        axes.set(xlabel="adversarial / reverse-symmetry examples, n/m", ylabel=label)
    spare.set_axis_off()
    spare.legend(*panels[0].get_legend_handles_labels(), loc="center", frameon=False)
    figure.suptitle(f"{title} (dashed: Original)")
    style.save(figure, path)


def _places(ratios: Sequence[str]) -> dict[str, float]:
    """Where ratios stand, in rising order; those of one share, as 1/1 and 2/2, beside each other."""
    shares = {ratio: Ratio.parse(ratio).num_adversarial / sum(Ratio.parse(ratio)) for ratio in dict.fromkeys(ratios)}
    places: dict[str, float] = {}
    for ratio in sorted(shares, key=lambda ratio: (shares[ratio], ratio)):
        before = list(shares[other] for other in places).count(shares[ratio])
        places[ratio] = shares[ratio] + 0.055 * before
    return places


def _draw(axes: Axes, at: Sequence[float], estimates: pd.Series, group: str, colour: str) -> None:
    means = [one.mean for one in estimates]
    spreads = [0.0 if one.low is None else one.mean - one.low for one in estimates]
    options = {"color": colour, "marker": "o", "markersize": 4, "linewidth": 1, "capsize": 2}
    axes.errorbar(at, means, yerr=spreads, **options, label=group or "PINEAT")


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
