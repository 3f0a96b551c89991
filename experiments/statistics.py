"""What several seeds say: means with intervals, paired differences, and how many tests there were."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95

_ALIKE = 1e-9  # a standard deviation below this share of the mean is rounding


class Estimate(NamedTuple):
    """A mean over seeds.

    Attributes:
        mean: of the values.
        sd: their standard deviation (n - 1 in the denominator); None of a single value.
        low: lower end of the 95 % interval of the mean, by Student's t; None of a single value.
        high: its upper end.
        num: how many values there were.
    """

    mean: float
    sd: float | None
    low: float | None
    high: float | None
    num: int


class Difference(NamedTuple):
    """A mean of paired differences.

    Attributes:
        mean: of the differences.
        low: lower end of its 95 % interval, by Student's t; None of a single pair, or of differences that are all
            alike and not 0, of which the test can say nothing.
        high: its upper end.
        p_value: of the two-sided paired t-test that the mean is 0; None where there is no interval.
        num: how many pairs there were.
    """

    mean: float
    low: float | None
    high: float | None
    p_value: float | None
    num: int


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of values of independent seeds, with its interval.

    Raises:
        ValueError: if there is no value.

    Example:
        >>> estimate([1.0, 2.0, 3.0]).mean
        2.0
    """
    values = np.asarray(values, np.float64)
    if not values.size:
        raise ValueError("A mean needs at least one value. Received: none.")
    mean = float(values.mean())
    if values.size == 1:
        return Estimate(mean, None, None, None, 1)
    sd = float(values.std(ddof=1))
    half = half_width(sd, values.size)
    return Estimate(mean, sd, mean - half, mean + half, values.size)


def paired_difference(values: Sequence[float], others: Sequence[float]) -> Difference:
    """By how much values exceed others of the same seeds.

    Args:
        values: one a seed.
        others: one for each of the same seeds, in the same order.

    Raises:
        ValueError: if there are none, or not as many of both.
    """
    if len(values) != len(others):
        raise ValueError(f"Pairs need as many values as others. Received: {len(values)} and {len(others)}.")
    differences = np.subtract(values, others)
    of_mean = estimate(differences)
    if of_mean.num == 1:
        return Difference(of_mean.mean, None, None, None, 1)
    if of_mean.sd <= _ALIKE * abs(of_mean.mean):  # the t-test is undefined
        if of_mean.mean == 0.0:
            return Difference(0.0, 0.0, 0.0, 1.0, of_mean.num)
        return Difference(of_mean.mean, None, None, None, of_mean.num)
    test = stats.ttest_rel(values, others)
    interval = test.confidence_interval(CONFIDENCE)
    return Difference(of_mean.mean, float(interval.low), float(interval.high), float(test.pvalue), of_mean.num)


def half_width(sd: float, num: int) -> float:
    """Half of the 95 % interval of a mean of `num` >= 2 values with this standard deviation."""
    return float(stats.t.ppf(0.5 + CONFIDENCE / 2, num - 1)) * sd / math.sqrt(num)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusts p-values for their number, so that one below 0.05 arises by chance in 5 % of such families at most.

    Args:
        p_values: of one family of tests, in [0, 1].

    Returns:
        Adjusted p-values in the order given.

    Example:
        >>> holm([0.01, 0.04])
        [0.02, 0.04]

    Reference:
        Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 1979.
    """
    order = np.argsort(p_values, kind="stable")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, (len(p_values) - rank) * p_values[index])
        adjusted[index] = min(1.0, largest)
    return adjusted
