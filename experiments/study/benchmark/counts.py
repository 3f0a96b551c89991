"""Passes and operations of one round, counted while it runs rather than by a formula."""

import dataclasses
import math

import keras
import tensorflow as tf

from experiments import method, networks
from experiments.config import ExperimentConfig


@dataclasses.dataclass
class Counts:
    """What one update costs for one image, on average over a round.

    Attributes:
        gradient_passes: passes back through the network.
        flops: floating-point operations of convolutions and dense layers, forward and back.
    """

    gradient_passes: float
    flops: float


def counted(config: ExperimentConfig) -> Counts:
    """Runs one round of `config` eagerly on a network that counts what its layers do.

    Every layer counts its own operations in the forward pass, again when a gradient comes
    back to its inputs, and again when one comes back to its kernel.
    """
    tally = Counts(0, 0)
    network = keras.models.clone_model(network_of(config), clone_function=lambda layer: _counting(layer, tally))
    model = method.trainer(config, network)
    model.compile(optimizer="sgd", run_eagerly=True)
    tally.gradient_passes = tally.flops = 0  # building called the layers as well
    x = tf.random.stateless_uniform((config.batch_size, 28, 28, 1), seed=(0, 0))
    model.train_step((x, tf.range(config.batch_size) % 10))  # without the looks at the network that `fit` begins with
    images = config.batch_size * config.round_ratio.updates_per_round
    return Counts(tally.gradient_passes / images, tally.flops / images)


def by_formula(config: ExperimentConfig) -> Counts:
    """The same by the cost model in docs/paper.md: F forward, F back to images, 2F back to images and weights."""
    cost, updates = method.round_cost(config), config.round_ratio.updates_per_round
    forward = networks.forward_flops(network_of(config))
    return Counts(cost.gradients / updates, cost.forwards * forward / updates)


def network_of(config: ExperimentConfig) -> keras.Model:
    """The network of a benchmark, with the weights of seed 0."""
    keras.utils.set_random_seed(0)
    return method.network(config, input_shape=(28, 28, 1), num_classes=10, precision=config.precision)


def _counting(layer: keras.Layer, tally: Counts) -> keras.Layer:
    """A copy of the layer that counts, if it has a kernel; else a plain copy."""
    kinds = {keras.layers.Conv2D: _CountingConv2D, keras.layers.Dense: _CountingDense}
    kind = kinds.get(type(layer), type(layer))
    copy = kind.from_config(layer.get_config())
    copy.tally = tally
    return copy


class _Counting:
    """Counts calls and the gradients that come back, in operations and, at the logits, in passes of an image."""

    tally: Counts

    def call(self, inputs):
        positions = math.prod(self.compute_output_shape(inputs.shape)[:-1])
        self._flops = 2 * math.prod(super().kernel.shape) * positions  # as many in either pass back
        self._count("flops", self._flops)
        outputs = super().call(self._watched(inputs, "flops", self._flops))
        return self._watched(outputs, "gradient_passes", inputs.shape[0]) if self.name == "logits" else outputs

    @property
    def kernel(self):
        return self._watched(tf.convert_to_tensor(super().kernel), "flops", self._flops)

    def _count(self, key: str, amount: int) -> None:
        setattr(self.tally, key, getattr(self.tally, key) + amount)

    def _watched(self, tensor: tf.Tensor, key: str, amount: int) -> tf.Tensor:
        """The tensor; `amount` is counted whenever its gradient is asked for."""

        @tf.custom_gradient
        def watch(tensor):
            def back(gradient):
                self._count(key, amount)
                return gradient

            return tf.identity(tensor), back

        return watch(tensor)


class _CountingConv2D(_Counting, keras.layers.Conv2D):
    pass


class _CountingDense(_Counting, keras.layers.Dense):
    pass
