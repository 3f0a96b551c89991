"""Intervals and p-values against their definitions: resampling by hand, all orders listed, SciPy's own tests."""

import itertools
import json

import numpy as np
import oracles
import pytest
from scipy import stats

from pineat_tf import membership
from pineat_tf.membership import calibration, thresholds, uncertainty
from pineat_tf.statistics import clopper_pearson

METRICS = ["balanced_accuracy", "advantage", "auc", "tpr_at_fpr_0.01", "tpr_at_fpr_0.001", "tpr_at_fpr_0.0001"]


def normal(num_members, num_non_members, shift=0.5, seed=0, decimals=9):
    rng = np.random.default_rng(seed)
    return rng.normal(shift, 1, num_members).round(decimals), rng.normal(size=num_non_members).round(decimals)


# ---------------------------------------------------------------- the bootstrap


@pytest.mark.parametrize("decimals", [0, 1, 9])
@pytest.mark.parametrize("chunk", [1, 2**20])
def test_weighing_the_sorted_scores_is_resampling_them(decimals, chunk, monkeypatch):
    # The same draws of examples, once through the ranks and once through the scores themselves.
    monkeypatch.setattr(uncertainty, "_CHUNK", chunk)
    member, non_member = normal(40, 25, decimals=decimals)
    found = np.transpose(uncertainty._resampled(thresholds.ranked(member, non_member), 7, np.random.default_rng(3)))
    rng, draws = np.random.default_rng(3), []
    for size in (1,) * 7 if chunk == 1 else (7,):
        both = (scores[rng.integers(len(scores), size=(size, len(scores)))] for scores in (member, non_member))
        draws += zip(*both)
    cuts = [np.inf, *member, *non_member]
    before = np.array([np.mean(member >= cut) - np.mean(non_member >= cut) for cut in cuts])
    for (m, n), (area, rise, fall) in zip(draws, found, strict=True):
        change = np.array([np.mean(m >= cut) - np.mean(n >= cut) for cut in cuts]) - before
        assert area == pytest.approx(thresholds.auc(thresholds.roc(m, n)))
        assert (rise, fall) == (pytest.approx(change.max()), pytest.approx(-change.min()))


def test_a_large_draw_of_the_auc_has_the_spread_of_theory():
    member, non_member = normal(400, 300)
    low, high = uncertainty.score_intervals(member, non_member, num_bootstrap=2000)["auc"]
    # DeLong, DeLong and Clarke-Pearson, Biometrics 1988: variance of the placements.
    wins = np.mean(member[:, None] > non_member, axis=1), np.mean(member[:, None] > non_member, axis=0)
    deviation = np.sqrt(sum(np.var(share, ddof=1) / len(share) for share in wins))
    area = np.mean(wins[0])
    np.testing.assert_allclose([low, high], [area - 1.96 * deviation, area + 1.96 * deviation], atol=0.004)


@pytest.mark.parametrize("num", [3, 10, 300])
def test_no_overlap_is_no_certainty(num):
    above, below = np.arange(num) + 1.0, -np.arange(num) - 1.0
    found = uncertainty.score_intervals(above, below, num_bootstrap=200)
    # As for 0 of n seen: a rate up to 1 - (alpha / 4)^(1 / n) for each of the two.
    worst = 0.0125 ** (2 / num)
    assert found["auc"] == (pytest.approx(worst), 1.0)
    assert uncertainty.score_intervals(below, above, num_bootstrap=200)["auc"] == (0.0, pytest.approx(1 - worst))
    for metric in METRICS:
        assert found[metric].high == 1.0 and found[metric].low < 1.0, metric
    assert found["tpr_at_fpr_0.0001"].low == 0.0  # none of so few non-members says where 0.01 % of them are


def test_equal_scores_have_an_interval():
    found = uncertainty.score_intervals([1.0, 1.0], [1.0], num_bootstrap=20)
    assert found["auc"] == (0.5, 0.5) and found["advantage"] == (0.0, 0.0)  # whatever is drawn, it is the same
    assert found["tpr_at_fpr_0.01"].low == 0.0
    assert set(membership.leakage_p_values([1.0, 1.0], [1.0]).values()) == {1.0}
    assert set(uncertainty.permutation_p_values([1.0, 1.0], [1.0], num_permutations=9).values()) == {1.0}


def test_a_fixed_threshold_has_the_interval_of_two_rates():
    decisions = calibration.Decisions(300, 500, 100, 400)
    found = uncertainty.score_intervals(*normal(5, 5), decisions=decisions, num_bootstrap=4000)
    deviation = np.sqrt(0.6 * 0.4 / 500 + 0.25 * 0.75 / 400)
    np.testing.assert_allclose(found["advantage"], [0.35 - 1.96 * deviation, 0.35 + 1.96 * deviation], atol=0.006)
    np.testing.assert_allclose(found["balanced_accuracy"], 0.5 + np.array(found["advantage"]) / 2)
    perfect = calibration.Decisions(20, 20, 0, 20)
    low, high = uncertainty.score_intervals(*normal(5, 5), decisions=perfect)["balanced_accuracy"]
    assert 0.85 < low < 0.96 and 0.99 < high < 1


