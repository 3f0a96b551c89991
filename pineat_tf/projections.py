"""Norms: projections on the ball around the natural images and on the pixel range, uniform draws, steps, lengths."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from pineat_tf.checks import check_choice
from pineat_tf.seeds import fold, normal_like, uniform_like
from pineat_tf.types import Bounds, Seed

__all__ = [
    "Norm",
    "clip_to_bounds",
    "in_single",
    "l2_norm",
    "linf_norm",
    "power_of_two",
    "project_l2",
    "project_linf",
    "rounded_towards",
    "uniform_in_l2_ball",
    "uniform_in_linf_ball",
    "uniform_on_l2_sphere",
    "uniform_on_linf_sphere",
    "unit_l2",
]


def project_linf(x: tf.Tensor, center: tf.Tensor, epsilon: float) -> tf.Tensor:
    """The point of the L-inf ball of radius `epsilon` around `center` that is nearest to `x`."""
    return tf.clip_by_value(x, center - epsilon, center + epsilon)


def project_l2(x: tf.Tensor, center: tf.Tensor, epsilon: float) -> tf.Tensor:
    """The point of the L2 ball of radius `epsilon` around `center` that is nearest to `x`, example by example."""
    noise = x - center
    shrinkage = tf.math.divide_no_nan(tf.convert_to_tensor(epsilon, x.dtype), l2_norm(noise))
    return center + noise * tf.minimum(shrinkage, 1.0)


def clip_to_bounds(x: tf.Tensor, bounds: Bounds | None) -> tf.Tensor:
    """Clips to the pixel range; None leaves `x` as it is."""
    return x if bounds is None else tf.clip_by_value(x, *bounds)


def linf_norm(x: tf.Tensor) -> tf.Tensor:
    """The L-inf norm of each example, shaped to broadcast against `x`."""
    return tf.reduce_max(tf.abs(x), axis=list(range(1, x.shape.rank)), keepdims=True)


def l2_norm(x: tf.Tensor) -> tf.Tensor:
    """The L2 norm of each example, shaped to broadcast against `x`."""
    axes = list(range(1, x.shape.rank))
    return tf.sqrt(tf.reduce_sum(tf.square(x), axis=axes, keepdims=True))


def unit_l2(x: tf.Tensor) -> tf.Tensor:
    """Each example scaled to L2 norm 1, however short it is; one that is 0 stays 0."""
    x /= power_of_two(linf_norm(x))  # else the squares of short ones would be 0
    return tf.math.divide_no_nan(x, l2_norm(x))


def power_of_two(x: tf.Tensor) -> tf.Tensor:
    """The largest power of two at most `x`, by which divisions are exact; 1 where `x` is 0."""
    bits = tf.bitcast(tf.cast(x, tf.float32), tf.int32) & 0x7F800000  # the exponent alone
    return tf.cast(tf.where(bits == 0, 1.0, tf.bitcast(bits, tf.float32)), x.dtype)


def uniform_in_linf_ball(like: tf.Tensor, epsilon: float, seed: Seed) -> tf.Tensor:
    """Noise drawn uniformly from the L-inf ball of radius `epsilon`, pixel by pixel, in the shape of `like`."""
    return uniform_like(like, seed, -epsilon, epsilon)


def uniform_in_l2_ball(like: tf.Tensor, epsilon: float, seed: Seed) -> tf.Tensor:
    """Noise drawn uniformly from the L2 ball of radius `epsilon`, one draw an example, in the shape of `like`."""
    direction = unit_l2(normal_like(like, fold(seed, 0), stddev=1.0))
    share = uniform_like(l2_norm(like), fold(seed, 1), 0.0, 1.0)
    num_pixels = like.shape[1:].num_elements()
    if num_pixels is None:  # images of unknown size
        num_pixels = tf.cast(tf.reduce_prod(tf.shape(like)[1:]), share.dtype)
    return epsilon * direction * share ** (1.0 / num_pixels)


def in_single(x: tf.Tensor) -> tf.Tensor:
    """Half precision as float32, in which noise is to be added; other images as they are."""
    x = tf.convert_to_tensor(x)
    return tf.cast(x, tf.float32) if x.dtype.is_floating and x.dtype.size == 2 else x


def rounded_towards(x: tf.Tensor, center: tf.Tensor) -> tf.Tensor:
    """Rounds `x` to the dtype of `center`, in the direction of `center`.

    So what lies in a ball around `center`, or in a range with it, stays there, which rounding to nearest does not see
    to: bfloat16 numbers below 1 lie 1/256 apart, as far as the grey levels of an image.
    """
    if x.dtype == center.dtype:
        return x
    nearest = tf.cast(x, center.dtype)
    seen = tf.cast(nearest, x.dtype)
    is_beyond = (seen - x) * (x - tf.cast(center, x.dtype)) > 0.0
    # The neighbours of a number in half precision: one up and one down in its bits, where those of 0 have both signs.
    bits, is_above = tf.cast(tf.bitcast(nearest, tf.uint16), tf.int32), seen > x
    neighbour = tf.where((seen > 0.0) == is_above, bits - 1, bits + 1)
    neighbour = tf.where(seen == 0.0, tf.where(is_above, 0x8001, 0x0001), neighbour)
    return tf.where(is_beyond, tf.bitcast(tf.cast(neighbour, tf.uint16), center.dtype), nearest)


def uniform_on_linf_sphere(like: tf.Tensor, seed: Seed) -> tf.Tensor:
    """Noise of L-inf norm 1: drawn uniformly from the ball and stretched to its surface, in the shape of `like`."""
    noise = uniform_like(like, seed, -1.0, 1.0)
    return tf.math.divide_no_nan(noise, linf_norm(noise))


def uniform_on_l2_sphere(like: tf.Tensor, seed: Seed) -> tf.Tensor:
    """Noise drawn uniformly from the L2 sphere of radius 1, in the shape of `like`."""
    return unit_l2(normal_like(like, seed, stddev=1.0))


class Norm(NamedTuple):
    """What a norm decides in an attack.

    Attributes:
        name: as users and records call it.
        length: of noise, shaped to broadcast against it.
        project: `(x, center, epsilon)` to the nearest point of the ball.
        steepest: from gradients to the directions of length 1 that follow them best.
        pace: from gradients to how far pixels move in relation to each other when they follow `steepest`.
        uniform_in_ball: `(like, epsilon, seed)` to noise.
        uniform_on_sphere: `(like, seed)` to noise of length 1.
        plausible: the smallest and largest radius that can be meant, in widths of the pixel range. Rough on purpose.
    """

    name: str
    length: Callable[[tf.Tensor], tf.Tensor]
    project: Callable[[tf.Tensor, tf.Tensor, float], tf.Tensor]
    steepest: Callable[[tf.Tensor], tf.Tensor]
    pace: Callable[[tf.Tensor], tf.Tensor]
    uniform_in_ball: Callable[[tf.Tensor, float, Seed], tf.Tensor]
    uniform_on_sphere: Callable[[tf.Tensor, Seed], tf.Tensor]
    plausible: tuple[float, float]

    @classmethod
    def of(cls, norm: "str | float | Norm") -> "Norm":
        """The norm of this name; infinity and 2 name it as well.

        Raises:
            ValueError: if it is anything else.

        Example:
            >>> Norm.of("linf").project(x_adv, x, 8 / 255)
        """
        if isinstance(norm, cls):
            return norm
        name: Any = norm
        if isinstance(norm, (int, float)) and not isinstance(norm, bool):
            name = {math.inf: "linf", 2: "l2"}.get(norm, norm)
        check_choice("norm", name, _NORMS)
        return _NORMS[name]


_NORMS = {
    "linf": Norm(
        "linf",
        linf_norm,
        project_linf,
        tf.sign,
        tf.ones_like,
        uniform_in_linf_ball,
        uniform_on_linf_sphere,
        plausible=(1 / 800, 1.0),
    ),
    "l2": Norm(
        "l2",
        l2_norm,
        project_l2,
        unit_l2,
        tf.abs,
        uniform_in_l2_ball,
        uniform_on_l2_sphere,
        plausible=(1 / 80, 100.0),  # an L2 radius adds up over the pixels
    ),
}
