"""What makes networks faster on CPUs, without touching them: batches in parts side by side, fused activations.

TensorFlow spreads each operation over all cores and waits for the slowest, some fifty times an attack step. Here each
core computes a part of the batch from images to logits instead, and the gradient on the same way back. Nothing
changes on machines with a GPU, and nothing in what is computed but the last bits.

    pt.accelerate.set_threads()                                # right after the imports
    compute = pt.accelerate.compute_twin(network)
    model = pt.AdversarialTraining(network, forward=compute, ...)
    pt.predict_logits(compute, data, attack=attack)
"""

import os
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from pineat_tf import distribution
from pineat_tf.checks import check_count
from pineat_tf.serialization import serializable

__all__ = ["ComputeTwin", "ZeroBiasConv2D", "compute_twin", "cores", "set_threads"]

_SMALLEST_PART = 8
_PROGRAMS = (keras.layers.Lambda, keras.layers.TFSMLayer)


def compute_twin(network: keras.Model) -> "ComputeTwin":
    """Makes what computes as a network does, faster on CPUs, and leaves the network alone.

    Call it as the network: `twin(images, training=False)`. It reads the network's own variables, so it follows its
    training, but not later changes of its layers. To save or ship is always the network.

    Args:
        network: any classifier. One of Keras' own layers is recreated from its config, with a bias of 0 for
            convolutions that have none, as TensorFlow fuses convolution, bias and activation only together. Of others
            the batches are split only.

    Returns:
        The twin.

    Example:
        >>> model = AdversarialTraining(network, forward=compute_twin(network), attack=attack)
    """
    return ComputeTwin(network)


