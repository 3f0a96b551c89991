"""APGD: against its NumPy twin and the authors' code, by hand, and on real images."""

import dataclasses
import json

import keras
import numpy as np
import oracles
import oracles_apgd
import pytest
import tensorflow as tf
import twins
from conftest import linear_network
from test_method import CountedNetwork

from experiments import datasets
from pineat_tf.attacks import apgd, parts, pgd
from pineat_tf.predictions import predict_logits
from pineat_tf.seeds import fold

NUM_CLASSES = twins.NUM_CLASSES
NUM_STEPS = 20  # checkpoints after 4, 7, 9, 10, 11, ...
EPSILONS = {"linf": 0.1, "l2": 0.3}


oracle, logits_fn, batch = twins.fixtures(20)


# ---------------------------------------------------------------- against the twin


@pytest.mark.parametrize("loss", ["cross_entropy", "dlr", "dlr_targeted"])
@pytest.mark.parametrize("norm, bounds, num_restarts", [("linf", (0.0, 1.0), 1), ("l2", None, 2)])
def test_the_attack_equals_its_numpy_twin(norm, loss, bounds, num_restarts, oracle, logits_fn, batch):
    (x, y), epsilon = batch, EPSILONS[norm]
    num_targets = NUM_CLASSES - 1 if loss == "dlr_targeted" else 1
    noise = np.random.default_rng(6).uniform(-epsilon, epsilon, size=(num_restarts * num_targets, *x.shape))
    starts = [oracles.clip_to_bounds(x + each, bounds) for each in noise]
    expected, ascents = oracles_apgd.apgd(oracle, x, y, starts, epsilon, NUM_STEPS, norm, loss, 0.75, bounds)
    attack = apgd(epsilon=epsilon, num_steps=NUM_STEPS, norm=norm, loss=loss, bounds=bounds, num_restarts=num_restarts)
    coming = iter(starts)
    x_adv = dataclasses.replace(attack, start=lambda x, seed: tf.constant(next(coming)))(logits_fn, x, y).numpy()
    # Losses may be equal but for rounding, as at a maximum, or as the ratios of logits while the true class is third.
    unclear = np.array([any(ascent.hangs_on_rounding for ascent in of_image) for of_image in ascents])
    same = np.abs(x_adv - expected).max(axis=(1, 2, 3)) < 1e-9
    assert (same | unclear).all() and same.mean() >= 0.85 and (~unclear).sum() >= 5
    # The images take different ways: some are fooled, others not, and their step sizes halve at different times.
    fooled = np.abs(x_adv - x).max(axis=(1, 2, 3)) > 0
    assert 4 <= fooled.sum() <= 18
    assert len({ascent.step_sizes[-1] for of_image in ascents for ascent in of_image}) >= 2


def test_one_graph_gives_the_same_as_eager_execution(logits_fn, batch):
    x, y = map(tf.constant, batch)
    attack = apgd(epsilon=0.1, num_steps=NUM_STEPS, loss="dlr", num_restarts=2)
    graph = tf.function(lambda x, y: attack(logits_fn, x, y, seed=3), autograph=False)
    np.testing.assert_allclose(graph(x, y), attack(logits_fn, x, y, seed=3), atol=1e-9)


# ---------------------------------------------------------------- by hand


def test_the_checkpoints_are_those_of_the_paper():
    # Intervals in percent of the steps: 22, 19, 16, 13, 10, 7, then 6 as long as there is room.
    hundred = {22: 22, 41: 19, 57: 16, 70: 13, 80: 10, 87: 7, 93: 6, 99: 6}
    assert apgd(epsilon=0.1).checkpoints() == hundred
    assert apgd(epsilon=0.1, num_steps=1).checkpoints() == {1: 1}
    assert list(apgd(epsilon=0.1, num_steps=20).checkpoints()) == oracles_apgd.checkpoints(20)[1:]


def test_a_linear_network_by_hand():
    # Logits (v, -v): class 0 is lost below v = 0. On one pixel the surface of the ball is x - 0.1 and x + 0.1, and
    # the first step, of 2 * 0.1, goes to x - 0.1 from either: -0.05 and 0.2. Class 1 is the mirror image. The third
    # image is misclassified from the beginning and stays so, at 0.3 + 0.1.
    x, y = np.float32([[0.05], [0.3], [0.3], [-0.05]]), np.array([0, 0, 1, 1])
    attack = apgd(epsilon=0.1, num_steps=4, bounds=None)
    for norm in ("linf", "l2"):
        x_adv = dataclasses.replace(attack, norm=norm)(linear_network([[1, -1]], [0, 0]), x, y, seed=1)
        np.testing.assert_allclose(x_adv, [[-0.05], [0.3], [0.4], [0.05]], atol=1e-6)


