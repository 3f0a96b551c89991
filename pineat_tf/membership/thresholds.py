"""Thresholds on scores, and the rates of an attacker who says "member" where score >= threshold.

All functions take the scores of members and of non-members, vectors of numbers below +inf (-inf is allowed), larger =
more likely a member; they raise `ValueError` for anything else. They sort once, O(n log n), on the host, which sorts a
million scores ten times as fast as `tf.argsort`. Equal scores count as one: no threshold can part them.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy import integrate

from pineat_tf.checks import check_count
from pineat_tf.membership.scores import as_float64
from pineat_tf.statistics import check_rate

__all__ = [
    "REPORTED_FPRS",
    "BestThreshold",
    "NoiseFloor",
    "Ranked",
    "Roc",
    "TprAtFpr",
    "auc",
    "best_threshold",
    "checked_scores",
    "exceeded_by_chance",
    "gap_attack",
    "largest_rate",
    "noise_floor",
    "ranked",
    "roc",
    "tie_share",
    "tnr_at_fnr",
    "tpr_at_fpr",
]

REPORTED_FPRS = (0.01, 0.001, 0.0001)
"""The false positive rates at which the TPR is reported."""

_ROUNDING = 1e-12  # the share by which a calculated rate, like 1 - 0.9, may fall short of the one that was meant


class BestThreshold(NamedTuple):
    """The threshold with the largest balanced accuracy on the scores it was chosen on.

    Attributes:
        threshold: member iff score >= threshold; `inf` accepts none.
        balanced_accuracy: 0.5 * (TPR + 1 - FPR), in [0.5, 1].
    """

    threshold: float
    balanced_accuracy: float


@dataclasses.dataclass(frozen=True, eq=False)
class Roc:
    """One point per distinct score, from accepting none to accepting all; unpacks into its three columns.

    Attributes:
        fpr: share of non-members accepted, rising from 0 to 1. float64, shape `(points,)`.
        tpr: share of members accepted, rising from 0 to 1. float64, shape `(points,)`.
        thresholds: falling from `inf`. float64, shape `(points,)`.
        num_non_members: how many non-members were scored, which limits the rates that the curve can show; None of a
            curve that is known exactly.
    """

    fpr: np.ndarray
    tpr: np.ndarray
    thresholds: np.ndarray
    num_non_members: int | None = None

    def __iter__(self) -> Iterator[np.ndarray]:
        """Iterates over FPRs, TPRs and thresholds."""
        return iter((self.fpr, self.tpr, self.thresholds))


class TprAtFpr(NamedTuple):
    """The largest TPR that the attack reaches at a false positive rate of at most `fpr`.

    Attributes:
        fpr: the rate asked for.
        tpr: the largest TPR; None where `fpr` is below `smallest_attainable_fpr`: what is seen there is the TPR at a
            larger rate, which so few non-members, or so many ties, do not tell.
        attained_fpr: the false positive rate where `tpr` is reached, <= `fpr`; None like `tpr`.
        smallest_attainable_fpr: the smallest rate at which these scores show a TPR: 1 / num_non_members, or the false
            positive rate of the highest distinct score if ties make that larger.
    """

    fpr: float
    tpr: float | None
    attained_fpr: float | None
    smallest_attainable_fpr: float


class NoiseFloor(NamedTuple):
    """Best in-sample balanced accuracy against a network that leaks nothing at all.

    Attributes:
        mean: on average.
        upper_95: exceeded by chance in 5 % of audits.
    """

    mean: float
    upper_95: float


class Ranked(NamedTuple):
    """Scores as ranks, 0 for the highest; equal scores share a rank.

    Attributes:
        scores: the distinct scores, falling.
        members: ranks, shape `(num_members,)`.
        non_members: ranks, shape `(num_non_members,)`.
    """

    scores: np.ndarray
    members: np.ndarray
    non_members: np.ndarray

    def accepted(self) -> tuple[np.ndarray, np.ndarray]:
        """Counts members and non-members with this or a higher score, shape `(num_scores + 1,)`, from nobody up."""
        members, non_members = (
            np.concatenate([[0], np.cumsum(np.bincount(ranks, minlength=len(self.scores)))])
            for ranks in (self.members, self.non_members)
        )
        return members, non_members


def ranked(member_scores: Any, non_member_scores: Any) -> Ranked:
    """Ranks scores; not by scikit-learn's `roc_curve`, which refuses -inf, the score of a probability of 0."""
    members, non_members = checked_scores(member_scores, non_member_scores)
    negated, ranks = np.unique(-np.concatenate([members, non_members]), return_inverse=True)
    return Ranked(0.0 - negated, ranks[: len(members)], ranks[len(members) :])


