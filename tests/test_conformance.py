"""The contracts of the four axes, for every strategy there is. A new strategy is one row here."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import pineat_tf as pt
from pineat_tf.companions import NaturalCompanions, RandomCompanions, ReverseSymmetry, ScaledNoise, ShuffledSigns
from pineat_tf.objectives import MART, SCORE, CrossEntropy, Trades

EPSILON = 0.1
STEPS = {"epsilon": EPSILON, "step_size": 0.05, "num_steps": 3}

# name: (attack, radius and norm that it promises or None, pixel range that it promises or None)
ATTACKS = {
    "pgd": (pt.attacks.pgd(**STEPS), (EPSILON, np.inf), (0.0, 1.0)),
    "pgd from natural": (pt.attacks.pgd(**STEPS, random_start=False), (EPSILON, np.inf), (0.0, 1.0)),
    "pgd unbounded": (pt.attacks.pgd(**STEPS, bounds=None), (EPSILON, np.inf), None),
    "pgd squared distance": (pt.attacks.pgd(**STEPS, loss="squared_distance"), (EPSILON, np.inf), (0.0, 1.0)),
    "pgd margin": (pt.attacks.pgd(**STEPS, loss="margin"), (EPSILON, np.inf), (0.0, 1.0)),
    "fgsm": (pt.attacks.fgsm(epsilon=EPSILON), (EPSILON, np.inf), (0.0, 1.0)),
    "pgd l2": (pt.attacks.pgd(**STEPS, norm="l2"), (EPSILON, 2), (0.0, 1.0)),
    "dist": (pt.attacks.dist(num_steps=3), None, (0.0, 1.0)),
    "dist repeated": (pt.attacks.dist(num_steps=3, epsilon=EPSILON).repeats(2)[1], None, (0.0, 1.0)),
    "wrm_l2": (pt.attacks.wrm_l2(gamma=1.0, num_steps=3), None, None),
    "wrm_l2 bounded": (pt.attacks.wrm_l2(gamma=1.0, num_steps=3, bounds=(0.0, 1.0)), None, (0.0, 1.0)),
    "trades_kl": (pt.attacks.trades_kl(**STEPS), (EPSILON, np.inf), (0.0, 1.0)),
    "fgsm_rs": (pt.attacks.fgsm_rs(epsilon=EPSILON), (EPSILON, np.inf), (0.0, 1.0)),
    "n_fgsm": (pt.attacks.n_fgsm(epsilon=EPSILON), (3 * EPSILON, np.inf), (0.0, 1.0)),
    "n_fgsm unbounded": (pt.attacks.n_fgsm(epsilon=EPSILON, bounds=None), (3 * EPSILON, np.inf), None),
    "apgd": (pt.attacks.apgd(epsilon=EPSILON, num_steps=3), (EPSILON, np.inf), (0.0, 1.0)),
    "apgd l2": (pt.attacks.apgd(epsilon=EPSILON, num_steps=3, norm="l2", num_restarts=2), (EPSILON, 2), (0.0, 1.0)),
    "apgd unbounded": (pt.attacks.apgd(epsilon=EPSILON, num_steps=3, bounds=None), (EPSILON, np.inf), None),
    "square": (pt.attacks.square(epsilon=EPSILON, num_queries=9), (EPSILON, np.inf), (0.0, 1.0)),
    "square l2": (pt.attacks.square(epsilon=EPSILON, num_queries=9, norm="l2"), (EPSILON, 2), (0.0, 1.0)),
    "square unbounded": (pt.attacks.square(epsilon=EPSILON, num_queries=9, bounds=None), (EPSILON, np.inf), None),
    "fab": (pt.attacks.fab(epsilon=0.3, num_steps=10), (0.3, np.inf), (0.0, 1.0)),
    "fab l2": (pt.attacks.fab(epsilon=0.9, num_steps=10, norm="l2"), (0.9, 2), (0.0, 1.0)),
    "fab anywhere": (pt.attacks.fab(epsilon=None, num_steps=3, bounds=None), None, None),
    "deepfool": (pt.attacks.deepfool(num_steps=3), None, (0.0, 1.0)),
    "deepfool unbounded": (pt.attacks.deepfool(num_steps=3, bounds=None), None, None),
}

# name: (companions, whether they promise the pixel range)
COMPANIONS = {
    "natural": (NaturalCompanions(), True),
    "random": (RandomCompanions(epsilon=EPSILON), True),
    "random unbounded": (RandomCompanions(epsilon=EPSILON, bounds=None), False),
    "shuffled signs": (ShuffledSigns(epsilon=EPSILON), False),
    "reverse symmetry": (ReverseSymmetry(epsilon=EPSILON), False),
    "reverse symmetry valid": (ReverseSymmetry(epsilon=EPSILON, keep_in_range=True), True),
    "reverse symmetry split": (ReverseSymmetry(epsilon=EPSILON, decomposition="split"), False),
    "reverse symmetry split valid": (
        ReverseSymmetry(epsilon=EPSILON, keep_in_range=True, decomposition="split"),
        True,
    ),
    "scaled noise": (ScaledNoise(scale=(-1.0, 0.5, 1.0), epsilon=EPSILON), False),
    "scaled noise valid": (ScaledNoise(scale=(-1.0, 0.5, 1.0), epsilon=EPSILON, keep_in_range=True), True),
}


def companions_of(name, num):
    """The companions of a row, for m = `num`: scaled noise has a number for each."""
    found = COMPANIONS[name][0]
    return dataclasses.replace(found, scale=found.scale[:num]) if isinstance(found, ScaledNoise) else found


OBJECTIVES = {
    "cross-entropy": CrossEntropy(),
    "trades": Trades(beta=2.0),
    "trades detached": Trades(beta=2.0, detach_natural=True),
    "mart": MART(),
    "score": SCORE(),
}
SMOOTHED = {
    "cross-entropy smoothed": CrossEntropy(label_smoothing=0.1),
    "trades smoothed": Trades(beta=2.0, label_smoothing=0.1),
}


def call(attack, network, x, y, seed=5):
    return attack(lambda images: network(images, training=False), x, y, seed=seed)


@pytest.mark.parametrize("name", ATTACKS)
class TestAttacks:
    def test_shape_dtype_ball_and_bounds(self, name, network, images, labels):
        attack, ball, bounds = ATTACKS[name]
        x_adv = call(attack, network, images, labels)
        assert x_adv.shape == images.shape and x_adv.dtype == images.dtype
        assert np.isfinite(x_adv).all() and np.abs(x_adv - images).max() > 1e-3
        if ball:
            noise = np.reshape(x_adv - images, (8, -1))
            assert np.linalg.norm(noise, ord=ball[1], axis=1).max() <= ball[0] + 1e-6
        if bounds:
            assert x_adv.numpy().min() >= bounds[0] and x_adv.numpy().max() <= bounds[1]

    def test_the_seed_decides_eagerly_and_in_a_graph_of_any_batch_size(self, name, network, images, labels):
        attack = ATTACKS[name][0]
        spec = [tf.TensorSpec([None, 4, 4, 1]), tf.TensorSpec([None], tf.int64)]
        graph = tf.function(lambda x, y: call(attack, network, x, y), autograph=False, input_signature=spec)
        x, y = tf.constant(images), tf.constant(labels)
        eager = call(attack, network, x, y)
        np.testing.assert_array_equal(eager, call(attack, network, x, y))
        # Steps along signs forgive the rounding of a graph's fused operations; those along gradients pass it on.
        np.testing.assert_allclose(eager, graph(x, y), atol=1e-6 if ATTACKS[name][1] else 5e-5)
        start = repr(getattr(attack, "start", attack))  # an attack without a strategy for its start names itself
        is_random = any(name in start for name in ("Uniform", "Gaussian", "Square"))
        other = call(attack, network, x, y, seed=6)
        assert np.array_equal(eager, other) != is_random or name == "trades_kl"
        for size in (3, 1):  # one graph serves every batch size
            assert graph(images[:size], labels[:size]).shape == (size, 4, 4, 1)
        assert graph.experimental_get_tracing_count() == 1

    def test_no_gradient_flows_through_it_and_no_weight_moves(self, name, network, images, labels):
        weights = network.get_weights()
        x = tf.constant(images)
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(call(ATTACKS[name][0], network, x, labels))
        assert all(gradient is None for gradient in tape.gradient(total, [x, *network.trainable_variables]))
        for before, after in zip(weights, network.get_weights()):
            np.testing.assert_array_equal(before, after)

    def test_it_is_a_value(self, name, network):
        attack = ATTACKS[name][0]
        assert attack == dataclasses.replace(attack) and hash(attack) == hash(dataclasses.replace(attack))
        with pytest.raises(dataclasses.FrozenInstanceError):
            attack.num_steps = 1


@pytest.mark.parametrize("num", [1, 3])
@pytest.mark.parametrize("name", COMPANIONS)
class TestCompanions:
    def make(self, name, num, images, seed=5):
        noise = np.random.default_rng(2).uniform(-EPSILON, EPSILON, size=images.shape).astype(np.float32)
        x = tf.constant(images)
        return companions_of(name, num)(x, (x + noise, x - 0.5 * noise), num=num, seed=seed)

    def test_number_shape_dtype_ball_and_bounds(self, name, num, images):
        companions = self.make(name, num, images)
        assert len(companions) == num
        for companion in companions:
            assert companion.shape == images.shape and companion.dtype == images.dtype
            assert np.abs(companion - images).max() <= EPSILON + 1e-6
            if COMPANIONS[name][1]:
                assert companion.numpy().min() >= 0.0 and companion.numpy().max() <= 1.0

    def test_the_seed_decides_eagerly_and_in_a_graph(self, name, num, images):
        eager = self.make(name, num, images)
        graph = tf.function(lambda: self.make(name, num, images), autograph=False)()
        for one, other in zip(eager, graph):
            np.testing.assert_allclose(one, other, atol=1e-6)

    def test_no_gradient_flows_through_it(self, name, num, images):
        x = tf.constant(images)
        with tf.GradientTape() as tape:
            tape.watch(x)
            companions = companions_of(name, num)(x, (x * 0.99,), num=num, seed=0)
            if name == "natural":  # the images themselves, which is how objectives know them
                assert all(companion is x for companion in companions)
                return
            total = tf.add_n([tf.reduce_sum(companion) for companion in companions])
        assert tape.gradient(total, x) is None


@pytest.mark.parametrize("name", [*OBJECTIVES, *SMOOTHED])
def test_objectives_give_a_loss_an_example_and_the_logits_of_the_example(name, network, images, labels):
    other = np.clip(images + 0.05, 0, 1)
    objective = {**OBJECTIVES, **SMOOTHED}[name]
    loss, logits = objective(network, tf.constant(images), tf.constant(other), tf.constant(labels))
    assert loss.shape == (8,) and loss.dtype == tf.float32
    np.testing.assert_allclose(logits, network(other), atol=1e-6)
    alone, _ = objective(network, images[2:3], other[2:3], tf.constant(labels[2:3]))
    np.testing.assert_allclose(alone, loss[2:3], atol=1e-5)


TRAINING = ["pgd", "dist repeated", "wrm_l2 bounded", "trades_kl"]


@pytest.mark.parametrize(
    "attack, companions, objective",
    [("pgd", companions, "cross-entropy") for companions in COMPANIONS]
    + [(attack, "reverse symmetry", objective) for attack in TRAINING for objective in OBJECTIVES]
    + [("trades_kl", companions, "trades") for companions in ("natural", "random", "shuffled signs")],
)
def test_every_pair_of_strategies_trains(attack, companions, objective, network, images, labels):
    before = network.get_weights()
    model = pt.AdversarialTraining(
        network,
        attack=ATTACKS[attack][0],
        companions=companions_of(companions, 2),
        objective=OBJECTIVES[objective],
        ratio="1/2",
    )
    model.compile(optimizer=keras.optimizers.SGD(0.1), run_eagerly=True)
    history = model.fit(images, labels, batch_size=8, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert all(np.abs(a - b).max() > 0 for a, b in zip(before, network.get_weights()))
