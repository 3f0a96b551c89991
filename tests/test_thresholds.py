"""Thresholds, curves and rates against O(n^2) NumPy twins, scikit-learn and published figures."""

import dataclasses
import math

import hypothesis
import numpy as np
import oracles
import pytest
from hypothesis import strategies as st
from sklearn import metrics

from pineat_tf.membership import audit, thresholds

# Few distinct values make many ties; -inf is what a probability of 0 becomes.
tied = st.sampled_from([-math.inf, -2.0, -0.5, 0.0, 0.25, 1.0, 3.0])
spread = st.floats(-1e6, 1e6)
score_sets = st.one_of(*(st.tuples(*2 * [st.lists(value, min_size=1, max_size=12)]) for value in (tied, spread)))
rates = st.sampled_from([0.0, 0.01, 0.1, 0.2, 0.25, 1 / 3, 0.5, 0.9, 1.0])


@hypothesis.settings(max_examples=80, deadline=None)
@hypothesis.given(score_sets, rates)
def test_figures_are_those_of_the_exhaustive_search(pair, fpr):
    member, non_member = map(np.array, pair)
    everyone = np.concatenate([member, non_member])
    best = thresholds.best_threshold(member, non_member)
    assert best.balanced_accuracy == pytest.approx(oracles.best_threshold_accuracy(member, non_member), abs=1e-15)
    at_threshold = 0.5 * (np.mean(member >= best.threshold) + 1 - np.mean(non_member >= best.threshold))
    assert best.balanced_accuracy == pytest.approx(at_threshold, abs=1e-15) and best.balanced_accuracy >= 0.5
    assert best.threshold == math.inf or best.threshold in everyone
    curve = thresholds.roc(member, non_member)
    assert thresholds.auc(curve) == pytest.approx(oracles.auc(member, non_member), abs=1e-14)
    cuts = [math.inf, *np.unique(everyone)[::-1]]
    expected = [np.mean(non_member >= cut) for cut in cuts], [np.mean(member >= cut) for cut in cuts], cuts
    for found, column in zip(curve, expected, strict=True):
        np.testing.assert_array_equal(found, column)
    found = thresholds.tpr_at_fpr(curve, fpr)
    assert found.fpr == fpr
    assert found.smallest_attainable_fpr == max(1 / len(non_member), np.mean(non_member >= everyone.max()))
    if found.smallest_attainable_fpr > fpr:
        assert found.tpr is None and found.attained_fpr is None
    else:
        assert found.tpr == pytest.approx(oracles.tpr_at_fpr(member, non_member, fpr))
        matching = [c for c in everyone if np.mean(member >= c) == found.tpr]
        assert found.attained_fpr == min(np.mean(non_member >= c) for c in matching) <= fpr
    _, counts = np.unique(everyone, return_counts=True)
    assert thresholds.tie_share(*pair) == counts[counts > 1].sum() / len(everyone)


@pytest.mark.parametrize("decimals", [1, 2, 12])
def test_the_curve_is_that_of_scikit_learn_under_any_monotone_transform(decimals):
    rng = np.random.default_rng(decimals)
    member, non_member = rng.normal(0.3, 1, 700).round(decimals), rng.normal(0, 1, 300).round(decimals)
    truth, everyone = np.repeat([1, 0], [700, 300]), np.concatenate([member, non_member])
    fpr, tpr, cuts = metrics.roc_curve(truth, everyone, drop_intermediate=False)
    for transform in (lambda x: x, np.exp, lambda x: x**3 - 3):
        curve = thresholds.roc(transform(member), transform(non_member))
        np.testing.assert_allclose(curve.fpr, fpr, atol=1e-15)
        np.testing.assert_allclose(curve.tpr, tpr, atol=1e-15)
        np.testing.assert_array_equal(curve.thresholds, transform(cuts))
    area = thresholds.auc(curve)
    assert area == pytest.approx(metrics.roc_auc_score(truth, everyone), abs=1e-12)
    for mirrored in ((non_member, member), (-member, -non_member)):
        assert thresholds.auc(thresholds.roc(*mirrored)) == pytest.approx(1 - area)


def test_auc_of_tensorflow_privacy():
    # membership_inference_attack_test.py: 29 of 36 pairs ranked right and two ties (1.3, .4).
    member, non_member = [0.1, 0.2, 1.3, 0.4, 0.5, 0.6], [1.1, 1.2, 1.3, 0.4, 1.5, 1.6]
    assert thresholds.auc(thresholds.roc(-np.array(member), -np.array(non_member))) == pytest.approx(30 / 36)


