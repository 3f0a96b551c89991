"""Figures from counts of true and false positives: a bound on differential privacy, and the precision."""

import math

from pineat_tf.checks import check_share
from pineat_tf.statistics import check_rate, clopper_pearson

__all__ = ["epsilon_lower_bound", "positive_predictive_value"]


def epsilon_lower_bound(
    true_positives: int,
    num_members: int,
    false_positives: int,
    num_non_members: int,
    *,
    delta: float = 0.0,
    confidence: float = 0.95,
) -> float:
    """Bounds the epsilon of differential privacy from below by what an attack achieved.

    Training that is (epsilon, delta)-differentially private allows no attack a TPR above `exp(epsilon) FPR + delta`,
    nor a true negative rate above `exp(epsilon)` times the false negative rate plus delta. Both are asked of the worst
    ends of the exact intervals of TPR and FPR, each with half of the doubt. The threshold must have been chosen on
    other data: chosen on these counts, it makes the bound too large.

    Args:
        true_positives: members called members, 0 .. `num_members`.
        num_members: >= 1.
        false_positives: non-members called members, 0 .. `num_non_members`.
        num_non_members: >= 1.
        delta: of the privacy guarantee, in [0, 1).
        confidence: at least how often the bound is below the true epsilon, in [0, 1).

    Returns:
        The bound, >= 0; 0 where the attack proves nothing.

    Raises:
        ValueError: if counts or shares are out of range.

    Example:
        >>> round(epsilon_lower_bound(100, 100, 0, 100), 4)
        3.2813

    Reference:
        Nasr et al., "Adversary Instantiation: Lower Bounds for Differentially Private Machine Learning", S&P 2021,
        section IV.
    """
    check_share("delta", delta)
    tpr = clopper_pearson(true_positives, num_members, confidence=confidence)
    fpr = clopper_pearson(false_positives, num_non_members, confidence=confidence)
    ratios = (tpr.low - delta, fpr.high), (1 - fpr.high - delta, 1 - tpr.low)
    return max(0.0, *(math.log(upper / lower) if upper > 0 else 0.0 for upper, lower in ratios))


def positive_predictive_value(tpr: float, fpr: float, *, prior: float = 0.5) -> float:
    """Returns the share of members among those whom the attacker calls members, in [0, 1]; NaN if nobody is.

    Args:
        tpr: share of members called members, in [0, 1].
        fpr: share of non-members called members, in [0, 1].
        prior: share of members among the examples that are judged, in [0, 1): 0.5 in a balanced audit, far less in
            the world.

    Raises:
        ValueError: if a rate or the prior is out of range.

    Example:
        >>> round(positive_predictive_value(0.1, 0.001, prior=0.01), 4)
        0.5025

    Reference:
        Jayaraman et al., "Revisiting Membership Inference Under Realistic Assumptions", PoPETs 2021, section 3.
    """
    check_share("prior", prior)
    check_rate("tpr", tpr)
    check_rate("fpr", fpr)
    called = prior * tpr + (1 - prior) * fpr
    return prior * tpr / called if called else math.nan
