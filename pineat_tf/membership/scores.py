"""Membership scores: one number per example, larger = more likely a training member.

All take `(labels, outputs, *, from_logits=True)`, compute in float64 and return float64 scores of shape `(num,)`.
float32 softmax saturates at exactly 1 for most training examples of an overfitted network (1712 of 1900 in a published
case), which hides them behind one another; float64 scores of the logits keep their order.
"""

import warnings
from typing import Any

import numpy as np
import tensorflow as tf

from pineat_tf.checks import check_labels
from pineat_tf.heads import class_logits
from pineat_tf.losses import class_numbers

__all__ = [
    "as_class_numbers",
    "as_float64",
    "check_predictions",
    "checked_predictions",
    "confidence_score",
    "correctness_score",
    "cross_entropy_score",
    "entropy_score",
    "logit_score",
    "modified_entropy_score",
]

_ROW_SUM_TOLERANCE = 1e-3  # how far the probabilities of one example may be from summing to 1


def cross_entropy_score(labels: Any, outputs: Any, *, from_logits: bool = True) -> tf.Tensor:
    """Scores each example by log p_y, the negative of its cross-entropy.

    Of logits it is `-log(1 + sum_{c != y} exp(z_c - z_y))`, so it neither clips nor saturates: two confident examples
    tie only if their logits do. Of probabilities it is `-inf` where p_y is 0.

    Args:
        labels: class numbers, one-hot rows or a column, as `fit` takes them.
        outputs: finite logits, or probabilities in [0, 1] with rows that sum to 1, of shape `(num, num_classes)`; one
            logit z or sigmoid p an example, of shape `(num, 1)` or `(num,)`, becomes [0, z] or [1 - p, p].
        from_logits: False where `outputs` are probabilities. What a float32 softmax rounded to 0 or 1 stays tied.

    Returns:
        float64 scores of shape `(num,)`, <= 0, in nats.

    Raises:
        ValueError: if shapes disagree, a label is no class, or a logit or probability is out of its range. (Inside a
            `tf.function` bad labels fail when it runs; values of outputs are not checked there.)

    Example:
        >>> cross_entropy_score([1, 0], [[-0.3, 1.5, 0.2], [2.0, 3.0, 0.5]]).numpy().round(4)
        array([-0.3631, -1.3715])
        >>> cross_entropy_score([0, 1], [[1.0, 0.0], [1.0, 0.0]], from_logits=False).numpy()
        array([  0., -inf])

    Reference:
        Yeom et al., "Privacy Risk in Machine Learning", CSF 2018, section 3 (threshold on the loss); P_E of the PINEAT
        paper.
    """
    labels, outputs = checked_predictions(labels, outputs, from_logits=from_logits)
    if not from_logits:
        return tf.math.log(_of_class(labels, outputs))
    gaps = outputs - _of_class(labels, outputs)[:, tf.newaxis]
    return -tf.nn.softplus(_log_sum_exp_of_others(labels, gaps))


def confidence_score(labels: Any, outputs: Any, *, from_logits: bool = True) -> tf.Tensor:
    """Scores each example by the probability of its class, which of logits is rounded to float32.

    The rounding is that of the reference's prediction files, so confident examples tie here where
    `cross_entropy_score` tells them apart; below 1.2e-38 a probability becomes 0, as in TensorFlow's own softmax. For
    comparison with published figures. Arguments and errors are those of `cross_entropy_score`; scores lie in [0, 1].

    Example:
        >>> confidence_score([0, 0], [[20.0, 0.0], [30.0, 0.0]]).numpy()
        array([1., 1.])

    Reference:
        Song, Shokri, Mittal, "Privacy Risks of Securing Machine Learning Models against Adversarial Examples", CCS
        2019, section 3.
    """
    if not from_logits:
        return _of_class(*checked_predictions(labels, outputs, from_logits=from_logits))
    probs = tf.exp(cross_entropy_score(labels, outputs))
    return tf.cast(tf.cast(probs, tf.float32), tf.float64)


def logit_score(labels: Any, outputs: Any, *, from_logits: bool = True) -> tf.Tensor:
    """Scores each example by the logit of its class's probability, log(p_y / (1 - p_y)).

    It orders examples as `cross_entropy_score` does, but is spread nearly normally over networks, which LiRA needs. It
    is `z_y - log(sum_{c != y} exp(z_c))`, so of logits it never saturates. Arguments and errors are those of
    `cross_entropy_score`.

    Example:
        >>> logit_score([1, 2], [[1.0, 2.0, -3.0], [-1.0, 1.0, 0.0]]).numpy().round(4)
        array([ 0.9819, -1.1269])

    Reference:
        Carlini et al., "Membership Inference Attacks From First Principles", S&P 2022, section IV-C.
    """
    labels, outputs = checked_predictions(labels, outputs, from_logits=from_logits)
    logits = outputs if from_logits else tf.math.log(outputs)
    return _of_class(labels, logits) - _log_sum_exp_of_others(labels, logits)


