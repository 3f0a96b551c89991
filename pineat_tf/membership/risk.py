"""Membership risks of single examples, and of classes."""

from typing import Any, NamedTuple

import numpy as np

from pineat_tf.checks import check_count
from pineat_tf.membership.audit import audit_scores
from pineat_tf.membership.calibration import ScoreSets, score_sets
from pineat_tf.membership.results import MembershipResult
from pineat_tf.membership.scores import as_class_numbers, as_float64

__all__ = ["ClassAudit", "audit_classes", "privacy_risk_scores"]

_SMALLEST = 1e-10  # as the authors' code: what is nearer to 0 shares the first bin


class ClassAudit(NamedTuple):
    """The audits of all classes.

    Attributes:
        by_class: class number -> the record of its examples alone, with the noise floor of so few.
        worst: the class whose balanced accuracy is furthest above the mean of its noise floor. The worst of many is
            partly the unluckiest: judge it by its noise floor's `upper_95`, or by its p-value times the number of
            classes.
    """

    by_class: dict[int, MembershipResult]
    worst: int


def privacy_risk_scores(scores: Any, labels: Any, shadow: ScoreSets, *, num_bins: int = 5) -> np.ndarray:
    """Estimates the chance that each example is a member, from a shadow model's histograms a class.

    Args:
        scores: `modified_entropy_score` (or `cross_entropy_score`) of the examples, at most 0, shape `(num,)`.
        labels: their class numbers, shape `(num,)`.
        shadow: the same score of a shadow model's members and non-members, with their labels. A class that lacks
            either kind is looked up in the histogram of all classes.
        num_bins: bins of each histogram, of equal width in the logarithm of the negated score, >= 1.

    Returns:
        Posterior probabilities in [0, 1] of shape `(num,)`, float64, for a prior of one half. An empty bin takes the
        nearest bin that is not, the one of more likely members first.

    Raises:
        ValueError: if scores are above 0 or no scores, labels do not fit or are missing, or `num_bins` is below 1.

    Example:
        >>> shadow = ScoreSets([-0.1, -0.1, -0.1, -8.0], [-0.1, -9.0], [0, 0, 0, 0], [0, 0])
        >>> privacy_risk_scores([-0.2, -10.0], [0, 0], shadow, num_bins=2)  # 3/4 to 1/2, and 1/4 to 1/2
        array([0.6       , 0.33333333])

    Reference:
        Song and Mittal, "Systematic Evaluation of Privacy Risks of Machine Learning Models", USENIX Security 2021,
        section 4.
    """
    check_count("num_bins", num_bins, 1, "The authors take 5.")
    shadow = score_sets(*shadow, prefix="shadow.")
    scores = as_float64("scores", scores).numpy()
    _check_scored(scores, shadow)
    labels = as_class_numbers("labels", labels, len(scores)).numpy()
    posteriors = _posteriors(scores, shadow, num_bins)
    for label in np.intersect1d(labels, shadow.classes()):
        of_class = labels == label
        posteriors[of_class] = _posteriors(scores[of_class], shadow.of_class(label), num_bins)
    return posteriors


def audit_classes(
    member_scores: Any,
    non_member_scores: Any,
    member_labels: Any,
    non_member_labels: Any,
    *,
    signal: str,
    queries: str,
    **options: Any,
) -> ClassAudit:
    """Measures what scores reveal about the members of each class.

    Args:
        member_scores: scores of training members, shape `(num_members,)`, larger = more member.
        non_member_scores: scores of unseen examples, shape `(num_non_members,)`.
        member_labels: class numbers of the members, shape `(num_members,)`.
        non_member_labels: class numbers of the non-members, shape `(num_non_members,)`.
        signal: what to call the score in the records.
        queries: "natural" or "adversarial", the inputs that were scored.
        **options: `calibration` ("in-sample" or "held-out"), `num_bootstrap`, `confidence` and `seed` of
            `audit_scores`.

    Returns:
        A record for each class that has both members and non-members, and the worst of them.

    Raises:
        ValueError: if no class has both, or as `audit_scores`.

    Example:
        >>> audited = audit_classes([3, 2, 1], [0, 5, 1], [0, 0, 1], [0, 1, 1], signal="margin", queries="natural")
        >>> {label: result.balanced_accuracy for label, result in audited.by_class.items()}, audited.worst
        ({0: 1.0, 1: 0.5}, 0)

    Reference:
        Kulynych et al., "Disparate Vulnerability to Membership Inference Attacks", PoPETs 2022.
    """
    scores = score_sets(member_scores, non_member_scores, member_labels, non_member_labels)
    if member_labels is None or non_member_labels is None or not scores.classes():
        raise ValueError(
            "Some class must have both members and non-members. Received: none that has. Give `member_labels` and "
            "`non_member_labels` as class numbers of the same classes."
        )
    by_class = {}
    for label in scores.classes():
        members, non_members, *_ = scores.of_class(label)
        by_class[label] = audit_scores(members, non_members, signal=signal, queries=queries, **options)
    worst = max(by_class, key=lambda label: by_class[label].balanced_accuracy - by_class[label].noise_floor.mean)
    return ClassAudit(by_class, worst)


def _posteriors(scores: np.ndarray, shadow: ScoreSets, num_bins: int) -> np.ndarray:
    """Looks scores up in the histograms of a shadow's members and non-members, both equally likely beforehand."""
    values = [np.maximum(-of_kind, _SMALLEST) for of_kind in shadow[:2]]
    finite = np.concatenate(values)
    finite = finite[np.isfinite(finite)]
    low, high = (finite.min(), finite.max()) if finite.size else (_SMALLEST, 1.0)
    # The logarithm and back may miss the ends by a rounding error.
    edges = np.clip(np.logspace(np.log10(low), np.log10(high), num_bins + 1), low, high)
    edges[0], edges[-1] = low, high
    members, non_members = (np.histogram(np.minimum(v, high), edges)[0] / len(v) for v in values)
    bins = np.clip(np.searchsorted(edges, -scores, side="right") - 1, 0, num_bins - 1)
    filled = np.flatnonzero(members + non_members)
    nearest = filled[np.argmin(np.abs(bins[:, np.newaxis] - filled), axis=1)]  # the lower one of two
    return np.asarray(members[nearest] / (members + non_members)[nearest])


def _check_scored(scores: np.ndarray, shadow: ScoreSets) -> None:
    if scores.ndim != 1:
        raise ValueError(f"`scores` must have shape (num,). Received: shape {scores.shape}. Give one an example.")
    if shadow.member_labels is None or shadow.non_member_labels is None:
        raise ValueError(
            "`shadow` must have the labels of its examples. Received: none. Give "
            "`ScoreSets(member_scores, non_member_scores, member_labels, non_member_labels)`."
        )
    largest = max((s.max() for s in (scores, *shadow[:2]) if s.size), default=0.0)
    if not largest <= 0:
        raise ValueError(
            f"`scores` must be at most 0, and not NaN. Received: values up to {largest:g}. Give "
            "`modified_entropy_score` or `cross_entropy_score`."
        )
