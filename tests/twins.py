"""A small network and images, on which attacks are compared with their NumPy twins."""

import math

import numpy as np
import oracles
import pytest
import tensorflow as tf

NUM_CLASSES = 5


def fixtures(num_images, shape=(4, 4, 1), gain=1.0, offset=1.0):
    """The fixtures `oracle`, `logits_fn` and `batch` of a module, in float64; a network of 5 classes."""
    num_pixels = math.prod(shape)

    @pytest.fixture(scope="module")
    def oracle():
        rng = np.random.default_rng(4)
        sizes = (num_pixels, 12), (12,), (12, NUM_CLASSES), (NUM_CLASSES,)
        w1, b1, w2, b2 = map(rng.normal, [0.0] * 4, (gain, 1.0, 1.0, offset), sizes)
        return oracles.TanhMLP(w1, b1, w2, b2)

    @pytest.fixture(scope="module")
    def logits_fn(oracle):
        """The same network in TensorFlow."""
        w1, b1, w2, b2 = map(tf.constant, (oracle.w1, oracle.b1, oracle.w2, oracle.b2))
        return lambda x: tf.tanh(tf.reshape(x, [-1, num_pixels]) @ w1 + b1) @ w2 + b2

    @pytest.fixture(scope="module")
    def batch(oracle):
        """Images and their labels, of which the network gets all but two right."""
        x = np.clip(np.random.default_rng(5).uniform(-0.2, 1.2, size=(num_images, *shape)), 0.0, 1.0)
        y = np.argmax(oracle.logits(x), axis=1)
        y[:2] = (y[:2] + 1) % NUM_CLASSES
        return x, y

    return oracle, logits_fn, batch
