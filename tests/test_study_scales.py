"""What docs/study.md says of scales: of companions' noise, of images and of networks."""

from study_records import scaled, side, words
from test_study_page import table

from experiments.statistics import difference
from experiments.sweep.tables import signed_interval

FIGURES = ("a_test", "r_test", "p_max")
PARTS = {
    "the image itself beside each example, or nothing": ("natural h = 0", "Original"),
    "mirrored in the range, or the image": ("mirrored h = -1 in the range", "natural h = 0"),
    "mirrored beyond the range, or in it": ("mirrored h = -1", "mirrored h = -1 in the range"),
    "all three: PINEAT-1/1, or Original": ("mirrored h = -1", "Original"),
    "mirrored twice as far, or PINEAT-1/1": ("mirrored h = -2", "mirrored h = -1"),
    "the example again, or PINEAT-1/1": ("onward h = 1", "mirrored h = -1"),
    "onward by twice its noise, or PINEAT-1/1": ("onward h = 2", "mirrored h = -1"),
}


def of_part(name, figure, method="PGD"):
    return difference(scaled(), *(f"{method} {title}" for title in PARTS[name]), figure)


def test_the_parts_of_the_gain():
    assert table("by PGD") == [[name, *(signed_interval(of_part(name, one)) for one in FIGURES)] for name in PARTS]


def test_what_is_said_of_the_parts_of_the_gain():
    text = words("docs/study.md")
    natural, mirrored, leaving, all_three, twice, again, onward = PARTS
    assert "two thirds come when its companions may leave the range, and with them the robustness that" in text
    share = of_part(leaving, "p_max").mean / of_part(all_three, "p_max").mean
    assert 0.6 < share < 0.7 and side(of_part(all_three, "p_max")) == side(of_part(leaving, "p_max")) == "less"
    assert side(of_part(leaving, "r_test")) == "more" and side(of_part(all_three, "r_test")) == "open"
    assert (
        "robustness that companions in the range cost; mirroring is the rest, and more data is nothing of it.**" in text
    )
    assert side(of_part(natural, "r_test")) == "less" and side(of_part(mirrored, "r_test")) == "open"
    assert side(of_part(mirrored, "p_max")) == "less" and side(of_part(natural, "p_max")) == "open"
    assert "Training twice on each example, at the same cost, is not told apart from PINEAT-1/1 in P_MAX and is" in text
    assert side(of_part(again, "p_max")) == "open" and side(of_part(again, "r_test")) == "more"
    assert "how far it is mirrored shows no difference" in text
    assert {side(of_part(twice, figure)) for figure in FIGURES} == {"open"}
    assert "onward by twice the noise leaks less, at a price in accuracy" in text
    assert side(of_part(onward, "p_max")) == side(of_part(onward, "a_test")) == "less"
    passes = scaled().groupby("title")["forwards"].mean()
    assert passes["PGD onward h = 1"] == passes["PGD mirrored h = -1"]
