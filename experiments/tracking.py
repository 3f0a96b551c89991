"""Keras callbacks and signals of a run: its progress bar, history, checkpoints and orderly end."""

import contextlib
import csv
import io
import json
import math
import os
import pathlib
import signal
import sys
import time
from collections.abc import Iterator

import keras
import tensorflow as tf

import pineat_tf as pt
from experiments import distribution, files, machine, progress, signals
from experiments.signals import InterruptedRun


def updates_done(model: pt.AdversarialTraining) -> int:
    """Updates of the weights so far."""
    return int(model.rounds) * model.updates_per_round


class ProgressBar(keras.callbacks.Callback):
    """One bar over the whole training, in updates of the weights, with the running losses."""

    def __init__(self, total: int, done: int, per_round: int):
        super().__init__()
        self.bar = progress.bar(total=total, initial=done, unit=" updates", desc="training")
        self.per_round = per_round
        self.shown = 0.0

    def on_train_batch_end(self, batch, logs=None):
        self.bar.update(self.per_round)
        if time.monotonic() - self.shown > 0.5:
            self.shown = time.monotonic()
            self.bar.set_postfix({name: f"{float(value):.3f}" for name, value in (logs or {}).items()}, refresh=False)

    def close(self) -> None:
        """Leaves the bar as it stands."""
        self.bar.close()


class Clock:
    """Seconds of training so far, those before a restart included.

    Attributes:
        before: the seconds that a checkpoint brought back.
    """

    def __init__(self):
        self.before = 0.0
        self.start()

    def start(self) -> None:
        """Begins to count."""
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self._started


class History(keras.callbacks.Callback):
    """Keeps history.csv: one row a pass over the data, always whole."""

    def __init__(self, path: pathlib.Path, updates_done: int, clock: Clock):
        super().__init__()
        self.path = path
        self.rows = _read_rows(path, updates_done)
        self.clock = clock

    def on_epoch_end(self, epoch, logs=None):
        optimizer = self.model.optimizer
        row = {"epoch": epoch + 1, "updates": updates_done(self.model)}
        row |= {"seconds": round(self.clock.seconds, 1)}
        row |= {"learning_rate": float(tf.convert_to_tensor(optimizer.learning_rate))}
        self.rows.append(row | {name: float(value) for name, value in (logs or {}).items()})
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(self.rows[-1]), extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        files.write_text(self.path, text.getvalue())


class Diverged(Exception):
    """Training came to numbers that are not finite."""


class StopOnDivergence(keras.callbacks.Callback):
    """Ends training with `Diverged` at the round after which its loss or a weight is not finite."""

    def __init__(self, network: keras.Model):
        super().__init__()
        weights = [weight.value for weight in network.weights if weight.value.dtype.is_floating]
        self.all_finite = tf.function(
            lambda: tf.reduce_all([tf.reduce_all(tf.math.is_finite(w)) for w in weights]), autograph=False
        )

    def on_train_batch_end(self, batch, logs=None):
        loss = float(logs["loss"])  # a mean over the pass, which stays NaN or infinite once a round's is
        if not math.isfinite(loss):
            raise Diverged(f"the loss is {loss}")
        if not self.all_finite():  # a ReLU can make zero of NaN, so that the loss does not show it
            raise Diverged("the weights are not finite")


class _PassState(tf.train.experimental.PythonState):
    """The part of a checkpoint beside the weights: seconds, the metrics of an unfinished pass, the machine."""

    def __init__(self, model: keras.Model, clock: Clock):
        self.model = model
        self.clock = clock
        self.within_pass = False
        self.restored: list[float] = []
        self.made_on: dict | None = None

    def serialize(self) -> str:
        # With several workers the metrics are sums of theirs, which the chief cannot make alone.
        alone = not distribution.has_workers(self.model.distribute_strategy)
        variables = self.model.metrics_variables if self.within_pass and alone else []
        metrics = [float(variable.numpy()) for variable in variables]
        return json.dumps({"seconds": self.clock.seconds, "metrics": metrics, "machine": machine.description()})

    def deserialize(self, string_value: bytes) -> None:
        state = json.loads(string_value)
        self.clock.before, self.restored = state["seconds"], state["metrics"]
        self.made_on = state.get("machine")

    def resume_metrics(self) -> None:
        """Gives the metrics, which Keras sets to zero at the start of a pass, the values that they were kept with."""
        if self.restored:
            for variable, value in zip(self.model.metrics_variables, self.restored, strict=True):
                variable.assign(value)
        self.restored = []


