"""Sentences of README.md and docs/study.md: figures are those of the records, none is stronger than its interval."""

import json
import pathlib
import re

import numpy as np
import pytest

from experiments.shadow import attackers, outputs
from experiments.statistics import difference, paired_difference
from experiments.sweep import plan

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "study" / "results"
RATIOS = ("4/1", "3/1", "2/1", "3/2", "1/1", "2/2", "2/3", "1/2", "1/3", "1/4")


def words(name):
    return " ".join((ROOT / name).read_text(encoding="utf-8").split())


STUDY, README = words("docs/study.md"), words("README.md")


@pytest.fixture(scope="module")
def rows():
    """All runs of the study on Fashion-MNIST, under the titles of their rows."""
    files = [f"--flagfile={name}_fmnist.flags" for name in ("table1", "ratios", "ablations", "recipes")]
    arguments = ["--overlay=study.flags", "--seeds=0-4", f"--runs_file={RESULTS}/study_fmnist/runs.csv"]
    return plan.read(["x", *files, *arguments], "").finished()


@pytest.fixture(scope="module")
def studies():
    return outputs.read(RESULTS / "shadow_fmnist" / "shadow.json")


def short(value, digits=4, sign="+"):
    return re.sub(r"^([+-]?)0\.", r"\1.", f"{value:{sign}.{digits}f}")


def interval(difference):
    return f"{short(difference.mean)} [{short(difference.low)}, {short(difference.high)}]"


def side(difference):
    return "more" if difference.low > 0 else "less" if difference.high < 0 else "open"


