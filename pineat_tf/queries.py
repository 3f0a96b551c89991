"""Queries: what an attacker who knows the training shows the network in place of an image.

Networks are trained on adversarial examples, reverse-symmetry examples and random points of the ball, so an attacker
who knows that asks for these as well. The protocol is that of attacks, `query(logits_fn, x, y, seed=0)`, which gives
images of the shape and dtype of `x` without gradient; so `Predictor(network, query)` streams it, and a plain function
will do. `logits_fn` maps images to logits, for queries that need them.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from pineat_tf import threat
from pineat_tf.checks import check_attack, check_batch, check_bounds, check_epsilon, check_positive
from pineat_tf.companions import ReverseSymmetry
from pineat_tf.data import Data
from pineat_tf.predictions import Predictions, Predictor
from pineat_tf.projections import Norm, clip_to_bounds, in_single, rounded_towards
from pineat_tf.seeds import normal_like
from pineat_tf.serialization import serializable
from pineat_tf.types import Bounds, LogitsFn, Seed

__all__ = [
    "GaussianNoise",
    "Natural",
    "RandomInBall",
    "ReverseSymmetryQuery",
    "check_same_order",
    "mean_scores",
    "predict_queries",
]


@serializable
@dataclasses.dataclass(frozen=True, kw_only=True)
class Natural:
    """The images as they are.

    Example:
        >>> bool(tf.reduce_all(Natural()(network, x, y, seed=0) == x))
        True
    """

    def __call__(self, logits_fn: LogitsFn, x: tf.Tensor, y: tf.Tensor, *, seed: Seed = 0) -> tf.Tensor:
        return tf.stop_gradient(check_batch(x, y)[0])


@serializable
@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomInBall:
    """Uniformly random points of the ball, clipped to the pixel range: what AdvRan is trained on.

    Attributes:
        epsilon: radius of the ball, > 0, on the scale of the pixels.
        norm: "linf" or "l2".
        bounds: the pixel range, or None for no limits.

    Example:
        >>> predict_logits(network, (x_test, y_test), attack=RandomInBall(epsilon=0.1), seed=0)

    Reference:
        PINEAT, section 4.2 (AdvRan); `companions.RandomCompanions`.
    """

    epsilon: float
    norm: str = "linf"
    bounds: Bounds | None = (0.0, 1.0)

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)
        object.__setattr__(self, "norm", Norm.of(self.norm).name)
        check_bounds(self.bounds)
        threat.check_scale(self.epsilon, self.bounds, norm=self.norm)

    def __call__(self, logits_fn: LogitsFn, x: tf.Tensor, y: tf.Tensor, *, seed: Seed = 0) -> tf.Tensor:
        x, _ = check_batch(x, y, bounds=self.bounds)
        noise = Norm.of(self.norm).uniform_in_ball(in_single(x), self.epsilon, seed)
        return _noisy(x, noise, self.bounds)


@serializable
@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussianNoise:
    """The images plus normal noise, pixel by pixel, clipped to the pixel range.

    Attributes:
        stddev: standard deviation of the noise, > 0, on the scale of the pixels.
        bounds: the pixel range, or None for no limits.

    Example:
        >>> noisy = GaussianNoise(stddev=0.1)(network, x, y, seed=0)
    """

    stddev: float
    bounds: Bounds | None = (0.0, 1.0)

    def __post_init__(self) -> None:
        check_positive("stddev", self.stddev, "It is the standard deviation of the noise, e.g. 0.1.")
        check_bounds(self.bounds)

    def __call__(self, logits_fn: LogitsFn, x: tf.Tensor, y: tf.Tensor, *, seed: Seed = 0) -> tf.Tensor:
        x, _ = check_batch(x, y, bounds=self.bounds)
        return _noisy(x, normal_like(in_single(x), seed, self.stddev), self.bounds)


@serializable
@dataclasses.dataclass(frozen=True, kw_only=True)
class ReverseSymmetryQuery(threat.InBallAndRange):
    """The mirror image of an adversarial example, `x - (x_adv - x)`: what PINEAT-1/1 is trained on.

    With the same seed it mirrors the very examples that `attack` itself would show.

    Attributes:
        attack: makes the adversarial examples that are mirrored.
        epsilon, norm, bounds, keep_in_range: as `companions.ReverseSymmetry` takes them. Where they are
            not set, they are those of the attack once the query is made.

    Raises:
        ValueError: if one of them contradicts the attack, or neither gives a radius.

    Example:
        >>> attack = pgd(epsilon=0.1, step_size=0.0125, num_steps=20)
        >>> predict_logits(network, train, attack=ReverseSymmetryQuery(attack=attack, epsilon=0.1))

    Reference:
        PINEAT, section 3.3; `companions.ReverseSymmetry`.
    """

    attack: Callable[..., tf.Tensor]
    keep_in_range: bool = False

    def __post_init__(self) -> None:
        check_attack("attack", self.attack)
        super().__post_init__()
        adopted = threat.adopt(self._companions(), self.attack)
        for name in ("epsilon", "norm", "bounds"):
            object.__setattr__(self, name, getattr(adopted, name))

    def __call__(self, logits_fn: LogitsFn, x: tf.Tensor, y: tf.Tensor, *, seed: Seed = 0) -> tf.Tensor:
        x, y = check_batch(x, y)
        x_adv = self.attack(logits_fn, x, y, seed=seed)
        (x_rs,) = self._companions()(x, (x_adv,), num=1, seed=seed)
        return x_rs

    def _companions(self) -> ReverseSymmetry:
        return ReverseSymmetry(
            epsilon=self.epsilon, norm=self.norm, bounds=self.bounds, keep_in_range=self.keep_in_range
        )


def predict_queries(
    network: keras.Model,
    data: Data,
    queries: Mapping[str, Callable | None],
    *,
    seed: Seed = 0,
    batch_size: int = 256,
) -> dict[str, Predictions]:
    """Predicts the logits of a network on several queries of the same images.

    Each query is one pass over the data. All have the same seed, so that an attack and its `ReverseSymmetryQuery` show
    `x_adv` and the `x_rs` that belongs to it (at the price of a second attack).

    Args:
        network: gives logits of shape `(batch, num_classes)`.
        data: two arrays (images, labels), or a finite dataset of batches in a fixed order.
        queries: a name for each query, attack, or None (natural images).
        seed: randomness of the queries.
        batch_size: images predicted at once, where the data is arrays.

    Returns:
        Predictions by name, all in the order of the data.

    Raises:
        ValueError: if there is no query, the data comes in another order every time, the network ends in a softmax, or
            images or labels are not as they must be.

    Example:
        >>> attack = pgd(epsilon=0.1, step_size=0.0125, num_steps=20)
        >>> mirrored = ReverseSymmetryQuery(attack=attack, epsilon=0.1)
        >>> seen = predict_queries(network, train, {"adversarial": attack, "reverse_symmetry": mirrored})
        >>> scores = mean_scores([logit_score(p.labels, p.logits) for p in seen.values()])
    """
    if not queries:
        raise ValueError("There must be at least one query. Received: none. Give e.g. {'natural': None}.")
    predictions, labels = {}, None
    for name, query in queries.items():
        predictions[name] = Predictor(network, query)(data, seed=seed, batch_size=batch_size)
        labels = check_same_order(predictions[name].labels, labels)
    return predictions


def mean_scores(scores: Sequence) -> np.ndarray:
    """Averages the scores of several queries, example by example.

    Args:
        scores: one vector of shape `(num,)` a query, larger = more likely a member.

    Returns:
        Their means, shape `(num,)`, float64.

    Raises:
        ValueError: if there is none, or they have different shapes.

    Example:
        >>> mean_scores([[1.0, 2.0], [3.0, 0.0]])
        array([2., 1.])

    Reference:
        Carlini et al., "Membership Inference Attacks From First Principles", S&P 2022 (several queries an example).
    """
    vectors = [np.asarray(vector, np.float64) for vector in scores]
    shapes = [vector.shape for vector in vectors]
    if len(set(shapes)) != 1 or len(shapes[0]) != 1:
        raise ValueError(
            f"Scores must be at least one vector, all of one length. Received: shapes {shapes}. Give one vector of "
            "scores for each query, of the same examples in the same order."
        )
    return np.mean(vectors, axis=0)


def check_same_order(labels: np.ndarray, first: np.ndarray | None) -> np.ndarray:
    """Gives the labels of a pass over the data back; raises `ValueError` unless they are those of the first pass.

    Example:
        >>> check_same_order(np.array([0, 1]), None)
        array([0, 1])
    """
    if first is not None and not np.array_equal(labels, first):
        raise ValueError(
            "The data must come in the same order every time. Received: a dataset whose labels differ from pass to "
            "pass, e.g. by `shuffle`. Give it unshuffled, or with `reshuffle_each_iteration=False`."
        )
    return labels


def _noisy(x: tf.Tensor, noise: tf.Tensor, bounds: Bounds | None) -> tf.Tensor:
    """The images plus noise of float32 or finer, within the pixel range and in their own dtype."""
    return tf.stop_gradient(rounded_towards(clip_to_bounds(in_single(x) + noise, bounds), x))
