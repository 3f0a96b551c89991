"""Images and labels in a NumPy archive, under the names that Keras gives them."""

import os
from collections.abc import Sequence

import numpy as np

from experiments.datasets.archive import listed, read_arrays
from experiments.datasets.checks import checked_split, required_path
from experiments.datasets.types import Dataset, Split

_NAMES = ("x_train", "y_train", "x_test", "y_test")
_MAX_CLASSES = 100_000  # a larger label is an identifier, not the number of a class


def load_npz(data_dir: str | None) -> Dataset:
    """Reads `x_train, y_train, x_test, y_test` of an .npz file."""
    path = required_path(data_dir, "npz", "the .npz file")
    arrays = read_arrays(path, _NAMES)
    missing = [name for name in _NAMES if name not in arrays]
    if missing:
        raise ValueError(
            f"{path!r} must hold the arrays {', '.join(_NAMES)}. Received: {listed(arrays)}, without "
            f"{', '.join(missing)}. Save it by np.savez(path, x_train=..., y_train=..., x_test=..., y_test=...)."
        )
    train, test = (
        npz_split(*(arrays[name] for name in names), repr(path), names) for names in (_NAMES[:2], _NAMES[2:])
    )
    num_classes = int(max(train.labels.max(), test.labels.max())) + 1
    checked_split(test, train.images.shape[1:], num_classes, f"`x_test` of {path!r}")
    return Dataset(os.path.splitext(os.path.basename(path))[0], train, test, num_classes)


def npz_split(pixels: np.ndarray, labels: np.ndarray, path: str, names: Sequence[str]) -> Split:
    """Checks images and labels, called by these names in messages, and gives them the axes that they should have."""
    if pixels.ndim == 3:
        pixels = pixels[..., np.newaxis]
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    _check_pixels(pixels, f"`{names[0]}` of {path}")
    _check_label_type(labels, f"`{names[1]}` of {path}")
    where = f"`{names[0]}` with `{names[1]}` of {path}"
    return checked_split(Split(pixels, labels), pixels.shape[1:], _MAX_CLASSES, where)


def _check_pixels(pixels: np.ndarray, where: str) -> None:
    """Refuses images that are not (num, height, width, channels) of bytes, or floats in [0, 1]."""
    if pixels.ndim != 4 or not pixels.size:
        raise ValueError(
            f"{where} must have the shape (num, height, width) or (num, height, width, channels), "
            f"with at least 1 image. Received: shape {pixels.shape}. Reshape the array."
        )
    if pixels.dtype != np.uint8 and pixels.dtype.kind != "f":
        raise ValueError(
            f"{where} must be uint8, or float in [0, 1]. Received: dtype {pixels.dtype}. "
            "Convert the array, e.g. by .astype('uint8')."
        )
    if pixels.dtype.kind == "f" and not (pixels.min() >= 0 and pixels.max() <= 1):  # NaN: neither
        raise ValueError(
            f"{where} is float and must be in [0, 1], without NaN. Received: minimum "
            f"{pixels.min()}, maximum {pixels.max()}. Divide by 255, or save the bytes as uint8."
        )


def _check_label_type(labels: np.ndarray, where: str) -> None:
    if labels.dtype.kind not in "ui":
        raise ValueError(
            f"{where} must be whole numbers. Received: dtype {labels.dtype}. "
            "Save the numbers of the classes, e.g. by .astype('int64'); not one-hot vectors."
        )
