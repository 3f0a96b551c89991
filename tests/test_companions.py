"""Companions against their NumPy twins, and the identities that define reverse symmetry."""

import keras
import numpy as np
import oracles
import pytest
import tensorflow as tf
from conftest import NUM_CLASSES, dense_network
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import pineat_tf as pt
from pineat_tf.companions import (
    NaturalCompanions,
    NoCompanions,
    RandomCompanions,
    ReverseSymmetry,
    ShuffledSigns,
    aggregate_noise,
    reverse_symmetry,
)

EPSILON = 0.1


def adversarial_examples(x, num, *, seed=0, reach=EPSILON):
    rng = np.random.default_rng(seed)
    return tuple((x + rng.uniform(-reach, reach, size=x.shape)).astype(np.float32) for _ in range(num))


def as_tensors(arrays):
    return tuple(tf.constant(array) for array in arrays)


def test_one_to_one_mirrors_the_adversarial_example(images):
    (x_adv,) = adversarial_examples(images, 1)
    (x_rs,) = ReverseSymmetry(epsilon=EPSILON)(images, (x_adv,), num=1)
    np.testing.assert_allclose(x_rs + x_adv, 2 * images, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 4), m=st.integers(1, 4), seed=st.integers(0, 1000), keep=st.booleans(),
       decomposition=st.sampled_from(["random", "split"]))  # fmt: skip
def test_companions_stay_in_the_ball_and_where_asked_in_the_pixel_range(n, m, seed, keep, decomposition):
    x = np.random.default_rng(seed).uniform(size=(3, 5)).astype(np.float32)
    companions = ReverseSymmetry(epsilon=EPSILON, keep_in_range=keep, decomposition=decomposition)(
        x, as_tensors(adversarial_examples(x, n, seed=seed)), num=m, seed=seed
    )
    assert len(companions) == m
    for companion in companions:
        assert np.abs(companion - x).max() <= EPSILON + 1e-6
        if keep:
            assert companion.numpy().min() >= 0.0 and companion.numpy().max() <= 1.0


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 4), m=st.integers(1, 4), seed=st.integers(0, 1000),
       decomposition=st.sampled_from(["random", "split"]))  # fmt: skip
def test_noises_of_companions_add_up_to_minus_those_of_adversarial_examples(n, m, seed, decomposition):
    x = np.random.default_rng(seed).uniform(size=(3, 5)).astype(np.float32)
    adversarial = as_tensors(adversarial_examples(x, n, seed=seed))
    companions = ReverseSymmetry(epsilon=EPSILON, decomposition=decomposition, clip=False)(
        x, adversarial, num=m, seed=seed
    )
    total = sum(companion - x for companion in companions) + sum(x_adv - x for x_adv in adversarial)
    np.testing.assert_allclose(total, np.zeros_like(x), atol=1e-5)


@pytest.mark.parametrize("n, m", [(1, 1), (2, 1), (1, 2), (3, 2), (2, 3), (1, 4)])
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("epsilon, norm", [(EPSILON, "linf"), (0.2, "l2")])
def test_random_decomposition_equals_its_numpy_twin(n, m, keep, epsilon, norm, images):
    adversarial = adversarial_examples(images, n)
    ball = {"epsilon": epsilon, "norm": norm}
    companions = ReverseSymmetry(**ball, keep_in_range=keep)(images, as_tensors(adversarial), num=m, seed=5)
    # The first m - 1 noises are the draws (where the range does not clip them); the twin is given the same ones.
    free = ReverseSymmetry(**ball)(images, as_tensors(adversarial), num=m, seed=5)
    draws = [companion.numpy() - images for companion in free[:-1]]
    expected = oracles.reverse_symmetry(
        images, adversarial, draws, epsilon, bounds=(0.0, 1.0) if keep else None, norm=norm
    )
    np.testing.assert_allclose(companions, expected, atol=1e-6)


