"""Thresholds and audits of membership scores against published figures and O(n^2) NumPy twins."""

import dataclasses
import json
import math
from types import SimpleNamespace

import hypothesis
import numpy as np
import oracles
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics

from pineat_tf import membership
from pineat_tf.membership import audit, calibration, results, thresholds

settings = hypothesis.settings(max_examples=40, deadline=None)

# Few distinct values make many ties; -inf is what a probability of 0 becomes.
tied = st.sampled_from([-math.inf, -2.0, -0.5, 0.0, 0.25, 1.0, 3.0])
# Subnormals are left out: TensorFlow flushes them to 0.
spread = st.floats(-1e6, 1e6, allow_subnormal=False)
score_sets = st.one_of(*(st.tuples(*2 * [st.lists(value, min_size=1, max_size=12)]) for value in (tied, spread)))


def random_logits(seed, num=40, num_classes=5, scale=3.0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, num_classes, num), rng.normal(0, scale, (num, num_classes))


# ---------------------------------------------------------------- published figures


def test_auc_of_tensorflow_privacy():
    # membership_inference_attack_test.py: 29 of 36 pairs ranked right and two ties (1.3, .4).
    member, non_member = [0.1, 0.2, 1.3, 0.4, 0.5, 0.6], [1.1, 1.2, 1.3, 0.4, 1.5, 1.6]
    curve = thresholds.roc(-np.array(member), -np.array(non_member))
    assert thresholds.auc(curve) == pytest.approx(30 / 36)
    assert round(thresholds.auc(curve), 2) == 0.83


@pytest.mark.parametrize("fpr, tpr, attained, threshold", [(0.5, 1.0, 0.5, 0.32), (0.0, None, None, None)])
def test_tpr_at_fpr_of_art(fpr, tpr, attained, threshold):
    # goldens.md C: ART, test_worst_case_mia_score.py. ART gives .75 for a rate of 0, which two non-members do not show.
    is_member, probs = np.array([1, 0, 1, 1, 1, 0]), np.array([0.35, 0.33, 0.32, 0.6, 0.6, 0.2])
    curve = thresholds.roc(probs[is_member == 1], probs[is_member == 0])
    found = thresholds.tpr_at_fpr(curve, fpr)
    assert found == (fpr, tpr, attained, 0.5)
    if threshold:
        assert threshold == curve.thresholds.numpy()[curve.tpr.numpy() == found.tpr].max()
    assert thresholds.tpr_at_fpr(dataclasses.replace(curve, num_non_members=None), 0.0).tpr == 0.75  # known exactly


# ---------------------------------------------------------------- thresholds


@settings
@hypothesis.given(score_sets)
def test_best_threshold_is_that_of_the_exhaustive_search(pair):
    member, non_member = map(np.array, pair)
    best = thresholds.best_threshold(member, non_member)
    expected = oracles.best_threshold_accuracy(member, non_member)
    assert best.balanced_accuracy == pytest.approx(expected, abs=1e-15, rel=1e-15)
    assert best.balanced_accuracy >= 0.5
    at_threshold = 0.5 * (np.mean(member >= best.threshold) + 1 - np.mean(non_member >= best.threshold))
    assert at_threshold == pytest.approx(best.balanced_accuracy, abs=1e-15)
    assert best.threshold == math.inf or best.threshold in np.concatenate([member, non_member])


@settings
@hypothesis.given(score_sets)
def test_auc_and_roc_are_those_of_the_exhaustive_search(pair):
    member, non_member = map(np.array, pair)
    curve = thresholds.roc(member, non_member)
    assert thresholds.auc(curve) == pytest.approx(oracles.auc(member, non_member), abs=1e-14)
    fpr, tpr, cuts = (column.numpy() for column in curve)
    assert (fpr[0], tpr[0], cuts[0]) == (0, 0, np.inf)
    assert (fpr[-1], tpr[-1]) == (1, 1)
    np.testing.assert_array_equal(cuts[1:], np.unique(np.concatenate([member, non_member]))[::-1])
    np.testing.assert_array_equal(fpr, [np.mean(non_member >= cut) for cut in cuts])
    np.testing.assert_array_equal(tpr, [np.mean(member >= cut) for cut in cuts])


