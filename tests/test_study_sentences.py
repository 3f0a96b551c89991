"""Sentences of README.md and docs/study.md: figures are those of the records, none is stronger than its interval."""

import re

import pytest
from study_records import (
    INTERVAL,
    RATIOS,
    RESULTS,
    certified,
    cifar10,
    factorial,
    fmnist,
    interval,
    read,
    shadow,
    short,
    side,
    words,
)
from test_study_recipes import (
    LIGHT,
    OF_LIGHT,
    ON_TOP,
    PINEAT,
    in_prose,
    on_top,
)
from test_study_scales import in_prose as of_scales

from experiments.statistics import Difference, difference, paired_difference

STUDY, README = words("docs/study.md"), words("README.md")


@pytest.fixture(scope="module")
def rows():
    return fmnist()


HALF = "PGD Original (half schedule)"

# What is said, with {} for the figure of the first row over that of the second; the figure; its side of 0.
CLAIMS = [
    *[
        (
            "**PINEAT-1/1 leaks less than Original with all three",
            f"{attack} PINEAT-1/1",
            f"{attack} Original",
            "p_max",
            "less",
        )
        for attack in ("PGD", "Dist", "Diff")
    ],
    ("but loses accuracy with PGD and Dist", "PGD PINEAT-1/1", "PGD Original", "a_test", "less"),
    ("but loses accuracy with PGD and Dist", "Dist PINEAT-1/1", "Dist Original", "a_test", "less"),
    ("and robustness with TRADES", "Diff PINEAT-1/1", "Diff Original", "r_test", "less"),
    *[
        (
            "PINEAT-1/1 leaks less than AdvNat and AdvRan with PGD and Dist.",
            f"{attack} PINEAT-1/1",
            f"{attack} {other}",
            "p_max",
            "less",
        )
        for attack in ("PGD", "Dist")
        for other in ("AdvNat-1/1", "AdvRan-1/1")
    ],
    ("AdvNat and AdvRan leak as much ({} and", "Diff PINEAT-1/1", "Diff AdvNat-1/1", "p_max", "open"),
    ("and {} of PINEAT against them)", "Diff PINEAT-1/1", "Diff AdvRan-1/1", "p_max", "open"),
    ("and all three cost robustness", "Diff AdvNat-1/1", "Diff Original", "r_test", "less"),
    ("and all three cost robustness", "Diff AdvRan-1/1", "Diff Original", "r_test", "less"),
    *[
        (
            "**3/1 shows no loss of Original's robustness with PGD and TRADES",
            f"{attack} PINEAT-3/1",
            f"{attack} Original",
            "r_test",
            "open",
        )
        for attack in ("PGD", "Diff")
    ],
    *[
        ("at less leakage and A_test;", f"{attack} PINEAT-3/1", f"{attack} Original", figure, "less")
        for attack in ("PGD", "Diff")
        for figure in ("p_max", "a_test")
    ],
    *[
        (
            "1/2 to 1/4 lose robustness with all three.**",
            f"{attack} PINEAT-{ratio}",
            f"{attack} Original",
            "r_test",
            "less",
        )
        for attack in ("PGD", "Dist", "Diff")
        for ratio in ("1/2", "1/3", "1/4")
    ],
    ("leaks as little as PINEAT-1/1 ({} of P_MAX)", HALF, "PGD PINEAT-1/1", "p_max", "open"),
    ("at no less accuracy ({})", HALF, "PGD PINEAT-1/1", "a_test", "open"),
    ("and more robustness ({}), for", HALF, "PGD PINEAT-1/1", "r_test", "more"),
    ("valid bounds leak more than PINEAT-1/1 ({})", "PGD PINEAT-1/1 with valid bounds", PINEAT, "p_max", "more"),
    ("and are less robust ({});", "PGD PINEAT-1/1 with valid bounds", PINEAT, "r_test", "less"),
    ("shuffled signs show no difference ({};", "PGD Companions of shuffled signs", PINEAT, "p_max", "open"),
    *[
        ("shuffled signs show no difference", "PGD Companions of shuffled signs", PINEAT, figure, "open")
        for figure in ("a_test", "r_test")
    ],
    *[
        ("leaks less than both at no loss that the intervals show;", "PGD Light", other, figure, expected)
        for other, figure, expected in (
            ("PGD PINEAT-1/1", "p_max", "less"),
            ("PGD PINEAT-1/1", "a_test", "open"),
            ("PGD PINEAT-1/1", "r_test", "more"),
            (HALF, "p_max", "less"),
            (HALF, "a_test", "more"),
            (HALF, "r_test", "open"),
        )
    ],
]


