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
