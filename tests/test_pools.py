"""How far pools differ: a twin, no false leaks where only the pools differ, and leaks that are found nevertheless."""

import numpy as np
import pytest
from scipy import stats

from pineat_tf import membership
from pineat_tf.membership import pool_shift

NUM = 400


def drawn(rng, num_networks=5, leak=0.0, shift=0.4, noise=1.0, num=NUM):
    """Scores of a target and of networks trained on neither pool; members are easier by `shift` for all of them."""
    pools = rng.normal(shift, 1.0, num), rng.normal(0.0, 1.0, num + 50)
    seen = [np.stack([pool + noise * rng.normal(size=len(pool)) for _ in range(num_networks + 1)]) for pool in pools]
    return seen[0][0] + leak, seen[1][0], seen[0][1:], seen[1][1:]


@pytest.mark.parametrize("figure", ["auc", "balanced_accuracy"])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_figures_are_students_t_of_loops(figure, confidence):
    members, non_members, *references = drawn(np.random.default_rng(0), num_networks=4)
    found = pool_shift(members, non_members, *references, confidence=confidence)[figure]

    def measured(high, low):
        if figure == "auc":
            return np.mean([(one > low).mean() + (one == low).mean() / 2 for one in high])
        return max((1 + (high >= cut).mean() - (low >= cut).mean()) / 2 for cut in [np.inf, *high, *low])

    values = [measured(*pair) for pair in zip(*references)]
    target = measured(members, non_members)
    assert (found.mean, found.target) == (pytest.approx(np.mean(values)), pytest.approx(target))
    assert found.interval == pytest.approx(stats.t.interval(confidence, 3, np.mean(values), stats.sem(values)))
    # One more draw against four is the two-sample test with a sample of one: pooled variance, 3 degrees of freedom.
    test = stats.ttest_ind([target], values, alternative="greater")
    assert found.p_value == pytest.approx(test.pvalue)
    both = stats.ttest_ind([target], values).confidence_interval(confidence)
    assert found.excess == pytest.approx(target - np.mean(values))
    assert found.excess_interval == pytest.approx((both.low, both.high))


@pytest.mark.parametrize("num_networks", [3, 5, 10])
def test_pools_that_differ_are_no_leak(num_networks):
    rng, draws = np.random.default_rng(num_networks), 300
    found = [pool_shift(*drawn(rng, num_networks, num=150))["auc"] for _ in range(draws)]
    false_leaks = np.mean([one.p_value <= 0.05 for one in found])
    assert 0.02 < false_leaks < 0.085  # binomial of 300 draws: .05 +- 2.8 deviations
    assert stats.kstest([one.p_value for one in found], "uniform").pvalue > 0.001
    assert 0.91 < np.mean([one.excess_interval.low <= 0 <= one.excess_interval.high for one in found]) < 0.99


def test_chance_is_the_wrong_null_where_pools_differ():
    members, non_members, *references = drawn(np.random.default_rng(1))
    assert membership.leakage_p_values(members, non_members)["auc"] < 0.01
    assert pool_shift(members, non_members, *references)["auc"].p_value > 0.05


@pytest.mark.parametrize(("figure", "power"), [("auc", 0.8), ("balanced_accuracy", 0.6)])
def test_a_leak_is_found_above_the_pools(figure, power):
    rng = np.random.default_rng(2)
    found = [pool_shift(*drawn(rng, leak=0.3))[figure] for _ in range(40)]
    assert np.mean([one.p_value <= 0.05 for one in found]) > power
    # Without shift the same leak of .3 would raise the AUC of N(.4, 2) against N(0, 2) from Phi(.2) to Phi(.35).
    if figure == "auc":
        assert np.mean([one.excess for one in found]) == pytest.approx(
            stats.norm.cdf(0.35) - stats.norm.cdf(0.2), abs=0.01
        )


def test_networks_that_are_all_alike_leave_the_rank():
    rng = np.random.default_rng(3)
    members, non_members = rng.normal(size=30), rng.normal(size=30)
    alike = np.tile(members, (4, 1)), np.tile(non_members, (4, 1))
    assert pool_shift(members, non_members, *alike)["auc"].p_value == 1.0
    assert pool_shift(members + 1, non_members, *alike)["auc"].p_value == 0.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference_member_scores": np.zeros((4, 5))}, r"shapes \(num_networks, 6\)"),
        ({"reference_member_scores": np.zeros((5, 6))}, "a row a network"),
        ({"reference_member_scores": np.zeros(6)}, "a row a network"),
        ({"reference_member_scores": np.zeros((2, 6)), "reference_non_member_scores": np.zeros((2, 7))}, "at least 3"),
        ({"reference_member_scores": np.full((4, 6), np.nan)}, "`reference_member_scores` must be below"),
        ({"member_scores": np.full(6, np.nan)}, "`member_scores` must be below"),
        ({"confidence": 1.0}, "confidence"),
    ],
)
def test_what_is_wrong_is_told(change, message):
    arguments = {
        "member_scores": np.zeros(6),
        "non_member_scores": np.zeros(7),
        "reference_member_scores": np.zeros((4, 6)),
        "reference_non_member_scores": np.zeros((4, 7)),
    }
    with pytest.raises(ValueError, match=message):
        pool_shift(**(arguments | change))
