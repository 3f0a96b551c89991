"""Training on several replicas: what one of them needs to know of the batch that all of them share.

Inside `tf.distribute.Strategy.run` a replica sees its part of the batch only. Everywhere else there is one replica,
which sees all of it, and the functions here do what their plain TensorFlow twins do.
"""

import tensorflow as tf

__all__ = ["contribution", "global_mean", "local_mean", "num_replicas", "place_in_batch", "sum_over_replicas"]


def num_replicas() -> int:
    """How many replicas share the batch at hand."""
    context = tf.distribute.get_replica_context()
    return context.num_replicas_in_sync if context else 1


def local_mean(values: tf.Tensor, weights: tf.Tensor | None = None) -> tf.Tensor:
    """The mean of this replica's values; 0 where a small last batch left it none.

    Weights scale the values and not their count, as Keras takes the mean of losses.
    """
    if weights is not None:
        values *= tf.reshape(tf.cast(weights, values.dtype), [-1])
    if num_replicas() == 1:
        return tf.reduce_mean(values)
    return tf.math.divide_no_nan(tf.reduce_sum(values), tf.cast(tf.size(values), values.dtype))


def global_mean(values: tf.Tensor) -> tf.Tensor:
    """The mean of the values of all replicas; every replica gets it."""
    if num_replicas() == 1:
        return tf.reduce_mean(values)
    total, count = sum_over_replicas([tf.reduce_sum(values), tf.cast(tf.size(values), values.dtype)])
    return total / count


def place_in_batch(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Which row of the global batch is the first of this replica's `x`, and how many rows there are in all."""
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    own = tf.one_hot(replica, num_replicas()) * tf.cast(tf.shape(x)[0], tf.float32)  # every backend adds float32
    sizes = tf.cast(sum_over_replicas([own])[0], tf.int32)
    return tf.cumsum(sizes, exclusive=True)[replica], tf.reduce_sum(sizes)


def contribution(mean: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """What the mean over the rows of `x` contributes to that over the global batch: all contributions add up to it."""
    if num_replicas() == 1:
        return mean
    _, rows = place_in_batch(x)
    return mean * tf.cast(tf.shape(x)[0], mean.dtype) / tf.cast(rows, mean.dtype)


def sum_over_replicas(values: list[tf.Tensor]) -> list[tf.Tensor]:
    """The sums of the values of all replicas; every replica gets them."""
    if num_replicas() == 1:
        return values
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)
