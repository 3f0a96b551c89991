"""Membership scores: one number per example, larger = more likely a training member.

Everything is float64 on the device. float32 softmax saturates at exactly 1 for most training
examples of an overfitted network (1712 of 1900 in a published case), which hides them behind one
another; float64 scores of the logits keep their order.
"""

import numpy as np
import tensorflow as tf

ROW_SUM_TOLERANCE = 1e-3
"""How far the probabilities of one example may be from summing to 1."""


def cross_entropy_score(labels, logits) -> tf.Tensor:
    """Scores each example by log p_y, the negative of its cross-entropy.

    The log-softmax is taken as `-log(1 + sum_{c != y} exp(z_c - z_y))`, so it neither clips nor
    saturates: two confident examples tie only if their logits do.

    Args:
        labels: class indices, whole numbers of shape `(num,)`.
        logits: finite, shape `(num, num_classes)`. Scored in float64 whatever their dtype.

    Returns:
        float64 scores of shape `(num,)`, <= 0, in nats.

    Raises:
        ValueError: if shapes disagree, a label is no class, or a logit is not finite. (Inside a
            `tf.function` values cannot be inspected; only shapes and dtypes are checked there.)

    Example:
        >>> cross_entropy_score([1, 0], [[-0.3, 1.5, 0.2], [2.0, 3.0, 0.5]]).numpy().round(4)
        array([-0.3631, -1.3715])

    Reference:
        Yeom et al., "Privacy Risk in Machine Learning", CSF 2018, section 3 (threshold on the
        loss); P_E of the PINEAT paper.
    """
    labels, logits = _checked_logits(labels, logits)
    gaps = logits - _of_true_class(labels, logits)[:, tf.newaxis]
    return -tf.nn.softplus(_log_sum_exp_of_others(labels, gaps))


def confidence_score(labels, logits) -> tf.Tensor:
    """Scores each example by the softmax probability of its class, kept in float32.

    The rounding is that of the reference's prediction files, so confident examples tie here where
    `cross_entropy_score` tells them apart; below 1.2e-38 a probability becomes 0, as in TensorFlow's
    own softmax. For comparison with published figures.

    Args:
        labels: class indices, whole numbers of shape `(num,)`.
        logits: finite, shape `(num, num_classes)`.

    Returns:
        float64 scores of shape `(num,)` in [0, 1], each of them a float32 number.

    Raises:
        ValueError: as `cross_entropy_score`.

    Example:
        >>> confidence_score([0, 0], [[20.0, 0.0], [30.0, 0.0]]).numpy()
        array([1., 1.])

    Reference:
        Song, Shokri, Mittal, "Privacy Risks of Securing Machine Learning Models against
        Adversarial Examples", CCS 2019, section 3.
    """
    probs = tf.exp(cross_entropy_score(labels, logits))
    return tf.cast(tf.cast(probs, tf.float32), tf.float64)


def cross_entropy_score_from_probs(labels, probs) -> tf.Tensor:
    """Scores each example by log p_y where only probabilities were kept.

    Args:
        labels: class indices, whole numbers of shape `(num,)`.
        probs: softmax outputs, shape `(num, num_classes)`, in [0, 1], rows summing to 1.

    Returns:
        float64 scores of shape `(num,)`, <= 0; `-inf` where the probability is 0. Nothing is
        clipped, but what a float32 softmax rounded to 0 or 1 stays tied.

    Raises:
        ValueError: if shapes disagree, a label is no class, or rows are no probabilities.

    Example:
        >>> cross_entropy_score_from_probs([0, 1], [[1.0, 0.0], [1.0, 0.0]]).numpy()
        array([  0., -inf])
    """
    return tf.math.log(confidence_score_from_probs(labels, probs))


def confidence_score_from_probs(labels, probs) -> tf.Tensor:
    """Scores each example by the probability of its class, as it was kept.

    Args:
        labels: class indices, whole numbers of shape `(num,)`.
        probs: softmax outputs, shape `(num, num_classes)`, in [0, 1], rows summing to 1.

    Returns:
        float64 scores of shape `(num,)` in [0, 1].

    Raises:
        ValueError: if shapes disagree, a label is no class, or rows are no probabilities.

    Example:
        >>> confidence_score_from_probs([0, 1], [[0.75, 0.25], [0.75, 0.25]]).numpy()
        array([0.75, 0.25])

    Reference:
        Song, Shokri, Mittal, CCS 2019, section 3.
    """
    labels, probs = _checked_probs(labels, probs)
    return _of_true_class(labels, probs)


