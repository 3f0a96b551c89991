"""Batches of a training run: every pass a random permutation, and the same after a restart."""

import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf
from dataset_files import pixels

from experiments import datasets


def numbered(num, shape=(4, 3, 1)):
    """A split whose image k has the label k and, in all pixels, a value of its own above 0."""
    values = (np.arange(num, dtype=np.float32) + 1) / num
    return datasets.Split(np.broadcast_to(values[:, None, None, None], (num, *shape)).copy(), np.arange(num))


def batches(split, first_round, num_rounds, batch_size=4, seed=0, **augmentation):
    return list(
        datasets.training_batches(
            split,
            batch_size=batch_size,
            seed=seed,
            first_round=first_round,
            num_rounds=num_rounds,
            **augmentation,
        ).as_numpy_iterator()
    )


@pytest.mark.parametrize("num", [4, 11, 12])
def test_each_pass_is_a_permutation(num):
    """No image twice in a pass, each image with its own label, and each pass in another order."""
    rounds_a_pass = num // 4
    orders = []
    for number in range(5):
        got = batches(numbered(num), number * rounds_a_pass, (number + 1) * rounds_a_pass)
        images, numbers = (np.concatenate(arrays) for arrays in zip(*got))
        assert len(numbers) == len(set(numbers)) == rounds_a_pass * 4
        np.testing.assert_array_equal(images[:, 0, 0, 0], np.float32(numbers + 1) / np.float32(num))
        orders.append(tuple(numbers))
    assert len(set(orders)) == 5


def mixed(mixing, num_rounds=40, data_format="channels_last"):
    """The batches of 4 images, each of one value of its own, and which image each was and was mixed with."""
    split = numbered(4, (6, 5, 1) if data_format == "channels_last" else (1, 6, 5))
    return batches(split, 0, num_rounds, mixing=mixing, num_classes=4, data_format=data_format)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("mixing", ["cutmix", "mixup"])
def test_labels_are_mixed_as_images_are(mixing, data_format):
    """The mean of an image of values 1/4 .. 1 is what its label says of them: shares are what lies in the image."""
    shares = []
    for images, labels in mixed(mixing, data_format=data_format):
        np.testing.assert_allclose(labels.sum(axis=1), 1.0, atol=1e-6)
        np.testing.assert_allclose(images.mean(axis=(1, 2, 3)), labels @ (np.arange(1, 5) / 4), atol=1e-5)
        assert ((labels > 0).sum(axis=1) <= 2).all()
        values = np.unique(images.round(5))
        assert mixing == "mixup" or set(values) <= {0.25, 0.5, 0.75, 1.0}
        shares.append(labels[0, labels[0] > 0].max())
    assert len(set(np.round(shares, 4))) > 10 and min(shares) < 0.6 and max(shares) > 0.9


@pytest.mark.parametrize("augmentation", [{}, {"pad": 2, "flip": True}, {"mixing": "cutmix", "num_classes": 13}])
@pytest.mark.parametrize("first_round", [1, 2, 3, 6, 7, 8])
def test_resumed_batches_are_the_same(augmentation, first_round):
    """3 rounds a pass: within a pass, at its end, and two passes on; the seed decides everything."""
    split = datasets.Split(pixels(13, (4, 3, 1)).astype(np.float32) / 255, np.arange(13))
    whole = batches(split, 0, 8, seed=5, **augmentation)
    resumed = batches(split, first_round, 8, seed=5, **augmentation)
    assert len(resumed) == 8 - first_round
    for a, b in zip(whole[first_round:], resumed):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])
    other = batches(split, 0, 8, seed=6, **augmentation)
    assert any((a[1] != b[1]).any() for a, b in zip(whole, other))


