"""Progress, history, checkpoints and the orderly end of a run."""

import csv
import errno
import os
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import dense_network

import pineat_tf as pt
from experiments import tracking
from experiments.signals import InterruptedRun


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


def checkpoints_of(model, folder, every_seconds=0):
    return tracking.Checkpoints(model, folder, every_seconds, tracking.Clock())


def history_of(path, updates_done=0):
    return tracking.History(path, updates_done, tracking.Clock())


@pytest.fixture
def model():
    return make_model()


@pytest.fixture
def fit(images, labels):
    """Trains on 8 images, 4 at once: an epoch is 2 rounds of 1/1, which are 4 updates."""

    def fit(model, *callbacks, epochs=3, initial_epoch=0, first=0):
        data = {"x": images[first:], "y": labels[first:], "batch_size": 4, "shuffle": False, "verbose": 0}
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
    fit(model, history_of(path), At(lambda: seen.append(path.read_text())))
    assert len(seen) == 3
    for epoch, text in enumerate(seen, start=1):
        rows = list(csv.DictReader(text.splitlines()))
        assert [row["epoch"] for row in rows] == [str(number) for number in range(1, epoch + 1)]
        assert all(None not in row.values() and "" not in row.values() for row in rows)
    assert [path.name for path in tmp_path.iterdir()] == ["history.csv"]


def test_a_row_holds_the_epoch_its_updates_the_rate_and_the_losses(tmp_path, model, fit):
    logs = fit(model, history_of(tmp_path / "history.csv")).history
    rows = rows_of(tmp_path / "history.csv")
    assert [row["updates"] for row in rows] == ["4", "8", "12"]
    assert [float(row["learning_rate"]) for row in rows] == [np.float32(0.01), np.float32(0.001), np.float32(0.001)]
    for name in ("loss", "adversarial_loss", "companion_loss", "accuracy"):
        assert [float(row[name]) for row in rows] == pytest.approx(logs[name], rel=1e-6)
    assert [float(row["seconds"]) for row in rows] == sorted(float(row["seconds"]) for row in rows)


def test_a_resumed_history_drops_what_came_after_the_checkpoint_and_goes_on(tmp_path, model, fit):
    path = tmp_path / "history.csv"
    fit(model, history_of(path))
    before = rows_of(path)
    model._rounds.assign(4)  # the state of a checkpoint after 2 epochs
    fit(model, history_of(path, 8), initial_epoch=2, epochs=4)
    after = rows_of(path)
    assert [(row["epoch"], row["updates"]) for row in after] == [("1", "4"), ("2", "8"), ("3", "12"), ("4", "16")]
    assert after[:2] == before[:2]


def test_seconds_are_those_of_training_before_and_after_the_restart(tmp_path, model, fit):
    clock = tracking.Clock()
    clock.before = 250.5
    fit(model, tracking.History(tmp_path / "history.csv", 0, clock), epochs=1)
    assert 250.5 <= float(rows_of(tmp_path / "history.csv")[0]["seconds"]) <= clock.seconds + 0.05 < 310  # rounded


# ---------------------------------------------------------------- checkpoints


def test_a_checkpoint_restores_weights_and_optimizer_bit_for_bit_and_training_goes_on_alike(tmp_path, model, fit):
    fit(model, epochs=2)
    checkpoints_of(model, tmp_path).save()
    saved = state(model)
    other = make_model(seed=1)
    assert any((a != b).any() for a, b in zip(state(other), saved))
    assert checkpoints_of(other, tmp_path).restore()
    assert_same(state(other), saved)
    assert int(other.optimizer.iterations) == 8
    other.seed = model.seed
    fit(model, epochs=1)
    fit(other, epochs=1)
    assert_same(state(other), state(model))
    assert any((a != b).any() for a, b in zip(state(model), saved))


def test_without_a_checkpoint_nothing_is_restored(tmp_path, model):
    before = state(model)
    assert not checkpoints_of(model, tmp_path / "none").restore()
    assert_same(state(model), before)


def names_of_checkpoints(folder):
    return sorted(path.stem for path in folder.glob("*.index"))


def test_the_last_two_checkpoints_are_kept_and_named_after_their_updates(tmp_path, model, fit):
    fit(model, checkpoints_of(model, tmp_path), epochs=4)
    assert names_of_checkpoints(tmp_path) == ["ckpt-14", "ckpt-16"]
    other = make_model(seed=1)
    checkpoints_of(other, tmp_path).restore()
    assert_same(state(other), state(model))