def logit_score(labels, logits) -> tf.Tensor:
    """Scores each example by the logit of its class's probability, log(p_y / (1 - p_y)).

    It orders examples as `cross_entropy_score` does, but is spread nearly normally over networks, which LiRA needs. It
    is `z_y - log(sum_{c != y} exp(z_c))`, so it never saturates.

    Args:
        labels: class indices, whole numbers of shape `(num,)`.
        logits: finite, shape `(num, num_classes)`.

    Returns:
        float64 scores of shape `(num,)`, unbounded.

    Raises:
        ValueError: as `cross_entropy_score`.

    Example:
        >>> logit_score([1, 2], [[1.0, 2.0, -3.0], [-1.0, 1.0, 0.0]]).numpy().round(4)
        array([ 0.9819, -1.1269])

    Reference:
        Carlini et al., "Membership Inference Attacks From First Principles", S&P 2022, section IV-C.
    """
    labels, logits = _checked_logits(labels, logits)
    return _of_true_class(labels, logits) - _log_sum_exp_of_others(labels, logits)


def correctness_score(labels, logits) -> tf.Tensor:
    """Scores each example 1 if it is classified correctly, 0 if not: the gap attack as a score.

    Args:
        labels: class indices, whole numbers of shape `(num,)`.
        logits: finite, shape `(num, num_classes)`.

    Returns:
        float64 scores of shape `(num,)`, 0 or 1.

    Raises:
        ValueError: as `cross_entropy_score`.

    Example:
        >>> correctness_score([0, 0], [[2.0, 1.0], [1.0, 2.0]]).numpy()
        array([1., 0.])

    Reference:
        Yeom et al., CSF 2018, section 3.
    """
    return _correct(*_checked_logits(labels, logits))


def correctness_score_from_probs(labels, probs) -> tf.Tensor:
    """`correctness_score` where only probabilities were kept; arguments as `confidence_score_from_probs`.

    Example:
        >>> correctness_score_from_probs([0, 0], [[0.9, 0.1], [0.1, 0.9]]).numpy()
        array([1., 0.])
    """
    return _correct(*_checked_probs(labels, probs))


def entropy_score(labels, logits) -> tf.Tensor:
    """Scores each example by the negative entropy of its prediction, whatever its class.

    Args:
        labels: class indices, whole numbers of shape `(num,)`; not used, as the attack does not know them.
        logits: finite, shape `(num, num_classes)`.

    Returns:
        float64 scores of shape `(num,)` in [-log(num_classes), 0], in nats.

    Raises:
        ValueError: as `cross_entropy_score`.

    Example:
        >>> entropy_score([0], [[0.0, 0.0]]).numpy().round(4)
        array([-0.6931])

    Reference:
        Shokri et al., S&P 2017; Song and Mittal, "Systematic Evaluation of Privacy Risks of Machine Learning Models",
        USENIX Security 2021, section 3.1.
    """
    _, logits = _checked_logits(labels, logits)
    log_probs, _ = _log_probs(logits)
    return tf.reduce_sum(_times(tf.exp(log_probs), log_probs), axis=1)


def modified_entropy_score(labels, logits) -> tf.Tensor:
    """Scores each example by the negative modified entropy, which is small for a sure and correct prediction only.

    The modified entropy is `-(1 - p_y) log(p_y) - sum_{c != y} p_c log(1 - p_c)`. The chance that a class is not it is
    summed from the other classes where it is nearly 0, so that nothing saturates.

    Args:
        labels: class indices, whole numbers of shape `(num,)`.
        logits: finite, shape `(num, num_classes)`.

    Returns:
        float64 scores of shape `(num,)`, <= 0.

    Raises:
        ValueError: as `cross_entropy_score`.

    Example:
        >>> modified_entropy_score([0, 1], [[1.0, 0.0], [1.0, 0.0]]).numpy().round(4)
        array([-0.1685, -1.9201])

    Reference:
        Song and Mittal, USENIX Security 2021, eq. (7).
    """
    labels, logits = _checked_logits(labels, logits)
    log_probs, log_complements = _log_probs(logits)
    return _negative_modified_entropy(labels, log_probs, log_complements)


