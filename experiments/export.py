"""Writes a network to files that open without this code."""

import os
import pathlib
from collections.abc import Sequence

import keras

from experiments import files

FORMATS = ("keras", "saved_model")


def export(network: keras.Model, directory: str | os.PathLike, formats: Sequence[str]) -> list[pathlib.Path]:
    """Writes a network as `network.keras`, as `saved_model/`, or both.

    What is written is the network for inference, never an optimizer. A file is whole or absent; a folder is replaced.

    Args:
        network: a functional or sequential model from images `(batch, rows, columns, channels)` in [0, 1] to logits.
        directory: where to write; made if it does not exist.
        formats: out of `FORMATS`. "keras" opens with `network = keras.models.load_model(path)` in safe mode,
            "saved_model" with TensorFlow Serving or `loaded = tf.saved_model.load(path)`, to be kept as long as
            `loaded.serve(images)` is called.

    Returns:
        The paths written, in the order of `formats`.

    Raises:
        ValueError: if a format is unknown, or "keras" is asked for a network with layers that plain Keras cannot load.

    Example:
        >>> export(network, "models", ("keras", "saved_model"))
        [PosixPath('models/network.keras'), PosixPath('models/saved_model')]
    """
    if isinstance(formats, str) or not set(formats) <= set(FORMATS):
        raise ValueError(
            f"`formats` must be a sequence of names out of {FORMATS}. Received: formats={formats!r}. "
            "Give e.g. ('keras',) for Keras, ('keras', 'saved_model') for TensorFlow Serving too."
        )
    if "keras" in formats:
        _check_plain(network)
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    return [(_write_keras if name == "keras" else _write_saved_model)(network, directory) for name in formats]


def _check_plain(network: keras.Model) -> None:
    """Raises a `ValueError` if plain Keras in safe mode could not load the network."""
    for part in (network, *network.layers):
        standard = type(part).__module__.split(".")[0] == "keras"
        if not standard or isinstance(part, keras.layers.Lambda):
            raise ValueError(
                "A network exported as 'keras' must consist of standard Keras layers, without Lambda: whoever loads "
                f"it may not have your code. Received: {part.name!r} of type {type(part).__name__}. "
                "If it wraps the network for training, give its `.network`; else export as 'saved_model' only."
            )


def _write_keras(network: keras.Model, directory: pathlib.Path) -> pathlib.Path:
    path = directory / "network.keras"
    if network.compiled:  # its file would ask for its loss and optimizer; `clone_model` would compile the copy
        copy = type(network).from_config(network.get_config())
        copy.set_weights(network.get_weights())
        network = copy
    with files.replacing(path) as temporary:
        network.save(temporary)
    return path


def _write_saved_model(network: keras.Model, directory: pathlib.Path) -> pathlib.Path:
    path = directory / "saved_model"
    if path.exists():  # of an evaluation that was interrupted: TensorFlow would leave what it does not write
        files.remove(path)
    network.export(path, format="tf_saved_model", verbose=False)
    return path
