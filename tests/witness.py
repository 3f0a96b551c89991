"""A layer that writes down, whenever it is called, what of the user's must stay as it is; for test_untouched.py."""

import random

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state
from tensorflow.python.eager import context

import pineat_tf as pt

# What is watched, by the name of the witness: Keras tracks, and copies, what is an attribute of a layer.
WATCHED: dict[str, list[keras.Layer]] = {}
SEEN: list[dict] = []
OF_KERAS = ("_called", "_losses", "_loss_ids", "_metrics", "_call_context_args")  # Keras' own state of a call


class Witness(keras.layers.Layer):
    """Passes its input on, and writes down what it sees."""

    def call(self, inputs):
        if self.name in WATCHED:
            SEEN.append(state_of(self.name))
        return inputs


def watched_network() -> keras.Model:
    """A witness between layers of every kind that one might change for a call: fused, frozen, random, synchronized."""
    layers = [
        keras.layers.Conv2D(2, 3, use_bias=False, activation="relu"),
        keras.layers.BatchNormalization(synchronized=True),
        keras.layers.Dropout(0.1, seed=1),
        keras.layers.Flatten(),
        keras.layers.Dense(4, activation="tanh", trainable=False),
        keras.layers.Dense(3),
    ]
    witness = Witness()
    network = keras.Sequential([keras.Input((6, 6, 1)), layers[0], witness, *layers[1:]])
    WATCHED[witness.name] = [network, *layers]
    return network


def fit(network: keras.Model, x, y, attack, *, run_eagerly: bool = False, **options) -> None:
    """Trains by PINEAT-1/1 for two rounds."""
    options = {"attack": attack, "companions": pt.companions.ReverseSymmetry(), "ratio": "1/1", **options}
    model = pt.AdversarialTraining(network, **options)
    model.compile("sgd", run_eagerly=run_eagerly)
    model.fit(x, y, batch_size=4, shuffle=False, verbose=0)  # Keras draws an order from TensorFlow's state


def state_of(name: str) -> dict:
    """The layers by the identity of their attributes, settings, and random states."""
    attributes = {
        f"{layer.name}.{key}": id(value)
        for layer in WATCHED[name]
        for key, value in vars(layer).items()
        if key not in OF_KERAS
    }
    generator = global_state.get_global_attribute("global_seed_generator")
    settings = {
        "floatx": keras.config.floatx(),
        "image_data_format": keras.config.image_data_format(),
        "dtype policy": keras.config.dtype_policy().name,
        "Keras' seed": generator and id(generator.state),
        "Python's random state": hash(random.getstate()),
        "NumPy's random state": hash(np.random.get_state()[1].tobytes()),
        "NumPy's position": np.random.get_state()[2],
        "TensorFlow's seed": context.global_seed(),
        "eager": tf.config.functions_run_eagerly(),
    }
    return attributes | settings


def changed_during(network: keras.Model, call, *arrays: np.ndarray) -> set[str]:
    """Calls, and tells what was not as before at any call of the network, or is not afterwards."""
    (name,) = [layer.name for layer in network.layers if isinstance(layer, Witness)]
    before, copies = state_of(name), [array.copy() for array in arrays]
    SEEN.clear()
    call()
    assert SEEN, "the witness was never called"
    states = [*SEEN, state_of(name)]
    changed = {key for state in states for key in before.keys() | state.keys() if state.get(key) != before.get(key)}
    return changed | {"arrays" for one, other in zip(arrays, copies) if not np.array_equal(one, other)}
