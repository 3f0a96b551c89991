"""Attacks and evaluations can go on for ever: memory stays as it is, and nothing is traced twice."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from memory import in_use, peak_below

import pineat_tf as pt

ATTACKS = {
    "pgd": pt.attacks.pgd(epsilon=0.1, step_size=0.05, num_steps=2),
    "dist": pt.attacks.dist(num_steps=2),
    "trades_kl": pt.attacks.trades_kl(epsilon=0.1, step_size=0.05, num_steps=2),
}
MOST = 12 << 20
"""A batch of these tests has 1 MB, and a traced attack about as much: of 30, a leak of either is far past this."""


@pytest.fixture(scope="module")
def batch():
    images = np.random.default_rng(0).uniform(size=(320, 28, 28, 1)).astype(np.float32)
    return images, np.arange(320) % 3


@pytest.fixture(scope="module")
def small_network():
    return keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])


def growth(call, num):
    """Bytes by which memory grew in each third of `num` calls but the first: the less, as a leak grows in both.

    What a machine's allocator takes once, now or then, is none.
    """
    readings = []
    for _ in range(3):
        for _ in range(num // 3):
            call()
        readings.append(in_use())
    return min(np.diff(readings))


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
def test_90_attacks(small_network, batch, name, graph):
    traced = []

    def logits_fn(images):
        traced.append(not tf.executing_eagerly())
        return small_network(images, training=False)

    def attack(x, y, seed):
        return ATTACKS[name](logits_fn, x, y, seed=seed)

    compiled = tf.function(attack, autograph=False) if graph else attack
    x, y = map(tf.constant, batch)
    seeds = iter(range(1000))

    def call():
        compiled(x, y, tf.constant([0, next(seeds)], tf.int64))

    call()
    first = len(traced)
    assert growth(call, 90) < MOST
    if graph:
        assert compiled.experimental_get_tracing_count() == 1
        assert len(traced) == first and all(traced)
    else:
        assert len(traced) == 91 * first and not any(traced)


def test_3_evaluations(small_network, batch):
    """Each compiles its two predictors once, for all of its data, and gives them up with everything they hold."""
    traced, graphs = [], []

    def attack(logits_fn, x, y, *, seed):
        traced.append(x.shape)
        graphs.append(weakref.ref(tf.compat.v1.get_default_graph()))
        return ATTACKS["pgd"](logits_fn, x, y, seed=seed)

    members, non_members = tuple(a[:200] for a in batch), tuple(a[200:] for a in batch)

    def call():
        pt.evaluate(small_network, members=members, non_members=non_members, attack=attack, batch_size=64)

    call()
    assert growth(call, 3) < MOST // 2
    assert len(traced) == 4
    gc.collect()
    assert all(graph() is None for graph in graphs)


def test_one_predictor_for_many_data_sets(small_network, batch):
    predict = pt.Predictor(small_network, ATTACKS["pgd"])
    sizes = iter(range(200, 300))

    def call():
        size = next(sizes)
        predict((batch[0][:size], batch[1][:size]), batch_size=64)

    assert growth(call, 60) < MOST
    (step,) = predict._steps.values()
    assert step.experimental_get_tracing_count() == 1


def test_what_memory_would_show():
    """A planted leak of 1 MB a call."""
    kept = []
    assert growth(lambda: kept.append(np.ones(1 << 17)), 90) > 2 * MOST


def test_what_references_to_graphs_would_show(small_network, batch):
    """A planted leak: a new function a call, as a `tf.function` within a loop would be, and something that keeps it."""
    kept, graphs = [], []
    x, y = batch[0][:8], tf.constant(batch[1][:8])

    def attack(x, y):
        graphs.append(weakref.ref(tf.compat.v1.get_default_graph()))
        return ATTACKS["pgd"](small_network, x, y, seed=0)

    for _ in range(3):
        kept.append(tf.function(attack, autograph=False).get_concrete_function(x, y))
    gc.collect()
    assert len(graphs) == 3 and all(graph() is not None for graph in graphs)


def test_predictions_stream(small_network):
    """Of 40,000 images, 10 batches are in memory at once at most; a copy of them would be 125 MB."""
    images = np.broadcast_to(np.float32(0.5), (40_000, 28, 28, 1))  # takes no memory: what is taken is the prediction's
    labels = np.zeros(len(images), np.int64)
    predict = pt.Predictor(small_network, ATTACKS["pgd"])
    predict((images[:1000], labels[:1000]))
    with peak_below(32 << 20):
        assert len(predict((images, labels)).labels) == 40_000