@pytest.mark.parametrize("n, m", [(1, 2), (1, 3), (3, 2)])
def test_split_decomposition_equals_its_numpy_twin(n, m, images):
    adversarial = adversarial_examples(images, n)
    options = {"epsilon": EPSILON, "decomposition": "split"}
    free = ReverseSymmetry(**options, clip=False)(images, as_tensors(adversarial), num=m, seed=5)
    noise = aggregate_noise(images, as_tensors(adversarial)).numpy()
    pixel = np.unravel_index(np.abs(noise.reshape(8, -1)).argmax(axis=1), noise.shape[1:])
    at = (np.arange(8), *pixel)
    weights = np.array([(companion.numpy() - images)[at] / -noise[at] for companion in free])
    np.testing.assert_allclose(weights.sum(axis=0), 1.0, atol=1e-4)
    companions = ReverseSymmetry(**options)(images, as_tensors(adversarial), num=m, seed=5)
    if n == 1:  # every share lies in the ball
        expected = oracles.split(images, adversarial, weights, EPSILON)
    else:  # shares are clipped to it, and the last companion takes what is cut off
        shares = weights.reshape(m, 8, 1, 1, 1) * -noise
        expected = oracles.reverse_symmetry(images, adversarial, list(np.clip(shares[:-1], -0.1, 0.1)), EPSILON)
    np.testing.assert_allclose(companions, expected, atol=1e-5)


def test_shares_of_a_split_are_uniform_on_the_simplex():
    # For m = 3 each share has mean 1/3 and, as Dirichlet(1, 1, 1), variance (1/3 * 2/3) / 4 = 1/18.
    x = tf.zeros((20_000, 1))
    companions = ReverseSymmetry(epsilon=1.0, decomposition="split")(x, (x + 1.0,), num=3, seed=0)
    shares = -np.concatenate(companions, axis=1)
    np.testing.assert_allclose(shares.mean(axis=0), 1 / 3, atol=0.01)
    np.testing.assert_allclose(shares.var(axis=0), 1 / 18, rtol=0.05)


def test_two_to_one_by_hand():
    # x = 0.5, adversarial 0.56 and 0.58: summed noise 0.14, mirrored 0.36, clipped to the ball: 0.4.
    x, adversarial = tf.constant([[0.5]]), as_tensors([np.float32([[0.56]]), np.float32([[0.58]])])
    np.testing.assert_allclose(ReverseSymmetry(epsilon=0.1)(x, adversarial, num=1)[0], [[0.4]], atol=1e-6)
    np.testing.assert_allclose(ReverseSymmetry(epsilon=0.1, clip=False)(x, adversarial, num=1)[0], [[0.36]], atol=1e-6)


def test_one_to_two_by_hand():
    # x = 0.5, adversarial 0.6: the mirrored noise is -0.1. A part of 0.04 leaves -0.14, clipped to -0.1; a part of
    # -0.04 leaves -0.06.
    x, noise = tf.constant([[0.5]]), tf.constant([[0.1]])
    for part, last in ((0.04, 0.4), (-0.04, 0.44)):
        companions = reverse_symmetry(x, noise, [tf.constant([[part]])], epsilon=0.1)
        np.testing.assert_allclose(companions, [[[0.5 + part]], [[last]]], atol=1e-6)


def test_companions_are_kept_in_the_range_where_asked():
    x, x_adv = tf.constant([[0.0, 1.0]]), tf.constant([[0.1, 0.9]])
    np.testing.assert_allclose(ReverseSymmetry(epsilon=0.1)(x, (x_adv,), num=1)[0], [[-0.1, 1.1]], atol=1e-6)
    kept = ReverseSymmetry(epsilon=0.1, keep_in_range=True)
    np.testing.assert_allclose(kept(x, (x_adv,), num=1)[0], [[0.0, 1.0]], atol=1e-6)
    wider = ReverseSymmetry(epsilon=0.1, keep_in_range=True, bounds=(-0.05, 1.2))
    np.testing.assert_allclose(wider(x, (x_adv,), num=1)[0], [[-0.05, 1.1]], atol=1e-6)


def test_the_l2_ball_by_hand():
    # The mirrored noise (-0.3, -0.4) has length 0.5: in the ball of 0.25 it is half as long.
    x, x_adv = tf.constant([[0.5, 0.5], [0.5, 0.5]]), tf.constant([[0.8, 0.9], [0.53, 0.54]])
    companions = ReverseSymmetry(epsilon=0.25, norm="l2")
    np.testing.assert_allclose(companions(x, (x_adv,), num=1)[0], [[0.35, 0.3], [0.47, 0.46]], atol=1e-6)
    signs = ShuffledSigns(epsilon=0.25, norm="l2")(x, (x_adv,), num=1)[0]
    np.testing.assert_allclose(np.abs(signs - x), [[0.15, 0.2], [0.03, 0.04]], atol=1e-6)


