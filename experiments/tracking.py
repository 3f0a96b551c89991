"""Keras callbacks and signals of a run: its progress bar, history, checkpoints and orderly end."""

import contextlib
import csv
import io
import pathlib
import signal
import time
from collections.abc import Iterator

import keras
import tensorflow as tf
from tqdm.auto import tqdm

from experiments import files
from experiments.command_line import InterruptedRun


class ProgressBar(keras.callbacks.Callback):
    """One bar over the whole training, in updates of the weights, with the running losses."""

    def __init__(self, total: int, done: int, per_round: int):
        super().__init__()
        self.bar = tqdm(total=total, initial=done, unit=" updates", desc="training", dynamic_ncols=True)
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


class History(keras.callbacks.Callback):
    """Keeps history.csv: one row a pass over the data, always whole.

    Attributes:
        seconds: training time so far, that before a restart included.
    """

    def __init__(self, path: pathlib.Path, updates_done: int):
        super().__init__()
        self.path = path
        self.rows = [row for row in _read_rows(path) if int(row["updates"]) <= updates_done]
        self.before = float(self.rows[-1]["seconds"]) if self.rows else 0.0
        self.start = time.monotonic()

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.start

    def on_epoch_end(self, epoch, logs=None):
        optimizer = self.model.optimizer
        row = {"epoch": epoch + 1, "updates": int(optimizer.iterations), "seconds": round(self.seconds, 1)}
        row |= {"learning_rate": float(optimizer.learning_rate)}
        self.rows.append(row | {name: float(value) for name, value in (logs or {}).items()})
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(self.rows[-1]), extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        files.write_text(self.path, text.getvalue())


class Checkpoints(keras.callbacks.Callback):
    """Keeps the last two checkpoints of weights and optimizer, about every so many seconds and at the end."""

    def __init__(self, model: keras.Model, directory: pathlib.Path, every_seconds: float):
        super().__init__()
        self.every_seconds = every_seconds
        checkpoint = tf.train.Checkpoint(network=model.network, optimizer=model.optimizer)
        self.manager = tf.train.CheckpointManager(checkpoint, str(directory), max_to_keep=2)
        self.saved = time.monotonic()

    def restore(self) -> bool:
        """Brings back the last checkpoint, if there is one; raises `ValueError` if it is damaged."""
        latest = self.manager.latest_checkpoint
        try:
            if latest:
                self.manager.checkpoint.restore(latest).assert_existing_objects_matched()
        except (tf.errors.OpError, IndexError) as error:  # what TensorFlow raises for files that were cut
            raise ValueError(f"the checkpoint {latest!r} is damaged; --overwrite begins anew. ({error})") from error
        return bool(latest)

    def save(self) -> None:
        """Keeps the state as it is now, named after the updates done."""
        self.manager.save(checkpoint_number=int(self.manager.checkpoint.optimizer.iterations))
        self.saved = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        if time.monotonic() - self.saved >= self.every_seconds:
            self.save()


class StopOnSignal(keras.callbacks.Callback):
    """Ends training between two rounds on Ctrl-C or SIGTERM, with a checkpoint; a second Ctrl-C ends it at once."""

    def __init__(self, checkpoints: Checkpoints):
        super().__init__()
        self.checkpoints = checkpoints
        self.received: int | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Receives the signals while the context lasts."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self._receive) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before):
                signal.signal(number, handler)

    def on_train_batch_end(self, batch, logs=None):
        self.end_if_told()

    def end_if_told(self) -> None:
        """Keeps a checkpoint and raises `InterruptedRun` if there was a signal."""
        if self.received:
            self.checkpoints.save()
            raise InterruptedRun("the checkpoint is kept; --resume goes on from it.", 128 + self.received)

    def _receive(self, number, frame) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = number


def _read_rows(path: pathlib.Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
