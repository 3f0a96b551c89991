"""Audits networks from files: .keras, HDF5 or SavedModel, with or without a softmax at their end."""

import re
from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf

import pineat_tf as pt
from experiments import progress, stored
from experiments.audit import litert
from experiments.datasets import Split
from pineat_tf.heads import check_logits_head, class_logits, noise_like
from pineat_tf.types import Bounds

_STYLE = re.compile("\x1b\\[[0-9;]*m")  # Keras prints errors in bold
_NOTE = "{} at its end was taken off: logits are attacked and scored."


class Loaded(NamedTuple):
    """A network from a file.

    Attributes:
        network: gives logits of two classes or more.
        notes: what was done to it, in sentences.
    """

    network: keras.Model
    notes: list[str]


class Attacks(NamedTuple):
    """The attacks on the network.

    Attributes:
        epsilon: radius of PGD on members and non-members; 0 for natural queries only.
        steps: of PGD.
        epsilons: radii of the ensemble on some non-members; empty for none.
        num_attacked: how many.
        norm: "linf" or "l2".
        bounds: the pixel range, or None for no limits.
    """

    epsilon: float
    steps: int
    epsilons: tuple[float, ...]
    num_attacked: int
    norm: str
    bounds: Bounds | None


def load_network(path: str, image_shape: tuple[int, ...], *, trust: bool = False, gradients_from: str = "") -> Loaded:
    """Loads a network and takes the softmax or sigmoid off its end, if it has one that can be seen.

    Args:
        path: a .keras or HDF5 file, or a SavedModel's folder; see `stored.load_network`.
        image_shape: of the images that it will be shown.
        trust: whether to load programs too.
        gradients_from: the network that a LiteRT file was made from.

    Raises:
        ValueError: if it cannot be read, is a program that is not trusted, or gives neither logits nor one sigmoid
            for an image: probabilities whose logits cannot be found, as inside a SavedModel, too.
    """
    if path.endswith(litert.SUFFIX) != bool(gradients_from) or (gradients_from and not trust):
        raise ValueError(
            "a LiteRT file is attacked by the gradients of the network that it was made from, and is a program: give "
            f"--gradients_from=NETWORK.keras and --trust with it, and with nothing else. Received: {path!r}"
        )
    whole = stored.load_network(gradients_from or path, image_shape=image_shape, trust=trust)
    network, notes = _without_probabilities(whole)
    if gradients_from:
        network = litert.load(path, network)
        notes.append(f"Attacks go by the gradients of {gradients_from} (straight through the quantisation).")
    if trust:
        notes.append("Whatever code its file holds was run: --trust was given.")
    try:
        check_logits_head(network, noise_like((None, *image_shape), "float32"))
        inputs = keras.Input(image_shape)
        network = keras.Model(inputs, _ClassLogits()(network(inputs)))
    except Exception as error:  # a layer may raise anything of a shape that it was not made for
        text = " ".join(_STYLE.sub("", str(error)).split())[:800]
        raise ValueError(f"{path!r} cannot be used as a network on images of shape {image_shape}: {text}") from error
    return Loaded(network, notes)


@keras.saving.register_keras_serializable(package="pineat_tf_audit")
class _ClassLogits(keras.layers.Layer):
    """One logit or sigmoid as two logits; a softmax that is found inside is refused."""

    def call(self, outputs: tf.Tensor) -> tf.Tensor:
        return class_logits(outputs)


def audit_network(
    network: keras.Model, members: Split, non_members: Split, attacks: Attacks, state_path: str | None = None
) -> pt.Report:
    """Measures a network with progress bars: natural figures, those under PGD, and the ensemble's robust accuracy.

    Args:
        network: gives logits.
        members: what it was trained on.
        non_members: what it was not trained on.
        attacks: by what it is attacked.
        state_path: where the ensemble keeps what is done; None for nowhere.
    """
    network = pt.accelerate.compute_twin(network)
    attack = _pgd(attacks) if attacks.epsilon else None
    robustness = robustness_left(network, non_members, attacks, state_path) if attacks.epsilons else None
    num = len(members.labels) + len(non_members.labels)
    with _bar(num * (2 if attack else 1), "audit") as bar:
        return pt.evaluate(
            network,
            members=tuple(members),
            non_members=tuple(non_members),
            attack=attack,
            robustness=robustness,
            on_batch=bar.update,
        )


def _pgd(attacks: Attacks) -> Callable:
    return pt.attacks.pgd(
        epsilon=attacks.epsilon,
        step_size=2.5 * attacks.epsilon / attacks.steps,
        num_steps=attacks.steps,
        random_start=False,
        norm=attacks.norm,
        bounds=attacks.bounds,
    )


def robustness_left(
    network: keras.Model, data: Split, attacks: Attacks, state_path: str | None = None
) -> pt.Robustness:
    """Measures what the ensemble leaves of the first images, with a progress bar; arguments as of `audit_network`."""
    images, labels = (array[: attacks.num_attacked] for array in data)
    ensemble = pt.attacks.auto_attack(norm=attacks.norm, bounds=attacks.bounds)
    num_stages, stages_done = len(ensemble) * len(attacks.epsilons), 0
    with _bar(num_stages * len(labels), "ensemble") as bar:

        def moved(done: int, of: int) -> None:
            nonlocal stages_done
            bar.update(round((stages_done + done / of) * len(labels)) - bar.n)  # those not attacked any more included
            stages_done += done == of

        result = pt.robustness(
            network,
            (images, labels),
            ensemble,
            epsilons=attacks.epsilons,
            norm=attacks.norm,
            bounds=attacks.bounds,
            state_path=state_path,
            on_batch=moved,
        )
        bar.total = bar.n  # attacks that do not fit the network were left out
        return result


def _bar(total: int, what: str) -> progress.Bar:
    return progress.bar(total=total, unit=" images", desc=what)


def _without_probabilities(network: keras.Model) -> tuple[keras.Model, list[str]]:
    """The network up to its logits, as a model of its own that shares all layers but the last."""
    last = network.layers[-1]
    try:
        is_end = last.output is network.outputs[0] and len(network.outputs) == 1
    except (AttributeError, ValueError, TypeError):  # a subclassed model or layer, which says nothing of its graph
        is_end = False
    if not is_end:
        return network, []
    if isinstance(last, keras.layers.Softmax):
        return keras.Model(network.inputs, last.input), [_NOTE.format("a softmax")]
    activation = getattr(last, "activation", None)
    is_sigmoid = activation is keras.activations.sigmoid and network.output_shape[-1] == 1
    if not is_sigmoid and activation not in (keras.activations.softmax, keras.activations.log_softmax):
        return network, []
    linear = type(last).from_config(last.get_config() | {"activation": "linear"})
    logits = linear(last.input)
    linear.set_weights(last.get_weights())
    return keras.Model(network.inputs, logits), [_NOTE.format("a sigmoid" if is_sigmoid else "a softmax")]
