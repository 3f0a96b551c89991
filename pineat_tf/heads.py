"""What a network gives for a batch, as logits of two classes or more: everything here works on those."""

import tensorflow as tf

from pineat_tf.types import LogitsFn

_PASSED_THROUGH = ("Identity", "StopGradient", "Cast", "Reshape", "Squeeze", "EnsureShape")


def with_class_logits(network: LogitsFn) -> LogitsFn:
    """The function `images -> logits` of a network whose head may be one logit or one sigmoid; see `class_logits`."""
    return lambda images: class_logits(network(images))


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
    if not tf.is_tensor(outputs):
        raise ValueError(
            "A network must give one tensor, the logits. Received: "
            f"{type(outputs).__name__}. Of a network of several outputs, take the one with the classes: "
            "`keras.Model(network.input, network.outputs[0])`."
        )
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


PROBABILITIES = (
    "`network` must give logits, but its outputs are probabilities, which blunts every attack and every membership "
    "score. Build it without that activation. Of a network that is trained already, clone it with a linear last layer "
    "(`keras.models.clone_model(network, clone_function=...)`, then `set_weights`), or take "
    "`keras.Model(network.inputs[0], network.layers[-2].output)` if the activation is a layer of its own. One sigmoid "
    "of shape (batch, 1) is served as it is."
)


def _before_probabilities(outputs: tf.Tensor) -> tf.Tensor | None:
    """What a sigmoid or softmax at the end was taken of; None where there is none to be seen."""
    before = getattr(outputs, "_keras_logits", None)  # where Keras' losses look for it too
    if before is not None or tf.executing_eagerly() or not hasattr(outputs, "op"):
        return before
    op = outputs.op
    while op.type in _PASSED_THROUGH:
        op = op.inputs[0].op
    return op.inputs[0] if op.type in ("Sigmoid", "Softmax") else None