def entropy_score_from_probs(labels, probs) -> tf.Tensor:
    """`entropy_score` where only probabilities were kept; arguments as `confidence_score_from_probs`.

    Example:
        >>> entropy_score_from_probs([0, 0], [[1.0, 0.0], [0.5, 0.5]]).numpy().round(4)
        array([ 0.    , -0.6931])
    """
    _, probs = _checked_probs(labels, probs)
    return tf.reduce_sum(_times(probs, tf.math.log(probs)), axis=1)


def modified_entropy_score_from_probs(labels, probs) -> tf.Tensor:
    """`modified_entropy_score` where only probabilities were kept; arguments as `confidence_score_from_probs`.

    It is `-inf` where the network was sure of a wrong class.

    Example:
        >>> modified_entropy_score_from_probs([0, 1], [[1.0, 0.0], [1.0, 0.0]]).numpy()
        array([  0., -inf])
    """
    labels, probs = _checked_probs(labels, probs)
    return _negative_modified_entropy(labels, tf.math.log(probs), tf.math.log(1.0 - probs))


def as_float64(name: str, values) -> tf.Tensor:
    """Converts real numbers to a float64 tensor; Python floats keep all their digits.

    Args:
        name: what to call them in the error.
        values: a tensor, an array or nested lists of real numbers.

    Returns:
        A float64 tensor of the same shape.

    Raises:
        ValueError: if they are not real numbers.

    Example:
        >>> float(as_float64("scores", [0.1])[0])
        0.1
    """
    values = values if tf.is_tensor(values) else np.asarray(values)
    dtype = tf.as_dtype(values.dtype)
    if not (dtype.is_floating or dtype.is_integer):
        raise ValueError(
            f"`{name}` must hold real numbers. Received: dtype={dtype.name}. "
            "Convert them first, e.g. np.asarray(values, dtype=float)."
        )
    if isinstance(values, np.ndarray):
        values = values.astype(np.float64)  # tf.cast flushes float32 subnormals (1e-42) to 0
    return tf.cast(values, tf.float64)


