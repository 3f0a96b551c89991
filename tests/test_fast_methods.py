"""The methods of one gradient: FGSM-RS, N-FGSM and free adversarial training, by hand and by their NumPy twins."""

import dataclasses

import keras
import numpy as np
import oracles
import oracles_fast
import pytest
import tensorflow as tf
from conftest import dense_network, linear_network
from test_method import CountedNetwork

import pineat_tf as pt
from experiments import method
from experiments.config import ExperimentConfig
from pineat_tf.attacks import fgsm_rs, n_fgsm, parts
from pineat_tf.companions import NaturalCompanions, NoCompanions, ReverseSymmetry
from pineat_tf.projections import uniform_in_linf_ball

EPSILON, BOUNDS = 0.1, (0.0, 1.0)
MIRROR = ReverseSymmetry(epsilon=EPSILON)

# ---------------------------------------------------------------- the two attacks

# name: (attack, radius of its noise, its twin as a function of (model, x, y, noise))
TWINS = {
    "fgsm_rs": (
        fgsm_rs(epsilon=EPSILON),
        EPSILON,
        lambda m, x, y, noise: oracles_fast.fgsm_rs(m, x, y, noise, EPSILON, 0.125, BOUNDS),
    ),
    "fgsm_rs of another step": (
        fgsm_rs(epsilon=EPSILON, step_size=0.03),
        EPSILON,
        lambda m, x, y, noise: oracles_fast.fgsm_rs(m, x, y, noise, EPSILON, 0.03, BOUNDS),
    ),
    "fgsm_rs unbounded": (
        fgsm_rs(epsilon=EPSILON, bounds=None),
        EPSILON,
        lambda m, x, y, noise: oracles_fast.fgsm_rs(m, x, y, noise, EPSILON, 0.125, None),
    ),
    "n_fgsm": (
        n_fgsm(epsilon=EPSILON),
        2 * EPSILON,
        lambda m, x, y, noise: oracles_fast.n_fgsm(m, x, y, noise, EPSILON, BOUNDS),
    ),
    "n_fgsm of other noise and step": (
        n_fgsm(epsilon=EPSILON, noise_scale=0.5, step_size=0.15),
        0.5 * EPSILON,
        lambda m, x, y, noise: oracles_fast.n_fgsm(m, x, y, noise, 0.15, BOUNDS),
    ),
    "n_fgsm unbounded": (
        n_fgsm(epsilon=EPSILON, bounds=None),
        2 * EPSILON,
        lambda m, x, y, noise: oracles_fast.n_fgsm(m, x, y, noise, EPSILON, None),
    ),
}


@pytest.mark.parametrize("name", TWINS)
def test_an_attack_equals_its_numpy_twin(name, network, oracle_network, images, labels):
    (attack, radius, twin), seed = TWINS[name], 7
    noise = uniform_in_linf_ball(tf.constant(images), radius, seed).numpy()
    assert 0.9 * radius < np.abs(noise).max() <= radius
    x_adv = attack(network, images, labels, seed=seed)
    np.testing.assert_allclose(x_adv, twin(oracle_network, images, labels, noise), atol=1e-6)


def one_pixel(attack, value, label, num=4000):
    """What becomes of many images of one pixel, by logits (v, -v): class 0 is attacked downwards, class 1 upwards."""
    x = np.full((num, 1), value, np.float32)
    return attack(linear_network([[1, -1]], [0, 0]), x, np.full(num, label), seed=3).numpy().ravel()


