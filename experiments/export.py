"""Writes a network to files that open without this code."""

import importlib.util
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from experiments import files


class _Converted(NamedTuple):
    """A format that Keras converts to.

    Attributes:
        name: of the file.
        format: what Keras calls it.
        since: the first version of Keras that has it.
        needs: packages.
    """

    name: str
    format: str
    since: tuple[int, int]
    needs: tuple[str, ...] = ()


_CONVERTED = {
    "onnx": _Converted("network.onnx", "onnx", (3, 8), ("tf2onnx", "onnx")),
    "litert": _Converted("network.tflite", "litert", (3, 13)),
    "litert_int8": _Converted("network_int8.tflite", "litert", (3, 13)),
    "openvino": _Converted("network.xml", "openvino", (3, 11), ("openvino",)),
}
FORMATS = ("keras", "saved_model", *_CONVERTED)
_REPRESENTATIVE = 200  # images, by which int8 finds the ranges of activations


def check_available(formats: Sequence[str]) -> None:
    """Raises `ValueError`, before a training, if what a format needs is not installed."""
    version = tuple(int(part) for part in keras.__version__.split(".")[:2])
    for name, made in _CONVERTED.items():
        if name in formats:
            missing = [package for package in made.needs if importlib.util.find_spec(package) is None]
            if version < made.since or missing:
                needed = " and ".join((f"Keras {made.since[0]}.{made.since[1]}", *made.needs))
                here = " without ".join((f"Keras {keras.__version__}", *missing))
                raise ValueError(f"--export={name} needs {needed}; here is {here}. Do: pip install -e '.[export]'.")


def export(
    network: keras.Model, directory: str | os.PathLike, formats: Sequence[str], *, images: np.ndarray | None = None
) -> list[pathlib.Path]:
    """Writes a network in one format or several.

    What is written is the network for inference, never an optimizer. A file is whole or absent; a folder is replaced.

    Args:
        network: a functional or sequential model from images `(batch, rows, columns, channels)` in [0, 1] to logits.
        directory: where to write; made if it does not exist.
        formats: out of `FORMATS`. "keras" opens with `network = keras.models.load_model(path)` in safe mode,
            "saved_model" with TensorFlow Serving or `loaded = tf.saved_model.load(path)`, to be kept as long as
            `loaded.serve(images)` is called; "onnx", "litert" and "openvino" with the runtimes of these names.
            "litert_int8" has weights and activations in 8 bits, and takes and gives float32.
        images: some of those that the network was trained on, for the ranges of "litert_int8".

    Returns:
        The paths written, in the order of `formats`.

    Raises:
        ValueError: if a format is unknown or not available, "keras" is asked for a network with layers that plain
            Keras cannot load, or "litert_int8" without images.

    Example:
        >>> export(network, "models", ("keras", "saved_model"))
        [PosixPath('models/network.keras'), PosixPath('models/saved_model')]
    """
    if isinstance(formats, str) or not set(formats) <= set(FORMATS):
        raise ValueError(
            f"`formats` must be a sequence of names out of {FORMATS}. Received: formats={formats!r}. "
            "Give e.g. ('keras',) for Keras, ('keras', 'saved_model') for TensorFlow Serving too."
        )
    check_available(formats)
    if "litert_int8" in formats and images is None:
        raise ValueError("`images` must be given for 'litert_int8'. Received: None. Give some training images.")
    if "keras" in formats:
        _check_plain(network)
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    own: dict[str, Callable] = {"keras": _write_keras, "saved_model": _write_saved_model}
    return [
        own[name](network, directory) if name in own else _write_converted(name, network, directory, images)
        for name in formats
    ]


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


def _write_converted(
    name: str, network: keras.Model, directory: pathlib.Path, images: np.ndarray | None
) -> pathlib.Path:
    made, signature = _CONVERTED[name], keras.InputSpec(dtype="float32", shape=network.input_shape)
    options: dict[str, Any] = {"format": made.format, "verbose": False, "input_signature": [signature]}
    if name == "litert_int8" and images is not None:

        def representative() -> Iterator[list[np.ndarray]]:
            return ([image[np.newaxis].astype(np.float32)] for image in images[:_REPRESENTATIVE])

        options |= {"optimizations": [tf.lite.Optimize.DEFAULT], "representative_dataset": representative}
    path = directory / made.name
    if made.format == "openvino":  # whose weights are in a second file, which the first one does not name
        network.export(str(path), **options)
        return path
    with files.replacing(path) as temporary:
        network.export(temporary, **options)
    return path
