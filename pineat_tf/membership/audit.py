"""From predictions or scores to records: every membership signal, measured alike."""

import dataclasses
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from pineat_tf.checks import check_choice, check_count
from pineat_tf.membership import scores, thresholds
from pineat_tf.membership.calibration import ScoreSets, calibrate, score_sets
from pineat_tf.membership.results import MembershipResult
from pineat_tf.membership.uncertainty import leakage_p_values, score_intervals

__all__ = ["SIGNALS", "audit_predictions", "audit_scores"]

SIGNALS: dict[str, Callable[..., tf.Tensor]] = {
    "cross_entropy": scores.cross_entropy_score,
    "confidence": scores.confidence_score,
    "correctness": scores.correctness_score,
    "entropy": scores.entropy_score,
    "modified_entropy": scores.modified_entropy_score,
}
"""Scores of predictions by name: `(labels, outputs, *, from_logits=True)` -> `(num,)`. Add an entry to add one."""

_OF_NO_LABEL = ("entropy",)  # under attack, members may well be the less sure ones
_DEVIATIONS = 5.0  # of the AUC, beyond which the direction of scores is in doubt


def audit_scores(
    member_scores: Any,
    non_member_scores: Any,
    *,
    signal: str,
    queries: str,
    calibration: str = "in-sample",
    shadow: ScoreSets | None = None,
    member_labels: Any = None,
    non_member_labels: Any = None,
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
    check_count("num_bootstrap", num_bootstrap, 0, "It is how many draws are made; 0 for no intervals.")
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
        tpr_at_fpr=tuple(thresholds.tpr_at_fpr(curve, fpr) for fpr in thresholds.REPORTED_FPRS),
        noise_floor=found.noise_floor,
        tie_share=thresholds.tie_share(members, non_members),
        decisions=found.decisions,
        class_thresholds=found.thresholds.by_class,
    )
    _warn_of_direction(result)
    return _with_uncertainty(result, target, num_bootstrap, confidence, seed) if num_bootstrap else result


def _warn_of_direction(result: MembershipResult) -> None:
    """Warns where non-members have larger scores, far beyond chance, which no balanced accuracy shows."""
    num, others = result.num_members, result.num_non_members
    deviation = math.sqrt((num + others + 1) / (12 * num * others))  # of the AUC where nothing leaks
    if 0.5 - result.auc > _DEVIATIONS * deviation and result.signal not in _OF_NO_LABEL:
        warnings.warn(
            f"Non-members have larger scores of {result.signal!r} than members, by an AUC of {result.auc:.4f}. Larger "
            "must mean more likely a member: negate losses and distances. If it does, the pools differ in more than "
            "membership: see `pool_shift`.",
            stacklevel=3,
        )


def audit_predictions(
    members: Any,
    non_members: Any,
    *,
    queries: str,
    signals: Sequence[str] = tuple(SIGNALS),
    shadow: tuple[Any, Any] | None = None,
    **options: Any,
) -> tuple[MembershipResult, ...]:
    """Measures what a network's predictions reveal about membership.

    Args:
        members: predictions for training members: any object with `.logits` of shape `(num, num_classes)` and `.labels`
            of shape `(num,)`.
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
    for pair in ((members, non_members), shadow):
        if pair is not None:
            scores.check_predictions(members=pair[0], non_members=pair[1])

    def audited(signal: str) -> MembershipResult:
        of_shadow = None if shadow is None else _scored(signal, *shadow)
        scored = _scored(signal, members, non_members)._asdict()
        return audit_scores(**scored, signal=signal, queries=queries, shadow=of_shadow, **options)

    return tuple(map(audited, signals))


def _scored(signal: str, members: Any, non_members: Any) -> ScoreSets:
    score = SIGNALS[signal]
    member_scores, non_member_scores = (score(seen.labels, seen.logits) for seen in (members, non_members))
    return ScoreSets(member_scores, non_member_scores, members.labels, non_members.labels)


def _with_uncertainty(
    result: MembershipResult, sets: ScoreSets, num_bootstrap: int, confidence: float, seed: int
) -> MembershipResult:
    in_sample = result.calibration == "in-sample"
    decisions = None if in_sample else result.decisions
    intervals = score_intervals(
        *sets[:2], decisions=decisions, num_bootstrap=num_bootstrap, confidence=confidence, seed=seed
    )
    p_values = leakage_p_values(*sets[:2], decisions=decisions)
    if in_sample and result.class_thresholds is not None:  # what is known is of one threshold for all
        for metric in ("balanced_accuracy", "advantage"):
            intervals.pop(metric)
            p_values.pop(metric, None)
    return dataclasses.replace(result, confidence=confidence, intervals=intervals, p_values=p_values)
