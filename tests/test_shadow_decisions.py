"""Thresholds from shadows alone: what they attain, how precise they are, and whether they flag the same each time."""

import itertools

import numpy as np
import pytest
from test_shadow_study import made_up_answers, study

from experiments.shadow import attackers, decisions, outputs
from experiments.shadow.decisions import Decisions, decide, precision, threshold
from pineat_tf import membership


def test_a_threshold_flags_as_many_as_it_may_and_tied_scores_together():
    assert threshold(np.arange(1000.0), 0.001) == 999 and threshold(np.arange(1000.0), 0.01) == 990
    assert threshold(np.arange(999.0), 0.001) is None
    tied = np.array([5.0, 4.0, 4.0, 4.0, *np.zeros(96)])
    assert threshold(tied, 0.01) == threshold(tied, 0.03) == 5 and threshold(tied, 0.04) == 4
    assert threshold(np.zeros(100), 0.05) == np.inf


@pytest.mark.parametrize("seed", range(5))
def test_decisions_are_those_of_loops(seed):
    rng = np.random.default_rng(seed)
    scores, in_mask = rng.normal(size=(4, 30)), rng.random((4, 30)) < 0.5
    thresholds = [0.5, 0.0, 1.0, 0.2]
    found = decide(scores, in_mask, thresholds)
    for one in range(4):
        flagged = {i for i in range(30) if scores[one, i] >= thresholds[one]}
        members = set(np.flatnonzero(in_mask[one]))
        assert (found.true_positives[one], found.members[one]) == (len(flagged & members), len(members))
        assert (found.false_positives[one], found.non_members[one]) == (len(flagged - members), 30 - len(members))
        indices = []
        for other in set(range(4)) - {one}:
            both = members & set(np.flatnonzero(in_mask[other]))
            mine, others = flagged & both, {i for i in both if scores[other, i] >= thresholds[other]}
            if mine | others:
                indices.append(len(mine & others) / len(mine | others))
        assert found.jaccard[one] == pytest.approx(np.mean(indices))
    assert found.tpr == [hits / num for hits, num in zip(found.true_positives, found.members)]
    assert found.fpr == [alarms / num for alarms, num in zip(found.false_positives, found.non_members)]


def test_what_nobody_can_tell_is_not_told():
    scores, in_mask = np.arange(12.0).reshape(2, 6), np.tile([True, False], (2, 3))
    assert decide(scores, in_mask, [0.0, None]) is None
    assert decide(scores, np.ones((2, 6), bool), [0.0, 0.0]) is None
    nobody = decide(scores, in_mask, [np.inf, np.inf])
    assert nobody.true_positives == [0, 0] and nobody.jaccard is nobody.by_chance is None
    assert precision(nobody, 0.1) is None


@pytest.mark.parametrize(("num", "sizes"), [(6, (2, 3)), (5, (0, 2)), (7, (3, 3)), (4, (4, 4))])
def test_agreement_by_chance_is_the_mean_over_all_pairs_of_sets(num, sizes):
    one = set(range(sizes[0]))
    pairs = [(one, set(other)) for other in itertools.combinations(range(num), sizes[1])]
    expected = np.mean([len(a & b) / len(a | b) for a, b in pairs])
    assert decisions._by_chance(num, *sizes) == pytest.approx(expected)


def counts(hits, alarms, members=5000, others=5000):
    return Decisions(hits, [members] * len(hits), alarms, [others] * len(hits), None, None)


def test_precision_is_bayes_rule_with_an_interval_of_the_ratio():
    found = precision(counts([100, 140, 120, 120], [5, 4, 6, 5]), 0.01)
    assert found.mean == pytest.approx(membership.positive_predictive_value(0.024, 0.001, prior=0.01))
    logs = np.log(np.array([found.low, found.mean, found.high]) / (1 - np.array([found.low, found.mean, found.high])))
    assert logs[2] - logs[1] == pytest.approx(logs[1] - logs[0])  # alike on the scale of odds
    differences = np.array([100, 140, 120, 120]) / 120 - np.array([5, 4, 6, 5]) / 5
    assert logs[2] - logs[1] == pytest.approx(3.182446 * differences.std(ddof=1) / 2, rel=1e-6)
    nowhere = precision(counts([3, 2], [0, 0]), 0.1)
    assert nowhere.mean == nowhere.high == 1.0 and 0.01 < nowhere.low < 0.5
    unhit = precision(counts([0, 0], [3, 2]), 0.1)
    assert unhit.mean == unhit.low == 0.0 and 0.05 < unhit.high < 0.5


