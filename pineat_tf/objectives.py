"""Objectives: the loss of one update of the weights.

The protocol is one call, `objective(logits_fn, x_nat, x, y)`, and a plain function will do:

- `logits_fn`: maps images to logits of shape `(batch, num_classes)`, by the network in training mode.
- `x`: the example that the update is about, an adversarial one or a companion; shape `(batch, ...)`.
- `x_nat`: the natural image that it belongs to, like `x`.
- `y`: class numbers of shape `(batch,)`, or rows of shape `(batch, num_classes)`.
- Result: the loss of each example, shape `(batch,)`, and the logits of `x`, which metrics see.

In an update by a natural image `x` is `x_nat` itself, the same object, so that an objective can spare what it would
compute twice. The kinds of this module are frozen dataclasses, which Keras can save.
"""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from pineat_tf.bounds.propagation import least_margins
from pineat_tf.checks import check_choice, check_count, check_part, check_positive, check_share
from pineat_tf.distribution import sum_over_replicas
from pineat_tf.losses import (
    at_least_float32,
    class_numbers,
    cross_entropy,
    kl_divergence,
    label_rows,
    smoothed_cross_entropy,
)
from pineat_tf.schedules import check_ramp, ramp
from pineat_tf.serialization import serializable
from pineat_tf.threat import InBallAndRange
from pineat_tf.types import LogitsFn, TrainingLogits

__all__ = ["IKL", "MART", "MIXTURES", "SCORE", "CrossEntropy", "IntervalBounds", "Trades"]