def test_shares_of_a_split_stay_in_the_l2_ball():
    x = np.full((50, 6), 0.5, np.float32)
    adversarial = as_tensors(adversarial_examples(x, 3, reach=0.3))
    options = {"epsilon": 0.2, "norm": "l2", "decomposition": "split"}
    whole = ReverseSymmetry(**options, clip=False)(x, adversarial, num=3, seed=1)
    clipped = ReverseSymmetry(**options)(x, adversarial, num=3, seed=1)
    for share, companion in list(zip(whole, clipped))[:-1]:
        expected = oracles.reverse_symmetry(x, [2 * x - share.numpy()], [], 0.2, norm="l2")[0]  # the share, projected
        np.testing.assert_allclose(companion, expected, atol=1e-6)
    assert max(np.linalg.norm(companion - x, axis=1).max() for companion in clipped) <= 0.2 + 1e-6


def test_random_companions_are_uniform_in_the_l2_ball():
    x = np.full((4000, 3), 0.5, np.float32)
    (shown,) = RandomCompanions(epsilon=0.2, norm="l2")(x, (), num=1, seed=1)
    radii = np.linalg.norm(shown - x, axis=1) / 0.2
    assert stats.kstest(radii**3, "uniform").pvalue > 1e-3  # the share of the ball within radius r is r^3


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
def test_every_precision_stays_in_ball_and_range_and_near_float64(dtype, norm, bounds):
    low, width = bounds[0], bounds[1] - bounds[0]
    epsilon = width * (0.05 if norm == "linf" else 0.3)
    rng = np.random.default_rng(0)
    x = tf.cast(low + width * np.clip(rng.uniform(-0.1, 1.1, (8, 4, 4, 1)), 0, 1), dtype)
    x_adv = tf.cast(tf.clip_by_value(x + tf.cast(width * rng.uniform(-0.05, 0.05, x.shape), dtype), *bounds), dtype)
    exact = [tf.cast(part, tf.float64) for part in (x, x_adv)]
    ball = {"epsilon": epsilon, "norm": norm, "bounds": bounds}
    spacing = np.maximum(np.abs(exact[0]), width / 2) * {"float16": 2**-10, "bfloat16": 2**-7}.get(dtype, 2**-20)
    split = ReverseSymmetry(**ball, keep_in_range=True, decomposition="split")
    for kind in (RandomCompanions(**ball), ReverseSymmetry(**ball, keep_in_range=True), split,
                 ShuffledSigns(epsilon=epsilon, norm=norm)):  # fmt: skip
        companions, expected = (kind(part, (adv,), num=2, seed=3) for part, adv in ((x, x_adv), exact))
        for companion, other in zip(companions, expected):
            assert companion.dtype == x.dtype
            found = tf.cast(companion, tf.float64)
            assert np.all(np.abs(found - other) <= spacing)
            noise = np.reshape(found - exact[0], (8, -1))
            order = np.inf if norm == "linf" else 2
            assert np.linalg.norm(noise, ord=order, axis=1).max() <= epsilon * (1 + 1e-6)
            if not isinstance(kind, ShuffledSigns):
                assert np.min(found) >= bounds[0] and np.max(found) <= bounds[1]


def test_random_companions_equal_their_numpy_twin_and_fill_the_ball(images):
    first, second = RandomCompanions(epsilon=EPSILON, bounds=None)(images, (), num=2, seed=3)
    draws = first.numpy() - images
    clipped, _ = RandomCompanions(epsilon=EPSILON)(images, (), num=2, seed=3)
    np.testing.assert_allclose(clipped, oracles.random_companion(images, draws, (0.0, 1.0)), atol=1e-6)
    assert np.abs(first - second).max() > 0.01
    (many,) = RandomCompanions(epsilon=0.5, bounds=None)(np.zeros((10_000, 1), np.float32), (), num=1)
    np.testing.assert_allclose(many.numpy().std(), 0.5 / np.sqrt(3), rtol=0.03)


def test_natural_companions_are_the_images(images):
    for companion in NaturalCompanions()(images, (), num=2):
        np.testing.assert_array_equal(companion, images)


