"""The round: weights by hand and by the NumPy twin, and the trainer as a Keras model."""

import keras
import numpy as np
import oracles
import pytest
import tensorflow as tf
from conftest import NUM_CLASSES, dense_network, linear_network

import pineat_tf as pt
from pineat_tf.companions import NaturalCompanions, NoCompanions, RandomCompanions, ReverseSymmetry
from pineat_tf.objectives import CrossEntropy, Trades

EPSILON = 0.1
PGD = pt.attacks.pgd(epsilon=EPSILON, step_size=0.05, num_steps=3)
PGD_NO_START = pt.attacks.pgd(epsilon=EPSILON, step_size=0.05, num_steps=3, random_start=False)
DIST = pt.attacks.dist(coefficient=0.5, num_steps=2, epsilon=EPSILON)
KL = pt.attacks.trades_kl(epsilon=EPSILON, step_size=0.05, num_steps=3)


def trainer(network, learning_rate=0.5, metrics=None, run_eagerly=False, **options):
    model = pt.AdversarialTraining(network, **options)
    model.compile(optimizer=keras.optimizers.SGD(learning_rate), metrics=metrics, run_eagerly=run_eagerly)
    return model


def one_round(model, x, y, **options):
    model.fit(np.float32(x), np.asarray(y), batch_size=len(x), epochs=1, shuffle=False, verbose=0, **options)
    return [np.array(weights) for weights in model.network.get_weights()]


