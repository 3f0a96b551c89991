"""What a gradient attack is put together from: what it ascends, where it starts, how it steps, where it stays."""

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

import tensorflow as tf

from pineat_tf import losses
from pineat_tf.distribution import global_mean
from pineat_tf.projections import Norm, clip_to_bounds
from pineat_tf.seeds import normal_like
from pineat_tf.serialization import serializable
from pineat_tf.types import Bounds, LogitsFn, Seed

__all__ = [
    "Ball",
    "SteepestStep",
    "UniformInBall",
    "Ascended",
    "AtNatural",
    "DistStep",
    "Gaussian",
    "NoGradientError",
    "Unbounded",
    "WassersteinStep",
    "check_gradient",
    "choose",
    "cross_entropy_surrogate",
    "divergence_surrogate",
    "dlr_surrogate",
    "flat",
    "margin_surrogate",
    "shift_to_plane",
    "spread",
    "squared_distance_surrogate",
]

Ascended: TypeAlias = Callable[[tf.Tensor], tf.Tensor]
"""Maps images `(batch, ...)` to what the attack makes large, shape `(batch,)`. The logits that it takes from the
`logits_fn` of its surrogate are float32 at least, and their gradient survives half precision."""


class NoGradientError(ValueError):
    """The logits do not depend on the images by operations that have a gradient."""


def check_gradient(gradient: tf.Tensor | None) -> tf.Tensor:
    """Gives the gradient back; raises `NoGradientError` if there is none."""
    if gradient is None:
        raise NoGradientError(
            "The logits do not depend on the images by operations that have a gradient, so there is nothing to "
            "ascend. Give the network itself, not e.g. its `predict` or a function that rounds the pixels."
        )
    return gradient


