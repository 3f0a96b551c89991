"""Progress, history, checkpoints and the orderly end of a run."""

import csv
import os
import signal

import keras
import numpy as np
import pytest
from conftest import dense_network

import pineat_tf as pt
from experiments import tracking
from experiments.command_line import InterruptedRun


def make_model(seed=0):
    keras.utils.set_random_seed(seed)
    model = pt.AdversarialTraining(
        dense_network(),
        attack=pt.attacks.pgd(epsilon=0.1, step_size=0.05, num_steps=1),
        companions=pt.companions.ReverseSymmetry(epsilon=0.1),
        ratio="1/1",
        seed=seed,
    )
    rate = pt.schedules.piecewise_learning_rate([6], [0.01, 0.001])
    model.compile(optimizer=keras.optimizers.Adam(rate), metrics=["accuracy"], run_eagerly=True)
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.fixture
def model():
    return make_model()


@pytest.fixture
def fit(images, labels):
    """Trains on 8 images, 4 at once: an epoch is 2 rounds of 1/1, which are 4 updates."""

    def fit(model, *callbacks, epochs=3, initial_epoch=0):
        data = {"x": images, "y": labels, "batch_size": 4, "shuffle": False, "verbose": 0}
        return model.fit(**data, epochs=epochs, initial_epoch=initial_epoch, callbacks=list(callbacks))

    return fit


class At(keras.callbacks.Callback):
    """Does something after one round, counted from 0 in each epoch, or after every epoch."""

    def __init__(self, action, batch=None):
        super().__init__()
        self.action, self.batch = action, batch

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.batch:
            self.action()

    def on_epoch_end(self, epoch, logs=None):
        if self.batch is None:
            self.action()


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def state(model):
    return [variable.numpy() for variable in model.network.weights + model.optimizer.variables]


def assert_same(first, second):
    assert len(first) == len(second)
    assert all(a.dtype == b.dtype and (a == b).all() for a, b in zip(first, second))


# ---------------------------------------------------------------- history


def test_history_is_whole_after_every_epoch(tmp_path, model, fit):
    path, seen = tmp_path / "history.csv", []
    fit(model, tracking.History(path, 0), At(lambda: seen.append(path.read_text())))
    assert len(seen) == 3
    for epoch, text in enumerate(seen, start=1):
        rows = list(csv.DictReader(text.splitlines()))
        assert [row["epoch"] for row in rows] == [str(number) for number in range(1, epoch + 1)]
        assert all(None not in row.values() and "" not in row.values() for row in rows)
    assert [path.name for path in tmp_path.iterdir()] == ["history.csv"]


def test_a_row_holds_the_epoch_its_updates_the_rate_and_the_losses(tmp_path, model, fit):
    logs = fit(model, tracking.History(tmp_path / "history.csv", 0)).history
    rows = rows_of(tmp_path / "history.csv")
    assert [row["updates"] for row in rows] == ["4", "8", "12"]
    assert [float(row["learning_rate"]) for row in rows] == [np.float32(0.01), np.float32(0.001), np.float32(0.001)]
    for name in ("loss", "adversarial_loss", "companion_loss", "accuracy"):
        assert [float(row[name]) for row in rows] == pytest.approx(logs[name], rel=1e-6)
    assert [float(row["seconds"]) for row in rows] == sorted(float(row["seconds"]) for row in rows)


def test_a_resumed_history_drops_what_came_after_the_checkpoint_and_goes_on(tmp_path, model, fit):
    path = tmp_path / "history.csv"
    fit(model, tracking.History(path, 0))
    before = rows_of(path)
    model.optimizer.iterations.assign(8)  # the state of a checkpoint after 2 epochs
    fit(model, tracking.History(path, 8), initial_epoch=2, epochs=4)
    after = rows_of(path)
    assert [(row["epoch"], row["updates"]) for row in after] == [("1", "4"), ("2", "8"), ("3", "12"), ("4", "16")]
    assert after[:2] == before[:2]


