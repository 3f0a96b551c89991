"""Membership inference: who was in the training set? Scores, thresholds, audits and records."""

# ruff: noqa: F401 (what functions return is here and not on the list)

from pineat_tf.membership import (
    audit,
    bounds,
    calibration,
    canaries,
    label_only,
    learned,
    quantile,
    results,
    risk,
    scores,
    shadow,
    thresholds,
    uncertainty,
)
from pineat_tf.membership.audit import (
    SIGNALS,
    audit_predictions,
    audit_scores,
)
from pineat_tf.membership.bounds import (
    Interval,
    clopper_pearson,
    epsilon_lower_bound,
    positive_predictive_value,
)
from pineat_tf.membership.calibration import Decisions, ScoreSets, calibrated_accuracy
from pineat_tf.membership.canaries import plant_canaries
from pineat_tf.membership.label_only import (
    augmentation_answers,
    augmentation_scores,
    boundary_distance_scores,
    noise_scores,
)
from pineat_tf.membership.learned import AttackModel, attack_model_scores, cross_fitted_scores, logit_features
from pineat_tf.membership.quantile import image_features, quantile_regression_scores
from pineat_tf.membership.results import MembershipResult
from pineat_tf.membership.risk import ClassAudit, audit_classes, privacy_risk_scores
from pineat_tf.membership.scores import (
    confidence_score,
    correctness_score,
    cross_entropy_score,
    entropy_score,
    logit_score,
    modified_entropy_score,
)
from pineat_tf.membership.shadow import lira_scores, relative_likelihood_scores, rmia_scores
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
from pineat_tf.membership.uncertainty import leakage_p_values, permutation_p_values, score_intervals

__all__ = [
    "SIGNALS",
    "AttackModel",
    "MembershipResult",
    "ScoreSets",
    "attack_model_scores",
    "auc",
    "audit_classes",
    "audit_predictions",
    "audit_scores",
    "augmentation_answers",
    "augmentation_scores",
    "best_threshold",
    "boundary_distance_scores",
    "calibrated_accuracy",
    "clopper_pearson",
    "confidence_score",
    "correctness_score",
    "cross_entropy_score",
    "cross_fitted_scores",
    "entropy_score",
    "epsilon_lower_bound",
    "gap_attack",
    "image_features",
    "leakage_p_values",
    "lira_scores",
    "logit_score",
    "modified_entropy_score",
    "noise_floor",
    "noise_scores",
    "permutation_p_values",
    "plant_canaries",
    "positive_predictive_value",
    "privacy_risk_scores",
    "quantile_regression_scores",
    "relative_likelihood_scores",
    "rmia_scores",
    "roc",
    "score_intervals",
    "tie_share",
    "tpr_at_fpr",
]
