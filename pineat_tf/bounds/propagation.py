"""Interval bounds of a whole network: from a ball of images to boxes of logits."""

from typing import Any

import keras
import tensorflow as tf

from pineat_tf.bounds.box import Box
from pineat_tf.bounds.rules import find, rule
from pineat_tf.checks import check_bounds, check_positive
from pineat_tf.losses import class_numbers
from pineat_tf.types import Bounds

__all__ = ["interval", "margins"]

_MOST = 1 << 22
"""Numbers a table of differences of the last layer's kernel may have; beyond, classes are taken one by one."""


def interval(
    network: keras.Model, x: tf.Tensor, epsilon: float | tf.Tensor, *, bounds: Bounds | None = (0.0, 1.0)
) -> tuple[tf.Tensor, tf.Tensor]:
    """Bounds what a network returns for any image within an L-inf radius (interval bound propagation).

    Intervals pass Dense, convolutions, depthwise convolutions, pooling, batch normalisation, rescaling, padding,
    reshaping, sums, products and concatenations of branches, dropout, and the activations of Keras that nowhere
    decrease, in sequential and functional networks, nested ones too. `rule` adds layers. The network is taken in
    inference mode and in float32, whatever its precision.

    Args:
        network: sequential or functional, of one input and one output.
        x: images, shape `(batch, ...)`, floating point.
        epsilon: radius of the ball on the scale of the pixels, >= 0; a number, or a tensor that broadcasts to `x`.
        bounds: range that pixels stay in, or None for no limits.

    Returns:
        The smallest and the largest outputs, each of the shape of the network's output: no image of the ball has an
        output outside them, up to the rounding of float32.

    Raises:
        ValueError: if a layer has no rule, or the network has several inputs or outputs.

    Example:
        >>> lower, upper = interval(network, x, 0.1)
        >>> bool(tf.reduce_all(lower <= upper))
        True

    Reference:
        Gowal et al., "On the effectiveness of interval bound propagation for training verifiably robust models",
        2018, section 3.
    """
    box = _through(network, _ball(x, epsilon, bounds))
    return box.lower, box.upper


def margins(
    network: keras.Model, x: tf.Tensor, y: tf.Tensor, epsilon: float | tf.Tensor, *, bounds: Bounds | None = (0.0, 1.0)
) -> tf.Tensor:
    """Bounds by how much the logit of the true class exceeds the others, for any image within an L-inf radius.

    The last layer is taken together with the difference of two logits, which is tighter than the difference of their
    bounds (Gowal et al., section 3).

    Args:
        network: as for `interval`; it returns logits, or one logit.
        x: images, shape `(batch, ...)`, floating point.
        y: class numbers `(batch,)` or `(batch, 1)`, or one-hot rows `(batch, num_classes)`.
        epsilon: as for `interval`.
        bounds: as for `interval`.

    Returns:
        Lower bounds on `z_y - z_j`, shape `(batch, num_classes)`, 0 at the true class. The prediction holds in the
        whole ball where all others are above 0.

    Raises:
        ValueError: as for `interval`.

    Example:
        >>> margins(network, x, y, 0.1).shape
        TensorShape([8, 5])
    """
    classes = tf.cast(class_numbers(tf.convert_to_tensor(y)), tf.int32)
    box = _ball(x, epsilon, bounds)
    last: Any = network.layers[-1] if isinstance(network, keras.Sequential) else None
    if type(last) is keras.layers.Dense and last.units > 1 and last.activation is keras.activations.linear:
        return _last_layer(last, _through(network, box, until=last), classes)
    box = _through(network, box)
    if box.lower.shape[-1] == 1:
        box = box.map(lambda z: tf.concat([tf.zeros_like(z), z], axis=-1))
    others = tf.one_hot(classes, box.lower.shape[-1], on_value=0.0, off_value=1.0)
    true = tf.gather(box.lower, classes, batch_dims=1)[:, None]
    return (true - box.upper) * others


def _ball(x: tf.Tensor, epsilon: float | tf.Tensor, bounds: Bounds | None) -> Box:
    x = tf.cast(tf.convert_to_tensor(x), tf.float32)
    if isinstance(epsilon, (int, float)) and epsilon != 0:
        check_positive("epsilon", epsilon, "Give the L-inf radius on the scale of the pixels, e.g. 8/255.")
    box = Box(x - epsilon, x + epsilon)
    if bounds is None:
        return box
    check_bounds(bounds)
    return box.map(lambda ends: tf.clip_by_value(ends, *map(float, bounds)))


def _last_layer(layer: keras.layers.Dense, box: Box, classes: tf.Tensor) -> tf.Tensor:
    """Margins by the differences of the columns of a Dense layer's kernel."""
    kernel = tf.cast(tf.convert_to_tensor(layer.kernel), tf.float32)
    bias = tf.cast(tf.convert_to_tensor(layer.bias), tf.float32) if layer.use_bias else tf.zeros(layer.units)
    centre, radius = box.centre, box.radius
    logits = centre @ kernel + bias
    middle = tf.gather(logits, classes, batch_dims=1)[:, None] - logits
    columns = tf.transpose(kernel)
    if layer.units * layer.units * kernel.shape[0] <= _MOST:
        table = tf.abs(columns[:, None] - columns[None])  # (true class, other class, input)
        return middle - tf.einsum("bi,bji->bj", radius, tf.gather(table, classes))
    own = tf.gather(columns, classes)
    spread = tf.map_fn(lambda column: tf.reduce_sum(radius * tf.abs(own - column), axis=-1), columns)
    return middle - tf.transpose(spread)


def _through(network: keras.Model, box: Box, until: Any = None) -> Box:
    """The box of a network's output, or of the input of the layer `until`."""
    if isinstance(network, keras.Sequential):
        for layer in network.layers:
            if layer is until:
                return box
            box = find(layer)(layer, box)
        return box
    graph = getattr(network, "_functional", None) or network
    if not isinstance(graph, keras.Model) or not getattr(graph, "_run_through_graph", None):
        return find(network)(network, box)
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise ValueError(
            "Interval bounds need a network of one input and one output. Received: "
            f"{network.name!r} with {len(graph.inputs)} inputs and {len(graph.outputs)} outputs. Take the output with "
            "the classes: `keras.Model(network.input, network.outputs[0])`."
        )

    def operation(layer: Any) -> Any:
        """Applies the rule of a layer where the graph would call it."""

        def apply(*args: Any, **kwargs: Any) -> Box:
            if kwargs.get("training"):
                raise ValueError(
                    "Interval bounds are of a network in inference mode. Received: training=True, fixed for the layer "
                    f"{layer.name!r}. Build the network without it."
                )
            boxes = [part for arg in args for part in (arg if isinstance(arg, (list, tuple)) else [arg])]
            if isinstance(layer, keras.Layer):
                return find(layer)(layer, *boxes)
            return find(layer)(layer, *args)

        return apply

    outputs = graph._run_through_graph([box], operation_fn=operation)
    return outputs if isinstance(outputs, Box) else keras.tree.flatten(outputs)[0]


@rule(keras.Sequential)
@rule(keras.Model)
def _nested(layer: keras.Model, box: Box) -> Box:
    if not isinstance(layer, keras.Sequential) and not hasattr(layer, "_run_through_graph"):
        raise ValueError(
            f"Interval bounds cannot look into the model {layer.name!r}. Received: {type(layer).__name__}, a class of "
            "its own. Build it as a sequential or functional network, or add a rule with "
            "`@pineat_tf.bounds.rule(ModelClass)`."
        )
    return _through(layer, box)
