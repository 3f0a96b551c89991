"""FAB and DeepFool: against their NumPy twins, linear networks, optimisers and the authors' code; and FGSM by hand."""

import json

import keras
import numpy as np
import oracles_fab
import pytest
import scipy.optimize
import tensorflow as tf
import twins
from conftest import linear_network
from test_method import CountedNetwork

from experiments import datasets
from pineat_tf.attacks import apgd, deepfool, fab, fgsm, pgd
from pineat_tf.attacks.parts import shift_to_plane
from pineat_tf.predictions import predict_logits

NUM_CLASSES = twins.NUM_CLASSES
RANGE = (0.0, 1.0)
ORDS = {"linf": np.inf, "l2": 2}
DUALS = {"linf": 1, "l2": 2}  # the norm of the gradient that a distance is divided by


def distances(x_adv, x, norm):
    return np.linalg.norm(np.reshape(x_adv - x, (len(x), -1)), ord=ORDS[norm], axis=1)


def closest(attack, network, x, y):
    run = tf.function(lambda x, y: attack.closest(network, x, y), autograph=False)
    return tuple(part.numpy() for part in run(tf.constant(x), tf.constant(y)))


oracle, logits_fn, batch = twins.fixtures(12)


# ---------------------------------------------------------------- the projection


def planes(num, num_pixels, seed=0):
    """Points, some of whose pixels are at the ends of the range; offsets and normals with some zeros."""
    rng = np.random.default_rng(seed)
    x = np.clip(rng.uniform(-0.3, 1.3, size=(num, num_pixels)), 0, 1)
    normal = rng.normal(size=(num, num_pixels)) * (rng.uniform(size=(num, num_pixels)) > 0.1)
    towards = np.where(rng.uniform(size=(num, 1)) > 0.5, 1.0, -1.0) * np.sign(normal)
    reach = np.sum(normal * np.where(towards > 0, 1 - x, -x), axis=1)  # of the corner on one side
    return x, -reach * rng.uniform(0.02, 0.98, size=num), normal


def shift(x, offset, normal, norm, bounds=RANGE):
    return shift_to_plane(*map(tf.constant, (x, offset, normal)), norm, bounds).numpy()


def test_the_linf_projection_is_that_of_a_linear_programme():
    x, offset, normal = planes(30, 7)
    noise, ones = shift(x, offset, normal, "linf"), np.ones((7, 1))
    # minimise t subject to |noise| <= t, normal . noise = -offset, and the range
    within = np.block([[np.eye(7), -ones], [-np.eye(7), -ones]])
    for i in range(30):
        limits = [(-pixel, 1 - pixel) for pixel in x[i]] + [(0, None)]
        equation = {"A_eq": [[*normal[i], 0]], "b_eq": [-offset[i]]}
        best = scipy.optimize.linprog([*np.zeros(7), 1], within, np.zeros(14), **equation, bounds=limits)
        np.testing.assert_allclose(np.abs(noise[i]).max(), best.fun, atol=1e-9)


def test_the_l2_projection_is_that_of_an_optimiser():
    x, offset, normal = planes(30, 7)
    noise = shift(x, offset, normal, "l2")
    for i in range(30):
        on_plane = {"type": "eq", "fun": lambda z, i=i: normal[i] @ z + offset[i], "jac": lambda z, i=i: normal[i]}
        limits = [(-pixel, 1 - pixel) for pixel in x[i]]
        best = scipy.optimize.minimize(
            lambda z: z @ z, np.zeros(7), jac=lambda z: 2 * z, bounds=limits, constraints=on_plane, tol=1e-14
        )
        np.testing.assert_allclose(noise[i], best.x, atol=1e-6)


@pytest.mark.parametrize("norm", ORDS)
@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-10), (np.float32, 1e-4)])
def test_the_projection_equals_its_twin_on_many_pixels(norm, dtype, tolerance):
    x, offset, normal = (part.astype(dtype) for part in planes(12, 3072))
    for bounds in (RANGE, None):
        noise = shift(x, offset, normal, norm, bounds)
        assert noise.dtype == dtype
        for i in range(12):
            expected = oracles_fab.shift_to_plane(*(np.float64(part[i]) for part in (x, offset, normal)), norm, bounds)
            np.testing.assert_allclose(noise[i], expected, atol=tolerance)
        left = offset + np.sum(normal * np.float64(noise), axis=1)  # the noise leads to the plane
        assert np.abs(left).max() < 10 * tolerance * np.abs(offset).max()
        if bounds:
            assert (x + noise).min() >= -1e-6 and (x + noise).max() <= 1 + 1e-6


