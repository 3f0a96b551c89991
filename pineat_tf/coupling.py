"""What a private round refuses: whatever makes an example's part of it depend on the other examples of the batch."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pineat_tf.types import Objective

__all__ = ["check_layers", "check_network", "check_round"]

_ROUNDING = 1e-3  # of the outputs, which another batch may round otherwise


def check_round(objective: Objective, options: dict) -> None:
    """Raises `ValueError` for what joins examples in their loss, or parts the round."""
    coupling = {name: options.get(name) for name in ("weight_perturbation", "generation", "order") if options.get(name)}
    for name, given in (("objective", objective), ("companion_objective", options.get("companion_objective"))):
        if getattr(given, "couples_examples", False) or getattr(given, "initial_state", dict)():
            coupling[name] = given
    for name, value in coupling.items():
        raise ValueError(
            "A private round is one update, of which each example's part must depend on that example alone. Received: "
            f"{name}={value!r}, which joins examples or parts the round. Leave it out."
        )


def check_layers(network: Any) -> None:
    """Raises `ValueError` unless the examples of a batch pass the network each for itself, on one replica."""
    if tf.distribute.get_strategy().num_replicas_in_sync > 1:
        raise ValueError(
            "Private training adds noise once a round, so it trains on one replica. Received: a strategy of several. "
            "Make the model outside its scope."
        )
    layers = network._flatten_layers() if isinstance(network, keras.Model) else ()
    coupling = (keras.layers.BatchNormalization, keras.layers.SpectralNormalization)
    found = next((layer for layer in layers if isinstance(layer, coupling)), None)
    if found is not None:
        raise ValueError(
            "Normalisation by the batch makes an example's gradient depend on the others, so clipping it bounds "
            f"nothing. Received: the layer {found.name!r} ({type(found).__name__}). Take "
            "`keras.layers.GroupNormalization`, which normalises each example for itself."
        )


def check_network(network: keras.Model, images: np.ndarray) -> None:
    """Raises `ValueError` if a network shows that it joins examples, or keeps something of them, whatever its layers.

    Args:
        network: is as it was afterwards.
        images: at least one.
    """
    first = tf.cast(images[:1], images.dtype if np.issubdtype(images.dtype, np.floating) else tf.float32)
    beside = tf.zeros_like(first), tf.ones_like(first) * (tf.reduce_max(tf.abs(first)) + 1)
    one, other = (tf.cast(network(tf.concat([first, x], 0), training=False)[:1], tf.float32) for x in beside)
    if tf.reduce_max(tf.abs(one - other)) > _ROUNDING * tf.reduce_max(tf.abs(one)):
        raise ValueError(
            "An example's output must depend on that example alone, or its noise hangs on others. Received: network="
            f"{network.name!r}, whose output for an image changes with the other images of the batch. Take no mean "
            "over the batch."
        )
    with keras.StatelessScope() as scope:  # which keeps what is assigned away from the network
        network(first, training=True)
    after = [
        (variable, scope.get_current_value(variable)) for variable in network.variables if "float" in variable.dtype
    ]
    changed = [
        variable.path for variable, value in after if value is not None and tf.reduce_any(value != variable.value)
    ]
    if changed:
        raise ValueError(
            "Weights that keep something of the images have no noise. Received: passes in training mode that change "
            f"{changed}. Take layers without such statistics, or freeze them (`trainable = False`)."
        )