class TestByHand:
    """One pixel x = 0.5, class 0 of 2, W = [[w, -w]], b = 0, learning rate 1.

    The logits of a pixel v are (w v, -w v), so p_1 = s(-2 w v) with the sigmoid s, and the gradients of the
    cross-entropy are: to the pixel -2 w p_1, to W [[-p_1 v, p_1 v]], to b [-p_1, p_1]. With w > 0 the attack lowers
    the pixel. The weights stay of the form [[w, -w]] and b of the form [b, -b], with p_1 = s(-2 (w v + b)).
    """

    X, Y = [[0.5]], [0]

    @staticmethod
    def update(w, b, v):
        p_1 = 1 / (1 + np.exp(2 * (w * v + b)))
        return w + p_1 * v, b + p_1

    def check(self, expected, **options):
        weights, bias = one_round(
            trainer(linear_network([[1, -1]], [0, 0]), learning_rate=1.0, **options), self.X, self.Y
        )
        w, b = expected
        np.testing.assert_allclose(weights, [[w, -w]], atol=1e-6)
        np.testing.assert_allclose(bias, [b, -b], atol=1e-6)

    def test_original_pgd(self):
        # Three steps of 0.05 down from 0.5, stopped by the ball at 0.4.
        # p_1 = 1 / (1 + e^0.8) = 0.310026: w = 1.124010, b = 0.310026.
        np.testing.assert_allclose(self.update(1, 0, 0.4), (1.124010, 0.310026), atol=1e-6)
        self.check((1.124010, 0.310026), attack=PGD_NO_START, ratio="1/0")

    def test_pineat_one_to_one_with_pgd(self):
        # The adversarial pixel 0.4, then its mirror image 0.6 by the weights of the first update:
        # p_1 = 1 / (1 + e^(2 (1.124010 * 0.6 + 0.310026))) = 1 / (1 + e^1.968864) = 0.122511:
        # w = 1.124010 + 0.6 * 0.122511 = 1.197517, b = 0.310026 + 0.122511 = 0.432537.
        w, b = self.update(*self.update(1, 0, 0.4), 0.6)
        np.testing.assert_allclose((w, b), (1.197517, 0.432537), atol=1e-6)
        self.check((w, b), attack=PGD_NO_START, ratio="1/1", companions=ReverseSymmetry(epsilon=EPSILON))

    def test_pineat_two_to_one_clips_the_summed_noise(self):
        # Without random starts (generation by the current weights) both examples are 0.4, their summed noise is
        # -0.2, its mirror image 0.7 is clipped to the ball: 0.6.
        state = (1, 0)
        for v in (0.4, 0.4, 0.6):
            state = self.update(*state, v)
        self.check(
            state,
            attack=PGD_NO_START,
            ratio="2/1",
            companions=ReverseSymmetry(epsilon=EPSILON),
            generation="update",
        )

    def test_companions_first(self):
        # The mirror image 0.6 of the adversarial pixel 0.4, then that pixel itself, as it was generated at the start.
        state = self.update(*self.update(1, 0, 0.6), 0.4)
        assert max(np.abs(np.subtract(state, self.update(*self.update(1, 0, 0.4), 0.6)))) > 1e-3
        companions = ReverseSymmetry(epsilon=EPSILON)
        self.check(state, attack=PGD_NO_START, ratio="1/1", companions=companions, order="companions")

    def test_adv_nat_one_to_one(self):
        self.check(
            self.update(*self.update(1, 0, 0.4), 0.5), attack=PGD_NO_START, ratio="1/1", companions=NaturalCompanions()
        )

    def test_natural_training(self):
        # p_1 = 1 / (1 + e) = 0.268941: w = 1.134471, b = 0.268941.
        self.check((1.134471, 0.268941), attack=None, ratio="0/1", companions=NaturalCompanions())

    def test_original_dist(self):
        # One pixel a batch: |g| is its own mean, so x + g - |g| sign(x + g - x) = x + g + |g| = x for g < 0. The
        # attack of reference [20] does nothing to a batch of one pixel.
        self.check((1.134471, 0.268941), attack=pt.attacks.dist(coefficient=0.5, num_steps=3), ratio="1/0")

    def test_original_diff(self):
        # TRADES with the natural prediction detached, x_adv = 0.4 or 0.6. q = p_1(x), p = p_1(x_adv). The gradient
        # to the logits' difference of KL(q || p) is p - q for class 1: to W (p - q) x_adv [-1, 1] of x_adv's branch;
        # with the cross-entropy at x = 0.5: w += q 0.5 + (p - q) x_adv, b += q + (p - q) = p.
        # KL ascends to either side; from the start's side it keeps going, so x_adv is 0.4 or 0.6 by the seed.
        network = linear_network([[1, -1]], [0, 0])
        x_adv = KL(network, self.X, self.Y, seed=pt.seeds.fold(pt.seeds.fold(0, 0), 0)).numpy().item()
        assert min(abs(x_adv - 0.4), abs(x_adv - 0.6)) < 1e-6
        q, p = (1 / (1 + np.exp(2 * v)) for v in (0.5, x_adv))
        self.check(
            (1 + q * 0.5 + (p - q) * x_adv, p),
            attack=KL,
            objective=Trades(beta=1.0, detach_natural=True),
            ratio="1/0",
        )


METHODS = {
    "pgd": (PGD_NO_START, CrossEntropy(), "cross_entropy", {}),
    "dist": (pt.attacks.dist(coefficient=0.5, num_steps=2), CrossEntropy(), "cross_entropy", {}),
    "diff": (KL, Trades(beta=2.0), "trades", {"beta": 2.0, "detach_natural": False}),
    "diff detached": (
        KL,
        Trades(beta=1.0, detach_natural=True),
        "trades",
        {"beta": 1.0, "detach_natural": True},
    ),
}

