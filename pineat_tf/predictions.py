"""Logits of a network on natural or adversarial images, batch by batch."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pineat_tf.checks import check_attack, check_batch, check_network, data_errors_as_value_errors
from pineat_tf.data import Data, as_batches
from pineat_tf.heads import check_logits_head, class_logits
from pineat_tf.losses import class_numbers
from pineat_tf.pixel_scale import warn_of_scale
from pineat_tf.progress import Bar, Verbose
from pineat_tf.seeds import as_seed, fold
from pineat_tf.threat import ThreatModel
from pineat_tf.tracing import graph
from pineat_tf.types import Bounds, Seed

__all__ = ["Predictions", "Predictor", "predict_logits"]


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """What a network says of a set of images.

    Attributes:
        logits: shape `(num, num_classes)`, float32; of a head of one logit or sigmoid `(num, 2)`, [0, z].
        labels: true classes, shape `(num,)`, int64.

    Example:
        >>> predict_logits(network, (x_test, y_test)).logits.shape
        (8, 5)
    """

    logits: np.ndarray
    labels: np.ndarray

    @property
    def accuracy(self) -> float:
        """Share of images whose largest logit is that of the true class."""
        return float(np.mean(np.argmax(self.logits, axis=1) == self.labels))


class Predictor:
    """Predicts the logits of a network, compiled once for all data that it is called on.

    Args:
        network: gives logits of shape `(batch, num_classes)`, or one logit or sigmoid; it runs in inference mode.
        attack: perturbs the images first, called as `attack(logits_fn, x, y, seed=...)`; None leaves them natural.

    Raises:
        ValueError: if `attack` is no attack or `network` no network; when called, if the network's outputs are
            probabilities of several classes.

    Example:
        >>> predict = Predictor(network, pgd(epsilon=0.1, step_size=0.05, num_steps=2))
        >>> len(predict((x_test, y_test), batch_size=4).labels)
        8
    """

    def __init__(self, network: keras.Model, attack: Callable | None = None):
        check_network(network)
        if attack is not None:
            check_attack("attack", attack)
        self.network = network
        self.attack = attack
        self._num_classes: int | None = None
        self._steps: dict[tuple[tf.TensorSpec, tf.TensorSpec], Callable] = {}  # by shape and dtype of the data

    def __call__(
        self,
        data: Data,
        *,
        seed: Seed = 0,
        batch_size: int = 256,
        max_examples: int | None = None,
        on_batch: Callable[[int], None] | None = None,
        verbose: Verbose = 0,
        title: str = "accuracy",
    ) -> Predictions:
        """Predicts.

        Args:
            data: images in the attack's bounds and their labels, in any structure of `pineat_tf.data`. Weights of
                examples are ignored.
            seed: randomness of the attack; each batch has its own draws.
            batch_size: images a batch, where `data` is not batched.
            max_examples: how many examples to predict, the first ones; None for all.
            on_batch: called after each batch with how many images it had, e.g. to move a progress bar.
            verbose: Keras' progress bar: "auto" or 1 for a bar, 2 for a line at the end, 0 for nothing.
            title: what the bar calls the accuracy so far.

        Returns:
            Logits and labels in the order of the data.

        Raises:
            ValueError: if the data is endless, empty, or images or labels are not as they must be.
        """
        batches = as_batches(data, batch_size, network=self.network, max_examples=max_examples)
        logits, labels, seed = [], [], as_seed(seed)
        bar, done, right = Bar(verbose, title, batches.num), 0, 0
        with data_errors_as_value_errors():
            for index, (x, y) in enumerate(batches):
                predicted, classes = self._step(x, y)(x, y, fold(seed, index))
                logits.append(predicted.numpy())
                labels.append(classes.numpy())
                done += len(logits[-1])
                right += int(np.count_nonzero(np.argmax(logits[-1], axis=1) == labels[-1]))
                bar.update(done, right / done)
                if on_batch:
                    on_batch(len(logits[-1]))
        bar.end()
        if not logits:
            raise ValueError("There are no images to predict. Received: a dataset of 0 batches, or a generator again.")
        return Predictions(np.concatenate(logits), np.concatenate(labels))

    def _step(self, x: Any, y: Any) -> Callable:
        """What predicts batches like this one."""
        x_spec, y_spec = specs = tuple(tf.TensorSpec([None, *part.shape[1:]], part.dtype) for part in (x, y))
        if specs not in self._steps:
            bounds = ThreatModel.of(self.attack).limits
            warn_of_scale(self.network, bounds=bounds, images=x)
            check_batch(x, y, bounds=bounds)
            if self._num_classes is None:
                self._num_classes = check_logits_head(self.network, x)
            self._steps[specs] = self._compile(x_spec, y_spec, bounds)
        return self._steps[specs]

    def _compile(self, x_spec: tf.TensorSpec, y_spec: tf.TensorSpec, bounds: Bounds | None) -> Callable:
        def logits_fn(images: tf.Tensor) -> tf.Tensor:
            return class_logits(self.network(images, training=False))

        def step(x: tf.Tensor, y: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            images, y = check_batch(x, y, bounds=bounds, num_classes=self._num_classes)
            if self.attack is None:
                images = tf.cast(images, x.dtype)  # whole numbers as Keras would give them to the network
            else:
                images = self.attack(logits_fn, images, y, seed=seed)
            return tf.cast(logits_fn(images), tf.float32), tf.cast(class_numbers(y), tf.int64)

        return graph(step, x_spec, y_spec, tf.TensorSpec([2], tf.int64))


def predict_logits(
    network: keras.Model,
    data: Data,
    *,
    attack: Callable | None = None,
    seed: Seed = 0,
    batch_size: int = 256,
    verbose: Verbose = 0,
) -> Predictions:
    """Predicts the logits of a network on data, natural or under attack; see `Predictor`.

    Example:
        >>> predict_logits(network, (x_test, y_test), attack=pgd(epsilon=0.1, step_size=0.0125, num_steps=20)).accuracy
    """
    return Predictor(network, attack)(data, seed=seed, batch_size=batch_size, verbose=verbose)