@pytest.mark.parametrize("norm", ORDS)
def test_projections_by_hand(norm):
    # x + y = 1.2 from (0.2, 0.5): 0.5 is missing, half from each. 1.9 from there: x + y grows by 1.2, but y by 0.5 at
    # most. 3 is out of reach: the corner. The last normal is 0: nowhere to go.
    x = np.tile([0.2, 0.5], (4, 1))
    normal, offset = np.float64([[1, 1], [1, 1], [1, 1], [0, 0]]), np.float64([-0.5, -1.2, -2.3, -1])
    expected = [[0.25, 0.25], [0.7, 0.5], [0.8, 0.5], [0, 0]]
    np.testing.assert_allclose(shift(x, offset, normal, norm), expected, atol=1e-12)
    expected = [[0.25, 0.25], [0.6, 0.6], [1.15, 1.15], [0, 0]]
    np.testing.assert_allclose(shift(x, offset, normal, norm, bounds=None), expected, atol=1e-12)
    # 2 x - y = 0 from there: -0.1 is missing. L-inf: 0.1 / 3 each; L2: 0.1 / 5 times (2, -1).
    moved = shift(x[:1], np.float64([-0.1]), np.float64([[2, -1]]), norm)
    np.testing.assert_allclose(moved, [[0.1 / 3, -0.1 / 3] if norm == "linf" else [0.04, -0.02]], atol=1e-12)


# ---------------------------------------------------------------- FAB against its twin, and what is known


@pytest.mark.parametrize(
    "norm, epsilon, bounds, num_restarts", [("linf", 0.1, RANGE, 2), ("linf", 0.1, None, 1), ("l2", 0.3, RANGE, 2)]
)
def test_the_attack_equals_its_numpy_twin(norm, epsilon, bounds, num_restarts, oracle, logits_fn, batch):
    x, y = batch
    attack = fab(epsilon=epsilon, num_steps=12, norm=norm, num_restarts=num_restarts, num_targets=3, bounds=bounds)
    directions = [attack._direction(tf.constant(x), 7, restart).numpy() for restart in range(num_restarts)]
    expected, known = oracles_fab.fab(oracle, x, y, directions, epsilon, 3, 12, norm, 0.1, 1.05, 0.9, bounds)
    graph = tf.function(lambda x, y: attack.closest(logits_fn, x, y, seed=7), autograph=False)
    found, distance = (part.numpy() for part in graph(tf.constant(x), tf.constant(y)))
    np.testing.assert_allclose(distance, known, atol=1e-8)
    np.testing.assert_allclose(found, expected, atol=1e-8)
    np.testing.assert_allclose(distances(found, x, norm), known, atol=1e-8)
    assert (distance[:2] == 0).all() and 2 <= np.sum(distance[2:] <= epsilon) <= 9


def known_distance(x, label, weights, bias, norm, bounds):
    """Of one image from the nearest boundary of a linear network, within the bounds."""
    known = [np.inf]
    for rival in set(range(len(bias))) - {label}:
        normal, lead = np.float64(weights[:, rival] - weights[:, label]), np.float64(bias[rival] - bias[label])
        lead += normal @ x
        if bounds is None:
            known.append(-lead / np.linalg.norm(normal, ord=DUALS[norm]))
        else:
            noise = oracles_fab.shift_to_plane(np.float64(x), lead, normal, norm, bounds)
            is_reached = abs(lead + normal @ noise) < 1e-9
            known.append(oracles_fab.length(noise, norm) if is_reached else np.inf)
    return min(known)