def test_a_checkpoint_may_be_saved_twice_at_the_same_update(tmp_path, model, fit):
    checkpoints = checkpoints_of(model, tmp_path)
    fit(model, checkpoints, epochs=2)
    checkpoints.save()
    assert names_of_checkpoints(tmp_path) == ["ckpt-6", "ckpt-8"]
    assert checkpoints_of(make_model(seed=1), tmp_path).restore()


def test_two_checkpoints_are_kept_across_a_restart(tmp_path, model, fit):
    fit(model, checkpoints_of(model, tmp_path), epochs=2)
    restarted = make_model(seed=1)
    checkpoints = checkpoints_of(restarted, tmp_path)
    checkpoints.restore()
    fit(restarted, checkpoints, epochs=2)
    assert names_of_checkpoints(tmp_path) == ["ckpt-14", "ckpt-16"]


def test_checkpoints_are_no_more_frequent_than_asked_for(tmp_path, model, fit):
    fit(model, checkpoints_of(model, tmp_path, 3600))
    assert names_of_checkpoints(tmp_path) == []


def test_within_a_pass_checkpoints_are_kept_by_time_and_at_its_end_after_its_row(tmp_path, model, fit):
    seen = []
    checkpoints = checkpoints_of(model, tmp_path)
    look = At(lambda: seen.append((len(rows_of(tmp_path / "history.csv")), checkpoints.updates())))
    fit(model, history_of(tmp_path / "history.csv"), checkpoints, look, epochs=2)
    assert seen == [(1, [2, 4]), (2, [6, 8])]
    frozen = checkpoints_of(model, tmp_path / "seldom", 3600)
    frozen.saved -= 3600
    fit(model, frozen, epochs=1)
    assert frozen.updates() == [10]  # at once, and then not for an hour


class Killed(Exception):
    """Ends `fit` as if the process had ended."""


def kill():
    raise Killed


def test_a_pass_that_was_broken_off_goes_on_with_its_metrics_and_seconds(tmp_path, model, fit):
    fit(model, history_of(tmp_path / "whole.csv"), epochs=2)
    broken, clock = make_model(), tracking.Clock()
    clock.before = 100.0
    with pytest.raises(Killed):
        fit(broken, tracking.Checkpoints(broken, tmp_path / "kept", 0, clock), At(kill, batch=0))

    resumed, clock = make_model(seed=1), tracking.Clock()
    resumed.seed = model.seed
    fit(resumed, epochs=1)  # makes the variables of the metrics
    checkpoints = tracking.Checkpoints(resumed, tmp_path / "kept", 0, clock)
    assert checkpoints.restore() and int(resumed.optimizer.iterations) == 2
    assert 100 <= clock.before < 160
    history = tracking.History(tmp_path / "resumed.csv", 2, clock)
    fit(resumed, history, checkpoints, epochs=1, first=4)  # the other half of the pass
    fit(resumed, history, checkpoints, epochs=2, initial_epoch=1)
    assert_same(state(resumed), state(model))
    for row, expected in zip(rows_of(tmp_path / "resumed.csv"), rows_of(tmp_path / "whole.csv"), strict=True):
        assert float(row.pop("seconds")) >= 100 > float(expected.pop("seconds"))
        assert row == expected


def test_a_checkpoint_holds_the_perturbation_of_free_training(tmp_path, fit):
    def free():
        keras.utils.set_random_seed(0)
        model = pt.FreeAdversarialTraining(dense_network(), epsilon=0.1, batch_size=4, ratio="2/0")
        model.compile(optimizer="adam")
        model.optimizer.build(model.trainable_variables)
        return model

    model, other = free(), free()
    fit(model, epochs=1)
    checkpoints_of(model, tmp_path).save()
    assert np.abs(model.perturbation.numpy()).max() > 0
    assert checkpoints_of(other, tmp_path).restore()
    assert (other.perturbation.numpy() == model.perturbation.numpy()).all()


DAMAGES = [lambda content: content[:90], lambda content: b"", lambda content: content[::-1]]


def damage(path, how):
    path.write_bytes(how(path.read_bytes()))