@pytest.mark.parametrize("text, row, other, figure, expected", CLAIMS)
def test_a_comparison_is_that_of_the_records(rows, text, row, other, figure, expected):
    found = difference(rows, row, other, figure)
    assert text.format(interval(found)) in STUDY
    assert side(found) == expected


def test_every_interval_in_the_prose_is_claimed(rows):
    """A new figure needs a line above or below, so that it cannot go unchecked."""
    prose = " ".join(line for line in read("docs/study.md").splitlines() if not line.startswith("|"))
    said = set(re.findall(INTERVAL, " ".join(prose.split())))
    checked = {interval(difference(rows, row, other, figure)) for _, row, other, figure, _ in CLAIMS}
    checked |= {interval(of_bounds(row, figure)) for _, row, figure, _ in CERTIFIED}
    checked |= {interval(found) for _, found, _ in of_shadow_models()}
    checked |= {interval(difference(factorial(), LIGHT, PINEAT, figure)) for _, figure, _ in OF_LIGHT}
    checked |= {interval(found) for _, found, _ in in_prose()}
    checked |= {interval(found) for _, found, _ in of_scales()}
    checked |= {interval(on_top(companions, figure)) for _, companions, figure, _ in ON_TOP}
    assert len(said) >= 15 and said <= checked


def test_what_is_said_of_all_ratios(rows):
    differences = {
        (attack, figure): [
            difference(rows, f"{attack} PINEAT-{ratio}", f"{attack} Original", figure) for ratio in RATIOS
        ]
        for attack in ("PGD", "Dist", "Diff")
        for figure in ("a_test", "p_max")
    }

    def ends(attack, figure, digits):
        means = sorted(-difference.mean for difference in differences[attack, figure])
        assert means[0] > 0
        return short(means[0], digits, ""), short(means[-1], digits, "")

    num_less = {key: [side(one) for one in found].count("less") for key, found in differences.items()}
    leaks = [f"{low} to {high}" for low, high in (ends(name, "p_max", 4) for name in ("PGD", "Dist", "Diff"))]
    assert f"with PGD by {leaks[0]} of P_MAX (paired; eight of ten intervals are below 0)" in STUDY
    assert f"with Dist by {leaks[1]} (all ten are), with TRADES by {leaks[2]} (all ten are)" in STUDY
    assert [num_less[attack, "p_max"] for attack in ("PGD", "Dist", "Diff")] == [8, 10, 10]


def test_no_ratio_is_shown_to_beat_a_shorter_schedule(rows):
    assert "No ratio with PGD is shown to beat Original on a shorter schedule in any of the three figures" in STUDY
    for schedule in ("half", "3/8"):
        for ratio in RATIOS:
            pair = (f"PGD PINEAT-{ratio}", f"PGD Original ({schedule} schedule)")
            found = [side(difference(rows, *pair, figure)) for figure in ("a_test", "r_test", "p_max")]
            assert found[0] != "more" and found[1] != "more" and found[2] != "less", (schedule, ratio)


def test_costs_are_those_of_the_records(rows):
    passes = rows.groupby("title")["forwards"].mean()
    assert f"for {100 * (1 - passes[HALF] / passes['PGD PINEAT-1/1']):.0f} % less.**" in STUDY
    assert "at less than the cost of PINEAT-1/1 and of Original on half its schedule" in STUDY
    assert passes["PGD Light"] < min(passes["PGD PINEAT-1/1"], passes[HALF])


def test_p_values_are_adjusted_for_as_many_rows():
    text = (RESULTS / "study_fmnist" / "ablations.md").read_text(encoding="utf-8")
    assert f"p-values are adjusted for the {text.count('| PINEAT-1/1 | ')} rows" in STUDY