@dataclasses.dataclass(frozen=True)
class StartAt:
    """Starts every pixel at one value."""

    value: float

    def __call__(self, x, seed):
        return tf.fill(tf.shape(x), tf.constant(self.value, x.dtype))


def test_four_steps_by_hand():
    # The loss is largest at 0.5 and falls with the distance d from it; class 1 wins everywhere, so the result is the
    # last point. x = 0.5, epsilon 0.4: the ball is [0.1, 0.9], steps start at 0.8. Below 10 steps each is judged.
    # start 0.4                                                                      d = 0.1
    # 1: 0.4 + 0.8 is clipped to 0.9, without momentum. Judged against a loss of 0.  d = 0.4     larger
    # 2: 0.9 - 0.8 = 0.1; 0.9 + 0.75 (0.1 - 0.9) + 0.25 (0.9 - 0.4) = 0.425          d = 0.075   larger, the best
    # 3: 0.9 again; 0.425 + 0.75 (0.9 - 0.425) + 0.25 (0.425 - 0.9) = 0.6625         d = 0.1625  smaller
    #    so the step size becomes 0.4, and the ascent goes on from 0.425 and its gradient, upwards
    # 4: 0.825; 0.425 + 0.75 (0.825 - 0.425) + 0.25 (0.425 - 0.425) = 0.725
    def logits_fn(x):
        return tf.concat([tf.zeros_like(x), 3.0 - tf.abs(x - 0.5)], axis=1)

    for num_steps, expected in {1: 0.9, 2: 0.425, 3: 0.6625, 4: 0.725}.items():
        attack = dataclasses.replace(apgd(epsilon=0.4, num_steps=num_steps), start=StartAt(0.4))
        np.testing.assert_allclose(attack(logits_fn, np.float32([[0.5]]), [0]), [[expected]], atol=1e-6)


def test_starts_lie_on_the_surface_of_the_ball():
    x = tf.fill((2000, 3, 2), 0.5)
    linf = apgd(epsilon=0.2).start(x, 0).numpy().reshape(2000, -1) - 0.5
    np.testing.assert_allclose(np.abs(linf).max(axis=1), 0.2, atol=1e-6)
    # One of 6 coordinates is at the surface. The others are uniform within it: E|.| = (0.2 + 5 * 0.1) / 6.
    np.testing.assert_allclose(np.abs(linf).mean(), 0.7 / 6, rtol=0.02)
    l2 = apgd(epsilon=0.2, norm="l2").start(x, 0).numpy().reshape(2000, -1) - 0.5
    np.testing.assert_allclose(np.linalg.norm(l2, axis=1), 0.2, atol=1e-6)
    np.testing.assert_allclose(np.square(l2).mean(axis=0), 0.2**2 / 6, rtol=0.1)
    clipped = apgd(epsilon=0.7).start(x, 0).numpy()
    assert clipped.min() == 0.0 and clipped.max() == 1.0


# ---------------------------------------------------------------- what it promises


@pytest.mark.parametrize("num_restarts", [1, 3])
def test_each_start_costs_one_gradient_more_than_its_steps(num_restarts):
    counted = CountedNetwork()
    x, y = np.random.default_rng(0).uniform(size=(4, 8, 8, 1)).astype(np.float32), np.arange(4)
    counted.reset()
    apgd(epsilon=0.1, num_steps=7, num_restarts=num_restarts)(counted.network, x, y)
    assert counted.at_images.forwards == counted.attack_gradients == num_restarts * (7 + 1)


def test_further_starts_are_only_of_images_that_none_before_fooled(logits_fn, batch):
    x, y = batch
    sizes = []

    def watched(images):
        sizes.append(len(images))
        return logits_fn(images)

    one = apgd(epsilon=0.1, num_steps=3)
    robust = [np.sum((one(logits_fn, x, y).numpy() == x).all(axis=(1, 2, 3)))]
    dataclasses.replace(one, num_restarts=2)(watched, x, y)
    assert sizes == [20] * 4 + [robust[0]] * 4 and 0 < robust[0] < 20


