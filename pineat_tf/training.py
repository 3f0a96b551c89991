"""Adversarial training as a Keras model, one round of the paper a training step."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pineat_tf import distribution, perturbations, pixel_scale, round, schedules, threat
from pineat_tf.attacks.parts import SteepestStep
from pineat_tf.checks import check_batch
from pineat_tf.companions import NoCompanions
from pineat_tf.heads import class_logits
from pineat_tf.objectives import CrossEntropy
from pineat_tf.seeds import as_seed, fold
from pineat_tf.serialization import serializable
from pineat_tf.types import Attack, Companions, Objective, Ratio, Repeatable, Seed, WeightPerturbation
from pineat_tf.wrapped import AS_THE_OPTIMIZER_COUNTS, WrappedClassifier

__all__ = ["AdversarialTraining"]


@serializable
class AdversarialTraining(WrappedClassifier):
    """Trains a classifier to resist adversarial examples and membership inference.

    It wraps the classifier, which stays a plain Keras model: `fit`, `evaluate`, `predict` and callbacks work as
    ever, and `model.network` is what to save and ship. A batch of `fit` is one round (paper, Fig. 2): n adversarial
    examples of every image, m companions, and n + m updates of the weights in this order. `optimizer.iterations`
    and learning-rate schedules count updates. `loss` in the logs is the mean of a round's updates with the
    regularisation, `adversarial_loss` and `companion_loss` the same by kind; metrics given to `compile` see, while
    training, the adversarial examples (the companions with ratio 0/m), and natural images in validation.

    Made in the scope of a `tf.distribute` strategy it trains on several devices, with the weights that one device would
    get from the same batches but for rounding: parts of a batch count by their size, draws and Dist's mean are those of
    the whole batch. That does not hold for dropout, clipping of gradients, and batch normalisation without
    `synchronized=True`, which Keras does on each device for itself.

    A subclass overrides `generate`, `update`, `update_loss` or `round`.

    Args:
        network: gives logits of shape `(batch, num_classes)`, or one logit or sigmoid an image for two classes.
        attack: generates adversarial examples, called as `attack(logits_fn, x, y, seed=...)` with the network in
            inference mode. May be None with ratio 0/m, and for an objective that looks at no adversarial examples
            (`needs_attack` is False), where the images stand in their place.
        objective: loss of one update.
        companion_objective: loss of an update by a companion; None for the `objective`.
        companions: what stands beside the adversarial examples. Their radius, norm and pixel range are the attack's
            where they are not set, and may not contradict it.
        ratio: n/m as `"1/1"` or `(1, 1)`.
        seed: the one source of the attack's and companions' randomness. Together with the number of rounds done
            it fixes every draw, so training that goes on after a restart draws what it would have drawn.
        generation: "round" generates all n adversarial examples of a round by the weights at its start; "update"
            generates each by the weights at its own update.
        order: which updates of a round come first, "adversarial" or "companions". The latter needs generation
            "round".
        weight_perturbation: moves the weights while the gradient of an update is taken, e.g. `perturbations.AWP()`;
            None for none.
        ramp: updates between which the radius and the steps of the attack, and the radius of companions, grow from 0
            to their values, e.g. `(0, 1000)`; None for those values from the first update on.
        forward: calls the network while training, `forward(images, training=...)`; None for the network itself.
            `accelerate.compute_twin(network)` is faster on CPUs. It is not saved.
        **kwargs: as for `keras.Model`.

    Raises:
        ValueError: if the parts do not fit together or contradict each other, or the network ends in a softmax. Bad
            images or labels raise it in `fit`.

    Example:
        >>> model = AdversarialTraining(
        ...     network,
        ...     attack=pgd(epsilon=0.1, step_size=0.02, num_steps=8),
        ...     companions=ReverseSymmetry(),
        ...     ratio="1/1")
        >>> model.compile(optimizer=keras.optimizers.Adam(1e-4), metrics=["accuracy"])
        >>> model.fit(x_train, y_train, validation_data=(x_test, y_test), epochs=20)
        >>> model.network.save("robust.keras")

    Reference:
        PINEAT, section 3.3.
    """

    def __init__(
        self,
        network: keras.Model,
        *,
        attack: Attack | None,
        objective: Objective = CrossEntropy(),
        companion_objective: Objective | None = None,
        companions: Companions = NoCompanions(),
        ratio: str | tuple[int, int] = "1/0",
        seed: Seed = 0,
        generation: str = "round",
        order: str = "adversarial",
        weight_perturbation: WeightPerturbation | None = None,
        ramp: tuple[int, int] | None = None,
        forward: Callable | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, forward, **kwargs)
        round.check_strategies(attack, objective, companions, companion_objective)
        perturbations.check_weight_perturbation(weight_perturbation)
        self.ramp = _checked_ramp(ramp, attack)
        self.attack = attack
        self.objective = threat.adopt(objective, attack)
        self.companion_objective = threat.adopt(companion_objective, attack)
        self.weight_perturbation = weight_perturbation
        self._kind = "adversarial"  # of the update that is being made
        self.companions = threat.adopt(companions, attack)
        pixel_scale.warn_of_scale(network, bounds=threat.ThreatModel.of(attack).bounds)
        self.ratio = Ratio.parse(ratio)
        self.seed = seed
        self.generation = generation
        self.order = order
        self._steps = round.schedule(self.ratio, generation=generation, order=order)
        self.attacks = self._attacks_of_a_round()
        round.check_companions(companions, self.ratio, objective, companion_objective)
        round.check_objectives(self.ratio, objective, companion_objective)
        as_seed(seed)
        kinds = {"adversarial": self.ratio.num_adversarial, "companion": self.ratio.num_companions}
        self.loss_by_kind = {kind: keras.metrics.Mean(f"{kind}_loss") for kind, num in kinds.items() if num}
        self._rounds = self._kept("rounds", np.array(AS_THE_OPTIMIZER_COUNTS, np.int64))
        self.objective_state = {
            name: self._kept(name, value) for name, value in getattr(self.objective, "initial_state", dict)().items()
        }
        self.labeller = _frozen_copy(getattr(companions, "labels", None), network)
        self.built = network.built

    @property
    def rounds(self) -> tf.Tensor:
        """How many rounds are done, int64: what randomness and warm-ups hang on.

        `optimizer.iterations` cannot tell, as it stands still while gradients are accumulated and when a scaled loss
        overflows. Only a trainer whose rounds were never counted, as in files of version 0.1.0, asks the optimizer.
        """
        optimizer = getattr(self, "optimizer", None)  # which `compile` makes
        done = tf.convert_to_tensor(optimizer.iterations) if optimizer else 0
        by_optimizer = tf.cast(done, tf.int64) // self.ratio.updates_per_round
        counted = tf.convert_to_tensor(self._rounds)
        return tf.where(counted == AS_THE_OPTIMIZER_COUNTS, by_optimizer, counted)

    def get_config(self) -> dict:
        """The arguments of the constructor. A strategy of your own must be registered with Keras to come back."""
        parts = {
            "network": self.network,
            "attack": self.attack,
            "objective": self.objective,
            "companion_objective": self.companion_objective,
            "companions": self.companions,
            "ratio": str(self.ratio),
            "seed": self.seed,
            "generation": self.generation,
            "order": self.order,
            "weight_perturbation": self.weight_perturbation,
            "ramp": self.ramp,
        }
        return super().get_config() | {name: keras.saving.serialize_keras_object(part) for name, part in parts.items()}

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> "AdversarialTraining":
        """The trainer of `get_config`, without the weights."""
        return cls(**keras.saving.deserialize_keras_object(config, custom_objects=custom_objects))

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One round: n adversarial examples, m companions, n + m sequential updates."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if not self.built:
            self.build(x.shape)
        num_classes = self._known_head(x).num_classes
        for objective in (self.objective, self.companion_objective):
            round.check_num_classes(objective, num_classes)
        x, y = check_batch(x, y, num_classes=num_classes)
        if not self.optimizer.built and distribution.num_replicas() == 1:  # else the first update does it
            with tf.init_scope():
                self.optimizer.build(self.trainable_variables)
        with tf.control_dependencies([x]):  # else an update is counted when a stream turns out to have ended
            rounds = self.rounds
            logits = self.round(x, y, sample_weight, rounds)
        self._rounds.assign(rounds + 1)
        for seen in logits[: self.ratio.num_adversarial or self.ratio.num_companions]:
            logs = self.compute_metrics(x, y, seen, sample_weight=sample_weight)
        return logs

    def round(self, x: tf.Tensor, y: tf.Tensor, sample_weight: tf.Tensor | None, rounds: tf.Tensor) -> list[tf.Tensor]:
        """Plays one round; a subclass may do more after it.

        It is given a batch, as `update` is, and how many `rounds` were done before, and gives the logits of all
        examples, those of adversarial ones first.
        """
        n = self.ratio.num_adversarial
        seed, labels = fold(self.seed, rounds * self.ratio.updates_per_round), {"adversarial": y, "companion": y}

        def companions(adversarial: tuple[tf.Tensor, ...]) -> Sequence[tf.Tensor]:
            made, labels["companion"] = self._companions_of(x, adversarial, y, fold(seed, n))
            return made

        return round.play(
            self._steps,
            generate=lambda index: self.generate(index, x, y, fold(seed, index)),
            companions=companions,
            update=lambda kind, example: self.update(kind, x, example, labels[kind], sample_weight),
        )

    def _companions_of(
        self, x: tf.Tensor, adversarial: tuple[tf.Tensor, ...], y: tf.Tensor, seed: tf.Tensor
    ) -> tuple[Sequence[tf.Tensor], tf.Tensor]:
        """All companions of a round, and their labels."""
        make = threat.shrunk(self.companions, self._grown()) if self.ramp else self.companions
        if self.labeller is not None:
            seen = make.labelled(x, adversarial)  # type: ignore[attr-defined]  # what has labels knows of what
            y = tf.argmax(class_logits(self.labeller(seen, training=False)), axis=-1)
        return make(x, adversarial, num=self.ratio.num_companions, seed=seed), y

    def generate(self, index: int, x: tf.Tensor, y: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Makes the adversarial example of a number by the weights as they are."""
        attack = self.attacks[index]
        if attack is None:
            return x

        def attacked(x: tf.Tensor, y: tf.Tensor, seed: tf.Tensor, grown: tf.Tensor | None) -> tf.Tensor:
            within = attack if grown is None else threat.shrunk(attack, grown)
            return tf.stop_gradient(within(self._inference_logits, x, y, seed=seed))

        grown = self._grown() if self.ramp else None
        return self._traced(("attack", self.attacks.index(attack)), attacked, x, y, seed, grown)

    def update(
        self, kind: str, x_nat: tf.Tensor, x: tf.Tensor, y: tf.Tensor, sample_weight: tf.Tensor | None
    ) -> tf.Tensor:
        """Moves the weights by one example of every image.

        All updates of a round call one graph; those by natural images themselves, where `x` is `x_nat`, another, and so
        do those of companions that have an objective of their own.

        Args:
            kind: "adversarial" or "companion".
            x_nat: natural images, shape `(batch, ...)`.
            x: their examples, like `x_nat`.
            y: class numbers of shape `(batch,)`, or rows of shape `(batch, num_classes)`.
            sample_weight: of the images, or None.

        Returns:
            The logits of the examples.
        """
        self._kind = kind
        by = kind if self.companion_objective is not None else ""
        if x is x_nat:
            natural_update = lambda x, y, weight: self._update(x, x, y, weight)  # noqa: E731
            loss, logits = self._traced(("natural update", by), natural_update, x, y, sample_weight)
        else:
            loss, logits = self._traced(("update", by), self._update, x_nat, x, y, sample_weight)
        self._record(kind, loss, tf.shape(x)[0])
        return logits

    def update_loss(
        self, x_nat: tf.Tensor, x: tf.Tensor, y: tf.Tensor, sample_weight: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The loss of an update with the network's regularisation, and the logits of the example."""
        of_companions = self.companion_objective if self._kind == "companion" else None
        per_example, logits = (of_companions or self.objective)(self._training_logits, x_nat, x, y)
        return self._with_regularisation(distribution.local_mean(per_example, sample_weight)), logits

    def _attacks_of_a_round(self) -> tuple[Attack | None, ...]:
        attack, num = self.attack, self.ratio.num_adversarial
        if not num:
            return ()
        if attack is None and getattr(self.objective, "needs_attack", True):
            raise ValueError(
                f"Ratio {self.ratio} needs an attack. Received: attack=None. Give e.g. `attacks.pgd("
                "epsilon=8/255, step_size=2/255, num_steps=10)`, or ratio '0/1' for natural training."
            )
        if self.generation == "round" and isinstance(attack, Repeatable):
            return attack.repeats(num)
        return (attack,) * num

    def _update(
        self, x_nat: tf.Tensor, x: tf.Tensor, y: tf.Tensor, sample_weight: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        variables = self.trainable_variables

        def gradients_of() -> tuple[list[tf.Tensor | None], tuple[tf.Tensor, tf.Tensor]]:
            with tf.GradientTape() as tape:
                loss, logits = self.update_loss(x_nat, x, y, sample_weight)
                scaled = self.optimizer.scale_loss(distribution.contribution(loss, x))
            return tape.gradient(scaled, variables), (loss, logits)

        if self.weight_perturbation is None:
            gradients, found = gradients_of()
        else:
            others = [*self.network.non_trainable_variables, *self.objective_state.values()]
            gradients, found = perturbations.perturbed_gradients(
                self.weight_perturbation, gradients_of, variables, others, self._training_logits.updates
            )
        self.optimizer.apply_gradients(zip(gradients, variables))
        return found

    def _kept(self, name: str, value: np.ndarray) -> keras.Variable:
        """A variable that training changes and the optimizer does not."""
        return self.add_weight(
            shape=value.shape,
            initializer=lambda *_, **__: tf.constant(value),
            dtype=value.dtype.name,
            trainable=False,
            aggregation="only_first_replica",
            name=name,
        )

    @property
    def updates_per_round(self) -> int:
        """How often a round moves the weights."""
        return self.ratio.updates_per_round

    def _grown(self) -> tf.Tensor:
        """The share of its radius that the attack has now."""
        return schedules.ramp(self._training_logits.updates, self.ramp or (0, 0))

    @property
    def _training_logits(self) -> "_TrainingLogits":
        return _TrainingLogits(self)


def _checked_ramp(ramp: tuple[int, int] | None, attack: Attack | None) -> tuple[int, int] | None:
    if ramp is None:
        return None
    ramp = schedules.check_ramp("ramp", ramp)
    if not isinstance(getattr(attack, "step", None), SteepestStep):
        raise ValueError(
            "A `ramp` shrinks the radius and the steps of an attack, so it needs one that takes steps of a length "
            f"within a ball. Received: ramp={ramp!r}, attack={attack!r}. Give `attacks.pgd(...)`, or leave out `ramp`."
        )
    return ramp


def _shapes(network: keras.Model) -> tuple[tf.TensorShape, int | None]:
    """The shape of the images, and how many classes there are, as far as the network says."""
    given, outputs = (getattr(network, f"{end}_shape", None) if network.built else None for end in ("input", "output"))
    return tf.TensorShape(given), outputs and max(outputs[-1], 2)


def _frozen_copy(network: Any, trained: keras.Model) -> keras.Model | None:
    """A copy that the trainer's files hold and its optimizer does not move; None of what is no network."""
    if not isinstance(network, keras.Model):
        return None
    (images, classes), (expected, wanted) = map(_shapes, (network, trained))
    if not network.built or not images.is_compatible_with(expected) or classes != (wanted or classes):
        raise ValueError(
            "`labels` must be a network with weights, of the images and classes of the network in training, "
            f"{expected} and {wanted}. Received: {network.name!r} of {images} and {classes}"
            f"{'' if network.built else ', not built'}. Give a trained one, such as `keras.models.load_model(...)`."
        )
    copy = keras.models.clone_model(network)
    copy.set_weights(network.get_weights())
    copy.trainable = False
    return copy


class _TrainingLogits:
    """`types.TrainingLogits` of a trainer."""

    def __init__(self, trainer: AdversarialTraining):
        self._trainer, self.network, self.state = trainer, trainer.network, trainer.objective_state

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        return self._trainer._class_logits(images, training=True)

    @property
    def updates(self) -> tf.Tensor:
        return self._trainer.rounds * self._trainer.updates_per_round
