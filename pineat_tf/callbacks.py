"""Callbacks for `fit` that measure robustness and leakage while a network trains.

They work with `AdversarialTraining`, whose network they look at, and with any Keras classifier that gives logits.
What they measure goes into the logs of the epoch, where the callbacks after them in the list find it. Each measures
after the first epoch and after every k-th: so `CSVLogger`, which fixes its columns at the first row, has them all.
Epochs in between have no such key, which `CSVLogger` writes as NA and `EarlyStopping` passes over with a warning.
A network that has come to give NaN or infinity scores NaN.

All take data that can be passed over at every measurement (see `pineat_tf.data`), and raise `ValueError` if an argument
is out of its range.
"""

import abc
import math
import os
import pathlib
from typing import Any

import keras
import numpy as np

from pineat_tf.checks import check_attack, check_count
from pineat_tf.data import Data, as_batches
from pineat_tf.files import replacing
from pineat_tf.membership.audit import audit_predictions
from pineat_tf.membership.scores import cross_entropy_score
from pineat_tf.predictions import Predictions, Predictor
from pineat_tf.seeds import as_seed
from pineat_tf.types import Attack, Seed, network_of

__all__ = ["LeakageMonitor", "LossTraces", "RobustCheckpoint", "RobustValidation"]


class _Measurement(keras.callbacks.Callback, abc.ABC):
    """Measures after some epochs, by predictors compiled once for all of them."""

    def __init__(
        self, attack: Attack | None, every: int, max_examples: int | None, batch_size: int, seed: Seed
    ) -> None:
        super().__init__()
        if attack is not None:
            check_attack("attack", attack)
        check_count("every", every, 1, "It is how many epochs lie between two measurements.")
        check_count("batch_size", batch_size, 1, "It is how many images are predicted at once.")
        as_seed(seed)
        self.attack = attack
        self.every = every
        self.max_examples = max_examples
        self.batch_size = batch_size
        self.seed = seed
        self._network: keras.Model | None = None

    @property
    def network(self) -> keras.Model:
        """The classifier in training."""
        return network_of(self.model)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Compiles the predictors of a network that was not seen before."""
        self._is_first = True
        if self._network is not self.network:
            self._network = self.network
            self._natural, self._adversarial = Predictor(self.network), Predictor(self.network, self.attack)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Measures, if this epoch's turn has come."""
        if self._is_first or (epoch + 1) % self.every == 0:
            logs = {} if logs is None else logs
            logs.update(self._measure())
            self._after(epoch, logs)
        self._is_first = False

    @abc.abstractmethod
    def _measure(self) -> dict[str, float]:
        """Returns what goes into the logs, by its name there."""

    def _after(self, epoch: int, logs: dict[str, float]) -> None:
        """Uses a measurement."""

    def _predict(self, predictor: Predictor, data: Data) -> Predictions:
        return predictor(data, seed=self.seed, batch_size=self.batch_size, max_examples=self.max_examples)

    def _checked(self, name: str, data: Data) -> Data:
        as_batches(data, self.batch_size, max_examples=self.max_examples, several_passes=True, name=name)
        return data


class RobustValidation(_Measurement):
    """Puts `val_robust_accuracy` and `val_natural_accuracy` into the logs.

    Args:
        data: images and labels that are not trained on.
        attack: perturbs the images, called as `attack(logits_fn, x, y, seed=...)`.
        every: epochs from one measurement to the next.
        max_examples: how many of the images to use, the first ones; None for all.
        batch_size: images a batch, where `data` is two arrays.
        seed: the attack's randomness, the same in every epoch.

    Example:
        >>> callbacks = [
        ...     RobustValidation(held_out, pgd(epsilon=0.1, step_size=0.02, num_steps=10), max_examples=1000),
        ...     keras.callbacks.EarlyStopping("val_robust_accuracy", mode="max", patience=5)]
        >>> model.fit(train, epochs=100, callbacks=callbacks)
    """

    def __init__(
        self,
        data: Data,
        attack: Attack,
        every: int = 1,
        max_examples: int | None = None,
        batch_size: int = 256,
        seed: Seed = 0,
    ) -> None:
        check_attack("attack", attack)
        super().__init__(attack, every, max_examples, batch_size, seed)
        self.data = self._checked("data", data)

    def _measure(self) -> dict[str, float]:
        return {
            "val_natural_accuracy": _accuracy(self._predict(self._natural, self.data)),
            "val_robust_accuracy": _accuracy(self._predict(self._adversarial, self.data)),
        }


