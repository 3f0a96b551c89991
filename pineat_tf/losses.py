"""Per-example losses: logits in, one number an example out. Whoever needs a mean takes the mean."""

import math
from collections.abc import Callable

import tensorflow as tf

from pineat_tf.checks import check_label_shape, with_common_dtype

__all__ = [
    "at_least_float32",
    "class_numbers",
    "cross_entropy",
    "dlr",
    "dlr_targeted",
    "kl_divergence",
    "margin",
    "label_rows",
    "smoothed_cross_entropy",
    "unfading_cross_entropy",
    "unfading_kl_divergence",
]

_TINY = 1e-12  # keeps the ratio of equal logits at 0, not NaN
_SMALLEST_SLOPE = 1e-20  # that of an unfading loss: moves nothing by its size, and float32 can still divide it


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
    logits = at_least_float32(logits)
    check_label_shape(labels, logits.shape[-1])
    if labels.shape.rank == 1:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=with_common_dtype(labels), logits=logits)
    return tf.nn.softmax_cross_entropy_with_logits(labels=tf.cast(labels, logits.dtype), logits=logits)


def smoothed_cross_entropy(labels: tf.Tensor, logits: tf.Tensor, smoothing: float) -> tf.Tensor:
    """Cross-entropy of the labels with a share of each spread evenly over all classes.

    Args:
        labels: class numbers of shape `(batch,)`, or one-hot (or soft) of shape `(batch, num_classes)`.
        logits: shape `(batch, num_classes)`.
        smoothing: the share, in [0, 1).

    Returns:
        Losses of shape `(batch,)`, in nats.

    Example:
        >>> round(float(smoothed_cross_entropy(tf.constant([0]), tf.zeros((1, 2)), 0.1)[0]), 3)
        0.693
    """
    loss = cross_entropy(labels, logits)
    if not smoothing:
        return loss
    of_all_classes = -tf.reduce_mean(tf.nn.log_softmax(at_least_float32(logits)), axis=-1)
    return (1.0 - smoothing) * loss + smoothing * of_all_classes