def test_order_is_random():
    """Of 60,000 images sorted into 10 classes, a batch of 256 holds each class as often as in a random order.

    The number of a class in a batch is hypergeometric: mean 25.6, variance 256 * 0.1 * 0.9 * 59744 / 59999 = 22.94.
    Over 468 batches and 10 classes (9 of them free) its relative error is about sqrt(2 / 4212) = 2.2 %; four of these
    are allowed. With `tf.random.experimental.index_shuffle` in place of `stateless_shuffle` it is 34 % off.
    """
    got = batches(numbered(60000, (1, 1, 1)), 0, 468, batch_size=256)
    counts = np.stack([np.bincount(numbers // 6000, minlength=10) for _, numbers in got])
    assert abs(((counts - 25.6) ** 2).mean() / 22.94 - 1) < 0.09


def test_windows_of_the_padded_image():
    """Each image given is one of the 5 x 5 windows of the padded image, mirrored or not; all of them occur."""
    split = datasets.Split(pixels(8, (4, 3, 2)).astype(np.float32) / 255, np.arange(8))
    padded = np.pad(split.images, [[0, 0], [2, 2], [2, 2], [0, 0]])
    windows = {
        (image[top : top + 4, left : left + 3][:, ::step].tobytes(), label): (top, left, step)
        for label, image in enumerate(padded)
        for top in range(5)
        for left in range(5)
        for step in (1, -1)
    }
    given = batches(split, 0, 150, batch_size=8, pad=2, flip=True)
    places = [windows[image.tobytes(), label] for images, numbers in given for image, label in zip(images, numbers)]
    counts = np.unique(places, axis=0, return_counts=True)[1]
    assert len(counts) == 50 and counts.min() >= 8  # 1,200 draws of 50, mean 24, standard deviation 4.8
    assert len(set(places[:8])) > 1  # within a batch, each image has its own


@pytest.mark.parametrize("augmentation, kinds", [({"flip": True}, 2), ({"pad": 1}, 9), ({}, 1)])
def test_one_augmentation_alone(augmentation, kinds):
    split = datasets.Split(pixels(1, (4, 3, 1)).astype(np.float32) / 255, np.arange(1))
    given = {images.tobytes() for images, _ in batches(split, 0, 100, batch_size=1, **augmentation)}
    assert len(given) == kinds and split.images.tobytes() in given


def test_shapes_are_static_and_the_length_is_known():
    ds = datasets.training_batches(
        numbered(10), batch_size=3, seed=2**63 - 1, first_round=5, num_rounds=9, pad=1, flip=True
    )
    assert ds.element_spec == (tf.TensorSpec((3, 4, 3, 1), tf.float32), tf.TensorSpec((3,), tf.int64))
    assert int(ds.cardinality()) == len(list(ds)) == 4


def test_no_rounds_left():
    assert batches(numbered(10), 7, 7) == []


def test_images_are_not_in_the_graph():
    """Neither as a constant nor captured: the graph of the map is small and holds no images, whatever the data are."""
    node = datasets.training_batches(numbered(1000, (8, 8, 1)), batch_size=10, seed=0, first_round=0, num_rounds=3)
    while not node._functions():
        (node,) = node._inputs()
    function = node._functions()[0].function
    assert all(t.shape.num_elements() <= 2 for t in function.captured_inputs)
    assert function.graph.as_graph_def().ByteSize() < 10_000 < 1000 * 8 * 8 * 4


def test_images_are_given_up_with_the_batches(monkeypatch):
    """At once, not when the garbage collector comes: a run makes batches several times, and data sets are large."""
    copies, identity = [], tf.identity
    monkeypatch.setattr(tf, "identity", lambda array: [t := identity(array), copies.append(weakref.ref(t))][0])
    gc.disable()
    try:
        assert len(batches(numbered(10), 0, 3, pad=1, flip=True)) == 3
        assert len(copies) == 2 and all(copy() is None for copy in copies)
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"batch_size": 11}, "`batch_size` must not be larger than the data.*batch_size=11 for 10 images"),
        ({"batch_size": 0}, "`batch_size` must be a whole number >= 1"),
        ({"batch_size": 2.0}, "`batch_size` must be a whole number >= 1"),
        ({"first_round": -1}, "`first_round` must be a whole number >= 0"),
        ({"first_round": 5}, "`num_rounds` must be a whole number >= 5"),
        ({"pad": -1}, "`pad` must be a whole number >= 0"),
        ({"seed": 2**63}, "`seed` must be a whole number of 64 bits"),
        ({"seed": -(2**63) - 1}, "`seed` must be a whole number"),
        ({"seed": "0"}, "`seed` must be a whole number"),
    ],
)
def test_bad_arguments_of_training_batches(changed, message):
    arguments = {"batch_size": 3, "seed": 0, "first_round": 0, "num_rounds": 4, **changed}
    with pytest.raises(ValueError, match=message):
        datasets.training_batches(numbered(10), **arguments)


@pytest.mark.parametrize("augmentation", [{"pad": 1}, {"flip": True}, {"pad": 2, "flip": True}])
def test_channels_first_is_the_transpose_of_channels_last(augmentation):
    last = datasets.Split(pixels(8, (6, 5, 3)).astype(np.float32) / 255, np.arange(8))
    first = datasets.Split(np.ascontiguousarray(last.images.transpose(0, 3, 1, 2)), last.labels)
    for (a, _), (b, _) in zip(batches(last, 0, 6, **augmentation), batches(first, 0, 6, **augmentation, **FIRST)):
        np.testing.assert_array_equal(a.transpose(0, 3, 1, 2), b)


FIRST = {"data_format": "channels_first"}


@pytest.mark.parametrize("shape, options", [((3, 8, 8), {}), ((8, 8, 1), FIRST)])
def test_channels_in_the_other_place_are_refused(shape, options):
    """Height would be cut off the colours; without crops and flips the order does not matter."""
    split = datasets.Split(np.zeros((8, *shape), np.float32), np.arange(8))
    with pytest.raises(ValueError, match="do not look like channels_.*Transpose them"):
        batches(split, 0, 2, flip=True, **options)
    assert len(batches(split, 0, 2, **options)) == 2
