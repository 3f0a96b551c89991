"""What docs/study.md says of scales: of companions' noise, of images and of networks."""

import pandas as pd
import pytest
from study_records import (
    adjusted,
    balanced,
    best,
    best_cifar10,
    interval,
    scaled,
    scaled_cifar10,
    short,
    side,
    widths,
    words,
)
from test_study_page import table
from test_study_recipes import FIGURES, PINEAT

from experiments.statistics import Difference, difference
from experiments.study.records import RESULTS
from experiments.sweep.tables import signed_interval

HALF = "Original (half schedule)"
PARTS = {
    "half the schedule; Original": (HALF, "Original"),
    "the image itself beside each example; Original": ("natural h = 0", "Original"),
    "mirrored in the range; the image": ("mirrored h = -1 in the range", "natural h = 0"),
    "mirrored beyond the range; in it": ("mirrored h = -1", "mirrored h = -1 in the range"),
    "all three: PINEAT-1/1; Original": ("mirrored h = -1", "Original"),
    "PINEAT-1/1; half the schedule": ("mirrored h = -1", HALF),
    "the example again; half the schedule": ("onward h = 1", HALF),
}
OF_METHODS = list(PARTS)[1:5]
"""Those that Dist and TRADES have, too."""


def runs() -> pd.DataFrame:
    """The sweep of scales, and half the schedule by the same flags and seeds, which ran for another sweep."""
    half = best()[(best()["title"] == f"PGD {HALF}") & best()["seed"].isin(scaled()["seed"])]
    return pd.concat([scaled(), half])


def runs_cifar10() -> pd.DataFrame:
    """The same of CIFAR-10, all with the paper's shifts and flips."""
    half = best_cifar10()[best_cifar10()["title"] == f"PGD {HALF} augmented"]
    return pd.concat([scaled_cifar10(), half.assign(title=f"PGD {HALF}")])


def of_pair(first: str, second: str, figure: str, method: str = "PGD") -> Difference:
    return difference(runs(), f"{method} {first}", f"{method} {second}", figure)


def of_part(name: str, figure: str, method: str = "PGD") -> Difference:
    return of_pair(*PARTS[name], figure, method)


def on_cifar10(name: str, figure: str) -> Difference:
    return difference(runs_cifar10(), *(f"PGD {title}" for title in PARTS[name]), figure)


def shown() -> list[list[str]]:
    """The table of what carries the gain: three figures with PGD, and leakage with other methods and on CIFAR-10."""
    rows = []
    for name in PARTS:
        found = [of_part(name, figure) for figure in FIGURES]
        found += [of_part(name, "p_max", one) if name in OF_METHODS else None for one in ("Dist", "Diff")]
        found += [on_cifar10(name, "p_max") if "again" not in name else None]
        rows.append([name, *("-" if one is None else signed_interval(one) for one in found)])
    return rows


def test_the_parts_of_the_gain():
    assert table("first minus second | A_test | R_test | P_MAX | P_MAX, Dist") == shown()
    assert {difference.num for difference in (of_part(name, "p_max") for name in PARTS)} == {3}


