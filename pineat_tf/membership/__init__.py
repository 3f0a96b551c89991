"""Membership inference: who was in the training set? Scores, thresholds, audits and records.

The names here are what an audit needs. The types that functions return, and the parts that they are made of, are in the
modules.
"""

from pineat_tf.membership.audit import SIGNALS, audit_predictions, audit_scores
from pineat_tf.membership.bounds import epsilon_lower_bound, positive_predictive_value
from pineat_tf.membership.calibration import ScoreSets, calibrated_accuracy
from pineat_tf.membership.canaries import plant_canaries
from pineat_tf.membership.label_only import augmentation_scores, boundary_distance_scores, noise_scores
from pineat_tf.membership.learned import AttackModel, attack_model_scores, cross_fitted_scores
from pineat_tf.membership.one_run import one_run_audit
from pineat_tf.membership.pools import pool_shift
from pineat_tf.membership.quantile import image_features, quantile_regression_scores
from pineat_tf.membership.results import MembershipResult
from pineat_tf.membership.risk import audit_classes, privacy_risk_scores
from pineat_tf.membership.scores import (
    confidence_score,
    correctness_score,
    cross_entropy_score,
    entropy_score,
    logit_score,
    modified_entropy_score,
)
from pineat_tf.membership.shadow import bavaria_scores, lira_scores, relative_likelihood_scores, rmia_scores
from pineat_tf.membership.thresholds import auc, best_threshold, gap_attack, noise_floor, roc, tnr_at_fnr, tpr_at_fpr
from pineat_tf.membership.uncertainty import leakage_p_values, score_intervals

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
    "augmentation_scores",
    "bavaria_scores",
    "best_threshold",
    "boundary_distance_scores",
    "calibrated_accuracy",
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
    "one_run_audit",
    "plant_canaries",
    "pool_shift",
    "positive_predictive_value",
    "privacy_risk_scores",
    "quantile_regression_scores",
    "relative_likelihood_scores",
    "rmia_scores",
    "roc",
    "score_intervals",
    "tnr_at_fnr",
    "tpr_at_fpr",
]


def __dir__() -> list[str]:
    """Lists the names of an audit, without the modules."""
    return __all__
