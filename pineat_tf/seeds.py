"""Randomness without state: the same seed gives the same tensors, eagerly, in a graph, by XLA and after a restart."""

import functools
import math
import numbers
from collections.abc import Callable

import tensorflow as tf

from pineat_tf import distribution
from pineat_tf.types import Seed

__all__ = ["as_seed", "fold", "normal_like", "uniform_like", "words"]

# One algorithm for every device and compiler: the default would let XLA choose its own. TensorFlow's functions that are
# given an algorithm take some 25 operations a call to mix the seed; these are 5, of the same bits.
_PHILOX = 1
_MIXING = 0x02461E293EC8F720


def as_seed(seed: Seed) -> tf.Tensor:
    """Gives a seed as a tensor of shape `(2,)`, dtype int64.

    Raises:
        ValueError: if it is neither a whole number nor two of them.

    Example:
        >>> as_seed(3).shape
        TensorShape([2])
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
    """Derives a new seed from a seed and the numbers of what it is for, e.g. the update and the example.

    Example:
        >>> bool(tf.reduce_all(fold(0, 1) == fold(0, 1))), bool(tf.reduce_all(fold(0, 1) == fold(0, 2)))
        (True, False)
    """
    seed = as_seed(seed)
    for number in data:
        number = tf.cast(number, tf.int64)
        seed = tf.stack([words((), seed, tf.int64), number])
    return seed


def words(shape: tf.Tensor | tuple[int, ...], seed: Seed, dtype: tf.DType) -> tf.Tensor:
    """Draws whole numbers uniformly from all that a dtype has: `tf.random.stateless_uniform` by Philox.

    Example:
        >>> words((2,), 0, tf.uint32).dtype.name
        'uint32'
    """
    draw = functools.partial(tf.raw_ops.StatelessRandomUniformFullIntV2, alg=_PHILOX)
    counter = tf.cast(as_seed(seed), tf.uint64)
    mixed = draw(shape=(2,), key=tf.constant([_MIXING], tf.uint64), counter=counter, dtype=tf.uint64)
    key, start = tf.split(mixed, 2)
    counter = tf.concat([tf.zeros(1, tf.uint64), start], axis=0)
    return draw(shape=tf.convert_to_tensor(shape, tf.int32), key=key, counter=counter, dtype=dtype)


def uniform_like(x: tf.Tensor, seed: Seed, minimum: float, maximum: float) -> tf.Tensor:
    """Draws uniformly from `[minimum, maximum]`, in the shape and dtype of `x`.

    Example:
        >>> uniform_like(x, 0, minimum=-0.1, maximum=0.1).shape == x.shape
        True
    """

    def draw(shape: tf.Tensor) -> tf.Tensor:
        return minimum + (maximum - minimum) * _unit(shape, seed)

    return _rows_of_global_draw(x, draw)


def normal_like(x: tf.Tensor, seed: Seed, stddev: float) -> tf.Tensor:
    """Draws from the normal distribution around 0, in the shape and dtype of `x`.

    Example:
        >>> normal_like(x, 0, stddev=0.1).shape == x.shape
        True
    """

    def draw(shape: tf.Tensor) -> tf.Tensor:  # Box and Muller, 1958
        radius = tf.sqrt(-2.0 * tf.math.log1p(-_unit(shape, fold(seed, 0))))
        return stddev * radius * tf.cos(2.0 * math.pi * _unit(shape, fold(seed, 1)))

    return _rows_of_global_draw(x, draw)


def _unit(shape: tf.Tensor, seed: Seed) -> tf.Tensor:
    """Uniform in [0, 1), float32: the upper 24 bits of words that are alike everywhere.

    TensorFlow's own draws of floats take other bits of the same words when compiled by XLA.
    """
    upper = tf.bitwise.right_shift(words(shape, seed, tf.uint32), tf.constant(8, tf.uint32))
    return tf.cast(upper, tf.float32) * 2.0**-24


def _rows_of_global_draw(x: tf.Tensor, draw: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """What one device would draw for the whole batch, of which a replica takes the rows that are its own."""
    shape = tf.shape(x)
    if distribution.num_replicas() == 1:
        return tf.ensure_shape(tf.cast(draw(shape), x.dtype), x.shape)
    first, rows = distribution.place_in_batch(x)
    whole = draw(tf.concat([[rows], shape[1:]], axis=0))
    return tf.ensure_shape(tf.cast(whole[first : first + shape[0]], x.dtype), x.shape)