# What is said, with {} for the figure of the first row over that of the second; the figure; its side of 0.
CLAIMS = [
    ("AdvNat and AdvRan leak as much ({} and", "Diff PINEAT-1/1", "Diff AdvNat-1/1", "p_max", "open"),
    ("and {} of PINEAT against them)", "Diff PINEAT-1/1", "Diff AdvRan-1/1", "p_max", "open"),
    ("loses little robustness here (.5749, {} against", "Dist AdvRan-1/1", "Dist Original", "r_test", "less"),
    ("3/1 keeps the robustness of Original ({})", "PGD PINEAT-3/1", "PGD Original", "r_test", "open"),
    ("2/1 and 4/1 show no loss in wider intervals ({},", "PGD PINEAT-2/1", "PGD Original", "r_test", "open"),
    ("[-.0172, +.0142], {})", "PGD PINEAT-4/1", "PGD Original", "r_test", "open"),
    ("best about the middle (2/2: {})", "Dist PINEAT-2/2", "Dist Original", "r_test", "more"),
    ("it is less at 1/4 ({}), 2/3 and 1/3", "PGD PINEAT-1/4", "PGD PINEAT-1/1", "p_max", "less"),
    ("2/3 and 1/3, and", "PGD PINEAT-2/3", "PGD PINEAT-1/1", "p_max", "less"),
    ("2/3 and 1/3, and", "PGD PINEAT-1/3", "PGD PINEAT-1/1", "p_max", "less"),
    ("and 4/1 is not told apart ({})", "PGD PINEAT-4/1", "PGD PINEAT-1/1", "p_max", "open"),
    ("With Dist 3/1 and 4/1 leak less than 1/1 ({},", "Dist PINEAT-3/1", "Dist PINEAT-1/1", "p_max", "less"),
    ("[-.0074, -.0015], {}), at less A_test", "Dist PINEAT-4/1", "Dist PINEAT-1/1", "p_max", "less"),
    ("at less A_test. -", "Dist PINEAT-3/1", "Dist PINEAT-1/1", "a_test", "less"),
    ("at less A_test. -", "Dist PINEAT-4/1", "Dist PINEAT-1/1", "a_test", "less"),
    ("(P_MAX {}, R_test", "PGD PINEAT-4/1", "PGD Original (3/8 schedule)", "p_max", "open"),
    ("R_test {}), which costs less than half", "PGD PINEAT-4/1", "PGD Original (3/8 schedule)", "r_test", "open"),
    ("3/1 keeps Original's robustness ({})", "Diff PINEAT-3/1", "Diff Original", "r_test", "open"),
    ("3/2 loses some ({})", "Diff PINEAT-3/2", "Diff Original", "r_test", "less"),
    ("no difference shows ({},", "PGD PINEAT-2/2", "PGD PINEAT-1/1", "p_max", "open"),
    ("[-.0098, +.0052], {})", "Dist PINEAT-2/2", "Dist PINEAT-1/1", "p_max", "open"),
    ("leaks as little as PINEAT-1/1 ({})", "PGD Original (half schedule)", "PGD PINEAT-1/1", "p_max", "open"),
    ("at no less accuracy ({})", "PGD Original (half schedule)", "PGD PINEAT-1/1", "a_test", "open"),
    ("and more robustness ({};", "PGD Original (half schedule)", "PGD PINEAT-1/1", "r_test", "more"),
    ("leaks more than without ({})", "PGD PINEAT-1/1 with valid bounds", "PGD PINEAT-1/1", "p_max", "more"),
    ("and is less robust ({}). Whether", "PGD PINEAT-1/1 with valid bounds", "PGD PINEAT-1/1", "r_test", "less"),
    ("against Original it is {}.", "PGD PINEAT-1/1 with valid bounds", "PGD Original", "p_max", "open"),
    ("shows no gain either ({})", "PGD AdvRan-1/1", "PGD Original", "p_max", "open"),
    ("leaks as little ({}) and is", "PGD Companions of shuffled signs", "PGD PINEAT-1/1", "p_max", "open"),
    ("interval leaves open ({})", "PGD Companions of shuffled signs", "PGD PINEAT-1/1", "r_test", "open"),
    ("first leak a little more ({})", "PGD PINEAT-1/1 with companions first", "PGD PINEAT-1/1", "p_max", "more"),
    ("shows no difference ({}). Splitting", "PGD PINEAT-2/1 generated per update", "PGD PINEAT-2/1", "p_max", "open"),
    ("first at random ({}), is", "PGD PINEAT-1/2 with split noise", "PGD PINEAT-1/2", "p_max", "less"),
    ("is more robust ({}), and costs", "PGD PINEAT-1/2 with split noise", "PGD PINEAT-1/2", "r_test", "more"),
    ("and costs A_test ({})", "PGD PINEAT-1/2 with split noise", "PGD PINEAT-1/2", "a_test", "less"),
    ("N-FGSM is less robust ({})", "PGD N-FGSM at PINEAT's cost", "PGD PINEAT-1/1", "r_test", "less"),
    ("leaks more is not shown ({})", "PGD N-FGSM at PINEAT's cost", "PGD PINEAT-1/1", "p_max", "open"),
    ("robust than Original ({})", "PGD Original with half the attack steps", "PGD Original", "r_test", "less"),
    ("leak more is not shown ({})", "PGD Original with half the attack steps", "PGD Original", "p_max", "open"),
    ("show no difference in P_MAX ({},", "PGD Original with label smoothing", "PGD Original", "p_max", "open"),
    ("[-.0044, +.0023], {})", "PGD Original with averaged weights", "PGD Original", "p_max", "open"),
    ("(P_MAX {}, A_test", "PGD PINEAT-1/1 (half schedule)", "PGD Original (quarter schedule)", "p_max", "open"),
    ("A_test {}, R_test", "PGD PINEAT-1/1 (half schedule)", "PGD Original (quarter schedule)", "a_test", "open"),
    (
        "R_test {}), and costs more",
        "PGD PINEAT-1/1 (half schedule)",
        "PGD Original (quarter schedule)",
        "r_test",
        "open",
    ),
    ("leaks less than both at no loss", "PGD Light", "PGD PINEAT-1/1", "p_max", "less"),
    ("leaks less than both at no loss", "PGD Light", "PGD Original (half schedule)", "p_max", "less"),
    ("leaks less than both at no loss", "PGD Light", "PGD Original (half schedule)", "r_test", "open"),
]


@pytest.mark.parametrize("text, row, other, figure, expected", CLAIMS)
def test_a_comparison_is_that_of_the_records(rows, text, row, other, figure, expected):
    found = difference(rows, row, other, figure)
    assert text.format(interval(found)) in STUDY
    assert side(found) == expected


def test_every_interval_in_the_prose_of_the_ablations_and_ratios_is_claimed(rows):
    """A new figure needs a line above, so that it cannot go unchecked."""
    prose = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
    prose = prose[prose.index("## The ratio") : prose.index("## Stronger attackers on membership")]
    prose = " ".join(line for line in prose.splitlines() if not line.startswith("|"))
    said = set(re.findall(r"[+-]?\.\d{4} \[[+-]?\.\d{4}, [+-]?\.\d{4}\]", " ".join(prose.split())))
    checked = {interval(difference(rows, row, other, figure)) for _, row, other, figure, _ in CLAIMS}
    checked |= {interval_of_less(difference(rows, "Diff PINEAT-3/1", "Diff Original", "p_max"))}
    checked |= {interval_of_less(difference(rows, "Diff PINEAT-2/2", "Diff PINEAT-1/1", "p_max"))}
    prose_of_bounds = STUDY.partition("## Certified")[2].partition("## The paper's")[0]
    said -= set(
        re.findall(r"[+-]?\.\d{4} \[[+-]?\.\d{4}, [+-]?\.\d{4}\]", prose_of_bounds)
    )  # checked by themselves, below
    assert said and said <= checked