def test_the_network_is_traced_once_a_start(network, images, labels):
    calls = []

    def counting(x):
        calls.append(1)
        return network(x)

    attack = apgd(epsilon=0.1, num_steps=50)
    tf.function(lambda x, y: attack(counting, x, y), autograph=False)(tf.constant(images), tf.constant(labels))
    assert len(calls) == 1


def test_images_come_back_misclassified_or_as_they_were(oracle, logits_fn, batch):
    x, y = batch
    attack = apgd(epsilon=0.1, num_steps=10)
    x_adv = attack(logits_fn, x, y).numpy()
    kept = (x_adv == x).all(axis=(1, 2, 3))
    wrong = np.argmax(oracle.logits(x_adv), axis=1) != y
    assert (wrong | kept).all() and 0 < kept.sum() < len(x)
    assert wrong[:2].all()


def test_a_later_start_adds_to_the_earlier_ones(logits_fn, batch):
    x, y = batch
    added = 0
    for seed in range(5):
        one, three = (
            apgd(epsilon=0.1, num_steps=1, num_restarts=num)(logits_fn, x, y, seed=seed).numpy() for num in (1, 3)
        )
        by_one, by_three = (np.abs(found - x).max(axis=(1, 2, 3)) > 0 for found in (one, three))
        np.testing.assert_array_equal(three[by_one], one[by_one])
        added += np.sum(by_three & ~by_one)
    assert added > 0


def test_examples_of_a_batch_do_not_influence_each_other(logits_fn, batch):
    x, y = batch
    attack = dataclasses.replace(apgd(epsilon=0.1, num_steps=NUM_STEPS), start=parts.AtNatural())
    whole, order = attack(logits_fn, x, y).numpy(), np.random.default_rng(3).permutation(20)[:7]
    np.testing.assert_allclose(attack(logits_fn, x[order], y[order]), whole[order], atol=1e-9)


@pytest.mark.parametrize("loss", ["cross_entropy", "dlr"])
def test_one_hot_labels_give_the_same_example(loss, logits_fn, batch):
    x, y = batch
    attack = apgd(epsilon=0.1, num_steps=5, loss=loss)
    one_hot = np.eye(NUM_CLASSES)[y]
    np.testing.assert_allclose(attack(logits_fn, x, one_hot), attack(logits_fn, x, y), atol=1e-9)


def test_it_comes_back_equal_from_json():
    attack = apgd(epsilon=0.1, num_steps=7, norm="l2", loss="dlr", num_restarts=2, rho=0.5, bounds=(-1.0, 1.0))
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(attack)))
    assert keras.saving.deserialize_keras_object(config) == attack
    assert dataclasses.replace(attack, bounds=None) != attack


@pytest.mark.parametrize(
    "settings, match",
    [
        ({"epsilon": 0.0}, "`epsilon` must be positive"),
        ({"num_steps": 0}, "`num_steps` must be a whole number >= 1"),
        ({"num_restarts": 0}, "`num_restarts` must be a whole number >= 1"),
        ({"norm": "l1"}, "`norm` must be one of.*'l1'"),
        ({"loss": "ce"}, "`loss` must be one of.*'ce'"),
        ({"rho": 0.0}, "`rho` must be positive"),
        ({"rho": 1.5}, "`rho` must be at most 1. Received: rho=1.5"),
        ({"bounds": (1.0, 0.0)}, "`bounds` must be a pair"),
    ],
)
def test_bad_hyper_parameters_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        apgd(**{"epsilon": 0.1, **settings})


@pytest.mark.parametrize(
    "loss, network, x, match",
    [
        ("dlr", linear_network([[1, -1]], [0, 0]), [[0.5]], "third largest logit.*num_classes=2"),
        ("cross_entropy", linear_network([[1, -1]], [0, 0]), [[1.5]], "every pixel must lie in the bounds"),
        ("cross_entropy", lambda x: tf.stop_gradient(tf.concat([x, -x], axis=1)), [[0.5]], "nothing to ascend"),
    ],
)
def test_bad_data_and_networks_are_refused(loss, network, x, match):
    with pytest.raises(ValueError, match=match):
        apgd(epsilon=0.1, num_steps=2, loss=loss)(network, np.float32(x), [0])


# ---------------------------------------------------------------- real images


