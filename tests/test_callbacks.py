"""What the callbacks put into the logs, beside direct measurements of the network at that epoch."""

import csv

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import dense_network, linear_network

import pineat_tf as pt
from pineat_tf.callbacks import LeakageMonitor, LossTraces, RobustCheckpoint, RobustValidation
from pineat_tf.companions import NaturalCompanions

PGD = pt.attacks.pgd(epsilon=0.1, step_size=0.05, num_steps=2)


def trainer(network, learning_rate=0.5):
    model = pt.AdversarialTraining(network, attack=PGD)
    model.compile(keras.optimizers.SGD(learning_rate), run_eagerly=True)  # what is measured is compiled in any case
    return model


def plain(network, learning_rate=0.5):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.SGD(learning_rate), loss)
    return network


def fit(model, images, labels, *callbacks, epochs=1, **options):
    return model.fit(
        images, labels, batch_size=4, epochs=epochs, shuffle=False, callbacks=list(callbacks), verbose=0, **options
    ).history


class Measured(keras.callbacks.Callback):
    """Calls `measure()` after each epoch and keeps what it gives."""

    def __init__(self, measure):
        super().__init__()
        self.measure, self.kept = measure, []

    def on_epoch_end(self, epoch, logs=None):
        self.kept.append(self.measure())


class TestRobustValidation:
    @pytest.mark.parametrize("kind", [trainer, plain])
    def test_logs_what_predictions_say(self, kind, network, images, labels):
        def measure():
            natural, robust = (
                pt.predict_logits(network, (images, labels), attack=attack, seed=7) for attack in (None, PGD)
            )
            return natural.accuracy, robust.accuracy

        validation, direct = RobustValidation((images, labels), PGD, seed=7), Measured(measure)
        history = fit(kind(network), images, labels[::-1], validation, direct, epochs=3)
        assert [*zip(history["val_natural_accuracy"], history["val_robust_accuracy"])] == direct.kept
        assert len(set(direct.kept)) > 1

    def test_by_hand(self):
        # Logits (x, -x) of one pixel: class 0 iff x > 0, and an attack of radius 0.1 turns what lies within. Of the
        # pixels 0.05, 0.3, -0.2, 0.2 of class 0 three are right and two stay so.
        attack = pt.attacks.pgd(epsilon=0.1, step_size=0.1, num_steps=1, random_start=False, bounds=None)
        data = np.float32([[0.05], [0.3], [-0.2], [0.2]]), np.zeros(4, int)
        model = pt.AdversarialTraining(linear_network([[1, -1]], [0, 0]), attack=attack)
        model.compile(keras.optimizers.SGD(0.0))
        history = fit(model, *data, RobustValidation(data, attack))
        assert (history["val_natural_accuracy"], history["val_robust_accuracy"]) == ([0.75], [0.5])

    def test_takes_the_first_examples(self, network, images, labels):
        guessed = network(images).numpy().argmax(axis=1)
        wrong = np.where(np.arange(8) < 5, guessed, (guessed + 1) % 3)  # the first five are right
        data = tf.data.Dataset.from_tensor_slices((images, wrong)).batch(3)
        for num, accuracy in ((5, 1.0), (None, 5 / 8)):
            model = trainer(network, learning_rate=0.0)
            history = fit(model, images, labels, RobustValidation(data, PGD, max_examples=num))
            assert history["val_natural_accuracy"] == [accuracy]

    def test_measures_after_the_first_epoch_and_every_kth_compiled_once(self, network, images, labels, tmp_path):
        traces, log = [], keras.callbacks.CSVLogger(tmp_path / "log.csv")

        def attack(*args, **options):
            traces.append(1)
            return PGD(*args, **options)

        validation = RobustValidation((images, labels), attack, every=3, batch_size=3)
        model = trainer(network)
        fit(model, images, labels, validation, log, epochs=6)
        rows = list(csv.DictReader(open(tmp_path / "log.csv", newline="")))
        measured = [int(row["epoch"]) for row in rows if row["val_robust_accuracy"] != "NA"]
        assert measured == [0, 2, 5] and len(rows) == 6
        fit(model, images, labels, validation)
        assert len(traces) == 1

    def test_early_stopping_sees_it(self, network, images, labels):
        # Nothing is learnt at rate 0, so no epoch improves on the first: patience 2 stops after the third.
        stop = keras.callbacks.EarlyStopping("val_robust_accuracy", mode="max", patience=2)
        history = fit(trainer(network, 0.0), images, labels, RobustValidation((images, labels), PGD), stop, epochs=9)
        assert len(history["val_robust_accuracy"]) == 3


