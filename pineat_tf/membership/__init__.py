"""Membership inference: who was in the training set? Scores, thresholds, audits and records."""

from pineat_tf.membership import audit, results, scores, thresholds
from pineat_tf.membership.audit import (
    SIGNALS,
    SIGNALS_FROM_PROBS,
    audit_predictions,
    audit_scores,
)
from pineat_tf.membership.results import MembershipResult
from pineat_tf.membership.scores import (
    confidence_score,
    confidence_score_from_probs,
    cross_entropy_score,
    cross_entropy_score_from_probs,
)
from pineat_tf.membership.thresholds import (
    BestThreshold,
    NoiseFloor,
    Roc,
    TprAtFpr,
    auc,
    best_threshold,
    gap_attack,
    noise_floor,
    roc,
    tie_share,
    tpr_at_fpr,
)

__all__ = [
    "SIGNALS",
    "SIGNALS_FROM_PROBS",
    "BestThreshold",
    "MembershipResult",
    "NoiseFloor",
    "Roc",
    "TprAtFpr",
    "auc",
    "audit",
    "audit_predictions",
    "audit_scores",
    "best_threshold",
    "confidence_score",
    "confidence_score_from_probs",
    "cross_entropy_score",
    "cross_entropy_score_from_probs",
    "gap_attack",
    "noise_floor",
    "results",
    "roc",
    "scores",
    "thresholds",
    "tie_share",
    "tpr_at_fpr",
]
