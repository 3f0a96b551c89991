"""What an adaptive attacker shows the network: the contract of attacks, x_rs by hand, and several queries together."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import linear_network
from scipy import stats

import pineat_tf as pt
from pineat_tf.queries import GaussianNoise, Natural, RandomInBall, ReverseSymmetryQuery

EPSILON = 0.1
PGD = pt.attacks.pgd(epsilon=EPSILON, step_size=0.05, num_steps=3)
DIST = pt.attacks.dist(num_steps=3)  # leaves the ball

# name: (query, radius and norm of the ball that it stays in or None, whether it stays in the pixel range, random)
QUERIES = {
    "natural": (Natural(), (0.0, np.inf), True, False),
    "random linf": (RandomInBall(epsilon=EPSILON), (EPSILON, np.inf), True, True),
    "random linf unbounded": (RandomInBall(epsilon=EPSILON, bounds=None), (EPSILON, np.inf), False, True),
    "random l2": (RandomInBall(epsilon=EPSILON, norm="l2"), (EPSILON, 2), True, True),
    "gaussian": (GaussianNoise(stddev=EPSILON), None, True, True),
    "gaussian unbounded": (GaussianNoise(stddev=EPSILON, bounds=None), None, False, True),
    "reverse symmetry": (ReverseSymmetryQuery(attack=PGD, epsilon=EPSILON), (EPSILON, np.inf), False, True),
    "reverse symmetry valid": (
        ReverseSymmetryQuery(attack=PGD, epsilon=EPSILON, keep_in_range=True),
        (EPSILON, np.inf),
        True,
        True,
    ),
    "reverse symmetry of dist": (ReverseSymmetryQuery(attack=DIST, epsilon=EPSILON), (EPSILON, np.inf), False, False),
}


def call(query, network, x, y, seed=5):
    return query(lambda images: network(images, training=False), x, y, seed=seed)


@pytest.mark.parametrize("name", QUERIES)
class TestQueries:
    def test_shape_dtype_ball_and_bounds(self, name, network, images, labels):
        query, ball, bounded, _ = QUERIES[name]
        shown = call(query, network, images, labels)
        assert shown.shape == images.shape and shown.dtype == images.dtype
        noise = np.reshape(shown - images, (8, -1))
        assert np.isfinite(noise).all()
        assert np.abs(noise).max() > 1e-3 or name == "natural"
        if ball:
            assert np.linalg.norm(noise, ord=ball[1], axis=1).max() <= ball[0] + 1e-6
        inside = shown.numpy().min() >= 0 and shown.numpy().max() <= 1
        assert inside == bounded  # some pixels stand at the ends of the range, so noise leaves it

    def test_the_seed_decides_eagerly_and_in_a_graph_of_any_batch_size(self, name, network, images, labels):
        query, *_, is_random = QUERIES[name]
        spec = [tf.TensorSpec([None, 4, 4, 1]), tf.TensorSpec([None], tf.int64)]
        graph = tf.function(lambda x, y: call(query, network, x, y), autograph=False, input_signature=spec)
        eager = call(query, network, images, labels)
        np.testing.assert_array_equal(eager, call(query, network, images, labels))
        np.testing.assert_allclose(eager, graph(tf.constant(images), tf.constant(labels)), atol=5e-5)
        assert np.array_equal(eager, call(query, network, images, labels, seed=6)) != is_random
        for size in (3, 1):
            assert graph(images[:size], labels[:size]).shape == (size, 4, 4, 1)
        assert graph.experimental_get_tracing_count() == 1

    def test_no_gradient_flows_through_it_and_no_weight_moves(self, name, network, images, labels):
        weights, x = network.get_weights(), tf.constant(images)
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(call(QUERIES[name][0], network, x, labels))
        assert all(gradient is None for gradient in tape.gradient(total, [x, *network.trainable_variables]))
        for before, after in zip(weights, network.get_weights()):
            np.testing.assert_array_equal(before, after)

    def test_it_comes_back_from_its_config(self, name, network, images, labels):
        query = QUERIES[name][0]
        restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(query))
        assert restored == query
        np.testing.assert_array_equal(call(restored, network, images, labels), call(query, network, images, labels))


def test_the_mirror_image_by_hand():
    # Logits (x, -x) and class 0: the cross-entropy falls with x, so the attack subtracts 0.1 in one step.
    network = linear_network([[1.0, -1.0]], [0.0, 0.0])
    attack = pt.attacks.pgd(epsilon=0.1, step_size=0.1, num_steps=1, random_start=False)
    x, y = np.array([[0.5], [0.97]], np.float32), np.array([0, 0])
    np.testing.assert_allclose(attack(network, x, y), [[0.4], [0.87]], atol=1e-6)
    mirrored = ReverseSymmetryQuery(attack=attack, epsilon=0.1)(network, x, y)
    np.testing.assert_allclose(mirrored, [[0.6], [1.07]], atol=1e-6)  # x - (x_adv - x), which leaves the pixel range
    kept = ReverseSymmetryQuery(attack=attack, epsilon=0.1, keep_in_range=True)(network, x, y)
    np.testing.assert_allclose(kept, [[0.6], [1.0]], atol=1e-6)

    def unlimited(logits_fn, x, y, *, seed):  # says nothing of a ball
        return attack(logits_fn, x, y, seed=seed)

    nearer = ReverseSymmetryQuery(attack=unlimited, epsilon=0.04)(network, x, y)
    np.testing.assert_allclose(nearer, [[0.54], [1.01]], atol=1e-6)  # clipped to the smaller ball


def test_it_mirrors_the_very_example_that_the_attack_shows(network, images, labels):
    x_adv = call(PGD, network, images, labels, seed=7)
    x_rs = call(QUERIES["reverse symmetry"][0], network, images, labels, seed=7)
    np.testing.assert_allclose(x_rs + x_adv, 2 * images, atol=1e-6)
    (companion,) = pt.companions.ReverseSymmetry(epsilon=EPSILON)(images, (x_adv,), num=1)
    np.testing.assert_array_equal(x_rs, companion)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_points_of_the_ball_are_uniform(norm):
    x = np.zeros((4000, 3), np.float32)
    shown = RandomInBall(epsilon=0.2, norm=norm, bounds=None)(None, x, np.zeros(4000, int), seed=1).numpy()
    radii = np.linalg.norm(shown, ord={"linf": np.inf, "l2": 2}[norm], axis=1) / 0.2
    # The share of the ball within radius r is r^3, by either norm.
    assert stats.kstest(radii**3, "uniform").pvalue > 1e-3
    assert np.abs(shown.mean(axis=0)).max() < 5 * 0.2 / np.sqrt(3 * 4000)


def test_gaussian_noise_has_its_deviation():
    x = np.full((500, 40), 0.5, np.float32)
    shown = GaussianNoise(stddev=0.05)(None, x, np.zeros(500, int), seed=2).numpy()
    assert stats.kstest((shown - 0.5).ravel() / 0.05, "norm").pvalue > 1e-3


def test_queries_stream_through_a_predictor(network, images, labels):
    for query, *_ in QUERIES.values():
        predictions = pt.predict_logits(network, (images, labels), attack=query, seed=3, batch_size=8)
        shown = query(network, images, labels, seed=pt.seeds.fold(3, 0))
        np.testing.assert_allclose(predictions.logits, network(shown), atol=2e-4)


def test_several_queries_of_the_same_images(network, images, labels):
    queries = {"natural": None, "adversarial": PGD, "reverse_symmetry": QUERIES["reverse symmetry"][0]}
    seen = pt.queries.predict_queries(network, (images, labels), queries, seed=3, batch_size=3)
    assert list(seen) == list(queries)
    for name, query in queries.items():
        alone = pt.predict_logits(network, (images, labels), attack=query, seed=3, batch_size=3)
        np.testing.assert_array_equal(seen[name].logits, alone.logits)
        np.testing.assert_array_equal(seen[name].labels, labels)


def test_mirrored_queries_of_a_linear_network_cancel(labels):
    # Of a linear network the logits of x_adv and x_rs lie evenly on both sides of those of x.
    network = linear_network(np.random.default_rng(0).normal(size=(6, 3)), np.zeros(3))
    x = np.random.default_rng(1).uniform(0.3, 0.7, size=(8, 6)).astype(np.float32)
    queries = {"natural": Natural(), "adv": PGD, "rs": ReverseSymmetryQuery(attack=PGD, epsilon=EPSILON)}
    seen = pt.queries.predict_queries(network, (x, labels), queries, seed=4)
    assert np.abs(seen["adv"].logits - seen["natural"].logits).min(axis=1).max() > 1e-3
    np.testing.assert_allclose((seen["adv"].logits + seen["rs"].logits) / 2, seen["natural"].logits, atol=1e-5)


def test_scores_of_several_queries_are_averaged():
    found = pt.queries.mean_scores([tf.constant([1.0, 2.0], tf.float64), [3.0, 0.0], np.array([2, 7])])
    np.testing.assert_allclose(found, [2.0, 3.0])
    assert found.dtype == np.float64


def test_bad_input_teaches(network, images, labels):
    with pytest.raises(ValueError, match="`epsilon` must be positive"):
        RandomInBall(epsilon=0)
    with pytest.raises(ValueError, match="`norm` must be one of.*Did you mean 'linf'"):
        RandomInBall(epsilon=0.1, norm="inf")
    with pytest.raises(ValueError, match="`bounds` must be a pair"):
        GaussianNoise(stddev=0.1, bounds=(1, 0))
    with pytest.raises(ValueError, match="`stddev` must be positive"):
        GaussianNoise(stddev=-1)
    with pytest.raises(ValueError, match="`attack` must be one attack.*Received: None"):
        ReverseSymmetryQuery(attack=None, epsilon=0.1)
    with pytest.raises(ValueError, match="`epsilon` must be positive"):
        ReverseSymmetryQuery(attack=PGD, epsilon=-0.1)
    with pytest.raises(ValueError, match="`bounds` must be one of"):
        ReverseSymmetryQuery(attack=PGD, epsilon=0.1, bounds="invalid")
    with pytest.raises(ValueError, match=r"bounds \[0, 1\]"):
        RandomInBall(epsilon=0.1)(network, images * 255, labels)
    with pytest.raises(ValueError, match="at least one query"):
        pt.queries.predict_queries(network, (images, labels), {})
    for scores in ([], [[1.0], [1.0, 2.0]], [[[1.0]]]):
        with pytest.raises(ValueError, match="at least one vector, all of one length"):
            pt.queries.mean_scores(scores)


def test_data_in_a_new_order_every_time_is_refused(network, images):
    shuffled = tf.data.Dataset.from_tensor_slices((images, np.arange(8) % 3)).shuffle(8, seed=0).batch(4)
    with pytest.raises(ValueError, match="same order every time"):
        pt.queries.predict_queries(network, shuffled, {name: None for name in "abc"})
