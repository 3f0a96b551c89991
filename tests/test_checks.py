"""What is no network, attack, objective or companions is refused where it is given, not deep in what calls it."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import pineat_tf as pt
from pineat_tf import checks
from pineat_tf.statistics import check_rate

X = np.random.default_rng(0).uniform(size=(4, 2)).astype(np.float32)
Y = np.array([0, 1, 2, 0])
ATTACK = pt.attacks.fgsm(epsilon=0.1)
NO_ATTACKS = {
    "what makes one": pt.attacks.fgsm,
    "its class": type(ATTACK),
    "its name": "fgsm",
    "several": pt.attacks.auto_attack(),
    "images": X,
}
NO_NETWORKS = {"the data": (X, Y), "a function": lambda x: x, "a path": "network.keras", "a class": keras.Model}


def network():
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])


WITH_ATTACK = {
    "training": lambda attack: pt.AdversarialTraining(network(), attack=attack),
    "natural training": lambda attack: pt.AdversarialTraining(
        network(), attack=attack, ratio="0/1", companions=pt.companions.NaturalCompanions()
    ),
    "predict_logits": lambda attack: pt.predict_logits(network(), (X, Y), attack=attack),
    "evaluate": lambda attack: pt.evaluate(network(), members=(X, Y), non_members=(X, Y), attack=attack),
    "query": lambda attack: pt.queries.ReverseSymmetryQuery(attack=attack, epsilon=0.1),
    "validation": lambda attack: pt.callbacks.RobustValidation((X, Y), attack),
    "monitor": lambda attack: pt.callbacks.LeakageMonitor(members=(X, Y), non_members=(X, Y), attack=attack),
}
WITH_NETWORK = {
    "training": lambda network: pt.AdversarialTraining(network, attack=ATTACK),
    "predict_logits": lambda network: pt.predict_logits(network, (X, Y)),
    "evaluate": lambda network: pt.evaluate(network, members=(X, Y), non_members=(X, Y)),
    "robustness": lambda network: pt.robustness(network, (X, Y), ATTACK),
    "labels only": lambda network: pt.membership.augmentation_scores(network, (X, Y)),
}


@pytest.mark.parametrize("entry", WITH_ATTACK)
@pytest.mark.parametrize("kind", NO_ATTACKS)
def test_what_is_no_attack_is_refused(entry, kind):
    with pytest.raises(ValueError, match=r"`attack` must be one attack.*Received.*Give") as error:
        WITH_ATTACK[entry](NO_ATTACKS[kind])
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("entry", WITH_NETWORK)
@pytest.mark.parametrize("kind", NO_NETWORKS)
def test_what_is_no_network_is_refused(entry, kind):
    with pytest.raises(ValueError, match="`network` must be a Keras model"):
        WITH_NETWORK[entry](NO_NETWORKS[kind])


PRIVACY = {"batch_size": 4, "noise_multiplier": 1.0, "clip_norm": 1.0, "delta": 1e-5}
TRAINERS = {
    "adversarial": lambda network: pt.AdversarialTraining(network, attack=ATTACK),
    "free": lambda network: pt.FreeAdversarialTraining(network, epsilon=0.1, batch_size=4),
    "distilled": lambda network: pt.SelfDistilledTraining(network, attack=ATTACK),
    "private": lambda network: pt.PrivateAdversarialTraining(network, attack=ATTACK, **PRIVACY),
}


@pytest.mark.parametrize("outer", TRAINERS)
@pytest.mark.parametrize("inner", TRAINERS)
def test_a_trainer_in_another_whose_training_would_be_left_out_is_refused(outer, inner):
    trainer = TRAINERS[inner](network())
    with pytest.raises(ValueError, match=r"`network` must be the classifier itself.*Received: \w+Training. Give its"):
        TRAINERS[outer](trainer)
    within = keras.Sequential([keras.Input(trainer.network.input_shape[1:]), trainer])
    with pytest.raises(ValueError, match=r"`network` must be the classifier itself.*\w+Training, within 'sequential"):
        TRAINERS[outer](within)
    TRAINERS[outer](trainer.network)


@pytest.mark.parametrize("attack", [ATTACK, functools.partial(ATTACK), tf.function(ATTACK), lambda f, x, y, seed: x])
def test_every_callable_of_the_signature_is_an_attack(attack):
    checks.check_attack("attack", attack)


@pytest.mark.parametrize(
    "strategy",
    [
        {"objective": pt.objectives.CrossEntropy},
        {"objective": keras.losses.SparseCategoricalCrossentropy(from_logits=True)},
        {"objective": "crossentropy"},
        {"companions": pt.companions.ReverseSymmetry, "ratio": "1/1"},
        {"companions": "ReverseSymmetry", "ratio": "1/1"},
    ],
    ids=lambda option: "-".join(option),  # no addresses: the workers must collect alike
)
def test_strategies_that_cannot_be_called_as_such_are_refused(strategy):
    with pytest.raises(ValueError, match=f"`{next(iter(strategy))}` must be called as"):
        pt.AdversarialTraining(network(), attack=ATTACK, **strategy)


def test_soft_labels_of_bfloat16_are_taken_after_keras_made_them_float32():
    thirds = tf.cast(np.full((4, 3), 1 / 3), tf.bfloat16)
    assert abs(float(tf.reduce_sum(tf.cast(thirds[0], tf.float32))) - 1) > 1e-3
    checks.check_labels(tf.cast(thirds, tf.float32), num_classes=3)
    with pytest.raises(ValueError, match="sum to 1"):
        checks.check_labels(np.full((4, 3), 0.335, np.float32), num_classes=3)


def test_one_logit_of_rank_one_is_trained():
    inputs = keras.Input((2,))
    network = keras.Model(inputs, keras.layers.Flatten()(keras.layers.Dense(1)(inputs)))
    flat = keras.Model(inputs, keras.ops.squeeze(network(inputs), axis=1))
    model = pt.AdversarialTraining(flat, attack=ATTACK)
    model.compile(keras.optimizers.SGD(0.1))
    model.fit(X, Y % 2, verbose=0)
    with pytest.raises(ValueError, match=r"0 \.\. 1"):
        model.fit(X, Y, verbose=0)


@pytest.mark.parametrize("value", [tf.constant(0.1), np.array(0.1), "0.1"], ids=["tensor", "array", "text"])
def test_numbers_of_another_kind_are_told_how_to_become_plain(value):
    for make in (
        lambda: pt.attacks.pgd(epsilon=value, step_size=0.1, num_steps=1),
        lambda: pt.objectives.MART(beta=value),
        lambda: pt.objectives.SCORE(label_smoothing=value),
        lambda: pt.objectives.IntervalBounds(epsilon=0.1, share=value),
        lambda: pt.perturbations.AWP(begin=value),
    ):
        with pytest.raises(ValueError, match=r"a plain number \(`float\(...\)` makes one\). Received"):
            make()
    assert pt.objectives.MART(beta=np.float32(0.5)).beta == 0.5


def test_0_will_do_where_it_stands_for_none():
    assert pt.defences.EntropyRegularised(num_classes=3, weight=0).weight == 0
    pt.accounting.check_noise_multiplier(np.float32(0.0))
    assert pt.verify(network(), (X, Y), 0).verified.shape == Y.shape


@pytest.mark.parametrize("rate", ["0.1", None, -0.1, 1.5, float("nan")])
def test_a_rate_is_a_number(rate):
    with pytest.raises(ValueError, match=r"`fpr` must lie in \[0, 1\]"):
        check_rate("fpr", rate)
