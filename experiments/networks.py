"""The networks of the experiments, by name.

Every network is a functional Keras model from images in [0, 1] to logits, made of standard Keras layers and
`keras.ops` only. Its saved file therefore loads with plain Keras, in safe mode, where this code is not installed.

The reference networks are those of Song, Shokri and Mittal, "Privacy Risks of Securing Machine Learning Models
against Adversarial Examples" (CCS 2019), from which the paper takes its baselines. Their PGD, Dist and natural
models come from TensorFlow, their Diff (TRADES) models from PyTorch, and the two differ in more than a name:
padding of strided convolutions, batch norm, initial weights, shortcuts.
"""

import dataclasses
import math
import numbers
from collections.abc import Sequence

import keras
import tensorflow as tf

from pineat_tf.checks import check_choice, check_count

ACTIVATIONS = ("relu", "leaky_relu")
NORMALIZATIONS = ("batch", "group")
PRECISIONS = ("float32", "mixed_bfloat16")

_GROUPS = 16  # of channels, as De et al. (2022) normalise wide networks for private training
_LEAK = 0.1  # slope of "leaky_relu", as in the reference's CIFAR10 network for PGD

_Scaling = tuple[float, str, str]  # initial weights: the arguments of `VarianceScaling`
_HE_FAN_OUT = (2.0, "fan_out", "untruncated_normal")  # the convolutions of both WRNs and of the TensorFlow VGG
_HE_FAN_IN = (2.0, "fan_in", "untruncated_normal")  # PyTorch's `kaiming_normal_`
_UNIT_SCALING = (1.0, "fan_in", "uniform")  # TensorFlow 1's `uniform_unit_scaling_initializer(1.0)`
_TORCH_LINEAR = (1 / 3, "fan_in", "uniform")  # the weights of PyTorch's `nn.Linear`
_GLOROT = (1.0, "fan_avg", "uniform")  # Keras' default


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Network:
    """The entries that all networks of the table have.

    Attributes:
        width: default width, that of the paper where the paper uses the network.
        last: initial weights of the logits; None for 0, so that it starts from uniform predictions.
        smallest: least number of rows and of columns.
        multiple: rows and columns must be multiples of it.
        torch: whether it comes from PyTorch, see `_Layers`.
    """

    width: int = 1
    last: _Scaling | None = _GLOROT
    smallest: int = 4  # two strides of 2 leave one pixel
    multiple: int = 1
    torch: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Stack(_Network):
    """Convolutions, then dense layers.

    Attributes:
        convs: filters at width 1 and strides of each convolution.
        conv: their initial weights.
        use_bias: whether they have biases.
        units: of each hidden layer at width 1.
        hidden: their initial weights.
        widens: whether the width widens them too.
    """

    convs: tuple[tuple[int, int], ...] = ()
    conv: _Scaling = _GLOROT
    use_bias: bool = True
    units: tuple[int, ...] = ()
    hidden: _Scaling = _GLOROT
    widens: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Wide(_Network):
    """16 channels, then three groups of residual units with 16, 32 and 64 times the width, then their mean.

    Attributes:
        units: of each group.
        stem_strides: of the first convolution.
        standardizes: whether each image comes to mean 0 and variance 1 first.
    """

    units: int = 5
    stem_strides: int = 1
    standardizes: bool = True


_VGG = ((16, 1), (16, 1), (16, 2), (32, 1), (32, 1), (32, 2))
_NETWORKS: dict[str, _Stack | _Wide] = {
    # The reference's FMNIST network for PGD, Dist and natural training, and the one for Diff.
    "fmnist_vgg": _Stack(
        width=16, convs=_VGG, conv=_HE_FAN_OUT, use_bias=False, units=(200,), hidden=_UNIT_SCALING, last=_UNIT_SCALING,
        widens=False,
    ),
    "fmnist_vgg_diff": _Stack(
        width=16, convs=_VGG, conv=_HE_FAN_IN, units=(200,), hidden=_TORCH_LINEAR, last=None, widens=False, torch=True,
    ),
    # The "w32-10" of Madry et al. (ICLR 2018), the reference's CIFAR10 network for PGD, Dist and natural training. Its
    # shortcut pools without padding, twice by 2.
    "wrn32": _Wide(width=10, last=_UNIT_SCALING, multiple=4),
    # The WRN-34-10 of TRADES (Zhang et al., ICML 2019), the reference's CIFAR10 network for Diff.
    "wrn34": _Wide(width=10, last=_TORCH_LINEAR, standardizes=False, torch=True),
    # One unit a group at half the size: CIFAR10 without a GPU. At full size, the pixel-wise operations of the first
    # group alone would take three quarters of the time on a CPU.
    "wrn8": _Wide(units=1, stem_strides=2, last=_UNIT_SCALING, smallest=8, multiple=8),
    # For tests, laptops and 8x8 digits; and the smallest network that overfits.
    "small_cnn": _Stack(convs=((16, 2), (32, 2)), units=(64,)),
    "mlp": _Stack(units=(128, 128), smallest=1),
}  # fmt: skip
NAMES = tuple(_NETWORKS)


