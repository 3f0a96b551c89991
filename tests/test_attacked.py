"""Attacks on what users bring: half precision, very sure networks, heads, ranges, classes, sizes."""

import functools
import json

import keras
import numpy as np
import oracles
import pytest
import tensorflow as tf
from conftest import NUM_CLASSES, SHAPE, linear_network
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from pineat_tf import attacks, losses
from pineat_tf.attacks import parts
from pineat_tf.attacks.attacked import AttackedNetwork
from pineat_tf.checks import data_errors_as_value_errors

HALF = ("mixed_float16", "float16", "mixed_bfloat16", "bfloat16")
EPSILON = 0.1
STEPS = {"epsilon": EPSILON, "step_size": 0.02, "num_steps": 10}


def every_attack(epsilon=EPSILON, bounds=(0.0, 1.0), unit=1.0):
    """One of each kind; `unit` is the length of the pixel range."""
    steps = {"epsilon": epsilon, "step_size": epsilon / 4, "num_steps": 3, "bounds": bounds}
    at, few = {"epsilon": epsilon, "bounds": bounds}, {"epsilon": epsilon, "bounds": bounds, "num_steps": 4}
    return {
        "pgd": attacks.pgd(**steps),
        "pgd l2": attacks.pgd(**steps, norm="l2"),
        "pgd margin": attacks.pgd(**steps, loss="margin"),
        "pgd dlr": attacks.pgd(**steps, loss="dlr"),
        "fgsm": attacks.fgsm(**at),
        "fgsm_rs": attacks.fgsm_rs(**at),
        "n_fgsm": attacks.n_fgsm(**at),
        "dist": attacks.dist(coefficient=unit**2, num_steps=2, bounds=bounds),
        "wrm_l2": attacks.wrm_l2(gamma=1.0 / unit**2, num_steps=2, bounds=bounds),
        "trades_kl": attacks.trades_kl(**steps, start_stddev=0.01 * unit),
        "apgd": attacks.apgd(**few),
        "apgd l2": attacks.apgd(**few, norm="l2"),
        "apgd dlr": attacks.apgd(**few, loss="dlr"),
        "apgd dlr_targeted": attacks.apgd(**few, loss="dlr_targeted"),
        "fab": attacks.fab(epsilon=3 * epsilon, num_steps=4, bounds=bounds),
        "fab l2": attacks.fab(epsilon=9 * epsilon, num_steps=4, norm="l2", bounds=bounds),
        "deepfool": attacks.deepfool(num_steps=3, bounds=bounds),
        "square": attacks.square(**at, num_queries=6),
        "square l2": attacks.square(**at, num_queries=6, norm="l2"),
    }


ATTACKS = every_attack()
KINDS = (
    "pgd l2",
    "dist",
    "wrm_l2",
    "trades_kl",
    "apgd dlr",
    "fab l2",
    "deepfool",
    "square l2",
)  # a way through each class


def least_classes(attack):
    return getattr(attack, "min_classes", 2)


def dense(num_classes, scale=1.0, seed=0, shape=SHAPE, policy=None):
    """A linear network of random weights."""
    layers = [keras.Input(shape, dtype="float32"), keras.layers.Flatten(), keras.layers.Dense(num_classes)]
    network = keras.Sequential(layers)
    rng = np.random.default_rng(seed)
    network.set_weights([rng.normal(size=(np.prod(shape), num_classes)) * scale, rng.normal(size=num_classes)])
    return network


@pytest.fixture(scope="module")
def digits():
    """Weights of a linear model that has learnt scikit-learn's digits, made 50 times as sure, and 100 images."""
    data = load_digits()
    x, y = (data.data / 16).astype(np.float32), data.target
    model = LogisticRegression(C=1.0, max_iter=200).fit(x[:1200], y[:1200])
    right = np.flatnonzero(model.predict(x[1200:]) == y[1200:])[:100] + 1200
    return 50.0 * model.coef_.T, 50.0 * model.intercept_, x[right], y[right]


def sure_network(digits, policy):
    network = keras.Sequential([keras.Input((64,), dtype="float32"), keras.layers.Dense(10, dtype=policy)])
    network.set_weights(digits[:2])
    return network