def test_the_tpr_at_a_rate_is_between_the_exact_ends_of_its_thresholds():
    member, non_member = normal(3000, 2000)
    curve, fprs = thresholds.roc(member, non_member), (0.1, 0.01, 0.001)
    intervals = uncertainty.score_intervals(member, non_member, num_bootstrap=1000, fprs=fprs)
    for fpr in fprs:
        low, high = intervals[uncertainty.fpr_metric(fpr)]
        assert low < thresholds.tpr_at_fpr(curve, fpr).tpr < high
        # Bonferroni: the quantile of the non-members, then the rate of the members, half of the doubt each.
        above = stats.binom.ppf([0.0125, 0.9875], 2000, fpr).astype(int)
        cuts = [np.inf, *np.sort(non_member)[::-1]]
        hits = int(np.sum(member >= cuts[above[0]])), int(np.sum(member > cuts[above[1] + 1]))
        least, most = (clopper_pearson(k, 3000, confidence=0.975) for k in hits)
        assert least.low <= low < high < most.high


def test_wider_confidence_gives_wider_intervals_and_the_seed_repeats_them():
    member, non_member = normal(300, 200)
    by_confidence = [
        uncertainty.score_intervals(member, non_member, num_bootstrap=300, confidence=confidence, seed=1)
        for confidence in (0.5, 0.9, 0.99)
    ]
    for metric in METRICS:
        ends = [found[metric] for found in by_confidence]
        assert ends[2].low <= ends[1].low <= ends[0].low <= ends[0].high <= ends[1].high <= ends[2].high
    again = uncertainty.score_intervals(member, non_member, num_bootstrap=300, confidence=0.5, seed=1)
    assert again == by_confidence[0]
    assert uncertainty.score_intervals(member, non_member, num_bootstrap=300, confidence=0.5, seed=2) != again


# ---------------------------------------------------------------- p-values


def all_orders(member, non_member, metric):
    """The p-value by dealing out membership in every way there is."""
    everyone, num = np.concatenate([member, non_member]), len(member)

    def figure(chosen):
        rest = np.delete(everyone, chosen)
        if metric == "auc":
            return np.sum(everyone[list(chosen), None] > rest) + 0.5 * np.sum(everyone[list(chosen), None] == rest)
        if metric == "balanced_accuracy":
            return round(thresholds.best_threshold(everyone[list(chosen)], rest).balanced_accuracy, 12)
        return oracles.tpr_at_fpr(everyone[list(chosen)], rest, float(metric))

    figures = [figure(chosen) for chosen in itertools.combinations(range(len(everyone)), num)]
    return np.mean(np.array(figures) >= figures[0])


@pytest.mark.parametrize("scores", [([5, 4, 1, 2.5], [3, 2, 0]), ([5, 5, 1, 2], [3, 2, 0])])
@pytest.mark.parametrize("metric", ["auc", "balanced_accuracy", "0", "0.34"])
def test_p_values_are_those_of_all_orders(scores, metric):
    member, non_member = map(np.array, scores)
    expected = all_orders(member, non_member, metric)
    name = metric if metric.isidentifier() else uncertainty.fpr_metric(float(metric))
    fprs = (0.0, 0.34)
    drawn = uncertainty.permutation_p_values(member, non_member, num_permutations=4000, fprs=fprs)[name]
    assert drawn == pytest.approx(expected, abs=4 * np.sqrt(0.25 / 4000))
    found = membership.leakage_p_values(member, non_member, fprs=fprs)[name]
    tied = len(set(scores[0] + scores[1])) < 7
    if not tied:
        assert found == pytest.approx(expected, abs=1e-12)
    elif metric != "auc":  # SciPy's AUC of tied scores is asymptotic
        assert found >= expected - 1e-12


@pytest.mark.parametrize("decimals", [1, 9])
@pytest.mark.parametrize("sizes", [(300, 300), (400, 150)])
def test_permutations_agree_with_theory(decimals, sizes):
    member, non_member = normal(*sizes, shift=0.12, decimals=decimals, seed=5)
    options = {"fprs": (0.05, 0.01)}
    theory = membership.leakage_p_values(member, non_member, **options)
    drawn = uncertainty.permutation_p_values(member, non_member, num_permutations=2000, **options)
    assert list(theory) == list(drawn) == ["balanced_accuracy", "auc", "tpr_at_fpr_0.05", "tpr_at_fpr_0.01"]
    for metric, p_value in theory.items():
        if decimals == 9 or metric == "auc":
            assert drawn[metric] == pytest.approx(p_value, abs=0.035), metric
        else:
            assert drawn[metric] < p_value + 0.035, metric


