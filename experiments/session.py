"""A run ready to train: its data, its model, its plan, and the one loop that trains it."""

import dataclasses
from collections.abc import Iterable, Sequence

import keras

import pineat_tf as pt
from experiments import datasets, distribution, method, tracking
from experiments.config import ExperimentConfig


@dataclasses.dataclass(frozen=True)
class Plan:
    """The length of a training, in rounds and in passes over the data."""

    rounds: int
    rounds_per_pass: int
    updates_per_round: int

    @property
    def updates(self) -> int:
        """Updates of the whole training."""
        return self.rounds * self.updates_per_round

    def segments(self, first_round: int) -> list[tuple[int, int, int]]:
        """The rest from `first_round` as (epoch, its rounds, epochs alike): Keras' epochs must be alike."""
        segments, done = [], first_round
        while done < self.rounds:
            epoch, into = divmod(done, self.rounds_per_pass)
            rounds = min(self.rounds_per_pass - into, self.rounds - done)
            alike = max(1, (self.rounds - done) // self.rounds_per_pass) if not into else 1
            segments.append((epoch, rounds, alike))
            done += rounds * alike
        return segments

    def place(self, done: int) -> str:
        """The last of so many rounds, in words."""
        epoch, into = divmod(done - 1, self.rounds_per_pass)
        return f"round {done:,} (pass {epoch + 1:,}, batch {into + 1:,} of {self.rounds_per_pass:,})"


@dataclasses.dataclass(frozen=True)
class Session:
    """The values that the stages of a run hand on.

    Attributes:
        config: the flags.
        data: what is trained and tested on.
        model: the network in its trainer, whose `rounds` count what is done.
        plan: how long the training is.
    """

    config: ExperimentConfig
    data: datasets.Dataset
    model: pt.AdversarialTraining
    plan: Plan

    @property
    def rounds_done(self) -> int:
        """Rounds trained so far."""
        return int(self.model.rounds)

    def batches(self, first_round: int, last_round: int) -> Iterable:
        """The batches of rounds, as this process's devices get them."""
        config = self.config
        if isinstance(self.model, pt.PrivateAdversarialTraining):  # which draws them itself, from the round it is at
            return self.model.batches(*self.data.train)
        whole = datasets.training_batches(
            self.data.train,
            batch_size=config.batch_size,
            seed=config.seed,
            first_round=first_round,
            num_rounds=last_round,
            pad=config.augment_pad,
            flip=config.augment_flip,
            mixing=config.mixing,
            num_classes=self.data.num_classes,
        )
        return distribution.parts(whole, config.batch_size, self.model.distribute_strategy)

    def fit(self, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        """Trains from where the model stands to the end of the plan."""
        first_round = self.rounds_done
        with tracking.no_finalization(self.model.optimizer):
            for epoch, rounds, alike in self.plan.segments(first_round):
                counts = {"initial_epoch": epoch, "epochs": epoch + alike, "steps_per_epoch": rounds}
                if self.config.dp_noise:
                    self.model.fit(*self.data.train, callbacks=list(callbacks), verbose=0, **counts)
                else:
                    batches = self.batches(first_round, first_round + rounds * alike)
                    distribution.fit(self.model, batches, callbacks=callbacks, **counts)
                first_round += rounds * alike

    def bar(self) -> tracking.ProgressBar:
        """A bar over the rest of the training."""
        per_round = self.plan.updates_per_round
        return tracking.ProgressBar(self.plan.updates, self.rounds_done * per_round, per_round)


def build(config: ExperimentConfig, data: datasets.Dataset) -> Session:
    """Makes the model with fresh weights, within the scope of the strategy that the caller has entered.

    Raises:
        ValueError: if a batch has more images than there are.
    """
    rounds_per_pass = len(data.train.labels) // config.batch_size
    if not rounds_per_pass:
        raise ValueError(
            f"`batch_size` must be at most the number of training images, {len(data.train.labels)}. "
            f"Received: batch_size={config.batch_size}."
        )
    plan = Plan(config.rounds, rounds_per_pass, config.updates_per_round)
    keras.utils.set_random_seed(config.seed)
    model = method.trainer(config, network(config, data, config.precision))
    model.optimizer.build(model.trainable_variables)
    return Session(config, data, model, plan)


def network(config: ExperimentConfig, data: datasets.Dataset, precision: str) -> keras.Model:
    """The network that the flags describe for images of this shape."""
    shape = data.train.images.shape[1:]
    return method.network(config, input_shape=shape, num_classes=data.num_classes, precision=precision)