@pytest.mark.parametrize("fpr, tpr, attained, threshold", [(0.5, 1.0, 0.5, 0.32), (0.0, None, None, None)])
def test_tpr_at_fpr_of_art(fpr, tpr, attained, threshold):
    # goldens.md C: ART, test_worst_case_mia_score.py. ART gives .75 for a rate of 0, which two non-members do not show.
    is_member, probs = np.array([1, 0, 1, 1, 1, 0]), np.array([0.35, 0.33, 0.32, 0.6, 0.6, 0.2])
    curve = thresholds.roc(probs[is_member == 1], probs[is_member == 0])
    found = thresholds.tpr_at_fpr(curve, fpr)
    assert found == (fpr, tpr, attained, 0.5)
    if threshold:
        assert threshold == curve.thresholds[curve.tpr == found.tpr].max()
    assert thresholds.tpr_at_fpr(dataclasses.replace(curve, num_non_members=None), 0.0).tpr == 0.75  # known exactly


EQUALLY_GOOD = [
    ([3, 1], [2, 0], (3.0, 0.75)),  # accepting {3} and accepting {3, 2, 1} both give TPR - FPR = 1/2
    ([1, 1], [1, 1], (math.inf, 0.5)),  # nothing beats accepting none, not even accepting all
    ([0.0], [1.0], (math.inf, 0.5)),
    ([-np.inf, 0.0], [-np.inf, -np.inf], (0.0, 0.75)),  # minus infinity is a score like any other
    *((np.arange(num), np.arange(num), (math.inf, 0.5)) for num in (3, 7, 10, 49)),  # k/n + 1 - k/n may miss 1
]


@pytest.mark.parametrize("member, non_member, expected", EQUALLY_GOOD)
def test_the_largest_of_equally_good_thresholds_wins(member, non_member, expected):
    assert thresholds.best_threshold(member, non_member) == expected


def test_both_zeros_are_one_score():
    assert len(thresholds.roc([0.0, -0.0], [-0.0]).fpr) == 2
    assert thresholds.tie_share([0.0], [-0.0]) == 1.0
    for member in (0.0, -0.0):
        assert not np.signbit(thresholds.roc([member], [-member]).thresholds).any()


def test_no_tpr_is_reported_where_ties_forbid_the_rate():
    curve = thresholds.roc([1, 1, 0], [1, 1, 0])
    assert thresholds.tpr_at_fpr(curve, 0.5) == (0.5, None, None, pytest.approx(2 / 3))
    assert thresholds.tpr_at_fpr(curve, 0.7).tpr == pytest.approx(2 / 3)
    # A TPR of 0 is a figure, not a gap, where a threshold accepts non-members only.
    assert thresholds.tpr_at_fpr(thresholds.roc([0.0], [1.0, 0.5, -1.0]), 0.4).tpr == 0.0


@pytest.mark.parametrize("num", [1, 20, 99, 100, 999, 10_000])
def test_a_rate_finer_than_the_non_members_has_no_tpr(num):
    for members in (np.full(3, num + 1.0), np.arange(2.0), [0.5]):  # above, among and below the non-members
        curve = thresholds.roc(members, np.arange(num))
        for fpr in (0.0, 0.0001, 0.001, 0.01, 0.05, 1.0):
            found = thresholds.tpr_at_fpr(curve, fpr)
            assert (found.tpr is None) == (found.attained_fpr is None) == (fpr * num < 1)
            assert found.smallest_attainable_fpr == 1 / num


def test_where_nothing_leaks_the_tpr_is_about_the_rate_or_not_there():
    rng = np.random.default_rng(0)
    curves = [thresholds.roc(rng.normal(size=300), rng.normal(size=200)) for _ in range(200)]
    found = [[thresholds.tpr_at_fpr(curve, fpr).tpr for curve in curves] for fpr in (0.05, 0.01, 0.001)]
    # The threshold above the (k + 1)-th highest of n non-members accepts (k + 1) / (n + 1) of anybody, on average.
    np.testing.assert_allclose(np.mean(found[:2], axis=1), [11 / 201, 3 / 201], atol=0.005)
    assert set(found[2]) == {None}  # in every draw, so that no mean is over the lucky ones


@pytest.mark.parametrize("fpr, num", [(1 - 0.9, 10), (0.3 - 0.2, 20), (1 - 0.99, 100), (0.7 / 7, 30), (0.001, 10_000)])
def test_a_calculated_rate_is_the_one_that_was_meant(fpr, num):
    accepted = round(fpr * num)
    found = thresholds.tpr_at_fpr(thresholds.roc(np.arange(num) + 0.5, np.arange(num)), fpr)
    assert found.attained_fpr == accepted / num and found.tpr == pytest.approx((accepted + 1) / num)


def test_a_million_scores_finish():
    rng = np.random.default_rng(0)
    member, non_member = rng.normal(0.5, 1, 500_000), rng.normal(0, 1, 500_000)
    result = audit.audit_scores(member, non_member, signal="normal", queries="natural")
    # Two unit normals half a unit apart: AUC = Phi(.5/sqrt 2), accuracy = Phi(.25).
    assert result.auc == pytest.approx(0.63816, abs=2e-3)
    assert result.balanced_accuracy == pytest.approx(0.59871, abs=2e-3)
    assert result.threshold == pytest.approx(0.25, abs=0.1)