COMPANIONS = {
    "none": (NoCompanions(), "1/0"),
    "natural": (NaturalCompanions(), "1/2"),
    "random": (RandomCompanions(epsilon=EPSILON), "1/2"),
    "reverse symmetry": (ReverseSymmetry(epsilon=EPSILON), "1/1"),
    "reverse symmetry 1/3": (ReverseSymmetry(epsilon=EPSILON), "1/3"),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", COMPANIONS)
def test_a_round_equals_its_numpy_twin(method, kind):
    attack, objective, name, trades = METHODS[method]
    companions, ratio = COMPANIONS[kind]
    rng = np.random.default_rng(0)
    weights, bias = rng.normal(size=(6, 3)), rng.normal(size=3)
    x, y = rng.uniform(0.2, 0.8, size=(5, 6)).astype(np.float32), np.array([0, 1, 2, 0, 1])
    seed = pt.seeds.fold(11, 0)  # of the round at update 0
    num_companions = pt.Ratio.parse(ratio).num_companions

    def adversarial_fn(model, x, y):  # attacks have twins of their own
        network = linear_network(model.weights, model.bias)
        return [attack(network, np.float32(x), y, seed=pt.seeds.fold(seed, 0)).numpy()]

    def companions_fn(x, adversarial):
        made = companions(
            np.float32(x), tuple(map(tf.constant, adversarial)), num=num_companions, seed=pt.seeds.fold(seed, 1)
        )
        return [np.asarray(companion) for companion in made]

    expected = oracles.sgd_round(
        oracles.LinearModel(weights, bias), x, y, adversarial_fn, companions_fn, name, 0.5, **trades
    )
    network = linear_network(weights, bias)
    model = trainer(network, attack=attack, objective=objective, companions=companions, ratio=ratio, seed=11)
    model.run_eagerly = kind != "reverse symmetry 1/3"
    for got, wanted in zip(one_round(model, x, y), expected):
        np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert int(model.optimizer.iterations) == 1 + num_companions


def test_all_adversarial_examples_come_from_the_weights_at_the_start_of_the_round(images, labels):
    seen = []

    def attack(logits_fn, x, y, *, seed):
        seen.append((logits_fn(x).numpy(), seed.numpy().tolist()))
        return x

    for generation, expect_equal in (("round", True), ("update", False)):
        seen.clear()
        model = pt.AdversarialTraining(dense_network(), attack=attack, ratio="3/0", generation=generation)
        model.compile(optimizer=keras.optimizers.SGD(0.5), run_eagerly=True)
        one_round(model, images, labels)
        logits, seeds = zip(*seen)
        assert np.array_equal(logits[0], logits[1]) == np.array_equal(logits[1], logits[2]) == expect_equal
        assert len(set(map(tuple, seeds))) == 3


def test_seeds_follow_the_updates_so_that_a_round_is_the_same_after_a_restart(images, labels):
    options = {"attack": PGD, "companions": ReverseSymmetry(epsilon=EPSILON), "ratio": "1/2", "run_eagerly": True}

    def weights_after(rounds, restart_at, seed=4):
        keras.utils.set_random_seed(0)
        model = trainer(dense_network(), seed=seed, **options)
        for done in range(rounds):
            if done == restart_at:
                fresh = trainer(dense_network(), seed=seed, **options)
                fresh.optimizer.build(fresh.trainable_variables)
                fresh.network.set_weights(model.network.get_weights())
                fresh.optimizer.iterations.assign(model.optimizer.iterations)
                model = fresh
            weights = one_round(model, images, labels)
        return weights

    whole = weights_after(3, None)
    for one, restarted in zip(whole, weights_after(3, 2)):
        np.testing.assert_array_equal(one, restarted)
    assert np.abs(whole[0] - weights_after(3, None, seed=5)[0]).max() > 0


def test_a_vanishing_ball_is_plain_training(images, labels):
    # A radius that float32 rounds away: every example is the natural one.
    tiny = {"epsilon": 1e-30, "step_size": 1e-30, "num_steps": 2}
    attack, companions = pt.attacks.pgd(**tiny), ReverseSymmetry(epsilon=1e-30)
    network = dense_network()
    initial = network.get_weights()
    adversarial = one_round(trainer(network, attack=attack, companions=companions, ratio="1/1"), images, labels)
    network.set_weights(initial)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(optimizer=keras.optimizers.SGD(0.5), loss=loss)
    network.fit(images, labels, batch_size=8, epochs=2, shuffle=False, verbose=0)
    for got, wanted in zip(adversarial, network.get_weights()):
        np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_updates_beyond_the_first_see_the_weights_of_the_ones_before(images, labels):
    # AdvNat-1/1 on natural "adversarial" examples is two updates on the same images, as two epochs of Keras are.
    network = dense_network()
    initial = network.get_weights()
    model = trainer(network, attack=lambda logits_fn, x, y, seed: x, companions=NaturalCompanions(), ratio="1/1")
    twice = one_round(model, images, labels)
    network.set_weights(initial)
    once = one_round(trainer(network, attack=None, companions=NaturalCompanions(), ratio="0/1"), images, labels)
    assert np.abs(twice[0] - once[0]).max() > 1e-4
    again = one_round(trainer(network, attack=None, companions=NaturalCompanions(), ratio="0/1"), images, labels)
    np.testing.assert_allclose(twice[0], again[0], atol=1e-6)


def test_weight_decay_acts_in_every_update():
    # W = [[1, -1]], pixels all 0: the cross-entropy has no gradient to W, the decay 0.1 * ||W||^2 / 2 has 0.1 W.
    # Two updates at rate 0.5: W * (1 - 0.05)^2 = 0.9025 W.
    network = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(2, kernel_regularizer=keras.regularizers.L2(0.05))]
    )
    network.set_weights([np.float32([[1, -1]]), np.float32([0, 0])])
    model = trainer(network, attack=None, companions=NaturalCompanions(), ratio="0/2")
    np.testing.assert_allclose(one_round(model, [[0.0]], [0])[0], [[0.9025, -0.9025]], atol=1e-6)


