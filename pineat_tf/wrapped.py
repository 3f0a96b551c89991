"""A classifier within a Keras model that trains it: all that Keras asks for but the training step."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pineat_tf import distribution, threat
from pineat_tf.checks import as_classes, check_network, data_errors_as_value_errors
from pineat_tf.data import fit_arguments
from pineat_tf.heads import Head, check_logits_head, head_of
from pineat_tf.losses import class_numbers, cross_entropy
from pineat_tf.tracing import Traced
from pineat_tf.types import Attack

__all__ = ["AS_THE_OPTIMIZER_COUNTS", "WrappedClassifier"]

AS_THE_OPTIMIZER_COUNTS = -1
"""The count of rounds of a trainer whose rounds were never counted."""

_RANDOM_STATE = "random_state_"


class WrappedClassifier(keras.Model):
    """A classifier to be trained, with Keras' `fit`, `evaluate`, `predict`, saving and callbacks.

    Args:
        network: gives logits of shape `(batch, num_classes)`, or one logit or sigmoid an image for two classes.
        forward: calls the network while training; None for the network itself.
        **kwargs: as for `keras.Model`.

    Attributes:
        attack: says the range of the pixels, or None.
        loss_by_kind: metrics of training alone, by name.
    """

    computes_as_its_network = True
    attack: Attack | None
    loss_by_kind: dict[str, keras.metrics.Metric]

    def __init__(self, network: keras.Model, forward: Callable | None, **kwargs: Any) -> None:
        check_network(network)
        trainers = [layer for layer in network._flatten_layers() if isinstance(layer, WrappedClassifier)]
        if trainers:
            where = "" if trainers[0] is network else f", within {network.name!r}"
            raise ValueError(
                "`network` must be the classifier itself: what another trainer does in training would be left out. "
                f"Received: {type(trainers[0]).__name__}{where}. Give its `.network`."
            )
        check_logits_head(network)
        # The network's own precision, whatever is global now. It casts its images itself: what it sees here is what
        # it sees in an attack.
        super().__init__(**{"dtype": network.dtype_policy, **kwargs}, autocast=False)
        self.network = network
        self._head: Head | None = None
        self._accuracy: keras.metrics.Mean | None = None
        self._counts_accuracy, self._forward = False, forward
        self._traced = Traced()

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
            stored["0"] = np.int64(AS_THE_OPTIMIZER_COUNTS)
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

    def _record(self, kind: str, loss: tf.Tensor, batch_size: tf.Tensor) -> None:
        self.loss_by_kind[kind].update_state(loss, sample_weight=batch_size)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss, sample_weight=batch_size)

    def _inference_logits(self, images: tf.Tensor) -> tf.Tensor:
        return self._class_logits(images, training=False)

    def _class_logits(self, images: tf.Tensor, training: bool) -> tf.Tensor:
        outputs = (self._forward or self.network)(images, training=training)
        return self._known_head(images).class_logits(outputs)

    def _with_regularisation(self, loss: tf.Tensor) -> tf.Tensor:
        terms = [tf.cast(term, loss.dtype) for term in self.losses]
        return loss + tf.add_n(terms) if terms else loss

    def _random_states(self) -> list[keras.Variable]:
        weights = set(map(id, self.weights))
        return [variable for variable in self.variables if id(variable) not in weights]