def choose(condition: tf.Tensor, one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """The image of `one` where its example's condition holds, that of `other` elsewhere."""
    return tf.where(spread(condition, one), one, other)


def spread(values: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """One value an example, shaped to broadcast against images."""
    return tf.reshape(values, [-1] + [1] * (x.shape.rank - 1))


def flat(x: tf.Tensor) -> tf.Tensor:
    """Images as rows of pixels."""
    shape = tf.shape(x)
    return tf.reshape(x, [shape[0], tf.reduce_prod(shape[1:])])


def shift_to_plane(x: tf.Tensor, offset: tf.Tensor, normal: tf.Tensor, norm: str, bounds: Bounds | None) -> tf.Tensor:
    """The shortest noise that brings points to a hyperplane within the pixel range, one hyperplane a point.

    Every pixel moves by the same length (L-inf), or in proportion to the normal (L2), but no further than the range
    allows. So what the pixels contribute is piecewise linear in the length, and concave: after sorting the pixels by
    where they reach the end of the range, each has one line, none of which lies below the sum.

    Args:
        x: points of shape `(batch, pixels)`, within `bounds`.
        offset: shape `(batch,)`; the hyperplane is where `offset + normal * noise` is 0.
        normal: shape `(batch, pixels)`.
        norm: "linf" or "l2".
        bounds: the pixel range, or None for no limits.

    Returns:
        Noise of shape `(batch, pixels)`. Where the hyperplane does not meet the range, it leads to the corner of the
        range on the hyperplane's side; where the normal is 0 or the offset is not finite, nowhere.

    Reference:
        Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack", ICML 2020,
        section 2.
    """
    offset = tf.where(tf.math.is_finite(offset), offset, tf.zeros_like(offset))
    weight, missing = tf.abs(normal), tf.abs(offset)[:, None]
    pace = Norm.of(norm).pace(normal)
    towards = -tf.sign(offset)[:, None] * tf.sign(normal)
    if bounds is None:
        length = tf.math.divide_no_nan(missing, tf.reduce_sum(weight * pace, axis=1, keepdims=True))
        return towards * length * pace
    room = tf.where(towards > 0, bounds[1] - x, x - bounds[0])
    order = tf.argsort(tf.math.divide_no_nan(room, pace), axis=1)
    at_end, on_the_way = (tf.gather(part, order, axis=1, batch_dims=1) for part in (weight * room, weight * pace))
    still_missing = missing - tf.cumsum(at_end, axis=1, exclusive=True)
    lengths = tf.math.divide_no_nan(still_missing, tf.cumsum(on_the_way, axis=1, reverse=True))
    return towards * tf.minimum(tf.reduce_max(lengths, axis=1, keepdims=True) * pace, room)


@serializable
def cross_entropy_surrogate(logits_fn: LogitsFn, x: tf.Tensor, y: tf.Tensor) -> Ascended:
    """Cross-entropy of the true class (Madry et al., ICLR 2018, eq. 2.1)."""
    return lambda x_adv: losses.unfading_cross_entropy(y, logits_fn(x_adv))


@serializable
def margin_surrogate(logits_fn: LogitsFn, x: tf.Tensor, y: tf.Tensor) -> Ascended:
    """Lead of the likeliest other class over the true one (Carlini and Wagner, S&P 2017, objective f_6)."""
    return lambda x_adv: losses.margin(y, logits_fn(x_adv))


@serializable
def dlr_surrogate(logits_fn: LogitsFn, x: tf.Tensor, y: tf.Tensor) -> Ascended:
    """Difference of logits ratio (Croce and Hein, ICML 2020, eq. 6)."""
    return lambda x_adv: losses.dlr(y, logits_fn(x_adv))


dlr_surrogate.min_classes = 3  # type: ignore[attr-defined]


@serializable
def divergence_surrogate(logits_fn: LogitsFn, x: tf.Tensor, y: tf.Tensor) -> Ascended:
    """Divergence from the natural prediction (Zhang et al., ICML 2019, eq. 5), which is computed once."""
    natural = tf.stop_gradient(logits_fn(x))
    return lambda x_adv: losses.unfading_kl_divergence(natural, logits_fn(x_adv))


@serializable
def squared_distance_surrogate(logits_fn: LogitsFn, x: tf.Tensor, y: tf.Tensor) -> Ascended:
    """Squared distance of the probabilities from the natural ones (Pang et al., ICML 2022), which are computed once."""
    natural = tf.stop_gradient(tf.nn.softmax(logits_fn(x)))
    return lambda x_adv: tf.reduce_sum(tf.square(tf.nn.softmax(logits_fn(x_adv)) - natural), axis=-1)


@serializable
@dataclasses.dataclass(frozen=True)
class AtNatural:
    """Starts at the natural images."""

    def __call__(self, x: tf.Tensor, seed: Seed) -> tf.Tensor:
        return tf.identity(x)


@serializable
@dataclasses.dataclass(frozen=True)
class UniformInBall:
    """Starts uniformly in the ball, or on its surface, clipped to `bounds`; None leaves that to the first step."""

    epsilon: float
    norm: str = "linf"
    bounds: Bounds | None = None
    on_surface: bool = False

    def __call__(self, x: tf.Tensor, seed: Seed) -> tf.Tensor:
        norm = Norm.of(self.norm)
        if self.on_surface:
            noise = self.epsilon * norm.uniform_on_sphere(x, seed)
        else:
            noise = norm.uniform_in_ball(x, self.epsilon, seed)
        return clip_to_bounds(x + noise, self.bounds)


@serializable
@dataclasses.dataclass(frozen=True)
class Gaussian:
    """Starts at the natural images plus normal noise."""

    stddev: float

    def __call__(self, x: tf.Tensor, seed: Seed) -> tf.Tensor:
        return x + normal_like(x, seed, self.stddev)


@serializable
@dataclasses.dataclass(frozen=True)
class SteepestStep:
    """Moves along the gradient by `step_size`: every pixel by its sign (L-inf), or the example as a whole (L2).

    A gradient has full length however small it is; one of 0 moves nothing.
    """

    step_size: float
    norm: str = "linf"

    def __call__(self, x_adv: tf.Tensor, gradient: tf.Tensor, x: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        return x_adv + self.step_size * Norm.of(self.norm).steepest(gradient)


@serializable
@dataclasses.dataclass(frozen=True)
class DistStep:
    """Moves along the scaled gradient, then shrinks the noise of every pixel by the batch's mean step.

    The mean runs over the whole batch, so the examples of a batch influence each other, on several devices as on one.
    """

    coefficient: float

    def __call__(self, x_adv: tf.Tensor, gradient: tf.Tensor, x: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        scaled = self.coefficient * gradient
        moved = x_adv + scaled
        return moved - global_mean(tf.abs(scaled)) * tf.sign(moved - x)


@serializable
@dataclasses.dataclass(frozen=True)
class WassersteinStep:
    """Ascends loss / (2 gamma) - ||x_adv - x||^2 / 2 with a step that falls as 1 / sqrt(step + 1)."""

    gamma: float

    def __call__(self, x_adv: tf.Tensor, gradient: tf.Tensor, x: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        step_size = tf.math.rsqrt(tf.cast(step + 1, x.dtype))
        return x_adv + step_size * (gradient / (2.0 * self.gamma) - (x_adv - x))


@serializable
@dataclasses.dataclass(frozen=True)
class Unbounded:
    """Keeps every point as it is.

    Attributes:
        epsilon: the radius that the attack is meant for, to which nothing is held here; None where there is none.
        norm: of the radius.
    """

    epsilon: float | None = None
    norm: str = "linf"

    def __call__(self, x_adv: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        return x_adv


@serializable
@dataclasses.dataclass(frozen=True)
class Ball:
    """Keeps the noise of every example within `epsilon`."""

    epsilon: float
    norm: str = "linf"

    def __call__(self, x_adv: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        return Norm.of(self.norm).project(x_adv, x, self.epsilon)
