"""What docs/study.md says of scales: of companions' noise, of images and of networks."""

import pytest
from study_records import scaled, short, side, widths, words
from test_study_page import table
from test_study_recipes import FIGURES, PINEAT

from experiments.statistics import difference
from experiments.sweep.tables import signed_interval

PARTS = {
    "the image itself beside each example, or Original": ("natural h = 0", "Original"),
    "mirrored in the range, or the image": ("mirrored h = -1 in the range", "natural h = 0"),
    "mirrored beyond the range, or in it": ("mirrored h = -1", "mirrored h = -1 in the range"),
    "all three: PINEAT-1/1, or Original": ("mirrored h = -1", "Original"),
    "the example again, or Original": ("onward h = 1", "Original"),
    "the example again, or PINEAT-1/1": ("onward h = 1", "mirrored h = -1"),
    "onward by twice its noise in the range, or PINEAT-1/1": ("onward h = 2 in the range", "mirrored h = -1"),
}


def of_part(name, figure, method="PGD"):
    return difference(scaled(), *(f"{method} {title}" for title in PARTS[name]), figure)


def test_the_parts_of_the_gain():
    assert table("by PGD") == [[name, *(signed_interval(of_part(name, one)) for one in FIGURES)] for name in PARTS]


def test_what_is_said_of_the_parts_of_the_gain():
    text = words("docs/study.md")
    natural, mirrored, leaving, all_three, again, instead, _ = PARTS
    assert "**Of mirrored companions most of it, in the mean, is leaving the pixel range, and with it the" in text
    parts = [of_part(name, "p_max").mean for name in (natural, mirrored, leaving)]
    assert min(parts) == parts[2] < 0.5 * sum(parts) and sum(parts) == pytest.approx(of_part(all_three, "p_max").mean)
    assert side(of_part(leaving, "p_max")) == "less" and side(of_part(leaving, "r_test")) == "more"
    assert "the robustness that those in the range cost; but that is not what it takes:" in text
    in_range = difference(scaled(), "PGD mirrored h = -1 in the range", "PGD Original", "r_test")
    assert side(in_range) == "less"
    assert "training twice on each example leaks less than Original as well, is more robust than both, and" in text
    assert side(of_part(again, "p_max")) == "less"
    assert side(of_part(again, "r_test")) == side(of_part(instead, "r_test")) == "more"
    assert "costs what PINEAT-1/1 costs.**" in text
    passes = scaled().groupby("title")["forwards"].mean()
    assert passes["PGD onward h = 1"] == passes["PGD mirrored h = -1"]
    times = passes["PGD Original"] / passes.drop("PGD Original")
    assert f"Original costs {times.mean():.1f} times what the others cost" in text and times.nunique() == 1
    assert "How far it is mirrored shows no difference, by three seeds." in text
    for scale in ("-0.5", "-2"):
        pair = f"PGD mirrored h = {scale}", "PGD mirrored h = -1"
        assert {side(difference(scaled(), *pair, figure)) for figure in FIGURES} == {"open"}


def test_what_is_said_of_other_widths():
    leaks = widths().set_index("title")["p_max"]
    assert (widths()["seed"] == 10).all() and len(leaks) == 6
    best, pineat = ([short(leaks[f"width {width} {row}"], sign="") for width in (1, 4)] for row in ("IBP Best", PINEAT))
    said = f"it leaks least as well: {best[0]} and {best[1]}, PINEAT-1/1 {pineat[0]} and {pineat[1]}"
    assert said in words("docs/study.md") and "At half and twice the width (one seed)" in words("docs/study.md")
    for width in (1, 4):
        assert leaks.filter(regex=f"^width {width}").idxmin() == f"width {width} IBP Best"
