"""Checks of what users hand in, with errors that say how to mend it.

Images and labels are checked by value as well. Outside a `tf.function` that raises `ValueError` at once; inside
one the check is an op of the graph, whose failure `data_errors_as_value_errors` turns into the same `ValueError`.
"""

import contextlib
import difflib
import inspect
import math
import numbers
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import tensorflow as tf

from pineat_tf.types import Bounds

__all__ = [
    "MIXED_SIZES",
    "WHOLE_NUMBERS",
    "as_classes",
    "briefly",
    "can_be_called",
    "check_arrays",
    "check_attack",
    "check_batch",
    "check_batch_size",
    "check_bounds",
    "check_choice",
    "check_count",
    "check_epsilon",
    "check_image_type",
    "check_images",
    "check_label_shape",
    "check_labels",
    "check_network",
    "check_objective",
    "check_part",
    "check_positive",
    "check_share",
    "check_trainable",
    "data_errors_as_value_errors",
    "with_common_dtype",
]

_MARK, _END = "Bad data: ", "(end of message)"
MIXED_SIZES = f"{_MARK}images of one batch must have one size. Bring them to one, or batch those of one size yourself."
_ROW_SUM_TOLERANCE, _ROW_SUM_TOLERANCE_HALF = 4e-3, 2e-2  # Keras makes rows of bfloat16, off by 2**-8, float32


def check_positive(name: str, value: float, hint: str, *, or_0: bool = False) -> None:
    """Raises `ValueError` unless `value` is a finite number above 0, or 0 where that will do."""
    if not (_is_number(value) and math.isfinite(value) and (value > 0 or or_0 and value == 0)):
        wanted = "positive or 0" if or_0 else "positive"
        raise ValueError(f"`{name}` must be {wanted}{_plain(value)}. Received: {name}={value!r}. {hint}")


def check_share(name: str, value: float, hint: str = "Give e.g. 0.1, or 0 for none.") -> None:
    """Raises `ValueError` unless the value is a number in [0, 1)."""
    if not (_is_number(value) and 0.0 <= value < 1.0):
        raise ValueError(f"`{name}` must be in [0, 1){_plain(value)}. Received: {name}={value!r}. {hint}")


def check_part(name: str, value: float, hint: str) -> None:
    """Raises `ValueError` unless `value` is a number in (0, 1]."""
    check_positive(name, value, hint)
    if value > 1:
        raise ValueError(f"`{name}` must be at most 1. Received: {name}={value!r}. {hint}")


def check_epsilon(epsilon: float, *, or_0: bool = False) -> None:
    """Raises `ValueError` unless `epsilon` is a radius above 0, or 0 where that will do."""
    hint = "Give the radius on the scale of the pixels, e.g. 8/255 for images in [0, 1]."
    if getattr(epsilon, "shape", ()) != () or isinstance(epsilon, (list, tuple)):
        hint += " It is one number for all images: attack images of several radii in parts, or use `robustness`."
    check_positive("epsilon", epsilon, hint, or_0=or_0)


