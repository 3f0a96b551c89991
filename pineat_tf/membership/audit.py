"""From predictions or scores to records: every membership signal, measured alike."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from pineat_tf.checks import check_choice, check_count
from pineat_tf.membership import scores, thresholds
from pineat_tf.membership.calibration import ScoreSets, calibrate, score_sets
from pineat_tf.membership.results import MembershipResult
from pineat_tf.membership.thresholds import REPORTED_FPRS
from pineat_tf.membership.uncertainty import leakage_p_values, score_intervals

Score = Callable[..., tf.Tensor]
"""Maps `(labels, outputs, *, from_logits=True)` to scores of shape `(num,)`, larger = more likely a member."""

SIGNALS: dict[str, Score] = {
    "cross_entropy": scores.cross_entropy_score,
    "confidence": scores.confidence_score,
    "correctness": scores.correctness_score,
    "entropy": scores.entropy_score,
    "modified_entropy": scores.modified_entropy_score,
}
"""Scores of predictions by name. Add an entry to add a signal."""


def audit_scores(
    member_scores,
    non_member_scores,
    *,
    signal: str,
    queries: str,
    calibration: str = "in-sample",
    shadow: ScoreSets | None = None,
    member_labels=None,
    non_member_labels=None,
    per_class: bool = False,
    num_bootstrap: int = 0,
    confidence: float = 0.95,
    seed: int = 0,
) -> MembershipResult:
    """Measures what scores reveal about membership.

    Args:
        member_scores: scores of training members, shape `(num_members,)`, larger = more member.
        non_member_scores: scores of unseen examples, shape `(num_non_members,)`.
        signal: what to call the score in the record.
        queries: "natural" or "adversarial", the inputs that were scored.
        calibration: what the threshold is chosen on: "in-sample", the scores it is judged on; "held-out", a random
            half that is not judged; "shadow", the scores of a shadow model.
        shadow: the `ScoreSets` of a shadow model (with labels if `per_class`), for "shadow" only.
        member_labels: class numbers of the members, shape `(num_members,)`; needed for `per_class`. Where known,
            "held-out" halves each class.
        non_member_labels: class numbers of the non-members, shape `(num_non_members,)`.
        per_class: whether each class gets its own threshold; a class without both members and non-members to choose
            on falls back on the threshold of all.
        num_bootstrap: draws for the intervals, e.g. 1000; 0 for no intervals and no p-values.
        confidence: how often an interval covers the true figure, in [0, 1).
        seed: of the held-out half and of the bootstrap, >= 0.

    Returns:
        The record. AUC and TPR at a low FPR need no threshold and are of all scores, whatever the calibration.

    Raises:
        ValueError: if scores are empty, not a vector, NaN or `+inf`, if labels do not fit, if what the calibration
            needs is missing, or an option is out of range.

    Example:
        >>> result = audit_scores([3.0, 2.0], [2.0, 1.0], signal="margin", queries="natural")
        >>> result.balanced_accuracy, result.threshold, result.auc, result.tie_share
        (0.75, 3.0, 0.875, 0.5)

    Reference:
        Song, Shokri, Mittal, CCS 2019, section 3 (in-sample); Song and Mittal, USENIX Security 2021, section 3.1
        (shadow, per class); PINEAT paper, section 4.3.
    """
    check_count("num_bootstrap", num_bootstrap, 0, "It is how often the scores are drawn anew; 0 for no intervals.")
    target = score_sets(member_scores, non_member_scores, member_labels, non_member_labels)
    shadow = None if shadow is None else score_sets(*shadow, prefix="shadow.")
    found = calibrate(target, calibration=calibration, shadow=shadow, per_class=per_class, seed=seed)
    members, non_members, *_ = target
    curve = thresholds.roc(members, non_members)
    result = MembershipResult(
        signal=signal,
        queries=queries,
        calibration=calibration,
        num_members=len(members),
        num_non_members=len(non_members),
        balanced_accuracy=found.decisions.balanced_accuracy,
        threshold=found.thresholds.overall,
        auc=thresholds.auc(curve),
        tpr_at_fpr=tuple(thresholds.tpr_at_fpr(curve, fpr) for fpr in REPORTED_FPRS),
        noise_floor=found.noise_floor,
        tie_share=thresholds.tie_share(members, non_members),
        decisions=found.decisions,
        class_thresholds=found.thresholds.by_class,
    )
    return _with_uncertainty(result, target, num_bootstrap, confidence, seed) if num_bootstrap else result


def audit_predictions(
    members,
    non_members,
    *,
    queries: str,
    signals: Sequence[str] = tuple(SIGNALS),
    shadow: tuple | None = None,
    **options,
) -> tuple[MembershipResult, ...]:
    """Measures what a network's predictions reveal about membership.

    Args:
        members: predictions for training members: any object with `.logits` of shape
            `(num, num_classes)` and `.labels` of shape `(num,)`.
        non_members: the same for unseen examples.
        queries: "natural" or "adversarial", the inputs that were predicted.
        signals: names in `SIGNALS`; all of them unless you choose.
        shadow: a shadow model's predictions, (of its members, of its non-members), for `calibration="shadow"`.
        **options: `calibration`, `per_class`, `num_bootstrap`, `confidence` and `seed` of `audit_scores`.

    Returns:
        One record per signal, in the order of `signals`.

    Raises:
        ValueError: if a signal is unknown, predictions do not fit (see `scores`), or as `audit_scores`.

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
    if shadow is not None:
        _check_predictions(*shadow)

    def audited(signal: str) -> MembershipResult:
        scored = _scored(signal, members, non_members)
        return audit_scores(
            **scored._asdict(),
            signal=signal,
            queries=queries,
            shadow=None if shadow is None else _scored(signal, *shadow),
            **options,
        )

    return tuple(map(audited, signals))


def _scored(signal: str, members, non_members) -> ScoreSets:
    scored = (SIGNALS[signal](predictions.labels, predictions.logits) for predictions in (members, non_members))
    return ScoreSets(*scored, members.labels, non_members.labels)


def _with_uncertainty(
    result: MembershipResult, scores: ScoreSets, num_bootstrap: int, confidence: float, seed: int
) -> MembershipResult:
    in_sample = result.calibration == "in-sample"
    decisions = None if in_sample else result.decisions
    members, non_members, *_ = scores
    intervals = score_intervals(
        members, non_members, decisions=decisions, num_bootstrap=num_bootstrap, confidence=confidence, seed=seed
    )
    p_values = leakage_p_values(members, non_members, decisions=decisions)
    if in_sample and result.class_thresholds is not None:  # what is known is of one threshold for all
        for figures in (intervals, p_values):
            for metric in ("balanced_accuracy", "advantage"):
                figures.pop(metric, None)
    return dataclasses.replace(result, confidence=confidence, intervals=intervals, p_values=p_values)


def _check_predictions(members, non_members) -> None:
    for name, predictions in (("members", members), ("non_members", non_members)):
        if not (hasattr(predictions, "logits") and hasattr(predictions, "labels")):
            raise ValueError(
                f"`{name}` must have `.logits` and `.labels`. Received: "
                f"{type(predictions).__name__}. Give e.g. the result of `predict_logits`."
            )
    shapes = tuple(np.shape(members.logits)), tuple(np.shape(non_members.logits))
    if shapes[0][1:] != shapes[1][1:]:
        raise ValueError(
            "`members` and `non_members` must be predictions of one network. Received: logits of "
            f"shape {shapes[0]} and {shapes[1]}. Predict both with the same network."
        )
