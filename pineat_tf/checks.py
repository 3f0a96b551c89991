"""Checks of what users hand in, with errors that say how to mend it.

Images and labels are checked by value as well. Outside a `tf.function` that raises `ValueError` at once; inside
one the check is an op of the graph, whose failure `data_errors_as_value_errors` turns into the same `ValueError`.
"""

import contextlib
import difflib
import math
import numbers
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import tensorflow as tf

from pineat_tf.types import Bounds

_MARK, _END = "Bad data: ", "(end of message)"


def check_positive(name: str, value: float, hint: str) -> None:
    """Raises `ValueError` unless `value` is a finite number above 0."""
    if not (_is_number(value) and math.isfinite(value) and value > 0):
        raise ValueError(f"`{name}` must be positive. Received: {name}={value!r}. {hint}")


def check_share(name: str, value: float) -> None:
    """Raises `ValueError` unless the value is a number in [0, 1)."""
    if not (_is_number(value) and 0.0 <= value < 1.0):
        raise ValueError(f"`{name}` must be in [0, 1). Received: {name}={value!r}. Give e.g. 0.1, or 0 for none.")


def check_epsilon(epsilon: float) -> None:
    """Raises `ValueError` unless `epsilon` is a radius above 0."""
    check_positive("epsilon", epsilon, "Give the radius on the scale of the pixels, e.g. 8/255 for images in [0, 1].")


def check_count(name: str, value: int, minimum: int, hint: str) -> None:
    """Raises `ValueError` unless `value` is a whole number of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < minimum:
        raise ValueError(f"`{name}` must be a whole number >= {minimum}. Received: {name}={value!r}. {hint}")


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Raises `ValueError` with the nearest name unless `value` is one of `choices`."""
    choices = list(choices)
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.4)
        guess = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"`{name}` must be one of {choices}. Received: {name}={value!r}.{guess}")


def check_bounds(bounds: Bounds | None) -> None:
    """Raises `ValueError` unless `bounds` is None or a pair (smallest, largest)."""
    if bounds is None:
        return
    pair = tuple(bounds) if isinstance(bounds, (tuple, list)) else ()
    if len(pair) != 2 or not all(map(_is_number, pair)) or not pair[0] < pair[1]:
        raise ValueError(
            "`bounds` must be a pair (smallest, largest) of pixel values. "
            f"Received: bounds={bounds!r}. Give e.g. (0.0, 1.0), or None for no limits."
        )


def check_logits_head(network: keras.Model) -> None:
    """Raises `ValueError` if the last layer of `network` is a softmax or sigmoid: everything here works on logits."""
    last = network
    while getattr(last, "layers", None):
        last = last.layers[-1]
    activation = getattr(last, "activation", None)
    probabilities = (keras.activations.softmax, keras.activations.sigmoid)
    if isinstance(last, keras.layers.Softmax) or activation in probabilities:
        raise ValueError(
            "`network` must give logits, but its last layer gives probabilities, which blunts every attack and "
            f"every membership score. Received: network={network.name!r} ending in layer {last.name!r}. Build it "
            "without that activation. Of a network that is trained already, set `network.layers[-1].activation = "
            "keras.activations.linear` if its last layer has the activation, or take `keras.Model(network.inputs[0], "
            "network.layers[-2].output)` if that is a layer of its own."
        )