def _of_true_class(labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    return tf.gather(outputs, labels, axis=1, batch_dims=1)


def _correct(labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.argmax(outputs, axis=1) == labels, tf.float64)


def _log_sum_exp_of_others(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """The logarithm of the summed exponentials of all logits but that of the label."""
    is_label = tf.one_hot(labels, tf.shape(logits)[1], on_value=True, off_value=False)
    return tf.reduce_logsumexp(tf.where(is_label, tf.constant(-np.inf, tf.float64), logits), axis=1)


def _log_probs(logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """log(p) and log(1 - p) of every class; what is lost to rounding where p is nearly 1 is summed from the others."""
    largest = tf.argmax(logits, axis=1)
    is_largest = tf.one_hot(largest, tf.shape(logits)[1], on_value=True, off_value=False)
    odds = (_of_true_class(largest, logits) - _log_sum_exp_of_others(largest, logits))[:, tf.newaxis]
    log_probs = tf.nn.log_softmax(logits)
    of_others = tf.where(is_largest, tf.zeros_like(logits), tf.exp(log_probs))
    return (
        tf.where(is_largest, -tf.nn.softplus(-odds), log_probs),
        tf.where(is_largest, -tf.nn.softplus(odds), tf.math.log1p(-of_others)),
    )


def _negative_modified_entropy(labels: tf.Tensor, log_probs: tf.Tensor, log_complements: tf.Tensor) -> tf.Tensor:
    """`(1 - p_y) log(p_y) + sum_{c != y} p_c log(1 - p_c)`, where 0 times an infinity counts as 0."""
    is_label = tf.one_hot(labels, tf.shape(log_probs)[1], on_value=True, off_value=False)
    weights = tf.exp(tf.where(is_label, log_complements, log_probs))
    return tf.reduce_sum(_times(weights, tf.where(is_label, log_probs, log_complements)), axis=1)


def _times(probs: tf.Tensor, logs: tf.Tensor) -> tf.Tensor:
    """The product, 0 where the probability is."""
    return tf.where(probs > 0, probs * logs, tf.zeros_like(probs))


def _checked_logits(labels, logits) -> tuple[tf.Tensor, tf.Tensor]:
    labels, logits = _checked(labels, logits, "logits")
    _check_finite(logits)
    return labels, logits


def _checked_probs(labels, probs) -> tuple[tf.Tensor, tf.Tensor]:
    labels, probs = _checked(labels, probs, "probs")
    _check_probs(probs)
    return labels, probs


def _checked(labels, outputs, name: str) -> tuple[tf.Tensor, tf.Tensor]:
    """Labels as int64 and outputs as float64, once they fit each other."""
    outputs = as_float64(name, outputs)
    labels = labels if tf.is_tensor(labels) else tf.convert_to_tensor(np.asarray(labels))
    _check_outputs_shape(outputs, name)
    _check_labels_shape(labels, outputs, name)
    labels = tf.cast(labels, tf.int64)
    _check_labels_range(labels, outputs.shape[1])
    return labels, outputs


def _check_outputs_shape(outputs: tf.Tensor, name: str) -> None:
    if outputs.shape.rank != 2 or (outputs.shape[1] or 0) < 2 or outputs.shape[0] == 0:
        raise ValueError(
            f"`{name}` must have shape (num, num_classes) with at least one example and two "
            f"classes. Received: shape={outputs.shape}. Give one row per example; a network with "
            "a single output needs its two classes written out, e.g. logits [0, z]."
        )


def _check_labels_shape(labels: tf.Tensor, outputs: tf.Tensor, name: str) -> None:
    if not labels.shape.is_compatible_with(outputs.shape[:1]):
        raise ValueError(
            f"`labels` must have shape (num,), one for each row of `{name}`. Received: labels of "
            f"shape {labels.shape} and {name} of shape {outputs.shape}. Turn one-hot labels into "
            "class indices with np.argmax(labels, axis=-1), and (num, 1) with np.ravel(labels)."
        )
    if not labels.dtype.is_integer:
        raise ValueError(
            "`labels` must be class indices, i.e. whole numbers. Received: "
            f"dtype={labels.dtype.name}. Convert them, e.g. np.asarray(labels, dtype=int)."
        )


def _check_labels_range(labels: tf.Tensor, num_classes: int) -> None:
    if not tf.executing_eagerly():
        return
    lowest, highest = int(tf.reduce_min(labels)), int(tf.reduce_max(labels))
    if lowest < 0 or highest >= num_classes:
        raise ValueError(
            f"`labels` must lie in 0..{num_classes - 1}, one for each of the {num_classes} "
            f"classes. Received: labels from {lowest} to {highest}. Number the classes from 0."
        )


def _check_finite(logits: tf.Tensor) -> None:
    if not tf.executing_eagerly():
        return
    num_bad = int(tf.math.count_nonzero(~tf.math.is_finite(logits)))
    if num_bad:
        raise ValueError(
            f"`logits` must be finite. Received: {num_bad} of {tf.size(logits)} values NaN or "
            "infinite. The network has probably diverged: check its weights and its inputs."
        )


def _check_probs(probs: tf.Tensor) -> None:
    if not tf.executing_eagerly():
        return
    lowest, highest = float(tf.reduce_min(probs)), float(tf.reduce_max(probs))
    worst_sum = float(tf.reduce_max(tf.abs(tf.reduce_sum(probs, axis=1) - 1)))
    # NaN fails every comparison, so ask for what must hold.
    if not (lowest >= 0 and highest <= 1 and worst_sum <= ROW_SUM_TOLERANCE):
        raise ValueError(
            f"`probs` must lie in [0, 1] with rows that sum to 1 within {ROW_SUM_TOLERANCE:g}. "
            f"Received: values from {lowest:g} to {highest:g}, a row sum off by {worst_sum:g}. "
            "Are these logits? Then use the score of the same name without `_from_probs`."
        )
