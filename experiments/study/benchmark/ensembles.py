"""Networks of one shape trained at once in one process: what shadow models could gain by it."""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from experiments.study.benchmark import baselines


class Stacked:
    """Networks as one, over a leading axis: convolutions by groups of channels, dense layers as batched products.

    Args:
        networks: all of the same `Conv2D` (padding "same"), `ReLU`, `Flatten` and `Dense` layers.
    """

    def __init__(self, networks: Sequence[keras.Model]):
        self._num, self._layers = len(networks), networks[0].layers
        weights = zip(*([layer.get_weights() for layer in network.layers] for network in networks))
        self._weights = [[keras.Variable(tf.stack(values)) for values in zip(*layers)] for layers in weights]
        self.trainable_variables = [variable for variables in self._weights for variable in variables]

    def __call__(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Gives logits `(num, batch, classes)` of images `(num, batch, rows, columns, channels)`."""
        for layer, weights in zip(self._layers, self._weights):
            x = tf.cast(x, layer.compute_dtype)
            weights = [tf.cast(variable, layer.compute_dtype) for variable in weights]
            if isinstance(layer, keras.layers.Conv2D):
                x = self._conv(x, weights[0], layer.strides) + sum(bias[:, None, None, None] for bias in weights[1:])
            elif isinstance(layer, keras.layers.Dense):
                x = x @ weights[0] + weights[1][:, None]
            elif isinstance(layer, keras.layers.Flatten):
                x = tf.reshape(x, (self._num, x.shape[1], -1))
            elif isinstance(layer, keras.layers.ReLU):
                x = tf.nn.relu(x)
        return x

    def _conv(self, x: tf.Tensor, kernels: tf.Tensor, strides: tuple[int, int]) -> tf.Tensor:
        rows, columns, channels, filters = kernels.shape[1:]
        kernel = tf.reshape(tf.transpose(kernels, (1, 2, 3, 0, 4)), (rows, columns, channels, self._num * filters))
        side_by_side = tf.reshape(tf.transpose(x, (1, 2, 3, 0, 4)), (*x.shape[1:4], self._num * channels))
        x = tf.nn.conv2d(side_by_side, kernel, strides, "SAME")
        return tf.transpose(tf.reshape(x, (*x.shape[:3], self._num, filters)), (3, 0, 1, 2, 4))


def stacked(networks: Sequence[keras.Model], attack: str) -> Callable[[tf.Tensor, tf.Tensor], None]:
    """One update of all networks as one, by batches `(num, batch, ...)`."""
    return baselines.training(Stacked(networks), attack, compiled=True)


def interleaved(networks: Sequence[keras.Model], attack: str) -> Callable[[tf.Tensor, tf.Tensor], None]:
    """One update of each network, all in one graph whose branches threads share, by batches `(num, batch, ...)`."""
    updates = [baselines.training(network, attack, compiled=False) for network in networks]

    def update(x: tf.Tensor, y: tf.Tensor) -> None:
        for number, one in enumerate(updates):
            one(x[number], y[number])

    return tf.function(update, autograph=False)
