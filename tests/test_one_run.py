"""The audit by one training: the authors' figures, and bounds that hold as often as they claim."""

import numpy as np
import pytest
import scipy.stats
from scipy.spatial import ConvexHull

from pineat_tf.membership import one_run, one_run_audit

NUM, DELTA = 10_000, 1e-6


@pytest.mark.parametrize("num, guesses, wrong", [(10, 1, 0), (100, 10, 1), (1000, 100, 10), (1000, 100, 100)])
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("delta", [0.0, 1e-6, 0.1])
def test_p_value_is_the_sum_of_the_paper(num, guesses, wrong, epsilon, delta):
    rate, correct = 1 / (1 + np.exp(-epsilon)), guesses - wrong
    so_far, largest = 0.0, 0.0
    for index in range(1, correct + 1):
        so_far += scipy.stats.binom.pmf(correct - index, guesses, rate)
        largest = max(largest, so_far / index)
    expected = min(1.0, scipy.stats.binom.sf(correct - 1, guesses, rate) + 2 * num * delta * largest)
    assert one_run.p_value(num, guesses, correct, epsilon, delta) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    "shift, of_any, of_gaussian", [(1, 1.13346, 2.164749), (2, 2.311945, 4.7218075), (4, 4.395568, 9.133752)]
)
def test_bounds_are_those_of_jax_privacy_at_its_thresholds(shift, of_any, of_gaussian):
    # its thresholds are the corners of the ROC's hull, and it corrects for their number
    out = scipy.stats.norm.ppf(np.linspace(0, 1, NUM, endpoint=False) + 1 / (2 * NUM))
    thresholds = np.append(np.union1d(out, out + shift), np.inf)
    missed, rejected = (np.searchsorted(scores, thresholds) for scores in (out + shift, out))
    corners = ConvexHull(np.stack([missed, rejected], 1)).vertices
    corners = corners[rejected[corners] >= missed[corners]]
    for bound, expected in ((one_run._bound_of_any, of_any), (one_run._bound_of_gaussian, of_gaussian)):
        right, wrong = NUM - missed[corners], NUM - rejected[corners]
        best = 0.0
        for r, w in sorted(zip(right.tolist(), wrong.tolist()), key=lambda counts: -counts[0] / max(20, sum(counts))):
            if r > w:
                best = max(best, bound(2 * NUM, r + w, r, 0.05 / len(corners), DELTA, best))
        assert best == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("mechanism", ["any", "gaussian"])
def test_a_true_epsilon_is_exceeded_no_more_often_than_claimed(mechanism):
    shift, exceeded = 0.5, 0
    epsilon = next(e for e in np.arange(0, 5, 0.01) if one_run._shift(e, 1e-5) >= shift)
    for seed in range(100):
        rng = np.random.default_rng(seed)
        included = rng.random(400) < 0.5
        scores = rng.normal(size=400) + shift * included
        exceeded += one_run_audit(scores, included, delta=1e-5, mechanism=mechanism).epsilon > epsilon
    assert exceeded <= 11  # 5 expected at most; more has a probability below .5 %


def test_random_scores_bound_nothing_and_ties_tell_nothing():
    included = np.arange(600) < 300  # in the order of the coins, which a broken tie would give away
    assert one_run_audit(np.zeros(600), included, delta=0.0).epsilon == 0
    found = one_run_audit(np.zeros(600), included, delta=0.0, num_guesses=10)
    assert (found.num_guesses, found.num_correct) == (600, 300)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"scores": [0.1]}, "one shape"),
        ({"scores": [0.1, np.nan, 0.2]}, "without NaN"),
        ({"included": [1, 0, 1]}, "must be booleans"),
        ({"delta": 1.0}, "`delta` must be in"),
        ({"num_guesses": 0}, "`num_guesses` must be a whole number >= 1"),
        ({"num_guesses": 4}, "`num_guesses` must be at most the number of canaries, 3"),
        ({"confidence": 95}, "`confidence` .*Give e.g. 0.95"),
        ({"confidence": 0}, "`confidence` must be positive"),
        ({"mechanism": "gaussian", "delta": 0}, "No Gaussian mechanism"),
        ({"scores": np.arange(60), "included": np.ones(60, bool)}, "by a fair coin.*60 of 60 included"),
        ({"mechanism": "laplace"}, "must be one of"),
    ],
)
def test_bad_input_is_told(change, message):
    arguments = {"scores": [0.1, 0.2, 0.3], "included": [True, False, True], "delta": 1e-5}
    with pytest.raises(ValueError, match=message):
        one_run_audit(**{**arguments, **change})
