"""Adversarial training as a Keras model, one round of the paper a training step."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pineat_tf import distribution, pixel_scale, round, threat
from pineat_tf.checks import as_classes, check_batch, check_network, data_errors_as_value_errors
from pineat_tf.companions import NoCompanions
from pineat_tf.data import fit_arguments
from pineat_tf.heads import Head, check_logits_head, head_of
from pineat_tf.losses import class_numbers, cross_entropy
from pineat_tf.objectives import CrossEntropy
from pineat_tf.seeds import as_seed, fold
from pineat_tf.serialization import serializable
from pineat_tf.tracing import Traced
from pineat_tf.types import Attack, Companions, Objective, Ratio, Repeatable, Seed

__all__ = ["AdversarialTraining"]

_RANDOM_STATE = "random_state_"
_AS_THE_OPTIMIZER_COUNTS = -1


@serializable
class AdversarialTraining(keras.Model):
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
        companions: what stands beside the adversarial examples. Their radius, norm and pixel range are the attack's
            where they are not set, and may not contradict it.
        ratio: n/m as `"1/1"` or `(1, 1)`.
        seed: the one source of the attack's and companions' randomness. Together with the number of rounds done
            it fixes every draw, so training that goes on after a restart draws what it would have drawn.
        generation: "round" generates all n adversarial examples of a round by the weights at its start; "update"
            generates each by the weights at its own update.
        order: which updates of a round come first, "adversarial" or "companions". The latter needs generation
            "round".
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
        companions: Companions = NoCompanions(),
        ratio: str | tuple[int, int] = "1/0",
        seed: Seed = 0,
        generation: str = "round",
        order: str = "adversarial",
        forward: Callable | None = None,
        **kwargs: Any,
    ) -> None:
        check_network(network)
        check_logits_head(network)
        round.check_strategies(attack, objective, companions)
        # The network's own precision, whatever is global now. It casts its images itself: what it sees here is what
        # it sees in an attack.
        super().__init__(**{"dtype": network.dtype_policy, **kwargs}, autocast=False)
        self.network = network
        self._head: Head | None = None
        self._accuracy: keras.metrics.Mean | None = None
        self._counts_accuracy, self._forward = False, forward
        self.attack = attack
        self.objective = threat.adopt(objective, attack)
        self.companions = threat.adopt(companions, attack)
        pixel_scale.warn_of_scale(network, bounds=threat.ThreatModel.of(attack).bounds)
        self.ratio = Ratio.parse(ratio)
        self.seed = seed
        self.generation = generation
        self.order = order
        self._steps = round.schedule(self.ratio, generation=generation, order=order)
        self.attacks = self._attacks_of_a_round()
        self._traced = Traced()
        round.check_companions(companions, self.ratio)
        as_seed(seed)
        kinds = {"adversarial": self.ratio.num_adversarial, "companion": self.ratio.num_companions}
        self.loss_by_kind = {kind: keras.metrics.Mean(f"{kind}_loss") for kind, num in kinds.items() if num}
        self._rounds = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(_AS_THE_OPTIMIZER_COUNTS),
            dtype="int64",
            trainable=False,
            aggregation="only_first_replica",
            name="rounds",
        )
        self.built = network.built

    @property
    def rounds(self) -> tf.Tensor:
        """How many rounds are done, int64: what randomness and warm-ups hang on.

        `optimizer.iterations` cannot tell, as it stands still while gradients are accumulated and when a scaled loss
        overflows. Only a trainer whose rounds were never counted, as in files of version 0.1.0, asks the optimizer.
        """
        done = tf.convert_to_tensor(self.optimizer.iterations) if self.optimizer else 0
        by_optimizer = tf.cast(done, tf.int64) // self.ratio.updates_per_round
        counted = tf.convert_to_tensor(self._rounds)
        return tf.where(counted == _AS_THE_OPTIMIZER_COUNTS, by_optimizer, counted)

    def build(self, input_shape: Any) -> None:
        """Makes the weights of a network that has none yet."""
        if not self.network.built:
            self.network(keras.KerasTensor(tuple(input_shape)))

    def compile(self, optimizer: Any = "rmsprop", loss: Any = None, metrics: Any = None, **kwargs: Any) -> None:
        """As `keras.Model.compile`, without a loss: that is the `objective`.

        Metrics of a network of one logit or sigmoid see that number; only "accuracy" is counted from class logits, as
        Keras would hold a logit against 0.5.
        """
        if loss is not None:
            raise ValueError(
                "The loss of adversarial training is its `objective`, so `compile` takes none. "
                f"Received: loss={loss!r}. Give e.g. `AdversarialTraining(..., objective=Trades(beta=6.0))`."
            )
        self._head = head_of(self.network)
        self._counts_accuracy = False
        if isinstance(metrics, (list, tuple)) and (self._head is None or self._head.single):
            others = [metric for metric in metrics if metric not in ("accuracy", "acc")]
            self._counts_accuracy, metrics = len(others) < len(metrics), others
        if self._counts_accuracy and self._accuracy is None:
            with self.distribute_strategy.scope():
                self._accuracy = keras.metrics.Mean("accuracy")
        super().compile(optimizer=optimizer, metrics=metrics, **kwargs)
        self._traced = Traced()  # what was traced before updates by another optimizer

    def get_compile_config(self) -> dict:
        """As in Keras, with the accuracy that is counted here."""
        config = super().get_compile_config()
        return config | {"metrics": [*(config["metrics"] or ()), "accuracy"]} if self._counts_accuracy else config

    def compile_from_config(self, config: dict) -> None:
        """Compiles as `get_compile_config` tells, and makes the optimizer's variables if there are weights."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def get_config(self) -> dict:
        """The arguments of the constructor. A strategy of your own must be registered with Keras to come back."""
        parts = {
            "network": self.network,
            "attack": self.attack,
            "objective": self.objective,
            "companions": self.companions,
            "ratio": str(self.ratio),
            "seed": self.seed,
            "generation": self.generation,
            "order": self.order,
        }
        return super().get_config() | {name: keras.saving.serialize_keras_object(part) for name, part in parts.items()}

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> "AdversarialTraining":
        """The trainer of `get_config`, without the weights."""
        return cls(**keras.saving.deserialize_keras_object(config, custom_objects=custom_objects))

    def save_own_variables(self, store: dict) -> None:
        """As Keras, with the random states of dropout and the like, which Keras leaves out of its files."""
        super().save_own_variables(store)
        for index, state in enumerate(self._random_states()):
            store[f"{_RANDOM_STATE}{index}"] = state.numpy()

    def load_own_variables(self, store: dict) -> None:
        """As Keras, with the random states where the file has them. Files of version 0.1.0 have no count of rounds."""
        stored = {key: store[key] for key in store.keys()}
        for index, state in enumerate(self._random_states()):
            state.assign(stored.pop(f"{_RANDOM_STATE}{index}", state))
        if "0" not in stored or len(stored["0"].shape):  # the count, a scalar, is the first of the trainer's variables
            stored = {str(int(key) + 1): value for key, value in stored.items()}
            stored["0"] = np.int64(_AS_THE_OPTIMIZER_COUNTS)
        super().load_own_variables(stored)

    def export(self, filepath: str, *args: Any, **kwargs: Any) -> None:
        """As `network.export`: what is shipped is the network."""
        self.network.export(filepath, *args, **kwargs)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """What the network gives."""
        return self.network(inputs, training=training)

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """As `keras.Model.fit`. Bad images or labels raise `ValueError`, from arrays and from streams."""
        with data_errors_as_value_errors():
            bounds = threat.ThreatModel.of(self.attack).limits
            return super().fit(**fit_arguments(self, keras.Model.fit, args, kwargs, bounds))

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.evaluate`, on data in any structure that `fit` takes."""
        if "_use_cached_eval_dataset" in kwargs:  # from within `fit`, which has checked it
            return super().evaluate(*args, **kwargs)
        with data_errors_as_value_errors():
            return super().evaluate(**fit_arguments(self, keras.Model.evaluate, args, kwargs, None))

    def make_train_function(self, force: bool = False) -> Callable:
        """As in Keras, with the optimizer's variables made first: XLA cannot compile what makes them."""
        if self.built and not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)
        return super().make_train_function(force)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One round: n adversarial examples, m companions, n + m sequential updates."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if not self.built:
            self.build(x.shape)
        x, y = check_batch(x, y, num_classes=self._known_head(x).num_classes)
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
        n, m = self.ratio
        seed = fold(self.seed, rounds * self.ratio.updates_per_round)
        return round.play(
            self._steps,
            generate=lambda index: self.generate(index, x, y, fold(seed, index)),
            companions=lambda adversarial: self.companions(x, adversarial, num=m, seed=fold(seed, n)),
            update=lambda kind, example: self.update(kind, x, example, y, sample_weight),
        )

    def generate(self, index: int, x: tf.Tensor, y: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Makes the adversarial example of a number by the weights as they are."""
        attack = self.attacks[index]
        if attack is None:
            return x

        def attacked(x: tf.Tensor, y: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            return tf.stop_gradient(attack(self._inference_logits, x, y, seed=seed))

        return self._traced(("attack", self.attacks.index(attack)), attacked, x, y, seed)

    def update(
        self, kind: str, x_nat: tf.Tensor, x: tf.Tensor, y: tf.Tensor, sample_weight: tf.Tensor | None
    ) -> tf.Tensor:
        """Moves the weights by one example of every image.

        All updates of a round call one graph; those by natural images themselves, where `x` is `x_nat`, another.

        Args:
            kind: "adversarial" or "companion".
            x_nat: natural images, shape `(batch, ...)`.
            x: their examples, like `x_nat`.
            y: class numbers of shape `(batch,)`, or rows of shape `(batch, num_classes)`.
            sample_weight: of the images, or None.

        Returns:
            The logits of the examples.
        """
        if x is x_nat:
            natural_update = lambda x, y, weight: self._update(x, x, y, weight)  # noqa: E731
            loss, logits = self._traced("natural update", natural_update, x, y, sample_weight)
        else:
            loss, logits = self._traced("update", self._update, x_nat, x, y, sample_weight)
        self._record(kind, loss, tf.shape(x)[0])
        return logits

    def update_loss(
        self, x_nat: tf.Tensor, x: tf.Tensor, y: tf.Tensor, sample_weight: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The loss of an update with the network's regularisation, and the logits of the example."""
        per_example, logits = self.objective(self._training_logits, x_nat, x, y)
        return self._with_regularisation(distribution.local_mean(per_example, sample_weight)), logits

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """As in Keras, on natural images."""
        training_only = {metric.name for metric in self.loss_by_kind.values()}
        return {name: value for name, value in super().test_step(data).items() if name not in training_only}

    def get_metrics_result(self) -> dict:
        """As in Keras; after an evaluation without the losses of training, as `test_step` gives them."""
        losses = self.loss_by_kind.values() if tf.executing_eagerly() else ()
        idle = {metric.name for metric in losses if not metric.count.numpy()}
        if self._accuracy is not None and not self._counts_accuracy:  # of an earlier `compile`
            idle.add(self._accuracy.name)
        return {name: value for name, value in super().get_metrics_result().items() if name not in idle}

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> tf.Tensor:
        """Mean cross-entropy of the network's outputs plus its regularisation: the loss of `evaluate`."""
        per_example = cross_entropy(as_classes(y), self._known_head(x).class_logits(y_pred))
        loss = self._with_regularisation(distribution.local_mean(per_example, sample_weight))
        return loss / distribution.num_replicas()  # as Keras wants it from a replica

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, tf.Tensor]:
        """As in Keras, of the network's own outputs: of one logit or sigmoid with labels in a column like it."""
        head, y = self._known_head(x), as_classes(y)
        logits = head.class_logits(y_pred)
        if self._counts_accuracy and self._accuracy is not None:
            self._accuracy.update_state(tf.argmax(logits, axis=1) == tf.cast(class_numbers(y), tf.int64))
        if head.single:
            y = y[:, None] if y.shape.rank == 1 else y[:, 1:]
        return super().compute_metrics(x, y, head.own_outputs(logits), sample_weight=sample_weight)

    def _known_head(self, x: tf.Tensor | None) -> Head:
        if self._head is None:  # a subclass that only images give a shape
            self._head = head_of(self.network, x)
        return self._head or Head(None, "")

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
        with tf.GradientTape() as tape:
            loss, logits = self.update_loss(x_nat, x, y, sample_weight)
            scaled = self.optimizer.scale_loss(distribution.contribution(loss, x))
        gradients = tape.gradient(scaled, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables))
        return loss, logits

    def _record(self, kind: str, loss: tf.Tensor, batch_size: tf.Tensor) -> None:
        self.loss_by_kind[kind].update_state(loss, sample_weight=batch_size)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss, sample_weight=batch_size)

    def _inference_logits(self, images: tf.Tensor) -> tf.Tensor:
        return self._class_logits(images, training=False)

    @property
    def _training_logits(self) -> "_TrainingLogits":
        return _TrainingLogits(self)

    def _class_logits(self, images: tf.Tensor, training: bool) -> tf.Tensor:
        outputs = (self._forward or self.network)(images, training=training)
        return self._known_head(images).class_logits(outputs)

    def _with_regularisation(self, loss: tf.Tensor) -> tf.Tensor:
        terms = [tf.cast(term, loss.dtype) for term in self.losses]
        return loss + tf.add_n(terms) if terms else loss

    def _random_states(self) -> list[keras.Variable]:
        weights = set(map(id, self.weights))
        return [variable for variable in self.variables if id(variable) not in weights]


class _TrainingLogits:
    """`types.TrainingLogits` of a trainer."""

    def __init__(self, trainer: AdversarialTraining):
        self._trainer, self.network = trainer, trainer.network

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        return self._trainer._class_logits(images, training=True)

    @property
    def updates(self) -> tf.Tensor:
        return self._trainer.rounds * self._trainer.ratio.updates_per_round
