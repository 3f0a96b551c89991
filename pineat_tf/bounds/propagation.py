"""Interval bounds of a whole network: from a ball of images to boxes of logits."""

from typing import Any

import keras
import tensorflow as tf

from pineat_tf.bounds.box import Box
from pineat_tf.bounds.rules import find, own_method, rule
from pineat_tf.checks import briefly, check_bounds, check_image_type, check_images, check_labels, check_network
from pineat_tf.losses import class_numbers
from pineat_tf.types import Bounds, network_of

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
        ValueError: if a layer has no rule, the network has several inputs or outputs, or images or radius are not as
            they must be.

    Example:
        >>> lower, upper = interval(network, x, 0.1)
        >>> bool(tf.reduce_all(lower <= upper))
        True

    Reference:
        Gowal et al., "On the effectiveness of interval bound propagation for training verifiably robust models",
        2018, section 3.
    """
    network = network_of(network)
    x = _checked_images(network, x, bounds)
    box = _through(network, _ball(x, _checked_radius(epsilon, x), bounds))
    return box.lower, box.upper


def margins(
    network: keras.Model, x: tf.Tensor, y: tf.Tensor, epsilon: float | tf.Tensor, *, bounds: Bounds | None = (0.0, 1.0)
) -> tf.Tensor:
    """Bounds by how much the logit of the true class exceeds the others, for any image within an L-inf radius.

    The last layer is taken together with the difference of two logits, which is tighter than the difference of their
    bounds (Gowal et al., section 3).

    Args:
        network: as for `interval`; it returns logits, or one logit or sigmoid.
        x: images, shape `(batch, ...)`, floating point.
        y: class numbers `(batch,)` or `(batch, 1)`, or one-hot rows `(batch, num_classes)`; of soft rows the likeliest
            class counts.
        epsilon: as for `interval`.
        bounds: as for `interval`.

    Returns:
        Lower bounds on `z_y - z_j`, shape `(batch, num_classes)`, 0 at the true class. The prediction holds in the
        whole ball where all others are above 0.

    Raises:
        ValueError: as for `interval`, or if the labels are no classes of the network.

    Example:
        >>> margins(network, x, y, 0.1).shape
        TensorShape([8, 5])
    """
    network = network_of(network)
    x = _checked_images(network, x, bounds)
    width = network.output_shape[-1] if len(network.output_shape) == 2 else 1
    y = check_labels(y, max(width, 2) if width else None)
    if not x.shape[:1].is_compatible_with(y.shape[:1]):
        raise ValueError(f"There must be as many labels as images. Received: {len(x)} images, {len(y)} labels.")
    return least_margins(network, x, y, _checked_radius(epsilon, x), bounds)


def least_margins(
    network: keras.Model, x: tf.Tensor, y: tf.Tensor, epsilon: float | tf.Tensor, bounds: Bounds | None
) -> tf.Tensor:
    """What `margins` gives, of images, labels and a radius that were checked elsewhere."""
    network = network_of(network)
    classes = tf.cast(class_numbers(y), tf.int32)
    box = _ball(x, epsilon, bounds)
    is_plain = isinstance(network, keras.Sequential) and own_method(network) is None
    last: Any = network.layers[-1] if is_plain else None
    is_dense = type(last) is keras.layers.Dense and not last.quantization_mode
    if is_dense and last.units > 1 and last.activation is keras.activations.linear:
        return _last_layer(last, _through(network, box, until=last), classes)
    box = _through(network, box)
    if box.lower.shape.rank == 1 or box.lower.shape[-1] == 1:
        single = box if box.logits is None else box.logits
        box = single.map(lambda z: tf.pad(tf.reshape(z, [-1, 1]), [[0, 0], [1, 0]]))
    others = tf.one_hot(classes, box.lower.shape[-1], on_value=0.0, off_value=1.0)
    true = tf.gather(box.lower, classes, batch_dims=1)[:, None]
    return (true - box.upper) * others


def _checked_images(network: Any, x: Any, bounds: Bounds | None) -> tf.Tensor:
    """Images, once they are such as the network takes and lie within the bounds, where clipping would be no proof."""
    check_network(network)
    check_bounds(bounds)
    x = tf.convert_to_tensor(x)
    check_image_type(x.dtype, x.shape, bounds)
    x = check_images(x if x.dtype.is_floating else tf.cast(x, tf.float32), bounds)
    if not network.built:
        network(x[:1], training=False)
    shape = getattr(network, "input_shape", None)
    if isinstance(shape, tuple) and not tf.TensorShape(shape).is_compatible_with(x.shape):
        raise ValueError(f"Images must have the shape that the network takes, {shape}. Received: {tuple(x.shape)}.")
    return x


def _checked_radius(epsilon: Any, x: tf.Tensor) -> tf.Tensor:
    """The radius as a tensor that broadcasts to the images."""
    try:
        radius = tf.cast(tf.convert_to_tensor(epsilon), tf.float32)
        fits = tf.broadcast_static_shape(radius.shape, x.shape).is_compatible_with(x.shape)
    except (TypeError, ValueError, tf.errors.OpError):
        fits = False
    if not fits or isinstance(epsilon, (bool, str)):
        raise ValueError(
            "`epsilon` must be a number, or numbers that broadcast to the images. Received: "
            f"epsilon={briefly(epsilon)} for images of shape {tuple(x.shape)}. Give e.g. 8/255, or a radius an image "
            "of shape (batch, 1, 1, 1)."
        )
    if tf.executing_eagerly() and not tf.reduce_all((radius >= 0) & tf.math.is_finite(radius)):
        raise ValueError(
            f"`epsilon` must be >= 0 and finite. Received: epsilon={epsilon!r}. Give the L-inf radius on the scale of "
            "the pixels, e.g. 8/255."
        )
    return radius


def _ball(x: tf.Tensor, epsilon: float | tf.Tensor, bounds: Bounds | None) -> Box:
    x = tf.cast(x, tf.float32)
    box = Box(x - epsilon, x + epsilon)
    return box if bounds is None else box.map(lambda ends: tf.clip_by_value(ends, *map(float, bounds)))


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
    if own_method(network) is not None:
        return find(network)(network, box)
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
    is_graph = isinstance(layer, keras.Sequential) or hasattr(layer, "_run_through_graph")
    if own_method(layer) is not None or not is_graph:
        raise ValueError(
            f"Interval bounds cannot look into the model {layer.name!r}. Received: {type(layer).__name__}, a class of "
            "its own. Build it as a sequential or functional network, or add a rule with "
            "`@pineat_tf.bounds.rule(ModelClass)`."
        )
    return _through(layer, box)