def test_what_is_said_of_cifar10():
    means = cifar10().set_index("title")[["a_test", "r_test", "p_max"]]
    pgd, dist, diff = (means.loc[f"{attack} PINEAT-1/1"] for attack in ("PGD", "Dist", "Diff"))
    others = [f"{attack} {other}-1/1" for attack in ("Dist", "Diff") for other in ("AdvNat", "AdvRan")]
    assert "it is ahead of AdvNat and AdvRan in robustness and leakage with TRADES, and behind in A_test" in STUDY
    assert (diff.r_test > means.r_test[others[2:]]).all() and (diff.p_max < means.p_max[others[2:]]).all()
    assert (diff.a_test < means.a_test[others[2:]]).all()
    assert "with Dist they are ahead in all three" in STUDY
    assert (means.loc[others[:2], ["a_test", "r_test"]] > dist[["a_test", "r_test"]]).all(axis=None)
    assert (means.p_max[others[:2]] < dist.p_max).all()
    assert "with one seed, it leaks less with Dist and TRADES and more with PGD.**" in STUDY
    leaks = [
        one.p_max - means.p_max[f"{name} Original"] for one, name in ((pgd, "PGD"), (dist, "Dist"), (diff, "Diff"))
    ]
    assert [leak > 0 for leak in leaks] == [True, False, False] and (cifar10()["seed"] == 0).all()
    assert "With PGD it is behind Original in both" in STUDY and pgd.r_test < means.r_test["PGD Original"]


def of_shadow_models() -> list[tuple[str, Difference, str]]:
    """What is said of shadow models, with {} for a difference; it; its side of 0."""
    studies = shadow()
    natural, original, pineat = (studies[name] for name in ("Natural", "PGD Original", "PGD PINEAT-1/1"))

    def to_natural(study):
        asked = study.of("RMIA online", "adversarial"), natural.of("RMIA online", "natural")
        return paired_difference(*(one.values("auc") for one in asked))

    return [
        ("(RMIA's AUC {}, natural training by its own worst queries", to_natural(original), "more"),
        ("PINEAT is not told apart from it ({})", to_natural(pineat), "open"),
    ]


def test_what_is_said_of_shadow_models_is_that_of_the_records():
    for text, found, expected in of_shadow_models():
        assert text.format(interval(found)) in STUDY and side(found) == expected, text


def test_readme_says_no_more_than_the_study(rows):
    assert "the original method on half its schedule leaks as little at no loss that the intervals show" in README
    for figure in ("p_max", "a_test"):
        assert side(difference(rows, "PGD Original (half schedule)", "PGD PINEAT-1/1", figure)) == "open"
    assert "PINEAT leaks more where reverse-symmetry examples are held in the pixel range" in README
    for attack in ("PGD", "Dist"):
        for other in ("Original", "AdvNat-1/1", "AdvRan-1/1"):
            assert side(difference(rows, f"{attack} PINEAT-1/1", f"{attack} {other}", "p_max")) == "less"
    pair = ("Diff PINEAT-3/1", "Diff Original")
    assert side(difference(rows, *pair, "r_test")) == "open"
    loss = [-difference(rows, *pair, figure).mean for figure in ("p_max", "a_test")]
    assert f"at {short(loss[0], 3, '')} less P_MAX and {short(loss[1], 3, '')} less accuracy" in README


@pytest.mark.parametrize("text", [STUDY, README])
def test_what_readers_must_know_is_said(text):
    assert re.search(r"[Ss]eeds vary the training( only)?, never", text)
    assert "stopped at" not in text and "that leaks nothing therefore" not in text
    assert text.count("| p (") == text.count(", Holm) |")


CERTIFIED = [
    ("is more robust ({} of R_test with a natural weight of .5)", "IBP natural weight .5", "r_test", "more"),
    ("and leaks more ({} of P_MAX).**", "IBP natural weight .5", "p_max", "more"),
]


def of_bounds(row: str, figure: str) -> Difference:
    return difference(certified(), row, "PGD PINEAT-1/1", figure)


@pytest.mark.parametrize("text, row, figure, expected", CERTIFIED)
def test_what_is_said_of_bounds_is_that_of_the_records(text, row, figure, expected):
    found = of_bounds(row, figure)
    assert text.format(interval(found)) in STUDY
    assert side(found) == expected


def test_what_is_said_of_proofs():
    means = certified().groupby("title")[["v_test", "p_max"]].mean()
    assert (means.p_max[[row.startswith("IBP") for row in means.index]] > 0.5096).all()
    assert "For seven of ten images" in STUDY and round(10 * means.v_test["IBP natural weight .5"]) == 7
    passes = certified().groupby("title")["forwards"].mean()
    assert "at no more cost than PINEAT-1/1" in STUDY
    assert passes["IBP natural weight .5"] <= passes["PGD PINEAT-1/1"]