@pytest.mark.parametrize("norm", ORDS)
def test_it_reaches_the_distance_known_of_a_linear_network(norm):
    rng = np.random.default_rng(2)
    weights, bias = rng.normal(size=(20, 6)).astype(np.float32), rng.normal(size=6).astype(np.float32)
    network, x = linear_network(weights, bias), rng.uniform(0.3, 0.7, size=(30, 20)).astype(np.float32)
    y = np.argmax(x @ weights + bias, axis=1)
    for bounds in (None, (0.25, 0.75)):
        known = np.array([known_distance(*each, weights, bias, norm, bounds) for each in zip(x, y)])
        x_adv, distance = closest(fab(epsilon=None, num_steps=30, norm=norm, bounds=bounds), network, x, y)
        found = np.isfinite(distance)
        np.testing.assert_allclose(distances(x_adv, x, norm), np.where(found, distance, 0), atol=1e-6)
        np.testing.assert_array_equal(found, np.isfinite(known))
        assert found.mean() > 0.5
        ratio = distance[found] / known[found]
        assert ratio.min() > 1 - 1e-4 and ratio.max() < 1.01


def test_a_linear_network_by_hand():
    # Logits (v, -v): class 0 is lost below v = 0. The first step goes 1.05 times the way there. From 0.2: -0.01, at a
    # distance of 0.21, and back to 0.2 - 0.9 * 0.21 = 0.011. The second step goes 1.05 * 0.011 from there, to -0.00055,
    # and to -0.01 from the image, with weights 1 - alpha and alpha = 0.011 / 0.211.
    network, x = linear_network([[1, -1]], [0, 0]), np.float32([[0.2], [0.2], [-0.3]])
    alpha = 0.011 / 0.211
    second = -(1 - alpha) * 0.00055 - alpha * 0.01
    for num_steps, expected in ((1, -0.01), (2, second)):
        for norm in ORDS:
            attack = fab(epsilon=None, num_steps=num_steps, norm=norm, bounds=(-1.0, 1.0))
            x_adv, distance = attack.closest(network, x, [0, 1, 0])
            np.testing.assert_allclose(x_adv, [[expected], [0.2], [-0.3]], atol=1e-6)
            np.testing.assert_allclose(distance, [0.2 - expected, 0, 0], atol=1e-6)


def test_what_lies_beyond_epsilon_is_given_back_natural():
    network, x = linear_network([[1, -1]], [0, 0]), np.float32([[0.05], [0.3], [-0.1]])
    settings = {"num_steps": 20, "bounds": (-1.0, 1.0)}
    x_adv = fab(epsilon=0.1, **settings)(network, x, [0, 0, 0]).numpy()
    assert -0.005 < x_adv[0, 0] < 0
    np.testing.assert_array_equal(x_adv[1:], x[1:])
    anywhere = fab(epsilon=None, **settings)
    assert (anywhere(network, x, [0, 0, 0]).numpy() < 0).all()
    np.testing.assert_allclose(anywhere.closest(network, x, [0, 0, 0]).distance, [0.05, 0.3, 0], rtol=0.01)
    # Within these bounds class 1 cannot be reached.
    x_adv, distance = fab(epsilon=None, num_steps=5, bounds=(0.01, 1.0)).closest(network, x[:2], [0, 0])
    np.testing.assert_array_equal(x_adv, x[:2])
    assert np.isinf(distance).all()


# ---------------------------------------------------------------- what FAB promises


def test_a_step_costs_one_gradient_and_one_prediction():
    counted = CountedNetwork()
    x, y = np.random.default_rng(0).uniform(size=(4, 8, 8, 1)).astype(np.float32), np.arange(4)
    counted.reset()
    fab(epsilon=0.1, num_steps=3, num_targets=2, num_restarts=2)(counted.network, x, y)
    assert counted.attack_gradients == 2 * 2 * 3 and counted.at_images.forwards == 2 * 2 * 2 * 3 + 1


@pytest.mark.parametrize("num_restarts", [1, 2])
def test_the_network_is_traced_as_often_for_any_number_of_steps_and_targets(num_restarts, network):
    calls = []

    def counting(x):
        calls.append(1)
        return network(x)

    attack = fab(epsilon=0.1, num_steps=50, num_targets=2, num_restarts=num_restarts)
    spec = [tf.TensorSpec([None, 4, 4, 1]), tf.TensorSpec([None], tf.int64)]
    graph = tf.function(lambda x, y: attack(counting, x, y), autograph=False, input_signature=spec)
    graph.get_concrete_function()
    assert len(calls) == 1 + 2 * num_restarts  # the natural logits; a restart's gradient and prediction


