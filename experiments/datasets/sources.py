"""Images and labels by one word on a command line: a split of a data set by name, of TFDS, or of a file."""

import os

import numpy as np

from experiments.datasets.archive import listed, read_arrays
from experiments.datasets.loading import as_float, load
from experiments.datasets.npz import npz_split
from experiments.datasets.types import Split

HELP = (
    "fmnist:train, cifar10:test or digits:test, with :5000 for the subset that a run of that --train_size or "
    "--test_size takes; tfds:NAME:SPLIT, as in tfds:mnist:test[:1000]; FILE.npz with arrays x and y; or FILE.npz:train "
    "with arrays x_train and y_train"
)

_NAMED = ("digits", "fmnist", "cifar10")
_SPLITS = ("train", "test")


def load_source(source: str, *, data_dir: str | None = None) -> Split:
    """Loads the images and labels that a word names.

    Args:
        source: as `HELP` has it.
        data_dir: where to look for data sets by name and for TFDS; the usual places if None.

    Returns:
        The images in [0, 1] and their labels.

    Raises:
        ValueError: if the word names nothing, or the data are missing or not what they should be.

    Example:
        >>> load_source("digits:test:100").images.shape
        (100, 8, 8, 1)
    """
    name, *rest = source.split(":")
    if name == "tfds" and len(rest) >= 2:
        return _from_tfds(rest[0], ":".join(rest[1:]), data_dir)
    if name in _NAMED and rest and rest[0] in _SPLITS and len(rest) <= 2:
        size = _size(source, rest[1]) if len(rest) == 2 else 0
        return getattr(load(name, data_dir=data_dir, **{f"{rest[0]}_size": size}), rest[0])
    path, _, split = (
        source.rpartition(":") if source.endswith(tuple(f".npz:{split}" for split in _SPLITS)) else (source, "", "")
    )
    if path.endswith(".npz"):
        return _from_npz(path, split)
    raise ValueError(f"{source!r} names no images. Give {HELP}.")


def _size(source: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or not int(text):
        raise ValueError(f"{source!r} must end in a number of images >= 1, as in fmnist:test:1000.")
    return int(text)


def _from_npz(path: str, split: str) -> Split:
    names = [f"{axis}_{split}" if split else axis for axis in ("x", "y")]
    arrays = read_arrays(path, names)
    missing = [name for name in names if name not in arrays]
    if missing:
        raise ValueError(
            f"{path!r} must hold the arrays {' and '.join(names)}. Received: {listed(arrays)}, without "
            f"{', '.join(missing)}. Save it by np.savez(path, {names[0]}=..., {names[1]}=...)."
        )
    images, labels = npz_split(*(arrays[name] for name in names), repr(path), names)
    return Split(as_float(images), labels.astype(np.int64))


def _from_tfds(name: str, split: str, data_dir: str | None) -> Split:
    try:
        import tensorflow_datasets as tfds

        columns = tfds.as_numpy(
            tfds.load(name, split=split, data_dir=data_dir and os.path.expanduser(data_dir), batch_size=-1)
        )
        images, labels = columns["image"], columns["label"]
    except Exception as error:  # TFDS documents no set of errors, and TF, protobuf, json add theirs
        first_line = str(error).partition("\n")[0].rstrip(".")  # TFDS adds the names of all that it knows
        raise ValueError(
            f"tfds:{name}:{split} could not be read. Received: {type(error).__name__}: {first_line}. It must be "
            "a data set of images of one size with labels; without a network, prepare it first and give --data_dir."
        ) from error
    images, labels = npz_split(images, labels, f"tfds:{name}:{split}", ("image", "label"))
    return Split(as_float(images), labels.astype(np.int64))
