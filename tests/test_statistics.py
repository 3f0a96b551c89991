"""What several seeds say: intervals and tests by hand, beside SciPy's, and as often right as they claim."""

import warnings

import numpy as np
import pandas as pd
import pytest

from experiments.statistics import Difference, Estimate, difference, estimate, holm, paired_difference, summary


def test_the_interval_of_a_mean_by_hand():
    # 1 ... 5: mean 3, sd sqrt(10 / 4), which over sqrt(5) is sqrt(0.5); t of 4 degrees of freedom is 2.776445.
    half = 2.776445 * 0.5**0.5  # 1.963243
    assert estimate([1, 2, 3, 4, 5]) == pytest.approx((3.0, 2.5**0.5, 3 - half, 3 + half, 5), abs=1e-6)
    # Two values: sd |0.92 - 0.9| / sqrt(2), over sqrt(2) it is 0.01; t of 1 degree of freedom is 12.706205.
    assert estimate([0.9, 0.92]) == pytest.approx((0.91, 0.02 / 2**0.5, 0.91 - 0.12706, 0.91 + 0.12706, 2), abs=1e-5)


def test_a_single_value_has_no_spread_and_values_alike_have_none_to_speak_of():
    assert estimate([0.25]) == Estimate(0.25, None, None, None, 1)
    assert estimate([0.25] * 3) == Estimate(0.25, 0.0, 0.25, 0.25, 3)


@pytest.mark.parametrize("num", [2, 5])
def test_the_interval_holds_the_mean_in_95_of_100_families_of_seeds(num):
    families = np.random.default_rng(0).normal(0.7, 0.02, size=(2000, num))
    covered = np.mean([low <= 0.7 <= high for _, _, low, high, _ in map(estimate, families)])
    assert abs(covered - 0.95) < 0.015  # three standard errors: 3 * sqrt(0.95 * 0.05 / 2000)


def test_a_paired_difference_by_hand():
    # Differences 1, 2, 3: mean 2, sd 1, t = 2 sqrt(3). With 2 degrees of freedom p = 1 - t / sqrt(t^2 + 2).
    p_value, half = 1 - 12**0.5 / 14**0.5, 4.302653 / 3**0.5  # 0.074180, 2.484138
    values, others = [11, 22, 33], [10, 20, 30]
    assert paired_difference(values, others) == pytest.approx((2, 2 - half, 2 + half, p_value, 3), abs=1e-6)
    assert paired_difference(others, values) == pytest.approx((-2, -2 - half, -2 + half, p_value, 3), abs=1e-6)


def test_pairs_that_leave_nothing_to_test():
    assert paired_difference([0.5], [0.25]) == Difference(0.25, None, None, None, 1)
    assert paired_difference([0.5, 0.7], [0.5, 0.7]) == Difference(0.0, 0.0, 0.0, 1.0, 2)
    assert paired_difference([0.5, 0.75], [0.25, 0.5]) == Difference(0.25, None, None, None, 2)
    assert paired_difference([0.8581, 0.8601], [0.8507, 0.8527])[1:] == (None, None, None, 2)  # but for rounding


def test_differences_that_only_rounding_tells_apart_pass_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = paired_difference([0.3, 0.4], [0.1, 0.2])  # 0.19999999999999998 and 0.2
    assert found == (pytest.approx(0.2), None, None, None, 2)


def test_what_cannot_be_paired_or_averaged_is_refused():
    for values, others in ([1.0, 2.0], [1.0]), ([1.0], [1.0, 2.0]), ([], [1.0]):  # NumPy would stretch them
        with pytest.raises(ValueError, match=f"Received: {len(values)} and {len(others)}"):
            paired_difference(values, others)
    for mean_of_none in (lambda: estimate([]), lambda: paired_difference([], [])):
        with pytest.raises(ValueError, match="at least one value"):
            mean_of_none()


def test_p_values_are_adjusted_for_the_number_of_tests_and_none_is_no_test():
    # In order: 5 * 0.005 = 0.025, 4 * 0.01 = 0.04, 3 * 0.03 = 0.09, 2 * 0.03 = 0.06 (not less than before), 1 * 0.5.
    first, *rest = holm([None, 0.03, 0.01, 0.03, 0.5, 0.005])
    assert first is None and rest == pytest.approx([0.09, 0.04, 0.09, 0.5, 0.025])
    assert holm([0.9, 0.8, 0.01]) == pytest.approx([1.0, 1.0, 0.03]) and holm([]) == []


def test_rows_are_summarised_in_their_order_and_paired_by_their_seeds():
    runs = pd.DataFrame(
        [("b", 0, 0.9), ("b", 1, 0.1), ("b", 2, 0.8), ("a", 3, 0.99), ("a", 2, 0.6), ("a", 0, 0.8), ("c", 7, 0.5)],
        columns=["title", "seed", "x"],
    )
    means = summary(runs, ["x"])["x"]
    assert list(means.index) == ["b", "a", "c"] and means["b"] == estimate([0.9, 0.1, 0.8])
    # Seeds 0 and 2: differences 0.1 and 0.2, mean 0.15, sd 0.1 / sqrt(2), and t of 1 degree of freedom is 12.7062.
    expected = (0.15, 0.15 - 12.7062 * 0.05, 0.15 + 12.7062 * 0.05)
    found = difference(runs, "b", "a", "x")
    assert found[:3] == pytest.approx(expected, abs=1e-6) and found.num == 2
    assert difference(runs, "a", "c", "x") is None