def test_restarts_are_random_and_only_ever_closer(logits_fn, batch):
    x, y = batch

    def closest(num_restarts, seed):
        attack = fab(epsilon=None, num_steps=1, norm="l2", num_restarts=num_restarts, num_targets=2)
        return attack.closest(logits_fn, x, y, seed=seed)

    (_, one), (by_seed_1, three), (by_seed_2, _) = closest(1, 1), closest(3, 1), closest(3, 2)
    assert (three <= one).numpy().all() and (three < one).numpy().any()
    assert np.abs(by_seed_1 - by_seed_2).max() > 1e-3
    np.testing.assert_array_equal(by_seed_1, closest(3, 1).x_adv)
    np.testing.assert_array_equal(closest(1, 1).x_adv, closest(1, 2).x_adv)


def test_it_returns_misclassified_points_or_natural_images(oracle, logits_fn, batch):
    x, y = batch
    x_adv = fab(epsilon=0.1, num_steps=15)(logits_fn, x, y).numpy()
    kept = (x_adv == x).all(axis=(1, 2, 3))
    wrong = np.argmax(oracle.logits(x_adv), axis=1) != y
    assert (wrong | kept).all() and 0 < np.sum(kept & ~wrong) < 10
    assert distances(x_adv, x, "linf").max() <= 0.1


def test_examples_of_a_batch_do_not_influence_each_other(logits_fn, batch):
    x, y = batch
    attack = fab(epsilon=None, num_steps=10)
    whole, order = attack(logits_fn, x, y).numpy(), np.random.default_rng(3).permutation(12)[:5]
    np.testing.assert_allclose(attack(logits_fn, x[order], y[order]), whole[order], atol=1e-9)


@pytest.mark.parametrize("attack", [fab(epsilon=0.1, num_steps=5), deepfool(num_steps=5)])
def test_one_hot_labels_give_the_same_example(attack, logits_fn, batch):
    x, y = batch
    np.testing.assert_allclose(attack(logits_fn, x, np.eye(NUM_CLASSES)[y]), attack(logits_fn, x, y), atol=1e-9)


@pytest.mark.parametrize(
    "attack",
    [
        fab(epsilon=0.1, num_steps=7, norm="l2", num_restarts=2, num_targets=3, alpha_max=0.2, eta=1.1, beta=0.8),
        fab(epsilon=None, bounds=None),
        deepfool(num_steps=3, overshoot=0.1, bounds=(-1.0, 1.0)),
        pgd(epsilon=0.1, step_size=0.1, num_steps=2, loss="dlr"),
        fgsm(epsilon=0.1),
    ],
)
def test_it_comes_back_equal_from_json(attack):
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(attack)))
    assert keras.saving.deserialize_keras_object(config) == attack


@pytest.mark.parametrize(
    "make, settings, match",
    [
        (fab, {"epsilon": 0.0}, "`epsilon` must be positive"),
        (fab, {"epsilon": 0.1, "num_steps": 0}, "`num_steps` must be a whole number >= 1"),
        (fab, {"epsilon": 0.1, "num_restarts": 0}, "`num_restarts` must be a whole number >= 1"),
        (fab, {"epsilon": 0.1, "num_targets": 0}, "`num_targets` must be a whole number >= 1"),
        (fab, {"epsilon": 0.1, "norm": "l1"}, "`norm` must be one of.*'l1'"),
        (fab, {"epsilon": 0.1, "alpha_max": 0.0}, "`alpha_max` must be positive"),
        (fab, {"epsilon": 0.1, "alpha_max": 1.5}, "`alpha_max` must be at most 1. Received: alpha_max=1.5"),
        (fab, {"epsilon": 0.1, "beta": 1.1}, "`beta` must be at most 1. Received: beta=1.1"),
        (fab, {"epsilon": 0.1, "eta": 0.9}, "`eta` must be at least 1. Received: eta=0.9"),
        (fab, {"epsilon": 0.1, "bounds": (1.0, 0.0)}, "`bounds` must be a pair"),
        (deepfool, {"num_steps": 0}, "`num_steps` must be a whole number >= 1"),
        (deepfool, {"overshoot": 0.0}, "`overshoot` must be positive"),
        (deepfool, {"bounds": (1.0, 0.0)}, "`bounds` must be a pair"),
        (fgsm, {"epsilon": -1.0}, "`epsilon` must be positive"),
        (fgsm, {"epsilon": 0.1, "norm": "l1"}, "`norm` must be one of.*'l1'"),
        (pgd, {"epsilon": 0.1, "step_size": 0.1, "num_steps": 1, "loss": "margins"}, "Did you mean 'margin'"),
    ],
)
def test_bad_hyper_parameters_are_refused(make, settings, match):
    with pytest.raises(ValueError, match=match):
        make(**settings)


