"""Exact intervals and bounds against their definitions, published values and how often they are right."""

import math

import numpy as np
import pytest
from scipy import stats

from pineat_tf import membership
from pineat_tf.statistics import clopper_pearson


@pytest.mark.parametrize("successes, trials", [(0, 1), (1, 1), (3, 10), (10, 10), (0, 300), (41, 300)])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_the_ends_of_the_exact_interval_leave_half_of_the_doubt_on_each_side(successes, trials, confidence):
    low, high = clopper_pearson(successes, trials, confidence=confidence)
    tail = (1 - confidence) / 2
    # At the lower end, as many successes or more have just this chance; at the upper end, as many or fewer.
    assert low == 0 if successes == 0 else stats.binom.sf(successes - 1, trials, low) == pytest.approx(tail)
    assert high == 1 if successes == trials else stats.binom.cdf(successes, trials, high) == pytest.approx(tail)
    assert low <= successes / trials <= high


def test_the_epsilon_of_a_perfect_attack_is_the_published_one():
    # goldens.md, 5.3 (TensorFlow Privacy, data_structures_test.py): log(0.025^0.01 / (1 - 0.025^0.01))
    assert membership.epsilon_lower_bound(100, 100, 0, 100) == pytest.approx(3.2813, abs=5e-5)
    assert membership.epsilon_lower_bound(100, 100, 0, 100) == pytest.approx(-math.log(0.025**-0.01 - 1), rel=1e-12)


def test_a_useless_attack_and_a_large_delta_prove_nothing():
    assert membership.epsilon_lower_bound(50, 100, 50, 100) == 0
    assert membership.epsilon_lower_bound(0, 100, 100, 100) == 0
    assert membership.epsilon_lower_bound(100, 100, 0, 100, delta=0.99) == 0


def test_sure_negatives_prove_as_much_as_sure_positives():
    # The same attack seen from the other side: who says "non-member" for "member".
    by_positives = membership.epsilon_lower_bound(60, 200, 2, 200)
    assert by_positives == pytest.approx(membership.epsilon_lower_bound(198, 200, 140, 200), rel=1e-12)
    assert by_positives > 1


def test_the_bound_is_below_the_true_epsilon_as_often_as_it_says():
    # Randomised response tells membership with chance e^eps / (1 + e^eps): exactly eps-differentially private.
    epsilon, num, draws = 1.0, 400, 200
    chance = math.exp(epsilon) / (1 + math.exp(epsilon))
    rng = np.random.default_rng(0)
    counts = zip(rng.binomial(num, chance, draws), rng.binomial(num, 1 - chance, draws))
    bounds = np.array([membership.epsilon_lower_bound(int(hits), num, int(alarms), num) for hits, alarms in counts])
    assert np.mean(bounds > epsilon) < 0.05
    assert 0.6 < np.mean(bounds) < epsilon  # and it is not far below


@pytest.mark.parametrize("prior, expected", [(0.5, 0.9), (0.1, 0.5), (0.0, 0.0)])
def test_precision_falls_with_the_prior(prior, expected):
    assert membership.positive_predictive_value(0.9, 0.1, prior=prior) == pytest.approx(expected)


def test_nobody_called_a_member_has_no_precision():
    assert math.isnan(membership.positive_predictive_value(0.0, 0.0))


def test_bad_counts_and_rates_teach():
    with pytest.raises(ValueError, match="`successes` must be at most `trials`. Received: successes=3, trials=2"):
        clopper_pearson(3, 2)
    with pytest.raises(ValueError, match="`trials` must be a whole number >= 1"):
        clopper_pearson(0, 0)
    with pytest.raises(ValueError, match="`successes` must be a whole number >= 0"):
        membership.epsilon_lower_bound(-1, 2, 0, 2)
    with pytest.raises(ValueError, match=r"`confidence` must be in \[0, 1\)"):
        clopper_pearson(1, 2, confidence=95)
    with pytest.raises(ValueError, match=r"`delta` must be in \[0, 1\)"):
        membership.epsilon_lower_bound(1, 2, 0, 2, delta=1)
    with pytest.raises(ValueError, match=r"`fpr` must lie in \[0, 1\]. Received: fpr=5"):
        membership.positive_predictive_value(0.5, 5)
    with pytest.raises(ValueError, match=r"`prior` must be in \[0, 1\)"):
        membership.positive_predictive_value(0.5, 0.5, prior=1)
