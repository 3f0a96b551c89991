"""The study's pictures of figures against a scale, from its records.

    python -m experiments.study.scales

Trains nothing. Draws `scaled_fmnist/scaled_scales.png`, the scale h of a companion's noise, and
`scale_fmnist/scale_scales.png`, the number of training images and the width of the network, into the folder of results.
"""

import sys

import pandas as pd
from absl import flags

from experiments import command_line, statistics
from experiments.figures import style, trends
from experiments.study import records

_BOUNDS = {"paper": "companion that may leave the pixel range", "valid": "companion that stays in it"}
_FEW_IMAGES, _WIDTH = 2500, 2  # what stays as it is where the other changes


def companions(runs: pd.DataFrame) -> list[trends.Panel]:
    """A panel a method: what companions at h times the noise change, which may leave the pixel range or may not."""
    panels, rows = [], _configured(runs).drop_duplicates("title")
    for group, of_group in rows.groupby("group", sort=False):
        titled = dict(zip(of_group["variant"], of_group["title"]))
        original, natural = titled["original"], titled["advnat"]
        scaled = of_group[of_group["variant"] == "scaled"]
        within = scaled["companion_scale"].between(0, 1)  # between the image and the adversarial example
        lines = []
        for look, (bounds, label) in enumerate(_BOUNDS.items()):
            some = scaled[(scaled["rs_bounds"] == bounds) | within]
            titles = sorted({0.0: natural, **dict(zip(some["companion_scale"], some["title"]))}.items())
            points = {scale: _differences(runs, title, original) for scale, title in titles}
            lines.append(trends.Line(label, style.COLOURS[look], style.MARKS[look], points))
        if random := titled.get("advran"):
            lines.append(trends.Line("random companion", style.GREY, "_", {None: _differences(runs, random, original)}))
        panels.append(trends.Panel(f"{group}", "scale h of the noise (-1: reverse symmetry, 0: the image)", lines))
    return panels


def sizes(runs: pd.DataFrame) -> list[trends.Panel]:
    """The main rows by the number of training images, and by the width of the network."""
    runs = _configured(runs)
    wide, few = runs[runs["width"] == _WIDTH], runs[runs["train_size"] == _FEW_IMAGES]
    return [
        _by(wide, "train_size", f"width {_WIDTH}", "training images"),
        _by(few, "width", f"{_FEW_IMAGES:,} training images", "width of the network"),
    ]


def _by(runs: pd.DataFrame, scale: str, title: str, label: str) -> trends.Panel:
    """A line a row, against what `scale` names."""
    lines = []
    for look, (row, of_row) in enumerate(runs.groupby("label", sort=False)):
        points = {size: _point(some) for size, some in of_row.groupby(scale)}
        lines.append(trends.Line(str(row), style.COLOURS[look], style.MARKS[look], points))
    return trends.Panel(title, label, lines, ticks=sorted(set(runs[scale])))


def _configured(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs with what pictures sort them by."""
    names = ("variant", "rs_bounds", "companion_scale", "train_size", "width")
    whole = runs.copy()  # of sweeps put together: pandas warns of their many pieces when a column is added
    return whole.assign(**{name: [getattr(config, name) for config in runs["config"]] for name in names})


def _differences(runs: pd.DataFrame, title: str, other: str) -> pd.Series:
    return pd.Series({name: statistics.difference(runs, title, other, name) for name in style.FIGURES})


def _point(runs: pd.DataFrame) -> pd.Series:
    return pd.Series({name: statistics.estimate(runs[name]) for name in style.FIGURES})


@command_line.program
def main(argv: list[str]) -> None:
    """Draws both pictures."""
    if not command_line.parsed(flags.FlagValues(), argv, __doc__):
        return
    scaled, best, widths = (records.sweep(f"{name}_fmnist", *records.SCARCE) for name in ("scaled", "best", "widths"))
    scale = records.sweep("scale_fmnist", "study.flags")
    for name, panels, title in (
        ("scaled", companions(scaled), "Companions, difference from Original"),
        ("scale", sizes(pd.concat([best, scale, widths])), "More images, other widths"),
    ):
        path = records.RESULTS / f"{name}_fmnist" / f"{name}_scales.png"
        trends.write(path, panels, title=f"{title}: Fashion-MNIST")


if __name__ == "__main__":
    sys.exit(main())
