"""Every attack against its NumPy twin, the published figures and the properties that define it."""

import dataclasses
import math

import numpy as np
import oracles
import pytest
import tensorflow as tf
from conftest import linear_network
from hypothesis import given, settings
from hypothesis import strategies as st

from pineat_tf import attacks, seeds

EPSILON, STEP_SIZE, NUM_STEPS, BOUNDS = 0.1, 0.03, 5, (0.0, 1.0)
STEPS = {"epsilon": EPSILON, "step_size": STEP_SIZE, "num_steps": NUM_STEPS}


def start_of(attack, x, seed):
    return attack.start(tf.constant(x), seed).numpy()


TWINS = {
    "pgd": (
        attacks.pgd(**STEPS),
        lambda m, x, y, start: oracles.pgd_linf(m, x, y, start, EPSILON, STEP_SIZE, NUM_STEPS, BOUNDS),
    ),
    "pgd without start": (
        attacks.pgd(**STEPS, random_start=False),
        lambda m, x, y, start: oracles.pgd_linf(m, x, y, x, EPSILON, STEP_SIZE, NUM_STEPS, BOUNDS),
    ),
    "pgd l2": (
        attacks.pgd(epsilon=0.5, step_size=0.2, num_steps=4, norm="l2"),
        lambda m, x, y, start: oracles.pgd_l2(m, x, y, start, 0.5, 0.2, 4, BOUNDS),
    ),
    "dist": (
        attacks.dist(coefficient=0.7, num_steps=4),
        lambda m, x, y, start: oracles.dist(m, x, y, x, 0.7, 4, BOUNDS),
    ),
    "wrm_l2": (
        attacks.wrm_l2(gamma=2.0, num_steps=6),
        lambda m, x, y, start: oracles.wrm_l2(m, x, y, 2.0, 6),
    ),
    "trades_kl": (
        attacks.trades_kl(**STEPS),
        lambda m, x, y, start: oracles.trades_kl(m, x, start, EPSILON, STEP_SIZE, NUM_STEPS, BOUNDS),
    ),
}


@pytest.mark.parametrize("name", TWINS)
def test_attack_equals_its_numpy_twin(name, network, oracle_network, images, labels):
    attack, twin = TWINS[name]
    expected = twin(oracle_network, images, labels, start_of(attack, images, 7))
    x_adv = attack(network, images, labels, seed=7).numpy()
    # Signs of gradients that are 0 to rounding may differ between float32 and float64: none here does.
    np.testing.assert_allclose(x_adv, expected, atol=2e-5)
    assert np.abs(x_adv - images).max() > 0.01


# A published linear model and its adversarial examples, by hand-checked float64 ports of the authors' code.
GOLDEN_X, GOLDEN_Y = np.array([[0.2, 0.5, 0.8], [0.9, 0.1, 0.4]], np.float32), np.array([0, 1])


def golden_network():
    return linear_network([[1, -1], [0.5, 2], [-1.5, 0.3]], [0.1, -0.2])


def test_pgd_gives_the_published_example():
    attack = attacks.pgd(epsilon=0.1, step_size=0.03, num_steps=5, random_start=False)
    x_adv = attack(golden_network(), GOLDEN_X, GOLDEN_Y)
    np.testing.assert_allclose(x_adv, [[0.1, 0.6, 0.9], [1.0, 0.0, 0.3]], atol=1e-6)


def test_wrm_gives_the_published_example():
    # The authors' eps = 1.3 is 0.5 / gamma. Nothing is clipped.
    x_adv = attacks.wrm_l2(gamma=0.5 / 1.3, num_steps=15)(golden_network(), GOLDEN_X, GOLDEN_Y)
    expected = [[-2.39973761, 2.4498032, 3.13976385], [3.4996771, -1.84975783, -1.93970939]]
    np.testing.assert_allclose(x_adv, expected, rtol=1e-5)


def test_trades_gives_the_published_example():
    @dataclasses.dataclass(frozen=True)
    class FixedStart:
        def __call__(self, x, seed):
            return x + 1e-3 * tf.constant([1.0, -1.0, 1.0])

    attack = attacks.trades_kl(epsilon=0.1, step_size=0.03, num_steps=5)
    x_adv = dataclasses.replace(attack, start=FixedStart())(golden_network(), GOLDEN_X, GOLDEN_Y)
    np.testing.assert_allclose(x_adv, [[0.3, 0.4, 0.7], [1.0, 0.0, 0.3]], atol=1e-6)