def _initializer(scaling: _Scaling | None) -> keras.initializers.Initializer:
    """A new one each time: an initializer keeps its seed, so that two layers that share one would get the same draw."""
    return keras.initializers.VarianceScaling(*scaling) if scaling else keras.initializers.Zeros()


@dataclasses.dataclass(frozen=True)
class _Layers:
    """Adds layers to a tensor; holds what all layers of one network share.

    Attributes:
        activation: one of `ACTIVATIONS`.
        weight_decay: coefficient of ||w||^2 / 2.
        decay_all: whether biases, gamma and beta decay too.
        normalization: one of `NORMALIZATIONS`.
        precision: one of `PRECISIONS`, the dtype policy of the layers.
        torch: whether the network comes from PyTorch. Then a strided convolution is padded all round (TensorFlow's
            SAME pads an even side at the bottom and right only) and batch norm has epsilon 1e-5 (else 1e-3).
    """

    activation: str
    weight_decay: float
    decay_all: bool
    normalization: str
    precision: str
    torch: bool

    def _decay(self) -> keras.regularizers.Regularizer | None:
        return keras.regularizers.L2(self.weight_decay / 2) if self.weight_decay else None  # L2(c) is c * ||w||^2

    def _decay_if_all(self) -> keras.regularizers.Regularizer | None:
        return self._decay() if self.decay_all else None

    def conv(self, x, filters: int, *, kernel: _Scaling, name: str, size=3, strides=1, use_bias=False):
        """A `size` x `size` convolution whose output has ceil(side / strides) rows and columns; bias 0 at first."""
        padding = "same"
        if self.torch and strides > 1 and size > 1:
            x = keras.layers.ZeroPadding2D(size // 2, dtype=self.precision, name=f"{name}_padding")(x)
            padding = "valid"
        return keras.layers.Conv2D(
            filters,
            size,
            strides,
            padding,
            use_bias=use_bias,
            kernel_initializer=_initializer(kernel),
            kernel_regularizer=self._decay(),
            bias_regularizer=self._decay_if_all(),
            dtype=self.precision,
            name=name,
        )(x)

    def dense(self, x, units: int, *, kernel: _Scaling | None, name: str, precision: str | None = None):
        """A dense layer, in the network's precision unless told otherwise; PyTorch's hidden ones begin with biases."""
        bias: str | keras.initializers.Initializer = "zeros"
        if self.torch and name.startswith("hidden"):
            bound = 1 / math.sqrt(x.shape[-1])
            bias = keras.initializers.RandomUniform(-bound, bound)
        return keras.layers.Dense(
            units,
            kernel_initializer=_initializer(kernel),
            bias_initializer=bias,
            kernel_regularizer=self._decay(),
            bias_regularizer=self._decay_if_all(),
            dtype=precision or self.precision,
            name=name,
        )(x)

    def logits(self, x, num_classes: int, *, kernel: _Scaling | None):
        """The last dense layer, always in float32: losses and membership scores live on small logit differences."""
        return self.dense(x, num_classes, kernel=kernel, name="logits", precision="float32")

    def activate(self, x, name: str):
        """ReLU, or leaky ReLU of slope 0.1."""
        if self.activation == "leaky_relu":
            return keras.layers.LeakyReLU(negative_slope=_LEAK, dtype=self.precision, name=name)(x)
        return keras.layers.ReLU(dtype=self.precision, name=name)(x)

    def normalize_and_activate(self, x, name: str):
        """Normalisation, then the activation: the front half of a pre-activation unit."""
        options = {"epsilon": 1e-5 if self.torch else 1e-3, "dtype": self.precision, "name": f"{name}_norm"}
        options |= dict.fromkeys(("gamma_regularizer", "beta_regularizer"), self._decay_if_all())
        if self.normalization == "group":
            return self.activate(keras.layers.GroupNormalization(_GROUPS, **options)(x), f"{name}_activation")
        options |= {"momentum": 0.9}  # Keras' default is 0.99; PyTorch's momentum 0.1 is this 0.9
        options |= {"synchronized": tf.distribute.get_strategy().num_replicas_in_sync > 1}  # of the whole batch
        x = keras.layers.BatchNormalization(**options)(x)
        return self.activate(x, f"{name}_activation")

    def flatten(self, x):
        """(batch, rows, columns, channels) to (batch, features)."""
        return keras.layers.Flatten(dtype=self.precision, name="flatten")(x)


def _stack(layers: _Layers, x, width: int, network: _Stack):
    for number, (filters, strides) in enumerate(network.convs, start=1):
        name = f"conv{number}"
        x = layers.conv(x, filters * width, strides=strides, kernel=network.conv, use_bias=network.use_bias, name=name)
        x = layers.activate(x, f"{name}_activation")
    x = layers.flatten(x)
    for number, units in enumerate(network.units, start=1):
        name = f"hidden{number}" if len(network.units) > 1 else "hidden"
        x = layers.dense(x, units * (width if network.widens else 1), kernel=network.hidden, name=name)
        x = layers.activate(x, f"{name}_activation")
    return x


def _wide(layers: _Layers, x, width: int, network: _Wide):
    """TensorFlow's network shares the activation in its very first unit, PyTorch's wherever the channels change."""
    x = _standardize(x) if network.standardizes else x
    x = layers.conv(x, 16, strides=network.stem_strides, kernel=_HE_FAN_OUT, name="conv0")
    for group in range(3):
        filters = 16 * 2**group * width
        for unit in range(network.units):
            share = x.shape[-1] != filters if layers.torch else (group, unit) == (0, 0)
            strides = 2 if group and not unit else 1
            name = f"group{group + 1}_unit{unit + 1}"
            x = _residual_unit(layers, x, filters, strides, share_activation=share, name=name)
    x = layers.normalize_and_activate(x, "final")
    return keras.layers.GlobalAveragePooling2D(dtype=layers.precision, name="global_average")(x)


def _standardize(x):
    """Each image to mean 0 and variance 1, as `tf.image.per_image_standardization`, with a finite gradient.

    The floor of the standard deviation, 1 / sqrt(number of pixels), is applied to the variance: the square root of
    the 0 variance of a constant image would turn the gradient of an attack into NaN.
    """
    axes = (1, 2, 3)
    centred = x - keras.ops.mean(x, axis=axes, keepdims=True)
    variance = keras.ops.mean(keras.ops.square(centred), axis=axes, keepdims=True)
    return centred / keras.ops.sqrt(keras.ops.maximum(variance, 1 / math.prod(x.shape[1:])))


def _pool_and_pad(layers: _Layers, x, filters: int, strides: int, name: str):
    """The shortcut without parameters: average pooling, then zero channels, half before and half after."""
    if strides > 1:
        x = keras.layers.AveragePooling2D(strides, strides, "valid", dtype=layers.precision, name=f"{name}_pool")(x)
    half = (filters - x.shape[-1]) // 2
    return keras.ops.pad(x, ((0, 0), (0, 0), (0, 0), (half, half))) if half else x


def _project(layers: _Layers, x, filters: int, strides: int, name: str):
    """The shortcut with parameters: a 1x1 convolution where the number of channels changes, else nothing."""
    if x.shape[-1] == filters:
        return x
    return layers.conv(x, filters, size=1, strides=strides, kernel=_HE_FAN_OUT, name=f"{name}_shortcut")


def _residual_unit(layers: _Layers, x, filters: int, strides: int, *, share_activation: bool, name: str):
    """A pre-activation unit: He et al., "Identity Mappings in Deep Residual Networks" (2016).

    With `share_activation`, the shortcut, too, starts from the normalised and activated features.
    """
    activated = layers.normalize_and_activate(x, f"{name}_1")
    residual = layers.conv(activated, filters, strides=strides, kernel=_HE_FAN_OUT, name=f"{name}_conv1")
    residual = layers.normalize_and_activate(residual, f"{name}_2")
    residual = layers.conv(residual, filters, kernel=_HE_FAN_OUT, name=f"{name}_conv2")
    shortcut = _project if layers.torch else _pool_and_pad
    skipped = shortcut(layers, activated if share_activation else x, filters, strides, name)
    return keras.layers.Add(dtype=layers.precision, name=f"{name}_add")([skipped, residual])


def _check_numbers(num_classes: int, width: int, weight_decay: float) -> None:
    """Raises a `ValueError` for a number of classes, width or weight decay that makes no network."""
    check_count(
        "num_classes", num_classes, 2, "Give the number of classes of the dataset, e.g. 10; a binary task has 2."
    )
    check_count("width", width, 0, "Give the factor of the number of channels, or 0 for the network's own default.")
    if not 0 <= weight_decay < math.inf:
        raise ValueError(
            f"`weight_decay` must be a finite number >= 0. Received: weight_decay={weight_decay!r}. "
            "Give the coefficient of ||w||^2 / 2, e.g. 2e-4, or 0 for none."
        )


def _check_input_shape(name: str, input_shape: Sequence[int]) -> None:
    """Raises a `ValueError` for an `input_shape` that the network cannot take."""
    shape = tuple(input_shape) if isinstance(input_shape, Sequence) else ()
    if len(shape) != 3 or not all(isinstance(side, numbers.Integral) and side > 0 for side in shape):
        raise ValueError(
            "`input_shape` must be (rows, columns, channels), three whole numbers > 0 without the batch. "
            f"Received: input_shape={input_shape!r}. Give e.g. (28, 28, 1); grey images need the channel axis too."
        )
    network = _NETWORKS[name]
    if min(shape[:2]) < network.smallest or any(side % network.multiple for side in shape[:2]):
        multiples = f", and multiples of {network.multiple}" if network.multiple > 1 else ""
        raise ValueError(
            f"{name!r} shrinks its images: rows and columns must be at least {network.smallest}{multiples}. "
            f"Received: input_shape={input_shape!r}. Resize, pad or crop the images, or choose another network: "
            f"'wrn34' takes any side from 4, 'mlp' any."
        )


def build(
    name: str,
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    width: int = 0,
    activation: str = "relu",
    weight_decay: float = 0.0,
    decay_all: bool = False,
    normalization: str = "batch",
    precision: str = "float32",
) -> keras.Model:
    """Builds a network by name, with fresh weights.

    The draw of the weights follows `keras.utils.set_random_seed`. Layers carry stable names; the last one is "logits".

    Args:
        name: one of `NAMES`.
        input_shape: (rows, columns, channels) of an image.
        num_classes: number of classes, >= 2.
        width: factor of the number of channels (or hidden units) of every layer but the first of a WRN and the
            hidden layer of a VGG; 0 for the default: 16 for the VGGs and 10 for the WRNs, as in the paper, else 1.
        activation: "relu", or "leaky_relu" with slope 0.1, which the reference uses on CIFAR10 for PGD only.
        weight_decay: coefficient of ||w||^2 / 2, summed over the kernels of convolutions and dense layers
            (`tf.nn.l2_loss`; PyTorch's `weight_decay`). It appears in the network's `losses`.
        decay_all: whether it also falls on biases and on gamma and beta of batch norm, as for Diff.
        normalization: of WRNs: "batch", or "group", by 16 groups of channels of each example.
        precision: "float32", or "mixed_bfloat16": computation in bfloat16, weights, standardisation and logits in
            float32. Keras' global dtype policy neither matters nor changes.

    Returns:
        A functional model from images `(batch, rows, columns, channels)` in [0, 1] to logits `(batch, num_classes)`.

    Raises:
        ValueError: if an argument is unknown or out of range, or the images are too small for the network.

    Example:
        >>> network = build("small_cnn", input_shape=(8, 8, 1), num_classes=10)
        >>> network.output_shape
        (None, 10)

    Reference:
        Song, Shokri and Mittal (CCS 2019), `model.py` of PGD, Dist and Diff; Zagoruyko and Komodakis, "Wide Residual
        Networks" (2016).
    """
    check_choice("name", name, NAMES)
    check_choice("activation", activation, ACTIVATIONS)
    check_choice("normalization", normalization, NORMALIZATIONS)
    check_choice("precision", precision, PRECISIONS)
    _check_numbers(num_classes, width, weight_decay)
    _check_input_shape(name, input_shape)
    network = _NETWORKS[name]
    layers = _Layers(activation, weight_decay, decay_all, normalization, precision, network.torch)
    images = keras.Input(tuple(map(int, input_shape)), dtype="float32", name="images")
    width, body = int(width) or network.width, _wide if isinstance(network, _Wide) else _stack
    features = body(layers, images, width, network)
    return keras.Model(images, layers.logits(features, int(num_classes), kernel=network.last), name=name)


def _multiply_adds(layer: keras.Layer) -> int:
    """Multiply-accumulates of one layer for one example."""
    if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
        positions = math.prod(layer.output.shape[1:-1])
        return math.prod(layer.kernel.shape) * positions
    if any(len(weight.shape) > 1 for weight in layer.weights):  # weights of normalisations are vectors
        raise ValueError(
            "`forward_flops` counts convolutions and dense layers only. "
            f"Received: a network with the layer {layer.name!r} of type {type(layer).__name__}. "
            "Count a network inside a network by itself, and other layers by hand."
        )
    return 0


def forward_flops(network: keras.Model) -> int:
    """Counts the floating-point operations of one example's way to the logits.

    Args:
        network: a functional or sequential model.

    Returns:
        2 x multiply-accumulates of convolutions and dense layers; biases, activations, normalisations, pooling and
        additions are left out. A gradient for the input costs about as much again, one for the weights too.

    Raises:
        ValueError: if a layer with weight matrices is neither a `Conv2D` nor a `Dense`.

    Example:
        >>> forward_flops(build("mlp", input_shape=(8, 8, 1), num_classes=10))  # 2 * (64*128 + 128*128 + 128*10)
        51712
    """
    return 2 * sum(_multiply_adds(layer) for layer in network.layers)
