"""How a network is called so that all cores of a CPU are busy: in parts side by side, with activations fused.

TensorFlow spreads each operation over all cores and waits for the slowest, some fifty times an attack step. Here each
core computes a part of the batch from images to logits instead, and the gradient on the same way back. Nothing
changes on machines with a GPU, and nothing in what is computed but the last bits.
"""

import contextlib
import os
from collections.abc import Iterator

import keras
import tensorflow as tf

from pineat_tf import distribution
from pineat_tf.checks import check_count

_SMALLEST_PART = 8
_BFLOAT16_FEATURES = {"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16", "svebf16"}


def set_threads(num_parts: int = 0) -> int:
    """Sets TensorFlow's threads so that a batch is computed in parts side by side. Call it before anything else.

    It is a setting of the process. Without it, or with a GPU, networks are called on whole batches.

    Args:
        num_parts: how many parts a batch has; 0 for one a core, and at most 4: further cores share the parts.

    Returns:
        The number of parts from now on: 1 with a GPU.

    Raises:
        ValueError: if TensorFlow has started computing already with other threads.
    """
    check_count("num_parts", num_parts, 0, "It is how many parts of a batch are computed side by side.")
    if tf.config.list_physical_devices("GPU"):
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parts = num_parts or min(cores, 4)
    wanted = (max(1, cores // parts), parts)
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


def emulates_bfloat16(cpuinfo: str = "/proc/cpuinfo") -> bool:
    """Whether this machine would compute bfloat16 without instructions for it, which is slower than float32.

    Args:
        cpuinfo: Linux' description of its processors.

    Returns:
        False with a GPU, and where the description is not there or names no features.
    """
    if tf.config.list_physical_devices("GPU"):
        return False
    try:
        with open(cpuinfo, encoding="utf-8", errors="replace") as file:
            lines = [line.partition(":") for line in file]
    except OSError:
        return False
    features = next((values.split() for name, _, values in lines if name.strip().lower() in ("flags", "features")), ())
    return bool(features) and not _BFLOAT16_FEATURES.intersection(features)


class NetworkCall:
    """Calls a network in inference or training mode, on a CPU in parts and with what can be fused made so.

    In inference mode every batch is split; in training mode only where examples cannot influence each other: in
    networks of Keras' own layers without batch normalisation, random layers, frozen weights or activity regularisers.

    Args:
        network: maps images `(batch, ...)` to logits.
    """

    def __init__(self, network: keras.Model):
        self.network = network
        self._on_cpu = not tf.config.list_physical_devices("GPU")
        self._fusable = tuple(layer for layer in _layers(network) if _lacks_bias(layer)) if self._on_cpu else ()
        dtypes = {(layer.filters, layer.compute_dtype) for layer in self._fusable}
        self._zeros = {key: tf.Variable(tf.zeros(key[0], key[1]), trainable=False) for key in sorted(dtypes)}

    def __call__(self, images: tf.Tensor, training: bool) -> tf.Tensor:
        with self._zero_biases():
            parts = self._num_parts(images, training)
            if parts == 1:
                return self.network(images, training=training)
            logits = tf.concat([self.network(part, training=training) for part in _split(images, parts)], axis=0)
            return logits if images.shape[0] else logits[: tf.shape(images)[0]]

    def _num_parts(self, images: tf.Tensor, training: bool) -> int:
        alone = self._on_cpu and distribution.num_replicas() == 1 and not tf.executing_eagerly()
        if not alone or (training and not _is_per_example(self.network)):
            return 1
        intra, inter = _threads()
        parts = inter if intra and inter else 1
        batch_size = images.shape[0]
        return parts if batch_size is None else max(1, min(parts, batch_size // _SMALLEST_PART))

    @contextlib.contextmanager
    def _zero_biases(self) -> Iterator[None]:
        """Lets convolutions without bias add one of 0: TensorFlow fuses convolution, bias and activation only.

        The zeros are a variable, as an addition of constant zeros would be optimised away before it can be fused.
        """
        for layer in self._fusable:
            layer.convolution_op = self._with_bias(layer)
        try:
            yield
        finally:
            for layer in self._fusable:
                del layer.convolution_op

    def _with_bias(self, layer: keras.layers.Conv2D):
        def convolution_op(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
            outputs = type(layer).convolution_op(layer, inputs, kernel)
            return tf.nn.bias_add(outputs, self._zeros[layer.filters, layer.compute_dtype])

        return convolution_op


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


def _lacks_bias(layer: keras.Layer) -> bool:
    return type(layer) is keras.layers.Conv2D and not layer.use_bias and layer.data_format == "channels_last"


def _is_per_example(network: keras.Model) -> bool:
    return all(variable.trainable for variable in network.variables) and all(
        type(layer).__module__.startswith("keras.") and not getattr(layer, "activity_regularizer", None)
        for layer in _layers(network)
    )
