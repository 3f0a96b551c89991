"""From predictions or scores to records: every membership signal, measured alike."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from pineat_tf.checks import check_choice
from pineat_tf.membership import scores, thresholds
from pineat_tf.membership.results import MembershipResult

Score = Callable[..., tf.Tensor]
"""Maps `(labels, outputs)` to scores of shape `(num,)`, larger = more likely a member."""

SIGNALS: dict[str, Score] = {
    "cross_entropy": scores.cross_entropy_score,
    "confidence": scores.confidence_score,
    "correctness": scores.correctness_score,
    "entropy": scores.entropy_score,
    "modified_entropy": scores.modified_entropy_score,
}
"""Signals computed from logits. Add an entry to add a signal."""

SIGNALS_FROM_PROBS: dict[str, Score] = {
    "cross_entropy": scores.cross_entropy_score_from_probs,
    "confidence": scores.confidence_score_from_probs,
    "correctness": scores.correctness_score_from_probs,
    "entropy": scores.entropy_score_from_probs,
    "modified_entropy": scores.modified_entropy_score_from_probs,
}
"""The same signals where only probabilities were kept."""

REPORTED_FPRS = (0.01, 0.001)
"""The false positive rates at which the TPR is reported."""


def audit_scores(member_scores, non_member_scores, *, signal: str, queries: str) -> MembershipResult:
    """Measures what scores reveal about membership, with an in-sample threshold.

    Args:
        member_scores: scores of training members, shape `(num_members,)`, larger = more member.
        non_member_scores: scores of unseen examples, shape `(num_non_members,)`.
        signal: what to call the score in the record.
        queries: "natural" or "adversarial", the inputs that were scored.

    Returns:
        The record, with `calibration="in-sample"`.

    Raises:
        ValueError: if scores are empty, not a vector, NaN or `+inf`, or `queries` is unknown.

    Example:
        >>> result = audit_scores([3.0, 2.0], [2.0, 1.0], signal="margin", queries="natural")
        >>> result.balanced_accuracy, result.threshold, result.auc, result.tie_share
        (0.75, 3.0, 0.875, 0.5)

    Reference:
        Song, Shokri, Mittal, CCS 2019, section 3; PINEAT paper, section 4.3.
    """
    best = thresholds.best_threshold(member_scores, non_member_scores)
    curve = thresholds.roc(member_scores, non_member_scores)
    num_members, num_non_members = len(member_scores), len(non_member_scores)
    return MembershipResult(
        signal=signal,
        queries=queries,
        calibration="in-sample",
        num_members=num_members,
        num_non_members=num_non_members,
        balanced_accuracy=best.balanced_accuracy,
        threshold=best.threshold,
        auc=thresholds.auc(curve),
        tpr_at_fpr=tuple(thresholds.tpr_at_fpr(curve, fpr) for fpr in REPORTED_FPRS),
        noise_floor=thresholds.noise_floor(num_members, num_non_members),
        tie_share=thresholds.tie_share(member_scores, non_member_scores),
    )


def audit_predictions(
    members, non_members, *, queries: str, signals: Sequence[str] = tuple(SIGNALS)
) -> tuple[MembershipResult, ...]:
    """Measures what a network's predictions reveal about membership.

    Args:
        members: predictions for training members: any object with `.logits` of shape
            `(num, num_classes)` and `.labels` of shape `(num,)`.
        non_members: the same for unseen examples.
        queries: "natural" or "adversarial", the inputs that were predicted.
        signals: names in `SIGNALS`; all of them unless you choose.

    Returns:
        One record per signal, in the order of `signals`.

    Raises:
        ValueError: if a signal is unknown, or predictions do not fit (see `scores`).

    Example:
        >>> from types import SimpleNamespace
        >>> members = SimpleNamespace(logits=[[4.0, 0.0], [0.0, 3.0]], labels=[0, 1])
        >>> non_members = SimpleNamespace(logits=[[1.0, 0.0], [2.0, 0.0]], labels=[0, 1])
        >>> results = audit_predictions(members, non_members, queries="natural")
        >>> {result.signal: result.balanced_accuracy for result in results}["cross_entropy"]
        1.0
    """
    signals = (signals,) if isinstance(signals, str) else signals
    for signal in signals:
        check_choice("signals", signal, SIGNALS)
    _check_predictions(members, non_members)
    return tuple(
        audit_scores(
            SIGNALS[signal](members.labels, members.logits),
            SIGNALS[signal](non_members.labels, non_members.logits),
            signal=signal,
            queries=queries,
        )
        for signal in signals
    )


def _check_predictions(members, non_members) -> None:
    for name, predictions in (("members", members), ("non_members", non_members)):
        if not (hasattr(predictions, "logits") and hasattr(predictions, "labels")):
            raise ValueError(
                f"`{name}` must have `.logits` and `.labels`. Received: "
                f"{type(predictions).__name__}. Give e.g. the result of `predict_logits`."
            )
    shapes = tuple(np.shape(members.logits)), tuple(np.shape(non_members.logits))
    if shapes[0][-1:] != shapes[1][-1:]:
        raise ValueError(
            "`members` and `non_members` must be predictions of one network. Received: logits of "
            f"shape {shapes[0]} and {shapes[1]}. Predict both with the same network."
        )