def interval_of_less(difference):
    return f"{short(-difference.mean, sign='')} [{short(-difference.high, sign='')}, {short(-difference.low, sign='')}]"


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
    low, high = ends("Dist", "a_test", 3)
    assert f"(with PGD seven of ten intervals are below 0, with Dist all ten, by {low} to {high})" in STUDY
    assert [num_less[attack, "a_test"] for attack in ("PGD", "Dist")] == [7, 10]
    assert all(difference.mean < 0 for difference in differences["PGD", "a_test"])


def test_no_ratio_is_shown_to_beat_a_shorter_schedule(rows):
    assert "No ratio with PGD is shown to beat Original on a shorter schedule in any of the three figures" in STUDY
    for schedule in ("half", "3/8"):
        for ratio in RATIOS:
            pair = (f"PGD PINEAT-{ratio}", f"PGD Original ({schedule} schedule)")
            found = [side(difference(rows, *pair, figure)) for figure in ("a_test", "r_test", "p_max")]
            assert found[0] != "more" and found[1] != "more" and found[2] != "less", (schedule, ratio)


def test_diff_leaks_most_at_one_to_one(rows):
    assert "With TRADES 1/1 leaks more than every other ratio, and 3/2 and 4/1 least in the mean" in STUDY
    others = [f"Diff PINEAT-{ratio}" for ratio in RATIOS if ratio != "1/1"]
    assert {side(difference(rows, other, "Diff PINEAT-1/1", "p_max")) for other in others} == {"less"}
    means = rows[rows["title"].isin(others)].groupby("title")["p_max"].mean()
    assert set(means.nsmallest(2).index) == {"Diff PINEAT-3/2", "Diff PINEAT-4/1"}
    for ratio in ("1/2", "1/3", "1/4"):
        assert side(difference(rows, f"Diff PINEAT-{ratio}", "Diff Original", "a_test")) == "open"


def test_square_takes_its_share_of_those_that_were_left():
    def taken(path):
        left = json.loads((RESULTS / path).read_text())["robustness"]["after_each_attack"][-1]
        return left["fab_t"] - left["square"], (left["fab_t"] - left["square"]) / left["fab_t"]

    pgd, dist = (taken(f"study_fmnist/audits/{name}-advnat-1-1-seed4.json") for name in ("pgd", "dist"))
    second = taken("audited_fmnist/audits/pgd-advnat-1-1-seed0.json")
    assert (
        f"fools {100 * pgd[0]:.1f} % and {100 * dist[0]:.1f} % of all images after the three before: "
        f"{100 * pgd[1]:.0f} % and {100 * dist[1]:.0f} % of those that they left"
    ) in STUDY
    assert f"of the second AdvNat with PGD, below, Square takes {100 * second[0]:.1f} % of all images" in STUDY
    others = [
        json.loads(path.read_text())["robustness"]["after_each_attack"][-1]
        for path in (RESULTS / "study_fmnist" / "audits").glob("*.json")
        if "advnat" not in path.name and "natural" not in path.name
    ]
    falls = sorted(left["apgd_ce"] - left["square"] for left in others)
    assert f"the ensemble takes {short(falls[0], 3, '')} to {short(falls[-1], 2, '')} more than APGD" in STUDY
    assert all(left["fab_t"] == left["square"] for left in others)