def test_one_dist_step_by_hand():
    # Two classes, W = [[1, -1]], b = 0, x = 0.5, y = 0: logits (0.5, -0.5), p_1 = 1 / (1 + e) = 0.268941.
    # The gradient of the cross-entropy is (p_0 - 1) * 1 + p_1 * -1 = -2 p_1 = -0.537883.
    # coefficient 0.4: g = -0.215153, x + g = 0.284847, mean |g| = 0.215153, sign(x + g - x) = -1,
    # so x_adv = 0.284847 + 0.215153 = 0.5. With a second image at 0.9 (logits (0.9, -0.9), p_1 = 1 / (1 + e^1.8)
    # = 0.141851, g = -0.113481) the mean is 0.164317: x_adv = 0.449164 and 0.9 - 0.113481 + 0.164317 = 0.950836.
    network = linear_network([[1, -1]], [0, 0])
    attack = attacks.dist(coefficient=0.4, num_steps=1)
    np.testing.assert_allclose(attack(network, [[0.5]], [0]), [[0.5]], atol=1e-6)
    np.testing.assert_allclose(attack(network, [[0.5], [0.9]], [0, 0]), [[0.449164], [0.950836]], atol=1e-6)


@pytest.mark.parametrize("name", ["pgd", "pgd l2", "trades_kl"])
def test_examples_of_a_batch_do_not_influence_each_other(name, network, images, labels):
    attack = dataclasses.replace(TWINS[name][0], start=TWINS["pgd without start"][0].start)
    if name == "trades_kl":  # which needs to start off the natural image
        attack = dataclasses.replace(attack, start=lambda x, seed: x + 0.01)
    order = np.random.default_rng(3).permutation(8)
    whole = attack(network, images, labels).numpy()
    np.testing.assert_allclose(attack(network, images[order], labels[order]), whole[order], atol=1e-6)


def test_dist_is_invariant_to_the_order_of_the_batch_but_not_to_its_members(network, images, labels):
    attack, order = attacks.dist(coefficient=0.7, num_steps=3), np.arange(8)[::-1]
    whole = attack(network, images, labels).numpy()
    np.testing.assert_allclose(attack(network, images[order], labels[order]), whole[order], atol=1e-5)
    assert np.abs(attack(network, images[:4], labels[:4]) - whole[:4]).max() > 1e-3


def test_more_steps_and_a_larger_ball_make_a_larger_loss(network, images, labels):
    def loss(**changes):
        attack = attacks.pgd(**{**STEPS, "random_start": False, **changes})
        logits = network(attack(network, images, labels)).numpy()
        return oracles.cross_entropy(labels, logits).mean()

    assert loss(num_steps=1) < loss(num_steps=5) < loss(num_steps=10, epsilon=0.3)


@settings(max_examples=25, deadline=None)
@given(epsilon=st.floats(1e-3, 2.0), steps=st.integers(1, 4), seed=st.integers(-(2**63), 2**63 - 1))
def test_noise_stays_in_the_ball_and_pixels_in_their_range(epsilon, steps, seed):
    x = np.random.default_rng(abs(seed) % 1000).uniform(size=(3, 3)).astype(np.float32)
    network = golden_network()
    for norm, length in (("linf", np.inf), ("l2", 2)):
        attack = attacks.pgd(epsilon=epsilon, step_size=epsilon, num_steps=steps, norm=norm)
        x_adv = attack(network, x, [0, 1, 0], seed=seed).numpy()
        assert x_adv.min() >= 0.0 and x_adv.max() <= 1.0
        assert np.linalg.norm(x_adv - x, ord=length, axis=1).max() <= epsilon * (1 + 1e-5) + 1e-6


