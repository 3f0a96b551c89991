"""Means over seeds with intervals, paired differences, and p-values adjusted for their number."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
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
        num: the number of values.
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
        low: lower end of its 95 % interval, by Student's t; None of a single pair, and of differences that are all
            alike and not 0, for which the test is not defined.
        high: its upper end.
        p_value: of the two-sided paired t-test that the mean is 0; None where there is no interval.
        num: the number of pairs.
    """

    mean: float
    low: float | None
    high: float | None
    p_value: float | None
    num: int


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of values of independent seeds, with its interval; NaN where one of them is.

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
    if values.size == 1 or np.isnan(mean):
        return Estimate(mean, None, None, None, values.size)
    sd = float(values.std(ddof=1))
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, values.size - 1)) * sd / np.sqrt(values.size)
    return Estimate(mean, sd, float(mean - half), float(mean + half), values.size)


def paired_difference(values: Sequence[float], others: Sequence[float]) -> Difference:
    """Tests by how much values exceed others of the same seeds.

    Args:
        values: one for each seed.
        others: one for each of the same seeds, in the same order.

    Raises:
        ValueError: if there are none, or not as many of both.
    """
    if len(values) != len(others):
        raise ValueError(f"Pairs need as many values as others. Received: {len(values)} and {len(others)}.")
    of_mean = estimate(np.subtract(values, others))
    if of_mean.num == 1:
        return Difference(of_mean.mean, None, None, None, 1)
    if of_mean.sd <= _ALIKE * abs(of_mean.mean):  # the t-test is not defined
        if of_mean.mean == 0.0:
            return Difference(0.0, 0.0, 0.0, 1.0, of_mean.num)
        return Difference(of_mean.mean, None, None, None, of_mean.num)
    test = stats.ttest_rel(values, others)
    interval = test.confidence_interval(CONFIDENCE)
    return Difference(of_mean.mean, float(interval.low), float(interval.high), float(test.pvalue), of_mean.num)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjusts p-values for their number (Holm); those that are None are no tests and stay."""
    tested = np.array([p_value for p_value in p_values if p_value is not None], np.float64)
    order = np.argsort(tested)
    tested[order] = np.maximum.accumulate(tested[order] * np.arange(tested.size, 0, -1)).clip(max=1.0)
    adjusted = iter(tested.tolist())
    return [None if p_value is None else next(adjusted) for p_value in p_values]


def summary(runs: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The means of figures over the runs of each row.

    Args:
        runs: of `results.tidy`.
        names: columns of it.

    Returns:
        `Estimate`s, by title and name.
    """
    return runs.groupby("title", sort=False)[list(names)].agg(lambda values: [estimate(values)]).map(lambda one: one[0])


def difference(runs: pd.DataFrame, title: str, other: str, name: str) -> Difference | None:
    """By how much a figure of one row exceeds that of another, over the seeds that both have; None without any."""
    mine, others = (runs.loc[runs["title"] == row].set_index("seed")[name] for row in (title, other))
    pairs = pd.concat([mine, others], axis=1, join="inner", keys=["mine", "other"]).sort_index()
    return None if pairs.empty else paired_difference(pairs["mine"].to_numpy(), pairs["other"].to_numpy())