def test_a_permuted_batch_gives_the_permuted_result(images):
    (x_adv,) = adversarial_examples(images, 1)
    order = np.arange(8)[::-1].copy()
    companions = ReverseSymmetry(epsilon=EPSILON)
    (whole,), (permuted,) = (companions(x, (a,), num=1) for x, a in ((images, x_adv), (images[order], x_adv[order])))
    np.testing.assert_array_equal(permuted, whole.numpy()[order])


@pytest.mark.parametrize(
    "make, match",
    [
        (lambda: ReverseSymmetry(epsilon=0), "`epsilon` must be positive"),
        (lambda: ReverseSymmetry(epsilon=-0.1), "`epsilon` must be positive"),
        (lambda: ReverseSymmetry(epsilon=0.1, norm="l1"), "`norm` must be one of"),
        (lambda: ReverseSymmetry(epsilon=0.1, bounds="pixels"), "`bounds` must be one of"),
        (lambda: ReverseSymmetry(epsilon=0.1, bounds="atack"), "Did you mean 'attack'"),
        (lambda: ReverseSymmetry(epsilon=0.1, decomposition="randon"), "Did you mean 'random'"),
        (lambda: ReverseSymmetry(epsilon=0.1, bounds=(1, 0)), "`bounds` must be a pair"),
        (lambda: RandomCompanions(epsilon=float("inf")), "`epsilon` must be positive"),
        (lambda: RandomCompanions(epsilon=0.1, bounds=(0, 0)), "`bounds` must be a pair"),
        (lambda: NoCompanions()(None, (), num=1), "needs companions.*ReverseSymmetry"),
        (lambda: ReverseSymmetry(epsilon=0.1)(tf.zeros((1, 1)), (), num=1), "mirror adversarial ones.*n >= 1"),
    ],
)
def test_bad_input_is_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_no_companions_are_none(images):
    assert NoCompanions()(images, (), num=0) == ()
    assert ReverseSymmetry(epsilon=0.1)(images, as_tensors(adversarial_examples(images, 1)), num=0) == ()


def test_shuffled_signs_have_the_noise_of_the_mirror_in_a_random_direction():
    x = np.random.default_rng(0).uniform(size=(20, 50)).astype(np.float32)
    adversarial = as_tensors(adversarial_examples(x, 2, reach=0.08))  # their sum leaves the ball, and is clipped
    (mirror,) = ReverseSymmetry(epsilon=EPSILON)(x, adversarial, num=1)
    first, second = ShuffledSigns(epsilon=EPSILON)(x, adversarial, num=2, seed=3)
    for companion in (first, second):
        np.testing.assert_allclose(np.abs(companion - x), np.abs(mirror - x), atol=1e-6)
        agreeing = np.mean(np.sign(companion - x) == np.sign(mirror - x))
        assert abs(agreeing - 0.5) < 4 * 0.5 / np.sqrt(1000)  # of 1,000 fair coins
    assert not np.array_equal(first, second)
    with pytest.raises(ValueError, match="mirror adversarial ones"):
        ShuffledSigns(epsilon=EPSILON)(x, (), num=1)
    with pytest.raises(ValueError, match="`epsilon` must be positive"):
        ShuffledSigns(epsilon=0.0)


@pytest.mark.parametrize("word, keeps", [("paper", False), ("valid", True)])
def test_words_of_version_0_1_0_for_the_range(word, keeps):
    for kind, options in (
        (pt.companions.ReverseSymmetry, {}),
        (pt.queries.ReverseSymmetryQuery, {"attack": pt.attacks.fgsm(epsilon=0.1)}),
    ):
        assert kind(epsilon=0.1, bounds=word, **options) == kind(epsilon=0.1, keep_in_range=keeps, **options)


@pytest.mark.parametrize(
    "make",
    [
        lambda: dense_network(num_classes=NUM_CLASSES + 1),
        lambda: keras.Sequential([keras.Input((5,)), keras.layers.Dense(NUM_CLASSES)]),
        lambda: keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(NUM_CLASSES)]),
    ],
    ids=["classes", "images", "no weights"],
)
def test_labels_of_a_network_that_does_not_fit_are_refused(make):
    with pytest.raises(ValueError, match="`labels` must be a network with weights, of the images and classes"):
        pt.AdversarialTraining(
            dense_network(), attack=pt.attacks.pgd(epsilon=0.1, step_size=0.1, num_steps=1), ratio="1/1",
            companions=pt.companions.ScaledNoise(scale=2.0, labels=make()),
        )  # fmt: skip
