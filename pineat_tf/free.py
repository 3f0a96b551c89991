"""Free adversarial training: the pass that updates the weights moves the adversarial perturbation as well."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from pineat_tf import distribution, threat
from pineat_tf.checks import check_batch, check_batch_size, check_bounds, check_count, check_epsilon, check_positive
from pineat_tf.companions import NoCompanions
from pineat_tf.losses import label_rows, unfading_cross_entropy
from pineat_tf.objectives import CrossEntropy
from pineat_tf.projections import clip_to_bounds, power_of_two
from pineat_tf.serialization import serializable
from pineat_tf.training import AdversarialTraining
from pineat_tf.types import Bounds, Companions, Objective, Ratio, Seed

__all__ = ["FreeAdversarialTraining"]


@serializable
class FreeAdversarialTraining(AdversarialTraining):
    """Adversarial training at the cost of natural training, by replaying each batch.

    A round of ratio n/m replays its batch n times. Each replay is one pass, which gives the gradients of the weights
    and of the images at the images as they are perturbed now: those of the weights make the update, and the signs of
    those of the images move the perturbation, within the ball. The next batch goes on with the perturbation that this
    one left, in the order of its images. The m companions follow, of the images of all n replays.

    The perturbation is a variable of the model and not of `network`: the model's checkpoints and weights hold it, and
    what is shipped does not. Everything else is as in `AdversarialTraining`.

    Args:
        network: gives logits of shape `(batch, num_classes)`, built from a `keras.Input` of known shape.
        epsilon: radius of the L-inf ball, > 0, on the scale of the pixels.
        batch_size: images of the largest batch. A smaller one uses the first rows of the perturbation.
        step_size: length of a replay's step, > 0, on the scale of the pixels; None for the authors' epsilon.
        bounds: the pixel range to which perturbed images are clipped, or None for no limits.
        objective: `CrossEntropy()`, the only one whose pass gives both gradients.
        companions: what stands beside the perturbed images, by this radius and range, in the L-inf norm.
        ratio: n/m as `"8/0"` or `(8, 0)`, n >= 1 (the authors' m is this n: 8 on CIFAR-10, 4 on ImageNet).
        seed: of the companions' randomness; replays have none.
        **kwargs: as for `keras.Model`.

    Raises:
        ValueError: if an argument is out of its range, or the model is made for more than one replica.

    Example:
        >>> model = FreeAdversarialTraining(network, epsilon=0.1, batch_size=100, ratio="8/0")
        >>> model.compile(optimizer=keras.optimizers.Adam(1e-4))
        >>> model.fit(x_train, y_train, batch_size=100, epochs=10)  # 80 updates an image

    Reference:
        Shafahi et al., "Adversarial training for free!", NeurIPS 2019, algorithm 1, and its published code, which
        clips the perturbed images to the pixel range and starts from no perturbation.
    """

    def __init__(
        self,
        network: keras.Model,
        *,
        epsilon: float,
        batch_size: int,
        step_size: float | None = None,
        bounds: Bounds | None = (0.0, 1.0),
        objective: Objective = CrossEntropy(),
        companions: Companions = NoCompanions(),
        ratio: str | tuple[int, int] = "8/0",
        seed: Seed = 0,
        **kwargs: Any,
    ) -> None:
        check_epsilon(epsilon)
        check_count("batch_size", batch_size, 1, "It is the number of images of the largest batch.")
        step_size = epsilon if step_size is None else step_size
        check_positive("step_size", step_size, "Give the length of a step on the scale of the pixels, e.g. 8/255.")
        check_bounds(bounds)
        threat.check_scale(epsilon, bounds, step_size=step_size)
        companions = threat.adopt(companions, threat.ThreatModel(epsilon, "linf", bounds))
        _check_method(objective, Ratio.parse(ratio), kwargs)
        _check_one_replica()
        super().__init__(
            network,
            attack=None,
            objective=objective,
            companions=companions,
            ratio=ratio,
            seed=seed,
            generation="update",
            **kwargs,
        )
        self.epsilon = epsilon
        self.batch_size = batch_size
        self.step_size = step_size
        self.bounds = None if bounds is None else (bounds[0], bounds[1])  # from a file it comes as a list
        self.perturbation = self.add_weight(
            shape=(batch_size, *_image_shape(network)), initializer="zeros", trainable=False, name="perturbation"
        )

    def get_config(self) -> dict:
        """The arguments of the constructor."""
        config = {
            name: value for name, value in super().get_config().items() if name not in ("attack", "generation", "order")
        }
        names = ("epsilon", "batch_size", "step_size", "bounds")
        return config | {name: keras.saving.serialize_keras_object(getattr(self, name)) for name in names}

    def _attacks_of_a_round(self) -> tuple[()]:
        return ()

    def round(self, x: tf.Tensor, y: tf.Tensor, sample_weight: tf.Tensor | None, rounds: tf.Tensor) -> list[tf.Tensor]:
        """Plays a round of images in their range, no more than the perturbation has rows for."""
        x = check_batch_size(check_batch(x, y, bounds=self.bounds)[0], self.batch_size)
        return super().round(x, y, sample_weight, rounds)

    def generate(self, index: int, x: tf.Tensor, y: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """The images as they are perturbed now."""
        return clip_to_bounds(self._perturbed(x), self.bounds)

    def update(
        self, kind: str, x_nat: tf.Tensor, x: tf.Tensor, y: tf.Tensor, sample_weight: tf.Tensor | None
    ) -> tf.Tensor:
        """As any update; one by perturbed images moves the perturbation as well."""
        if kind == "companion":
            return super().update(kind, x_nat, x, y, sample_weight)
        loss, logits = self._traced(("replay",), self._replay, x_nat, x, y, sample_weight)
        self._record(kind, loss, tf.shape(x)[0])
        return logits

    def _perturbed(self, x: tf.Tensor) -> tf.Tensor:
        noise = self.perturbation[: tf.shape(x)[0]]
        return x + tf.cast(tf.ensure_shape(noise, x.shape), x.dtype)

    def update_loss(
        self, x_nat: tf.Tensor, x: tf.Tensor, y: tf.Tensor, sample_weight: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """As of any update, with a gradient that lasts however sure the network is: it moves the images as well."""
        logits = self._training_logits(x)
        per_example = self._unfading(y, logits)
        return self._with_regularisation(distribution.local_mean(per_example, sample_weight)), logits

    def _replay(
        self, x_nat: tf.Tensor, x: tf.Tensor, y: tf.Tensor, sample_weight: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """One pass, whose gradients update the weights and move the perturbation."""
        is_float16 = any(layer.compute_dtype == "float16" for layer in (self.network, *self.network.layers))
        with tf.GradientTape(persistent=is_float16) as tape:
            tape.watch(x)
            loss, logits = self.update_loss(x_nat, x, y, sample_weight)
            scaled = self.optimizer.scale_loss(loss)
        variables = self.trainable_variables
        if is_float16:  # no one scale of the loss keeps all images' gradients from rounding to 0
            gradients, ascent = tape.gradient(scaled, variables), self._ascent(tape, logits, x, y, sample_weight)
        else:
            *gradients, ascent = tape.gradient(scaled, [*variables, x])
        self.optimizer.apply_gradients(zip(gradients, variables))
        if ascent is None:
            raise ValueError(
                "The logits do not depend on the images by operations that have a gradient, so the perturbation cannot "
                f"move. Received: network={self.network.name!r}. Take e.g. what rounds pixels out of the network."
            )
        # A scaled loss may overflow, which skips the update; NaN would stay in the perturbation for ever. What was
        # clipped to the range has no gradient.
        moves = tf.math.is_finite(ascent) & (self._perturbed(x_nat) == x)
        step = tf.where(moves, self.step_size * tf.sign(tf.cast(ascent, tf.float32)), 0.0)
        num = tf.shape(x)[0]
        noise = tf.clip_by_value(self.perturbation[:num] + step, -self.epsilon, self.epsilon)
        moved = tf.concat([noise, self.perturbation[num:]], axis=0)
        self.perturbation.assign(tf.ensure_shape(moved, self.perturbation.shape))
        return loss, logits

    def _unfading(self, y: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """The cross-entropy of each example by its label, smoothed as the objective says."""
        smoothing, num_classes = getattr(self.objective, "label_smoothing", 0.0), logits.shape[-1]
        rows = label_rows(y, num_classes)
        return unfading_cross_entropy((1.0 - smoothing) * rows + smoothing / num_classes, logits)

    def _ascent(
        self,
        tape: tf.GradientTape,
        logits: tf.Tensor,
        x: tf.Tensor,
        y: tf.Tensor,
        sample_weight: tf.Tensor | None,
    ) -> tf.Tensor | None:
        """Gradients to images by a pass of their own, each scaled to about 1: their signs are what counts."""
        with tf.GradientTape() as loss_tape:
            seen = tf.cast(logits, tf.float32)
            loss_tape.watch(seen)
            loss = self._unfading(y, seen)
        direction = loss_tape.gradient(loss, seen)
        direction /= power_of_two(tf.reduce_max(tf.abs(direction), axis=1, keepdims=True))
        if sample_weight is not None:
            direction *= tf.sign(tf.reshape(tf.cast(sample_weight, tf.float32), [-1, 1]))
        return tape.gradient(logits, x, output_gradients=tf.cast(direction, logits.dtype))


def _check_method(objective: Callable, ratio: Ratio, others: dict[str, Any]) -> None:
    for name in ("companion_objective", "weight_perturbation", "ramp"):
        if others.get(name) is not None:
            raise ValueError(
                "Free adversarial training moves weights and images by the gradients of one pass, which leaves no room "
                f"for `{name}`. Received: {name}={others[name]!r}. Leave it out, or use `AdversarialTraining`."
            )
    if not isinstance(objective, CrossEntropy):
        raise ValueError(
            "Free adversarial training takes the gradients of weights and images from one pass, so both ascend and "
            f"descend the cross-entropy. Received: objective={objective!r}. Give `CrossEntropy()`, or train "
            "with `AdversarialTraining` and an attack."
        )
    if not ratio.num_adversarial:
        raise ValueError(
            f"Free adversarial training replays a batch n >= 1 times. Received: ratio='{ratio}'. Give e.g. '8/0', or "
            "train with `AdversarialTraining` for ratio 0/m."
        )


def _check_one_replica() -> None:
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if replicas > 1:
        raise ValueError(
            "Free adversarial training keeps one perturbation for the whole batch, so it trains on one replica. "
            f"Received: a strategy of {replicas} replicas. Make the model outside its scope, or use "
            "`AdversarialTraining` with `attacks.n_fgsm(...)`, which costs two passes an update."
        )


def _image_shape(network: keras.Model) -> tuple[int, ...]:
    shape = tuple(getattr(network, "input_shape", None) or (None, None))[1:]
    if None in shape:
        raise ValueError(
            "Free adversarial training keeps a perturbation of every pixel, so `network` must know the shape of its "
            f"images. Received: network={network.name!r} without it. Begin the network with "
            "`keras.Input(shape)`, or wrap it: `x = keras.Input(shape); network = keras.Model(x, network(x))`."
        )
    return shape