@settings
@hypothesis.given(score_sets, st.sampled_from([0.0, 0.01, 0.1, 0.2, 0.25, 1 / 3, 0.5, 0.9, 1.0]))
def test_tpr_at_fpr_is_that_of_the_exhaustive_search(pair, fpr):
    member, non_member = map(np.array, pair)
    found = thresholds.tpr_at_fpr(thresholds.roc(member, non_member), fpr)
    top = max(member.max(), non_member.max())
    assert found.fpr == fpr
    assert found.smallest_attainable_fpr == max(1 / len(non_member), np.mean(non_member >= top))
    if found.smallest_attainable_fpr > fpr:
        assert found.tpr is None and found.attained_fpr is None
    else:
        assert found.tpr == pytest.approx(oracles.tpr_at_fpr(member, non_member, fpr))
        assert found.attained_fpr <= fpr
        matching = [c for c in [*member, *non_member] if np.mean(member >= c) == found.tpr]
        assert found.attained_fpr == min(np.mean(non_member >= c) for c in matching)


@settings
@hypothesis.given(score_sets)
def test_tie_share_counts_scores_that_are_not_unique(pair):
    everyone = np.concatenate(pair)
    values, counts = np.unique(everyone, return_counts=True)
    expected = counts[counts > 1].sum() / len(everyone)
    assert thresholds.tie_share(*pair) == expected


@settings
@hypothesis.given(*2 * [hnp.arrays(np.float64, st.integers(1, 20), elements=st.integers(-4, 4).map(float))])
def test_a_monotone_transform_changes_nothing_but_the_threshold(member, non_member):
    def measured(transform):
        curve = thresholds.roc(transform(member), transform(non_member))
        best = thresholds.best_threshold(transform(member), transform(non_member))
        rates = thresholds.tpr_at_fpr(curve, 0.1)
        return (curve.fpr.numpy().tolist(), curve.tpr.numpy().tolist(), rates), best

    plain, best = measured(lambda x: x)
    for transform in (np.exp, lambda x: x**3 - 3):
        same, moved = measured(transform)
        assert same == plain
        assert moved.balanced_accuracy == best.balanced_accuracy
        assert moved.threshold == transform(np.float64(best.threshold))


@settings
@hypothesis.given(score_sets)
def test_swapping_the_sets_or_the_sign_mirrors_the_auc(pair):
    member, non_member = map(np.array, pair)
    hypothesis.assume(np.isfinite(member).all() and np.isfinite(non_member).all())
    area = thresholds.auc(thresholds.roc(member, non_member))
    assert thresholds.auc(thresholds.roc(non_member, member)) == pytest.approx(1 - area)
    assert thresholds.auc(thresholds.roc(-member, -non_member)) == pytest.approx(1 - area)
    swapped_and_negated = thresholds.best_threshold(-non_member, -member)
    best = thresholds.best_threshold(member, non_member)
    assert swapped_and_negated.balanced_accuracy == pytest.approx(best.balanced_accuracy)


@pytest.mark.parametrize("decimals", [1, 2, 12])
def test_auc_is_that_of_scikit_learn(decimals):
    rng = np.random.default_rng(decimals)
    member = rng.normal(0.3, 1, 700).round(decimals)
    non_member = rng.normal(0, 1, 300).round(decimals)
    truth = np.repeat([1, 0], [700, 300])
    everyone = np.concatenate([member, non_member])
    curve = thresholds.roc(member, non_member)
    assert thresholds.auc(curve) == pytest.approx(metrics.roc_auc_score(truth, everyone), abs=1e-12)
    fpr, tpr, cuts = metrics.roc_curve(truth, everyone, drop_intermediate=False)
    np.testing.assert_allclose(curve.fpr, fpr, atol=1e-15)
    np.testing.assert_allclose(curve.tpr, tpr, atol=1e-15)
    np.testing.assert_array_equal(curve.thresholds, cuts)


