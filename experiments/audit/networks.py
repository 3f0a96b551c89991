"""Audits networks from files: .keras, HDF5 or SavedModel, with or without a softmax at their end."""

import os
import zipfile
from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf
from tqdm.auto import tqdm

import pineat_tf as pt
from experiments.datasets import Split

_SAVED_MODEL = "saved_model.pb"


class Loaded(NamedTuple):
    """A network from a file.

    Attributes:
        network: gives logits.
        notes: what was done to it, in sentences.
    """

    network: keras.Model
    notes: list[str]


class Attacks(NamedTuple):
    """What the network is attacked by.

    Attributes:
        epsilon: radius of PGD on members and non-members; 0 for natural queries only.
        steps: of PGD.
        epsilons: radii of the ensemble on some non-members; empty for none.
        num_attacked: how many.
        norm: "linf" or "l2".
    """

    epsilon: float
    steps: int
    epsilons: tuple[float, ...]
    num_attacked: int
    norm: str


def is_network(path: str) -> bool:
    """Whether a path looks like that of a network: a .keras or .h5 file, or a SavedModel's folder."""
    return path.endswith((".keras", ".h5", ".hdf5")) or os.path.isfile(os.path.join(path, _SAVED_MODEL))


def load_network(path: str, image_shape: tuple[int, ...]) -> Loaded:
    """Reads a network and takes the softmax off its end, if it has one that can be seen.

    Args:
        path: a .keras or HDF5 file, which is read in Keras' safe mode, or a SavedModel's folder.
        image_shape: of the images that it will be shown.

    Raises:
        ValueError: if it cannot be read, or does not give a row of numbers for an image.
    """
    try:
        if os.path.isdir(path):
            network, notes = _saved_model(path, image_shape), []
        else:
            network, notes = _without_softmax(keras.saving.load_model(path, compile=False))
        shape = network(tf.zeros([1, *image_shape]), training=False).shape
    except (OSError, ValueError, TypeError, KeyError, AttributeError, zipfile.BadZipFile, tf.errors.OpError) as error:
        raise ValueError(f"{path!r} cannot be used as a network on images of shape {image_shape}: {error}") from error
    if len(shape) != 2 or shape[1] < 2:
        raise ValueError(f"{path!r} must give a row of logits an image. Received: outputs of shape {tuple(shape)}.")
    return Loaded(network, notes)


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
    robustness = _robustness(network, non_members, attacks, state_path) if attacks.epsilons else None
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
    )


def _robustness(network: keras.Model, data: Split, attacks: Attacks, state_path: str | None) -> pt.Robustness:
    images, labels = (array[: attacks.num_attacked] for array in data)
    ensemble = pt.attacks.auto_attack(norm=attacks.norm)
    if network.output_shape[-1] < 4:  # the targeted loss needs a fourth logit
        ensemble.pop("apgd_t")
    num_stages, stages_done = len(ensemble) * len(attacks.epsilons), 0
    with _bar(num_stages * len(labels), "ensemble") as bar:

        def moved(done: int, of: int) -> None:
            nonlocal stages_done
            bar.update(round((stages_done + done / of) * len(labels)) - bar.n)  # those not attacked any more included
            stages_done += done == of

        return pt.robustness(
            network,
            (images, labels),
            ensemble,
            epsilons=attacks.epsilons,
            norm=attacks.norm,
            state_path=state_path,
            on_batch=moved,
        )


def _bar(total: int, what: str) -> tqdm:
    return tqdm(total=total, unit=" images", desc=what, dynamic_ncols=True)


def _without_softmax(network: keras.Model) -> tuple[keras.Model, list[str]]:
    last = network.layers[-1]
    if getattr(last, "activation", None) in (keras.activations.softmax, keras.activations.log_softmax):
        last.activation = keras.activations.linear
        return network, ["Its last layer ended in a softmax, which was taken off: logits are attacked and scored."]
    if isinstance(last, keras.layers.Softmax):
        before = keras.Model(network.inputs, network.layers[-2].output)
        return before, ["Its last layer, a softmax, was taken off: logits are attacked and scored."]
    return network, []


@keras.saving.register_keras_serializable(package="pineat_tf_audit")
class _Served(keras.layers.Layer):
    """A SavedModel's function as a layer."""

    def __init__(self, served: tf.Module, call: Callable, **options):
        super().__init__(trainable=False, **options)
        self._served, self._serve = served, call

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        outputs = self._serve(inputs)
        return next(iter(outputs.values())) if isinstance(outputs, dict) else outputs


def _saved_model(path: str, image_shape: tuple[int, ...]) -> keras.Model:
    served = tf.saved_model.load(path)
    call = getattr(served, "serve", None) or served.signatures.get("serving_default")
    if call is None:
        raise ValueError("it has neither a function `serve`, as of Keras' exports, nor a signature `serving_default`")
    inputs = keras.Input(image_shape)
    return keras.Model(inputs, _Served(served, call)(inputs))