def correctness_score(labels: Any, outputs: Any, *, from_logits: bool = True) -> tf.Tensor:
    """Scores each example 1 if it is classified correctly, 0 if not: the gap attack as a score.

    Arguments and errors are those of `cross_entropy_score`.

    Example:
        >>> correctness_score([0, 0], [[2.0, 1.0], [1.0, 2.0]]).numpy()
        array([1., 0.])

    Reference:
        Yeom et al., CSF 2018, section 3.
    """
    labels, outputs = checked_predictions(labels, outputs, from_logits=from_logits)
    return tf.cast(tf.argmax(outputs, axis=1) == labels, tf.float64)


def entropy_score(labels: Any, outputs: Any, *, from_logits: bool = True) -> tf.Tensor:
    """Scores each example by the negative entropy of its prediction, in [-log(num_classes), 0] nats.

    Arguments and errors are those of `cross_entropy_score`; labels are not used, as the attack does not know them.

    Example:
        >>> entropy_score([0], [[0.0, 0.0]]).numpy().round(4)
        array([-0.6931])

    Reference:
        Shokri et al., S&P 2017; Song and Mittal, "Systematic Evaluation of Privacy Risks of Machine Learning Models",
        USENIX Security 2021, section 3.1.
    """
    _, outputs = checked_predictions(labels, outputs, from_logits=from_logits)
    log_probs, _ = _log_probs(outputs, from_logits)
    return tf.reduce_sum(_times(tf.exp(log_probs), log_probs), axis=1)


def modified_entropy_score(labels: Any, outputs: Any, *, from_logits: bool = True) -> tf.Tensor:
    """Scores each example by the negative modified entropy, which is small for a sure and correct prediction only.

    The modified entropy is `-(1 - p_y) log(p_y) - sum_{c != y} p_c log(1 - p_c)`. Of logits, 1 - p_c is summed from
    the other classes where it is nearly 0, so that nothing saturates; of probabilities the score is `-inf` where the
    network was sure of a wrong class. Arguments and errors are those of `cross_entropy_score`; scores are <= 0.

    Example:
        >>> modified_entropy_score([0, 1], [[1.0, 0.0], [1.0, 0.0]]).numpy().round(4)
        array([-0.1685, -1.9201])

    Reference:
        Song and Mittal, USENIX Security 2021, eq. (7).
    """
    labels, outputs = checked_predictions(labels, outputs, from_logits=from_logits)
    log_probs, log_complements = _log_probs(outputs, from_logits)
    is_label = tf.one_hot(labels, tf.shape(outputs)[1], on_value=True, off_value=False)
    weights = tf.exp(tf.where(is_label, log_complements, log_probs))
    return tf.reduce_sum(_times(weights, tf.where(is_label, log_probs, log_complements)), axis=1)


