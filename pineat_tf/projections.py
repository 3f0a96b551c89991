"""Projections on the ball around the natural images and on the pixel range, and uniform draws from the ball."""

import tensorflow as tf

from pineat_tf.seeds import fold, normal_like, uniform_like
from pineat_tf.types import Bounds, Seed


def project_linf(x: tf.Tensor, center: tf.Tensor, epsilon: float) -> tf.Tensor:
    """The point of the L-inf ball of radius `epsilon` around `center` that is nearest to `x`."""
    return tf.clip_by_value(x, center - epsilon, center + epsilon)


def project_l2(x: tf.Tensor, center: tf.Tensor, epsilon: float) -> tf.Tensor:
    """The point of the L2 ball of radius `epsilon` around `center` that is nearest to `x`, example by example."""
    noise = x - center
    shrinkage = tf.math.divide_no_nan(tf.convert_to_tensor(epsilon, x.dtype), l2_norm(noise))
    return center + noise * tf.minimum(shrinkage, 1.0)


def project(x: tf.Tensor, center: tf.Tensor, *, epsilon: float, norm: str) -> tf.Tensor:
    """The point of the ball of norm "linf" or "l2" that is nearest to `x`, example by example."""
    return (project_l2 if norm == "l2" else project_linf)(x, center, epsilon)


def clip_to_bounds(x: tf.Tensor, bounds: Bounds | None) -> tf.Tensor:
    """Clips to the pixel range; None leaves `x` as it is."""
    return x if bounds is None else tf.clip_by_value(x, *bounds)


def l2_norm(x: tf.Tensor) -> tf.Tensor:
    """The L2 norm of each example, shaped to broadcast against `x`."""
    axes = list(range(1, x.shape.rank))
    return tf.sqrt(tf.reduce_sum(tf.square(x), axis=axes, keepdims=True))


def unit_l2(x: tf.Tensor) -> tf.Tensor:
    """Each example scaled to L2 norm 1; one that is 0 stays 0."""
    return tf.math.divide_no_nan(x, l2_norm(x))


def uniform_in_linf_ball(like: tf.Tensor, epsilon: float, seed: Seed) -> tf.Tensor:
    """Noise drawn uniformly from the L-inf ball of radius `epsilon`, pixel by pixel, in the shape of `like`."""
    return uniform_like(like, seed, -epsilon, epsilon)


def uniform_in_l2_ball(like: tf.Tensor, epsilon: float, seed: Seed) -> tf.Tensor:
    """Noise drawn uniformly from the L2 ball of radius `epsilon`, one draw an example, in the shape of `like`."""
    direction = unit_l2(normal_like(like, fold(seed, 0), stddev=1.0))
    share = uniform_like(l2_norm(like), fold(seed, 1), 0.0, 1.0)
    num_pixels = like.shape[1:].num_elements()
    return epsilon * direction * share ** (1.0 / num_pixels)


def uniform_in_ball(like: tf.Tensor, seed: Seed, *, epsilon: float, norm: str) -> tf.Tensor:
    """Noise drawn uniformly from the ball of norm "linf" or "l2", in the shape of `like`."""
    return (uniform_in_l2_ball if norm == "l2" else uniform_in_linf_ball)(like, epsilon, seed)


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