def test_the_seconds_of_a_resumed_history_include_those_before(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("epoch,updates,seconds\n1,4,100.5\n2,8,250.5\n")
    assert 250.5 <= tracking.History(path, 8).seconds < 260
    assert 100.5 <= tracking.History(path, 7).seconds < 110
    assert 0 <= tracking.History(path, 3).seconds < 10
    assert 0 <= tracking.History(tmp_path / "none.csv", 0).seconds < 10


# ---------------------------------------------------------------- checkpoints


def test_a_checkpoint_restores_weights_and_optimizer_bit_for_bit_and_training_goes_on_alike(tmp_path, model, fit):
    fit(model, epochs=2)
    tracking.Checkpoints(model, tmp_path, 0).save()
    saved = state(model)
    other = make_model(seed=1)
    assert any((a != b).any() for a, b in zip(state(other), saved))
    assert tracking.Checkpoints(other, tmp_path, 0).restore()
    assert_same(state(other), saved)
    assert int(other.optimizer.iterations) == 8
    other.seed = model.seed
    fit(model, epochs=1)
    fit(other, epochs=1)
    assert_same(state(other), state(model))
    assert any((a != b).any() for a, b in zip(state(model), saved))


def test_without_a_checkpoint_nothing_is_restored(tmp_path, model):
    before = state(model)
    assert not tracking.Checkpoints(model, tmp_path / "none", 0).restore()
    assert_same(state(model), before)


def names_of_checkpoints(folder):
    return sorted(path.stem for path in folder.glob("*.index"))


def test_the_last_two_checkpoints_are_kept_and_named_after_their_updates(tmp_path, model, fit):
    fit(model, tracking.Checkpoints(model, tmp_path, 0), epochs=4)
    assert names_of_checkpoints(tmp_path) == ["ckpt-12", "ckpt-16"]
    other = make_model(seed=1)
    tracking.Checkpoints(other, tmp_path, 0).restore()
    assert_same(state(other), state(model))


def test_a_checkpoint_may_be_saved_twice_at_the_same_update(tmp_path, model, fit):
    checkpoints = tracking.Checkpoints(model, tmp_path, 0)
    fit(model, checkpoints, epochs=2)
    checkpoints.save()
    assert names_of_checkpoints(tmp_path) == ["ckpt-4", "ckpt-8"]
    assert tracking.Checkpoints(make_model(seed=1), tmp_path, 0).restore()


def test_two_checkpoints_are_kept_across_a_restart(tmp_path, model, fit):
    fit(model, tracking.Checkpoints(model, tmp_path, 0), epochs=2)
    restarted = make_model(seed=1)
    checkpoints = tracking.Checkpoints(restarted, tmp_path, 0)
    checkpoints.restore()
    fit(restarted, checkpoints, epochs=2)
    assert names_of_checkpoints(tmp_path) == ["ckpt-12", "ckpt-16"]


def test_checkpoints_are_no_more_frequent_than_asked_for(tmp_path, model, fit):
    fit(model, tracking.Checkpoints(model, tmp_path, 3600))
    assert names_of_checkpoints(tmp_path) == []


@pytest.mark.parametrize("ending", ["data-00000-of-00001", "index"])
@pytest.mark.parametrize("damage", [lambda content: content[:90], lambda content: b"", lambda content: content[::-1]])
def test_a_damaged_checkpoint_is_refused_by_name(ending, damage, tmp_path, model):
    tracking.Checkpoints(model, tmp_path, 0).save()
    path = tmp_path / f"ckpt-0.{ending}"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="checkpoint '.*ckpt-0' is damaged; --overwrite begins anew"):
        tracking.Checkpoints(make_model(), tmp_path, 0).restore()


def test_a_checkpoint_of_another_network_is_refused(tmp_path, model):
    tracking.Checkpoints(model, tmp_path, 0).save()
    other = pt.AdversarialTraining(
        keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]),
        attack=pt.attacks.pgd(epsilon=0.1, step_size=0.05, num_steps=1),
    )
    other.compile(optimizer="adam")
    other.optimizer.build(other.trainable_variables)
    with pytest.raises((ValueError, AssertionError)):
        tracking.Checkpoints(other, tmp_path, 0).restore()


# ---------------------------------------------------------------- signals


def send(number):
    return lambda: os.kill(os.getpid(), number)


@pytest.mark.parametrize("number, exit_code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_training_after_the_round_with_a_checkpoint(tmp_path, model, fit, number, exit_code):
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    stop = tracking.StopOnSignal(tracking.Checkpoints(model, tmp_path, 3600))
    with pytest.raises(InterruptedRun, match="the checkpoint is kept; --resume goes on") as interrupted:
        with stop.listening():
            fit(model, At(send(number), batch=0), stop)
    assert interrupted.value.exit_code == exit_code
    assert int(model.optimizer.iterations) == 2  # one round of 1/1: the signal came during the first
    assert names_of_checkpoints(tmp_path) == ["ckpt-2"]
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_a_second_signal_ends_training_at_once(tmp_path, model, fit):
    stop = tracking.StopOnSignal(tracking.Checkpoints(model, tmp_path, 3600))
    twice = At(lambda: [send(signal.SIGINT)() for _ in range(2)], batch=0)
    with pytest.raises(KeyboardInterrupt):
        with stop.listening():
            fit(model, twice, stop)
    assert names_of_checkpoints(tmp_path) == []


def test_a_signal_after_the_last_round_is_not_forgotten(tmp_path, model, fit):
    stop = tracking.StopOnSignal(tracking.Checkpoints(model, tmp_path, 3600))
    with stop.listening():
        fit(model, stop, At(send(signal.SIGTERM)), epochs=1)
    with pytest.raises(InterruptedRun) as interrupted:
        stop.end_if_told()
    assert interrupted.value.exit_code == 143
    assert names_of_checkpoints(tmp_path) == ["ckpt-4"]


def test_without_a_signal_training_ends_by_itself(tmp_path, model, fit):
    stop = tracking.StopOnSignal(tracking.Checkpoints(model, tmp_path, 3600))
    with stop.listening():
        fit(model, stop)
    stop.end_if_told()
    assert int(model.optimizer.iterations) == 12


# ---------------------------------------------------------------- progress


def test_the_bar_counts_updates_from_where_training_goes_on_to_the_end(capsys, model, fit):
    bar = tracking.ProgressBar(total=16, done=4, per_round=2)
    assert bar.bar.n == 4
    fit(model, bar)  # 6 rounds
    assert (bar.bar.n, bar.bar.total) == (16, 16)
    bar.close()
    last = capsys.readouterr().err.replace("\r", "\n").strip().splitlines()[-1]
    assert "training: 100%" in last and "16/16" in last and "adversarial_loss=" in last
