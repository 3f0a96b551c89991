"""What docs/study.md says of scales: of companions' noise, of images and of networks."""

import pytest
from study_records import interval, scaled, short, side, words
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
