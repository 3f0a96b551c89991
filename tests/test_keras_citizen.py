"""The trainer is a Keras model like any other: every form of data, option of `fit`, callback, network and optimizer."""

import csv

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import NUM_CLASSES, SHAPE, dense_network, linear_network

import pineat_tf as pt
from pineat_tf.companions import NaturalCompanions, ReverseSymmetry

EPSILON = 0.1
PGD = pt.attacks.pgd(epsilon=EPSILON, step_size=0.05, num_steps=2, random_start=False)
PINEAT = {"attack": PGD, "companions": ReverseSymmetry(epsilon=EPSILON), "ratio": "1/1"}
NATURAL = {"attack": None, "companions": NaturalCompanions(), "ratio": "0/1"}


def trainer(network, optimizer=None, options=PINEAT, **compile_options):
    model = pt.AdversarialTraining(network, **options)
    model.compile(optimizer or keras.optimizers.SGD(0.5), **compile_options)
    return model


def fit(model, *data, **options):
    options = {"batch_size": 3, "shuffle": False, "verbose": 0, **options}
    return model.fit(*data, **options)


def weights(model):
    return [np.array(variable) for variable in model.network.weights]


def assert_same(got, wanted, tolerance=0.0):
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)


class WeightsByEpoch(keras.callbacks.Callback):
    """Keeps the weights after each epoch, and may raise at the start of one."""

    def __init__(self, interrupt_at=None):
        super().__init__()
        self.kept, self.interrupt_at = [], interrupt_at

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.interrupt_at:
            raise RuntimeError("interrupted")

    def on_epoch_end(self, epoch, logs=None):
        self.kept.append(weights(self.model))


class Batches(keras.utils.PyDataset):
    """Three batches of 8 images."""

    def __init__(self, images, labels):
        super().__init__()
        self.images, self.labels = images, labels

    def __len__(self):
        return 3

    def __getitem__(self, index):
        rows = slice(3 * index, 3 * index + 3)
        return self.images[rows], self.labels[rows]


class TestData:
    def test_forms_train_as_arrays_do(self, network, images, labels):
        initial, batches = network.get_weights(), Batches(images, labels)
        model = trainer(network)
        fit(model, images, labels)
        wanted = weights(model)
        dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(3)
        for data in (dataset, (batches[index] for index in range(3)), batches):
            network.set_weights(initial)
            again = trainer(network)
            fit(again, data, batch_size=None)
            assert int(again.optimizer.iterations) == 3 * 2
            assert_same(weights(again), wanted, 1e-6)

    def test_validation_split_holds_the_last_images_out(self, network, images, labels):
        initial = network.get_weights()
        history = fit(trainer(network), images, labels, validation_split=0.25).history
        got, val_loss = weights(trainer(network)), history["val_loss"][0]
        np.testing.assert_allclose(val_loss, trainer(network).evaluate(images[6:], labels[6:], verbose=0), rtol=1e-6)
        network.set_weights(initial)
        model = trainer(network)
        fit(model, images[:6], labels[:6], validation_data=(images[6:], labels[6:]))
        assert_same(weights(model), got)
        assert model.history.history["val_loss"] == [val_loss]

    @pytest.mark.parametrize("weighing", [{"sample_weight": np.array([2.0, 0.0])}, {"class_weight": {0: 2.0, 1: 0.0}}])
    def test_weights_of_samples_and_classes(self, weighing):
        # Pixels 0.5 and 0.3 of classes 0 and 1, W = [[1, -1]], b = 0, learning rate 1. Weights 2 and 0 leave, in the
        # mean over two examples, the gradient of the first: p_1 = 1 / (1 + e) = 0.268941, to W [-0.5 p_1, 0.5 p_1],
        # to b [-p_1, p_1]. Hence W = [[1.134471, -1.134471]], b = [0.268941, -0.268941].
        model = trainer(linear_network([[1, -1]], [0, 0]), keras.optimizers.SGD(1.0), NATURAL)
        fit(model, np.float32([[0.5], [0.3]]), np.array([0, 1]), **weighing)
        assert_same(weights(model), [[[1.134471, -1.134471]], [0.268941, -0.268941]], 1e-6)

    def test_sparse_and_one_hot_labels(self, network, images, labels):
        initial, trained = network.get_weights(), []
        for form in (labels, np.eye(NUM_CLASSES, dtype=np.float32)[labels]):
            network.set_weights(initial)
            model = trainer(network)
            fit(model, images, form, class_weight={0: 2.0, 1: 1.0, 2: 0.5})
            trained.append(weights(model))
        assert_same(*trained, 1e-6)