@pytest.mark.parametrize("attack", [fab(epsilon=0.1, num_steps=2), deepfool(num_steps=2)])
@pytest.mark.parametrize(
    "network, x, match",
    [
        (linear_network([[1, -1]], [0, 0]), [[1.5]], "every pixel must lie in the bounds"),
        (lambda x: tf.stop_gradient(tf.concat([x, -x], axis=1)), [[0.5]], "nothing to ascend"),
    ],
)
def test_bad_data_and_networks_are_refused(attack, network, x, match):
    with pytest.raises(ValueError, match=match):
        attack(network, np.float32(x), [0])


# ---------------------------------------------------------------- FGSM and the losses of PGD


def test_fgsm_by_hand():
    # Logits (a + 2 b, 0): the cross-entropy of class 0 grows against (1, 2), that of class 1 along it.
    network, x = linear_network([[1, 0], [2, 0]], [0, 0]), np.float32([[0.5, 0.5], [0.5, 0.5], [0.95, 0.5]])
    np.testing.assert_allclose(
        fgsm(epsilon=0.1)(network, x, [0, 1, 1]), [[0.4, 0.4], [0.6, 0.6], [1.0, 0.6]], atol=1e-6
    )
    step = 0.1 / np.sqrt(5)
    expected = [[0.5 - step, 0.5 - 2 * step], [0.5 + step, 0.5 + 2 * step], [0.95 + step, 0.5 + 2 * step]]
    np.testing.assert_allclose(fgsm(epsilon=0.1, norm="l2")(network, x, [0, 1, 1]), expected, atol=1e-6)
    assert fgsm(epsilon=0.1) == pgd(epsilon=0.1, step_size=0.1, num_steps=1, random_start=False)


def test_the_losses_of_pgd_by_hand():
    # Three logits (0, a, b), at (0.5, 0.6), where class 2 leads class 1. The margin of class 0 is b, so b alone grows.
    # Its ratio is (b - 0) / (b - 0) = 1: no gradient. That of class 1 is (b - a) / (b - 0), smaller for larger a, and
    # larger for larger b. The cross-entropy of class 0 grows with both.
    network, x = linear_network([[0, 1, 0], [0, 0, 1]], [0, 0, 0]), np.float32([[0.5, 0.6]])
    for loss, label, expected in [
        ("cross_entropy", 0, [0.6, 0.7]),
        ("margin", 0, [0.5, 0.7]),
        ("margin", 1, [0.4, 0.7]),
        ("dlr", 1, [0.4, 0.7]),
    ]:
        attack = pgd(epsilon=0.1, step_size=0.1, num_steps=2, random_start=False, loss=loss)
        np.testing.assert_allclose(attack(network, x, [label]), [expected], atol=1e-6)


# ---------------------------------------------------------------- DeepFool


@pytest.mark.parametrize("bounds", [RANGE, None])
def test_deepfool_equals_its_numpy_twin(bounds, oracle, logits_fn, batch):
    x, y = batch
    for num_steps in (1, 2, 20):
        attack = deepfool(num_steps=num_steps, bounds=bounds)
        expected = [oracles_fab.deepfool(oracle, *each, num_steps, 0.02, bounds) for each in zip(x, y)]
        np.testing.assert_allclose(attack(logits_fn, x, y), expected, atol=1e-9)