BAD_SCORES = [
    ([], "at least one score"),
    (0.5, "at least one score"),
    ([[0.5]], "at least one score"),
    ([0.5, np.nan], "not NaN"),
    ([0.5, np.inf], r"below \+inf"),
    (["a"], "real numbers"),
    ([True], "real numbers"),
    ([1j], "real numbers"),
]


@pytest.mark.parametrize("bad, message", BAD_SCORES)
def test_bad_scores_are_refused_by_name(bad, message):
    for measure in (thresholds.best_threshold, thresholds.roc, thresholds.tie_share):
        with pytest.raises(ValueError, match=f"`member_scores`.*{message}"):
            measure(bad, [0.0])
        with pytest.raises(ValueError, match=f"`non_member_scores`.*{message}"):
            measure([0.0], bad)


@pytest.mark.parametrize("rate", [-0.01, 1.01, math.nan, math.inf])
def test_a_rate_must_be_a_share(rate):
    with pytest.raises(ValueError, match="`fpr` must lie in"):
        thresholds.tpr_at_fpr(thresholds.roc([1], [0]), rate)
    with pytest.raises(ValueError, match="`train_accuracy`"):
        thresholds.gap_attack(rate, 0.5)
    with pytest.raises(ValueError, match="`test_accuracy`"):
        thresholds.gap_attack(0.5, rate)


def test_gap_attack():
    assert (thresholds.gap_attack(1.0, 0.5), thresholds.gap_attack(0.5, 1.0)) == (0.75, 0.25)


# ---------------------------------------------------------------- noise floor


def test_noise_floor_of_the_usual_split():
    # N = 60000 * 10000 / 70000; mean (1 + sqrt(pi / 8 N)) / 2, 95 % (1 + sqrt(ln 20 / 2 N)) / 2.
    floor = thresholds.noise_floor(60_000, 10_000)
    assert round(floor.mean, 4) == 0.5034 and round(floor.upper_95, 4) == 0.5066
    assert thresholds.noise_floor(np.int32(10_000), np.int32(60_000)) == floor
    floor = thresholds.noise_floor(1, 1)
    assert 0.5 < floor.mean < floor.upper_95 == 1.0


@pytest.mark.parametrize("num_members, num_non_members", [(2000, 2000), (3000, 500)])
def test_noise_floor_is_what_tuning_on_noise_finds(num_members, num_non_members):
    rng = np.random.default_rng(7)
    found = [
        thresholds.best_threshold(rng.normal(size=num_members), rng.normal(size=num_non_members)).balanced_accuracy
        for _ in range(150)
    ]
    floor = thresholds.noise_floor(num_members, num_non_members)
    # Standard error of the mean: .0007 or less; of 150 draws 7.5 +- 2.7 exceed a 95 % quantile.
    assert np.mean(found) == pytest.approx(floor.mean, abs=0.002)
    assert 1 <= np.sum(np.array(found) > floor.upper_95) <= 16


def test_the_floor_of_the_larger_of_two_audits_is_what_two_audits_of_noise_find():
    rng, found = np.random.default_rng(4), []
    for _ in range(400):
        draws = rng.normal(size=(2, 2, 300))
        found.append(max(thresholds.best_threshold(*pair).balanced_accuracy for pair in draws))
    floor = thresholds.noise_floor(300, 300, audits=2)
    assert np.mean(found) == pytest.approx(floor.mean, abs=0.002)
    assert np.mean(np.array(found) > floor.upper_95) == pytest.approx(0.05, abs=0.03)
    assert floor.mean > thresholds.noise_floor(300, 300).mean + 0.005
    with pytest.raises(ValueError, match="`audits` must be a whole number >= 1"):
        thresholds.noise_floor(300, 300, audits=0)


@pytest.mark.parametrize("count", [0, -1, 1.5, math.nan, math.inf])
def test_noise_floor_wants_whole_numbers(count):
    with pytest.raises(ValueError, match="`num_members` must be a whole number"):
        thresholds.noise_floor(count, 10)
    with pytest.raises(ValueError, match="`num_non_members` must be a whole number"):
        thresholds.noise_floor(np.int64(10), count)


@pytest.mark.parametrize("fnr, expected", [(0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (1.0, 1.0)])
def test_tnr_clears_no_more_members_than_told(fnr, expected):
    # members .9 .7 .5 .3, non-members .8 .6 .4 .2: clearing below a threshold takes them in turn
    curve = thresholds.roc([0.9, 0.7, 0.5, 0.3], [0.8, 0.6, 0.4, 0.2])
    assert thresholds.tnr_at_fnr(curve, fnr) == pytest.approx(expected)


@pytest.mark.parametrize("rate", [thresholds.tpr_at_fpr, thresholds.tnr_at_fnr])
def test_scores_in_the_place_of_a_curve_are_told(rate):
    with pytest.raises(ValueError, match=r"`curve` must be one of `roc`. Received: tuple. Give `roc\("):
        rate(([1.0], [0.0]), 0.1)
