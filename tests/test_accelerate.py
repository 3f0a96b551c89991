"""Batches in parts side by side, and convolutions that can be fused: the same numbers, and nothing left behind."""

import json
import pathlib
import random
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import dense_network

import pineat_tf as pt
from experiments import machine
from pineat_tf import accelerate

ROOT = pathlib.Path(__file__).parents[1]

# Threads are a setting of the process, so that these run in one of their own: split, and as without the setting.
IN_PARTS = """
import json, sys, keras, numpy as np, tensorflow as tf
import pineat_tf as pt
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})  # as in conftest.py
assert pt.accelerate._threads() == (0, 0)
assert pt.accelerate.set_threads(3) == 3
layers = keras.layers
x = np.random.default_rng(0).random((36, 6, 6, 1), dtype="float32")
y = np.arange(36) % 3

def figures():
    keras.utils.set_random_seed(0)
    results, kinds = {}, {"plain": [], "batch norm": [layers.BatchNormalization()], "dropout": [layers.Dropout(0.5)]}
    for kind, extra in kinds.items():
        network = keras.Sequential([keras.Input((6, 6, 1)), layers.Conv2D(4, 3, use_bias=False, activation="relu"),
                                    *extra, layers.Flatten(), layers.Dense(3)])
        call, count = pt.accelerate.compute_twin(network), lambda f, *shape: len([op for op in f.get_concrete_function(
            tf.TensorSpec(shape)).graph.get_operations() if op.type == "Conv2D"])
        inference = tf.function(lambda x, call=call: call(x, training=False), autograph=False)
        training = tf.function(lambda x, call=call: call(x, training=True), autograph=False)
        results[kind] = {
            "inference": [count(inference, num, 6, 6, 1) for num in (36, 12, None)],
            "training": count(training, 36, 6, 6, 1),
        }
        if kind == "dropout":  # its draws differ
            continue
        attack = pt.attacks.pgd(epsilon=0.1, step_size=0.05, num_steps=3)
        model = pt.AdversarialTraining(network, attack=attack, ratio="1/1", forward=call,
                                       companions=pt.companions.ReverseSymmetry(epsilon=0.1))
        model.compile(optimizer=keras.optimizers.SGD(0.1))
        model.fit(x, y, batch_size=36, epochs=2, shuffle=False, verbose=0)
        some = {num: pt.predict_logits(call, (x[:num], y[:num]), attack=attack).logits.tolist() for num in (1, 5, 36)}
        results[kind] |= {"weights": [w.tolist() for w in network.get_weights()], "predictions": some}
    return results

in_parts = figures()
pt.accelerate._threads = lambda: (0, 0)
print(json.dumps({"in_parts": in_parts, "whole": figures()}))
"""


@pytest.fixture(scope="module")
def results():
    run = subprocess.run([sys.executable, "-c", IN_PARTS], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def whole(results):
    return results["whole"]


@pytest.fixture(scope="module")
def in_parts(results):
    return results["in_parts"]


def test_inference_is_split_and_small_batches_less(whole, in_parts):
    assert whole["plain"]["inference"] == [1, 1, 1]
    assert in_parts["plain"]["inference"] == [3, 1, 3]  # a part has at least 8 images, where their number is known


def test_training_is_split_only_where_examples_are_independent(whole, in_parts):
    assert {kind: figures["training"] for kind, figures in in_parts.items()} == {
        "plain": 3,
        "batch norm": 1,  # its statistics are those of the batch
        "dropout": 1,  # its draws are
    }


@pytest.mark.parametrize("kind", ["plain", "batch norm"])
def test_weights_and_predictions_are_those_of_whole_batches(kind, whole, in_parts):
    for got, wanted in zip(in_parts[kind]["weights"], whole[kind]["weights"]):
        np.testing.assert_allclose(got, wanted, atol=1e-5)
    for num, logits in whole[kind]["predictions"].items():
        np.testing.assert_allclose(in_parts[kind]["predictions"][num], logits, atol=1e-4)


def test_threads_cannot_change_after_the_start():
    tf.constant(1) + 1
    with pytest.raises(ValueError, match="before TensorFlow computes anything"):
        accelerate.set_threads(3)
    with pytest.raises(ValueError, match="num_parts"):
        accelerate.set_threads(-1)


@pytest.fixture
def convolution():
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Conv2D(4, 3, use_bias=False, name="bare"),
            keras.layers.ReLU(),
            keras.layers.Conv2D(4, 3, name="biased"),
        ]
    )


def test_convolutions_without_bias_add_one_of_zero_while_called(convolution):
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 6, 6, 1)), tf.float32)
    call = accelerate.compute_twin(convolution)

    def biases(function):
        graph = tf.function(lambda x: function(x, training=False), autograph=False).get_concrete_function(x).graph
        return [op.type for op in graph.get_operations()].count("BiasAdd")

    assert (biases(convolution), biases(call)) == (1, 2)
    np.testing.assert_array_equal(call(x, training=False), convolution(x, training=False))


def everything_of(network):
    """What can be seen of all layers, to the last attribute."""
    layers = [network]
    for layer in layers:
        layers += getattr(layer, "layers", ())
    return [{name: repr(value) for name, value in vars(layer).items()} for layer in layers]


