"""Writes a network to files that open without this code."""

import os
import pathlib
import tempfile
from collections.abc import Sequence

import keras

FORMATS = ("keras", "saved_model")

_FILE_NAMES = {"keras": "network.keras", "saved_model": "saved_model"}


def _check_formats(formats: Sequence[str]) -> None:
    """Raises a `ValueError` unless `formats` is a sequence of known formats."""
    unknown = [formats] if isinstance(formats, str) else [name for name in formats if name not in FORMATS]
    if unknown:
        raise ValueError(
            f"`formats` must be a sequence of names out of {FORMATS}. Received: formats={formats!r}. "
            "Give e.g. ('keras',) for Keras, ('keras', 'saved_model') for TensorFlow Serving too."
        )


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


def _without_compilation(network: keras.Model) -> keras.Model:
    """The network itself, or an uncompiled copy: the file of a compiled one would ask for its loss and optimizer."""
    if not network.compiled:
        return network
    copy = type(network).from_config(network.get_config())  # `clone_model` would compile the copy
    copy.set_weights(network.get_weights())
    return copy


def _write(network: keras.Model, path: pathlib.Path, file_format: str) -> None:
    """Writes the network in one format to a path that does not exist."""
    if file_format == "keras":
        _without_compilation(network).save(path)
    else:
        network.export(path, format="tf_saved_model", verbose=False)


def _put(fresh: pathlib.Path, target: pathlib.Path, attic: pathlib.Path) -> None:
    """Renames `fresh` to `target`; a directory in the way goes to `attic` first, and comes back if that fails."""
    if fresh.is_dir() and target.exists():
        os.replace(target, attic)  # unlike a file, a full directory cannot be renamed over
    try:
        os.replace(fresh, target)
    except OSError:
        if attic.exists():
            os.replace(attic, target)
        raise


def _write_whole(network: keras.Model, target: pathlib.Path, file_format: str) -> None:
    """Writes the network beside `target`, then puts it there."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as workshop:
        fresh = pathlib.Path(workshop, target.name)
        _write(network, fresh, file_format)
        _put(fresh, target, fresh.with_name("previous"))


def export(network: keras.Model, directory: str | os.PathLike, formats: Sequence[str]) -> list[pathlib.Path]:
    """Writes a network as `network.keras`, as `saved_model/`, or both.

    Each is written under a temporary name in `directory` and then renamed: an earlier export is replaced only by a
    whole one, and survives when writing fails. What is written is the network for inference, never an optimizer.

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
    _check_formats(formats)
    if "keras" in formats:
        _check_plain(network)
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    targets = {file_format: directory / _FILE_NAMES[file_format] for file_format in formats}
    for file_format, target in targets.items():
        _write_whole(network, target, file_format)
    return list(targets.values())
