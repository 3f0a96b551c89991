"""What is seen of a network's first layers, and where images, bounds and network do not fit each other."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers

import pineat_tf as pt
from pineat_tf.pixel_scale import PixelScale, warn_of_scale

SHAPE = (8, 8, 3)


def network(*first):
    return keras.Sequential([keras.Input(SHAPE), *first, layers.Flatten(), layers.Dense(2)])


def functional(first):
    inputs = keras.Input(SHAPE)
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(first(inputs))))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.rescale, self.dense = layers.Rescaling(1 / 255), layers.Dense(2)

    def call(self, inputs):
        return self.dense(self.rescale(inputs))


def by_255():
    return layers.Rescaling(1 / 255)


# What begins a network: what it does to a pixel.
SEEN = {
    "rescaling": (lambda: network(by_255()), (1 / 255, 0.0)),
    "rescaling, offset": (lambda: network(layers.Rescaling(1 / 127.5, offset=-1)), (1 / 127.5, -1.0)),
    "by channel": (lambda: network(layers.Rescaling([1.0, 2.0, 3.0], offset=[0.0, 0.0, 3.0])), (2.0, 1.0)),
    "normalization": (lambda: network(layers.Normalization(mean=[0.3, 0.5, 0.7], variance=[0.04] * 3)), (5.0, -2.5)),
    "inverted": (lambda: network(layers.Normalization(mean=120.0, variance=3600.0, invert=True)), (60.0, 120.0)),
    "one after another": (
        lambda: network(by_255(), layers.Normalization(mean=0.5, variance=0.0625)),
        (4 / 255, -2.0),
    ),
    "after augmentation": (lambda: network(layers.RandomFlip(), layers.Resizing(4, 4), by_255()), (1 / 255, 0.0)),
    "nested": (lambda: network(keras.Sequential([keras.Sequential([by_255()])])), (1 / 255, 0.0)),
    "nested functional": (lambda: functional(keras.Sequential([layers.RandomFlip(), by_255()])), (1 / 255, 0.0)),
    "not built": (lambda: keras.Sequential([by_255(), layers.Dense(2)]), (1 / 255, 0.0)),
    "subclass": (Subclassed, (1 / 255, 0.0)),
    "arithmetic": (lambda: functional(lambda x: x / 127.5 - 1.0), (1 / 127.5, -1.0)),
    "arithmetic, turned": (lambda: functional(lambda x: 1.0 - 0.5 * x), (-0.5, 1.0)),
    "applications": (lambda: functional(keras.applications.mobilenet_v2.preprocess_input), (1 / 127.5, -1.0)),
    "applications, caffe": (lambda: functional(keras.applications.resnet50.preprocess_input), (1.0, -114.7993)),
    "applications, lambda": (
        lambda: network(layers.Lambda(keras.applications.mobilenet_v2.preprocess_input)),
        (1 / 127.5, -1.0),
    ),
}
NOT_SEEN = {
    "nothing": lambda: network(),
    "after a convolution": lambda: network(layers.Conv2D(2, 3), by_255()),
    "not adapted": lambda: keras.Sequential([layers.Normalization(), layers.Dense(2)]),
    "two branches": lambda: functional(lambda x: x + layers.RandomFlip()(x)),
    "a function": lambda: lambda x: x / 255,
}


@pytest.mark.parametrize("name", SEEN)
def test_first_layers_are_read(name):
    make, line = SEEN[name]
    np.testing.assert_allclose(PixelScale.of(make())[:2], line, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", NOT_SEEN.values(), ids=NOT_SEEN)
def test_what_cannot_be_seen_is_not_known(make):
    assert PixelScale.of(make()) is None


def test_a_lambda_of_the_user_is_not_run():
    def explode(x):
        if not isinstance(x, keras.KerasTensor) and not hasattr(x, "graph"):
            raise AssertionError("run")
        return x

    made = network(layers.Lambda(explode))
    assert PixelScale.of(made) is None


NETWORKS = {
    "plain": lambda: network(),
    "255": lambda: network(by_255()),
    "127.5": lambda: network(layers.Rescaling(1 / 127.5, offset=-1)),
    "unit": lambda: network(layers.Rescaling(2.0, offset=-1)),
    "standard": lambda: network(layers.Normalization(mean=0.5, variance=0.06)),
    "standard 255": lambda: network(layers.Normalization(mean=120.0, variance=4000.0)),
    "caffe": lambda: functional(keras.applications.resnet50.preprocess_input),
    "back to 255": lambda: network(layers.Rescaling(255.0), by_255()),
}
FITTING = {
    "plain": [(0, 1), (-1, 1), (0, 255), None],
    "255": [(0, 255), None], "127.5": [(0, 255)], "unit": [(0, 1), (-1, 1)], "standard": [(0, 1), (-1, 1)],
    "standard 255": [(0, 255)], "caffe": [(0, 255)], "back to 255": [(0, 1), (-1, 1)],
}  # fmt: skip
MISFITS = {
    "255": [(0, 1), (-1, 1)], "127.5": [(0, 1), (-1, 1)], "unit": [(0, 255)], "standard": [(0, 255)],
    "standard 255": [(0, 1), (-1, 1)], "caffe": [(0, 1), (-1, 1)],
}  # fmt: skip


@pytest.mark.parametrize("name", FITTING)
def test_what_fits_warns_of_nothing(name):
    made = NETWORKS[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for bounds in FITTING[name]:
            warn_of_scale(made, bounds=bounds)
            images = np.random.default_rng(0).uniform(*(bounds or (0, 255)), size=(8, *SHAPE)).astype(np.float32)
            warn_of_scale(made, bounds=bounds, images=images)
            warn_of_scale(made, images=images)
        warn_of_scale(made, bounds="attack", images=np.zeros((8, *SHAPE)))  # black says nothing


@pytest.mark.parametrize("name", MISFITS)
def test_bounds_and_images_that_do_not_fit_warn(name):
    made = NETWORKS[name]()
    for bounds in MISFITS[name]:
        with pytest.warns(UserWarning, match="of the bounds, the network begins with.*bounds=\\(0, 255\\)"):
            warn_of_scale(made, bounds=bounds)
        with pytest.warns(UserWarning, match="of the images, the network begins with"):
            warn_of_scale(made, images=np.array(bounds, np.float32))


def test_images_that_fill_little_of_the_bounds_warn():
    for images in ([0.0, 1.0], [-1.0, 1.0]):
        with pytest.warns(UserWarning, match=r"fill little of the bounds \[-1, 255\]"):
            warn_of_scale(network(), bounds=(-1, 255), images=np.array(images))


def grey(name):
    """A network of 4 x 4 pixels that begins with what is named."""
    first = {"plain": (), "255": (by_255(),)}[name]
    return keras.Sequential([keras.Input((4, 4, 1)), *first, layers.Flatten(), layers.Dense(3)])


def pgd(bounds):
    width = bounds[1] - bounds[0]
    return pt.attacks.pgd(epsilon=0.1 * width, step_size=0.05 * width, num_steps=1, bounds=bounds)


def fit(network, images, labels, bounds):
    model = pt.AdversarialTraining(network, attack=pgd(bounds))
    model.compile(keras.optimizers.SGD(0.01))
    model.fit(images, labels, batch_size=8, verbose=0)


ENTRIES = {
    "constructor": lambda network, images, labels, bounds: pt.AdversarialTraining(network, attack=pgd(bounds)),
    "fit": fit,
    "predict": lambda network, images, labels, bounds: pt.predict_logits(network, (images, labels), attack=pgd(bounds)),
    "natural": lambda network, images, labels, bounds: pt.predict_logits(network, (images, labels)),
    "robustness": lambda network, images, labels, bounds: pt.robustness(
        network, (images, labels), {"random": lambda e: pt.queries.RandomInBall(epsilon=e, bounds=bounds)},
        epsilons=[0.1 * bounds[1]], bounds=bounds,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_looks(name, images, labels):
    with pytest.warns(UserWarning, match="different scales.*the network begins with rescaling"):
        ENTRIES[name](grey("255"), images, labels, (0.0, 1.0))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Images, bounds and network|On the scale")
        ENTRIES[name](grey("255"), 255.0 * images, labels, (0.0, 255.0))
        ENTRIES[name](grey("plain"), images, labels, (0.0, 1.0))
