"""What docs/study.md says of recipes: figures and verdicts are those of the records."""

import pytest
from study_records import factorial, interval, side, words
from test_study_page import table

from experiments.statistics import Difference, difference, paired_difference
from experiments.sweep.tables import signed_interval

FIGURES = ("a_test", "r_test", "p_max")
LIGHT, PINEAT = "PGD 4 steps batch 50 augmented", "PGD PINEAT-1/1"
PARTS = {
    "shifts by a pixel and flips, or none": " augmented",
    "4 attack steps, or 8": " 4 steps",
    "batches of 50, or of 100": " batch 50",
}
PAIRS = {
    "companions on top of all three, or none": ("PGD Light with companions", LIGHT),
    "PINEAT-1/1 without the three, or no companions": (PINEAT, "PGD 8 steps batch 100"),
}


def effect(part: str, figure: str) -> Difference:
    """Of a part of Light, averaged over the others within each seed."""
    cells = factorial().pivot(index="seed", columns="title", values=figure).filter(regex=r"^PGD \d steps")
    has = cells.columns.str.contains(part, regex=False)
    assert cells.shape == (5, 8) and has.sum() == 4
    return paired_difference(cells.loc[:, has].mean(axis=1), cells.loc[:, ~has].mean(axis=1))


def test_effects_of_the_parts_of_light():
    expected = [[name, *(signed_interval(effect(part, one)) for one in FIGURES)] for name, part in PARTS.items()]
    for name, pair in PAIRS.items():
        expected.append([name, *(signed_interval(difference(factorial(), *pair, one)) for one in FIGURES)])
    assert table("at the cost of PINEAT-1/1") == expected


def test_what_is_said_of_light():
    text = words("docs/study.md")
    assert "**Its shifts and flips are all of its gain in leakage, at a price in accuracy;" in text
    assert [side(effect(part, "p_max")) for part in PARTS.values()] == ["less", "more", "more"]
    assert side(effect(" augmented", "a_test")) == "less"
    assert "by more of both accuracies at no more leakage that the interval shows.**" in text
    pair = PAIRS["companions on top of all three, or none"]
    assert [side(difference(factorial(), *pair, one)) for one in FIGURES] == ["more", "more", "open"]
    assert "shows no more of either accuracy than Light" in text
    longer = [side(difference(factorial(), "PGD Original augmented (full length)", LIGHT, one)) for one in FIGURES[:2]]
    assert "more" not in longer


OF_LIGHT = [
    ("PINEAT-1/1 here too ({})", "p_max", "less"),
    ("is more robust ({}), but", "r_test", "more"),
    ("but less accurate ({})", "a_test", "less"),
]


@pytest.mark.parametrize("said, figure, expected", OF_LIGHT)
def test_intervals_in_the_prose(said, figure, expected):
    found = difference(factorial(), LIGHT, PINEAT, figure)
    assert said.format(interval(found)) in words("docs/study.md") and side(found) == expected


def test_all_cost_what_pineat_costs():
    passes = factorial().groupby("title")["forwards"].mean()
    assert (passes.drop("PGD Original augmented (full length)") / passes[PINEAT]).between(0.99, 1.01).all()