@pytest.mark.parametrize("ending", ["data-00000-of-00001", "index"])
@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_checkpoint_is_refused_by_name_if_there_is_no_other(ending, how, tmp_path, model, capsys):
    checkpoints_of(model, tmp_path).save()
    damage(tmp_path / f"ckpt-0.{ending}", how)
    with pytest.raises(
        ValueError, match="checkpoint '.*ckpt-0' is damaged or of another version; --overwrite starts over"
    ):
        checkpoints_of(make_model(), tmp_path).restore()
    assert names_of_checkpoints(tmp_path) == ["ckpt-0"] and capsys.readouterr().err == ""


@pytest.mark.parametrize("ending", ["data-00000-of-00001", "index"])
@pytest.mark.parametrize("how", DAMAGES[:2])
def test_for_a_damaged_checkpoint_the_one_before_is_taken_and_one_line_says_so(
    ending, how, tmp_path, model, fit, capsys
):
    fit(model, history_of(tmp_path / "history.csv"), epochs=1)
    checkpoints_of(model, tmp_path / "kept").save()
    expected = state(model)
    fit(model, history_of(tmp_path / "history.csv", 4), epochs=2, initial_epoch=1)
    checkpoints_of(model, tmp_path / "kept").save()
    damage(tmp_path / "kept" / f"ckpt-8.{ending}", how)

    other = make_model(seed=1)
    checkpoints = checkpoints_of(other, tmp_path / "kept")
    assert checkpoints.restore()
    assert_same(state(other), expected)
    err = capsys.readouterr().err
    assert err.startswith("warning: ") and err.count("\n") == 1
    assert "ckpt-8' is damaged; going back to " in err and err.endswith("ckpt-4'.\n")
    assert [row["updates"] for row in history_of(tmp_path / "history.csv", 4).rows] == ["4"]
    assert checkpoints.updates() == [4]  # else the next one would push out the good one, not the damaged


def test_only_whole_checkpoints_are_looked_at_and_the_half_ones_are_cleared(tmp_path, model):
    checkpoints_of(model, tmp_path).save()
    whole = sorted(path.name for path in tmp_path.iterdir())
    (tmp_path / "checkpoint").write_text("mine")
    (tmp_path / "ckpt-9.data-00000-of-00001").write_bytes(b"no index yet")
    (tmp_path / "ckpt-9_temp").mkdir()
    (tmp_path / "ckpt-9_temp" / "part-00000-of-00001.data-00000-of-00001").write_bytes(b"half")
    other = make_model(seed=1)
    assert checkpoints_of(other, tmp_path).restore()
    assert_same(state(other), state(model))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", *whole]


def test_a_checkpoint_of_a_machine_with_other_cores_is_told(tmp_path, model, monkeypatch, capsys):
    checkpoints_of(model, tmp_path).save()
    assert checkpoints_of(make_model(), tmp_path).restore() and capsys.readouterr().err == ""
    monkeypatch.setattr(tracking.machine, "description", lambda: {"cores": 1_000})
    assert checkpoints_of(make_model(), tmp_path).restore()
    err = capsys.readouterr().err
    assert err.startswith("warning: the checkpoint was made on another machine (cores ") and err.count("\n") == 1


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, model):
    checkpoints = checkpoints_of(model, tmp_path)
    checkpoints.save()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    model.optimizer.iterations.assign(2)
    (tmp_path / "ckpt-2.index").mkdir()  # what TensorFlow cannot give its file the name of
    (tmp_path / "ckpt-2.index" / "full").touch()
    checkpoints.updates = lambda: [0]
    with pytest.raises(OSError) as error:
        checkpoints.save()
    assert error.value.errno in (errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST) and "ckpt-2" in str(error.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_checkpoint_of_another_network_is_refused(tmp_path, model):
    checkpoints_of(model, tmp_path).save()
    other = pt.AdversarialTraining(
        keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]),
        attack=pt.attacks.pgd(epsilon=0.1, step_size=0.05, num_steps=1),
    )
    other.compile(optimizer="adam")
    other.optimizer.build(other.trainable_variables)
    with pytest.raises((ValueError, AssertionError)):
        checkpoints_of(other, tmp_path).restore()


# ---------------------------------------------------------------- signals