class TestOptions:
    def test_initial_epoch(self, network, images, labels):
        model = trainer(network)
        assert fit(model, images, labels, epochs=3, initial_epoch=1).epoch == [1, 2]
        assert int(model.optimizer.iterations) == 2 * 3 * 2

    @pytest.mark.parametrize("option", [{"steps_per_execution": 2}, {"run_eagerly": True}], ids=str)
    def test_ways_of_running_give_the_same_weights(self, option, network, images, labels):
        initial, trained, losses = network.get_weights(), [], []
        for options in ({}, option):
            network.set_weights(initial)
            model = trainer(network, **options)
            losses += fit(model, images, labels, epochs=2).history["loss"]
            trained.append(weights(model))
        assert_same(*trained, 1e-6)
        np.testing.assert_allclose(losses[:2], losses[2:], rtol=1e-5)


class TestCallbacks:
    """Eagerly, as what a callback sees does not depend on it."""

    def test_model_checkpoint_keeps_the_best_trainer(self, network, images, labels, tmp_path):
        checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", "val_loss", save_best_only=True)
        rates = keras.callbacks.LearningRateScheduler(lambda epoch: [0.1, 100.0][epoch])  # the second epoch spoils all
        options = {"epochs": 2, "validation_data": (images, labels), "callbacks": [rates, checkpoint]}
        good, bad = fit(trainer(network, run_eagerly=True), images, labels, **options).history["val_loss"]
        assert good < bad
        best = keras.models.load_model(tmp_path / "best.keras")
        np.testing.assert_allclose(best.evaluate(images, labels, verbose=0), good, rtol=1e-6)

    def test_model_checkpoint_keeps_weights(self, network, images, labels, tmp_path):
        checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.weights.h5", save_weights_only=True)
        kept, model = WeightsByEpoch(), trainer(network, run_eagerly=True)
        fit(model, images, labels, epochs=2, callbacks=[checkpoint, kept])
        for epoch in (1, 2):
            model.load_weights(tmp_path / f"{epoch}.weights.h5")
            assert_same(weights(model), kept.kept[epoch - 1])
            assert int(model.optimizer.iterations) == epoch * 3 * 2

    def test_backup_and_restore_ends_where_an_uninterrupted_run_does(self, images, labels, tmp_path):
        def run(*callbacks):
            keras.utils.set_random_seed(3)  # a restarted process builds the same network
            network = keras.Sequential([*dense_network().layers[:-1], keras.layers.Dropout(0.5), keras.layers.Dense(3)])
            network.build((None, *SHAPE))
            attack = pt.attacks.pgd(epsilon=EPSILON, step_size=0.05, num_steps=2)
            model = trainer(network, keras.optimizers.Adam(0.05), {**PINEAT, "attack": attack})
            fit(model, images, labels, epochs=4, callbacks=callbacks)
            return weights(model)

        whole, backup = run(), tmp_path / "backup"
        with pytest.raises(RuntimeError, match="interrupted"):
            run(keras.callbacks.BackupAndRestore(backup), WeightsByEpoch(interrupt_at=2))
        rest = WeightsByEpoch()
        assert_same(run(keras.callbacks.BackupAndRestore(backup), rest), whole)
        assert len(rest.kept) == 2

    def test_early_stopping_restores_the_best_weights(self, network, images, labels):
        kept, model = WeightsByEpoch(), trainer(network, keras.optimizers.SGD(20.0, momentum=0.9), run_eagerly=True)
        stop = keras.callbacks.EarlyStopping("val_loss", patience=2, restore_best_weights=True)
        history = fit(
            model, images, labels, epochs=20, validation_data=(images, labels[::-1]), callbacks=[kept, stop]
        ).history
        best = int(np.argmin(history["val_loss"]))
        assert len(history["loss"]) == best + 3 < 20
        assert_same(weights(model), kept.kept[best])

    def test_reduce_learning_rate_on_plateau(self, network, images, labels):
        # No epoch improves by 10, so each after the first halves the rate: 0.5 -> 0.125 in three epochs.
        reduce = keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=10.0)
        model = trainer(network, run_eagerly=True)
        fit(model, images, labels, epochs=3, callbacks=[reduce])
        assert float(model.optimizer.learning_rate) == 0.125

    def test_learning_rate_scheduler(self):
        # One pixel, natural, as above; the first epoch at rate 1, the second at 0: the weights of one update.
        schedule = keras.callbacks.LearningRateScheduler(lambda epoch: [1.0, 0.0][epoch])
        model = trainer(linear_network([[1, -1]], [0, 0]), options=NATURAL)
        fit(model, np.float32([[0.5]]), np.array([0]), epochs=2, callbacks=[schedule])
        assert_same(weights(model), [[[1.134471, -1.134471]], [0.268941, -0.268941]], 1e-6)

    def test_csv_logger(self, network, images, labels, tmp_path):
        log = keras.callbacks.CSVLogger(tmp_path / "log.csv")
        model = trainer(network, metrics=["accuracy"], run_eagerly=True)
        history = fit(model, images, labels, epochs=2, validation_data=(images, labels), callbacks=[log]).history
        rows = list(csv.DictReader(open(tmp_path / "log.csv", newline="")))
        assert set(rows[0]) == {"epoch", *history} and {"adversarial_loss", "companion_loss"} < set(history)
        for name, values in history.items():
            np.testing.assert_allclose([float(row[name]) for row in rows], values, rtol=1e-6)

    def test_tensorboard(self, network, images, labels, tmp_path):
        board = keras.callbacks.TensorBoard(tmp_path, histogram_freq=1)
        history = fit(
            trainer(network, run_eagerly=True), images, labels, validation_data=(images, labels), callbacks=[board]
        ).history
        seen = {}
        for path in tmp_path.rglob("*.tfevents*"):
            for event in tf.compat.v1.train.summary_iterator(str(path)):
                seen |= {
                    (path.parent.name, value.tag): float(tf.make_ndarray(value.tensor))
                    for value in event.summary.value
                    if value.tag.startswith("epoch_")
                }
        for key, name in {
            ("train", "epoch_companion_loss"): "companion_loss",
            ("validation", "epoch_loss"): "val_loss",
        }.items():
            np.testing.assert_allclose(seen[key], history[name][0], rtol=1e-6)

    def test_terminate_on_nan(self, network, images, labels):
        model = trainer(network, keras.optimizers.SGD(1e38), run_eagerly=True)
        history = fit(model, images, labels, epochs=5, callbacks=[keras.callbacks.TerminateOnNaN()])
        assert history.epoch == [0] and int(model.optimizer.iterations) <= 3 * 2

    @pytest.mark.parametrize("swap", [True, False])
    def test_swap_ema_weights_validates_the_average(self, swap, images, labels):
        # Two natural updates with momentum 1/2: the average is (w_1 + w_2) / 2, which `fit` leaves in the network.
        optimizer = keras.optimizers.SGD(1.0, use_ema=True, ema_momentum=0.5)
        model = trainer(linear_network([[1, -1]], [0, 0]), optimizer, {**NATURAL, "ratio": "0/2"})
        x, y = np.float32([[0.5]]), np.array([0])
        callbacks = [keras.callbacks.SwapEMAWeights()] if swap else []
        history = fit(model, x, y, validation_data=(x, y), callbacks=callbacks).history
        w_1, b_1 = update(1.0, 0.0)
        w_2, b_2 = update(w_1, b_1)
        average = (w_1 + w_2) / 2, (b_1 + b_2) / 2
        assert_same([weights(model)[0][0, 0], weights(model)[1][0]], average, 1e-6)
        w, b = average if swap else (w_2, b_2)
        np.testing.assert_allclose(history["val_loss"], np.log1p(np.exp(-2 * (0.5 * w + b))), rtol=1e-5)