class TestByHand:
    def test_fgsm_rs_steps_from_noise_and_returns_to_the_ball(self):
        # x = 0.5, class 0, noise u uniform in (-0.1, 0.1), a step of 1.25 * 0.1 down: 0.375 + u, at least 0.4. That
        # is 0.4 where u < 0.025, with probability 0.125 / 0.2 = 0.625, and at most 0.475.
        x_adv = one_pixel(fgsm_rs(epsilon=0.1), 0.5, label=0)
        assert np.isclose(x_adv, 0.4, atol=1e-6).mean() == pytest.approx(0.625, abs=0.03)
        assert x_adv.min() == pytest.approx(0.4) and x_adv.max() == pytest.approx(0.475, abs=1e-3)

    def test_fgsm_rs_clips_its_start_to_the_pixels(self):
        # x = 0, class 1: from max(0, u) a step of 0.125 up always passes the ball's end. From u itself it would not.
        np.testing.assert_allclose(one_pixel(fgsm_rs(epsilon=0.1), 0.0, label=1), 0.1, atol=1e-6)
        unclipped = dataclasses.replace(fgsm_rs(epsilon=0.1), start=parts.UniformInBall(0.1))
        assert one_pixel(unclipped, 0.0, label=1).min() < 0.03

    def test_n_fgsm_steps_from_wider_noise_and_stays_where_it_lands(self):
        # x = 0.5, class 0, u uniform in (-0.2, 0.2), a step of 0.1 down: uniform in (0.2, 0.6), half of it outside
        # the ball, which begins at 0.4.
        x_adv = one_pixel(n_fgsm(epsilon=0.1), 0.5, label=0)
        assert x_adv.min() == pytest.approx(0.2, abs=1e-3) and x_adv.max() == pytest.approx(0.6, abs=1e-3)
        assert (x_adv < 0.4).mean() == pytest.approx(0.5, abs=0.03)

    def test_n_fgsm_clips_its_start_to_the_pixels(self):
        # x = 0, class 1: max(0, u) + 0.1. Half of the draws are below 0 and end at 0.1, the others in (0.1, 0.3).
        x_adv = one_pixel(n_fgsm(epsilon=0.1), 0.0, label=1)
        assert np.isclose(x_adv, 0.1, atol=1e-6).mean() == pytest.approx(0.5, abs=0.03)
        assert x_adv.min() == pytest.approx(0.1) and x_adv.max() == pytest.approx(0.3, abs=1e-3)


@pytest.mark.parametrize("attack", [fgsm_rs(epsilon=EPSILON), n_fgsm(epsilon=EPSILON)], ids=["fgsm_rs", "n_fgsm"])
class TestOneGradient:
    def test_it_costs_one_forward_and_one_backward_pass(self, attack):
        counted = CountedNetwork()
        x = np.random.default_rng(0).uniform(size=(4, 8, 8, 1)).astype(np.float32)
        counted.reset()
        attack(counted.network, x, np.arange(4))
        assert (counted.at_images.forwards, counted.at_images.backwards) == (1, 1)

    def test_it_gives_several_examples_of_an_image(self, attack, network, images, labels):
        first, second = (one(network, images, labels, seed=i) for i, one in enumerate(attack.repeats(2)))
        assert np.abs(first - second).max() > 0.01

    def test_it_trains_with_its_mirror_images(self, attack, network, images, labels):
        seen = []
        model = pt.AdversarialTraining(network, attack=attack, companions=Recorder(MIRROR, seen), ratio="1/1")
        fit(model, images, labels, learning_rate=0.05)
        losses = fit(model, images, labels, epochs=30, learning_rate=0.05, eager=False).history["adversarial_loss"]
        assert losses[-1] < 0.6 * losses[0]
        x, (x_adv,), (x_rs,) = seen[0]
        np.testing.assert_allclose(x_rs - x, np.clip(x - x_adv, -EPSILON, EPSILON), atol=1e-6)


@pytest.mark.parametrize(
    "make, match",
    [
        (lambda: fgsm_rs(epsilon=0), "`epsilon` must be positive"),
        (lambda: fgsm_rs(epsilon=0.1, step_size=-1), "`step_size` must be positive"),
        (lambda: fgsm_rs(epsilon=0.1, bounds=(1, 0)), "`bounds` must be a pair"),
        (lambda: n_fgsm(epsilon=float("nan")), "`epsilon` must be positive"),
        (lambda: n_fgsm(epsilon=0.1, step_size=0), "`step_size` must be positive"),
        (lambda: n_fgsm(epsilon=0.1, noise_scale=0), "`noise_scale` must be positive"),
        (lambda: n_fgsm(epsilon=0.1, bounds=3), "`bounds` must be a pair"),
    ],
)
def test_bad_hyper_parameters_of_an_attack_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()