def test_the_largest_of_equally_good_thresholds_wins():
    # Accepting {3} and accepting {3, 2, 1} both give TPR - FPR = 1/2: 1/2 - 0 and 1 - 1/2.
    assert thresholds.best_threshold([3, 1], [2, 0]) == (3.0, 0.75)
    # Nothing beats accepting none, not even accepting all.
    assert thresholds.best_threshold([1, 1], [1, 1]) == (math.inf, 0.5)
    assert thresholds.best_threshold([0.0], [1.0]) == (math.inf, 0.5)


@pytest.mark.parametrize("num", [3, 7, 10, 49])
def test_rounding_does_not_decide_between_thresholds(num):
    # TPR = FPR at every threshold, yet k/n + 1 - k/n is not always 1 in floating point.
    equal = np.arange(num, dtype=float)
    assert thresholds.best_threshold(equal, equal) == (math.inf, 0.5)


def test_minus_infinity_is_a_score_like_any_other():
    member, non_member = [-np.inf, 0.0], [-np.inf, -np.inf]
    assert thresholds.best_threshold(member, non_member) == (0.0, 0.75)
    assert thresholds.auc(thresholds.roc(member, non_member)) == 0.75
    assert thresholds.roc(member, non_member).thresholds.numpy().tolist() == [np.inf, 0, -np.inf]


def test_both_zeros_are_one_score():
    assert len(thresholds.roc([0.0, -0.0], [-0.0]).fpr) == 2
    assert thresholds.tie_share([0.0], [-0.0]) == 1.0


def test_no_tpr_is_reported_where_ties_forbid_the_rate():
    curve = thresholds.roc([1, 1, 0], [1, 1, 0])
    assert thresholds.tpr_at_fpr(curve, 0.5) == (0.5, None, None, pytest.approx(2 / 3))
    assert thresholds.tpr_at_fpr(curve, 0.7).tpr == pytest.approx(2 / 3)
    assert thresholds.tpr_at_fpr(curve, 1).tpr == 1.0
    # A TPR of 0 is a figure, not a gap, where a threshold accepts non-members only.
    assert thresholds.tpr_at_fpr(thresholds.roc([0.0], [1.0, 0.5, -1.0]), 0.4).tpr == 0.0


@pytest.mark.parametrize("num", [1, 20, 99, 100, 101, 999, 10_000])
@pytest.mark.parametrize("fpr", [0.0, 0.0001, 0.001, 0.01, 0.05, 1.0])
def test_a_rate_finer_than_the_non_members_has_no_tpr(num, fpr):
    for members in (np.full(3, num + 1.0), np.arange(2.0), [0.5]):  # above, among and below the non-members
        found = thresholds.tpr_at_fpr(thresholds.roc(members, np.arange(num)), fpr)
        assert (found.tpr is None) == (found.attained_fpr is None) == (fpr * num < 1)
        assert found.smallest_attainable_fpr == 1 / num


def test_where_nothing_leaks_the_tpr_is_about_the_rate_or_not_there():
    rng = np.random.default_rng(0)
    curves = [thresholds.roc(rng.normal(size=300), rng.normal(size=200)) for _ in range(200)]
    found = [[thresholds.tpr_at_fpr(curve, fpr).tpr for curve in curves] for fpr in (0.05, 0.01, 0.001)]
    # The threshold above the (k + 1)-th highest of n non-members accepts (k + 1) / (n + 1) of anybody, on average.
    np.testing.assert_allclose(np.mean(found[:2], axis=1), [11 / 201, 3 / 201], atol=0.005)
    assert set(found[2]) == {None}  # in every draw, so that no mean is over the lucky ones


@pytest.mark.parametrize("fpr, num", [(1 - 0.9, 10), (0.3 - 0.2, 20), (1 - 0.99, 100), (0.7 / 7, 30)])
def test_a_calculated_rate_is_the_one_that_was_meant(fpr, num):
    accepted = round(fpr * num)
    found = thresholds.tpr_at_fpr(thresholds.roc(np.arange(num) + 0.5, np.arange(num)), fpr)
    assert found.attained_fpr == accepted / num and found.tpr == pytest.approx((accepted + 1) / num)