@pytest.mark.parametrize(
    ("num_models", "num", "tpr", "fpr"), [(16, 5000, 0.03, 0.001), (4, 5000, 0.03, 0.001), (16, 150, 0.2, 0.01)]
)
def test_intervals_of_precision_cover(num_models, num, tpr, fpr):
    rng, draws = np.random.default_rng(0), 400
    true = membership.positive_predictive_value(tpr, fpr, prior=0.05)
    covered = 0
    for _ in range(draws):
        drawn = counts(*(rng.binomial(num, rate, num_models).tolist() for rate in (tpr, fpr)), num, num)
        found = precision(drawn, 0.05)
        covered += found.low <= true <= found.high
    assert 0.92 < covered / draws <= 1.0


def test_thresholds_from_shadows_attain_their_rate_and_find_what_leaks():
    names = ["LiRA online, fixed variance", "BaVarIA online", "RMIA online"]
    found = attackers.audit(made_up_answers(2.0, num_models=10, num=1000), names)
    by = {(one.attacker, one.queries): one.decided for one in found}
    for name in names:
        decided = by[name, "natural"][0.01]
        assert 0.005 < np.mean(decided.fpr) < 0.02 and np.mean(decided.tpr) > 5 * np.mean(decided.fpr), name
        assert by[name, "all four"] == {} and by[name, "augmented"][0.001] is not None
        assert precision(decided, 0.1).mean > 0.3


def test_thresholds_flag_no_more_members_than_others_where_nothing_leaks():
    rates = []
    for seed in range(6):
        for one in attackers.audit(made_up_answers(0.0, seed, num_models=6, num=400), ["BaVarIA online"]):
            if one.queries == "natural":
                rates.append((np.mean(one.decided[0.01].tpr), np.mean(one.decided[0.01].fpr)))
    tpr, fpr = np.mean(rates, axis=0)
    assert 0.005 < fpr < 0.016 and abs(tpr - fpr) < 0.006


def test_a_threshold_does_not_know_what_its_target_was_trained_on():
    answers = made_up_answers(2.0, num_models=5, num=200)
    lied = answers.in_mask.copy()
    lied[0] = ~lied[0]
    name = "BaVarIA online"
    one, other = (
        next(of for of in attackers.audit(answers._replace(in_mask=mask), [name]) if of.queries == "natural").decided[
            0.01
        ]
        for mask in (answers.in_mask, lied)
    )
    # The same are flagged, and only what is called a hit or a false alarm changes places.
    assert (one.true_positives[0], one.false_positives[0]) == (other.false_positives[0], other.true_positives[0])
    assert one.true_positives[0] > one.false_positives[0]


def test_few_models_decide_nothing_and_canaries_are_decided_alone():
    name = "LiRA online, fixed variance"
    assert all(one.decided == {} for one in attackers.audit(made_up_answers(1.0, num_models=3), [name]))
    found = attackers.audit(made_up_answers(0.0, canaries=100, leak_of_canaries=4.0, num_models=8), [name])
    of = {one.examples: one.decided for one in found if one.queries == "natural"}
    assert sum(of["canaries"][0.01].members) + sum(of["canaries"][0.01].non_members) == 800
    assert of["canaries"][0.001] is None  # 350 scores of others do not tell
    assert np.mean(of["canaries"][0.01].tpr) > 0.3


def test_decisions_are_written_and_read_back(tmp_path):
    shown = study("Original", 2.0, canaries=20)
    outputs.write(tmp_path / "shadow", "Shadows", [shown, study("PINEAT-1/1", 0.0, canaries=20)], [])
    again = outputs.read(tmp_path / "shadow.json")["Original"]
    assert again.of("BaVarIA online", "natural").values("decided_fpr_0.01") == pytest.approx(
        shown.of("BaVarIA online", "natural").values("decided_fpr_0.01")
    )
    lines = outputs.frame([again])
    chosen = lines[
        (lines["attacker"] == "BaVarIA online") & (lines["queries"] == "natural") & (lines["examples"] == "all")
    ]
    row = chosen.set_index("figure").loc["ppv_0.01_0.05"]
    expected = precision(shown.of("BaVarIA online", "natural").decided[0.01], 0.05)
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((expected.mean, expected.low, expected.high))
    text = (tmp_path / "shadow.md").read_text()
    assert f"{expected.mean:.4f} [{expected.low:.4f}, {expected.high:.4f}]" in text and "## Canaries" in text