# ---------------------------------------------------------------- free adversarial training


@dataclasses.dataclass(frozen=True)
class Recorder:
    """Companions that keep what they were given and gave; in a graph, that they were traced."""

    companions: object
    seen: list

    def __call__(self, x, adversarial, *, num, seed=0):
        made = self.companions(x, adversarial, num=num, seed=seed)
        given = (x, list(adversarial), list(made))
        self.seen.append(tf.nest.map_structure(np.asarray, given) if tf.executing_eagerly() else None)
        return made


def free(network, batch_size=8, **options):
    return pt.FreeAdversarialTraining(
        network, **{"epsilon": EPSILON, "batch_size": batch_size, "ratio": "3/0", **options}
    )


def fit(model, x, y, learning_rate=0.5, batch_size=8, eager=True, **options):
    model.compile(optimizer=keras.optimizers.SGD(learning_rate), run_eagerly=eager)
    return model.fit(np.float32(x), np.asarray(y), batch_size=batch_size, shuffle=False, verbose=0, **options)


def assert_same_weights(first, second, **tolerance):
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, **tolerance)


class TestFreeByHand:
    """One pixel v of class 0, W = [[w, -w]] and bias [b, -b] from w = 1 and b = 0, learning rate 1.

    With p = 1 / (1 + e^(2 (w v + b))) an update adds p v to w and p to b, and the pixel's gradient is -2 w p: the
    perturbation goes down. Epsilon is 0.1.
    """

    def check(self, pixels, expected, perturbation, companions=NoCompanions(), batch_size=1, **options):
        network = linear_network([[1, -1]], [0, 0])
        model = free(network, batch_size=1, companions=companions, **options)
        fit(model, np.reshape(pixels, (-1, 1)), np.zeros(len(pixels), int), learning_rate=1.0, batch_size=1)
        (w, b), (weights, bias) = expected, network.get_weights()
        np.testing.assert_allclose(weights, [[w, -w]], atol=2e-6)
        np.testing.assert_allclose(bias, [b, -b], atol=2e-6)
        np.testing.assert_allclose(model.perturbation, [[perturbation]], atol=1e-6)

    def test_two_replays_of_one_batch(self):
        # Replay 1 at 0.5, as there is no perturbation yet: p = 1 / (1 + e^1) = 0.268941, so w = 1.134471 and
        # b = 0.268941; the perturbation becomes -0.1. Replay 2 at 0.4: p = 1 / (1 + e^(2 (1.134471 * 0.4 + 0.268941)))
        # = 1 / (1 + e^1.445459) = 0.190701: w = 1.210751, b = 0.459643; -0.2 is clipped to -0.1.
        self.check([0.5], (1.210751, 0.459643), -0.1, ratio="2/0")

    def test_the_next_batch_goes_on_with_the_perturbation(self):
        # The batch above, then 0.3, whose both replays see 0.2:
        # p = 1 / (1 + e^(2 (1.210751 * 0.2 + 0.459643))) = 1 / (1 + e^1.403586) = 0.197248: w = 1.250201, b = 0.656890;
        # p = 1 / (1 + e^(2 (1.250201 * 0.2 + 0.656890))) = 1 / (1 + e^1.813861) = 0.140172: w = 1.278235, b = 0.797063.
        self.check([0.5, 0.3], (1.278235, 0.797063), -0.1, ratio="2/0")

    def test_a_step_of_its_own(self):
        # As the first test, but the second replay is at 0.5 - 0.06 = 0.44:
        # p = 1 / (1 + e^(2 (1.134471 * 0.44 + 0.268941))) = 1 / (1 + e^1.536217) = 0.177086: w = 1.212388,
        # b = 0.446027. The perturbation, -0.12, is clipped to -0.1.
        self.check([0.5], (1.212388, 0.446027), -0.1, ratio="2/0", step_size=0.06)

    def test_a_companion_mirrors_the_images_of_all_replays(self):
        # The images were 0.5 and 0.4, their noises 0 and -0.1, so the mirror image is 0.6:
        # p = 1 / (1 + e^(2 (1.210751 * 0.6 + 0.459643))) = 1 / (1 + e^2.372187) = 0.085318: w = 1.261942, b = 0.544961.
        self.check([0.5], (1.261942, 0.544961), -0.1, ratio="2/1", companions=MIRROR)

    def test_a_pixel_pushed_beyond_its_range_stays_there(self):
        # The first batch leaves -0.1. Pixel 0.05 is clipped from -0.05 to 0, where the clip passes no gradient: though
        # class 1 would pull the pixel up, the perturbation stays.
        model = free(linear_network([[1, -1]], [0, 0]), batch_size=1, ratio="2/0")
        fit(model, [[0.5], [0.05]], [0, 1], batch_size=1)
        np.testing.assert_allclose(model.perturbation, [[-0.1]])
        model = free(linear_network([[1, -1]], [0, 0]), batch_size=1, ratio="2/0", bounds=None)
        fit(model, [[0.5], [0.05]], [0, 1], batch_size=1)  # without a range it goes up, by 0.1 twice
        np.testing.assert_allclose(model.perturbation, [[0.1]])