def test_whole_rates_are_met_exactly():
    # 10 of 10,000 is 0.001, not a rounding error above it.
    non_member = np.arange(10_000.0)
    found = thresholds.tpr_at_fpr(thresholds.roc([9990.0, 9989.0], non_member), 0.001)
    assert found == (0.001, 0.5, 0.001, 0.0001)


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
@pytest.mark.parametrize("measure", [thresholds.best_threshold, thresholds.roc, thresholds.tie_share])
def test_bad_scores_are_refused_by_name(measure, bad, message):
    with pytest.raises(ValueError, match=f"`member_scores`.*{message}"):
        measure(bad, [0.0])
    with pytest.raises(ValueError, match=f"`non_member_scores`.*{message}"):
        measure([0.0], bad)


@pytest.mark.parametrize("fpr", [-0.01, 1.01, math.nan, math.inf])
def test_a_false_positive_rate_must_be_a_share(fpr):
    with pytest.raises(ValueError, match="`fpr` must lie in"):
        thresholds.tpr_at_fpr(thresholds.roc([1], [0]), fpr)


def test_gap_attack():
    assert thresholds.gap_attack(1.0, 0.5) == 0.75
    assert thresholds.gap_attack(0.5, 1.0) == 0.25
    for bad in (-0.1, 1.1, math.nan, 93.5):
        with pytest.raises(ValueError, match="`train_accuracy`"):
            thresholds.gap_attack(bad, 0.5)
        with pytest.raises(ValueError, match="`test_accuracy`"):
            thresholds.gap_attack(0.5, bad)


# ---------------------------------------------------------------- noise floor


def test_noise_floor_of_the_usual_split():
    # N = 60000 * 10000 / 70000; mean (1 + sqrt(pi / 8 N)) / 2, 95 % (1 + sqrt(ln 20 / 2 N)) / 2.
    floor = thresholds.noise_floor(60_000, 10_000)
    assert round(floor.mean, 4) == 0.5034 and round(floor.upper_95, 4) == 0.5066
    assert thresholds.noise_floor(10_000, 60_000) == floor


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


def test_noise_floor_never_exceeds_one():
    floor = thresholds.noise_floor(1, 1)
    assert 0.5 < floor.mean < floor.upper_95 == 1.0


@pytest.mark.parametrize("count", [0, -1, 1.5, math.nan, math.inf])
def test_noise_floor_wants_whole_numbers(count):
    with pytest.raises(ValueError, match="`num_members` must be a whole number"):
        thresholds.noise_floor(count, 10)
    with pytest.raises(ValueError, match="`num_non_members` must be a whole number"):
        thresholds.noise_floor(np.int64(10), count)


# ---------------------------------------------------------------- records and audits


def test_audit_scores_gathers_every_figure():
    member, non_member = [3.0, 2.0, 2.0, 0.0], [2.0, 1.0]
    result = audit.audit_scores(member, non_member, signal="margin", queries="adversarial")
    curve = thresholds.roc(member, non_member)
    assert result == results.MembershipResult(
        signal="margin",
        queries="adversarial",
        calibration="in-sample",
        num_members=4,
        num_non_members=2,
        balanced_accuracy=0.625,  # {3} gives 1/4 - 0, {3, 2, 2, 2} gives 3/4 - 1/2
        threshold=3.0,
        auc=0.625,  # of 8 pairs: 2 + 1 + 1 + 0 wins and two ties = 5
        tpr_at_fpr=tuple(thresholds.tpr_at_fpr(curve, fpr) for fpr in (0.01, 0.001, 0.0001)),
        noise_floor=thresholds.noise_floor(4, 2),
        tie_share=0.5,
        decisions=calibration.Decisions(1, 4, 0, 2),
    )
    assert result.tpr_at_fpr[0] == (0.01, None, None, 0.5)