def test_what_shadow_models_find(studies):
    original, pineat = studies["PGD Original"], studies["PGD PINEAT-1/1"]

    def found(attacker, queries, figure):
        pair = (study.of(attacker, queries).values(figure) for study in (pineat, original))
        return paired_difference(*pair)

    def means(attacker, queries, figure):
        return [short(np.mean(study.of(attacker, queries).values(figure)), sign="") for study in (original, pineat)]

    asked = {one.attacker for one in original.leakage}  # some attackers came in after the record
    assert asked <= attackers.ATTACKERS.keys()
    pairs = [(attacker, queries) for attacker in asked for queries in attackers.QUERIES]
    assert "The AUC falls by every attacker and query" in STUDY
    assert {side(found(*pair, "auc")) for pair in pairs} == {"less"}
    for study in (original, pineat):
        for figure in ("auc", "tpr_0.001"):
            assert max(pairs, key=lambda pair: np.mean(study.of(*pair).values(figure))) == (
                "RMIA online",
                "adversarial",
            )
    best = found("RMIA online", "adversarial", "auc")
    assert "AUC {} against {} ".format(*means("RMIA online", "adversarial", "auc")) + f"({interval(best)})" in STUDY
    low = found("LiRA online, fixed variance", "adversarial", "tpr_0.001")
    assert f"({interval(low)}), and by x_adv" in STUDY and side(low) == "open"
    both = found("LiRA online, fixed variance", "adversarial and reverse symmetry", "tpr_0.001")
    assert f"together {interval(both)} *more* of PINEAT" in STUDY and side(both) == "more"
    threshold, rmia = (means(name, "natural", "tpr_0.001") for name in ("global threshold", "RMIA online"))
    assert f"a TPR of {threshold[0]} (original) and {threshold[1]} (PINEAT) at 0.1 % FPR" in STUDY
    assert f"about the {short(6 / 5001, sign='')} that" in STUDY and f"RMIA has {rmia[0]} and {rmia[1]}" in STUDY


def test_what_the_records_of_the_half_schedule_say(studies):
    half, pineat = studies["PGD Original (half schedule)"], studies["PGD PINEAT-1/1"]
    assert len(half.runs) == len(pineat.runs) == 16 and half.leakage == []

    def found(figure):
        return paired_difference(*([run[figure] for run in study.runs] for study in (half, pineat)))

    assert f"its in-sample P_MAX is not told apart ({interval(found('p_max'))})" in STUDY
    assert f"nor its A_test ({interval(found('a_test'))})" in STUDY
    assert f"and it is more robust ({interval(found('r_test'))})" in STUDY
    assert [side(found(name)) for name in ("p_max", "a_test", "r_test")] == ["open", "open", "more"]


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
    ("({} of R_test with a natural weight of .5)", ".5", "r_test", "more"),
    ("Accuracy is not told apart ({})", ".5", "a_test", "open"),
    ("They leak more ({} of P_MAX)", ".5", "p_max", "more"),
    ("against PINEAT-1/1 {} of A_test", ".7", "a_test", "open"),
    ("{} of R_test, +", ".7", "r_test", "more"),
    ("{} of P_MAX. - The target", ".7", "p_max", "more"),
]


@pytest.fixture(scope="module")
def certified():
    runs = f"--runs_file={RESULTS}/certified_fmnist/runs.csv"
    return plan.read(["x", "--flagfile=certified_fmnist.flags", runs], "").finished()


@pytest.mark.parametrize("text, weight, figure, expected", CERTIFIED)
def test_what_is_said_of_bounds_is_that_of_the_records(certified, text, weight, figure, expected):
    found = difference(certified, f"IBP natural weight {weight}", "PGD PINEAT-1/1", figure)
    assert text.format(interval(found)) in STUDY
    assert side(found) == expected


def test_the_target_of_certified_training_is_met_in_part(certified):
    means = certified.groupby("title")[["r_test", "v_test", "a_test", "p_max"]].mean()
    meets = means.ge({"r_test": 0.735, "v_test": 0.71, "a_test": 0.85, "p_max": 0})
    five, seven = (meets.loc[f"IBP natural weight {weight}"] for weight in (".5", ".7"))
    assert five.r_test and five.v_test and not five.a_test and seven.r_test and seven.a_test and not seven.v_test
    assert (means.p_max[[row.startswith("IBP") for row in means.index]] > 0.5096).all()


def test_the_table_of_certified_training_is_that_of_the_sweep():
    def cells(text):
        lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
        heads = [index for index, line in enumerate(lines) if {"V_test", "P_MAX"} <= set(line)]
        rows = [line for line in lines[heads[0] + 2 :] if len(line) == len(lines[heads[0]])]
        return {row[0]: dict(zip(lines[heads[0]], row)) for row in rows}

    whole = (RESULTS / "certified_fmnist" / "certified.md").read_text(encoding="utf-8")
    shown = cells(
        (ROOT / "docs" / "study.md")
        .read_text(encoding="utf-8")
        .partition("## Certified training")[2]
        .partition("##")[0]
    )
    for title, row in cells(re.sub(r"\*\*|</?u>", "", whole)).items():
        assert title.startswith("*in the paper") or {name: row[name] for name in shown[title]} == shown[title]
    assert len(shown) == 4