def check_count(name: str, value: int, minimum: int, hint: str) -> None:
    """Raises `ValueError` unless `value` is a whole number of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < minimum:
        how = _plain(value) if not _is_number(value) else ""
        raise ValueError(f"`{name}` must be a whole number >= {minimum}{how}. Received: {name}={value!r}. {hint}")


def check_choice(name: str, value: Any, choices: Iterable[str | int]) -> None:
    """Raises `ValueError` with the nearest name unless `value` is one of `choices`."""
    choices = list(choices)
    if value not in choices:
        near = difflib.get_close_matches(str(value), map(str, choices), n=1, cutoff=0.4)
        guess = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"`{name}` must be one of {choices}. Received: {name}={value!r}.{guess}")


def check_bounds(bounds: Bounds | None) -> None:
    """Raises `ValueError` unless `bounds` is None or a pair (smallest, largest)."""
    if bounds is None:
        return
    pair = tuple(bounds) if isinstance(bounds, (tuple, list)) else ()
    if len(pair) != 2 or not all(_is_number(end) and math.isfinite(end) for end in pair) or not pair[0] < pair[1]:
        raise ValueError(
            "`bounds` must be a pair (smallest, largest) of finite pixel values. "
            f"Received: bounds={bounds!r}. Give e.g. (0.0, 1.0), or None for no limits. Where each "
            "feature has a range of its own, bring all to [0, 1] first: `(x - low) / (high - low)`, with "
            "`keras.layers.Rescaling(high - low, low)` at the head of the network."
        )


def check_network(network: Any) -> None:
    """Raises `ValueError` unless it can be a network: a Keras model, or what stands for one."""
    if isinstance(network, type) or not callable(network) or not hasattr(network, "built"):
        raise ValueError(
            f"`network` must be a Keras model that gives logits. Received: {type(network).__name__}. It comes before "
            "the data. A function becomes a model as `keras.layers.Lambda` in a `keras.Sequential`."
        )


def briefly(value: Any) -> str:
    """A value for an error: of arrays and collections, how large they are."""
    kind, shape = type(value).__name__, getattr(value, "shape", None)
    if shape is not None and not isinstance(value, type):
        return f"{kind} of shape {tuple(shape)}"
    return f"{kind} of {len(value)}" if isinstance(value, (dict, list, tuple)) else repr(value)


def can_be_called(function: Any, *args: Any, **kwargs: Any) -> bool:
    """Whether a function takes such arguments, as far as it says which it takes."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return callable(function)  # a builtin or a graph, which does not say
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def check_objective(name: str, objective: Any) -> None:
    """Raises `ValueError` unless it is called as an objective; the class of one is none itself."""
    if isinstance(objective, type) or not callable(objective) or not can_be_called(objective, None, None, None, None):
        raise ValueError(
            f"`{name}` must be called as `objective(logits_fn, x_nat, x, y)`. Received: {objective!r}. Give e.g. "
            "`objectives.CrossEntropy()`, not the class or a loss of Keras."
        )


def check_attack(name: str, attack: Any) -> None:
    """Raises `ValueError` unless it is called as an attack; what makes one is none itself."""
    if isinstance(attack, type) or not callable(attack) or not can_be_called(attack, None, None, None, seed=0):
        raise ValueError(
            f"`{name}` must be one attack, called as `attack(logits_fn, x, y, seed=...)`. Received: {briefly(attack)}. "
            "Give e.g. `attacks.pgd(epsilon=8/255, step_size=2/255, num_steps=10)`. Several attacks, and what makes "
            "one of a radius, are for `robustness`."
        )


def check_trainable(network: Any) -> None:
    """Raises `ValueError` if a network has weights, and none of them is to be trained."""
    if network.built and not network.trainable_variables:
        raise ValueError(
            f"There is nothing to train. Received: network={network.name!r} without trainable weights. Set "
            "`trainable = True` of some of its layers, then compile again."
        )


