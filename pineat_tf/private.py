"""Adversarial training with differential privacy: the round as one Gaussian mechanism."""

import secrets
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pineat_tf import accounting, coupling
from pineat_tf.attacks.parts import DistStep
from pineat_tf.checks import check_count, check_part, check_positive, data_errors_as_value_errors
from pineat_tf.companions import NoCompanions
from pineat_tf.data import Data, as_batches
from pineat_tf.objectives import CrossEntropy
from pineat_tf.seeds import fold
from pineat_tf.serialization import serializable
from pineat_tf.training import AdversarialTraining
from pineat_tf.types import Attack, Companions, Objective, Seed

__all__ = ["PrivateAdversarialTraining"]

_READ, _ROUNDING = 4096, 1e-3  # images at once; of the noise, which another batch may round otherwise
_SAMPLING, _NOISE = 1 << 40, 1 << 41  # what a round's seeds are for, beyond the number of any example


@serializable
class PrivateAdversarialTraining(AdversarialTraining):
    """Adversarial training whose weights are differentially private in the training data (DP-SGD).

    Each round draws every training example with the same probability (Poisson sampling), makes its n adversarial
    examples and m companions by the weights as they are, and averages the n + m losses of an example *before* its
    gradient is clipped. So a round moves the weights once and costs one Gaussian, where n + m updates by one batch cost
    n + m. The gradients' sum gets noise of standard deviation `noise_multiplier * clip_norm` and is divided by the
    expected batch size. Weights, and all that is computed from them, then satisfy (epsilon, delta)-differential privacy
    for data sets that differ by one example more: see `epsilon_spent`, which `fit` logs after each epoch. Losses and
    metrics in the logs, and choosing settings by the data, are outside the guarantee.

    Refused is what couples the examples of a batch: batch normalisation (take `keras.layers.GroupNormalization`),
    attacks like Dist that take a mean over the batch, several replicas, loss scaling.

    Args:
        network: as for `AdversarialTraining`, without batch normalisation.
        attack: as for `AdversarialTraining`; an example's noise may depend on that example only.
        clip_norm: largest L2 norm of an example's gradient, > 0.
        noise_multiplier: standard deviation of the noise over `clip_norm`, >= 0; 0 is no privacy. See
            `accounting.noise_multiplier_for`.
        sampling_rate: probability that an example is in a batch, in (0, 1]; or
        batch_size: the expected size of a batch, from which it follows. Give one of the two.
        delta: probability with which the guarantee may fail, in (0, 1); well below one over the number of examples.
        microbatch_size: how many examples' gradients are in memory at once.
        objective: as for `AdversarialTraining`. Weight decay by regularizers is a part of each example's loss.
        companions: as for `AdversarialTraining`.
        ratio: n/m: which losses of an example are averaged.
        seed: source of all randomness. The guarantee holds for who does not know it: None draws one from the operating
            system.
        **kwargs: as for `keras.Model`.

    Raises:
        ValueError: as `AdversarialTraining`, and for what is refused.
        ImportError: from `fit`, without `dp-accounting` (`pip install 'pineat_tf[dp]'`).

    Example:
        >>> model = PrivateAdversarialTraining(
        ...     network,
        ...     attack=attack,
        ...     companions=ReverseSymmetry(),
        ...     ratio="1/1",
        ...     clip_norm=1.0,
        ...     noise_multiplier=1.0,
        ...     batch_size=50,
        ...     delta=1e-5)

    Reference:
        Abadi et al., "Deep learning with differential privacy", CCS 2016, algorithm 1; De et al., "Unlocking
        high-accuracy differentially private image classification through scale", 2022, section 3, for the average
        over versions of an example.
    """

    def __init__(
        self,
        network: keras.Model,
        *,
        attack: Attack | None,
        clip_norm: float,
        noise_multiplier: float,
        sampling_rate: float | None = None,
        batch_size: int | None = None,
        delta: float,
        microbatch_size: int = 32,
        objective: Objective = CrossEntropy(),
        companions: Companions = NoCompanions(),
        ratio: str | tuple[int, int] = "1/0",
        seed: Seed | None = None,
        **kwargs: Any,
    ) -> None:
        check_positive("clip_norm", clip_norm, "It is the largest norm of an example's gradient, e.g. 1.0.")
        accounting.check_noise_multiplier(noise_multiplier)
        accounting.check_delta(delta)
        check_count("microbatch_size", microbatch_size, 1, "It is how many examples' gradients are in memory at once.")
        _check_rate(sampling_rate, batch_size)
        coupling.check_layers(network)
        coupling.check_round(objective, kwargs)
        super().__init__(
            network,
            attack=attack,
            objective=objective,
            companions=companions,
            ratio=ratio,
            seed=secrets.randbits(62) if seed is None else seed,
            **kwargs,
        )
        self.clip_norm, self.noise_multiplier = clip_norm, noise_multiplier
        self.sampling_rate, self.batch_size, self.delta = sampling_rate, batch_size, delta
        self.microbatch_size = microbatch_size
        self._num: int | None = None
        self._num_examples = self.add_weight(
            shape=(), initializer="zeros", dtype="int64", trainable=False, name="num_examples"
        )

    def get_config(self) -> dict:
        """The arguments of the constructor."""
        dropped = ("generation", "order", "weight_perturbation")
        config = {name: value for name, value in super().get_config().items() if name not in dropped}
        names = ("clip_norm", "noise_multiplier", "sampling_rate", "batch_size", "delta", "microbatch_size")
        return config | {name: getattr(self, name) for name in names}

    @property
    def epsilon_spent(self) -> float:
        """The epsilon that the rounds done so far guarantee, with `delta`; see `accounting.epsilon`."""
        rounds = int(self.rounds)
        if not rounds:
            return 0.0
        return accounting.epsilon(
            noise_multiplier=self.noise_multiplier, sampling_rate=self._rate(), num_rounds=rounds, delta=self.delta
        )

    def compile(self, optimizer: Any = "rmsprop", loss: Any = None, metrics: Any = None, **kwargs: Any) -> None:
        """As `AdversarialTraining.compile`."""
        super().compile(optimizer=optimizer, loss=loss, metrics=metrics, **kwargs)
        if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            raise ValueError(
                "Clipping needs gradients as they are, without a scaled loss. Received: a LossScaleOptimizer, as mixed "
                "precision in float16 makes. Build the network under 'mixed_bfloat16' or 'float32'."
            )

    def fit(self, x: Data | None = None, y: Any = None, *, epochs: int = 1, **kwargs: Any) -> keras.callbacks.History:
        """Trains by batches that are drawn for each round.

        Args:
            x: all training images, or the data in any finite structure of `pineat_tf.data`; it is kept in memory.
            y: labels where `x` is images.
            epochs: as in Keras; one is `steps_per_epoch` rounds, by default as many as make a pass on average.
            **kwargs: as in Keras, but for what says how batches are made.

        Returns:
            The history, with `epsilon_spent` of each epoch.

        Raises:
            ValueError: for bad data, a second data set, or arguments that would make batches otherwise.
        """
        refused = {"batch_size", "sample_weight", "class_weight", "shuffle", "validation_split"}
        given = sorted(refused & {name for name, value in kwargs.items() if value is not None})
        if isinstance(x, (tuple, list)) and len(x) == 3 and hasattr(x[2], "shape"):
            given.append("weights")
        if given:
            raise ValueError(
                "Batches are drawn by Poisson sampling, which the guarantee rests on. Received: "
                f"{', '.join(given)} in `fit`. Give `batch_size` or `sampling_rate` to the constructor, and weights to "
                "no example."
            )
        stream = self.batches(x, y)
        callbacks = [_EpsilonInLogs(), *tf.nest.flatten(kwargs.pop("callbacks", None) or [])]
        steps = kwargs.pop("steps_per_epoch", None) or max(1, round(1 / self._rate()))
        return super().fit(stream, epochs=epochs, steps_per_epoch=steps, callbacks=callbacks, **kwargs)

    def batches(self, x: Data, y: Any = None) -> tf.data.Dataset:
        """Returns what `fit` trains on: batches `(x, y, weights)` without end, from the round that is next.

        A batch is drawn by the seed and the number of its round, and filled up to whole microbatches. Weights are 1, or
        0 of rows that only fill it.
        """
        with data_errors_as_value_errors():
            images, labels = _in_memory(x if y is None else (x, y), self.network)
            self._check_data(images, labels)
            return self._sampled(tf.constant(images), tf.constant(labels))

    def round(self, x: tf.Tensor, y: tf.Tensor, sample_weight: tf.Tensor | None, rounds: tf.Tensor) -> list[tf.Tensor]:
        """Plays a round as one mechanism. Weights of 0 are of rows that only fill the batch."""
        if sample_weight is None:
            raise ValueError(
                "Private training draws its batches itself. Received: a batch from elsewhere. Call `fit` with all data."
            )
        n, m = self.ratio
        seed = fold(self.seed, rounds)
        adversarial = tuple(self.generate(index, x, y, fold(seed, index)) for index in range(n))
        beside, labels = self._companions_of(x, adversarial, y, fold(seed, n)) if m else ((), y)
        gradients, losses, logits = self._clipped_sum(x, (y, labels), sample_weight, (*adversarial, *beside))
        expected = self._rate() * self._population()
        noised = [self._noised(total, fold(seed, _NOISE, index)) / expected for index, total in enumerate(gradients)]
        variables = self.trainable_variables
        self.optimizer.apply_gradients([(tf.cast(g, v.dtype), v) for g, v in zip(noised, variables)])
        num = tf.reduce_sum(sample_weight)
        for kind, of_kind in (("adversarial", losses[:n]), ("companion", losses[n:])):
            for loss in of_kind:
                self._record(kind, tf.math.divide_no_nan(tf.reduce_sum(loss * sample_weight), num), num)
        return list(logits)

    @property
    def updates_per_round(self) -> int:
        """One: what a round costs of the budget."""
        return 1

    def _rate(self) -> float:
        if self.sampling_rate is not None:
            return self.sampling_rate
        return min(1.0, (self.batch_size or 1) / self._population())

    def _population(self) -> int:
        if self._num is None:
            self._num = int(self._num_examples.numpy())
        return self._num

    def _check_data(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Checks that training goes on with data of the size it began with, and that the attack treats images alone."""
        num, before = len(images), self._population()
        if before and before != num:
            raise ValueError(
                "A guarantee is of one data set. Received: "
                f"{num} examples after training on {before}. Make a new trainer for other data."
            )
        if self.batch_size is not None and self.batch_size > num:
            raise ValueError(
                f"`batch_size` must be at most the number of examples, {num}. Received: batch_size={self.batch_size}."
            )
        self._num_examples.assign(num)
        self._num = num
        coupling.check_network(self.network, images[:1])
        self._check_alone(tf.constant(images[:3]), tf.constant(labels[:3]))

    def _check_alone(self, x: tf.Tensor, y: tf.Tensor) -> None:
        """Raises unless the noise of an image is the same whatever the other image of the batch is."""
        coupled = isinstance(getattr(self.attack, "step", None), DistStep)
        if len(x) >= 3 and not coupled:
            one, other = (self._noise_of_first(*(tf.stack([part[0], part[row]]) for part in (x, y))) for row in (1, 2))
            coupled = bool(np.abs(one - other).max() > _ROUNDING * np.abs(one).max())
        if coupled:
            raise ValueError(
                "An example's noise must depend on that example alone, or clipping its gradient bounds nothing. "
                f"Received: attack={self.attack!r}, companions={self.companions!r}, whose noise of an image changes "
                "with the others of the batch, as that of Dist does. Give e.g. `attacks.pgd(...)`."
            )

    def _noise_of_first(self, x: tf.Tensor, y: tf.Tensor) -> np.ndarray:
        """The noise of all examples of the first image."""
        n, m = self.ratio
        made = [self.generate(index, x, y, fold(0, index)) for index in range(n)]
        made += self._companions_of(x, tuple(made), y, fold(0, n))[0] if m else ()
        return np.stack([np.asarray(tf.cast(example[0], tf.float32) - tf.cast(x[0], tf.float32)) for example in made])

    def _sampled(self, images: tf.Tensor, labels: tf.Tensor) -> tf.data.Dataset:
        num, rate, size = len(images), self._rate(), self.microbatch_size
        first = int(self.rounds)

        @tf.autograph.experimental.do_not_convert
        def batch(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            draws = tf.random.stateless_uniform([num], fold(self.seed, number, _SAMPLING), dtype=tf.float64)
            drawn = tf.where(draws < rate)[:, 0]
            count = tf.size(drawn)
            rows = tf.range(size * tf.maximum(1, -(-count // size)))
            padded = tf.pad(drawn, [[0, size]])  # a row for a batch of none
            filled = tf.gather(padded, rows % tf.maximum(count, 1))  # rows beyond repeat the drawn ones
            weights = tf.cast(rows < count, tf.float32)
            return tf.gather(images, filled), tf.gather(labels, filled), weights

        options = tf.data.Options()
        options.autotune.enabled = False  # nothing here to tune, and its thread can hold up the end of `fit`
        return tf.data.Dataset.counter(start=first).map(batch, num_parallel_calls=1).prefetch(2).with_options(options)

    def _clipped_sum(
        self, x: tf.Tensor, labels: Sequence[tf.Tensor], weights: tf.Tensor, examples: Sequence[tf.Tensor]
    ) -> tuple[list[tf.Tensor], list[tf.Tensor], list[tf.Tensor]]:
        """The sum of the clipped gradients, and the losses and logits of each example, adversarial ones first.

        `labels` are of adversarial examples and of companions.
        """
        natural = [example is x for example in examples]
        parts = [x, *labels, weights, *(example for example, same in zip(examples, natural) if not same)]
        size = self.microbatch_size
        parts = [tf.reshape(part, [-1, size, *part.shape[1:]]) for part in parts]

        def one(elements: Sequence[tf.Tensor]) -> tuple[list[tf.Tensor], list[tf.Tensor], list[tf.Tensor]]:
            x, y, of_companions, weight, *others = (part[None] for part in elements)
            rest = iter(others)
            return self._clipped(x, (y, of_companions), weight[0], [x if same else next(rest) for same in natural])

        def microbatch(elements: Sequence[tf.Tensor]) -> tuple[list[tf.Tensor], list[tf.Tensor], list[tf.Tensor]]:
            gradients, losses, logits = tf.vectorized_map(one, elements)
            return [tf.reduce_sum(gradient, axis=0) for gradient in gradients], losses, logits

        zeros = [tf.zeros(variable.shape) for variable in self.trainable_variables]
        k = len(examples)
        like = (zeros, [tf.TensorSpec([size])] * k, [tf.TensorSpec([size, self._num_classes(x)])] * k)
        kinds = tf.nest.map_structure(lambda part: tf.TensorSpec(part.shape, tf.float32), like)
        gradients, losses, logits = tf.map_fn(microbatch, parts, fn_output_signature=kinds, parallel_iterations=1)
        whole = [tf.reshape(part, [-1, *part.shape[2:]]) for part in (*losses, *logits)]
        return [tf.reduce_sum(gradient, axis=0) for gradient in gradients], whole[:k], whole[k:]

    def _clipped(
        self, x: tf.Tensor, labels: Sequence[tf.Tensor], weight: tf.Tensor, examples: Sequence[tf.Tensor]
    ) -> tuple[list[tf.Tensor], list[tf.Tensor], list[tf.Tensor]]:
        """The clipped gradient of one image's mean loss over its examples; a batch of one."""
        n, by_kind = self.ratio.num_adversarial, (self.objective, self.companion_objective or self.objective)
        with tf.GradientTape() as tape:
            kinds = [int(index >= n) for index in range(len(examples))]
            found = [by_kind[kind](self._training_logits, x, e, labels[kind]) for kind, e in zip(kinds, examples)]
            losses = [tf.cast(per_example[0], tf.float32) for per_example, _ in found]
            loss = self._with_regularisation(tf.add_n(losses) / len(losses))
        variables = self.trainable_variables
        gradients = tape.gradient(loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        gradients = [tf.cast(tf.convert_to_tensor(gradient), tf.float32) for gradient in gradients]
        norm = tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(gradient)) for gradient in gradients]))
        factor = weight * tf.minimum(1.0, self.clip_norm / tf.maximum(norm, self.clip_norm * 1e-12))
        bounded = tf.math.is_finite(norm)  # what is not finite has no norm to clip, and counts as no gradient
        clipped = [tf.where(bounded, factor * gradient, 0.0) for gradient in gradients]
        return clipped, losses, [tf.cast(logits[0], tf.float32) for _, logits in found]

    def _noised(self, total: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        if not self.noise_multiplier:
            return total
        # In float64, whose tails reach as far as they must; float32 draws end below 6 standard deviations.
        noise = tf.random.stateless_normal(total.shape, seed, dtype=tf.float64)
        return total + tf.cast(self.noise_multiplier * self.clip_norm * noise, total.dtype)

    def _num_classes(self, x: tf.Tensor) -> int:
        num_classes = self._known_head(x).num_classes
        assert num_classes is not None  # of a network that was called
        return num_classes


class _EpsilonInLogs(keras.callbacks.Callback):
    """Adds what was spent to an epoch's logs, for the callbacks after it."""

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if logs is not None:
            logs["epsilon_spent"] = self.model.epsilon_spent


def _in_memory(data: Any, network: keras.Model) -> tuple[np.ndarray, np.ndarray]:
    batches = list(as_batches(data, _READ, network=network, name="x"))
    if not batches:
        raise ValueError("There are no images to train on. Received: a dataset of 0 batches.")
    images, labels = (np.concatenate([np.asarray(batch[part]) for batch in batches]) for part in (0, 1))
    return images, labels


def _check_rate(sampling_rate: float | None, batch_size: int | None) -> None:
    if (sampling_rate is None) == (batch_size is None):
        raise ValueError(
            f"Give one of `sampling_rate` and `batch_size`. Received: sampling_rate={sampling_rate!r}, "
            f"batch_size={batch_size!r}."
        )
    if sampling_rate is not None:
        check_part("sampling_rate", sampling_rate, "It is the probability that an example is in a batch, e.g. 0.01.")
    if batch_size is not None:
        check_count("batch_size", batch_size, 1, "It is the expected number of examples in a batch.")
