"""How interval bounds pass a layer: a rule a class of layers.

A rule takes the layer and the box of each of its inputs, and returns the box of its output, in inference mode:
`rule(layer, *boxes) -> Box`. It is found by the class, or the first of its bases that has one.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from pineat_tf.bounds.box import Box

__all__ = ["find", "rule"]

Rule = Callable[..., Box]

_RULES: dict[type, Rule] = {}
_REDEFINED = ("call", "convolution_op")
"""Methods that a rule speaks of: a subclass with one of its own needs a rule of its own."""
_SIGMOIDS = ("sigmoid", "Sigmoid")
_INCREASING = (
    *("linear", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "sigmoid", "hard_sigmoid", "tanh", "hard_tanh"),
    *("softplus", "softsign", "exponential", "log_sigmoid", "squareplus", "soft_shrink", "hard_shrink", "tanh_shrink"),
    *("sparse_plus", "sparse_sigmoid", "threshold"),
)
_INCREASING_OPERATIONS = (
    *("Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Celu", "HardSigmoid", "Tanh", "HardTanh", "Softplus"),
    *("Softsign", "Exp", "LogSigmoid", "Transpose", "Pad", "GetItem", "Mean", "Sum", "Max", "MaxPool", "AveragePool"),
)
_MOVING_OPERATIONS = ("Reshape", "Squeeze", "ExpandDims", "Cast", "Identity", "Flatten", "StopGradient")


def rule(layer_class: type) -> Callable[[Rule], Rule]:
    """Registers how interval bounds pass a class of layers; a decorator.

    Args:
        layer_class: of Keras layers, or of models; it serves subclasses that have no rule of their own and
            compute as it does.

    Returns:
        The decorator of a function `(layer, *boxes) -> Box`, a box an input.

    Example:
        >>> class Halve(keras.layers.Layer):
        ...     def call(self, x):
        ...         return x / 2
        >>> @rule(Halve)
        ... def halve(layer, box):
        ...     return box.map(layer)
    """

    def register(function: Rule) -> Rule:
        _RULES[layer_class] = function
        return function

    return register


def find(layer: Any) -> Rule:
    """Looks up the rule of a layer or operation.

    Raises:
        ValueError: if there is none, or the layer computes something else than the one that the rule was made for.
    """
    for cls in type(layer).__mro__:
        if cls in _RULES:
            _check_computes_as(cls, layer)
            return _RULES[cls]
    if not isinstance(layer, keras.Layer):  # an operation of `keras.ops` in a functional network
        name = type(layer).__name__
        if name in _MOVING_OPERATIONS:
            return _moved
        if name in _SIGMOIDS:
            return lambda operation, box: dataclasses.replace(box.map(operation.call), logits=box)
        if name in _INCREASING_OPERATIONS:
            return _rectifier  # some have a slope
        if name in _COMBINED:
            return _COMBINED[name]
    raise ValueError(
        f"Interval bounds have no rule for the layer {getattr(layer, 'name', layer)!r}. Received: "
        f"{type(layer).__name__}. Take a layer that has one, such as convolutions, Dense, pooling, batch normalisation "
        "and increasing activations, or add a rule with `@pineat_tf.bounds.rule(LayerClass)`; a model of a class of "
        "your own needs one too."
    )


def own_method(layer: Any) -> type | None:
    """The class, not one of Keras, that redefines what a layer or network computes; None where there is none."""
    definers = (next((c for c in type(layer).__mro__ if name in vars(c)), object) for name in _REDEFINED)
    return next((c for c in definers if c is not object and c.__module__.split(".")[0] != "keras"), None)


def _check_computes_as(cls: type, layer: Any) -> None:
    definer, mode = own_method(layer), getattr(layer, "quantization_mode", None)
    if definer is not None and not issubclass(cls, definer) and not issubclass(cls, keras.Model):
        raise ValueError(
            f"The rule of interval bounds for {cls.__name__} does not hold for a subclass that computes otherwise. "
            f"Received: the layer {layer.name!r}, a {type(layer).__name__} with a `call` of its own. Add a rule with "
            f"`@pineat_tf.bounds.rule({type(layer).__name__})`."
        )
    if mode:
        raise ValueError(
            f"Interval bounds are of kernels in floating point. Received: the layer {layer.name!r}, quantised to "
            f"{mode!r}. Take the network from before `quantize`."
        )


def _increasing(layer: Any, box: Box, *args: Any) -> Box:
    """Of what computes each output from inputs in which it nowhere decreases."""
    return box.map(lambda x: layer.call(x, *args))  # not `layer(x)`, which would cast to the precision of the layer


def _moved(layer: Any, box: Box) -> Box:
    """Of what gives other shapes to the same numbers, which a sigmoid may have made."""
    moved = box.map(layer.call)
    return moved if box.logits is None else dataclasses.replace(moved, logits=box.logits.map(layer.call))


for _layer_class in (
    *(layers.Permute, layers.RepeatVector),
    *(layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D, layers.AveragePooling1D, layers.AveragePooling2D),
    *(layers.AveragePooling3D, layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalAveragePooling1D),
    *(layers.GlobalAveragePooling2D, layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D),
    *(layers.Cropping1D, layers.Cropping2D, layers.Cropping3D, layers.UpSampling1D, layers.UpSampling2D),
):
    _RULES[_layer_class] = _increasing

for _layer_class in (layers.Flatten, layers.Reshape, layers.Identity):
    _RULES[_layer_class] = _moved

for _layer_class in (
    *(layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D, layers.AlphaDropout, layers.GaussianNoise),
    *(layers.GaussianDropout, layers.ActivityRegularization, layers.InputLayer),
):
    _RULES[_layer_class] = lambda layer, box: box


def activated(layer: Any, box: Box) -> Box:
    """Passes a box through the activation of a layer.

    Raises:
        ValueError: if it is not one of Keras' that nowhere decrease.
    """
    activation: Any = layer.activation or keras.activations.linear
    name = getattr(activation, "__name__", "")
    if name not in _INCREASING or getattr(keras.activations, name, None) is not activation:
        raise ValueError(
            "Interval bounds pass activations of Keras that nowhere decrease, such as 'relu'. Received: "
            f"{name or activation!r} in the layer {layer.name!r}. Softmax, GELU and SiLU have no rule; write one "
            "for a layer of your own with `@pineat_tf.bounds.rule(LayerClass)`."
        )
    if name == "linear":
        return box
    activated = box.map(lambda x: layer.activation(x))
    return dataclasses.replace(activated, logits=box) if name in _SIGMOIDS else activated


@rule(layers.Activation)
def _activation(layer: layers.Activation, box: Box) -> Box:
    return activated(layer, box)


def _affine(layer: Any, box: Box, linear: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], axis: int = -1) -> Box:
    """Of `linear(x, kernel) + bias`: the centre by the kernel, the radius by its absolute values."""
    kernel = tf.cast(tf.convert_to_tensor(layer.kernel), box.lower.dtype)
    centre, radius = linear(box.centre, kernel), linear(box.radius, tf.abs(kernel))
    if layer.use_bias:
        centre += _along(tf.cast(tf.convert_to_tensor(layer.bias), centre.dtype), centre, axis)
    return activated(layer, Box.around(centre, radius))


def _along(values: tf.Tensor, x: tf.Tensor, axis: int) -> tf.Tensor:
    """A vector, shaped so that it lies along an axis of `x`."""
    shape = [1] * x.shape.rank
    shape[axis] = -1
    return tf.reshape(values, shape)


@rule(layers.Dense)
def _dense(layer: layers.Dense, box: Box) -> Box:
    return _affine(layer, box, lambda x, kernel: tf.tensordot(x, kernel, 1))


def _convolution(layer: Any, box: Box) -> Box:
    axis = -1 if layer.data_format == "channels_last" else 1
    options = {name: getattr(layer, name) for name in ("strides", "padding", "dilation_rate", "data_format")}
    if layer.padding == "causal":  # of Conv1D: as many zeros before the first step as the kernel looks back
        options["padding"], steps = "valid", (layer.dilation_rate[0] * (layer.kernel_size[0] - 1), 0)
        padding = [(0, 0), steps, (0, 0)] if axis == -1 else [(0, 0), (0, 0), steps]
        box = box.map(lambda x: tf.pad(x, padding))
    return _affine(layer, box, lambda x, kernel: keras.ops.conv(x, kernel, **options), axis)


for _layer_class in (layers.Conv1D, layers.Conv2D, layers.Conv3D):
    _RULES[_layer_class] = _convolution


@rule(layers.DepthwiseConv2D)
def _depthwise(layer: layers.DepthwiseConv2D, box: Box) -> Box:
    options = {name: getattr(layer, name) for name in ("strides", "padding", "dilation_rate", "data_format")}
    axis = -1 if layer.data_format == "channels_last" else 1
    return _affine(layer, box, lambda x, kernel: keras.ops.depthwise_conv(x, kernel, **options), axis)


@rule(layers.BatchNormalization)
def _batch_normalization(layer: layers.BatchNormalization, box: Box) -> Box:
    dtype = box.lower.dtype
    mean, variance = (tf.cast(tf.convert_to_tensor(part), dtype) for part in (layer.moving_mean, layer.moving_variance))
    scale = tf.math.rsqrt(variance + layer.epsilon)
    if layer.scale:
        scale *= tf.cast(tf.convert_to_tensor(layer.gamma), dtype)
    shift = -mean * scale
    if layer.center:
        shift += tf.cast(tf.convert_to_tensor(layer.beta), dtype)
    scale, shift = (_along(part, box.lower, layer.axis) for part in (scale, shift))
    return Box.around(box.centre * scale + shift, box.radius * tf.abs(scale))


@rule(layers.Rescaling)
def _rescaling(layer: layers.Rescaling, box: Box) -> Box:
    scale, offset = (tf.convert_to_tensor(part, box.lower.dtype) for part in (layer.scale, layer.offset))
    return Box.around(box.centre * scale + offset, box.radius * tf.abs(scale))


@rule(layers.Normalization)
def _normalization(layer: layers.Normalization, box: Box) -> Box:
    mean, variance = (tf.cast(tf.convert_to_tensor(part), box.lower.dtype) for part in (layer.mean, layer.variance))
    deviation = tf.maximum(tf.sqrt(variance), keras.backend.epsilon())
    if layer.invert:
        return box.map(lambda x: x * deviation + mean)
    return box.map(lambda x: (x - mean) / deviation)


@rule(layers.ReLU)
@rule(layers.LeakyReLU)
@rule(layers.ELU)
def _rectifier(layer: Any, box: Box, *args: Any) -> Box:
    for name in ("negative_slope", "alpha"):
        if np.min(getattr(layer, name, 0.0)) < 0:
            raise ValueError(
                f"Interval bounds pass rectifiers that nowhere decrease. Received: {name}={getattr(layer, name)!r} in "
                f"the layer {layer.name!r}. Give one >= 0."
            )
    return _increasing(layer, box, *args)


@rule(layers.Add)
@rule(layers.Average)
@rule(layers.Maximum)
@rule(layers.Minimum)
@rule(layers.Concatenate)
def _merged(layer: Any, *boxes: Box) -> Box:
    return Box(layer.call([box.lower for box in boxes]), layer.call([box.upper for box in boxes]))


@rule(layers.Subtract)
def _subtracted(layer: layers.Subtract, first: Box, second: Box) -> Box:
    return Box(first.lower - second.upper, first.upper - second.lower)


@rule(layers.Multiply)
def _multiplied(layer: layers.Multiply, *boxes: Box) -> Box:
    product = boxes[0]
    for box in boxes[1:]:
        ends = [a * b for a in (product.lower, product.upper) for b in (box.lower, box.upper)]
        product = Box(tf.reduce_min(tf.stack(ends), axis=0), tf.reduce_max(tf.stack(ends), axis=0))
    return product


def _ends(part: Any) -> tuple[Any, Any]:
    """The ends of a box, or a constant twice."""
    return (part.lower, part.upper) if isinstance(part, Box) else (part, part)


def _added(layer: Any, first: Any, second: Any) -> Box:
    return Box(*(layer(a, b) for a, b in zip(_ends(first), _ends(second))))


def _taken_off(layer: Any, first: Any, second: Any) -> Box:
    return Box(*(layer(a, b) for a, b in zip(_ends(first), reversed(_ends(second)))))


def _scaled(layer: Any, first: Any, second: Any) -> Box:
    if isinstance(second, Box) and "Divide" in type(layer).__name__:
        raise ValueError(
            f"Interval bounds pass divisions by constants. Received: the operation {layer.name!r}, by what the network "
            "computed. Build the network without it."
        )
    ends = tf.stack([layer(a, b) for a in _ends(first) for b in _ends(second)])
    return Box(tf.reduce_min(ends, axis=0), tf.reduce_max(ends, axis=0))


def _joined(layer: Any, boxes: Sequence[Any]) -> Box:
    lower, upper = zip(*map(_ends, boxes))
    return Box(layer(list(lower)), layer(list(upper)))


_COMBINED: dict[str, Rule] = {
    **{"Add": _added, "Subtract": _taken_off, "Concatenate": _joined},
    **{"Multiply": _scaled, "Divide": _scaled, "TrueDivide": _scaled},
}
"""Operations of `keras.ops` on several boxes, or boxes and constants."""
