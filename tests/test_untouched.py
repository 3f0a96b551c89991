"""What is the user's stays as it is, before, during and after every call: layers, settings, random states, arrays."""

import keras
import numpy as np
import pytest
import witness

import pineat_tf as pt

X = np.random.default_rng(0).uniform(size=(8, 6, 6, 1)).astype(np.float32)
Y = np.arange(8) % 3
PGD = pt.attacks.pgd(epsilon=0.1, step_size=0.05, num_steps=2)


FAB = pt.attacks.fab(epsilon=0.1, num_steps=2)


CALLS = {
    "fit": lambda network: witness.fit(network, X, Y, PGD),
    "fit eagerly": lambda network: witness.fit(network, X, Y, PGD, run_eagerly=True),
    "fit by a compute twin": lambda network: witness.fit(
        network, X, Y, PGD, forward=pt.accelerate.compute_twin(network)
    ),
    "compute_twin": lambda network: pt.accelerate.compute_twin(network)(X),
    "predict_logits": lambda network: pt.predict_logits(network, (X, Y), attack=PGD),
    "robustness": lambda network: pt.robustness(network, (X, Y), {"pgd": PGD, "fab": FAB}),
    "evaluate": lambda network: pt.evaluate(network, members=(X, Y), non_members=(X, Y), attack=PGD),
    "an attack": lambda network: PGD(network, X, Y),
    "square": lambda network: pt.attacks.square(epsilon=0.1, num_queries=3)(network, X, Y),
}


@pytest.mark.parametrize("name", CALLS)
def test_nothing_of_the_users_changes(name):
    network = witness.watched_network()
    assert witness.changed_during(network, lambda: CALLS[name](network), X, Y) == set()


@pytest.mark.parametrize("fault", ["activation", "floatx", "random state", "arrays"])
def test_a_fault_is_seen(fault):
    """What a library may be tempted to do for the time of a call."""
    network, x = witness.watched_network(), X.copy()

    def call():
        if fault == "activation":
            (layer,) = [layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D)]
            activation, layer.activation = layer.activation, keras.activations.linear
            network(x)
            layer.activation = activation
        elif fault == "floatx":
            keras.config.set_floatx("float64")
            network(x)
            keras.config.set_floatx("float32")
        else:
            np.random.rand() if fault == "random state" else x.fill(0)
            network(x)

    assert witness.changed_during(network, call, x)