def as_float64(name: str, values: Any) -> tf.Tensor:
    """Converts real numbers to a float64 tensor of the same shape; Python floats keep all their digits.

    Args:
        name: what to call them in the error.
        values: a tensor, an array or nested lists.

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


def as_class_numbers(name: str, labels: Any, num: int | None = None, num_classes: int | None = None) -> tf.Tensor:
    """Converts labels in any form that `check_labels` accepts to int64 class numbers of shape `(num,)`.

    Args:
        name: what to call them in the error.
        labels: class numbers, one-hot rows or a column.
        num: how many examples there are; None for any number.
        num_classes: how many classes there are; None for any number.

    Raises:
        ValueError: if they are no labels of so many examples.

    Example:
        >>> as_class_numbers("labels", [[0, 1], [1, 0]]).numpy()
        array([1, 0])
    """
    try:
        classes = tf.cast(class_numbers(check_labels(labels, num_classes)), tf.int64)
    except (ValueError, TypeError) as error:
        raise ValueError(f"`{name}` must be labels of one class an example. {error}") from error
    if num is not None and not classes.shape.is_compatible_with([num]):
        raise ValueError(
            f"`{name}` must have one label an example. Received: {classes.shape[0]} labels for {num} examples."
        )
    return classes


def check_predictions(**named: Any) -> None:
    """Raises `ValueError` unless all have `.logits` and `.labels`, and logits of as many classes."""
    for name, predictions in named.items():
        if not (hasattr(predictions, "logits") and hasattr(predictions, "labels")):
            raise ValueError(
                f"`{name}` must have `.logits` and `.labels`. Received: {type(predictions).__name__}. Give e.g. the "
                "result of `predict_logits`."
            )
    shapes = [np.shape(predictions.logits) for predictions in named.values()]
    if len({shape[1:] for shape in shapes}) > 1:
        raise ValueError(
            f"{' and '.join(f'`{name}`' for name in named)} must be predictions of one network. Received: logits of "
            f"shapes {shapes}. Predict all with the same network."
        )


def _of_class(labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    return tf.gather(outputs, labels, axis=1, batch_dims=1)


def _log_sum_exp_of_others(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """The logarithm of the summed exponentials of all logits but that of the label."""
    is_label = tf.one_hot(labels, tf.shape(logits)[1], on_value=True, off_value=False)
    return tf.reduce_logsumexp(tf.where(is_label, tf.constant(-np.inf, tf.float64), logits), axis=1)


def _log_probs(outputs: tf.Tensor, from_logits: bool) -> tuple[tf.Tensor, tf.Tensor]:
    """log(p) and log(1 - p) of every class; what is lost to rounding where p is nearly 1 is summed from the others."""
    if not from_logits:
        return tf.math.log(outputs), tf.math.log(1.0 - outputs)
    largest = tf.argmax(outputs, axis=1)
    is_largest = tf.one_hot(largest, tf.shape(outputs)[1], on_value=True, off_value=False)
    odds = (_of_class(largest, outputs) - _log_sum_exp_of_others(largest, outputs))[:, tf.newaxis]
    log_probs = tf.nn.log_softmax(outputs)
    of_others = tf.where(is_largest, tf.zeros_like(outputs), tf.exp(log_probs))
    return (
        tf.where(is_largest, -tf.nn.softplus(-odds), log_probs),
        tf.where(is_largest, -tf.nn.softplus(odds), tf.math.log1p(-of_others)),
    )


def _times(probs: tf.Tensor, logs: tf.Tensor) -> tf.Tensor:
    """The product, 0 where the probability is."""
    return tf.where(probs > 0, probs * logs, tf.zeros_like(probs))


def checked_predictions(labels: Any, outputs: Any, *, from_logits: bool = True) -> tuple[tf.Tensor, tf.Tensor]:
    """Converts labels to int64 class numbers and outputs to float64 of two classes or more, once they fit each other.

    Arguments and errors are those of `cross_entropy_score`.
    """
    name = "logits" if from_logits else "probs"
    outputs = outputs if tf.is_tensor(outputs) else as_float64(name, outputs)  # Keras marks what it took a sigmoid of
    shape = outputs.shape
    if shape.rank not in (1, 2) or 0 in tuple(shape) or shape[1:].rank and shape[1] is None:
        raise ValueError(
            f"`{name}` must have shape (num, num_classes), or (num, 1) for one number an example, with at least one "
            f"example. Received: shape={shape}. Give one row per example."
        )
    is_single = shape.rank == 1 or shape[1] == 1
    if from_logits:
        outputs = as_float64(name, class_logits(outputs))
    else:
        outputs = as_float64(name, outputs)
        outputs = tf.stack([1.0 - tf.reshape(outputs, [-1]), tf.reshape(outputs, [-1])], 1) if is_single else outputs
    if tf.executing_eagerly():
        (_check_logits if from_logits else _check_probs)(outputs, is_single)
    return as_class_numbers("labels", labels, outputs.shape[0], outputs.shape[1]), outputs


def _check_logits(logits: tf.Tensor, is_single: bool) -> None:
    num_bad = int(tf.math.count_nonzero(~tf.math.is_finite(logits)))
    if num_bad:
        raise ValueError(
            f"`logits` must be finite. Received: {num_bad} of {tf.size(logits)} values NaN or infinite. The network "
            "has probably diverged: check its weights and its inputs."
        )
    if is_single and tf.reduce_all((logits >= 0) & (logits <= 1)):
        raise ValueError(
            "One logit an example must leave [0, 1] for some example. Received: values in [0, 1] only, as a sigmoid "
            "gives. Pass `from_logits=False` with sigmoids, and [0, z] with logits z."
        )
    if not is_single and _are_probabilities(logits):
        warnings.warn(
            f"All {len(logits)} rows of logits lie in [0, 1] and sum to 1, as a softmax gives. Scores of probabilities "
            "that are taken for logits hide who is a member: pass `from_logits=False`, or logits.",
            stacklevel=2,
        )


def _are_probabilities(outputs: tf.Tensor) -> bool:
    """Whether rows could be a softmax's, which are not all sure of one class."""
    off = tf.abs(tf.reduce_sum(outputs, axis=1) - 1)
    within = tf.reduce_all((outputs >= 0) & (outputs <= 1)) & tf.reduce_all(off <= _ROW_SUM_TOLERANCE)
    return bool(within) and not bool(tf.reduce_all(outputs == tf.round(outputs)))


def _check_probs(probs: tf.Tensor, is_single: bool) -> None:
    lowest, highest = float(tf.reduce_min(probs)), float(tf.reduce_max(probs))
    worst_sum = float(tf.reduce_max(tf.abs(tf.reduce_sum(probs, axis=1) - 1)))
    # NaN fails every comparison, so ask for what must hold.
    if not (lowest >= 0 and highest <= 1 and worst_sum <= _ROW_SUM_TOLERANCE):
        raise ValueError(
            f"`probs` must lie in [0, 1] with rows that sum to 1 within {_ROW_SUM_TOLERANCE:g}. Received: values from "
            f"{lowest:g} to {highest:g}, a row sum off by {worst_sum:g}. Are these logits? Then leave out "
            "`from_logits=False`."
        )