def test_what_is_said_of_the_parts_of_the_gain():
    text = words("docs/study.md")
    half, natural, mirrored, leaving, all_three, instead, again = PARTS
    assert "**On Fashion-MNIST with PGD, that it attacks half as often: Original on half its schedule leaks" in text
    assert "half its schedule leaks less than PINEAT-1/1 without any companion;" in text
    assert [side(of_part(name, "p_max")) for name in (half, instead, again)] == ["less", "more", "more"]
    assert side(of_pair("natural h = 0", HALF, "p_max")) == "more"
    assert "(the image, PINEAT's, the example again) adds leakage to that, less where it is mirrored and leaves" in text
    assert "leaks less with Dist too, but not with TRADES, nor on CIFAR-10, where PINEAT-1/1 leaks more than" in text
    of_cifar10 = [on_cifar10(name, "p_max") for name in (leaving, all_three, instead)]
    assert [side(found) for found in of_cifar10] == ["open", "more", "more"]
    assert {one.precision for one in runs_cifar10()["config"]} == {"float32"}
    assert {one.augment_flip for one in runs_cifar10()["config"]} == {True}
    sides = [side(of_part(leaving, "p_max", method)) for method in ("PGD", "Dist", "Diff")]
    assert sides == ["less", "less", "open"]
    assert [side(of_part(mirrored, "p_max", method)) for method in ("PGD", "Dist", "Diff")] == sides
    parts = [of_part(name, "p_max").mean for name in (natural, mirrored, leaving)]
    assert sum(parts) == pytest.approx(of_part(all_three, "p_max").mean)
    of_pgd = scaled()[scaled()["group"] == "PGD"]
    found = adjusted(of_pgd, "PGD Original", "p_max")
    kept = {title for title in found if found[title] < 0.05}
    assert kept == {"PGD mirrored h = -1", "PGD onward h = 2", "PGD onward h = 2 in the range"}
    p_value = short(adjusted(of_pgd, "PGD mirrored h = -1", "p_max")["PGD mirrored h = -1 in the range"], 3, "")
    said = "leaves the P_MAX of PINEAT-1/1 and of both rows of h = 2 against Original below .05, not leaving the range"
    assert f"Holm over the {len(found)} rows with PGD {said} (p {p_value})." in text
    passes = of_pgd.groupby("title")["forwards"].mean()
    times = passes["PGD Original"] / passes.drop("PGD Original")
    assert f"Original costs {times.mean():.1f} times what they cost with PGD" in text and times.nunique() == 1
    for row in ("onward h = 1", "mirrored h = -1"):
        assert side(of_pair(row, "Original", "p_max")) == "less"
    assert "How far it is mirrored (h of -.5 to -2) shows no difference." in text
    for scale in ("-0.5", "-2"):
        pair = f"PGD mirrored h = {scale}", "PGD mirrored h = -1"
        assert {side(difference(scaled(), *pair, figure)) for figure in FIGURES} == {"open"}


def cpus(folder: str, title: str) -> set[str]:
    found = pd.read_csv(RESULTS / folder / "runs.csv", dtype=str)
    return set(found[(found["group"].fillna("") + " " + found["label"]).str.strip() == title]["machine.cpu"])


def in_prose() -> list[tuple[str, Difference, str]]:
    """Intervals of the prose, with the words before them and what they show."""
    pair = f"PGD {HALF}", PINEAT
    return [
        ("half the schedule leaks less ({})", difference(balanced(), *pair, "p_max"), "less"),
        ("at a lower A_test ({}).", difference(balanced(), *pair, "a_test"), "less"),
        ("more robust than PINEAT-1/1 ({}).", of_pair("onward h = 1", "mirrored h = -1", "r_test"), "more"),
    ]


def test_what_is_said_of_half_the_schedule():
    for said, found, expected in in_prose():
        assert said.format(interval(found)) in words("docs/study.md") and side(found) == expected
    assert balanced()["seed"].nunique() == 10
    assert "Half the schedule ran on another kind of CPU." in words("docs/study.md")
    assert not cpus("best_fmnist", f"PGD {HALF}") & cpus("scaled_fmnist", "PGD Original")


def test_what_is_said_of_other_widths():
    rows = widths().set_index("title")
    assert (rows["seed"] == 10).all() and len(rows) == 6

    def of(row, figure):
        return [rows[figure][f"width {width} {row}"] for width in (1, 4)]

    best, half = (
        " and ".join(short(one, sign="") for one in of(row, "p_max"))
        for row in ("IBP Best", "PGD Original (half schedule)")
    )
    lost = " and ".join(short(one - other) for one, other in zip(of("IBP Best", "a_test"), of(PINEAT, "a_test")))
    said = f"it leaks least: {best}, half the schedule {half}, at {lost} of PINEAT-1/1's A_test"
    assert f"At half and twice the width (one seed, no Light) {said}" in words("docs/study.md")
    for width in (1, 4):
        assert rows["p_max"].filter(regex=f"^width {width}").idxmin() == f"width {width} IBP Best"