def update(w, b, rate=1.0):
    """One natural update of W = [[w, -w]], b = [b, -b] by the pixel 0.5 of class 0: p_1 = s(-2 (0.5 w + b))."""
    p_1 = 1 / (1 + np.exp(2 * (0.5 * w + b)))
    return w + rate * 0.5 * p_1, b + rate * p_1


class Probe(keras.layers.Layer):
    """Passes images on and keeps whether each call was a training one."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def call(self, inputs, training=None):
        self.calls.append(training)
        return inputs


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.parts = dense_network("tanh").layers

    def call(self, inputs, training=None):
        for part in self.parts:
            inputs = part(inputs)
        return inputs


def functional_network():
    inputs = keras.Input(SHAPE)
    hidden = keras.layers.Dense(12, activation="tanh")(keras.layers.Flatten()(inputs))
    return keras.Model(inputs, keras.layers.Dense(NUM_CLASSES)(hidden))


class TestNetworks:
    def test_kinds_of_networks_train_alike(self, network, images, labels):
        kinds = [network, functional_network(), Subclassed()]
        kinds[2].build((None, *SHAPE))
        trained = []
        for kind in kinds:
            kind.set_weights(kinds[0].get_weights() if kind is not network else network.get_weights())
        initial = network.get_weights()
        for kind in kinds:
            kind.set_weights(initial)
            model = trainer(kind)
            fit(model, images, labels)
            trained.append(weights(model))
        assert_same(trained[1], trained[0], 1e-6)
        assert_same(trained[2], trained[0], 1e-6)

    def test_attacks_see_inference_and_updates_see_training(self, images, labels):
        # What dropout and batch norm go by. A round of 1/1: 2 attack steps, an update, the companion's update.
        probe = Probe()
        network = keras.Sequential([keras.Input(SHAPE), probe, *dense_network().layers])
        model = trainer(network, run_eagerly=True)
        # Cleared after all looks at the network.
        begin = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: probe.calls.clear())
        fit(model, images, labels, batch_size=8, callbacks=[begin])
        assert probe.calls == [False, False, True, True]

    def test_batch_statistics_move_by_each_update(self, images, labels):
        # Natural images twice: with momentum 1/2 from 0, the moving mean is (1 - 1/4) of the batch's mean.
        norm = keras.layers.BatchNormalization(momentum=0.5)
        network = keras.Sequential([keras.Input(SHAPE), norm, keras.layers.Flatten(), keras.layers.Dense(NUM_CLASSES)])
        model = trainer(network, options={**NATURAL, "ratio": "0/2"})
        fit(model, images, labels, batch_size=8)
        np.testing.assert_allclose(norm.moving_mean, [0.75 * images.mean()], rtol=1e-5)

    def test_rescaling_inside_the_network(self, network, images, labels):
        # Pixels, bounds and radii on the scale of 0 to 255, and 1/255 in the network, are those of 0 to 1.
        initial = network.get_weights()
        model = trainer(network)
        fit(model, images, labels)
        wanted = weights(model)
        network.set_weights(initial)
        inputs = keras.Input(SHAPE)
        scaled = keras.Model(inputs, network(keras.layers.Rescaling(1 / 255)(inputs)))
        bounds = (0.0, 255.0)
        attack = pt.attacks.pgd(epsilon=25.5, step_size=12.75, num_steps=2, random_start=False, bounds=bounds)
        options = {"attack": attack, "companions": ReverseSymmetry(epsilon=25.5), "ratio": "1/1"}
        model = trainer(scaled, options=options)
        fit(model, images * 255, labels)
        assert_same(weights(model), wanted, 1e-5)

    def test_random_flips_inside_the_network(self, network, images, labels):
        # They show in updates, where they make a difference, and not to the attack. Images that are their own mirror
        # image train as without flips.
        flips = keras.Sequential([keras.Input(SHAPE), keras.layers.RandomFlip("horizontal", seed=0), *network.layers])
        initial = network.get_weights()
        x_adv = PGD(lambda x: flips(x, training=False), images, labels)
        assert_same([x_adv], [PGD(network, images, labels)])
        differences = []
        for x in (images, np.maximum(images, images[:, :, ::-1])):
            trained = []
            for either in (flips, network):
                network.set_weights(initial)
                model = trainer(either, options=NATURAL)
                fit(model, x, labels)
                trained.append(network.get_weights())
            differences.append(max(np.abs(one - other).max() for one, other in zip(*trained)))
        assert differences[0] > 1e-3 and differences[1] < 1e-6

    @pytest.mark.parametrize("kind", ["softmax", "Softmax layer", "nested"])
    def test_a_softmax_is_refused_and_the_ways_to_mend_it_work(self, kind, images, labels):
        head = {"softmax": [keras.layers.Dense(NUM_CLASSES, activation="softmax")]}.get(kind)
        head = head or [keras.layers.Dense(NUM_CLASSES), keras.layers.Softmax()]
        head = [keras.Sequential(head)] if kind == "nested" else head
        network = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), *head])
        probs = network.predict(images, verbose=0)
        with pytest.raises(ValueError, match=r"must give logits(.|\n)*activation = (.|\n)*keras.Model\("):
            trainer(network)
        if kind == "nested":
            return
        if kind == "Softmax layer":
            network = keras.Model(network.inputs[0], network.layers[-2].output)
        else:
            network.layers[-1].activation = keras.activations.linear
        np.testing.assert_allclose(keras.ops.softmax(network(images)), probs, atol=1e-6)
        fit(trainer(network), images, labels)

    def test_frozen_layers_stay_frozen(self, network, images, labels):
        network.layers[1].trainable = False
        before = network.get_weights()
        model = trainer(network, keras.optimizers.AdamW(0.1, weight_decay=0.1))
        fit(model, images, labels)
        after = network.get_weights()
        assert_same(after[:2], before[:2])
        assert all((one != other).all() for one, other in zip(after[2:], before[2:]))


class TestOptimizers:
    # One pixel, natural, W = [[1, -1]], b = 0, rate 1: the gradients are g = (0.134471, 0.268941) to w and b, with
    # either sign. Clipped by value at 0.1, both are 0.1. By norm: W's has the norm g_w sqrt(2) and becomes 0.1, so
    # that each entry is 0.1 / sqrt(2), as is each of b. By global norm: sqrt(2) sqrt(g_w^2 + g_b^2) becomes 0.1, and
    # g_b = 2 g_w, so w moves by 0.1 / sqrt(10), b by twice that. Two updates that accumulate move once, by their mean.
    @pytest.mark.parametrize(
        "options, moved",
        [
            ({"clipvalue": 0.1}, (0.1, 0.1)),
            ({"clipnorm": 0.1}, (0.1 / 2**0.5, 0.1 / 2**0.5)),
            ({"global_clipnorm": 0.1}, (0.1 / 10**0.5, 0.2 / 10**0.5)),
            ({"gradient_accumulation_steps": 2}, (0.134471, 0.268941)),
        ],
        ids=str,
    )
    def test_clipping_and_accumulation(self, options, moved):
        ratio = "0/2" if "gradient_accumulation_steps" in options else "0/1"
        optimizer = keras.optimizers.SGD(1.0, **options)
        model = trainer(linear_network([[1, -1]], [0, 0]), optimizer, {**NATURAL, "ratio": ratio})
        fit(model, np.float32([[0.5]]), np.array([0]))
        w, b = moved
        assert_same(weights(model), [[[1 + w, -1 - w]], [b, -b]], 1e-6)

    def test_a_changing_loss_scale_does_not_change_the_weights(self, network, images, labels):
        # The scale doubles every two updates, a power of two: the same weights but for rounding.
        initial, trained = network.get_weights(), []
        scaling = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.5), 4.0, dynamic_growth_steps=2)
        for optimizer in (keras.optimizers.SGD(0.5), scaling):
            network.set_weights(initial)
            model = trainer(network, optimizer)
            fit(model, images, labels)
            trained.append(weights(model))
        assert float(scaling.dynamic_scale) == 4.0 * 2**3
        assert_same(*trained, 1e-6)

    def test_float16_scales_the_loss_by_itself(self, network, images, labels):
        half = network_of_precision("mixed_float16", network)
        model = trainer(half)
        assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        fit(model, images, labels, epochs=12)  # the first scale, 2^15, may overflow: such updates are skipped
        assert int(model.optimizer.iterations) > 0
        for got, initial in zip(weights(model), network.get_weights()):
            assert got.dtype == np.float32 and np.isfinite(got).all() and (got != initial).any()

    def test_bfloat16_keeps_iterates_losses_and_weights_in_float32(self, network, images, labels):
        seen = {}

        def attack(logits_fn, x, y, *, seed):
            x_adv = PGD(logits_fn, x, y, seed=seed)
            seen.update(image=x.dtype, iterate=x_adv.dtype, logits=logits_fn(x).dtype)
            return x_adv

        class Objective(pt.objectives.CrossEntropy):
            def __call__(self, logits_fn, x_nat, x, y):
                losses, logits = super().__call__(logits_fn, x_nat, x, y)
                seen.update(loss=losses.dtype, example=x.dtype)
                return losses, logits

        model = trainer(
            network_of_precision("mixed_bfloat16", network),
            options={**PINEAT, "attack": attack, "objective": Objective()},
        )
        fit(model, images, labels)
        assert seen.pop("logits") == tf.bfloat16
        assert set(seen.values()) == {tf.float32} and len(seen) == 4
        assert {array.dtype for array in weights(model)} == {np.dtype(np.float32)}
        half = weights(model)
        whole = trainer(network)
        fit(whole, images, labels)
        assert_same(half, weights(whole), 0.05)

    def test_validation_sees_the_images_as_an_attack_does(self, images):
        # A network of policy bfloat16 whose layers are float32: nothing may round the images before they see them.
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            layers = [keras.layers.Flatten(dtype="float32"), keras.layers.Dense(NUM_CLASSES, dtype="float32")]
            network = keras.Sequential([keras.Input(SHAPE, dtype="float32"), *layers])
        finally:
            keras.config.set_dtype_policy("float32")
        model = trainer(network)
        assert model.compute_dtype == "bfloat16"
        assert_same([model.predict(images, verbose=0)], [network(images)], 1e-6)


def network_of_precision(policy, network):
    """A copy of `network` at another precision, whose images are float32."""
    keras.config.set_dtype_policy(policy)
    try:
        copy = functional_network()
    finally:
        keras.config.set_dtype_policy("float32")
    copy.set_weights(network.get_weights())
    return copy


def test_a_strategy_of_one_replica_trains_to_the_same_weights(images, labels):
    def weights(strategy):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            attack = pt.attacks.pgd(epsilon=0.1, step_size=0.05, num_steps=2)
            companions = pt.companions.ReverseSymmetry()
            model = pt.AdversarialTraining(dense_network(), attack=attack, companions=companions, ratio="1/1", seed=0)
            model.compile(optimizer="adam")
        model.fit(images, labels, batch_size=4, shuffle=False, verbose=0)
        return model.network.get_weights()

    for one, other in zip(weights(tf.distribute.MirroredStrategy(["CPU:0"])), weights(tf.distribute.get_strategy())):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_distributed_dataset_trains_as_a_plain_one(images, labels):
    def weights(distribute):
        keras.utils.set_random_seed(0)
        strategy = tf.distribute.MirroredStrategy(["CPU:0"])
        with strategy.scope():
            attack = pt.attacks.pgd(epsilon=0.1, step_size=0.05, num_steps=2)
            model = pt.AdversarialTraining(dense_network(), attack=attack, seed=0)
            model.compile(optimizer="adam")
        data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(4)
        data = strategy.experimental_distribute_dataset(data) if distribute else data
        model.fit(data, steps_per_epoch=2, verbose=0)
        return model.network.get_weights()

    for one, other in zip(weights(True), weights(False)):
        np.testing.assert_allclose(one, other, atol=1e-6)