def kl_divergence(target_logits: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Kullback-Leibler divergence KL(softmax(target_logits) || softmax(logits)).

    Args:
        target_logits: shape `(batch, num_classes)`.
        logits: shape `(batch, num_classes)`.

    Returns:
        Divergences >= 0 of shape `(batch,)`, in nats.

    Example:
        >>> kl_divergence(tf.zeros((1, 2)), tf.zeros((1, 2))).numpy().tolist()
        [0.0]

    Reference:
        Zhang et al., "Theoretically principled trade-off between robustness and accuracy", ICML 2019, eq. (5).
    """
    target = tf.nn.log_softmax(at_least_float32(target_logits))
    return tf.reduce_sum(tf.exp(target) * (target - tf.nn.log_softmax(at_least_float32(logits))), axis=-1)


def unfading_cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """The cross-entropy with a gradient that points the right way however sure the network is: what attacks ascend.

    The gradient is the difference of probabilities, which rounds to 0 where logits are a hundred apart. Here the
    difference is taken in the logarithm, so that its direction is always that of exact arithmetic, and its size too
    unless that is below 1e-20.

    Args:
        labels: class numbers of shape `(batch,)`, or one-hot (or soft) of shape `(batch, num_classes)`.
        logits: shape `(batch, num_classes)`. Half precision is raised to float32 first.

    Returns:
        Losses as `cross_entropy` gives them.

    Raises:
        ValueError: if the labels' shape does not fit the logits.

    Example:
        >>> round(float(unfading_cross_entropy(tf.constant([0]), tf.zeros((1, 2)))[0]), 3)
        0.693
    """
    logits = at_least_float32(logits)
    check_label_shape(labels, logits.shape[-1])
    if labels.shape.rank == 1:
        labels = tf.one_hot(with_common_dtype(labels), tf.shape(logits)[-1])
    labels = tf.cast(labels, logits.dtype)
    return _with_lasting_gradient(lambda logits: cross_entropy(labels, logits), tf.math.log(labels), logits)


def unfading_kl_divergence(target_logits: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """The divergence by the logits with a gradient that does not fade; see `unfading_cross_entropy`.

    Args:
        target_logits: shape `(batch, num_classes)`; they get no gradient.
        logits: shape `(batch, num_classes)`.

    Returns:
        Divergences as `kl_divergence` gives them.

    Example:
        >>> unfading_kl_divergence(tf.zeros((1, 2)), tf.zeros((1, 2))).numpy().tolist()
        [0.0]
    """
    target, logits = tf.stop_gradient(at_least_float32(target_logits)), at_least_float32(logits)
    log_target = tf.nn.log_softmax(target)
    return _with_lasting_gradient(lambda logits: kl_divergence(target, logits), log_target, logits)


def margin(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """The largest logit of another class minus that of the true class: above 0 exactly where misclassified.

    Args:
        labels: class numbers of shape `(batch,)`, or one-hot of shape `(batch, num_classes)`.
        logits: shape `(batch, num_classes)`. Half precision is raised to float32 first.

    Returns:
        Margins of shape `(batch,)`.

    Raises:
        ValueError: if the labels' shape does not fit the logits.

    Example:
        >>> margin(tf.constant([0]), tf.constant([[3.0, 1.0, 0.0]])).numpy().tolist()
        [-2.0]

    Reference:
        Carlini and Wagner, "Towards evaluating the robustness of neural networks", S&P 2017, objective f_6.
    """
    logits = at_least_float32(logits)
    num_classes = logits.shape[-1]
    check_label_shape(labels, num_classes)
    classes = class_numbers(labels)
    is_true = tf.one_hot(classes, num_classes, on_value=True, off_value=False)
    of_true = tf.reduce_sum(tf.where(is_true, logits, 0.0), axis=-1)
    return tf.reduce_max(tf.where(is_true, logits.dtype.min, logits), axis=-1) - of_true


def dlr(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Difference of logits ratio: the margin over the gap between the largest and the third largest logit.

    Neither shifting nor scaling the logits changes it, so it has a gradient where the cross-entropy of a very sure
    network has none. It lies in [-1, 1] as long as the true class has one of the three largest logits.

    Args:
        labels: class numbers of shape `(batch,)`, or one-hot of shape `(batch, num_classes)`.
        logits: shape `(batch, num_classes)` with 3 classes or more. Half precision is raised to float32 first.

    Returns:
        Losses of shape `(batch,)`, above 0 exactly where misclassified.

    Raises:
        ValueError: if the labels' shape does not fit the logits, or there are fewer than 3 classes.

    Example:
        >>> round(float(dlr(tf.constant([0]), tf.constant([[3.0, 1.0, 0.0]]))[0]), 3)
        -0.667

    Reference:
        Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
        attacks", ICML 2020, eq. (6).
    """
    logits = at_least_float32(logits)
    if logits.shape[-1] is not None and logits.shape[-1] < 3:
        raise ValueError(
            "The difference of logits ratio needs a third largest logit. "
            f"Received: num_classes={logits.shape[-1]}. Use the cross-entropy for fewer than 3 classes."
        )
    largest = tf.math.top_k(logits, k=3).values
    return margin(labels, logits) / (largest[:, 0] - largest[:, 2] + _TINY)


def dlr_targeted(labels: tf.Tensor, targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Targeted difference of logits ratio: how far the target's logit is above that of the true class, relatively.

    The gap that it is relative to is that between the largest logit and the mean of the third and the fourth.

    Args:
        labels: class numbers of shape `(batch,)`, or one-hot of shape `(batch, num_classes)`.
        targets: the classes to reach, class numbers of shape `(batch,)`.
        logits: shape `(batch, num_classes)` with 4 classes or more. Half precision is raised to float32 first.

    Returns:
        Losses of shape `(batch,)`, above 0 exactly where the target's logit is above that of the true class.

    Raises:
        ValueError: if the labels' shape does not fit the logits, or there are fewer than 4 classes.

    Example:
        >>> dlr_targeted(tf.constant([0]), tf.constant([1]), tf.constant([[4.0, 2.0, 1.0, 1.0]])).numpy().round(2)
        array([-0.67], dtype=float32)

    Reference:
        Croce and Hein, ICML 2020, eq. (7).
    """
    logits = at_least_float32(logits)
    check_label_shape(labels, logits.shape[-1])
    if logits.shape[-1] is not None and logits.shape[-1] < 4:
        raise ValueError(
            "The targeted difference of logits ratio needs a fourth largest logit. "
            f"Received: num_classes={logits.shape[-1]}. Use the untargeted one, or the cross-entropy."
        )
    classes = class_numbers(labels)
    of_true, of_target = (tf.gather(logits, index, axis=1, batch_dims=1) for index in (classes, targets))
    largest = tf.math.top_k(logits, k=4).values
    return (of_target - of_true) / (largest[:, 0] - 0.5 * (largest[:, 2] + largest[:, 3]) + _TINY)


def class_numbers(labels: tf.Tensor) -> tf.Tensor:
    """Class numbers of shape `(batch,)`, from themselves or from one-hot labels of shape `(batch, num_classes)`.

    Example:
        >>> class_numbers(tf.constant([[0.0, 1.0], [1.0, 0.0]])).numpy().tolist()
        [1, 0]
    """
    labels = with_common_dtype(labels)
    return labels if labels.shape.rank == 1 else tf.argmax(labels, axis=1)


def label_rows(labels: tf.Tensor, num_classes: int) -> tf.Tensor:
    """Labels as rows of float32 that add up to 1, shape `(batch, num_classes)`, from class numbers or rows.

    Raises:
        ValueError: if rows have another number of classes.

    Example:
        >>> label_rows(tf.constant([1]), 3).numpy().tolist()
        [[0.0, 1.0, 0.0]]
    """
    labels = with_common_dtype(labels)
    check_label_shape(labels, num_classes)
    return tf.one_hot(labels, num_classes) if labels.shape.rank == 1 else tf.cast(labels, tf.float32)


def _with_lasting_gradient(
    loss: Callable[[tf.Tensor], tf.Tensor], log_target: tf.Tensor, logits: tf.Tensor
) -> tf.Tensor:
    """A loss of which the gradient by the logits is `softmax(logits) - exp(log_target)`, taken in the logarithm."""
    # Not by `tf.custom_gradient`, which TensorFlow registers for good, with the graph that it was made in.
    slope = tf.stop_gradient(_difference(tf.nn.log_softmax(logits), log_target))
    nothing = tf.reduce_sum(slope * (logits - tf.stop_gradient(logits)), axis=-1)  # 0, of which the gradient is slope
    return tf.stop_gradient(loss(logits)) + nothing


def _difference(log_probs: tf.Tensor, log_target: tf.Tensor) -> tf.Tensor:
    """`exp(log_probs) - exp(log_target)`, rows that add up to 0, scaled up where float32 would lose them.

    Of the target's likeliest class the difference is that of numbers near 1, so it is what the others add up to.
    """
    is_likeliest = tf.one_hot(tf.argmax(log_target, axis=-1), tf.shape(log_target)[-1], True, False, dtype=tf.bool)
    log_probs, log_target = (
        tf.where(is_likeliest, tf.cast(-math.inf, part.dtype), part) for part in (log_probs, log_target)
    )
    largest = tf.reduce_max(tf.maximum(log_probs, log_target), axis=-1, keepdims=True)
    largest = tf.where(tf.math.is_finite(largest), largest, tf.zeros_like(largest))
    others = tf.exp(log_probs - largest) - tf.exp(log_target - largest)
    slope = tf.maximum(tf.exp(largest), tf.constant(_SMALLEST_SLOPE, others.dtype))
    return slope * tf.where(is_likeliest, -tf.reduce_sum(others, axis=-1, keepdims=True), others)


def at_least_float32(logits: tf.Tensor) -> tf.Tensor:
    """Logits in the precision that losses are computed in: float64 stays, all else becomes float32.

    Example:
        >>> at_least_float32(tf.zeros((1, 2), tf.bfloat16)).dtype
        tf.float32
    """
    logits = tf.convert_to_tensor(logits)
    return logits if logits.dtype == tf.float64 else tf.cast(logits, tf.float32)