class RobustCheckpoint(RobustValidation):
    """Does what `RobustValidation` does, and saves the network whenever its robust accuracy is the best so far.

    Choose the network on a split of the training data that is held out, never on the test set: a maximum over many
    epochs flatters the data that it was taken on. The file appears whole or not at all, and an earlier one stays
    until then.

    Args:
        filepath: where to save, ending in `.keras`; the directory is made if it does not exist.
        data: images and labels held out of the training data.
        attack: as for `RobustValidation`, like the further arguments.
        initial_best: robust accuracy that must be exceeded first, e.g. of the file that an earlier run left.

    Attributes:
        best: the best robust accuracy so far, or None.
        best_epoch: its epoch, counted from 0 as in Keras, or None.

    Example:
        >>> attack = pgd(epsilon=0.1, step_size=0.05, num_steps=2)
        >>> callback = RobustCheckpoint("best.keras", validation, attack, every=5)
        >>> model.fit(x_train, y_train, epochs=5, callbacks=[callback])

    Reference:
        Rice, Wong and Kolter, "Overfitting in adversarially robust deep learning", ICML 2020: robust accuracy falls
        again well before training ends.
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        data: Data,
        attack: Attack,
        every: int = 1,
        max_examples: int | None = None,
        batch_size: int = 256,
        seed: Seed = 0,
        initial_best: float | None = None,
    ) -> None:
        super().__init__(data, attack, every, max_examples, batch_size, seed)
        self.filepath = pathlib.Path(filepath)
        if self.filepath.suffix != ".keras":
            raise ValueError(f"`filepath` must end in '.keras'. Received: filepath={str(filepath)!r}.")
        self.best = initial_best
        self.best_epoch: int | None = None

    def _after(self, epoch: int, logs: dict[str, float]) -> None:
        accuracy = logs["val_robust_accuracy"]
        if not math.isnan(accuracy) and (self.best is None or accuracy > self.best):
            self.filepath.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.filepath) as temporary:
                self.network.save(temporary)
            self.best, self.best_epoch = accuracy, epoch


class LeakageMonitor(_Measurement):
    """Puts what the network reveals about its training data into the logs.

    `membership_accuracy` is the balanced accuracy of the best cross-entropy threshold on these very examples, which
    exceeds 0.5 by chance; `membership_noise_floor` is the value that it exceeds in 5 % of audits where nothing
    leaks. With an attack, `membership_accuracy_adversarial` is the same on adversarial examples.

    Args:
        members: images and labels that are trained on.
        non_members: images and labels that are not.
        attack: perturbs the images, or None for natural ones only.
        every: as for `RobustValidation`, like the further arguments; `max_examples` of each kind.

    Example:
        >>> model.fit(x_train, y_train, callbacks=[LeakageMonitor((x_train, y_train), (x_test, y_test), every=5)])

    Reference:
        Song, Shokri and Mittal, CCS 2019, section 3.
    """

    def __init__(
        self,
        members: Data,
        non_members: Data,
        attack: Attack | None = None,
        every: int = 1,
        max_examples: int | None = None,
        batch_size: int = 256,
        seed: Seed = 0,
    ) -> None:
        super().__init__(attack, every, max_examples, batch_size, seed)
        self.members = self._checked("members", members)
        self.non_members = self._checked("non_members", non_members)

    def _measure(self) -> dict[str, float]:
        accuracy, noise_floor = self._audit(self._natural, "natural")
        logs = {"membership_accuracy": accuracy, "membership_noise_floor": noise_floor}
        if self.attack:
            logs["membership_accuracy_adversarial"], _ = self._audit(self._adversarial, "adversarial")
        return logs

    def _audit(self, predictor: Predictor, queries: str) -> tuple[float, float]:
        members, non_members = (self._predict(predictor, data) for data in (self.members, self.non_members))
        if not (_is_finite(members) and _is_finite(non_members)):
            return math.nan, math.nan
        (result,) = audit_predictions(members, non_members, queries=queries, signals=("cross_entropy",))
        return result.balanced_accuracy, result.noise_floor.upper_95


class LossTraces(_Measurement):
    """Keeps the loss of each training example over the epochs, which tells who is at risk without shadow models.

    An example whose loss falls far while the network trains is one that it memorises. The logs get `example_risk`, the
    mean of `risk()`; NaN after the first epoch, when there is no range yet.

    Args:
        members: images and labels that are trained on, in the same order at each pass.
        attack: perturbs the images, or None for natural ones.
        every: as for `RobustValidation`, like the further arguments.

    Attributes:
        losses: cross-entropy after each measured epoch, a list of float64 arrays of shape `(num,)`. Another network
            begins another list.

    Example:
        >>> traces = LossTraces((x_train, y_train))
        >>> history = model.fit(x_train, y_train, epochs=4, verbose=0, callbacks=[traces])
        >>> most_at_risk = np.argsort(-traces.risk())[:10]

    Reference:
        Pollock et al., "Free record-level privacy risk evaluation through artifact-based methods", 2024 (LT-IQR).
    """

    def __init__(
        self,
        members: Data,
        attack: Attack | None = None,
        every: int = 1,
        max_examples: int | None = None,
        batch_size: int = 256,
        seed: Seed = 0,
    ) -> None:
        super().__init__(attack, every, max_examples, batch_size, seed)
        self.members = self._checked("members", members)
        self.losses: list[np.ndarray] = []
        self._labels: np.ndarray | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Begins another list for a network that was not seen before."""
        if self._network is not self.network:
            self.losses = []
        super().on_train_begin(logs)

    def risk(self) -> np.ndarray:
        """The inter-quartile range of each example's losses, shape `(num,)`; larger = more at risk.

        Raises:
            ValueError: before losses of two epochs.
        """
        if len(self.losses) < 2:
            raise ValueError(
                "The range of an example's losses needs two epochs or more. Received: losses of "
                f"{len(self.losses)}, with every={self.every}. Give the callback to `fit` for more epochs, or let "
                "`every` be smaller."
            )
        low, high = np.quantile(np.stack(self.losses), (0.25, 0.75), axis=0)
        return high - low

    def _measure(self) -> dict[str, float]:
        predictions = self._predict(self._adversarial if self.attack else self._natural, self.members)
        if self._labels is not None and not np.array_equal(self._labels, predictions.labels):
            raise ValueError(
                "`members` must come in the same order at each pass, as a trace is of one example. Received: other "
                "labels than at the first pass. Give arrays, or a dataset that is not shuffled."
            )
        self._labels = predictions.labels
        if not _is_finite(predictions):
            return {"example_risk": math.nan}
        self.losses.append(-cross_entropy_score(predictions.labels, predictions.logits))
        return {"example_risk": float(self.risk().mean()) if len(self.losses) > 1 else math.nan}


def _is_finite(predictions: Predictions) -> bool:
    return bool(np.isfinite(predictions.logits).all())


def _accuracy(predictions: Predictions) -> float:
    return predictions.accuracy if _is_finite(predictions) else math.nan