def test_sample_weights_scale_the_losses(images, labels):
    network = dense_network()
    initial = network.get_weights()
    model = trainer(network, attack=None, companions=NaturalCompanions(), ratio="0/1")
    weighted = one_round(model, images, labels, sample_weight=np.full(8, 2.0))
    network.set_weights(initial)
    faster = one_round(
        trainer(network, learning_rate=1.0, attack=None, companions=NaturalCompanions(), ratio="0/1"), images, labels
    )
    np.testing.assert_allclose(weighted[0], faster[0], atol=1e-6)


@pytest.mark.parametrize("kind", ["none", "reverse symmetry 1/3"])
def test_batch_statistics_move_in_updates_and_not_in_attacks(kind, images, labels):
    network = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.BatchNormalization(momentum=0.5),
            keras.layers.Flatten(),
            keras.layers.Dense(NUM_CLASSES),
        ]
    )
    companions, ratio = COMPANIONS[kind]
    model = trainer(network, attack=PGD_NO_START, companions=companions, ratio=ratio)
    before = network.layers[0].moving_mean.numpy()
    PGD_NO_START(lambda x: network(x, training=False), images, labels)
    np.testing.assert_array_equal(network.layers[0].moving_mean, before)
    one_round(model, images, labels)
    # The mean of every example of a round is within epsilon of the natural one, m, so after k updates of momentum
    # 1/2 from 0 the moving mean is within epsilon of (1 - 2^-k) m.
    updates = pt.Ratio.parse(ratio).updates_per_round
    expected = (1 - 0.5**updates) * images.mean()
    assert abs(float(network.layers[0].moving_mean.numpy()[0]) - expected) <= EPSILON


def test_fit_traces_once_a_ragged_last_batch_and_many_epochs_included(images, labels):
    traces = []

    def attack(*args, **options):
        traces.append(1)
        return PGD(*args, **options)

    model = trainer(dense_network(), attack=attack, companions=ReverseSymmetry(epsilon=EPSILON), ratio="1/1")
    model.fit(images, labels, batch_size=3, epochs=3, verbose=0)
    assert len(traces) == 1
    assert int(model.optimizer.iterations) == 3 * 3 * 2