def test_random_starts_fill_the_ball():
    x = tf.zeros((20_000, 2))
    linf = attacks.pgd(epsilon=0.5, step_size=0.1, num_steps=1).start(x, 0).numpy()
    l2 = attacks.pgd(epsilon=0.5, step_size=0.1, num_steps=1, norm="l2").start(x, 0).numpy()
    # Uniform in [-0.5, 0.5]: standard deviation 0.5 / sqrt(3). Uniform in a disc: mean radius 2/3 of the radius.
    np.testing.assert_allclose(linf.std(axis=0), 0.5 / np.sqrt(3), rtol=0.02)
    radii = np.linalg.norm(l2, axis=1)
    assert radii.max() <= 0.5 + 1e-6
    np.testing.assert_allclose(radii.mean(), 0.5 * 2 / 3, rtol=0.02)
    np.testing.assert_allclose(attacks.trades_kl(**STEPS, start_stddev=0.2).start(x, 0).numpy().std(), 0.2, rtol=0.02)


def test_one_hot_labels_give_the_same_example(network, images, labels):
    attack = TWINS["pgd"][0]
    one_hot = np.eye(3, dtype=np.float32)[labels]
    np.testing.assert_allclose(
        attack(network, images, one_hot, seed=1), attack(network, images, labels, seed=1), atol=1e-6
    )
    np.testing.assert_array_equal(
        attack(network, images, labels[:, None], seed=1), attack(network, images, labels, seed=1)
    )


def test_natural_logits_are_computed_once_a_call(network, images, labels):
    calls = []

    def counting(x):
        calls.append(1)
        return network(x)

    attacks.trades_kl(**STEPS)(counting, images, labels)
    assert len(calls) == NUM_STEPS + 1
    calls.clear()
    attacks.wrm_l2(gamma=2.0, num_steps=6)(counting, images, labels)
    assert len(calls) == 7


def test_repeats_keep_the_first_start_and_make_the_others_random(network, images, labels):
    attack = attacks.dist(coefficient=0.7, num_steps=2, epsilon=0.1)
    first, second, third = attack.repeats(3)
    assert first == attack and second == third
    np.testing.assert_array_equal(first.start(tf.constant(images), 0), images)
    examples = [a(network, images, labels, seed=i).numpy() for i, a in enumerate((first, second, third))]
    assert min(np.abs(a - b).max() for a, b in zip(examples, examples[1:])) > 1e-3
    random = attacks.pgd(**STEPS)
    assert random.repeats(2) == (random, random)
    assert attacks.dist().repeats(1) == (attacks.dist(),)
    with pytest.raises(ValueError, match="would be identical.*epsilon"):
        attacks.dist().repeats(2)


def test_float64_images_give_float64_examples(labels):
    x = np.full((2, 3), 0.5)
    x_adv = attacks.pgd(**STEPS)(lambda v: tf.matmul(v, tf.ones((3, 2), tf.float64) * [[1, -1]]), x, labels[:2])
    assert x_adv.dtype == tf.float64


@pytest.mark.parametrize(
    "make, match",
    [
        (lambda: attacks.pgd(epsilon=-0.1, step_size=0.1, num_steps=1), "`epsilon` must be positive.*-0.1.*8/255"),
        (lambda: attacks.pgd(epsilon=0, step_size=0.1, num_steps=1), "`epsilon` must be positive"),
        (lambda: attacks.pgd(epsilon=float("nan"), step_size=0.1, num_steps=1), "`epsilon` must be positive"),
        (lambda: attacks.pgd(epsilon="0.1", step_size=0.1, num_steps=1), "`epsilon` must be positive"),
        (lambda: attacks.pgd(epsilon=True, step_size=0.1, num_steps=1), "`epsilon` must be positive"),
        (lambda: attacks.pgd(epsilon=0.1, step_size=0, num_steps=1), "`step_size` must be positive"),
        (lambda: attacks.pgd(epsilon=0.1, step_size=0.1, num_steps=0), "`num_steps` must be a whole number >= 1"),
        (lambda: attacks.pgd(epsilon=0.1, step_size=0.1, num_steps=1.5), "`num_steps` must be a whole number"),
        (lambda: attacks.pgd(**STEPS, norm="l1"), "`norm` must be one of.*'l1'"),
        (lambda: attacks.pgd(**STEPS, norm="L2"), "Did you mean 'l2'"),
        (lambda: attacks.pgd(**STEPS, bounds=(1.0, 0.0)), "`bounds` must be a pair"),
        (lambda: attacks.pgd(**STEPS, bounds=(0.0,)), "`bounds` must be a pair"),
        (lambda: attacks.pgd(**STEPS, bounds=1.0), "`bounds` must be a pair"),
        (lambda: attacks.pgd(**STEPS, bounds=(0.0, math.inf)), "pair .* of finite pixel values"),
        (lambda: attacks.dist(coefficient=-1), "`coefficient` must be positive"),
        (lambda: attacks.dist(epsilon=0), "`epsilon` must be positive"),
        (lambda: attacks.wrm_l2(gamma=0), "`gamma` must be positive"),
        (lambda: attacks.wrm_l2(gamma=1, num_steps=-1), "`num_steps` must be a whole number >= 0"),
        (lambda: attacks.trades_kl(epsilon=0.1, step_size=0.1, num_steps=1, start_stddev=0), "`start_stddev`"),
        (lambda: attacks.trades_kl(epsilon=0, step_size=0.1, num_steps=1), "`epsilon`"),
    ],
)
def test_bad_hyper_parameters_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()