def test_deepfool_of_a_linear_network_is_one_step_of_known_length():
    rng = np.random.default_rng(2)
    weights, bias = rng.normal(size=(20, 6)).astype(np.float32), rng.normal(size=6).astype(np.float32)
    x = rng.uniform(size=(30, 20)).astype(np.float32)
    logits = x @ weights + bias
    y = np.argmax(logits, axis=1)
    leads, normals = logits - logits[np.arange(30), y][:, None], weights[None] - weights.T[y][:, :, None]
    lengths = np.abs(leads) / np.maximum(np.linalg.norm(normals, axis=1), 1e-9)
    lengths[np.arange(30), y] = np.inf
    x_adv = deepfool(num_steps=1, bounds=None)(linear_network(weights, bias), x, y).numpy()
    np.testing.assert_allclose(distances(x_adv, x, "l2"), 1.02 * lengths.min(axis=1), rtol=1e-3)
    assert (np.argmax(x_adv @ weights + bias, axis=1) != y).all()


# ---------------------------------------------------------------- real images


@pytest.fixture(scope="module")
def digits_network():
    """A network that has learnt scikit-learn's digits, and 60 of its test images."""
    keras.utils.set_random_seed(0)
    data = datasets.load("digits")
    layers = [keras.layers.Flatten(), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10)]
    network = keras.Sequential([keras.Input((8, 8, 1)), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(0.005), loss)
    network.fit(data.train.images, data.train.labels, batch_size=100, epochs=12, verbose=0)
    return network, data.test.images[:60], data.test.labels[:60]


def test_it_finds_what_strong_ascents_find(digits_network):
    network, x, y = digits_network
    _, distance = closest(fab(epsilon=None), network, x, y)
    strong = apgd(epsilon=0.1, loss="dlr_targeted", num_steps=50, num_targets=3)
    by_apgd = predict_logits(network, (x, y), attack=strong).accuracy
    by_fab = predict_logits(network, (x, y), attack=fab(epsilon=0.1)).accuracy
    assert 0.2 < by_fab < 0.8 and abs(by_fab - by_apgd) < 0.02
    np.testing.assert_allclose(by_fab, np.mean(distance > 0.1), atol=1e-6)


def test_deepfool_is_near_and_fab_nearer(digits_network):
    network, x, y = digits_network
    _, by_fab = closest(fab(epsilon=None, norm="l2"), network, x, y)
    x_adv = deepfool()(network, x, y).numpy()
    assert (np.argmax(network(x_adv), axis=1) != y).all()
    by_deepfool = distances(x_adv, x, "l2")
    assert np.mean(by_fab <= by_deepfool + 1e-6) > 0.95
    assert 1.0 < np.median(by_deepfool) / np.median(by_fab) < 1.4


@pytest.fixture
def torch():
    """PyTorch on one thread, which is faster on tiny tensors."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(before)


@pytest.mark.parametrize("norm, epsilon", [("linf", 0.1), ("l2", 0.5)])
def test_it_equals_the_authors_code(norm, epsilon, digits_network, torch):
    module = pytest.importorskip("pyautoattack.fab_pt")
    network, x, y = digits_network
    w1, b1, w2, b2 = map(torch.from_numpy, network.get_weights())
    other = module.FABAttack_PT(
        lambda images: torch.relu(images.reshape(-1, 64) @ w1 + b1) @ w2 + b2,
        **{"norm": norm.title(), "n_iter": 100, "eps": epsilon, "targeted": True, "device": "cpu"},
    )
    images, labels = torch.from_numpy(x), torch.from_numpy(y.astype(np.int64))
    expected = np.full(60, np.inf)
    for other.target_class in range(2, 11):
        x_adv = other.attack_single_run(images, labels, is_targeted=True)
        wrong = (other.predict(x_adv).argmax(dim=1) != labels).numpy()
        expected = np.where(wrong, np.minimum(expected, distances(x_adv.numpy(), x, norm)), expected)
    _, distance = closest(fab(epsilon=None, norm=norm), network, x, y)
    np.testing.assert_array_equal(np.isinf(distance), np.isinf(expected))
    assert np.mean(np.abs(distance - expected) <= 1e-4 * expected) > 0.95
    np.testing.assert_allclose(distance, expected, rtol=0.005)
    ours = predict_logits(network, (x, y), attack=fab(epsilon=epsilon, norm=norm)).accuracy
    assert 0.1 < ours < 0.95 and abs(ours - np.mean(expected > epsilon)) < 0.02
