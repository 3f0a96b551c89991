"""May the audit be believed? Where nothing leaks it must say so as often as it promises; where something does, find it.

Draws are seeded, and the bands are those of a binomial count: a right interval leaves them once in a thousand runs with
other seeds, one that is half as wide, or made of the percentiles of a tuned threshold, nearly always.
"""

import functools
import math

import numpy as np
import pytest
from scipy import stats

from pineat_tf import membership
from pineat_tf.membership import calibration, uncertainty

DRAWS = 200
NUM = 500  # members, and as many non-members
CHANCE = {"auc": 0.5, "balanced_accuracy": 0.5, "held_out": 0.5, "tpr_at_fpr_0.01": 0.01}


def band(chance, side):
    """The count of 200 that a binomial variable exceeds (or stays below) in one of two thousand."""
    return stats.binom.ppf(0.0005 if side == "low" else 0.9995, DRAWS, chance)


def continuous(rng):
    return rng.normal(size=(2, NUM))


def tied(rng):
    return rng.normal(size=(2, NUM)).round(1)  # some 60 distinct scores


KINDS = {"continuous": continuous, "tied": tied}


@functools.cache
def audited(kind):
    """Intervals and p-values of 200 audits of scores that tell nothing."""
    rng, found = np.random.default_rng(20), []
    for draw in range(DRAWS):
        pair = KINDS[kind](rng)
        intervals = uncertainty.score_intervals(*pair, num_bootstrap=200, seed=draw)
        p_values = uncertainty.leakage_p_values(*pair)
        held_out = calibration.calibrate(calibration.score_sets(*pair), calibration="held-out", seed=draw).decisions
        # As both give them for `decisions`, without the rest again.
        advantage = uncertainty._interval_of_decisions(held_out, 200, (0.025, 0.975), np.random.default_rng(draw))
        intervals["held_out"] = uncertainty.Interval(*(0.5 + 0.5 * end for end in advantage))
        p_values["held_out"] = uncertainty._fisher(*held_out)
        best = 0.5 + 0.5 * stats.ks_2samp(*pair, "less", method="asymp").statistic
        found.append((intervals, p_values, best))
    return found