@serializable
@dataclasses.dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    """Cross-entropy of the example (PGD- and Dist-based training: alpha = 0 in the paper's section 2.1).

    Attributes:
        label_smoothing: share of the label that is spread over all classes, in [0, 1).

    Example:
        >>> loss, logits = CrossEntropy(label_smoothing=0.1)(network, x, x, y)

    Reference:
        Szegedy et al., "Rethinking the Inception architecture for computer vision", CVPR 2016, section 7.
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_share("label_smoothing", self.label_smoothing)

    def __call__(
        self, logits_fn: LogitsFn, x_nat: tf.Tensor, x: tf.Tensor, y: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        logits = logits_fn(x)
        return smoothed_cross_entropy(y, logits, self.label_smoothing), logits


@serializable
@dataclasses.dataclass(frozen=True, kw_only=True)
class Trades:
    """Cross-entropy of the natural image + beta * divergence of the example's prediction from the natural one.

    Attributes:
        beta: weight of the divergence, > 0 (the authors use 6, the paper's reference [20] uses 1).
        detach_natural: keep the divergence from changing the natural prediction. The authors let it; the code of
            reference [20] does not.
        label_smoothing: share of the label that is spread over all classes, in [0, 1).

    Example:
        >>> loss, logits = Trades(beta=6.0)(network, x, x_adv, y)

    Reference:
        Zhang et al., "Theoretically principled trade-off between robustness and accuracy", ICML 2019, eq. (5).
    """

    beta: float
    detach_natural: bool = False
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_share("label_smoothing", self.label_smoothing)
        check_positive("beta", self.beta, "It weighs robustness against accuracy, e.g. 6.0.")

    def __call__(
        self, logits_fn: LogitsFn, x_nat: tf.Tensor, x: tf.Tensor, y: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        if x is x_nat:  # the divergence of a prediction from itself is 0, and so is its gradient
            return CrossEntropy(label_smoothing=self.label_smoothing)(logits_fn, x_nat, x, y)
        natural_logits, logits = logits_fn(x_nat), logits_fn(x)
        target = tf.stop_gradient(natural_logits) if self.detach_natural else natural_logits
        natural_loss = smoothed_cross_entropy(y, natural_logits, self.label_smoothing)
        return natural_loss + self.beta * kl_divergence(target, logits), logits


@serializable
@dataclasses.dataclass(frozen=True, kw_only=True)
class MART:
    """Boosted cross-entropy of the example + beta * divergence, by how wrong the natural prediction is.

    The boost is -log(1.0001 - p) of the likeliest wrong class of the example. The attack is PGD on the cross-entropy.

    Attributes:
        beta: weight of the divergence, > 0. The authors have 6 in their code, 5 in the paper.

    Example:
        >>> loss, logits = MART(beta=6.0)(network, x, x_adv, y)

    Reference:
        Wang et al., "Improving adversarial robustness requires revisiting misclassified examples", ICLR 2020, eq. (11).
    """

    beta: float = 6.0

    def __post_init__(self) -> None:
        check_positive("beta", self.beta, "It weighs robustness against accuracy, e.g. 6.0.")

    def __call__(
        self, logits_fn: LogitsFn, x_nat: tf.Tensor, x: tf.Tensor, y: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        logits = logits_fn(x)
        probs = _probs(logits)
        rows = tf.cast(label_rows(y, probs.shape[-1]), probs.dtype)
        others = tf.one_hot(class_numbers(y), probs.shape[-1], on_value=0.0, off_value=1.0, dtype=probs.dtype)
        wrong = tf.reduce_max(probs * others, axis=-1)
        boosted = cross_entropy(y, logits) - tf.math.log(1.0001 - wrong + 1e-12)
        if x is x_nat:  # the divergence of a prediction from itself is 0, and so is its gradient
            return boosted, logits
        natural_logits = logits_fn(x_nat)
        missing = 1.0000001 - tf.reduce_sum(rows * _probs(natural_logits), axis=-1)
        return boosted + self.beta * missing * kl_divergence(natural_logits, logits), logits


@serializable
@dataclasses.dataclass(frozen=True, kw_only=True)
class SCORE:
    """Squared error of the natural prediction + beta * squared distance of the example's prediction from it.

    `attacks.pgd(loss="squared_distance")` climbs the second term, as the authors do.

    Attributes:
        beta: weight of the distance, > 0.
        label_smoothing: share of the label that is given to the other classes, in [0, 1).

    Example:
        >>> loss, logits = SCORE()(network, x, x_adv, y)

    Reference:
        Pang et al., "Robustness and accuracy could be reconcilable by (proper) definition", ICML 2022, eq. (12).
    """

    beta: float = 4.0
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        check_share("label_smoothing", self.label_smoothing)
        check_positive("beta", self.beta, "It weighs robustness against accuracy, e.g. 4.0.")

    def __call__(
        self, logits_fn: LogitsFn, x_nat: tf.Tensor, x: tf.Tensor, y: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        natural_logits = logits_fn(x_nat)
        natural = _probs(natural_logits)
        rows = tf.cast(label_rows(y, natural.shape[-1]), natural.dtype)
        to_others = self.label_smoothing / (natural.shape[-1] - 1)
        target = (1.0 - self.label_smoothing) * rows + to_others * (1.0 - rows)
        loss = _squared_distance(natural, target)
        if x is x_nat:
            return loss, natural_logits
        logits = logits_fn(x)
        return loss + self.beta * _squared_distance(_probs(logits), natural), logits


@serializable
@dataclasses.dataclass(frozen=True, kw_only=True)
class IKL:
    """Natural cross-entropy + improved divergence: both predictions move, by class-wise weights.

    The divergence is `alpha` times that of the example's prediction from the natural one, which is held fixed, plus
    `beta / 4` times the sum over pairs of classes j, k of `s_j s_k (d_j - d_k)^2`, d the natural logits minus the
    example's. The weights s are the mean prediction, softened by a temperature, of the natural images of a class. A
    trainer keeps them: they are even at first, and renewed after each `period`. The attack is `trades_kl`.

    Attributes:
        num_classes: of the network.
        alpha, beta: weights of the two parts, > 0.
        temperature: by which logits are divided in the class means, > 0.
        period: updates between renewals, >= 1; the authors renew after each pass over the data.

    Example:
        >>> objective = IKL(num_classes=5, period=390)
        >>> model = AdversarialTraining(
        ...     network, attack=trades_kl(epsilon=0.1, step_size=0.05, num_steps=4), objective=objective)

    Reference:
        Cui et al., "Decoupled Kullback-Leibler divergence loss", NeurIPS 2024, eq. (10), by its published code.
    """

    num_classes: int
    alpha: float = 4.0
    beta: float = 20.0
    temperature: float = 4.0
    period: int = 400

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "temperature"):
            check_positive(name, getattr(self, name), "The authors have alpha=4, beta=20 and temperature=4.")
        check_count("num_classes", self.num_classes, 2, "It is the number of logits.")
        check_count("period", self.period, 1, "Give the updates of a pass over the data.")

    def initial_state(self) -> dict[str, np.ndarray]:
        """What a trainer keeps: the class means in use, the sums for the next ones, and the updates in them."""
        shape = (self.num_classes, self.num_classes)
        even = np.full(shape, 1.0 / self.num_classes, np.float32)
        return {
            "class_means": even,
            "class_sums": np.zeros(shape, np.float32),
            "updates_summed": np.zeros((), np.int64),
        }

    def __call__(
        self, logits_fn: LogitsFn | TrainingLogits, x_nat: tf.Tensor, x: tf.Tensor, y: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        state = getattr(logits_fn, "state", {})
        if "class_means" not in state:
            raise ValueError(
                "`IKL` needs class means, which a trainer keeps. Received: a function in place of the "
                "`types.TrainingLogits` of a trainer. Use it as the `objective` of `AdversarialTraining`."
            )
        natural_logits = tf.cast(logits_fn(x_nat), tf.float32)
        rows = label_rows(y, self.num_classes)
        softened = tf.nn.softmax(tf.stop_gradient(natural_logits) / self.temperature)
        weights = tf.matmul(rows, self._renewed_means(state, tf.matmul(rows, softened, transpose_a=True)))
        loss = cross_entropy(y, natural_logits)
        if x is x_nat:  # both predictions are one
            return loss, natural_logits
        logits = logits_fn(x)
        precise = tf.cast(logits, tf.float32)
        apart = natural_logits - precise
        apart -= tf.reduce_sum(weights * apart, axis=-1, keepdims=True)  # the weights of an image add up to 1
        of_pairs = 2.0 * tf.reduce_sum(weights * tf.square(apart), axis=-1)
        fixed = kl_divergence(tf.stop_gradient(natural_logits), precise)
        return loss + self.alpha * fixed + 0.25 * self.beta * of_pairs, logits

    def _renewed_means(self, state: dict[str, Any], sums: tf.Tensor) -> tf.Tensor:
        """The class means to use; sums of this update are added to those for the next ones."""
        means, total, summed = (tf.convert_to_tensor(state[name]) for name in self.initial_state())
        due = summed >= self.period
        of_class = tf.reduce_sum(total, axis=1, keepdims=True)
        means = tf.where(due & (of_class > 0.0), tf.math.divide_no_nan(total, of_class), means)
        (whole,) = sum_over_replicas([sums])
        state["class_means"].assign(means)
        state["class_sums"].assign(tf.where(due, 0.0, total) + whole)
        state["updates_summed"].assign(tf.where(due, tf.constant(1, tf.int64), summed + 1))
        return means


def _probs(logits: tf.Tensor) -> tf.Tensor:
    return tf.nn.softmax(at_least_float32(logits))


def _squared_distance(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.square(one - other), axis=-1)


MIXTURES = ("none", "loss", "logits", "small_box")
"""How `IntervalBounds` uses the adversarial example of an update."""


@serializable
@dataclasses.dataclass(frozen=True, kw_only=True)
class IntervalBounds(InBallAndRange):
    """Trains networks whose robustness can be proved, by interval bounds (IBP), alone or mixed with an attack.

    The worst case is the cross-entropy of `-margins`, the logits that an image of the ball might have at worst. Alone
    (`mixture="none"`) it needs no attack: `attack=None`, whose adversarial examples are the images. With an attack:

    - "loss" (MTL-IBP): `share` of the worst case plus the rest of the cross-entropy of the adversarial example.
    - "logits" (CC-IBP): the cross-entropy of `share` of the worst case's logits plus the rest of the example's.
    - "small_box" (SABR): the worst case in a box of `share` of the radius that holds the adversarial example.

    Radius and weight grow over a ramp, counted in updates, as training fails without one.

    Attributes:
        epsilon: L-inf radius at the end of the ramp; None takes that of the attack.
        norm: "linf", or None.
        bounds: the pixel range; see `InBallAndRange`.
        natural_weight: share of the natural cross-entropy after the ramp, in [0, 1); 1 before. The authors use .5.
        ramp: updates at which radius and weight begin to change and are reached, e.g. `(500, 2000)`.
        mixture: "none", "loss", "logits" or "small_box".
        share: of the bounds in a mixture, in (0, 1].

    Example:
        >>> model = AdversarialTraining(
        ...     network,
        ...     attack=None,
        ...     objective=IntervalBounds(epsilon=0.1, ramp=(10, 50)))

    Reference:
        Gowal et al., "On the effectiveness of interval bound propagation", 2018, eq. (12); De Palma et al., "Expressive
        losses for verified robustness via convex combinations", ICLR 2024; Mueller et al., "Certified training: small
        boxes are all you need", ICLR 2023.
    """

    natural_weight: float = 0.5
    ramp: tuple[int, int] = (0, 0)
    mixture: str = "none"
    share: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("natural_weight", self.natural_weight)
        check_choice("mixture", self.mixture, MIXTURES)
        object.__setattr__(self, "ramp", check_ramp("ramp", self.ramp))
        if self.norm == "l2":
            raise ValueError(
                "Interval bounds are of L-inf balls. Received: norm='l2'. Give a radius of an L-inf ball, or an "
                "attack in the L-inf ball."
            )
        check_part("share", self.share, "It is the bounds' share of a mixture, e.g. 0.5.")

    @property
    def needs_attack(self) -> bool:
        """Whether it looks at adversarial examples."""
        return self.mixture != "none"

    def __call__(
        self, logits_fn: LogitsFn | TrainingLogits, x_nat: tf.Tensor, x: tf.Tensor, y: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        if not isinstance(logits_fn, TrainingLogits):
            raise ValueError(
                "`IntervalBounds` looks into the layers of a network. Received: a function in place of the "
                "`types.TrainingLogits` of a trainer. Use it as the `objective` of `AdversarialTraining`."
            )
        progress = ramp(logits_fn.updates, self.ramp)
        epsilon = progress * self._ball()[1]
        natural_logits = logits_fn(x_nat)
        logits = natural_logits if x is x_nat else logits_fn(x)
        robust = self._robust_loss(logits_fn.network, x_nat, x, y, logits, epsilon)
        weight = 1.0 - progress * (1.0 - self.natural_weight)
        natural = cross_entropy(y, tf.cast(natural_logits, tf.float32))
        return weight * natural + (1.0 - weight) * robust, logits

    def _robust_loss(
        self, network: Any, x_nat: tf.Tensor, x: tf.Tensor, y: tf.Tensor, logits: tf.Tensor, epsilon: tf.Tensor
    ) -> tf.Tensor:
        x_nat, x = tf.cast(self._check_range(x_nat), tf.float32), tf.cast(x, tf.float32)
        logits = tf.cast(logits, tf.float32)  # as bounds are
        if self.mixture == "small_box":
            centre = tf.clip_by_value(x, x_nat - (1 - self.share) * epsilon, x_nat + (1 - self.share) * epsilon)
            return self._worst_case(least_margins(network, centre, y, self.share * epsilon, self._range()))
        worst = -least_margins(network, x_nat, y, epsilon, self._range())
        if self.mixture == "logits":
            true = tf.gather(logits, class_numbers(y), batch_dims=1)[:, None]
            worst = self.share * worst + (1.0 - self.share) * (logits - true)
        loss = self._worst_case(-worst)
        if self.mixture == "loss":
            return self.share * loss + (1.0 - self.share) * cross_entropy(y, logits)
        return loss

    def _worst_case(self, least_margins: tf.Tensor) -> tf.Tensor:
        """Cross-entropy of the logits `-least_margins`, in which the true class has 0."""
        return tf.reduce_logsumexp(-least_margins, axis=-1)