class ComputeTwin:
    """Calls a network on a CPU in parts, and with what can be fused made so; see `compute_twin`.

    In inference mode every batch is split; in training mode only where examples cannot influence each other: in
    networks of Keras' own layers without batch normalisation, random layers, frozen weights or activity regularisers.

    Attributes:
        network: the network itself. What is asked of the twin beside calls is asked of it.

    Example:
        >>> twin = compute_twin(network)
        >>> logits = twin(x, training=False)  # as `network(x, training=False)`
    """

    computes_as_its_network = True

    def __init__(self, network: keras.Model):
        self.network = network
        self._on_cpu = not tf.config.list_physical_devices("GPU")
        self._twin, self._pairs = _recreated(network) if self._on_cpu else (None, [])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "network":  # not there yet
            raise AttributeError(name)
        return getattr(self.network, name)

    def __call__(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not self._on_cpu or distribution.num_replicas() > 1 or (training and not _is_per_example(self.network)):
            return self.network(images, training=training)
        parts = self._num_parts(images)
        if parts == 1:
            return self._compute(images, training)
        logits = tf.concat([self._compute(part, training) for part in _split(images, parts)], axis=0)
        return logits if images.shape[0] else logits[: tf.shape(images)[0]]

    def _compute(self, images: tf.Tensor, training: bool) -> tf.Tensor:
        if self._twin is None:
            return self.network(images, training=training)
        with keras.StatelessScope([(own, theirs.value) for own, theirs in self._pairs]):
            return self._twin(images, training=training)

    def _num_parts(self, images: tf.Tensor) -> int:
        intra, inter = _threads()
        parts = inter if intra and inter and not tf.executing_eagerly() else 1
        batch_size = images.shape[0]
        return parts if batch_size is None else max(1, min(parts, batch_size // _SMALLEST_PART))


@serializable
class ZeroBiasConv2D(keras.layers.Conv2D):
    """A convolution that adds a bias of 0.

    The zeros are a variable, as an addition of constant zeros would be optimised away before it can be fused.

    Example:
        >>> ZeroBiasConv2D(4, 3)(x).shape[-1]
        4
    """

    def build(self, input_shape: Any) -> None:
        """Makes the kernel and the zeros, which are no weight."""
        super().build(input_shape)
        with tf.init_scope():
            self._zeros = tf.Variable(tf.zeros(self.filters, self.compute_dtype), trainable=False)

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """The convolution and the bias, one after the other, as TensorFlow fuses them."""
        return tf.nn.bias_add(super().convolution_op(inputs, kernel), self._zeros)


def cores() -> list[int]:
    """The numbers of the processor's cores that this thread may use; all of them where the system does not tell.

    Example:
        >>> len(cores()) >= 1
        True
    """
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def set_threads(num_parts: int = 0) -> int:
    """Sets TensorFlow's threads so that a batch is computed in parts side by side. Call it before anything else.

    It is a setting of the process. Without it, or with a GPU, networks are called on whole batches.

    Args:
        num_parts: how many parts a batch has; 0 for one a core, and at most 4: further cores share the parts.

    Returns:
        The number of parts from now on: 1 with a GPU.

    Raises:
        ValueError: if TensorFlow has started computing already with other threads.

    Example:
        >>> num_parts = pt.accelerate.set_threads()  # doctest: +SKIP
    """
    check_count("num_parts", num_parts, 0, "It is how many parts of a batch are computed side by side.")
    if tf.config.list_physical_devices("GPU"):
        return 1
    num_cores = len(cores())
    parts = num_parts or min(num_cores, 4)
    wanted = (max(1, num_cores // parts), parts)
    if _threads() != wanted:
        try:
            tf.config.threading.set_intra_op_parallelism_threads(wanted[0])
            tf.config.threading.set_inter_op_parallelism_threads(wanted[1])
        except RuntimeError as error:
            raise ValueError(
                "Threads can be set only before TensorFlow computes anything. Call `set_threads` right after the "
                f"imports. Received: num_parts={num_parts!r} after the start, with {_threads()} (intra, inter) set."
            ) from error
    return parts


def _threads() -> tuple[int, int]:
    threading = tf.config.threading
    return threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads()


def _split(images: tf.Tensor, parts: int) -> list[tf.Tensor]:
    """Parts as equal as can be, none of them empty: a batch of unknown size is filled up to one image a part."""
    rows = images.shape[0]
    if rows is None:
        rows = tf.maximum(tf.shape(images)[0], parts)
        images = tf.pad(images, [[0, rows - tf.shape(images)[0]]] + [[0, 0]] * (images.shape.rank - 1))
    sizes = [rows * (part + 1) // parts - rows * part // parts for part in range(parts)]
    return tf.split(images, sizes, num=parts)


def _layers(network: keras.Layer) -> Iterator[keras.Layer]:
    """The network and all its layers, those of networks within it included."""
    yield network
    for layer in getattr(network, "layers", ()):
        yield from _layers(layer)


def _recreated(network: keras.Model) -> tuple[keras.Model | None, list[tuple[keras.Variable, keras.Variable]]]:
    """The network from its config, for computing alone, and its variables beside those that they stand for."""
    own_kinds = all(type(layer).__module__.startswith("keras.") for layer in _layers(network))
    if not network.built or not own_kinds or any(isinstance(layer, _PROGRAMS) for layer in _layers(network)):
        return None, []
    try:
        twin = type(network).from_config(_for_computing(network.get_config()))
        pairs = list(_pairs(twin, network))
    except (TypeError, ValueError, KeyError):  # layers with functions of the user's own, which no config brings back
        return None, []
    return twin, pairs


def _for_computing(config: Any) -> Any:
    """A config without what only training needs: initial values, so that nothing is drawn, and compilation."""
    if isinstance(config, (list, tuple)):
        return type(config)(map(_for_computing, config))
    if not isinstance(config, dict):
        return config
    edited: dict[str, Any] = {}
    for name, value in config.items():
        if name.endswith("_initializer") and value is not None:
            edited[name] = "zeros"
        elif name == "seed" and value is None:
            edited[name] = 0
        elif name != "compile_config":
            edited[name] = _for_computing(value)
    if _lacks_bias(edited):
        edited |= {"module": None, "class_name": "ZeroBiasConv2D", "registered_name": "pineat_tf>ZeroBiasConv2D"}
    return edited


def _lacks_bias(config: dict) -> bool:
    is_convolution = config.get("module") == "keras.layers" and config.get("class_name") == "Conv2D"
    options = config["config"] if is_convolution else {}
    return is_convolution and not options["use_bias"] and options["data_format"] == "channels_last"


def _pairs(own: keras.Layer, theirs: keras.Layer) -> Iterator[tuple[keras.Variable, keras.Variable]]:
    """Each variable of a twin beside the one that it stands for; layers are found by their names."""
    if hasattr(theirs, "layers"):
        named = {layer.name: layer for layer in theirs.layers}
        for layer in own.layers:
            yield from _pairs(layer, named[layer.name])
        return
    for one, other in zip(own.variables, theirs.variables, strict=True):
        if one.shape != other.shape or one.dtype != other.dtype:
            raise ValueError(f"{one.path} is not like {other.path}.")
        yield one, other


def _is_per_example(network: keras.Model) -> bool:
    return all(variable.trainable for variable in network.variables) and all(
        type(layer).__module__.startswith("keras.") and not getattr(layer, "activity_regularizer", None)
        for layer in _layers(network)
    )