def check_batch(
    images: Any, labels: Any, *, bounds: Bounds | None = None, num_classes: int | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Checks one batch and gives it back as tensors.

    Args:
        images: shape `(batch, ...)`, finite, within `bounds`. Whole numbers become float32 with their values kept; they
            are taken where `bounds` span more than [-1, 1], or are None.
        labels: as for `check_labels`.
        bounds: the pixel range, or None for no limits.
        num_classes: how many classes there are, where it is known.

    Returns:
        The images as floating point, and the labels as `check_labels` gives them.

    Raises:
        ValueError: if one of them is anything else (inside a graph: when the graph runs).
    """
    images, labels = tf.convert_to_tensor(images), tf.convert_to_tensor(labels)
    check_image_type(images.dtype, images.shape, bounds)
    images = images if images.dtype.is_floating else tf.cast(images, tf.float32)
    check = _require_images(images, bounds)
    labels = check_labels(labels, num_classes)
    with tf.control_dependencies([labels] + ([] if check is None else [check])):  # nothing runs on bad data
        return tf.identity(images), tf.identity(labels)


def check_arrays(
    images: Any, labels: Any, *, bounds: Bounds | None = None, num_classes: int | None = None, chunk: int = 4096
) -> None:
    """Raises `ValueError` unless whole arrays are as `check_batch` wants batches; a chunk at a time is in memory."""
    for start in range(0, len(labels), chunk):
        check_batch(
            images[start : start + chunk], labels[start : start + chunk], bounds=bounds, num_classes=num_classes
        )


def check_image_type(dtype: tf.DType, shape: tf.TensorShape, bounds: Bounds | None) -> None:
    """Raises `ValueError` unless images of this dtype and shape `(batch, ...)` can lie in `bounds`."""
    received = f"Received: dtype {dtype.name}, shape {tuple(shape) if shape.rank is not None else 'unknown'}."
    if shape.rank in (0, 1):
        raise ValueError(f"Images must have shape (batch, ...). {received} A single image becomes a batch by `[None]`.")
    if dtype.is_floating:
        return
    if not (dtype.is_integer or dtype.is_bool):
        raise ValueError(
            f"Images must be numbers. {received} Convert them, e.g. by `images.astype('float32')`. Text, token ids and "
            "ragged images are not served."
        )
    if bounds is not None and bounds[1] - bounds[0] <= 2:
        raise ValueError(
            f"Images must be floating point for bounds [{bounds[0]:g}, {bounds[1]:g}]. {received} {WHOLE_NUMBERS}"
        )


WHOLE_NUMBERS = (
    "If the network rescales its images itself (a `Rescaling` layer), leave them as they are and let `bounds` be their "
    "range wherever `epsilon` is given, e.g. `bounds=(0, 255), epsilon=8`. If it does not, divide the images as in its "
    "training, e.g. `images / 255`. Images of 0 and 1 become floating point by `images.astype('float32')`. Token "
    "ids are not served."
)


def check_labels(labels: Any, num_classes: int | None = None) -> tf.Tensor:
    """Checks the labels of a batch and gives them back in one of two forms.

    Args:
        labels: class numbers of shape `(batch,)` or `(batch, 1)`, or rows of shape `(batch, num_classes)`, one-hot or
            soft, that are >= 0 and sum to 1. The numbers may be floating point: 0., 1., 2.
        num_classes: how many logits the network has (2 for a head of one logit), where it is known.

    Returns:
        int32 or int64 class numbers of shape `(batch,)`, or rows of shape `(batch, num_classes)`.

    Raises:
        ValueError: if they are anything else (inside a graph: when the graph runs).
    """
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank == 2 and labels.shape[1] == 1:
        labels = tf.squeeze(labels, axis=1)
    check_label_shape(labels, num_classes)
    check = _require_labels(labels, num_classes)
    with tf.control_dependencies([] if check is None else [check]):
        return tf.identity(with_common_dtype(labels))


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
    """Raises `ValueError` unless labels are numbers of shape `(batch,)`, or rows with one column a class."""
    rank, dtype = labels.shape.rank, labels.dtype
    is_number = dtype.is_integer or dtype.is_bool or dtype.is_floating
    fits = rank in (1, None) or rank == 2 and (num_classes is None or labels.shape[1] in (None, num_classes))
    if not (is_number and fits):
        raise ValueError(
            "Labels must be class numbers of shape (batch,), or one-hot of shape (batch, num_classes) with "
            f"num_classes={num_classes if num_classes is not None else 'that of the network'}. Received: dtype "
            f"{dtype.name}, shape {tuple(labels.shape)}. Several labels an example are not served."
        )


def with_common_dtype(labels: tf.Tensor) -> tf.Tensor:
    """Labels as TensorFlow's operations take them: class numbers as int32 or int64, rows not as booleans."""
    if labels.shape.rank == 1:
        return labels if labels.dtype in (tf.int32, tf.int64) else tf.cast(labels, tf.int64)
    if labels.dtype.is_integer and labels.dtype not in (tf.int32, tf.int64):
        return tf.cast(labels, tf.int64)
    return tf.cast(labels, tf.float32) if labels.dtype.is_bool else labels


def as_classes(labels: Any) -> tf.Tensor:
    """Labels as losses and Keras' metrics take them: a column as a row, and 0., 1., 2. as whole numbers."""
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank == 2 and labels.shape[1] == 1:
        labels = tf.squeeze(labels, axis=1)
    return tf.cast(labels, tf.int64) if labels.shape.rank == 1 and labels.dtype.is_floating else labels


@contextlib.contextmanager
def data_errors_as_value_errors() -> Iterator[None]:
    """Turns a failed check inside a graph into the `ValueError` that it would be outside one."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        text = str(error)
        if "Cannot batch" in text:  # TensorFlow's words
            raise ValueError(MIXED_SIZES) from error
        if _MARK not in text:
            raise
        message = text[text.index(_MARK) :].split(_END)[0].split("\nTraceback")[0]
        raise ValueError(message.replace(":] [", ": [").removesuffix(" [")) from error


def _require_images(images: tf.Tensor, bounds: Bounds | None) -> tf.Operation | None:
    if bounds is None:
        valid, wanted = tf.reduce_all(tf.math.is_finite(images)), "be finite"
        mend = "Clean them of NaN and infinity."
    else:  # also false where a pixel is NaN
        valid = tf.reduce_all((images >= bounds[0]) & (images <= bounds[1]))
        wanted = f"lie in the bounds [{bounds[0]:g}, {bounds[1]:g}]"
        mend = (
            "Clean the images of NaN, and let them and `bounds` agree. If the network rescales its images itself, give "
            "their range with the radius, e.g. `bounds=(0, 255), epsilon=8`; if not, scale them as in its training."
        )
    return _require(
        valid,
        f"every pixel must {wanted}. {mend} Received (smallest, largest):",
        lambda: tf.stack([tf.reduce_min(images), tf.reduce_max(images)]),
    )


def _require_labels(labels: tf.Tensor, num_classes: int | None) -> tf.Operation | None:
    if labels.shape.rank == 2:
        return _require_rows(labels)
    if labels.dtype.is_bool:
        return None
    labels = labels if labels.dtype.is_floating else with_common_dtype(labels)
    if num_classes is None:
        valid, wanted = labels >= 0, "class numbers must be >= 0"
    else:
        valid = (labels >= 0) & (labels < num_classes)
        wanted = f"class numbers must lie in 0 .. {num_classes - 1}, as the network has {num_classes} logits"
    if labels.dtype.is_floating:
        valid &= labels - tf.floor(labels) == 0  # false of what is not finite, too
        wanted += ", and be whole. Soft labels are rows, of two classes [1 - p, p]; real-valued targets are not served"
    valid = tf.reduce_all(valid)
    return _require(
        valid,
        f"{wanted}. Received (smallest, largest):",
        lambda: tf.stack([tf.reduce_min(labels), tf.reduce_max(labels)]),
    )


def _require_rows(labels: tf.Tensor) -> tf.Operation | None:
    tolerance = _ROW_SUM_TOLERANCE if labels.dtype.size != 2 else _ROW_SUM_TOLERANCE_HALF
    rows = tf.cast(labels, tf.float64 if labels.dtype == tf.float64 else tf.float32)
    sums = tf.reduce_sum(rows, axis=1)
    off = tf.abs(sums - 1)
    return _require(
        tf.reduce_all(rows >= 0) & tf.reduce_all(off <= tolerance),  # also false where a label is NaN
        "one-hot labels must be >= 0, and each row must sum to 1. Divide those of 0 and 255 by 255, and soft labels by "
        "their sum; several labels an example, none, and real-valued targets are not served. Received (smallest "
        "value, smallest sum, largest sum):",
        lambda: tf.stack([tf.reduce_min(rows), tf.reduce_min(sums), tf.reduce_max(sums)]),
    )


def _require(condition: tf.Tensor, message: str, received: Callable[[], tf.Tensor]) -> tf.Operation | None:
    if not tf.executing_eagerly():  # the operation itself: `tf.debugging.Assert` traces two branches around it
        return tf.raw_ops.Assert(condition=condition, data=[_MARK + message, received(), _END])
    if not condition:
        raise ValueError(f"{_MARK}{message} {received().numpy()}")
    return None


def _plain(value: Any) -> str:
    """What a value that is no plain number is to be, and how a tensor, an array or a text becomes one."""
    if _is_number(value):
        return ""
    one = getattr(value, "shape", None) == () or isinstance(value, str)
    return ", a plain number" + (" (`float(...)` makes one)" if one else "")


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
