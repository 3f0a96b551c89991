"""Randomness without state: the same seed gives the same tensors, eagerly, in a graph and after a restart."""

import numbers

import tensorflow as tf

from pineat_tf.types import Seed

# One algorithm for every device and compiler. The default would let XLA choose its own.
_ALGORITHM = "philox"


def as_seed(seed: Seed) -> tf.Tensor:
    """Gives a seed as a tensor of shape `(2,)`, dtype int64.

    Raises:
        ValueError: if it is neither a whole number nor two of them.
    """
    if isinstance(seed, numbers.Integral) and not isinstance(seed, bool):
        seed = (0, int(seed))
    try:
        tensor = tf.convert_to_tensor(seed, dtype_hint=tf.int64)
        valid = tensor.shape == (2,) and tensor.dtype.is_integer
    except (TypeError, ValueError, OverflowError):
        valid = False
    if not valid:
        raise ValueError(f"`seed` must be a whole number of 64 bits, or two of them. Received: seed={seed!r}.")
    return tf.cast(tensor, tf.int64)


def fold(seed: Seed, *data: int | tf.Tensor) -> tf.Tensor:
    """Derives a new seed from a seed and the numbers of what it is for, e.g. the update and the example."""
    seed = as_seed(seed)
    for number in data:
        seed = tf.random.experimental.stateless_fold_in(seed, tf.cast(number, tf.int64), alg=_ALGORITHM)
    return seed


def uniform_like(x: tf.Tensor, seed: Seed, minimum: float, maximum: float) -> tf.Tensor:
    """Draws uniformly from `[minimum, maximum)`, in the shape and dtype of `x`."""
    draw = tf.random.stateless_uniform(tf.shape(x), as_seed(seed), minimum, maximum, dtype=x.dtype, alg=_ALGORITHM)
    return tf.ensure_shape(draw, x.shape)


def normal_like(x: tf.Tensor, seed: Seed, stddev: float) -> tf.Tensor:
    """Draws from the normal distribution around 0, in the shape and dtype of `x`."""
    draw = tf.random.stateless_normal(tf.shape(x), as_seed(seed), stddev=stddev, dtype=x.dtype, alg=_ALGORITHM)
    return tf.ensure_shape(draw, x.shape)