def test_an_attack_is_traced_once_where_metrics_make_keras_trace_a_step_twice(images, labels):
    ours, theirs = [], []

    def attack(*args, **options):
        ours.append(1)
        return PGD(*args, **options)

    class Plain(keras.Sequential):
        def train_step(self, data):
            theirs.append(1)
            return super().train_step(data)

    model = trainer(dense_network(), attack=attack, metrics=["accuracy"])
    plain = Plain(dense_network().layers)
    plain.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    for either in (model, plain):
        either.fit(images, labels, batch_size=3, epochs=3, verbose=0)
    assert len(ours) == 1 and len(theirs) == 2


def test_works_as_any_keras_model_does(images, labels, tmp_path):
    model = trainer(
        dense_network(), attack=PGD, companions=ReverseSymmetry(epsilon=EPSILON), ratio="1/1", metrics=["accuracy"]
    )
    callbacks = [
        keras.callbacks.ModelCheckpoint(tmp_path / "best.weights.h5", save_weights_only=True),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.EarlyStopping(patience=5, monitor="val_accuracy"),
        keras.callbacks.TerminateOnNaN(),
    ]
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(3)
    history = model.fit(
        batches, validation_data=(images, labels), epochs=2, callbacks=callbacks, shuffle=False, verbose=0
    ).history
    assert set(history) == {
        "accuracy", "adversarial_loss", "companion_loss", "loss", "val_accuracy", "val_loss",
    }  # fmt: skip
    np.testing.assert_allclose(
        history["loss"], np.mean([history["adversarial_loss"], history["companion_loss"]], axis=0), rtol=1e-5
    )
    loss, accuracy = model.evaluate(images, labels, verbose=0)
    logits = model.predict(images, verbose=0)
    np.testing.assert_allclose(logits, model.network(images), atol=1e-6)
    np.testing.assert_allclose(loss, oracles.cross_entropy(labels, logits).mean(), rtol=1e-5)
    assert accuracy == np.mean(logits.argmax(axis=1) == labels)
    weights = model.network.get_weights()
    model.network.set_weights([0 * w for w in weights])
    model.load_weights(tmp_path / "best.weights.h5")
    np.testing.assert_array_equal(model.network.get_weights()[0], weights[0])


def test_metrics_see_the_adversarial_examples_while_training(images, labels):
    model = trainer(dense_network(), learning_rate=1e-9, attack=PGD_NO_START, metrics=["accuracy"])
    history = model.fit(images, labels, batch_size=8, verbose=0).history
    x_adv = PGD_NO_START(model.network, images, labels)
    accuracy = np.mean(model.network(x_adv).numpy().argmax(axis=1) == labels)
    np.testing.assert_allclose(history["accuracy"], accuracy, atol=1e-6)


def test_an_unbuilt_subclassed_network_trains(images, labels):
    class Network(keras.Model):
        def __init__(self):
            super().__init__()
            self.flatten, self.dense = keras.layers.Flatten(), keras.layers.Dense(NUM_CLASSES)

        def call(self, inputs, training=None):
            return self.dense(self.flatten(inputs))

    model = trainer(Network(), attack=PGD)
    assert np.isfinite(one_round(model, images, labels)[0]).all()


def softmax_network():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, activation="softmax")])


def softmax_layer_network():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(3), keras.layers.Softmax()])


@pytest.mark.parametrize(
    "options, match",
    [
        ({"attack": None}, "Ratio 1/0 needs an attack.*pgd"),
        ({"attack": "pgd"}, "`attack` must be one attack.*'pgd'"),
        ({"attack": PGD, "ratio": "0/0"}, "`ratio` must be n/m"),
        ({"attack": PGD, "ratio": "1:1"}, "`ratio` must be n/m"),
        ({"attack": PGD, "ratio": "1/1"}, "needs companions"),
        ({"attack": PGD, "companions": ReverseSymmetry(epsilon=0.1)}, "no room for companions.*ratio='1/1'"),
        ({"attack": PGD, "generation": "batch"}, "`generation` must be one of"),
        ({"attack": PGD, "order": "companion"}, "`order` must be one of.*Did you mean 'companions'"),
        ({"attack": PGD, "order": "companions", "generation": "update"}, "cannot wait.*generation='round'"),
        ({"attack": PGD, "seed": "x"}, "`seed` must be a whole number"),
        ({"attack": pt.attacks.dist(), "ratio": "2/0"}, "would be identical"),
        ({"attack": PGD, "network": softmax_network()}, "must give logits.*activation"),
        ({"attack": PGD, "network": softmax_layer_network()}, "must give logits"),
    ],
)
def test_parts_that_do_not_fit_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        pt.AdversarialTraining(**{"network": dense_network(), **options})