def best_threshold(member_scores: Any, non_member_scores: Any) -> BestThreshold:
    """Finds the threshold of largest balanced accuracy, on these same scores (in-sample).

    Candidates are the union of both score sets, and `inf`, which accepts none and gives 0.5: so the result is never
    below 0.5. Among equally good thresholds the largest is taken, decided in whole numbers, without rounding.

    Example:
        >>> best_threshold([0.9, 0.8, 0.3], [0.5, 0.2])
        BestThreshold(threshold=0.8, balanced_accuracy=0.8333333333333333)

    Reference:
        Song, Shokri, Mittal, CCS 2019, section 3: one threshold for all classes.
    """
    ranks = ranked(member_scores, non_member_scores)
    true_positives, false_positives = ranks.accepted()
    num_members, num_non_members = true_positives[-1], false_positives[-1]
    best = np.argmax(true_positives * num_non_members - false_positives * num_members)  # the first of equal ones
    tpr, fpr = true_positives[best] / num_members, false_positives[best] / num_non_members
    threshold = ranks.scores[best - 1] if best else math.inf
    return BestThreshold(float(threshold), float(0.5 * (tpr + 1 - fpr)))


def roc(member_scores: Any, non_member_scores: Any) -> Roc:
    """Traces the receiver operating characteristic from (0, 0) to (1, 1), one point per distinct score.

    Example:
        >>> curve = roc([2, 1], [1, 0])
        >>> curve.fpr, curve.tpr
        (array([0. , 0. , 0.5, 1. ]), array([0. , 0.5, 1. , 1. ]))
    """
    ranks = ranked(member_scores, non_member_scores)
    true_positives, false_positives = ranks.accepted()
    return Roc(
        fpr=false_positives / false_positives[-1],
        tpr=true_positives / true_positives[-1],
        thresholds=np.concatenate([[math.inf], ranks.scores]),
        num_non_members=len(ranks.non_members),
    )


def auc(curve: Roc) -> float:
    """Returns the area under a ROC curve.

    It is the chance that a random member outscores a random non-member, a tie counting one half.

    Example:
        >>> auc(roc([2, 1], [1, 0]))
        0.875
    """
    return float(integrate.trapezoid(curve.tpr, curve.fpr))


def tpr_at_fpr(curve: Roc, fpr: float) -> TprAtFpr:
    """Returns the largest TPR among the points of a curve whose FPR is at most `fpr`.

    Points are not joined by lines: each is a threshold that exists.

    Args:
        curve: from `roc`.
        fpr: the largest false positive rate allowed, in [0, 1], e.g. 0.001.

    Returns:
        The rates; `tpr` is None, not 0 and not the TPR at another rate, where `fpr` is finer than the data: below
        1 / num_non_members, or where the highest distinct score is shared by more than `fpr` of the non-members.
        Whether it is None may hang on the draw where scores tie: a mean over those draws that have one is biased.

    Raises:
        ValueError: if `curve` is none of `roc`, or `fpr` is outside [0, 1].

    Example:
        >>> tpr_at_fpr(roc([3, 1], [2, 0]), 0.5)
        TprAtFpr(fpr=0.5, tpr=1.0, attained_fpr=0.5, smallest_attainable_fpr=0.5)
        >>> tpr_at_fpr(roc([3, 2, 1], [2, 0]), 0.1)  # one of two non-members is 50 %
        TprAtFpr(fpr=0.1, tpr=None, attained_fpr=None, smallest_attainable_fpr=0.5)

    Reference:
        Carlini et al., "Membership Inference Attacks From First Principles", S&P 2022.
    """
    _check_curve(curve)
    check_rate("fpr", fpr)
    false_rates, true_rates = curve.fpr[1:], curve.tpr[1:]  # the first point accepts nobody
    smallest = max(1 / curve.num_non_members if curve.num_non_members else 0.0, float(false_rates[0]))
    if smallest > largest_rate(fpr):
        return TprAtFpr(fpr, None, None, smallest)
    largest = true_rates[false_rates <= largest_rate(fpr)].max()
    return TprAtFpr(fpr, float(largest), float(false_rates[np.argmax(true_rates == largest)]), smallest)