def send(number):
    return lambda: os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    "content", [b"\xff", b"a,b\n1,2\n", b"updates\nmany\n", b'updates\n"2\n', b"x,updates\n1\n", None]
)
def test_a_damaged_history_is_told(tmp_path, content):
    path = tmp_path / "history.csv"
    os.mkfifo(path) if content is None else path.write_bytes(content)
    with pytest.raises(ValueError, match="history.csv' is damaged: .* --overwrite starts over"):
        tracking.History(path, 100, tracking.Clock())


@pytest.mark.parametrize("number, exit_code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_training_after_the_round_with_a_checkpoint(tmp_path, model, fit, number, exit_code):
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    stop = tracking.StopOnSignal(checkpoints_of(model, tmp_path, 3600))
    with pytest.raises(InterruptedRun, match="the checkpoint is kept; --resume goes on") as interrupted:
        with stop.listening():
            fit(model, At(send(number), batch=0), stop)
    assert interrupted.value.exit_code == exit_code
    assert int(model.optimizer.iterations) == 2  # one round of 1/1: the signal came during the first
    assert names_of_checkpoints(tmp_path) == ["ckpt-2"]
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_a_signal_in_the_last_round_of_a_pass_leaves_the_row_of_the_pass(tmp_path, model, fit):
    checkpoints = checkpoints_of(model, tmp_path / "kept", 3600)
    stop = tracking.StopOnSignal(checkpoints)
    with pytest.raises(InterruptedRun), stop.listening():
        fit(model, history_of(tmp_path / "history.csv"), At(send(signal.SIGTERM), batch=1), checkpoints, stop)
    assert [row["updates"] for row in rows_of(tmp_path / "history.csv")] == ["4"] and checkpoints.updates() == [4]


def test_a_second_signal_ends_training_at_once(tmp_path, model, fit):
    stop = tracking.StopOnSignal(checkpoints_of(model, tmp_path, 3600))
    twice = At(lambda: [send(signal.SIGINT)() for _ in range(2)], batch=0)
    with pytest.raises(KeyboardInterrupt):
        with stop.listening():
            fit(model, twice, stop)
    assert names_of_checkpoints(tmp_path) == []


def test_a_signal_after_the_last_round_is_not_forgotten(tmp_path, model, fit):
    stop = tracking.StopOnSignal(checkpoints_of(model, tmp_path, 3600))
    with stop.listening():
        fit(model, stop, At(send(signal.SIGTERM)), epochs=1)
    with pytest.raises(InterruptedRun) as interrupted:
        stop.end_if_told()
    assert interrupted.value.exit_code == 143
    assert names_of_checkpoints(tmp_path) == ["ckpt-4"]


def test_without_a_signal_training_ends_by_itself(tmp_path, model, fit):
    stop = tracking.StopOnSignal(checkpoints_of(model, tmp_path, 3600))
    with stop.listening():
        fit(model, stop)
    stop.end_if_told()
    assert int(model.optimizer.iterations) == 12


# ---------------------------------------------------------------- divergence


class SetAt(At):
    """Writes a value into a weight after one round."""

    def __init__(self, value, batch):
        super().__init__(lambda: self.model.network.weights[0].assign_add(np.full((16, 12), value)), batch)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_end_training_at_their_round_and_are_never_kept(value, tmp_path, model, fit):
    checkpoints = checkpoints_of(model, tmp_path)
    with pytest.raises(tracking.Diverged, match="the weights are not finite"):
        fit(model, SetAt(value, batch=1), tracking.StopOnDivergence(model.network), checkpoints)
    assert int(model.optimizer.iterations) == 4 and checkpoints.updates() == [2]  # of the round before


@pytest.mark.parametrize("loss", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_not_finite_ends_training(loss, model):
    guard = tracking.StopOnDivergence(model.network)
    guard.on_train_batch_end(0, {"loss": tf.constant(1.0)})
    with pytest.raises(tracking.Diverged, match=f"the loss is {loss}"):
        guard.on_train_batch_end(0, {"loss": tf.constant(loss)})


# ---------------------------------------------------------------- progress


def test_the_bar_counts_updates_from_where_training_goes_on_to_the_end(capsys, model, fit):
    bar = tracking.ProgressBar(total=16, done=4, per_round=2)
    assert bar.bar.n == 4
    fit(model, bar)  # 6 rounds
    assert (bar.bar.n, bar.bar.total) == (16, 16)
    bar.close()
    last = capsys.readouterr().err.replace("\r", "\n").strip().splitlines()[-1]
    assert "training: 100%" in last and "16/16" in last and "adversarial_loss=" in last