class Checkpoints(keras.callbacks.Callback):
    """Keeps the last two checkpoints of the whole state of training, about every so many seconds and at the end.

    They are `ckpt-UPDATES.index` and its data beside it. TensorFlow gives the index its name when all is written, so
    what is in the directory says by itself which checkpoints there are.

    Args:
        model: what is trained; it must have trained a round, or have no metrics, if a pass was broken off.
        directory: where they are; made if it does not exist.
        every_seconds: 0 for a checkpoint after every round.
        clock: counts the seconds of training.
    """

    def __init__(self, model: keras.Model, directory: pathlib.Path, every_seconds: float, clock: Clock):
        super().__init__()
        self.trained = model
        self.directory = pathlib.Path(directory)
        self.every_seconds = every_seconds
        self.state = _PassState(model, clock)
        variables = [variable.value for variable in model.variables + model.optimizer.variables]
        self.checkpoint = tf.train.Checkpoint(variables=variables, state=self.state)
        self.saved = time.monotonic()

    def updates(self) -> list[int]:
        """Returns the number of updates at each checkpoint, in ascending order."""
        names = [path.stem.partition("-")[2] for path in self.directory.glob("ckpt-*.index")]
        return sorted(int(name) for name in names if name.isdecimal())

    def restore(self) -> bool:
        """Brings back the last checkpoint that can be read, if there is any.

        Raises:
            ValueError: if there are checkpoints and none can be read.
        """
        kept, damaged = self.updates(), []
        while kept:
            try:
                self.checkpoint.read(self._path(kept[-1])).assert_existing_objects_matched()
                break
            except (tf.errors.OpError, IndexError) as error:  # what TensorFlow raises for files that were cut
                damaged.append((self._path(kept.pop()), error))
        if not kept and damaged:
            (path, error), *_ = damaged
            raise ValueError(
                f"the checkpoint {path!r} is damaged or of another version; --overwrite starts over. ({error})"
            ) from error
        if damaged:
            told = " and ".join(repr(path) for path, _ in damaged)
            print(f"warning: {told} is damaged; going back to {self._path(kept[-1])!r}.", file=sys.stderr)
        self._keep(kept)
        if kept:
            self._warn_of_another_machine()
        return bool(kept)

    def _warn_of_another_machine(self) -> None:
        made_on, here = self.state.made_on, machine.description()
        differing = [
            f"{name} {made_on[name]} there, {here[name]} here"
            for name in here
            if made_on and name in made_on and made_on[name] != here[name]
        ]
        if differing:
            print(
                f"warning: the checkpoint was made on another machine ({'; '.join(differing)}): the last digits of the "
                "results may differ from those of a run that was not interrupted.",
                file=sys.stderr,
            )

    def save(self) -> None:
        """Keeps the state as it is now, unless that is done already.

        `StopOnDivergence`, which comes before, sees to it that the weights are finite.
        """
        done, before = updates_done(self.trained), self.updates()
        if done not in before:
            self.directory.mkdir(parents=True, exist_ok=True)
            try:
                self._write(done)
            except BaseException:
                self._keep(before)  # and not the half of a new one
                raise
            self._keep([*before, done][-2:])
        self.saved = time.monotonic()

    def on_epoch_begin(self, epoch, logs=None):
        self.state.resume_metrics()

    def on_train_batch_end(self, batch, logs=None):
        self.state.within_pass = batch + 1 < self.params["steps"]
        if self.state.within_pass:  # else the pass is to have its row in the history first
            self._save_if_due()

    def on_epoch_end(self, epoch, logs=None):
        self._save_if_due()

    def _save_if_due(self) -> None:
        if time.monotonic() - self.saved >= self.every_seconds:
            self.save()

    def _write(self, updates: int) -> None:
        try:
            self.checkpoint.write(self._path(updates))
        except tf.errors.OpError as error:  # some of which Keras takes for the end of the data
            raise (files.system_error(error) or error) from None

    def _path(self, updates: int) -> str:
        return str(self.directory / f"ckpt-{updates}")

    def _keep(self, updates: list[int]) -> None:
        """Removes the other checkpoints, whole or not."""
        names = [f"ckpt-{done}" for done in updates]
        for path in self.directory.glob("ckpt-*"):
            if path.name.partition(".")[0] not in names:
                files.remove(path)


class StopOnSignal(keras.callbacks.Callback):
    """Ends training between two rounds on a signal, with a checkpoint; a second Ctrl-C ends it at once.

    A round may take as long as it takes, unless it waits for other workers: they may be gone.
    """

    def __init__(self, checkpoints: Checkpoints):
        super().__init__()
        self.checkpoints = checkpoints
        self.received: int | None = None

    @contextlib.contextmanager
    def listening(self, patience: float | None = None) -> Iterator[None]:
        """Receives the signals while the context lasts.

        Args:
            patience: after how many seconds of a round that does not end the process ends without a checkpoint.
        """
        with signals.ending.patient(patience), signals.handled_by(self._receive):
            yield

    def on_train_batch_end(self, batch, logs=None):
        if batch + 1 < self.params["steps"]:  # else the pass is to have its row in the history first
            self.end_if_told()

    def on_epoch_end(self, epoch, logs=None):
        self.end_if_told()

    def end_if_told(self) -> None:
        """Keeps a checkpoint and raises `InterruptedRun` if there was a signal."""
        if self.received:
            self.checkpoints.save()
            raise InterruptedRun("the checkpoint is kept; --resume goes on from it.", 128 + self.received)

    def _receive(self, number, frame) -> None:
        signals.ending.heard()
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or number  # Ctrl-C, and then SIGTERM from what started this run, are one wish


def _read_rows(path: pathlib.Path, updates_done: int) -> list[dict[str, str]]:
    """The rows of a history.csv up to a number of updates.

    Raises:
        ValueError: if it is none.
    """
    if not os.path.lexists(path):
        return []
    try:
        if not path.is_file():
            raise ValueError("it is not a file")
        with open(path, newline="", encoding="utf-8") as file:
            return [row for row in csv.DictReader(file, strict=True) if int(row["updates"] or "") <= updates_done]
    except (ValueError, KeyError, csv.Error) as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"the history {str(path)!r} is damaged: {why}. --overwrite starts over.") from None


@contextlib.contextmanager
def no_finalization(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """Keeps `fit` from putting averaged weights in place at its end, where training is more than one `fit`."""
    optimizer.finalize_variable_values = lambda variables: None
    try:
        yield
    finally:
        del optimizer.finalize_variable_values  # the method of its class again
