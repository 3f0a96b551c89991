"""docs/guides/privacy.md: its table of defences and what it says of them are those of the records."""

import re

import numpy as np
import pandas as pd
import pytest
from study_records import INTERVAL, RESULTS, defences, interval, interval_of_less, read, rmia, short, side, worst

from experiments import cost
from experiments.statistics import Difference, paired_difference
from experiments.sweep import plan

PAGE, HEADING = read("docs/guides/privacy.md"), "## Which defence is worth its price"
SECTION = " ".join(PAGE.split(HEADING)[1].split())
HALF, ORIGINAL, PINEAT, IBP = "PGD Original (half schedule)", "PGD Original", "PGD PINEAT-1/1", "IBP natural weight .5"
LIGHT, RELAXLOSS, HAMP, DP = "PGD Light", "RelaxLoss alpha .7", "HAMP entropy", ("DP noise .5", "DP noise 1")


def auc(title: str) -> list[float]:
    return rmia(defences()[title], "auc")


def difference(title: str, other: str, figure: str = "auc") -> Difference:
    if figure == "auc":
        return paired_difference(auc(title), auc(other))
    return paired_difference(*([run[figure] for run in defences()[name].runs] for name in (title, other)))


def row(title: str) -> str:
    """The line of the table for a method."""
    study = defences()[title]
    queries = worst(study)
    means = [short(np.mean([run[name] for run in study.runs]), 3, "") for name in ("a_test", "r_test", "p_max")]
    found = study.of("RMIA online", queries)
    against = "" if title == HALF else interval(difference(title, HALF))
    tprs = [short(np.mean(found.values(name)), 4, "") for name in ("tpr_0.01", "tpr_0.001")]
    cells = [title, *means, f"{short(np.mean(found.values('auc')), 3, '')} ({queries})", against, *tprs]
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


def test_the_table_is_that_of_the_records():
    header = "| defence | A_test | R_test | P_MAX | AUC of RMIA (by queries) | AUC, against half the schedule |"
    table = PAGE.split(header)[1].split("\n\n")[0].splitlines()[2:]
    assert table == [row(title) for title in defences()]


SAID = [
    ("PINEAT-1/1 is not told apart from Original ({} of RMIA's AUC)", PINEAT, ORIGINAL, "auc", "open"),
    ("and leaks more than Original on half its schedule ({}).", PINEAT, HALF, "auc", "more"),
    ("Of A_test the two are not told apart ({}).", PINEAT, HALF, "a_test", "open"),
    ("Interval bounds leak less than PINEAT-1/1 ({})", IBP, PINEAT, "auc", "less"),
    ("at {} of A_test and", IBP, PINEAT, "a_test", "less"),
    ("of A_test and {} of R_test. From", IBP, PINEAT, "r_test", "more"),
    ("they are not told apart by RMIA ({})", IBP, HALF, "auc", "open"),
    ("by RMIA (-.0138 [-.0476, +.0199]), at {} of R_test.", IBP, HALF, "r_test", "more"),
    ("RelaxLoss leaks hardly less than Original ({})", RELAXLOSS, ORIGINAL, "auc", "less"),
    ("leaks least: RMIA's AUC is {} and", DP[0], IBP, "auc", "less"),
    ("and {} below that of interval bounds. It", DP[1], IBP, "auc", "less"),
    ("loses {} and", DP[0], IBP, "a_test", "less"),
    ("and {} of A_test", DP[1], IBP, "a_test", "less"),
    ("of A_test and {} and", DP[0], IBP, "r_test", "less"),
    ("and {} of R_test to them.", DP[1], IBP, "r_test", "less"),
]
PRIVATE = len(SAID) - 6  # from here on losses are told as such, without a sign


def printed(number: int, title: str, other: str, figure: str) -> str:
    found = difference(title, other, figure)
    return interval_of_less(found) if number >= PRIVATE else interval(found)


@pytest.mark.parametrize("number", range(len(SAID)))
def test_what_is_said_is_that_of_the_records(number):
    text, *pair, expected = SAID[number]
    assert text.format(printed(number, *pair)) in SECTION and side(difference(*pair)) == expected


def test_every_interval_in_the_text_is_checked():
    prose = " ".join(" ".join(line for line in PAGE.split(HEADING)[1].splitlines() if line[:1] != "|").split())
    assert {printed(number, *said[1:4]) for number, said in enumerate(SAID)} == set(re.findall(INTERVAL, prose))


def test_the_answer_is_that_of_the_records():
    assert "they leak less than Original and PINEAT-1/1, are more robust than both" in SECTION
    for other in (ORIGINAL, PINEAT):
        assert side(difference(IBP, other)) == "less" and side(difference(IBP, other, "r_test")) == "more"
    assert "and take no more passes than the cheaper of them" in SECTION
    rows = plan.read(["shadow", "--flagfile=shadow_defences_fmnist.flags"], "").rows
    passes = {row.title: cost.forwards(row.configs[0]) for row in rows}
    assert passes[IBP] < passes[PINEAT] < passes[ORIGINAL]
    assert "an attacker with shadow models, who finds less after half the schedule.**" in SECTION
    assert all(side(difference(HALF, other)) == "less" for other in (ORIGINAL, PINEAT))
    assert abs(difference(RELAXLOSS, ORIGINAL, "a_test").mean) < 0.001


def test_networks_that_did_not_learn_are_told():
    accuracies = {title: [run["a_test"] for run in study.runs] for title, study in defences().items()}
    failed = [(title, accuracy) for title, found in accuracies.items() for accuracy in found if accuracy < 0.2]
    assert [title for title, _ in failed] == [LIGHT, HAMP]
    assert (
        "one network in eight did not learn (A_test {} and {})".format(
            *(short(accuracy, 3, "") for _, accuracy in failed)
        )
        in SECTION
    )
    assert "the seven others of Light leak less than half the schedule, and are less accurate" in SECTION
    learnt = [number for number, accuracy in enumerate(accuracies[LIGHT]) if accuracy > 0.2]
    for values in (auc, accuracies.get):
        found = paired_difference(*([values(title)[number] for number in learnt] for title in (LIGHT, HALF)))
        assert side(found) == "less"


def test_the_guarantees_of_private_training_are_those_of_the_records():
    runs = pd.read_csv(RESULTS / "shadow_defences_fmnist" / "runs.csv")
    spent = runs[runs["group"] == "DP"].groupby("label")["epsilon_spent"].agg(["min", "max"])
    assert (spent["min"] == spent["max"]).all() and list(spent.index) == ["noise .5", "noise 1"]
    said = "Private training (an epsilon of {:.0f} and {:.0f} at delta 1e-5) leaks least".format(*spent["max"])
    assert said in SECTION and (runs["flags.dp_delta"] == 1e-5).all()
    assert all(np.mean(auc(DP[0])) < np.mean(auc(title)) for title in defences() if title not in DP)