def tnr_at_fnr(curve: Roc, fnr: float) -> float:
    """Returns the largest share of non-members that is cleared while no more than `fnr` of the members are.

    Of the plain loss (`cross_entropy_score`) it goes with the TPR at low FPR that attackers with shadow models reach,
    and needs none.

    Args:
        curve: of a score, from `roc`.
        fnr: share of members that may be cleared, in [0, 1].

    Returns:
        The true negative rate, in [0, 1]; 0 where even the lowest threshold clears too many.

    Raises:
        ValueError: if `curve` is none of `roc`, or the rate is out of its range.

    Example:
        >>> tnr_at_fnr(roc([0.9, 0.8, 0.3], [0.5, 0.2, 0.1]), 0.0)  # two of three lie below all members
        0.6666666666666667

    Reference:
        Dodd et al., "The tail tells all: estimating model-level membership inference vulnerability without reference
        models", arXiv 2510.19773, 2025.
    """
    _check_curve(curve)
    check_rate("fnr", fnr)
    return float(1.0 - curve.fpr[1.0 - curve.tpr <= largest_rate(fnr)].min())


def _check_curve(curve: Any) -> None:
    if not isinstance(curve, Roc):
        raise ValueError(
            f"`curve` must be one of `roc`. Received: {type(curve).__name__}. Give `roc(member_scores, "
            "non_member_scores)`."
        )


def largest_rate(fpr: float) -> float:
    """Returns the largest share that counts as no more than `fpr`: a rounding error above it.

    Example:
        >>> 1 / 10 <= 1 - 0.9, 1 / 10 <= largest_rate(1 - 0.9)
        (False, True)
    """
    return fpr * (1 + _ROUNDING)


def tie_share(member_scores: Any, non_member_scores: Any) -> float:
    """Returns the share, in [0, 1], of all scores that equal at least one other score.

    Example:
        >>> tie_share([1.0, 1.0, 0.5], [1.0])
        0.75
    """
    _, *ranks = ranked(member_scores, non_member_scores)
    counts = np.bincount(np.concatenate(ranks))
    return int(counts[counts > 1].sum()) / int(counts.sum())