def test_to_dict_is_strict_json_that_reads_back():
    best_is_none = audit.audit_scores([0.0, -np.inf], [1.0, 1.0], signal="s", queries="natural")
    figures = best_is_none.to_dict()
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert list(figures) == [field.name for field in dataclasses.fields(best_is_none)] + ["advantage"]
    assert figures["threshold"] == "inf" and float(figures["threshold"]) == math.inf
    assert figures["tpr_at_fpr"][0] == {
        "fpr": 0.01,
        "tpr": None,
        "attained_fpr": None,
        "smallest_attainable_fpr": 1.0,
    }
    assert figures["noise_floor"] == best_is_none.noise_floor._asdict()
    accepts_all = dataclasses.replace(best_is_none, threshold=-math.inf)
    assert accepts_all.to_dict()["threshold"] == "-inf"


def test_records_are_frozen_and_know_their_queries():
    result = audit.audit_scores([1.0], [0.0], signal="s", queries="natural")
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.auc = 1.0
    with pytest.raises(ValueError, match="`queries` must be one of.*adversarial"):
        audit.audit_scores([1.0], [0.0], signal="s", queries="adverserial")


def predictions(seed, **kwargs):
    labels, logits = random_logits(seed, **kwargs)
    return SimpleNamespace(labels=labels, logits=logits)


def test_audit_predictions_audits_every_signal_in_order():
    members, non_members = predictions(3), predictions(4, num=30)
    by_loss, by_confidence, *others = audit.audit_predictions(members, non_members, queries="natural")
    assert (by_loss.signal, by_confidence.signal) == ("cross_entropy", "confidence")
    assert [result.signal for result in others] == ["correctness", "entropy", "modified_entropy"]
    expected = audit.audit_scores(
        membership.cross_entropy_score(members.labels, members.logits),
        membership.cross_entropy_score(non_members.labels, non_members.logits),
        signal="cross_entropy",
        queries="natural",
    )
    assert by_loss == expected
    assert (by_loss.num_members, by_loss.num_non_members) == (40, 30)
    assert audit.audit_predictions(members, non_members, queries="natural", signals="confidence") == (by_confidence,)


def test_a_planted_leak_is_found_and_no_leak_is_noise():
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 10, 4000)
    logits = rng.normal(size=(4000, 10))
    logits[np.arange(4000), labels] += 2
    half = [SimpleNamespace(labels=labels[i::2], logits=logits[i::2].copy()) for i in (0, 1)]
    (none,) = audit.audit_predictions(*half, queries="natural", signals=["cross_entropy"])
    assert none.balanced_accuracy < none.noise_floor.upper_95 and abs(none.auc - 0.5) < 0.02
    half[0].logits[np.arange(2000), half[0].labels] += 1
    (leak,) = audit.audit_predictions(*half, queries="natural", signals=["cross_entropy"])
    assert leak.balanced_accuracy > leak.noise_floor.upper_95 + 0.1 and leak.auc > 0.65
    assert leak.tpr_at_fpr[0].tpr > 0.01


def test_a_signal_can_be_added(monkeypatch):
    monkeypatch.setitem(audit.SIGNALS, "largest_logit", lambda labels, logits: np.max(logits, axis=1))
    (result,) = audit.audit_predictions(predictions(6), predictions(7), queries="natural", signals=["largest_logit"])
    assert result.signal == "largest_logit"


def test_bad_audits_teach():
    members, non_members = predictions(8), predictions(9)
    with pytest.raises(ValueError, match="Did you mean 'confidence'"):
        audit.audit_predictions(members, non_members, queries="natural", signals=["confidense"])
    with pytest.raises(ValueError, match="`signals` must be one of"):
        audit.audit_predictions(members, non_members, queries="natural", signals="zzz")
    with pytest.raises(ValueError, match="predictions of one network.*5.*4"):
        audit.audit_predictions(members, predictions(9, num_classes=4), queries="natural")
    with pytest.raises(ValueError, match="`non_members` must have `.logits`"):
        audit.audit_predictions(members, (1, 2), queries="natural")
    with pytest.raises(ValueError, match="`members` must have `.logits`.*dict"):
        audit.audit_predictions({}, non_members, queries="natural")
    with pytest.raises(ValueError, match="shape"):
        audit.audit_predictions(SimpleNamespace(logits=1.0, labels=0), non_members, queries="natural")
