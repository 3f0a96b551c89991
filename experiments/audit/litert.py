"""LiteRT files as networks: predictions are the file's, gradients those of the network that it was made from."""

import hashlib
import pathlib
import threading
from typing import Any

import keras
import numpy as np
import tensorflow as tf

SUFFIX = ".tflite"


def load(path: str, source: keras.Model) -> keras.Model:
    """Gives the network of a file, with straight-through gradients.

    What an integer network computes has no gradient that leads anywhere: its steps are flat. Attacks go by the
    gradient of the network before it was quantised, taken at the loss of the quantised one's logits, which is what an
    attacker does who has both.

    Args:
        path: of a file that takes and gives float32.
        source: what the file was made from.

    Raises:
        ValueError: if the file is no network from images of the source's shape to as many logits.
    """
    try:
        layer = LiteRT(path, source)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{path!r} cannot be used as a LiteRT network: {str(error)[:300]}") from error
    inputs = keras.Input(source.input_shape[1:])
    return keras.Model(inputs, layer(inputs))


def _interpreter(content: bytes) -> Any:
    threads = tf.config.threading.get_intra_op_parallelism_threads() or None
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:  # TensorFlow's own, which it means to drop
        Interpreter = tf.lite.Interpreter
    return Interpreter(model_content=content, num_threads=threads)


@keras.saving.register_keras_serializable(package="pineat_tf_audit")
class LiteRT(keras.layers.Layer):
    """A file's predictions as a layer; arguments as of `load`."""

    def __init__(self, path: str, source: keras.Model, **options):
        super().__init__(trainable=False, dtype="float32", **options)
        content = pathlib.Path(path).read_bytes()
        self._interpreter = _interpreter(content)
        self._content = hashlib.sha256(content).hexdigest()
        self._source, self._turn, self._shape = source, threading.Lock(), None
        (self._input,), (self._output,) = (
            self._interpreter.get_input_details(),
            self._interpreter.get_output_details(),
        )
        kinds = [self._input["dtype"], self._output["dtype"]]
        stated = tuple(self._input["shape"][1:]), int(self._output["shape"][-1])
        if kinds != [np.float32] * 2 or stated != (source.input_shape[1:], source.output_shape[-1]):
            raise ValueError(f"it goes from {stated[0]} to {stated[1]} numbers, unlike its source, or not in float32")

    def get_config(self) -> dict:
        """Returns the content that identifies the layer; nothing recreates it."""
        return super().get_config() | {"content": self._content}

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """Returns the file's logits; their gradient is that of the source's."""

        @tf.custom_gradient
        def straight_through(x: tf.Tensor):
            logits = tf.numpy_function(self._predict, [x], tf.float32)
            logits.set_shape((x.shape[0], self._source.output_shape[-1]))

            def gradient(upstream: tf.Tensor) -> tf.Tensor:
                with tf.GradientTape() as tape:
                    tape.watch(x)
                    smooth = self._source(x, training=False)
                return tape.gradient(smooth, x, output_gradients=upstream)

            return logits, gradient

        return straight_through(tf.cast(images, tf.float32))

    def _predict(self, images: np.ndarray) -> np.ndarray:
        with self._turn:
            if images.shape != self._shape:
                self._interpreter.resize_tensor_input(self._input["index"], images.shape)
                self._interpreter.allocate_tensors()
                self._shape = images.shape
            self._interpreter.set_tensor(self._input["index"], images)
            self._interpreter.invoke()
            return self._interpreter.get_tensor(self._output["index"])
