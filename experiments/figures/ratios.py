"""What the ratio n/m of PINEAT does to accuracy, robustness, leakage and time."""

import os
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.figures import style
from experiments.sweep import records
from experiments.sweep.tables import RowResult
from pineat_tf.types import Ratio

_PANELS = {
    "a_test": "A_test",
    "r_test": "R_test",
    "p_max": "P_MAX (less is better)",
    "forwards": "forward passes",
    "minutes": "minutes of training",
}


def has_ratios(results: Sequence[RowResult]) -> bool:
    """Whether there is something to draw: PINEAT with at least three ratios, alike in all else."""
    return len({_ratio(result) for result in _alike(results)}) >= 3


def write(path: str | os.PathLike, results: Sequence[RowResult], *, title: str) -> None:
    """Draws figures and costs against the ratio, a colour a group of rows, the original methods as dashed lines.

    Ratios are placed by the share n / (n + m) of adversarial examples.

    Args:
        path: the PNG to write.
        results: rows with at least one run each.
        title: what was run.
    """
    figure = Figure(figsize=(14, 8), dpi=120, layout="constrained")
    *panels, spare = figure.subplots(2, 3).flat
    pineat = _alike(results)
    colours = style.colours([result.row.group for result in pineat])
    places = _places([_ratio(result) for result in pineat])
    for axes, (name, label) in zip(panels, _PANELS.items()):
        style.clean(axes)
        groups = [group for group in colours if any(row.row.group == group for row in pineat)]
        for number, group in enumerate(groups):
            shift = 0.005 * (number - (len(groups) - 1) / 2)
            rows = {_ratio(row): row for row in pineat if row.row.group == group}
            at = {ratio: place + shift for ratio, place in places.items() if ratio in rows}
            _draw(axes, {at[ratio]: rows[ratio] for ratio in at}, name, group or "PINEAT", colours[group])
            _draw_original(axes, results, next(iter(rows.values())), name, colours[group])
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


def _draw(axes: Axes, rows: dict[float, RowResult], name: str, group: str, colour: str) -> None:
    estimates = [row.estimate(name) for row in rows.values()]
    means = [estimate.mean for estimate in estimates]
    spreads = [0.0 if estimate.low is None else estimate.mean - estimate.low for estimate in estimates]
    options = {"color": colour, "marker": "o", "markersize": 4, "linewidth": 1, "capsize": 2, "label": group}
    axes.errorbar(list(rows), means, yerr=spreads, **options)


def _draw_original(axes: Axes, results: Sequence[RowResult], pineat: RowResult, name: str, colour: str) -> None:
    for result in results:
        if result.row.configs[0].variant == "original" and _settings(result) == _settings(pineat):
            axes.axhline(result.estimate(name).mean, color=colour, linestyle="--", linewidth=1, alpha=0.7)
            return


def _alike(results: Sequence[RowResult]) -> list[RowResult]:
    """The rows of PINEAT, of each group those that differ in the ratio alone, where most ratios were run."""
    families: dict[str, dict[str, dict[str, RowResult]]] = {}
    for result in results:
        if result.row.configs[0].variant == "pineat":
            family = families.setdefault(result.row.group, {}).setdefault(_settings(result), {})
            family.setdefault(_ratio(result), result)
    return [result for of_group in families.values() for result in max(of_group.values(), key=len).values()]


def _settings(result: RowResult) -> str:
    """What tells a row from others but for its seeds, its ratio, and whether it is PINEAT or the original method."""
    return records.key(result.row.configs[0].to_dict(), without=("seed", "ratio", "variant"))


def _ratio(result: RowResult) -> str:
    return str(result.row.configs[0].round_ratio)
