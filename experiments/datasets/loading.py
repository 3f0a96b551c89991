"""Loads a data set by name, and takes the subset that was asked for."""

import os
from collections.abc import Callable

import numpy as np

from experiments.datasets.digits import load_digits
from experiments.datasets.image_folder import load_image_folder
from experiments.datasets.npz import load_npz
from experiments.datasets.published import load_cifar10, load_fmnist
from experiments.datasets.types import Dataset, Split
from pineat_tf.checks import check_choice, check_count

_SUBSET_SEED = 0
_HALF_SEED = 1
_LOADERS: dict[str, Callable[[str | None], Dataset]] = {
    "digits": load_digits,
    "fmnist": load_fmnist,
    "cifar10": load_cifar10,
    "image_folder": load_image_folder,
    "npz": load_npz,
}

NAMES = tuple(_LOADERS)
"""What `load` knows."""


def load(name: str, *, data_dir: str | None = None, train_size: int = 0, test_size: int = 0) -> Dataset:
    """Loads a data set by name.

    `fmnist` and `cifar10` come from the first of: a prepared TensorFlow Datasets copy (in
    `data_dir` if given, else in TFDS' own directory); raw files in `data_dir`; for `fmnist`, the
    files of the Debian package; a TFDS download. `image_folder` reads
    `data_dir/{train,test}/<class>/*` (png, jpg, jpeg, bmp; regular files, names with a leading dot
    left out); `npz` reads Keras' `x_train, y_train, x_test, y_test` from the file `data_dir`.

    A subset is the head of a permutation of the split by NumPy's seed 0: the same for every run,
    and a smaller one is part of a larger one. It is one of the *source's* order, and a TFDS copy
    of `fmnist` is ordered differently from the raw files: runs that are to share a subset must
    share the source.

    Args:
        name: one of `NAMES`.
        data_dir: a directory, for `npz` a file; not used by `digits`.
        train_size: how many training images to take; 0 takes all.
        test_size: the same for the test images.

    Returns:
        The data set, images in [0, 1].

    Raises:
        ValueError: if the name is unknown, if the data are missing or not what they should be, or
            if a size is larger than the split.

    Example:
        >>> load("digits", train_size=100).train.images.shape
        (100, 8, 8, 1)
    """
    check_choice("name", name, NAMES)
    check_count("train_size", train_size, 0, "It is how many images to take; 0 takes all.")
    check_count("test_size", test_size, 0, "It is how many images to take; 0 takes all.")
    dataset = _LOADERS[name](os.path.expanduser(data_dir) if data_dir else None)
    return dataset._replace(
        train=_finished(dataset.train, train_size, "train_size"),
        test=_finished(dataset.test, test_size, "test_size"),
    )


def random_half(num: int, number: int) -> np.ndarray:
    """Draws half of the examples, as shadow models are trained on.

    The draws of different numbers are independent, so a model's half says nothing of those of others: with halves that
    hold every example equally often, the shadow models of members would be fewer, which an audit can see.

    Args:
        num: how many examples there are.
        number: of the half, >= 0.

    Returns:
        Booleans of shape `(num,)`, of which `num // 2` are true: the same for the same arguments.
    """
    chosen = np.zeros(num, bool)
    chosen[np.random.RandomState((_HALF_SEED, number)).permutation(num)[: num // 2]] = True
    return chosen


def _finished(split: Split, size: int, what: str) -> Split:
    """A source's split as `load` returns it: the subset asked for, float32 and int64."""
    num = len(split.labels)
    if size > num:
        raise ValueError(
            f"`{what}` must not be larger than the split. Received: {what}={size} of {num} images. "
            f"Give at most {num}, or 0 for all."
        )
    images, labels = split
    if size:  # the stream of RandomState is frozen: the same subset under every version of NumPy
        order = np.random.RandomState(_SUBSET_SEED).permutation(num)[:size]
        images, labels = images[order], labels[order]
    return Split(as_float(images), labels.astype(np.int64))


def as_float(images: np.ndarray) -> np.ndarray:
    """Bytes to [0, 1]; what is float has been checked to be there already."""
    if images.dtype == np.uint8:
        return np.divide(images, np.float32(255), dtype=np.float32, order="C")
    return np.ascontiguousarray(images, dtype=np.float32)