class TestFadingGradients:
    @pytest.mark.parametrize("loss", ["cross_entropy", "kl", "margin", "dlr", "dlr_targeted"])
    @pytest.mark.parametrize("policy", ["float32", *HALF])
    def test_every_precision_gives_the_gradient_of_exact_arithmetic(self, policy, loss, digits):
        weights, bias, x, y = (part.astype(np.float64) for part in digits)
        network = AttackedNetwork(sure_network(digits, policy), digits[2], digits[3], (0.0, 1.0))
        natural = x @ weights + bias
        natural[np.arange(100), digits[3]] += 30.0  # what the KL starts from
        second = np.argsort(natural, axis=1)[:, -2]
        functions = {
            "cross_entropy": lambda z: losses.unfading_cross_entropy(network.y, z),
            "kl": lambda z: losses.unfading_kl_divergence(tf.cast(natural, z.dtype), z),
            "margin": lambda z: losses.margin(network.y, z),
            "dlr": lambda z: losses.dlr(network.y, z),
            "dlr_targeted": lambda z: losses.dlr_targeted(network.y, second, z),
        }
        _, gradient = network.value_and_gradient(lambda x: functions[loss](network(x)), network.x)
        logits = tf.constant(x @ weights + bias)
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = functions[loss](logits)
        expected = tape.gradient(value, logits).numpy() @ weights.T
        assert gradient.dtype == tf.float32 and np.isfinite(gradient).all()
        cosine = np.sum(unit_rows(gradient) * unit_rows(expected), axis=1)
        # Logits of 8 bits of precision may rank two classes the other way round.
        assert np.median(cosine) > 0.999 and np.mean(cosine > 0.99) >= (0.85 if "bfloat" in policy else 0.97)

    @pytest.mark.parametrize("name", ["pgd", *KINDS[:-1]])  # squares take no gradient
    def test_an_attack_leaves_what_it_leaves_in_float32(self, name, digits):
        x, y = digits[2:]
        attack, exact, left = ATTACKS[name], sure_network(digits, "float32"), []
        for policy in ("float32", "mixed_float16"):
            call = functools.partial(attack, sure_network(digits, policy))
            x_adv = tf.function(call, autograph=False)(tf.constant(x), tf.constant(y))
            left.append(np.mean(np.argmax(exact(x_adv), axis=1) == y))
            if isinstance(attack, attacks.GradientAttack) and attack.epsilon:  # no image is left where it was
                assert np.abs(x_adv - x).max(axis=1).min() > 0.01
        assert abs(left[0] - left[1]) <= 0.04

    def test_logits_far_beyond_what_floats_can_exponentiate(self):
        # z = (0, -5000, -5100), y = 0: p - y = e^-5000 (-1, 1, e^-100) in exact arithmetic, 0 in any float.
        logits, label = tf.constant([[0.0, -5000.0, -5100.0]]), tf.constant([0])
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = losses.unfading_cross_entropy(label, logits)
        gradient = tape.gradient(loss, logits).numpy()
        np.testing.assert_allclose(gradient / 1e-20, [[-1.0, 1.0, 0.0]], rtol=1e-5)

    def test_unfading_losses_are_the_plain_ones_where_those_can_be_computed(self):
        rng = np.random.default_rng(0)
        logits, natural = tf.constant(rng.normal(size=(2, 9, 5)) * 3)
        labels, soft = tf.constant(np.arange(9) % 5), tf.constant(rng.dirichlet(np.ones(5), size=9))
        pairs = (
            (losses.cross_entropy, losses.unfading_cross_entropy, labels),
            (losses.cross_entropy, losses.unfading_cross_entropy, tf.one_hot(labels, 5)),
            (losses.cross_entropy, losses.unfading_cross_entropy, soft),
            (losses.kl_divergence, losses.unfading_kl_divergence, natural),
        )
        for plain, unfading, target in pairs:
            seen = []
            for function in (plain, unfading):
                with tf.GradientTape() as tape:
                    tape.watch(logits)
                    loss = function(target, logits)
                seen.append((loss, tape.gradient(loss, logits)))
            for one, other in zip(*seen):
                np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-14)

    def test_float32_networks_give_the_bits_of_plain_differentiation(self, network, images, labels):
        attacked = AttackedNetwork(network, images, labels, None)
        value, gradient = attacked.value_and_gradient(lambda x: losses.margin(attacked.y, attacked(x)), attacked.x)
        x = tf.constant(images)
        with tf.GradientTape() as tape:
            tape.watch(x)
            expected = losses.margin(tf.constant(labels), network(x))
        np.testing.assert_array_equal(gradient, tape.gradient(expected, x))
        np.testing.assert_array_equal(value, expected)

    def test_l2_steps_have_full_length_however_small_the_gradient(self):
        network = linear_network([[3e-30, 0], [4e-30, 0]], [0, 0])
        attack = attacks.pgd(epsilon=1.0, step_size=0.1, num_steps=1, random_start=False, norm="l2", loss="margin")
        # The margin of class 0 is -3e-30 x_0 - 4e-30 x_1: a step of 0.1 along (-0.6, -0.8).
        np.testing.assert_allclose(attack(network, [[0.5, 0.5]], [0]), [[0.44, 0.42]], atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("attack", [attacks.deepfool(), attacks.fab(epsilon=1.0, num_steps=10, norm="l2")])
def test_a_tie_of_rounded_logits_is_no_end_of_the_way(attack, dtype):
    """Near 4096 logits are 32 apart in bfloat16 and 4 in float16, so that they tie far from where they are equal."""
    logits_fn = lambda x: tf.cast(4096.0 + 40.0 * x, dtype)  # noqa: E731
    x, y = np.float32([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 0])
    x_adv = attack(logits_fn, x, y)
    assert (tf.argmax(logits_fn(x_adv), axis=1).numpy() == 1).all()


class TestSurrogatesOfUsers:
    def check(self, loss, x, y, expected):
        attacked = AttackedNetwork(linear_network([[1.0, -1.0], [2.0, 0.5]], [0, 0]), x, y, None)
        _, gradient = attacked.value_and_gradient(lambda images: loss(attacked, images), attacked.x)
        np.testing.assert_allclose(gradient, expected, rtol=1e-5)

    def test_they_may_take_more_than_the_logits(self):
        # z_0 = x_0 + 2 x_1; the loss z_0^2 - |x|^2 has the gradient 2 z_0 (1, 2) - 2 x = (5, 10) - (1, 2) at (0.5, 1).
        self.check(lambda f, x: f(x)[:, 0] ** 2 - tf.reduce_sum(x**2, axis=1), [[0.5, 1.0]], [0], [[4.0, 8.0]])

    def test_they_may_look_several_times_at_other_images(self):
        # z_0(2 x) + z_1(x)^2 with z_1 = -x_0 + x_1 / 2 = 0.25: 2 (1, 2) + 0.5 (-1, 0.5).
        expected = [[1.5, 4.25], [1.5, 4.25]]
        self.check(lambda f, x: f(2 * x)[:, 0] + f(x)[:, 1] ** 2, [[0.25, 1.0]] * 2, [0, 1], expected)

    def test_they_may_look_at_copies_in_another_order_or_number(self):
        def loss(f, x):
            return tf.reduce_sum(tf.reshape(f(tf.repeat(x[::-1], 3, axis=0))[:, 0] ** 2, [-1, 3]), axis=1)

        # 3 z_0^2 of each image: 6 z_0 (1, 2), z_0 = 1 and 3e-9.
        self.check(loss, [[1.0, 0.0], [3e-9, 0.0]], [0, 1], [[6.0, 12.0], [1.8e-8, 3.6e-8]])

    def test_they_may_look_from_within_a_loop(self):
        network = linear_network([[1.0, -1.0], [2.0, 0.5]], [0, 0])

        def gradient(x, y):
            attacked = AttackedNetwork(network, x, y, None)
            loss = lambda images: tf.map_fn(lambda image: attacked(image[None])[0, 0], images)  # noqa: E731
            return attacked.value_and_gradient(loss, attacked.x)[1]

        looped = tf.function(gradient, autograph=False)
        np.testing.assert_allclose(looped(tf.constant([[0.5, 1.0], [0.25, 0.0]]), tf.constant([0, 1])), [[1, 2]] * 2)

    def test_those_of_a_gradient_attack_survive_half_precision(self, digits):
        def surrogate(logits_fn, x, y):
            return lambda x_adv: 3 * losses.cross_entropy(y, logits_fn(x_adv))

        attack = attacks.GradientAttack(
            surrogate=surrogate,
            start=parts.AtNatural(),
            step=parts.SteepestStep(0.1),
            ball=parts.Unbounded(),
            num_steps=1,
        )
        weights, bias, x, y = digits
        x_adv = attack(sure_network((0.05 * weights, 0.05 * bias), "mixed_float16"), x, y)
        assert (np.abs(x_adv - x).max(axis=1) > 0.05).all()


@pytest.mark.parametrize("dtype, bounds", [("float16", (-1.0, 1.0)), ("bfloat16", (0.0, 255.0))])
class TestHalfPrecisionImages:
    @pytest.mark.parametrize("name", ATTACKS)
    def test_results_lie_in_ball_and_bounds(self, name, dtype, bounds):
        unit = bounds[1] - bounds[0]
        attack = every_attack(EPSILON * unit, bounds, unit)[name]
        x = tf.cast(np.random.default_rng(0).uniform(*bounds, size=(6, *SHAPE)), dtype)
        network = dense(5, 1 / unit)
        x_adv = attack(network, x, np.argmax(network(x), axis=1), seed=3)
        assert x_adv.dtype == dtype
        wide, natural = (tf.cast(part, tf.float64).numpy() for part in (x_adv, x))
        assert wide.min() >= bounds[0] and wide.max() <= bounds[1]
        if isinstance(attack, attacks.GradientAttack):  # others give the image back where it fools nobody
            assert np.abs(wide - natural).max() > 0
        if attack.epsilon is not None and name != "n_fgsm":
            order = {"linf": np.inf, "l2": 2}[attack.norm]
            longest = np.linalg.norm((wide - natural).reshape(6, -1), ord=order, axis=1).max()
            assert longest <= attack.epsilon * (1 + 1e-6)

    def test_steps_below_the_spacing_add_up(self, dtype, bounds):
        # Five spacings' worth of steps of an eighth, held in a ball of two and a half: two are what the dtype can say.
        spacing = 2.0**-8 if dtype == "bfloat16" else 2.0**-11
        unit = bounds[1] - bounds[0]
        x = tf.cast(tf.fill((1, 4), bounds[0] + 0.75 * unit), dtype)
        spacing *= 2.0 ** np.ceil(np.log2(float(x[0, 0]) + 1e-9))
        attack = attacks.pgd(
            epsilon=2.5 * spacing, step_size=spacing / 8, num_steps=40, random_start=False, bounds=bounds, loss="margin"
        )
        x_adv = attack(linear_network([[1, 0]] * 4, [0, 0]), x, [1])  # up
        np.testing.assert_array_equal(tf.cast(x_adv - x, tf.float32), np.full((1, 4), 2 * spacing))


@pytest.mark.parametrize("name", ATTACKS)
class TestEveryAttack:
    def test_the_pixel_range_is_a_matter_of_scale(self, name, network, images, labels):
        low, unit = -1.0, 256.0
        bounds = (low, low + unit)
        plain = network if least_classes(ATTACKS[name]) < 4 else dense(4)
        expected = ATTACKS[name](plain, images, labels, seed=4)
        scaled = every_attack(EPSILON * unit, bounds, unit)[name]
        x_adv = scaled(lambda v: plain((v - low) / unit), images * unit + low, labels, seed=4)
        np.testing.assert_allclose((x_adv - low) / unit, expected, atol=2e-4)

    @pytest.mark.parametrize("num_classes", [1, 3, 100])
    def test_any_number_of_classes(self, name, num_classes, images):
        attack, network = ATTACKS[name], dense(num_classes)
        logits = network(images).numpy()
        y = (logits[:, 0] > 0).astype(np.int64) if num_classes == 1 else np.argmax(logits, axis=1)
        if max(num_classes, 2) < least_classes(attack):
            with pytest.raises(ValueError, match="largest logit.*num_classes=2|largest logit.*num_classes=3"):
                attack(network, images, y)
            return
        x_adv = attack(network, images, y, seed=1)
        assert np.isfinite(x_adv).all() and x_adv.shape == images.shape
        if num_classes == 1:
            binary = attack(lambda v: tf.concat([0 * network(v), network(v)], axis=1), images, y, seed=1)
            np.testing.assert_allclose(x_adv, binary, atol=1e-6)

    def test_whole_numbers_are_refused(self, name):
        with pytest.raises(ValueError, match="floating point"):
            ATTACKS[name](dense(4), np.zeros((2, *SHAPE), np.uint8), np.array([0, 1]))

    def test_a_gradient_that_is_not_finite_leaves_the_image(self, name, images):
        @tf.custom_gradient
        def spoilt(x):
            return tf.identity(x), lambda upstream: upstream * np.nan

        network = dense(4)
        x_adv = ATTACKS[name](lambda v: network(spoilt(v)), images, np.argmax(network(images), axis=1))
        assert np.isfinite(x_adv).all()
        if name in ("fgsm", "deepfool", "dist"):
            np.testing.assert_array_equal(x_adv, images)

    def test_it_says_its_threat_model(self, name):
        attack = ATTACKS[name]
        expected = {"dist": None, "wrm_l2": None, "deepfool": None, "fab": 3 * EPSILON, "fab l2": 9 * EPSILON}
        assert attack.epsilon == expected.get(name, EPSILON)
        assert attack.norm == ("l2" if "l2" in name or name == "deepfool" else "linf")
        assert attack.bounds == (0.0, 1.0) and attack.num_steps >= 1
        assert getattr(attack, "image_rank", None) == (4 if "square" in name else None)

    def test_it_comes_back_from_json_and_from_before_its_newest_fields(self, name):
        attack = ATTACKS[name]
        config = json.loads(json.dumps(keras.saving.serialize_keras_object(attack)))
        assert keras.saving.deserialize_keras_object(config) == attack
        for field in ("targeted", "data_format"):
            config["config"].pop(field, None)
        if name in ("n_fgsm", "dist", "wrm_l2"):
            config["config"]["ball"]["config"] = {}
        older = keras.saving.deserialize_keras_object(config)
        assert type(older) is type(attack) and older.num_steps == attack.num_steps


@pytest.mark.parametrize("name", KINDS)
class TestEveryKindOfAttack:
    def test_labels_beyond_the_logits_are_refused(self, name, images):
        attack, network = ATTACKS[name], dense(4)
        labels = np.array([0, 1, 2, 3, 4, 0, 1, 2])
        with pytest.raises(ValueError, match="network has 4"):
            attack(network, images, labels)
        graph = tf.function(lambda x, y: attack(network, x, y), autograph=False)
        with pytest.raises(ValueError, match="network has 4"), data_errors_as_value_errors():
            graph(tf.constant(images), tf.constant(labels))

    def test_images_of_unknown_size_work_or_are_refused(self, name):
        attack = ATTACKS[name]
        network = keras.Sequential(
            [keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(4)]
        )
        spec = [tf.TensorSpec([None, None, None, 3]), tf.TensorSpec([None], tf.int64)]
        graph = tf.function(lambda x, y: attack(network, x, y), autograph=False, input_signature=spec)
        x, y = np.random.default_rng(0).uniform(size=(2, 6, 5, 3)).astype(np.float32), np.array([0, 1])
        if "square" in name:
            with pytest.raises(ValueError, match="only the batch may be unknown"):
                graph(x, y)
        else:
            np.testing.assert_allclose(graph(x, y), attack(network, x, y), atol=1e-5)


def unit_rows(x):
    rows = np.reshape(x, (len(x), -1)).astype(np.float64)
    rows = rows / np.abs(rows).max(axis=1, keepdims=True)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("make", [attacks.pgd, attacks.apgd, attacks.fab, attacks.square, attacks.fgsm])
def test_norms_are_named_by_numbers_as_well(make):
    more = {"step_size": 0.1, "num_steps": 1} if make is attacks.pgd else {}
    for number, name in ((np.inf, "linf"), (2, "l2"), (float("inf"), "linf"), (2.0, "l2")):
        assert make(epsilon=0.1, norm=number, **more) == make(epsilon=0.1, norm=name, **more)
    for wrong in (1, True, "l1", None):
        with pytest.raises(ValueError, match="`norm` must be one of"):
            make(epsilon=0.1, norm=wrong, **more)


class TestTargeted:
    def test_pgd_equals_its_numpy_twin(self, network, oracle_network, images, labels):
        def down(z):
            return -oracles.cross_entropy_input_gradient(oracle_network, z, (labels + 1) % NUM_CLASSES)

        expected = oracles.linf_sign_ascent(down, images, images, EPSILON, 0.02, 10, (0.0, 1.0))
        attack = attacks.pgd(**STEPS, random_start=False, targeted=True)
        np.testing.assert_allclose(attack(network, images, (labels + 1) % NUM_CLASSES), expected, atol=2e-5)

    def test_one_step_by_hand(self):
        # Two logits (x_0, x_1): towards class 1, x_0 falls and x_1 rises.
        network, x, y = linear_network(np.eye(2), [0, 0]), [[0.5, 0.5]], [1]
        for attack in (attacks.fgsm(epsilon=0.1, targeted=True), attacks.apgd(epsilon=0.1, targeted=True)):
            np.testing.assert_allclose(attack(network, x, y), [[0.4, 0.6]], atol=1e-6)

    @pytest.mark.parametrize(
        "attack",
        [
            attacks.pgd(epsilon=0.4, step_size=0.1, num_steps=10, targeted=True),
            attacks.pgd(epsilon=0.4, step_size=0.1, num_steps=10, targeted=True, loss="dlr"),
            attacks.pgd(epsilon=2.0, step_size=0.4, num_steps=10, targeted=True, norm="l2", loss="margin"),
            attacks.fgsm_rs(epsilon=0.4, targeted=True),
            attacks.n_fgsm(epsilon=0.4, targeted=True),
            attacks.apgd(epsilon=0.4, num_steps=10, targeted=True),
            attacks.apgd(epsilon=0.4, num_steps=10, targeted=True, loss="dlr", num_restarts=2),
        ],
        ids=["pgd", "pgd dlr", "pgd l2", "fgsm_rs", "n_fgsm", "apgd", "apgd dlr"],  # no addresses: workers must agree
    )
    def test_the_classes_given_are_reached(self, attack, images):
        network = dense(4)
        targets = np.argsort(network(images), axis=1)[:, -2]  # the least likely ones lie beyond these radii
        x_adv = attack(network, images, targets, seed=0)
        reached = np.argmax(network(x_adv), axis=1) == targets
        assert reached.mean() >= 0.7 and not np.any(np.argmax(network(images), axis=1) == targets)
        if isinstance(attack, attacks.AutoPGD):
            np.testing.assert_array_equal(np.asarray(x_adv)[~reached], images[~reached])

    def test_the_targeted_ratio_takes_true_classes(self):
        with pytest.raises(ValueError, match="chooses its targets itself.*loss='cross_entropy' or 'dlr'"):
            attacks.apgd(epsilon=0.1, loss="dlr_targeted", targeted=True)


class TestChannelsFirst:
    @pytest.mark.parametrize("norm", ["linf", "l2"])
    def test_it_is_the_transposed_attack(self, norm):
        x = np.random.default_rng(0).uniform(size=(4, 6, 5, 3)).astype(np.float32)
        network = dense(4, shape=(6, 5, 3))
        y = np.argmax(network(x), axis=1)
        last = attacks.square(epsilon=0.3, num_queries=9, norm=norm)(network, x, y)
        first = attacks.square(epsilon=0.3, num_queries=9, norm=norm, data_format="channels_first")
        x_adv = first(lambda v: network(tf.transpose(v, [0, 2, 3, 1])), x.transpose(0, 3, 1, 2), y)
        np.testing.assert_allclose(np.transpose(x_adv, (0, 2, 3, 1)), last, atol=1e-6)

    def test_it_follows_keras(self):
        keras.config.set_image_data_format("channels_first")
        try:
            made = attacks.square(epsilon=0.1), attacks.auto_attack()["square"](0.1)
        finally:
            keras.config.set_image_data_format("channels_last")
        assert {attack.data_format for attack in made} == {"channels_first"}
        assert attacks.auto_attack(data_format="channels_first")["square"](0.1).data_format == "channels_first"
        with pytest.raises(ValueError, match="`data_format` must be one of"):
            attacks.square(epsilon=0.1, data_format="NCHW")

    def test_vectors_are_refused(self):
        with pytest.raises(ValueError, match="vectors, which `apgd` and `fab` attack"):
            attacks.square(epsilon=0.1)(linear_network(np.eye(3), [0, 0, 0]), [[0.1, 0.2, 0.3]], [0])


def test_arrays_of_radii_and_ranges_of_features_are_refused_with_what_is_served():
    with pytest.raises(ValueError, match="`epsilon` must be positive.*one number for all images"):
        attacks.fgsm(epsilon=np.array([0.1, 0.2]))
    with pytest.raises(ValueError, match="`bounds` must be a pair.*feature has a range of its own.*Rescaling"):
        attacks.fgsm(epsilon=0.1, bounds=(np.zeros(3), np.ones(3)))