def test_compile_refuses_a_loss():
    model = pt.AdversarialTraining(dense_network(), attack=PGD)
    with pytest.raises(ValueError, match="is its `objective`.*'mse'"):
        model.compile("adam", "mse")


def broken(images, value):
    images = images.copy()
    images[-1, 0, 0, 0] = value
    return images


@pytest.mark.parametrize("as_stream", [False, True])
@pytest.mark.parametrize(
    "change, match",
    [
        (lambda x, y: (broken(x, np.nan), y), "pixel must .*[nN]a[nN]"),
        (lambda x, y: (broken(x, np.inf), y), "pixel must"),
        (lambda x, y: (x * 255, y), r"bounds \[0, 1\]"),
        (lambda x, y: (x, y + 1), r"0 \.\. 2.*1 3"),
        (lambda x, y: (x, y - 1), r"0 \.\. 2"),
        (lambda x, y: (x, np.eye(4)[y]), "one-hot.*num_classes=3"),
        (lambda x, y: (x, y.astype(np.float32) + 0.5), "class numbers must .* be whole"),
        (lambda x, y: (np.zeros((8, 4, 4, 1), np.uint8), y), "floating point"),
    ],
)
def test_bad_data_raises_value_errors_from_arrays_and_streams(change, match, as_stream, images, labels):
    x, y = change(images, labels)
    model = trainer(dense_network(), attack=PGD)
    data = (tf.data.Dataset.from_tensor_slices((x, y)).batch(4),) if as_stream else (x, y)
    with pytest.raises(ValueError, match=match):
        model.fit(*data, batch_size=None if as_stream else 4, shuffle=False, verbose=0)


def test_other_errors_of_a_graph_keep_their_type(images, labels):
    def attack(logits_fn, x, y, *, seed):
        tf.debugging.Assert(False, ["not about data"])
        return x

    with pytest.raises(tf.errors.InvalidArgumentError, match="not about data"):
        trainer(dense_network(), attack=attack).fit(images, labels, verbose=0)


def test_a_float64_network_trains_with_its_regularisation(images, labels):
    layer = keras.layers.Dense(NUM_CLASSES, kernel_regularizer=keras.regularizers.L2(0.1), dtype="float64")
    network = keras.Sequential(
        [keras.Input(images.shape[1:], dtype="float64"), keras.layers.Flatten(dtype="float64"), layer]
    )
    model = trainer(network, attack=PGD, companions=ReverseSymmetry(epsilon=EPSILON), ratio="1/1")
    before = network.get_weights()
    model.fit(images.astype(np.float64), labels, verbose=0)
    assert network.get_weights()[0].dtype == np.float64 and np.abs(network.get_weights()[0] - before[0]).max() > 0
    assert np.isfinite(model.evaluate(images.astype(np.float64), labels, verbose=0))


OPTIMIZERS = {
    "plain": lambda: keras.optimizers.SGD(0.5),
    "accumulation 2": lambda: keras.optimizers.SGD(0.5, gradient_accumulation_steps=2),
    "accumulation 4": lambda: keras.optimizers.SGD(0.5, gradient_accumulation_steps=4),
    "every update skipped": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.5), 3e38, 1000),
}