class TestRobustCheckpoint:
    def test_keeps_the_best_network_for_plain_keras(self, network, images, tmp_path):
        # The network that the labels are from, in the second of three epochs; before and after one that knows nothing.
        weights, guessed = network.get_weights(), network(images).numpy().argmax(axis=1)

        class Swap(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                network.set_weights([array * (epoch == 1) for array in weights])

        attack = pt.attacks.pgd(epsilon=1e-4, step_size=1e-4, num_steps=1)
        direct = Measured(lambda: pt.predict_logits(network, (images, guessed), attack=attack).accuracy)
        checkpoint = RobustCheckpoint(tmp_path / "made" / "best.keras", (images, guessed), attack)
        history = fit(trainer(network, 0.0), images, guessed, Swap(), checkpoint, direct, epochs=3)
        assert history["val_robust_accuracy"] == direct.kept == [np.mean(guessed == 0), 1.0, np.mean(guessed == 0)]
        assert (checkpoint.best, checkpoint.best_epoch) == (1.0, 1)
        loaded = keras.models.load_model(tmp_path / "made" / "best.keras")
        for got, wanted in zip(loaded.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(got, wanted)
        assert [path.name for path in (tmp_path / "made").iterdir()] == ["best.keras"]

    def test_an_earlier_file_stays_until_a_better_one_is_whole(self, network, images, labels, tmp_path):
        path = tmp_path / "best.keras"
        path.write_bytes(b"earlier")
        unbeaten = RobustCheckpoint(path, (images, labels), PGD, initial_best=1.0)
        fit(trainer(network), images, labels, unbeaten)
        assert path.read_bytes() == b"earlier" and (unbeaten.best, unbeaten.best_epoch) == (1.0, None)

        class Unsaveable(keras.layers.Layer):
            def call(self, inputs):
                return inputs

            def save_own_variables(self, store):
                raise OSError("No space left on device")

        network = keras.Sequential([*network.layers, Unsaveable(), keras.layers.Dense(3)])
        with pytest.raises(OSError, match="No space left"):
            fit(trainer(network), images, labels, RobustCheckpoint(path, (images, labels), PGD))
        assert path.read_bytes() == b"earlier" and [item.name for item in tmp_path.iterdir()] == ["best.keras"]


class TestLeakageMonitor:
    def test_logs_what_the_audit_says(self, network, images, labels):
        members, non_members = (images[:5], labels[:5]), (images[5:], labels[5:])

        def measure():
            figures = []
            for attack in (None, PGD):
                predictions = [pt.predict_logits(network, data, attack=attack) for data in (members, non_members)]
                (result,) = pt.membership.audit_predictions(*predictions, queries="natural", signals=("cross_entropy",))
                figures.append(result.balanced_accuracy)
            return tuple(figures)

        direct = Measured(measure)
        history = fit(trainer(network), *members, LeakageMonitor(members, non_members, PGD), direct, epochs=3)
        # Of 5 members and 3 non-members N = 15/8: (1 + sqrt(ln 20 / (2 N))) / 2 = 0.946895.
        np.testing.assert_allclose(history["membership_noise_floor"], [0.946895] * 3, atol=1e-6)
        names = "membership_accuracy", "membership_accuracy_adversarial"
        assert [*zip(*(history[name] for name in names))] == direct.kept

    def test_by_hand(self):
        # Logits (x, -x), class 0: the larger the pixel, the smaller the loss. Members 0.9, 0.8, 0.1, others 0.5, 0.2:
        # the threshold between 0.8 and 0.5 accepts 2 of 3 members and no other: (2/3 + 1) / 2 = 5/6. The first two
        # members and others alone: (1 + 1) / 2 = 1.
        members, others = np.float32([[0.9], [0.8], [0.1]]), np.float32([[0.5], [0.2]])
        for num, accuracy in ((None, 5 / 6), (2, 1.0)):
            model = pt.AdversarialTraining(
                linear_network([[1, -1]], [0, 0]), attack=None, companions=NaturalCompanions(), ratio="0/1"
            )
            model.compile(keras.optimizers.SGD(0.0))
            monitor = LeakageMonitor((members, np.zeros(3, int)), (others, np.zeros(2, int)), max_examples=num)
            history = fit(model, members, np.zeros(3, int), monitor)
            np.testing.assert_allclose(history["membership_accuracy"], [accuracy])
            assert "membership_accuracy_adversarial" not in history


def test_a_diverged_network_is_not_a_number_and_never_the_best(network, images, labels, tmp_path):
    checkpoint = RobustCheckpoint(tmp_path / "best.keras", (images, labels), PGD)
    monitor = LeakageMonitor((images[:4], labels[:4]), (images[4:], labels[4:]))
    history = fit(trainer(network, 1e38), images, labels, checkpoint, monitor)
    for name in ("val_robust_accuracy", "val_natural_accuracy", "membership_accuracy"):
        assert np.isnan(history[name]).all(), name
    assert (checkpoint.best, checkpoint.best_epoch) == (None, None) and not list(tmp_path.iterdir())


DATA = np.zeros((4, 2), np.float32), np.zeros(4, int)


@pytest.mark.parametrize(
    "make, match",
    [
        (lambda: RobustValidation(DATA, None), "must be one attack.*None.*pgd"),
        (lambda: RobustValidation(DATA, PGD, every=0), "`every` must be a whole number >= 1.*every=0"),
        (lambda: RobustValidation(DATA, PGD, max_examples=0), "`max_examples` must be"),
        (lambda: RobustValidation(DATA, PGD, batch_size=0.5), "`batch_size` must be"),
        (lambda: RobustValidation(DATA, PGD, seed="x"), "`seed` must be"),
        (lambda: RobustValidation(DATA[0], PGD), "`data` must be two arrays.*ndarray"),
        (lambda: RobustValidation((DATA[0], DATA[1][:3]), PGD), r"`data` must be two arrays.*\(4, 2\), \(3,\)"),
        (lambda: RobustCheckpoint("best.h5", DATA, PGD), r"must end in '\.keras'.*best\.h5"),
        (lambda: LeakageMonitor(DATA, (DATA[0][:0], DATA[1][:0])), "`non_members` must be two arrays"),
        (lambda: LeakageMonitor(DATA, DATA, "pgd"), "`attack` must be one attack.*'pgd'"),
    ],
)
def test_bad_arguments_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_loss_traces_are_the_losses_after_each_epoch(network, images, labels):
    model, seen = trainer(network), []
    direct = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(
            np.asarray(pt.losses.cross_entropy(tf.constant(labels), network(images, training=False)))
        )
    )
    traces = LossTraces((images, labels))
    risks = []
    for num in range(2):
        with pytest.raises(ValueError, match=f"two epochs or more. Received: losses of {num}, with every=1"):
            traces.risk()
        risks += fit(model, images, labels, traces, direct, epochs=1 + 2 * num)["example_risk"]
    assert np.isnan(risks).tolist() == [True, False, False, False]
    np.testing.assert_allclose(traces.losses, seen, atol=1e-5)
    spread = np.subtract(*np.quantile(np.stack(seen), (0.75, 0.25), axis=0))
    np.testing.assert_allclose(traces.risk(), spread, atol=1e-5)
    assert risks[-1] == pytest.approx(spread.mean(), abs=1e-5)


def test_traces_are_of_examples_in_one_order_and_of_one_network(images, labels):
    shuffled = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(8, seed=1).batch(4)
    with pytest.raises(ValueError, match="same order at each pass.*not shuffled"):
        fit(plain(dense_network()), images, labels, LossTraces(shuffled), epochs=9)
    traces = LossTraces((images, labels))
    for _ in range(2):
        fit(plain(dense_network()), images, labels, traces, epochs=3)
        assert len(traces.losses) == 3