@pytest.fixture(scope="module")
def digits_network():
    """A network that has learnt scikit-learn's digits, and 300 of its test images."""
    keras.utils.set_random_seed(0)
    data = datasets.load("digits")
    network = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(0.005), loss)
    network.fit(data.train.images, data.train.labels, batch_size=100, epochs=12, verbose=0)
    return network, data.test.images[:300], data.test.labels[:300]


def test_it_is_stronger_than_pgd(digits_network):
    network, x, y = digits_network
    attacks = {
        "natural": None,
        "pgd": pgd(epsilon=0.1, step_size=2.5 * 0.1 / 20, num_steps=20, random_start=False),
        "apgd": apgd(epsilon=0.1),
        "apgd dlr": apgd(epsilon=0.1, loss="dlr"),
    }
    accuracy = {name: predict_logits(network, (x, y), attack=attack).accuracy for name, attack in attacks.items()}
    assert 0.2 < accuracy["apgd"] <= accuracy["pgd"] < accuracy["natural"] - 0.2
    assert abs(accuracy["apgd dlr"] - accuracy["apgd"]) < 0.03


def test_large_logits_hide_nothing(digits_network):
    # Logits times 10,000 leave the plain cross-entropy without a gradient in float32.
    network, x, y = digits_network
    large = keras.Sequential([network, keras.layers.Rescaling(1e4)])
    pgd_20 = pgd(epsilon=0.1, step_size=0.0125, num_steps=20, random_start=False)
    for attack in (pgd_20, apgd(epsilon=0.1, loss="dlr")):
        by_large, plain = (predict_logits(each, (x, y), attack=attack).accuracy for each in (large, network))
        assert abs(by_large - plain) < 0.02 and plain < 0.6


@pytest.fixture
def torch_in_float64():
    """PyTorch, whose new tensors are float64, as the authors' code makes some to compare losses."""
    torch = pytest.importorskip("torch")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield torch
    torch.set_default_dtype(before)


@pytest.mark.parametrize("loss, theirs", [("cross_entropy", "ce"), ("dlr", "dlr"), ("dlr_targeted", "")])
@pytest.mark.parametrize("norm, epsilon", [("linf", 0.1), ("l2", 0.5)])
def test_it_equals_the_authors_code(norm, epsilon, loss, theirs, digits_network, torch_in_float64):
    torch, module = torch_in_float64, pytest.importorskip("pyautoattack.autopgd_base")
    network, x, y = digits_network
    weights = [weight.astype(np.float64) for weight in network.get_weights()]
    x = x.astype(np.float64)

    def ours(images):
        w1, b1, w2, b2 = weights
        return tf.nn.relu(tf.reshape(images, [-1, 64]) @ w1 + b1) @ w2 + b2

    def twin(images):
        w1, b1, w2, b2 = map(torch.from_numpy, weights)
        return torch.relu(images.reshape(-1, 64) @ w1 + b1) @ w2 + b2

    attack = apgd(epsilon=epsilon, num_steps=25, norm=norm, loss=loss, num_targets=1)
    images, labels = torch.from_numpy(x), torch.from_numpy(y.astype(np.int64))
    settings = {"n_iter": 25, "norm": norm.title(), "eps": epsilon, "device": "cpu"}
    if theirs:
        other = module.APGDAttack(twin, loss=theirs, **settings)
    else:
        other = module.APGDAttack_targeted(twin, **settings)
        other.y_target = twin(images).sort(dim=1)[1][:, -2]
    other.init_hyperparam(images)
    start = torch.from_numpy(attack.start(tf.constant(x), fold(0, 0)).numpy())
    _, robust, _, last_wrong = other.attack_single_run(images, labels, x_init=start)
    expected = torch.where(robust.reshape(-1, 1, 1, 1), images, last_wrong.detach()).numpy()
    x_adv = attack(ours, x, y, seed=0).numpy()
    np.testing.assert_array_equal((x_adv == x).all(axis=(1, 2, 3)), robust.numpy())
    same = np.abs(x_adv - expected).max(axis=(1, 2, 3)) < 1e-6
    gap = oracles.cross_entropy(y, ours(x_adv)).mean() - oracles.cross_entropy(y, ours(expected)).mean()
    assert abs(gap) < 1e-3
    # Where the ratio of logits is 1, its tiny gradient is scaled to length 1 here, to less by the authors' code.
    assert same.mean() > (0.75 if (norm, loss) == ("l2", "dlr") else 0.95)