def seen_seeds(optimizer, images, labels, ratio="1/1"):
    """What the attacks and the companions of four rounds are given, and the trainer."""
    seen = []

    def attack(logits_fn, x, y, *, seed):
        seen.append(tuple(seed.numpy()))
        return x

    def companions(x, adversarial, *, num, seed):
        seen.append(tuple(seed.numpy()))
        return (x * 0.9,) * num

    model = pt.AdversarialTraining(dense_network(), attack=attack, companions=companions, ratio=ratio, seed=3)
    model.compile(optimizer, run_eagerly=True)
    model.fit(images, labels, batch_size=2, verbose=0, sample_weight=np.full(8, 1e3))
    return seen, model


@pytest.mark.parametrize(
    "optimizer, ratio",
    [("plain", "2/1"), ("accumulation 2", "1/1"), ("accumulation 4", "1/3"), ("every update skipped", "1/1")],
)
def test_every_round_has_draws_of_its_own_whatever_the_optimizer_counts(optimizer, ratio, images, labels):
    seen, model = seen_seeds(OPTIMIZERS[optimizer](), images, labels, ratio)
    assert len(set(seen)) == len(seen) == 4 * (model.ratio.num_adversarial + 1)
    assert int(model.rounds) == 4
    n, updates = model.ratio.num_adversarial, model.ratio.updates_per_round
    rounds = [pt.seeds.fold(3, updates * done) for done in range(4)]  # as recorded results were drawn
    assert seen == [tuple(pt.seeds.fold(seed, i).numpy()) for seed in rounds for i in range(n + 1)]


@pytest.mark.parametrize("optimizer", ["accumulation 4", "every update skipped"])
def test_the_count_of_rounds_is_saved_and_goes_on(optimizer, images, labels, tmp_path):
    def make():
        keras.utils.set_random_seed(0)
        model = trainer(dense_network(), attack=PGD, companions=ReverseSymmetry(epsilon=EPSILON), ratio="1/1")
        model.compile(OPTIMIZERS[optimizer](), run_eagerly=True)
        model.optimizer.build(model.trainable_variables)
        return model

    def state(model):
        return [np.array(variable) for variable in (*model.weights, *model.optimizer.variables)]

    model, whole = make(), make()
    for rounds, one in ((3, model), (6, whole)):
        for _ in range(rounds):
            one_round(one, images, labels)
    model.save(tmp_path / "trainer.keras")
    model.save_weights(tmp_path / "trainer.weights.h5")
    tf.train.Checkpoint(model=model).write(str(tmp_path / "checkpoint"))
    loaded = [keras.models.load_model(tmp_path / "trainer.keras"), make(), make()]
    loaded[1].load_weights(tmp_path / "trainer.weights.h5")
    tf.train.Checkpoint(model=loaded[2]).read(str(tmp_path / "checkpoint")).expect_partial()
    for again in loaded:
        again.run_eagerly = True
        assert int(again.rounds) == 3
        for _ in range(3):
            one_round(again, images, labels)
        assert int(again.rounds) == 6
        for got, wanted in zip(state(again), state(whole), strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_files_without_a_count_go_on_as_the_optimizer_counts(images, labels):
    model = trainer(dense_network(), attack=PGD, companions=ReverseSymmetry(epsilon=EPSILON), ratio="1/2")
    one_round(model, images, labels)
    one_round(model, images, labels)
    model.optimizer.iterations.assign(3 * 5)
    assert int(model.rounds) == 2
    model.load_own_variables({})  # what a file of version 0.1.0 holds of this trainer itself
    assert int(model.rounds) == 5
    one_round(model, images, labels)
    assert int(model.rounds) == 6
    free = pt.FreeAdversarialTraining(dense_network(), epsilon=EPSILON, batch_size=2, ratio="2/0")
    free.compile("sgd")
    free.load_own_variables({"0": np.full((2, 4, 4, 1), 0.05, np.float32)})
    assert int(free.rounds) == 0
    np.testing.assert_allclose(free.perturbation, 0.05)
