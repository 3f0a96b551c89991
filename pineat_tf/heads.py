"""What a network gives for a batch, as logits of two classes or more: everything here works on those."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from pineat_tf.tracing import graph
from pineat_tf.types import LogitsFn

__all__ = ["Head", "PROBABILITIES", "check_logits_head", "class_logits", "head_of", "noise_like", "with_class_logits"]

_PASSED_THROUGH = ("Identity", "StopGradient", "Cast", "Reshape", "Squeeze", "EnsureShape")
_SCALES = (1.0, 30.0, 1000.0)  # of inputs at which no logits stay probabilities
_SMALLEST = 1e-12  # probability that a logit is computed of
_LOOK = 8  # images that a head is told from

PROBABILITIES = (
    "`network` must give logits, but its outputs are probabilities, which blunts every attack and every membership "
    "score. Build it without that activation. Of a network that is trained already, set "
    "`network.layers[-1].activation = keras.activations.linear`, or take "
    "`keras.Model(network.inputs[0], network.layers[-2].output)` if the activation is a layer of its own. One sigmoid "
    "of shape (batch, 1) is served as it is, if it is Keras' or TensorFlow's own."
)


def with_class_logits(network: LogitsFn) -> LogitsFn:
    """The function `images -> logits` of a network whose head may be one logit or one sigmoid; see `class_logits`."""
    in_graph = graph(lambda images: class_logits(network(images)))

    def logits_fn(images: tf.Tensor) -> tf.Tensor:
        outputs = network(images)
        if tf.executing_eagerly() and _may_be_sigmoid(outputs):
            return in_graph(images)  # where the operation that gave them can be seen
        return class_logits(outputs)

    return logits_fn


def class_logits(outputs: tf.Tensor) -> tf.Tensor:
    """Gives what a classifier returned as logits of shape `(batch, num_classes)`, of two classes or more.

    A binary head of one number z an example, shape `(batch, 1)` or `(batch,)`, becomes the two logits [0, z], of which
    the softmax is [1 - sigmoid(z), sigmoid(z)]. Where the number is a sigmoid, z is what the sigmoid was taken of: the
    probability itself saturates.

    Args:
        outputs: of shape `(batch, num_classes)`, `(batch, 1)` or `(batch,)`; floating point.

    Returns:
        Logits of shape `(batch, num_classes)`, num_classes >= 2, in the dtype of the outputs.

    Raises:
        ValueError: if the outputs are several tensors, have another shape, or are probabilities of a softmax or of
            several sigmoids.
    """
    outputs = _one_tensor(outputs)
    before = _before_probabilities(outputs)
    if outputs.shape.rank == 1:
        outputs = outputs[:, None]
    if outputs.shape.rank not in (2, None):
        raise ValueError(
            "A network must give logits of shape (batch, num_classes), or one logit of shape (batch, 1). "
            f"Received: outputs of shape {tuple(outputs.shape)}. Several predictions an example, as of token ids or "
            "pixels, are not served; pool them into one."
        )
    if outputs.shape.rank is None or outputs.shape[-1] != 1:
        if before is not None:
            raise ValueError(PROBABILITIES)
        return outputs
    z = outputs if before is None else tf.cast(tf.reshape(before, tf.shape(outputs)), outputs.dtype)
    return tf.concat([tf.zeros_like(z), z], axis=-1)


def check_logits_head(network: keras.Model, images: Any = None) -> int | None:
    """Looks at what a network gives for a few images, and tells how many classes it has.

    Args:
        network: runs in inference mode.
        images: some that it may be given, shape `(batch, ...)`; None makes them up where the network knows their shape.

    Returns:
        The number of class logits, 2 for a head of one logit or sigmoid; None where no images could be made up.

    Raises:
        ValueError: if the outputs are probabilities of a softmax, of several sigmoids, or of a sigmoid whose logit
            cannot be found; or several tensors, or of another shape.
    """
    if images is None:
        images = _made_up(network)
        if images is None:
            return None
    images = tf.convert_to_tensor(images[:_LOOK])

    def call(images: tf.Tensor) -> tf.Tensor:
        return _one_tensor(network(images, training=False))

    outputs = call(images)
    logits = class_logits(outputs)
    if _are_probabilities(outputs):
        seen = graph(lambda images: class_logits(call(images)))(images)  # by their operation
        one, other = (np.asarray(tf.cast(part, tf.float32)) for part in (seen, logits))
        is_sigmoid = not np.allclose(one, other, atol=1e-3)
        if not is_sigmoid and _stay_probabilities(call, images):
            raise ValueError(f"{PROBABILITIES} Received: outputs that are probabilities for whatever images.")
    return logits.shape[-1]


class Head(NamedTuple):
    """What a network gives for an image.

    Attributes:
        num_classes: class logits, 2 for a single number; None where nobody knows yet.
        single: "logit" or "sigmoid" where it gives one number, else "".
    """

    num_classes: int | None
    single: str

    def class_logits(self, outputs: tf.Tensor) -> tf.Tensor:
        """As `class_logits`; a sigmoid whose operation nobody sees, as outside a graph, is inverted."""
        logits = class_logits(outputs)
        is_own = outputs.shape.rank == 1 or outputs.shape[-1] == 1
        if self.single != "sigmoid" or not is_own or _before_probabilities(outputs) is not None:
            return logits
        precise = tf.clip_by_value(tf.cast(logits[:, 1:], tf.float64), _SMALLEST, 1.0 - _SMALLEST)
        z = tf.cast(tf.math.log(precise) - tf.math.log1p(-precise), logits.dtype)
        return tf.concat([tf.zeros_like(z), z], axis=-1)

    def own_outputs(self, logits: tf.Tensor) -> tf.Tensor:
        """Of class logits, what the network itself gives, shape `(batch, 1)` for a single number."""
        if not self.single:
            return logits
        z = logits[:, 1:] - logits[:, :1]
        return tf.sigmoid(z) if self.single == "sigmoid" else z


def head_of(network: keras.Model, images: tf.Tensor | None = None) -> Head | None:
    """Looks at the head of a network, which is not run, so that the values of images may be unknown yet.

    Args:
        network: runs in inference mode.
        images: like those that it is given; None goes by its input shape.

    Returns:
        The head; None where neither images nor the network tell a shape.
    """
    shape, dtype = (None, tf.float32) if images is None else (images.shape, images.dtype)
    shape = getattr(network, "input_shape", None) if shape is None and network.built else shape
    if shape is None or any(isinstance(part, (tuple, list)) for part in tuple(shape)):
        return None
    shape, found = (shape[0] or 2, *tuple(shape)[1:]), []  # some layers want to know how many images there are

    def call(images: tf.Tensor) -> tf.Tensor:
        outputs = _one_tensor(network(images, training=False))
        is_single = outputs.shape.rank == 1 or outputs.shape[-1] == 1
        found.append(("logit" if _before_probabilities(outputs) is None else "sigmoid") if is_single else "")
        return class_logits(outputs)

    num_classes = graph(call, tf.TensorSpec(shape, dtype)).get_concrete_function().output_shapes[-1]
    return Head(num_classes, found[-1])


def _one_tensor(outputs: Any) -> tf.Tensor:
    if isinstance(outputs, (list, tuple)) and len(outputs) == 1:
        outputs = outputs[0]
    if not tf.is_tensor(outputs):
        raise ValueError(
            "A network must give one tensor, the logits. Received: "
            f"{type(outputs).__name__}. Of a network of several outputs, take the one with the classes: "
            "`keras.Model(network.input, network.outputs[0])`."
        )
    return outputs


def _before_probabilities(outputs: tf.Tensor) -> tf.Tensor | None:
    """What a sigmoid or softmax at the end was taken of; None where there is none to be seen."""
    before = getattr(outputs, "_keras_logits", None)  # where Keras' losses look for it too
    if before is not None or tf.executing_eagerly() or not hasattr(outputs, "op"):
        return before
    op = outputs.op
    while op.type in _PASSED_THROUGH:
        op = op.inputs[0].op
    return op.inputs[0] if op.type in ("Sigmoid", "Softmax") else None


def _may_be_sigmoid(outputs: Any) -> bool:
    """Whether outputs of one number an example could be a sigmoid, of which eagerly no operation is to be seen."""
    if not tf.is_tensor(outputs) or getattr(outputs, "_keras_logits", None) is not None:
        return False
    is_one = outputs.shape.rank == 1 or outputs.shape.rank == 2 and outputs.shape[1] == 1
    return is_one and bool(tf.reduce_all((outputs >= 0) & (outputs <= 1)))


def _are_probabilities(outputs: tf.Tensor) -> bool:
    """Whether numbers could be a sigmoid's, or rows a softmax's."""
    if getattr(outputs, "_keras_logits", None) is not None:
        return False
    if outputs.shape.rank == 1 or outputs.shape[-1] == 1:
        return _may_be_sigmoid(outputs)
    half = outputs.dtype.size == 2
    sums = tf.reduce_sum(tf.cast(outputs, tf.float32), axis=-1)
    is_one = tf.abs(sums - 1.0) <= (2e-2 if half else 1e-3)
    return bool(tf.reduce_all(outputs >= 0) & tf.reduce_all(is_one))


def _stay_probabilities(call: Callable, images: tf.Tensor) -> bool:
    """Whether outputs are probabilities for inputs of any size too, and not always the same ones."""
    noise = np.random.default_rng(0).uniform(-1.0, 1.0, size=(_LOOK, *images.shape[1:]))
    dtype = images.dtype if images.dtype.is_floating else tf.float32
    try:
        wild = [call(tf.cast(scale * noise, dtype)) for scale in _SCALES]
    except tf.errors.InvalidArgumentError:  # e.g. numbers beyond a vocabulary
        return False
    outputs = np.concatenate([np.asarray(tf.cast(part, tf.float32)) for part in wild])
    return all(map(_are_probabilities, wild)) and bool(np.ptp(outputs, axis=0).max() > 1e-6)


def _made_up(network: keras.Model) -> tf.Tensor | None:
    """Noise of the shape that a network takes; None where it does not say, or takes no images."""
    shape = getattr(network, "input_shape", None) if network.built else None
    if isinstance(shape, (list, dict)) or shape and isinstance(shape[0], (list, tuple)):
        raise ValueError(
            f"A network must take one tensor, the images. Received: {network.name!r} with inputs of shapes {shape}. "
            "Several inputs are not served: fix all but one of them inside a network around it."
        )
    inputs = getattr(network, "inputs", None) or ()
    return noise_like(shape, getattr(inputs[0], "dtype", "float32") if inputs else "float32")


def noise_like(shape: Any, dtype: Any) -> tf.Tensor | None:
    """Two images of noise in [0, 1] of a shape `(batch, ...)`; None where sizes are unknown, or numbers are whole."""
    dtype = tf.as_dtype(dtype)
    if shape is None or tf.TensorShape(shape).rank is None or None in tuple(shape)[1:] or not dtype.is_floating:
        return None
    return tf.cast(np.random.default_rng(0).uniform(size=(2, *tuple(shape)[1:])), dtype)
