"""What must not matter to a whole training does not: the scale of pixels, the form of labels, the structure of data."""

import keras
import numpy as np
import pytest
from conftest import NUM_CLASSES, SHAPE

import pineat_tf as pt

ROUNDS = 4


def network_of(num_logits=NUM_CLASSES, *, scale=(1.0, 0.0), dtype=None):
    """Flatten, 12 tanh units, logits, the same weights in every call; sees `scale[0] * x + scale[1]` as x."""
    factor, offset = scale
    network = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Rescaling(1 / factor, -offset / factor, dtype=dtype),
            keras.layers.Flatten(dtype=dtype),
            keras.layers.Dense(12, activation="tanh", dtype=dtype),
            keras.layers.Dense(num_logits, dtype=dtype),
        ]
    )
    rng = np.random.default_rng(3)
    network.set_weights([rng.normal(0, 0.3, weight.shape) for weight in network.weights])
    return network


def trained(*data, network=None, scale=(1.0, 0.0), **fit):
    """The weights after PINEAT-1/1 for some rounds of all images."""
    factor, offset = scale
    ball = {"epsilon": 0.1 * factor, "step_size": 0.05 * factor, "bounds": (offset, factor + offset)}
    model = pt.AdversarialTraining(
        network or network_of(scale=scale),
        attack=pt.attacks.pgd(num_steps=2, **ball),
        companions=pt.companions.ReverseSymmetry(epsilon=ball["epsilon"]),
        ratio="1/1",
        seed=5,
    )
    model.compile(optimizer=keras.optimizers.SGD(0.5))
    model.fit(*data, **{"epochs": ROUNDS, "batch_size": 8, "shuffle": False, "verbose": 0} | fit)
    return [weight.numpy() for weight in model.network.trainable_variables]


PLAIN = []


def plain(images, labels):
    """The weights of the arrays of `conftest.py` as they are, trained once."""
    if not PLAIN:
        PLAIN.append(trained(images, labels))
    return PLAIN[0]


def assert_alike(weights, others, atol=1e-6):
    assert len(weights) == len(others)
    for weight, other in zip(weights, others):
        np.testing.assert_allclose(weight, other, rtol=0, atol=atol)


@pytest.mark.parametrize("scale", [(2.0, -1.0), (255.0, 0.0)], ids=["-1..1", "0..255"])
def test_the_scale_of_pixels(images, labels, scale):
    factor, offset = scale
    seen = plain(images, labels)
    assert_alike(seen, trained(images * factor + offset, labels, scale=scale), atol=1e-4)
    before = [weight.numpy() for weight in network_of().trainable_variables]
    assert max(np.abs(a - b).max() for a, b in zip(seen, before)) > 1e-2


ONE_HOT = np.eye(NUM_CLASSES, dtype=np.float32)
LABELS = {
    "column": lambda y: y[:, None],
    "uint8": lambda y: y.astype(np.uint8),
    "uint16": lambda y: y.astype(np.uint16),
    "one-hot bools": lambda y: ONE_HOT[y].astype(bool),
    "floating point": lambda y: y.astype(np.float32),
    "one-hot": lambda y: ONE_HOT[y],
    "one-hot in half precision": lambda y: ONE_HOT[y].astype(np.float16),
    "one-hot whole numbers": lambda y: ONE_HOT[y].astype(np.int64),
}


@pytest.mark.parametrize("form", LABELS)
def test_the_form_of_labels(images, labels, form):
    given = LABELS[form](labels)
    assert_alike(plain(images, labels), trained(images, given, validation_data=(images, given)))
    network = network_of()
    report = pt.evaluate(network, members=(images, given), non_members=(images, given), attack=None)
    assert report.to_dict()["a_train"] == np.mean(network(images).numpy().argmax(axis=1) == labels)


def test_smoothed_labels_are_the_objectives_smoothing(images, labels):
    soft = 0.9 * ONE_HOT[labels] + 0.1 / NUM_CLASSES
    seen = trained(images, soft)
    assert not np.allclose(seen[0], plain(images, labels)[0], atol=1e-4)
    assert_alike(seen, trained(images, soft.astype(np.float64)))


def test_accumulation_of_gradients_draws_what_it_draws_without(images, labels):
    drawn, steps = {}, 4
    for accumulated in (None, steps):
        seeds = drawn[accumulated] = []

        def attack(logits_fn, x, y, *, seed, seeds=seeds):
            seeds.append(tuple(np.asarray(seed)))
            return x + 0.05

        optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=accumulated)
        model = pt.AdversarialTraining(
            network_of(), attack=attack, companions=pt.companions.RandomCompanions(epsilon=0.1), ratio="1/1", seed=5
        )
        model.compile(optimizer=optimizer, run_eagerly=True)
        model.fit(images, labels, epochs=8, batch_size=8, verbose=0)
    assert drawn[steps] == drawn[None] and len(set(drawn[None])) == 8


@pytest.mark.parametrize("num_logits", [1, 2, 100])
def test_any_number_of_classes_is_trained_evaluated_and_audited(images, num_logits):
    num_classes = max(num_logits, 2)
    labels = np.arange(8) * 13 % num_classes
    network = network_of(num_logits)
    trained(images, labels, network=network)
    attack = pt.attacks.pgd(epsilon=0.1, step_size=0.05, num_steps=2)
    report = pt.evaluate(network, members=(images, labels), non_members=(images * 0.9, labels), attack=attack).to_dict()
    assert 0 <= report["r_train"] <= report["a_train"] <= 1 and 0.5 <= report["p_max"] <= 1
    robust = pt.robustness(network, (images, labels), {"pgd": lambda radius: attack}, epsilons=[0.1], check=False)
    assert robust.accuracies[0] == report["a_train"]


def test_one_logit_trains_as_two_of_which_the_first_is_nothing(images):
    """[0, z] has the softmax of [-z / 2, z / 2]: a network whose two logits are these trains alike."""
    labels = np.arange(8) % 2
    one = network_of(1)
    pair = keras.Sequential([one, keras.layers.Dense(2, use_bias=False, trainable=False)])
    pair.build((None, *SHAPE))
    pair.layers[-1].set_weights([np.array([[-0.5, 0.5]], np.float32)])
    expected = trained(images, labels, network=pair)
    assert_alike(trained(images, labels, network=network_of(1)), expected)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16", "float16"])
def test_precision_changes_no_more_than_it_rounds(images, labels, policy):
    full, rounded = plain(images, labels), trained(images, labels, network=network_of(dtype=policy))
    before = [weight.numpy() for weight in network_of().trainable_variables]
    for weight, other, start in zip(full, rounded, before):
        assert np.isfinite(other.astype(np.float32)).all()
        moved = np.abs(weight - start).max()
        assert np.abs(weight - other.astype(np.float32)).max() < max(0.35 * moved, 0.02)
