"""Compiled by XLA, as Keras does by itself on GPUs: the same numbers, and no compilation where it does not pay."""

import keras
import numpy as np
import pytest
from conftest import linear_network

import pineat_tf as pt
from pineat_tf.objectives import IKL, MART, SCORE, CrossEntropy, Trades

EPSILON = 0.1
METHODS = {
    "pgd l2": (pt.attacks.pgd(epsilon=EPSILON, step_size=0.05, num_steps=3, norm="l2"), CrossEntropy()),
    "diff": (pt.attacks.trades_kl(epsilon=EPSILON, step_size=0.05, num_steps=3), Trades(beta=1.0)),
    "mart": (pt.attacks.pgd(epsilon=EPSILON, step_size=0.05, num_steps=3), MART()),
    "score": (pt.attacks.pgd(epsilon=EPSILON, step_size=0.05, num_steps=3, loss="squared_distance"), SCORE()),
    "ikl": (pt.attacks.trades_kl(epsilon=EPSILON, step_size=0.05, num_steps=3), IKL(num_classes=3, period=2, beta=1.0)),
    "n_fgsm": (pt.attacks.n_fgsm(epsilon=EPSILON), CrossEntropy()),
}


def weights_and_history(model, jit_compile):
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0.2, 0.8, size=(12, 6)).astype(np.float32), np.arange(12) % 3
    model.compile(optimizer=keras.optimizers.SGD(0.5), metrics=["accuracy"], jit_compile=jit_compile)
    history = model.fit(x, y, batch_size=6, epochs=2, shuffle=False, verbose=0).history
    return model.network.get_weights(), history


@pytest.mark.parametrize("method", METHODS)
def test_compiled_training_gives_the_same_weights(method):
    attack, objective = METHODS[method]
    rng = np.random.default_rng(1)
    weights, bias = rng.normal(size=(6, 3)), rng.normal(size=3)

    def trained(jit_compile):
        model = pt.AdversarialTraining(
            linear_network(weights, bias),
            attack=attack,
            objective=objective,
            companions=pt.companions.ReverseSymmetry(epsilon=EPSILON),
            ratio="1/2",
            weight_perturbation=pt.perturbations.AWP(gamma=0.05) if method == "mart" else None,
            ramp=(0, 6) if method in ("pgd", "score") else None,
            seed=3,
        )
        return weights_and_history(model, jit_compile)

    (plain, plain_history), (compiled, compiled_history) = trained(False), trained(True)
    assert not np.allclose(plain[0], weights, atol=1e-2)
    for got, wanted in zip(compiled, plain):
        np.testing.assert_allclose(got, wanted, atol=1e-5)
    for name, values in plain_history.items():
        np.testing.assert_allclose(compiled_history[name], values, atol=1e-5)


def test_compiled_free_training_gives_the_same_weights():
    def trained(jit_compile):
        network = linear_network(np.eye(6)[:, :3], np.zeros(3))
        return weights_and_history(
            pt.FreeAdversarialTraining(network, epsilon=EPSILON, batch_size=6, ratio="3/0"), jit_compile
        )[0]

    for got, wanted in zip(trained(True), trained(False)):
        np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_the_device_chooses():
    model = pt.AdversarialTraining(linear_network(np.eye(3), np.zeros(3)), attack=METHODS["pgd l2"][0])
    model.compile(optimizer="sgd")
    assert model.jit_compile is False  # these tests see CPUs only, where XLA is slower
