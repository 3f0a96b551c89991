"""Membership scores of attack models: classifiers that learn from examples what members look like.

Larger = more likely a member. No example is scored by a model that was fitted on it: models learn from examples of a
shadow model, or from the other folds. Examples are predictions, any object with `.logits` of shape `(num, num_classes)`
and `.labels` of shape `(num,)`, or features of your own of shape `(num, dim)`. scikit-learn is imported by the
functions that need it, as most uses of the library do without them.
"""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from pineat_tf.checks import check_choice, check_count
from pineat_tf.membership.scores import (
    checked_predictions,
    correctness_score,
    cross_entropy_score,
    entropy_score,
    logit_score,
)

__all__ = ["KINDS", "AttackModel", "attack_model_scores", "cross_fitted_scores", "logit_features"]

KINDS = ("logistic", "mlp")
"""Attack models that there are: logistic regression, and a network with one hidden layer of 64 units."""

_FEWEST_EXAMPLES = 10  # of each kind: a network holds a tenth back, in which both must occur


def logit_features(predictions: Any) -> np.ndarray:
    """Describes each prediction by what membership may show in.

    Returns:
        Features of shape `(num, num_classes + 4)`, float64: the log-probabilities of all classes in falling order, then
        log p_y, its log-odds log(p_y / (1 - p_y)) (which still tells sure predictions apart), the negative entropy, and
        1 where the prediction is correct, else 0.

    Raises:
        ValueError: if logits or labels do not fit (see `scores`).

    Reference:
        Salem et al., "ML-Leaks", NDSS 2019, section III (sorted posteriors); Nasr, Shokri and Houmansadr, S&P 2019
        (with the label).
    """
    labels, logits = checked_predictions(predictions.labels, predictions.logits)
    of_label = [score(labels, logits) for score in (cross_entropy_score, logit_score, entropy_score, correctness_score)]
    return np.column_stack([tf.sort(tf.nn.log_softmax(logits), direction="DESCENDING"), *of_label])


@dataclasses.dataclass(frozen=True, eq=False)
class AttackModel:
    """A classifier of members and non-members; make it by `AttackModel.fit`.

    Attributes:
        pipeline: scikit-learn's, fitted: standardised features, then the classifier.

    Example:
        >>> model = AttackModel.fit(shadow_members, shadow_non_members, kind="mlp")
        >>> result = audit_scores(model.scores(members), model.scores(non_members), signal="mlp", queries="natural")
    """

    pipeline: Any

    @classmethod
    def fit(cls, members: Any, non_members: Any, *, kind: str = "logistic", seed: int = 0) -> "AttackModel":
        """Fits a model on examples whose membership is known, both kinds weighing the same.

        Args:
            members: at least 10 examples.
            non_members: at least 10 examples.
            kind: "logistic" or "mlp".
            seed: randomness of "mlp", a whole number >= 0.

        Raises:
            ValueError: if there are fewer of a kind, or an argument does not fit.
        """
        return cls._fit(*_known(members, non_members), kind, seed)

    @classmethod
    def _fit(cls, features: np.ndarray, is_member: np.ndarray, kind: str, seed: int) -> "AttackModel":
        from sklearn.utils.class_weight import compute_sample_weight

        pipeline = _pipeline(kind, seed)
        weights = {f"{pipeline.steps[-1][0]}__sample_weight": compute_sample_weight("balanced", is_member)}
        return cls(pipeline.fit(features, is_member, **weights))

    def scores(self, examples: Any) -> np.ndarray:
        """Scores examples by the log-odds that they are members, which do not saturate as probabilities do.

        Returns:
            Scores of shape `(num,)`, float64; 0 where both are equally likely, if they are equally many.

        Raises:
            ValueError: if they are not like those that the model was fitted on.
        """
        features, wanted = _features("examples", examples), self.pipeline.n_features_in_
        if features.shape[1] != wanted:
            raise ValueError(
                f"`examples` must have the features that the model was fitted on. Received: {features.shape[1]} "
                f"features, not {wanted}. Give predictions of as many classes."
            )
        return self._log_odds(features)

    def _log_odds(self, features: np.ndarray) -> np.ndarray:
        classifier = self.pipeline.steps[-1][1]
        if hasattr(classifier, "decision_function"):
            return np.asarray(self.pipeline.decision_function(features))
        # A network gives probabilities only, which tie at 1: what they are the logistic function of is what is wanted.
        outputs = self.pipeline[:-1].transform(features)
        for weights, bias in zip(classifier.coefs_[:-1], classifier.intercepts_[:-1]):
            outputs = np.maximum(outputs @ weights + bias, 0.0)
        return np.asarray((outputs @ classifier.coefs_[-1] + classifier.intercepts_[-1])[:, 0])


