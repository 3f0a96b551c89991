"""What docs/study.md says of scales: of companions' noise, of images and of networks."""

import pytest
from study_records import scaled, short, side, widths, words
from test_study_page import table
from test_study_recipes import FIGURES, PINEAT

from experiments.statistics import difference, holm
from experiments.sweep.tables import signed_interval

PARTS = {
    "the image itself beside each example; Original": ("natural h = 0", "Original"),
    "mirrored in the range; the image": ("mirrored h = -1 in the range", "natural h = 0"),
    "mirrored beyond the range; in it": ("mirrored h = -1", "mirrored h = -1 in the range"),
    "all three: PINEAT-1/1; Original": ("mirrored h = -1", "Original"),
    "the example again; Original": ("onward h = 1", "Original"),
    "the example again; PINEAT-1/1": ("onward h = 1", "mirrored h = -1"),
}


def of_part(name, figure, method="PGD"):
    return difference(scaled(), *(f"{method} {title}" for title in PARTS[name]), figure)


def test_the_parts_of_the_gain():
    assert table("PGD: first minus second") == [
        [name, *(signed_interval(of_part(name, one)) for one in FIGURES)] for name in PARTS
    ]


def test_what_is_said_of_the_parts_of_the_gain():
    text = words("docs/study.md")
    natural, mirrored, leaving, all_three, again, instead = PARTS
    assert (
        "**In the mean most of it comes of leaving the pixel range, which also keeps the robustness that mirrored"
        in text
    )
    parts = [of_part(name, "p_max").mean for name in (natural, mirrored, leaving)]
    assert min(parts) == parts[2] < 0.5 * sum(parts) and sum(parts) == pytest.approx(of_part(all_three, "p_max").mean)
    assert side(of_part(leaving, "p_max")) == "less" and side(of_part(leaving, "r_test")) == "more"
    assert "companions in the range lose; but no companion is needed: training twice on each example has two" in text
    in_range = difference(scaled(), "PGD mirrored h = -1 in the range", "PGD Original", "r_test")
    assert side(in_range) == "less" and side(of_part(all_three, "r_test")) == "open"
    assert "thirds of the gain and is more robust, at the cost of PINEAT-1/1.**" in text
    assert of_part(again, "p_max").mean / sum(parts) == pytest.approx(2 / 3, abs=0.05)
    assert side(of_part(again, "p_max")) == "less"
    assert side(of_part(again, "r_test")) == side(of_part(instead, "r_test")) == "more"
    runs = scaled()[scaled()["group"] == "PGD"]
    rows = [title for title in runs["title"].unique() if title != "PGD Original"]
    adjusted = dict(zip(rows, holm([difference(runs, title, "PGD Original", "p_max").p_value for title in rows])))
    kept = {title for title in rows if adjusted[title] < 0.05}
    assert kept == {"PGD mirrored h = -1", "PGD onward h = 2", "PGD onward h = 2 in the range"}
    p_value = short(adjusted["PGD onward h = 1"], 3, "")
    said = "of PINEAT-1/1 and of both rows of h = 2 below .05, not that of one example again"
    assert f"Holm over the {len(rows)} rows leaves the P_MAX {said} (p {p_value})." in text
    passes = scaled().groupby("title")["forwards"].mean()
    assert passes["PGD onward h = 1"] == passes["PGD mirrored h = -1"]
    times = passes["PGD Original"] / passes.drop("PGD Original")
    assert f"Original costs {times.mean():.1f} times what the others cost" in text and times.nunique() == 1
    assert "How far it is mirrored shows no difference, by three seeds." in text
    for scale in ("-0.5", "-2"):
        pair = f"PGD mirrored h = {scale}", "PGD mirrored h = -1"
        assert {side(difference(scaled(), *pair, figure)) for figure in FIGURES} == {"open"}


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