def shared_network():
    """A convolution that the network reaches in a sub-model and directly."""
    convolution, images = keras.layers.Conv2D(4, 3, use_bias=False), keras.Input((6, 6, 1))
    inner = keras.Sequential([keras.Input((6, 6, 1)), convolution])
    both = keras.layers.Add()([inner(images), convolution(images)])
    return keras.Model(images, keras.layers.Dense(3)(keras.layers.Flatten()(both)))


def with_operations():
    images = keras.Input((6, 6, 1))
    return keras.Model(images, keras.layers.Dense(3)(keras.layers.Flatten()(keras.ops.tanh(images - 0.5))))


def own_class():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.convolution, self.flatten = keras.layers.Conv2D(4, 3, use_bias=False), keras.layers.Flatten()
            self.head = keras.layers.Dense(3)

        def call(self, inputs, training=None):
            return self.head(self.flatten(self.convolution(inputs)))

    network = Own()
    network(np.zeros((1, 6, 6, 1), np.float32))
    return network


def stateful():
    layers = [keras.layers.BatchNormalization(), keras.layers.Dropout(0.5), keras.layers.Flatten()]
    return keras.Sequential([keras.Input((6, 6, 1)), *layers, keras.layers.Dense(3)])


def user_activation():
    first = keras.layers.Conv2D(4, 3, use_bias=False, activation=lambda x: x * tf.sigmoid(x))
    return keras.Sequential([keras.Input((6, 6, 1)), first, keras.layers.Flatten(), keras.layers.Dense(3)])


NETWORKS = [shared_network, with_operations, own_class, stateful, user_activation]


@pytest.mark.parametrize("make", NETWORKS, ids=lambda make: make.__name__)
def test_a_twin_computes_what_its_network_does_and_leaves_it_as_it_is(make):
    network, x = make(), np.random.default_rng(0).random((16, 6, 6, 1), np.float32)
    network(x)
    before, weights = everything_of(network), network.get_weights()
    draws = random.getstate()
    twin = accelerate.compute_twin(network)
    assert random.getstate() == draws
    np.testing.assert_allclose(twin(x, training=False), network(x, training=False), atol=1e-6)
    graph = tf.function(lambda x: twin(x, training=False), autograph=False)
    np.testing.assert_allclose(graph(x), network(x, training=False), atol=1e-6)
    network.set_weights([weight + 0.5 for weight in network.get_weights()])  # it follows the network
    np.testing.assert_allclose(graph(x), network(x, training=False), atol=1e-5)
    network.set_weights(weights)
    assert everything_of(network) == before


@pytest.mark.parametrize("make", NETWORKS, ids=lambda make: make.__name__)
def test_training_by_a_twin_is_training(make):
    x, y = np.random.default_rng(0).random((16, 6, 6, 1), np.float32), np.arange(16) % 3

    def trained(accelerated):
        keras.utils.set_random_seed(0)
        network = make()
        network(x)
        forward = accelerate.compute_twin(network) if accelerated else None
        attack = pt.attacks.pgd(epsilon=0.1, step_size=0.05, num_steps=2)
        model = pt.AdversarialTraining(network, attack=attack, forward=forward)
        model.compile(keras.optimizers.SGD(0.1))
        model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
        return network, len(model.weights)

    (one, num), (other, as_many) = trained(False), trained(True)
    assert num == as_many  # the twin's weights are none of the trainer's
    for got, wanted in zip(other.variables, one.variables, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_the_twin_answers_for_its_network(convolution):
    twin = accelerate.compute_twin(convolution)
    assert twin.input_shape == (None, 6, 6, 1) and twin.name == convolution.name and twin.network is convolution
    with pytest.raises(AttributeError):
        _ = twin.nothing_of_the_kind


def test_frozen_weights_and_own_layers_keep_training_whole():
    assert accelerate._is_per_example(dense_network())
    frozen = dense_network()
    frozen.layers[1].trainable = False

    class Own(keras.layers.Layer):
        def call(self, inputs):
            return inputs - keras.ops.mean(inputs, axis=0)

    own = keras.Sequential([keras.Input((4, 4, 1)), Own(), keras.layers.Flatten(), keras.layers.Dense(3)])
    inner = keras.Sequential([keras.Input((4, 4, 1)), own])
    regularised = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activity_regularizer="l2")])
    assert not any(map(accelerate._is_per_example, (frozen, own, inner, regularised)))


@pytest.mark.parametrize(
    ("features", "emulates"),
    [
        ("flags\t\t: fpu avx avx2 fma", True),
        ("flags\t\t: fpu avx2 avx512f avx512_bf16 amx_bf16", False),
        ("Features\t: fp asimd bf16", False),
        ("Features\t: fp asimd", True),
        ("model name\t: unknown", False),
    ],
)
def test_bfloat16_without_instructions_is_noticed(tmp_path, features, emulates):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\n{features}\n\nprocessor\t: 1\n{features}\n", encoding="utf-8")
    assert machine.emulates_bfloat16(str(cpuinfo)) is emulates
    assert not machine.emulates_bfloat16(str(tmp_path / "absent"))


def test_a_machine_is_described_by_what_decides_last_digits(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: A Processor @ 2 GHz\nflags\t: fpu\n")
    described = machine.description(str(cpuinfo))
    assert described["cpu"] == "A Processor @ 2 GHz" and described["cores"] >= 1 and len(described["threads"]) == 2
    assert machine.description(str(tmp_path / "absent"))["cpu"]