def covered(kind, metric):
    chance = CHANCE[metric]
    if kind == "tied" and metric.startswith("tpr"):  # the largest rate of whole tenths that is at most 1 %
        chance = stats.norm.sf(math.ceil(10 * stats.norm.isf(0.01) - 0.5) / 10 + 0.05)
    return sum(intervals[metric].low <= chance <= intervals[metric].high for intervals, *_ in audited(kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", CHANCE)
def test_intervals_cover_chance_as_often_as_they_say(kind, metric):
    assert covered(kind, metric) >= band(0.95, "low")
    if metric in ("auc", "held_out"):  # the others promise "at least", and are asked for their width below
        assert covered(kind, metric) <= band(0.95, "high")


def test_intervals_are_no_wider_than_theory_asks():
    widths = {m: np.mean([i[m].high - i[m].low for i, *_ in audited("continuous")]) for m in CHANCE}
    # 1.96 standard errors to each side; of the AUC without leakage (n + m + 1) / (12 n m).
    assert widths["auc"] == pytest.approx(3.92 * math.sqrt(2 / (12 * NUM)), rel=0.1)
    widest = 3.92 * 0.5 * math.sqrt(2 * 0.25 / (NUM / 2))  # where the threshold accepts half; it often accepts less
    assert 0.7 * widest < widths["held_out"] < widest
    at_one_percent = 3.92 * math.sqrt(2 * 0.01 * 0.99 / NUM)
    assert at_one_percent < widths["tpr_at_fpr_0.01"] < 1.25 * at_one_percent
    # From 0.5 to 1.36 / sqrt(N) above the figure, which is 0.63 / sqrt(N) on average; halved, as accuracies are.
    assert widths["balanced_accuracy"] < (1.36 + 0.63) / math.sqrt(NUM / 2) / 2 * 1.1


def test_percentiles_of_a_tuned_threshold_would_fail_these_tests():
    # What the simultaneous band is for: the threshold tuned anew in each resample never gives 0.5 or less.
    rng, hits, draws = np.random.default_rng(30), 0, 40
    for _ in range(draws):
        member, non_member = rng.normal(size=(2, 200))
        tuned = [
            stats.ks_2samp(rng.choice(member, 200), rng.choice(non_member, 200), "less", method="asymp").statistic
            for _ in range(30)
        ]
        hits += np.quantile(tuned, 0.025) <= 0.0
    assert hits < stats.binom.ppf(0.0005, draws, 0.95) / 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", [*CHANCE, "tpr_at_fpr_0.001", "tpr_at_fpr_0.0001"])
def test_false_alarms_are_as_rare_as_the_p_value_says(kind, metric):
    p_values = np.array([p_values[metric] for _, p_values, _ in audited(kind)])
    for level in (0.01, 0.05, 0.2, 0.5):
        assert np.sum(p_values <= level) <= band(level, "high")
    if metric == "auc" or (metric in ("balanced_accuracy", "held_out") and kind != "tied"):
        assert np.sum(p_values <= 0.5) >= band(0.5, "low")  # and not rarer


@pytest.mark.parametrize("kind", KINDS)
def test_false_alarms_of_permutations_are_rare(kind):
    rng = np.random.default_rng(40)
    found = [
        uncertainty.permutation_p_values(*KINDS[kind](rng)[:, :150], num_permutations=99, seed=i) for i in range(DRAWS)
    ]
    for metric in found[0]:
        p_values = np.array([p_values[metric] for p_values in found])
        for level in (0.05, 0.2):
            assert np.sum(p_values <= level) <= band(level, "high")


def test_the_noise_floor_is_where_tuned_thresholds_are():
    best = np.array([best for *_, best in audited("continuous")])
    floor = membership.noise_floor(NUM, NUM)
    assert np.mean(best) == pytest.approx(floor.mean, abs=0.002)
    assert np.sum(best > floor.upper_95) <= band(0.05, "high")


# ---------------------------------------------------------------- planted leaks


SHIFT = 0.3
PLANTED = 40


@functools.cache
def planted():
    """Audits of 40 draws of two normal distributions that are 0.3 standard deviations apart."""
    rng = np.random.default_rng(50)
    pairs = [(rng.normal(SHIFT, 1, NUM), rng.normal(size=NUM)) for _ in range(PLANTED)]
    options = {"signal": "normal", "queries": "natural", "num_bootstrap": 200}
    return [
        {
            name: membership.audit_scores(*pair, **options, calibration=name, seed=i)
            for name in ("in-sample", "held-out")
        }
        for i, pair in enumerate(pairs)
    ]


def test_a_planted_leak_is_measured_as_large_as_it_is():
    truth = {
        "auc": stats.norm.cdf(SHIFT / math.sqrt(2)),
        "balanced_accuracy": stats.norm.cdf(SHIFT / 2),  # by the threshold half-way
        "advantage": 2 * stats.norm.cdf(SHIFT / 2) - 1,
        "tpr_at_fpr_0.01": stats.norm.sf(stats.norm.isf(0.01) - SHIFT),
        "tpr_at_fpr_0.001": stats.norm.sf(stats.norm.isf(0.001) - SHIFT),
    }
    for metric, true in truth.items():
        intervals = [audit["in-sample"].intervals[metric] for audit in planted()]
        assert sum(low <= true <= high for low, high in intervals) >= stats.binom.ppf(0.0005, PLANTED, 0.95), metric
    assert np.mean([audit["in-sample"].auc for audit in planted()]) == pytest.approx(truth["auc"], abs=0.012)
    held_out = [audit["held-out"] for audit in planted()]
    # Each threshold has its own true accuracy: 1/2 + (P(member >= t) - P(non-member >= t)) / 2.
    true = [0.5 + 0.5 * (stats.norm.sf(r.threshold - SHIFT) - stats.norm.sf(r.threshold)) for r in held_out]
    inside = sum(r.intervals["balanced_accuracy"].low <= t <= r.intervals["balanced_accuracy"].high
                 for r, t in zip(held_out, true))  # fmt: skip
    assert inside >= stats.binom.ppf(0.0005, PLANTED, 0.95)
    assert np.mean([r.balanced_accuracy for r in held_out]) == pytest.approx(np.mean(true), abs=0.015)


def power_of_auc(num, level):
    """The chance to find the shift: two normal scores, the AUC's standard error without leakage."""
    deviation = math.sqrt((2 * num + 1) / (12 * num**2))
    return stats.norm.cdf((stats.norm.cdf(SHIFT / math.sqrt(2)) - 0.5) / deviation - stats.norm.isf(level))


@pytest.mark.parametrize("num", [50, 120])
def test_a_leak_is_found_as_often_as_theory_says(num):
    rng, found = np.random.default_rng(60), 0
    for _ in range(DRAWS):
        member, non_member = rng.normal(SHIFT, 1, num), rng.normal(size=num)
        found += membership.leakage_p_values(member, non_member, fprs=())["auc"] <= 0.05
    power = power_of_auc(num, 0.05)
    assert 0.3 < power < 0.9
    assert band(power, "low") - 6 <= found <= band(power, "high") + 6  # 6: the alternative's own standard error


def test_a_leak_of_few_examples_shows_at_low_false_positive_rates_only():
    # One member in a hundred is known for sure, the rest like non-members: AUC 0.505, TPR at 1 % FPR 0.02.
    rng = np.random.default_rng(71)
    member, non_member = rng.normal(size=4000), rng.normal(size=4000)
    member[:40] += 8
    result = membership.audit_scores(member, non_member, signal="s", queries="natural", num_bootstrap=200)
    assert result.p_values["tpr_at_fpr_0.01"] < 0.01 and result.p_values["tpr_at_fpr_0.001"] < 1e-6
    assert result.intervals["tpr_at_fpr_0.01"].low > 0.01 and result.intervals["tpr_at_fpr_0.001"].low > 0.001
    assert result.p_values["auc"] > 0.01 and result.intervals["balanced_accuracy"].low < 0.51