def attack_model_scores(
    train_members: Any, train_non_members: Any, members: Any, non_members: Any, *, kind: str = "logistic", seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Scores examples by an attack model that was fitted on others, e.g. on those of a shadow model.

    Args:
        train_members: at least 10 examples known to be members of a network like the one under audit.
        train_non_members: at least 10 examples known not to be.
        members: members of the network under audit, none of which the attacker knows.
        non_members: unseen examples.
        kind: "logistic" or "mlp".
        seed: randomness of "mlp", a whole number >= 0.

    Returns:
        Log-odds of the members and of the non-members, each of shape `(num,)`, float64.

    Raises:
        ValueError: if there are fewer of a kind to learn from, or an argument does not fit.

    Example:
        >>> scores = attack_model_scores(shadow_members, shadow_non_members, members, non_members, kind="mlp")
        >>> audit_scores(*scores, signal="attack model", queries="natural").auc

    Reference:
        Shokri et al., "Membership inference attacks against machine learning models", S&P 2017, section V-D; Salem et
        al., "ML-Leaks", NDSS 2019, section III.
    """
    model = AttackModel.fit(train_members, train_non_members, kind=kind, seed=seed)
    return model.scores(members), model.scores(non_members)


def cross_fitted_scores(
    members: Any, non_members: Any, *, kind: str = "logistic", num_folds: int = 5, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Scores each example by an attack model that was fitted on the other folds, so held out.

    It is an attacker who knows the membership of most examples of this very network, and bounds from above what one
    with a shadow model can do by the same features. Call the calibration of its record "held-out" in what you write.

    Args:
        members: members of the network under audit.
        non_members: unseen examples.
        kind: "logistic" or "mlp".
        num_folds: parts, >= 2, each with its share of members and non-members.
        seed: randomness of the parts and of "mlp", a whole number >= 0.

    Returns:
        Log-odds of the members and of the non-members, each of shape `(num,)`, float64, in their order.

    Raises:
        ValueError: if there are too few of a kind to learn from, or an argument does not fit.

    Example:
        >>> of_members, of_non_members = cross_fitted_scores(members, non_members)
        >>> audit_scores(of_members, of_non_members, signal="logistic", queries="natural").auc > 0
        True

    Reference:
        Nasr, Shokri and Houmansadr, "Comprehensive privacy analysis of deep learning", S&P 2019
        (supervised: the attacker knows a part of the training set).
    """
    from sklearn.model_selection import StratifiedKFold

    check_count("num_folds", num_folds, 2, "Each part is scored by a model that was fitted on the others.")
    _check_seed(seed)
    features, is_member = _known(members, non_members, fewest=max(_FEWEST_EXAMPLES + 5, num_folds))
    scores = np.empty(len(features))
    folds = StratifiedKFold(num_folds, shuffle=True, random_state=seed)
    for known, held_out in folds.split(features, is_member):
        model = AttackModel._fit(features[known], is_member[known], kind, seed)
        scores[held_out] = model._log_odds(features[held_out])
    return scores[is_member], scores[~is_member]


def _pipeline(kind: str, seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    check_choice("kind", kind, KINDS)
    _check_seed(seed)
    if kind == "logistic":
        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    # With scikit-learn's small steps the accuracy on the tenth held back stands still at once, and training ends.
    options = {"alpha": 1.0, "learning_rate_init": 0.01, "early_stopping": True}
    return make_pipeline(StandardScaler(), MLPClassifier((64,), **options, random_state=seed))


def _known(members: Any, non_members: Any, fewest: int = _FEWEST_EXAMPLES) -> tuple[np.ndarray, np.ndarray]:
    """Features of both, and which of them are members."""
    parts = _features("members", members), _features("non_members", non_members)
    dims, sizes = [part.shape[1] for part in parts], [len(part) for part in parts]
    if dims[0] != dims[1]:
        raise ValueError(
            f"Members and non-members must have the same features. Received: {dims[0]} and {dims[1]} of them. "
            "Predict both with the same network."
        )
    if min(sizes) < fewest:
        raise ValueError(
            f"An attack model needs at least {fewest} members and non-members to learn from. Received: {sizes[0]} "
            f"members, {sizes[1]} non-members. Give more of them; hundreds are better."
        )
    return np.concatenate(parts), np.arange(sum(sizes)) < sizes[0]


def _features(name: str, examples: Any) -> np.ndarray:
    """Returns the features of predictions, or an array of features itself."""
    if hasattr(examples, "logits") and hasattr(examples, "labels"):
        return logit_features(examples)
    try:
        rows = np.asarray(examples, np.float64)
        received = f"shape {rows.shape}, all finite: {np.isfinite(rows).all()}"
    except (TypeError, ValueError):
        rows, received = np.empty(0), type(examples).__name__
    if rows.ndim != 2 or not rows.size or not np.isfinite(rows).all():
        raise ValueError(
            f"`{name}` must be predictions with `.logits` and `.labels`, or features: finite numbers of shape "
            f"(num, dim). Received: {received}. Give e.g. the result of `predict_logits`."
        )
    return rows


def _check_seed(seed: int) -> None:
    check_count("seed", seed, 0, "scikit-learn takes a whole number of 32 bits.")