def check_batch(
    images: Any, labels: Any, *, bounds: Bounds | None = None, num_classes: int | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Checks one batch and gives it back as tensors.

    Args:
        images: floating point, shape `(batch, ...)`, finite, within `bounds`.
        labels: class numbers of shape `(batch,)` or `(batch, 1)`, or one-hot of shape `(batch, num_classes)`.
        bounds: the pixel range, or None for no limits.
        num_classes: how many classes there are, where it is known.

    Returns:
        The images, and the labels as shape `(batch,)` (class numbers) or `(batch, num_classes)` (one-hot).

    Raises:
        ValueError: if one of them is anything else (inside a graph: when the graph runs).
    """
    images, labels = tf.convert_to_tensor(images), tf.convert_to_tensor(labels)
    if not images.dtype.is_floating or images.shape.rank in (0, 1):
        raise ValueError(
            "Images must be a floating point tensor of shape (batch, ...). "
            f"Received: dtype {images.dtype.name}, shape {tuple(images.shape)}. Whole-number pixels become "
            "floating point by `images / 255`; a single image becomes a batch by `images[None]`."
        )
    if labels.shape.rank == 2 and labels.shape[1] == 1:
        labels = tf.squeeze(labels, axis=1)
    check_label_shape(labels, num_classes)
    labels = with_common_dtype(labels)
    checks = [_require_images(images, bounds), _require_labels(labels, num_classes)]
    with tf.control_dependencies([check for check in checks if check is not None]):  # nothing runs on bad data
        return tf.identity(images), tf.identity(labels)


def check_images(images: Any, bounds: Bounds | None) -> tf.Tensor:
    """Gives images back; raises `ValueError` if they leave the pixel range (if need be, when the graph runs)."""
    images = tf.convert_to_tensor(images)
    check = _require_images(images, bounds)
    with tf.control_dependencies([] if check is None else [check]):  # nothing runs on bad data
        return tf.identity(images)


def check_batch_size(images: tf.Tensor, largest: int) -> tf.Tensor:
    """Gives the images back; raises `ValueError` if there are more than `largest` (if need be, when the graph runs)."""
    message = f"a batch must have at most batch_size={largest} images. Give smaller batches, or a larger `batch_size`."
    if images.shape[0] is not None and images.shape[0] > largest:
        raise ValueError(f"{_MARK}{message} Received: {images.shape[0]}")
    num = tf.shape(images)[0]
    check = _require(num <= largest, f"{message} Received:", lambda: num)
    with tf.control_dependencies([] if check is None else [check]):
        return tf.identity(images)


def check_label_shape(labels: tf.Tensor, num_classes: int | None) -> None:
    """Raises `ValueError` unless labels are `(batch,)` whole numbers or one-hot with one column a class."""
    sparse = labels.shape.rank == 1 and labels.dtype.is_integer
    one_hot = labels.shape.rank == 2 and (num_classes is None or labels.shape[1] in (None, num_classes))
    if not (sparse or one_hot or labels.shape.rank is None):
        raise ValueError(
            "Labels must be whole numbers of shape (batch,), or one-hot of shape (batch, num_classes) with "
            f"num_classes={num_classes if num_classes is not None else 'that of the network'}. Received: dtype "
            f"{labels.dtype.name}, shape {tuple(labels.shape)}."
        )


def with_common_dtype(labels: tf.Tensor) -> tf.Tensor:
    """Labels as TensorFlow's operations take them: class numbers as int32 or int64, one-hot not as booleans."""
    if labels.dtype.is_integer and labels.dtype not in (tf.int32, tf.int64):
        return tf.cast(labels, tf.int64)
    return tf.cast(labels, tf.float32) if labels.dtype.is_bool else labels


@contextlib.contextmanager
def data_errors_as_value_errors() -> Iterator[None]:
    """Turns a failed check inside a graph into the `ValueError` that it would be outside one."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        text = str(error)
        if _MARK not in text:
            raise
        message = text[text.index(_MARK) :].split(_END)[0]
        raise ValueError(message.replace(":] [", ": [").removesuffix(" [")) from error


def _require_images(images: tf.Tensor, bounds: Bounds | None) -> tf.Operation | None:
    if bounds is None:
        valid, wanted = tf.reduce_all(tf.math.is_finite(images)), "be finite"
    else:  # also false where a pixel is NaN
        valid = tf.reduce_all((images >= bounds[0]) & (images <= bounds[1]))
        wanted = f"lie in the bounds [{bounds[0]:g}, {bounds[1]:g}]"
    return _require(
        valid,
        f"every pixel must {wanted}. Scale the images, clean them of NaN, or give the attack other `bounds`. "
        "Received (smallest, largest):",
        lambda: tf.stack([tf.reduce_min(images), tf.reduce_max(images)]),
    )


def _require_labels(labels: tf.Tensor, num_classes: int | None) -> tf.Operation | None:
    if labels.shape.rank == 2:
        valid, wanted = tf.reduce_all(labels >= 0), "one-hot labels must be >= 0"
    elif num_classes is None:
        valid, wanted = tf.reduce_all(labels >= 0), "class numbers must be >= 0"
    else:
        valid = tf.reduce_all((labels >= 0) & (labels < num_classes))
        wanted = f"class numbers must lie in 0 .. {num_classes - 1}, as the network has {num_classes} logits"
    return _require(
        valid,
        f"{wanted}. Received (smallest, largest):",
        lambda: tf.stack([tf.reduce_min(labels), tf.reduce_max(labels)]),
    )


def _require(condition: tf.Tensor, message: str, received: Callable[[], tf.Tensor]) -> tf.Operation | None:
    if not tf.executing_eagerly():
        return tf.debugging.Assert(condition, [_MARK + message, received(), _END])
    if not condition:
        raise ValueError(f"{_MARK}{message} {received().numpy().tolist()}")
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