@pytest.mark.parametrize(
    "ratio, step_size, bounds", [("1/0", None, BOUNDS), ("4/0", 0.04, None), ("3/2", 0.04, BOUNDS)]
)
def test_free_training_equals_its_numpy_twin(ratio, step_size, bounds):
    rng = np.random.default_rng(4)
    weights, bias = rng.normal(size=(6, 3)), rng.normal(size=3)
    x = np.clip(rng.uniform(-0.3, 1.3, size=(13, 6)), 0, 1).astype(np.float32)  # some pixels at the ends of the range
    y, seen, (replays, num) = rng.integers(0, 3, size=13), [], pt.Ratio.parse(ratio)
    network, recorder = linear_network(weights, bias), Recorder(MIRROR if num else NoCompanions(), seen)
    options = {"ratio": ratio, "step_size": step_size, "bounds": bounds}
    model = free(network, batch_size=5, companions=recorder if num else NoCompanions(), **options)
    fit(model, x, y, batch_size=5)  # batches of 5, 5 and 3 images

    twin, perturbation = oracles.LinearModel(weights, bias), np.zeros((5, 6))
    for batch in range(3):
        rows = slice(5 * batch, 5 * batch + 5)
        twin, perturbation, images = oracles_fast.free_replays(
            twin, x[rows], y[rows], perturbation, EPSILON, step_size or EPSILON, replays, 0.5, bounds
        )
        for companion in seen[batch][2] if num else []:
            gradients = oracles.cross_entropy_parameter_gradients(twin, companion, y[rows])
            twin = oracles.LinearModel(twin.weights - 0.5 * gradients[0], twin.bias - 0.5 * gradients[1])
        if num:
            np.testing.assert_allclose(seen[batch][1], images, atol=1e-6)  # what the companions were made from
    np.testing.assert_allclose(network.get_weights()[0], twin.weights, atol=1e-5)
    np.testing.assert_allclose(network.get_weights()[1], twin.bias, atol=1e-5)
    np.testing.assert_allclose(model.perturbation, perturbation, atol=1e-6)
    assert int(model.optimizer.iterations) == 3 * (replays + num)


def test_the_first_replay_of_all_is_natural_training_batch_statistics_included(images, labels):
    def network():
        keras.utils.set_random_seed(0)
        layers = keras.layers
        return keras.Sequential(
            [keras.Input((4, 4, 1)), layers.Flatten(), layers.BatchNormalization(), layers.Dense(3)]
        )

    replayed, natural = network(), network()
    fit(free(replayed, ratio="1/0"), images, labels)
    fit(pt.AdversarialTraining(natural, attack=None, companions=NaturalCompanions(), ratio="0/1"), images, labels)
    assert_same_weights(replayed, natural, atol=1e-7)


