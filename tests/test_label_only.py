"""Label-only attackers against closed forms of linear networks, SciPy's shifts, and a planted leak."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import area, linear_network
from scipy import ndimage, stats

import pineat_tf as pt
from pineat_tf import membership
from pineat_tf.membership import label_only
from pineat_tf.queries import GaussianNoise, RandomInBall


class Counting:
    """An attack that counts how often it is traced."""

    def __init__(self, attack):
        self.attack, self.traces = attack, 0

    def __call__(self, *args, **options):
        self.traces += 1
        return self.attack(*args, **options)


def binary_network():
    """Logits (0, w x - 1.1) with w = (2, 1): class 1 above the line 2 x_1 + x_2 = 1.1."""
    return linear_network([[0.0, 2.0], [0.0, 1.0]], [0.0, -1.1])


def wavering_network():
    """Linear, with weights that add up to 0 over the pixels, so that what it predicts changes with every shift."""
    weights = np.random.default_rng(5).normal(size=(16, 3))
    network = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3, use_bias=False)])
    network.set_weights([weights - weights.mean(axis=0)])
    return network


POINTS = np.random.default_rng(0).uniform(0.1, 0.9, size=(60, 2)).astype(np.float32)
MARGINS = POINTS @ [2, 1] - 1.1


def test_the_share_of_noisy_copies_is_that_of_a_linear_network():
    # Noise of deviation s moves 2 x_1 + x_2 by a normal number of deviation s sqrt(5).
    labels, num_draws = (MARGINS > 0).astype(int), 200
    noise = GaussianNoise(stddev=0.1, bounds=None)
    found = membership.noise_scores(binary_network(), (POINTS, labels), noise=noise, num_draws=num_draws)
    expected = (1 + num_draws * stats.norm.cdf(np.abs(MARGINS) / (0.1 * np.sqrt(5)))) / (num_draws + 1)
    assert found.shape == (60,) and found.dtype == np.float64
    assert np.abs(found - expected).max() < 4 * 0.5 / np.sqrt(num_draws)
    assert abs(np.mean(found - expected)) < 4 * 0.5 / np.sqrt(60 * num_draws)


def test_what_is_misclassified_scores_lowest_even_if_some_copy_is_not():
    labels = (MARGINS > 0).astype(int)
    wrong = np.arange(60) % 2 == 0
    labels[wrong] = 1 - labels[wrong]
    data, ball = (POINTS, labels), RandomInBall(epsilon=0.2)
    copy_is_right = pt.predict_logits(binary_network(), data, attack=ball).logits.argmax(axis=1) == labels
    assert np.any(copy_is_right & wrong)

    def attack_at(radius):
        return RandomInBall(epsilon=radius)

    for found in (
        membership.noise_scores(binary_network(), data, noise=ball, num_draws=5),
        membership.boundary_distance_scores(binary_network(), data, attack_at=attack_at, radii=[0.1, 0.2]),
    ):
        assert found.dtype == np.float64 and found.shape == (60,)
        np.testing.assert_array_equal(found[wrong], 0.0)
        assert found[~wrong].min() > 0 and found.max() == 1


def test_misclassified_images_score_lowest_even_if_they_are_right_when_shifted():
    network = wavering_network()
    x = np.random.default_rng(3).uniform(size=(200, 4, 4, 1)).astype(np.float32)
    data = x, np.random.default_rng(4).integers(0, 3, (200, 1))
    answers, found = label_only.augmentation_answers(network, data), membership.augmentation_scores(network, data)
    assert np.any(~answers[:, 0] & answers.any(axis=1))
    assert found.dtype == np.float64 and found.shape == (200,)
    np.testing.assert_array_equal(found[~answers[:, 0]], 0.0)
    np.testing.assert_allclose(found[answers[:, 0]], answers[answers[:, 0]].mean(axis=1))


def test_draws_differ_and_the_seed_decides():
    data = POINTS, (MARGINS > 0).astype(int)
    first, again, other = (
        membership.noise_scores(binary_network(), data, noise=RandomInBall(epsilon=0.2), num_draws=9, seed=seed)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len(set(first)) > 2  # draws that were all alike would give 1 / 10 and 1 only


def test_noise_and_copies_are_compiled_once(network, images, labels, monkeypatch):
    noise = Counting(RandomInBall(epsilon=0.2))
    membership.noise_scores(network, (images, labels), noise=noise, num_draws=6, batch_size=3)
    assert noise.traces == 1

    class Traced(label_only._Augmented):
        traces = 0

        def __call__(self, *args, **options):
            Traced.traces += 1
            return super().__call__(*args, **options)

    monkeypatch.setattr(label_only, "_Augmented", Traced)
    label_only.augmentation_answers(network, (images, labels), max_shift=2, batch_size=3)
    assert Traced.traces == 1


def test_distances_to_the_boundary_are_those_of_a_linear_network():
    # The L-inf distance of a point to the line is |2 x_1 + x_2 - 1.1| / (2 + 1); one step along the sign reaches it.
    labels, radii = (MARGINS > 0).astype(int), [0.02, 0.05, 0.1, 0.2]
    distances = np.abs(MARGINS) / 3

    def attack_at(radius):
        return pt.attacks.pgd(epsilon=radius, step_size=radius, num_steps=1, random_start=False, bounds=None)

    found = membership.boundary_distance_scores(binary_network(), (POINTS, labels), attack_at=attack_at, radii=radii)
    withstood = np.sum(distances[:, None] > radii, axis=1)
    assert set(withstood) == {0, 1, 2, 3, 4}
    np.testing.assert_allclose(found, (1 + withstood) / 5)
    np.testing.assert_array_equal(np.round(found * 5) - 1, withstood)


def test_an_attack_that_fails_at_a_larger_radius_does_not_undo_the_smaller_one():
    # At 0.1 the point is moved over the boundary, at 0.2 away from it.
    network = linear_network([[0.0, 1.0]], [0.0, -0.5])

    def attack_at(radius):
        return lambda logits_fn, x, y, *, seed: x + (-radius if radius < 0.15 else radius)

    data = np.array([[0.55]], np.float32), np.array([1])
    found = membership.boundary_distance_scores(network, data, attack_at=attack_at, radii=[0.01, 0.1, 0.2])
    np.testing.assert_allclose(found, [2 / 4])


@pytest.mark.parametrize("max_shift, flip, num_copies", [(1, True, 10), (2, False, 13), (0, True, 2), (1, False, 5)])
def test_copies_are_those_of_scipy(max_shift, flip, num_copies, images, labels):
    network = wavering_network()
    answers = label_only.augmentation_answers(network, (images, labels), max_shift=max_shift, flip=flip, batch_size=3)
    assert answers.shape == (8, num_copies) and answers.dtype == bool
    copies = label_only._copies(max_shift, flip)
    assert copies[0] == (0, 0, 0) and len(set(copies)) == num_copies
    for column, (down, across, mirrored) in enumerate(copies):
        copy = images[:, :, ::-1] if mirrored else images
        shifted = ndimage.shift(copy, (0, down, across, 0), order=0, mode="nearest")
        np.testing.assert_array_equal(answers[:, column], np.argmax(network(shifted), axis=1) == labels)
    assert len(np.unique(answers, axis=1).T) > 1  # not all copies are judged alike


def test_the_shown_copies_are_shifted_images():
    query, image = label_only._Augmented(), np.arange(9, dtype=np.float32).reshape(1, 3, 3, 1) / 9
    shown = {}
    for copy in [(0, 0, 0), (1, 0, 0), (0, -1, 0), (0, 0, 1)]:
        query.copy.assign(copy)
        shown[copy] = np.round(query(None, image, np.array([0])).numpy()[0, :, :, 0] * 9).astype(int).tolist()
    assert shown[0, 0, 0] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert shown[1, 0, 0] == [[0, 1, 2], [0, 1, 2], [3, 4, 5]]  # one down, the first row repeated
    assert shown[0, -1, 0] == [[1, 2, 2], [4, 5, 5], [7, 8, 8]]  # one to the left
    assert shown[0, 0, 1] == [[2, 1, 0], [5, 4, 3], [8, 7, 6]]


def overfitted(seed=0, num=150):
    """A network that has learned random labels of its members by heart, and as many images that it has not seen."""
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=(2 * num, 4, 4, 1)).astype(np.float32)
    y = (x[:, :2].mean(axis=(1, 2, 3)) > 0.5).astype(int) ^ (rng.uniform(size=2 * num) < 0.15)
    network = keras.Sequential(
        [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(128, "relu"), keras.layers.Dense(2)]
    )
    network.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    network.fit(x[:num], y[:num], epochs=100, batch_size=50, verbose=0)
    return network, (x[:num], y[:num]), (x[num:], y[num:])


def test_an_overfitted_network_leaks_by_labels_alone():
    network, members, non_members = overfitted()
    noise = GaussianNoise(stddev=0.1)
    found = [membership.noise_scores(network, data, noise=noise, num_draws=12) for data in (members, non_members)]
    right = [pt.predict_logits(network, data).accuracy for data in (members, non_members)]
    gap_area = 0.5 + (right[0] - right[1]) / 2  # of the score that is 1 where correct
    # Unless members lay further from the boundary, noise would tell no more than correctness does.
    assert right[0] > 0.95 and right[1] < 0.9
    assert area(*found) > gap_area + 0.05

    def attack_at(radius):
        return pt.attacks.pgd(epsilon=radius, step_size=radius / 2, num_steps=3, random_start=False)

    distances = [
        membership.boundary_distance_scores(network, data, attack_at=attack_at, radii=[0.02, 0.05])
        for data in (members, non_members)
    ]
    assert area(*distances) > gap_area + 0.03


def test_an_untrained_network_leaks_nothing_by_labels():
    network = wavering_network()
    x = np.random.default_rng(1).uniform(size=(600, 4, 4, 1)).astype(np.float32)
    y = np.random.default_rng(2).integers(0, 3, 600)
    noise = RandomInBall(epsilon=0.2)
    scores = membership.noise_scores(network, (x, y), noise=noise, num_draws=8)
    copies = membership.augmentation_scores(network, (x, y))
    for found in (scores, copies):  # an AUC of 300 against 300 has a deviation of .0236 at most (ties lower it)
        assert abs(area(found[:300], found[300:]) - 0.5) < 3 * 0.0236


def test_datasets_and_one_hot_labels_are_taken(network, images, labels):
    data = tf.data.Dataset.from_tensor_slices((images, tf.one_hot(labels, 3))).batch(3)
    noise = RandomInBall(epsilon=0.3)
    np.testing.assert_array_equal(
        membership.noise_scores(network, data, noise=noise, num_draws=4),
        membership.noise_scores(network, (images, labels), noise=noise, num_draws=4, batch_size=3),
    )
    np.testing.assert_array_equal(
        membership.augmentation_scores(network, data), membership.augmentation_scores(network, (images, labels))
    )


def test_bad_input_teaches(network, images, labels):
    data, ball = (images, labels), RandomInBall(epsilon=0.1)
    with pytest.raises(ValueError, match="`num_draws` must be a whole number >= 1"):
        membership.noise_scores(network, data, noise=ball, num_draws=0)
    for radii, message in (([], "rising, at least one"), ([0.2, 0.1], "rising"), ([-0.1, 0.1], "must be positive")):
        with pytest.raises(ValueError, match=message):
            membership.boundary_distance_scores(network, data, attack_at=lambda radius: ball, radii=radii)
    with pytest.raises(ValueError, match="`max_shift` must be a whole number >= 0"):
        membership.augmentation_scores(network, data, max_shift=-1)
    with pytest.raises(ValueError, match="something to change. Received: max_shift=0, flip=False"):
        membership.augmentation_scores(network, data, max_shift=0, flip=False)
    flat = linear_network(np.ones((6, 3)), np.zeros(3)), (np.ones((8, 6), np.float32), labels)
    with pytest.raises(ValueError, match=r"shape \(height, width, channels\).*Received: shape \(6,\)"):
        membership.augmentation_scores(*flat)
    shuffled = tf.data.Dataset.from_tensor_slices(data).shuffle(8, seed=0).batch(4)
    with pytest.raises(ValueError, match="same order every time"):
        membership.noise_scores(network, shuffled, noise=ball, num_draws=4)
