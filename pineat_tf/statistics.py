"""Exact intervals of rates: of what an attacker gets right, and of what an attack leaves."""

import numbers
from typing import NamedTuple

from scipy import stats

from pineat_tf.checks import check_count, check_share

__all__ = ["Interval", "check_rate", "clopper_pearson"]


class Interval(NamedTuple):
    """The ends of an interval that covers the true figure with the confidence asked for."""

    low: float
    high: float


def clopper_pearson(successes: int, trials: int, *, confidence: float = 0.95) -> Interval:
    """Returns the exact interval of a rate from how often it was seen.

    Args:
        successes: how often it happened, 0 .. `trials`.
        trials: how often it could have happened, >= 1.
        confidence: at least how often such an interval covers the true rate, in [0, 1); each end is exceeded in at most
            half of the rest.

    Returns:
        The interval, within [0, 1].

    Raises:
        ValueError: if counts or the confidence are out of range.

    Example:
        >>> [round(end, 4) for end in clopper_pearson(0, 100)]
        [0.0, 0.0362]

    Reference:
        Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
        Biometrika 1934.
    """
    check_count("trials", trials, 1, "It is how often it could have been seen.")
    check_count("successes", successes, 0, "It is how often it was seen among them.")
    check_share("confidence", confidence, "Give e.g. 0.95 for 95 %.")
    if successes > trials:
        raise ValueError(
            f"`successes` must be at most `trials`. Received: successes={successes}, trials={trials}. Give counts."
        )
    found = stats.binomtest(int(successes), int(trials)).proportion_ci(confidence, method="exact")
    return Interval(float(found.low), float(found.high))


def check_rate(name: str, rate: float) -> None:
    """Raises `ValueError` unless the rate is a number in [0, 1]."""
    if not (isinstance(rate, numbers.Real) and 0 <= rate <= 1):
        raise ValueError(f"`{name}` must lie in [0, 1]. Received: {name}={rate!r}. Give a share, e.g. 0.01 for 1 %.")