@pytest.mark.parametrize("ratio", ["1/0", "8/0", "4/4"])
def test_an_update_is_one_forward_and_one_backward_pass(ratio):
    """The gradients of images and weights come from the same pass: as many passes as natural training."""
    counted, (n, m) = CountedNetwork(), pt.Ratio.parse(ratio)
    variant = "pineat" if m else "original"
    config = ExperimentConfig(dataset="digits", network="mlp", attack="free", variant=variant, ratio=ratio)
    model = method.trainer(config, counted.network)
    counted.reset()
    x = np.random.default_rng(0).uniform(size=(4, 8, 8, 1)).astype(np.float32)
    model.train_step((tf.constant(x), tf.constant(np.arange(4))))
    assert int(model.optimizer.iterations) == n + m
    assert counted.at_images.forwards == counted.at_logits.backwards == n + m
    assert counted.at_images.backwards == n  # companions' updates do not go on to the images
    assert method.round_cost(config) == method.RoundCost(gradients=n + m, forwards=3 * (n + m))


def test_a_graph_gives_what_eager_running_gives_and_traces_once(images, labels):
    x, y = np.concatenate([images, images[:5] * 0.9]), np.concatenate([labels, labels[:5]])  # batches of 8 and 5
    results, calls = [], {True: [], False: []}
    for eager in (True, False):
        keras.utils.set_random_seed(0)
        model = free(dense_network(), ratio="3/2", companions=Recorder(MIRROR, calls[eager]), seed=1)
        fit(model, x, y, eager=eager, epochs=3)
        results.append(model)
    assert_same_weights(*results, atol=1e-5)
    assert len(calls[True]) == 3 * 2 and calls[False] == [None]


def test_the_seed_is_that_of_the_companions_alone(images, labels):
    def weights(seed, **options):
        keras.utils.set_random_seed(0)
        network = dense_network()
        fit(free(network, seed=seed, **options), images, labels)
        return network

    with_companions = {"ratio": "3/2", "companions": MIRROR}
    assert_same_weights(weights(1, **with_companions), weights(1, **with_companions), rtol=0)
    assert_same_weights(weights(1), weights(2), rtol=0)
    with pytest.raises(AssertionError):
        assert_same_weights(weights(1, **with_companions), weights(2, **with_companions), atol=1e-6)


def test_a_smaller_batch_uses_the_first_rows_and_leaves_the_others(images, labels):
    model = free(dense_network(), batch_size=8)
    fit(model, images, labels)
    before = model.perturbation.numpy()
    fit(model, images[3:6], labels[3:6])
    np.testing.assert_array_equal(model.perturbation[3:], before[3:])
    assert (model.perturbation.numpy()[:3] != before[:3]).any()


def test_an_image_of_weight_zero_does_not_move_its_perturbation(images, labels):
    model = free(dense_network())
    fit(model, images, labels, sample_weight=np.arange(8) % 2)
    moved = np.abs(model.perturbation.numpy()).max(axis=(1, 2, 3))
    np.testing.assert_allclose(moved, EPSILON * (np.arange(8) % 2))


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "float16", "mixed_bfloat16"])
def test_images_of_very_sure_networks_move_in_every_precision(policy, images):
    # Logits x W of weights 50 times as large: it is sure of a class by hundreds, and the gradient
    # is that of the likeliest other class, W[:, other] - W[:, own], whose signs the perturbation gets.
    weights = 50.0 * np.random.default_rng(2).normal(size=(16, 3))
    head = keras.layers.Dense(3, dtype=policy)
    network = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), head])
    network.set_weights([weights, np.zeros(3)])
    order = np.argsort(images.reshape(8, 16) @ weights, axis=1)
    model = free(network, ratio="1/0")
    model.compile(keras.optimizers.SGD(0.0))
    model.train_step((tf.constant(images), tf.constant(order[:, -1])))
    expected = EPSILON * np.sign(weights[:, order[:, -2]] - weights[:, order[:, -1]]).T
    np.testing.assert_allclose(model.perturbation.numpy().reshape(8, 16), expected, atol=1e-6)


def test_an_overflow_of_a_scaled_loss_leaves_the_perturbation_as_it_was(images, labels):
    network = dense_network()
    weights = network.get_weights()
    model = free(network)
    model.compile(optimizer=keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=3e38))
    large = tf.fill([8], 100.0)  # 3e38 * 100 / 8 is beyond the largest float32
    model.train_step((tf.constant(images), tf.constant(labels), large))
    assert all((one == other).all() for one, other in zip(weights, network.get_weights()))  # the updates were skipped
    assert np.isfinite(model.perturbation).all()


