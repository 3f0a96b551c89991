"""Logits of a network on natural or adversarial images, batch by batch."""

import dataclasses
from collections.abc import Callable, Iterable

import keras
import numpy as np
import tensorflow as tf

from pineat_tf.checks import check_batch, check_count, check_logits_head, data_errors_as_value_errors
from pineat_tf.heads import class_logits
from pineat_tf.losses import class_numbers
from pineat_tf.seeds import as_seed, fold
from pineat_tf.types import Seed

Data = tf.data.Dataset | tuple[np.ndarray, np.ndarray]
"""Images and labels: two arrays of equal length, or a finite dataset of batches `(images, labels)`."""


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """What a network says of a set of images.

    Attributes:
        logits: shape `(num, num_classes)`, float32.
        labels: true classes, shape `(num,)`, int64.
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
        network: gives logits of shape `(batch, num_classes)`; it runs in inference mode.
        attack: perturbs the images first, called as `attack(logits_fn, x, y, seed=...)`; None leaves them natural.

    Raises:
        ValueError: if the network ends in a softmax.
    """

    def __init__(self, network: keras.Model, attack: Callable | None = None):
        check_logits_head(network)
        self.network = network
        self.attack = attack
        self._steps: dict[tuple[tf.TensorSpec, tf.TensorSpec], Callable] = {}  # by shape and dtype of the data

    def __call__(
        self,
        data: Data,
        *,
        seed: Seed = 0,
        batch_size: int = 256,
        on_batch: Callable[[int], None] | None = None,
    ) -> Predictions:
        """Predicts.

        Args:
            data: images in the attack's bounds and their labels (class numbers or one-hot).
            seed: randomness of the attack; each batch has its own draws.
            batch_size: images a batch, where `data` is two arrays.
            on_batch: called after each batch with how many images it had, e.g. to move a progress bar.

        Returns:
            Logits and labels in the order of the data.

        Raises:
            ValueError: if the data is endless, empty, or images or labels are not as they must be.
        """
        batches, specs = as_batches(data, batch_size)
        specs = tuple(tf.TensorSpec([None, *spec.shape[1:]], spec.dtype) for spec in specs)
        if specs not in self._steps:
            self._steps[specs] = self._compile(*specs)
        logits, labels, seed = [], [], as_seed(seed)
        with data_errors_as_value_errors():
            for index, (x, y) in enumerate(batches):
                predicted, classes = self._steps[specs](x, y, fold(seed, index))
                logits.append(predicted.numpy())
                labels.append(classes.numpy())
                if on_batch:
                    on_batch(len(logits[-1]))
        if not logits:
            raise ValueError("There are no images to predict. Received: a dataset of 0 batches.")
        return Predictions(np.concatenate(logits), np.concatenate(labels))

    def _compile(self, x_spec: tf.TensorSpec, y_spec: tf.TensorSpec) -> Callable:
        def logits_fn(images: tf.Tensor) -> tf.Tensor:
            return class_logits(self.network(images, training=False))

        @tf.function(autograph=False, input_signature=[x_spec, y_spec, tf.TensorSpec([2], tf.int64)])
        def step(x, y, seed):
            x, y = check_batch(x, y)
            if self.attack is not None:
                x = self.attack(logits_fn, x, y, seed=seed)
            return tf.cast(logits_fn(x), tf.float32), tf.cast(class_numbers(y), tf.int64)

        return step


def predict_logits(
    network: keras.Model, data: Data, *, attack: Callable | None = None, seed: Seed = 0, batch_size: int = 256
) -> Predictions:
    """Predicts the logits of a network on data, natural or under attack; see `Predictor`.

    Example:
        >>> predict_logits(network, (x_test, y_test), attack=pgd(epsilon=0.1, step_size=0.0125, num_steps=20)).accuracy
    """
    return Predictor(network, attack)(data, seed=seed, batch_size=batch_size)


def as_batches(data: Data, batch_size: int) -> tuple[Iterable, Iterable[tf.TensorSpec]]:
    """Batches of images and labels, and what they are like. Of arrays, one batch at a time becomes tensors."""
    if isinstance(data, tf.data.Dataset):
        if data.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise ValueError("The dataset never ends. Received: a dataset with `repeat()`. Give one pass over it.")
        batches = data.map(lambda x, y, *_: (x, y)).prefetch(2)
        return batches, batches.element_spec
    check_count("batch_size", batch_size, 1, "It is how many images are predicted at once.")
    images, labels = map(np.asarray, data)
    if len(images) != len(labels) or not len(images):
        raise ValueError(
            "There must be as many labels as images, and at least one. "
            f"Received: {len(images)} images, {len(labels)} labels."
        )
    starts = range(0, len(images), batch_size)
    batches = ((images[start : start + batch_size], labels[start : start + batch_size]) for start in starts)
    return batches, (tf.TensorSpec(array.shape, array.dtype) for array in (images, labels))