def test_a_fixed_threshold_has_fishers_p_value():
    decisions = calibration.Decisions(30, 50, 10, 40)
    found = membership.leakage_p_values(*normal(5, 5), decisions=decisions)["balanced_accuracy"]
    assert found == pytest.approx(stats.fisher_exact([[30, 20], [10, 30]], alternative="greater").pvalue)


@pytest.mark.parametrize("fpr", [0.01, 0.001, 0.29, 1 / 3, 0.0, 1.0])
@pytest.mark.parametrize("num", [1, 3, 100, 999, 10_000])
def test_the_budget_of_false_positives_is_that_of_the_curve(fpr, num):
    non_member = np.arange(float(num))
    curve = thresholds.roc(non_member[:1] - 1, non_member)
    budget = uncertainty._budget(fpr, num)
    assert budget / num <= fpr and (budget == num or (budget + 1) / num > fpr)
    assert (thresholds.tpr_at_fpr(curve, fpr).attained_fpr is None) == (budget == 0)


# ---------------------------------------------------------------- records


def test_a_record_carries_intervals_and_p_values_as_strict_json():
    member, non_member = normal(300, 200)
    for name in ("in-sample", "held-out"):
        options = {"signal": "s", "queries": "natural", "calibration": name}
        bare = membership.audit_scores(member, non_member, **options)
        assert (bare.intervals, bare.p_values, bare.confidence) == (None, None, None)
        result = membership.audit_scores(member, non_member, **options, num_bootstrap=100, confidence=0.9)
        assert result.confidence == 0.9 and list(result.intervals) == METRICS
        assert list(result.p_values) == [metric for metric in METRICS if metric != "advantage"]
        for metric in ("balanced_accuracy", "advantage", "auc"):
            assert result.intervals[metric].low < getattr(result, metric) < result.intervals[metric].high
        figures = result.to_dict()
        assert json.loads(json.dumps(figures, allow_nan=False)) == figures
        assert figures["intervals"]["auc"] == result.intervals["auc"]._asdict()
        assert hash(result) == hash(bare) or result != bare  # mappings do not stop it from being hashed


def test_in_sample_thresholds_a_class_have_no_interval_of_their_balanced_accuracy():
    member, non_member = normal(60, 40)
    labels = {"member_labels": np.arange(60) % 2, "non_member_labels": np.arange(40) % 2}
    options = {"signal": "s", "queries": "natural", "num_bootstrap": 20, "per_class": True} | labels
    in_sample = membership.audit_scores(member, non_member, **options)
    assert list(in_sample.intervals) == METRICS[2:] and "balanced_accuracy" not in in_sample.p_values
    held_out = membership.audit_scores(member, non_member, **options, calibration="held-out")
    assert list(held_out.intervals) == METRICS


def test_bad_options_teach():
    scores = [1.0, 2.0], [0.0, 1.0]
    for call, options, message in [
        (membership.score_intervals, {"num_bootstrap": 0}, "`num_bootstrap` must be a whole number >= 1"),
        (membership.score_intervals, {"confidence": 95}, r"`confidence` must be in \[0, 1\)"),
        (membership.score_intervals, {"seed": -1}, "`seed` must be a whole number >= 0"),
        (membership.score_intervals, {"fprs": [1, 5]}, r"`fprs` must lie in \[0, 1\]. Received: fprs=5"),
        (membership.leakage_p_values, {"fprs": [-0.1]}, r"`fprs` must lie in \[0, 1\]"),
        (uncertainty.permutation_p_values, {"num_permutations": 1.5}, "`num_permutations` must be a whole number"),
    ]:
        with pytest.raises(ValueError, match=message):
            call(*scores, **options)
    for call in (membership.score_intervals, membership.leakage_p_values, uncertainty.permutation_p_values):
        with pytest.raises(ValueError, match="`member_scores`.*not NaN"):
            call([np.nan], [0.0])
    with pytest.raises(ValueError, match="`num_bootstrap` must be a whole number >= 0"):
        membership.audit_scores(*scores, signal="s", queries="natural", num_bootstrap=-1)
    with pytest.raises(ValueError, match="`confidence` must be in"):
        membership.audit_scores(*scores, signal="s", queries="natural", num_bootstrap=5, confidence=1.0)


def test_few_scores_against_many_are_tested_at_once():
    member, non_member = normal(8, 20_000)
    found = membership.leakage_p_values(member, non_member)["auc"]
    assert found == stats.mannwhitneyu(member, non_member, alternative="greater", method="asymptotic").pvalue
    few = membership.leakage_p_values(member, non_member[:200])["auc"]
    assert few == stats.mannwhitneyu(member, non_member[:200], alternative="greater", method="exact").pvalue