def test_files_bring_the_trainer_back_with_its_perturbation(images, labels, tmp_path):
    model = free(dense_network(), ratio="2/1", companions=MIRROR, step_size=0.05, seed=3)
    fit(model, images, labels, eager=False)
    model.save(tmp_path / "trainer.keras")
    model.network.save(tmp_path / "network.keras")
    model.save_weights(tmp_path / "trainer.weights.h5")
    loaded = keras.models.load_model(tmp_path / "trainer.keras")
    assert (loaded.epsilon, loaded.step_size, loaded.bounds, loaded.batch_size) == (EPSILON, 0.05, BOUNDS, 8)
    assert (loaded.ratio, loaded.companions, loaded.seed) == (model.ratio, model.companions, 3)
    assert model.companions == dataclasses.replace(MIRROR, norm="linf", bounds=BOUNDS)  # as the perturbation has them
    other = free(dense_network(), ratio="2/1", companions=MIRROR, step_size=0.05, seed=3)
    other.load_weights(tmp_path / "trainer.weights.h5")
    for copy in (loaded, other):
        np.testing.assert_array_equal(copy.perturbation, model.perturbation)
    for trained in (model, loaded):
        trained.fit(images, labels, batch_size=8, verbose=0, shuffle=False)
    assert_same_weights(model, loaded, rtol=0)
    shipped = keras.models.load_model(tmp_path / "network.keras")
    assert [weight.shape for weight in shipped.weights] == [weight.shape for weight in model.network.weights]


# ---------------------------------------------------------------- what free training refuses


@pytest.mark.parametrize(
    "options, match",
    [
        ({"epsilon": 0.0}, "`epsilon` must be positive"),
        ({"step_size": -0.1}, "`step_size` must be positive"),
        ({"batch_size": 0}, "`batch_size` must be a whole number >= 1"),
        ({"bounds": (1.0, 0.0)}, "`bounds` must be a pair"),
        ({"objective": pt.objectives.Trades(beta=6.0)}, "one pass.*Trades"),
        ({"ratio": "0/1", "companions": NaturalCompanions()}, "replays a batch n >= 1 times.*'0/1'"),
        ({"ratio": "2/1"}, "needs companions"),
        ({"companions": MIRROR}, "no room for companions"),
    ],
)
def test_parts_that_do_not_fit_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        free(dense_network(), **options)


@pytest.mark.parametrize("shape", [None, (None, None, 1)])
def test_a_network_must_know_the_shape_of_its_images(shape):
    layers = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
    network = keras.Sequential(([] if shape is None else [keras.Input(shape)]) + layers)
    with pytest.raises(ValueError, match="must know the shape"):
        free(network)
    x = keras.Input((4, 4, 1))
    assert free(keras.Model(x, network(x))).perturbation.shape == (8, 4, 4, 1)  # as the message says


def test_more_than_one_replica_is_refused():
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope(), pytest.raises(ValueError, match="2 replicas"):
        free(linear_network([[1, -1]], [0, 0]))


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("batch_size", [1, 7])  # one row would fit any batch if it were not refused
def test_a_batch_larger_than_the_perturbation_is_refused(batch_size, eager, images, labels):
    network = dense_network()
    weights = network.get_weights()
    with pytest.raises(ValueError, match=f"at most batch_size={batch_size} images.*Received: .?8"):
        fit(free(network, batch_size=batch_size), images, labels, eager=eager)
    assert all((one == other).all() for one, other in zip(weights, network.get_weights()))


def test_pixels_out_of_their_range_are_refused(images, labels):
    with pytest.raises(ValueError, match=r"bounds \[0, 1\]"):
        fit(free(dense_network()), images * 255, labels)


def test_a_network_without_gradient_to_the_images_is_refused(images, labels):
    network = dense_network()
    x = keras.Input((4, 4, 1))
    rounded = keras.Model(x, network(keras.layers.Lambda(lambda x: tf.stop_gradient(tf.round(x)))(x)))
    with pytest.raises(ValueError, match="do not depend on the images"):
        fit(free(rounded), images, labels)
