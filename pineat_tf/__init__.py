"""Image classifiers that resist adversarial examples and membership inference at once, in Keras 3."""

from pineat_tf import (
    accelerate,
    accounting,
    attacks,
    bounds,
    callbacks,
    companions,
    defences,
    losses,
    masking,
    membership,
    objectives,
    perturbations,
    queries,
    recipes,
    report,
    schedules,
    seeds,
    threat,
    zoo,
)
from pineat_tf.distilled import SelfDistilledTraining
from pineat_tf.free import FreeAdversarialTraining
from pineat_tf.predictions import Predictions, Predictor, predict_logits
from pineat_tf.private import PrivateAdversarialTraining
from pineat_tf.report import Report, evaluate
from pineat_tf.robust_accuracy import Robustness, robustness
from pineat_tf.training import AdversarialTraining
from pineat_tf.types import Ratio
from pineat_tf.verification import Verification, verify

__version__ = "0.1.0"

__all__ = [
    "AdversarialTraining",
    "FreeAdversarialTraining",
    "Predictions",
    "Predictor",
    "PrivateAdversarialTraining",
    "Ratio",
    "Report",
    "Robustness",
    "SelfDistilledTraining",
    "Verification",
    "accelerate",
    "accounting",
    "attacks",
    "bounds",
    "callbacks",
    "companions",
    "defences",
    "evaluate",
    "losses",
    "masking",
    "membership",
    "objectives",
    "perturbations",
    "predict_logits",
    "queries",
    "recipes",
    "report",
    "robustness",
    "schedules",
    "seeds",
    "threat",
    "verify",
    "zoo",
]
