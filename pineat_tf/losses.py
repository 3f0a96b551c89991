"""Per-example losses: logits in, one number an example out. Whoever needs a mean takes the mean."""

import tensorflow as tf

from pineat_tf.checks import check_label_shape


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Cross-entropy of the true class.

    Args:
        labels: class numbers of shape `(batch,)`, or one-hot (or soft) of shape `(batch, num_classes)`.
        logits: shape `(batch, num_classes)`. Half precision is raised to float32 first.

    Returns:
        Losses >= 0 of shape `(batch,)`, in nats.

    Raises:
        ValueError: if the labels' shape does not fit the logits.

    Example:
        >>> cross_entropy(tf.constant([0]), tf.constant([[0.0, 0.0]])).numpy()
        array([0.6931472], dtype=float32)
    """
    logits = _at_least_float32(logits)
    check_label_shape(labels, logits.shape[-1])
    if labels.shape.rank == 1:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    return tf.nn.softmax_cross_entropy_with_logits(labels=tf.cast(labels, logits.dtype), logits=logits)


def kl_divergence(target_logits: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Kullback-Leibler divergence KL(softmax(target_logits) || softmax(logits)).

    Args:
        target_logits: shape `(batch, num_classes)`.
        logits: shape `(batch, num_classes)`.

    Returns:
        Divergences >= 0 of shape `(batch,)`, in nats.

    Reference:
        Zhang et al., "Theoretically principled trade-off between robustness and accuracy", ICML 2019, eq. (5).
    """
    target = tf.nn.log_softmax(_at_least_float32(target_logits))
    return tf.reduce_sum(tf.exp(target) * (target - tf.nn.log_softmax(_at_least_float32(logits))), axis=-1)


def _at_least_float32(logits: tf.Tensor) -> tf.Tensor:
    logits = tf.convert_to_tensor(logits)
    return logits if logits.dtype == tf.float64 else tf.cast(logits, tf.float32)