X, Y = np.full((2, 3), 0.5, np.float32), np.array([0, 1])


@pytest.mark.parametrize(
    "x, y, match",
    [
        (np.full((2, 3), np.nan, np.float32), Y, "every pixel must lie in the bounds.*nan"),
        (X * 255, Y, r"bounds \[0, 1\].*127.5"),
        (X - 1, Y, r"bounds \[0, 1\]"),
        (np.full((2, 3), np.inf, np.float32), Y, "bounds"),
        (np.ones((2, 3), np.uint8), Y, "floating point.*uint8.*/ 255"),
        (X[0], Y, r"shape \(batch, ...\)"),
        (np.float32(0.5), Y, r"shape \(batch, ...\)"),
        (X, np.array([0, -1]), "class numbers must be >= 0"),
        (X, np.array([0.0, 1.5], np.float32), "class numbers must .* be whole"),
        (X, np.zeros((2, 2, 2), np.int32), "Labels must be class numbers"),
        (X, np.eye(5, dtype=np.float32)[:2], "one-hot.*num_classes=2.*5"),
        (X, np.array([[0.5, -0.5], [1, 0]], np.float32), "one-hot labels must be >= 0"),
    ],
)
def test_bad_data_is_refused(x, y, match):
    with pytest.raises(ValueError, match=match):
        attacks.pgd(**STEPS)(golden_network(), x, y)


def test_numbers_of_numpy_are_numbers():
    attack = attacks.pgd(epsilon=np.float32(0.5), step_size=np.float64(0.25), num_steps=np.int64(2))
    plain = attacks.pgd(epsilon=0.5, step_size=0.25, num_steps=2)
    np.testing.assert_array_equal(
        attack(golden_network(), X, Y, seed=np.int32(3)), plain(golden_network(), X, Y, seed=3)
    )


def test_a_function_without_gradient_is_refused():
    with pytest.raises(ValueError, match="nothing to ascend"):
        attacks.pgd(**STEPS)(lambda x: tf.stop_gradient(golden_network()(x)), X, Y)


@pytest.mark.parametrize("seed", [1.5, "0", (1, 2, 3), True, 2**70, None])
def test_bad_seeds_are_refused(seed):
    with pytest.raises(ValueError, match="`seed` must be a whole number"):
        attacks.pgd(**STEPS)(golden_network(), X, Y, seed=seed)


@pytest.mark.parametrize("options", [None, {}, {"jit_compile": True}], ids=["eager", "graph", "XLA"])
def test_draws_are_those_of_tensorflow_by_philox(options):
    def ours(seed):
        return seeds.fold(seed, 1, 10**12), seeds.words((5, 3), seed, tf.uint32)

    for seed in (0, -1, 2**62, (5, -7)):
        folded = seeds.as_seed(seed)
        for number in (1, 10**12):
            folded = tf.random.experimental.stateless_fold_in(folded, tf.constant(number, tf.int64), alg="philox")
        words = tf.random.stateless_uniform((5, 3), seeds.as_seed(seed), None, None, tf.uint32, alg="philox")
        found = (ours if options is None else tf.function(ours, **options))(seed)
        for got, wanted in zip(found, (folded, words), strict=True):
            np.testing.assert_array_equal(got, wanted)