def noise_floor(num_members: int, num_non_members: int, audits: int = 1) -> NoiseFloor:
    """Returns what `best_threshold` finds where there is nothing to find; or the best of several audits.

    A threshold tuned on the scores it is judged on beats 0.5 by luck: its balanced accuracy is (1 + D+)/2, D+ the
    one-sided two-sample Kolmogorov-Smirnov statistic, and without leakage P(D+ > d) ~ exp(-2 N d^2),
    N = n1 n2 / (n1 + n2). Ties only lower it.

    Args:
        num_members: n1, >= 1.
        num_non_members: n2, >= 1.
        audits: of how many independent audits the largest is taken, >= 1: 2 for P_MAX. The bound holds however they
            depend on each other (Bonferroni).

    Returns:
        Mean and 95 % quantile, at most 1. Asymptotic: a little high for a few dozen examples.

    Raises:
        ValueError: if a number is not a whole number >= 1.

    Example:
        >>> floor = noise_floor(60_000, 10_000)
        >>> round(floor.mean, 4), round(floor.upper_95, 4)
        (0.5034, 0.5066)
        >>> round(noise_floor(10_000, 10_000, audits=2).mean, 4)
        0.5057

    Reference:
        Smirnov, "Table for Estimating the Goodness of Fit of Empirical Distributions", Annals of Mathematical
        Statistics 19(2), 1948.
    """
    check_count("num_members", num_members, 1, "Give the number of examples that were scored.")
    check_count("num_non_members", num_non_members, 1, "Give the number of examples that were scored.")
    check_count("audits", audits, 1, "It is the number of audits whose largest figure is taken.")
    num_members, num_non_members = int(num_members), int(num_non_members)  # int32 would overflow
    mean = math.sqrt(math.pi / (8 * _effective(num_members, num_non_members)))  # integral of exp(-2 N d^2) over d >= 0
    mean *= sum((-1) ** (k + 1) * math.comb(audits, k) / math.sqrt(k) for k in range(1, audits + 1))  # of the largest
    upper = exceeded_by_chance(num_members, num_non_members, 0.05 / audits)
    return NoiseFloor(mean=min(1.0, (1 + mean) / 2), upper_95=upper)


def exceeded_by_chance(num_members: int, num_non_members: int, level: float) -> float:
    """Returns the balanced accuracy that `best_threshold` exceeds in a share `level` of audits without leakage.

    See `noise_floor`, of which this is the distribution.
    """
    upper = math.sqrt(math.log(1 / level) / (2 * _effective(num_members, num_non_members)))
    return min(1.0, (1 + upper) / 2)


def _effective(num_members: int, num_non_members: int) -> float:
    """N of the two-sample Kolmogorov-Smirnov statistic."""
    return num_members * num_non_members / (num_members + num_non_members)


def gap_attack(train_accuracy: float, test_accuracy: float) -> float:
    """Returns the balanced accuracy of saying "member" where the network is right.

    Args:
        train_accuracy: share of members classified correctly, in [0, 1].
        test_accuracy: share of non-members classified correctly, in [0, 1].

    Returns:
        (1 + train_accuracy - test_accuracy) / 2: what the generalisation gap alone gives away.

    Raises:
        ValueError: if an accuracy is outside [0, 1].

    Example:
        >>> gap_attack(1.0, 0.75)
        0.625

    Reference:
        Yeom et al., "Privacy Risk in Machine Learning", CSF 2018, section 3.
    """
    check_rate("train_accuracy", train_accuracy)
    check_rate("test_accuracy", test_accuracy)
    return (1 + train_accuracy - test_accuracy) / 2


def checked_scores(member_scores: Any, non_member_scores: Any, *, prefix: str = "") -> tuple[np.ndarray, np.ndarray]:
    """Returns scores of members and of non-members as float64 arrays of shape `(num,)`.

    Args:
        member_scores: shape `(num_members,)`, larger = more member.
        non_member_scores: shape `(num_non_members,)`.
        prefix: what errors put before the two names, e.g. "shadow.".

    Raises:
        ValueError: if scores are empty, not a vector, NaN or `+inf` (`-inf` is allowed).
    """
    return _checked(f"{prefix}member_scores", member_scores), _checked(f"{prefix}non_member_scores", non_member_scores)


def _checked(name: str, scores: Any) -> np.ndarray:
    values: np.ndarray = as_float64(name, scores).numpy()
    if values.ndim != 1 or not values.size:
        raise ValueError(
            f"`{name}` must have shape (num,) with at least one score. Received: shape={values.shape}. Give one score "
            "per example, e.g. from `cross_entropy_score(labels, logits)`."
        )
    num_bad = int(np.sum(~(values < np.inf)))  # not `values >= inf`, which is false of NaN
    if num_bad:
        raise ValueError(
            f"`{name}` must be below +inf and not NaN. Received: {num_bad} such values of {len(values)}. Score from "
            "logits in float64, where confidence does not overflow."
        )
    return values
