"""Arrays in a NumPy archive, under the names that Keras gives them; never pickles."""

import math
import os
import tokenize
import zipfile
from typing import BinaryIO

import numpy as np

from experiments.datasets.checks import checked_split, required_path
from experiments.datasets.reading import DEFLATE_RATIO, check_can_hold, read_at_most, read_errors_as_value_errors
from experiments.datasets.types import Dataset, Split

_MAX_CLASSES = 100_000  # a larger label is an identifier, not the number of a class


def load_npz(data_dir: str | None) -> Dataset:
    """Reads `x_train, y_train, x_test, y_test` of an .npz file."""
    path = required_path(data_dir, "npz", "the .npz file")
    with read_errors_as_value_errors(path), zipfile.ZipFile(path) as archive:
        train, test = (_read_npz_split(archive, path, split) for split in ("train", "test"))
    num_classes = int(max(train.labels.max(), test.labels.max())) + 1
    checked_split(test, train.images.shape[1:], num_classes, f"`x_test` of {path}")
    return Dataset(os.path.splitext(os.path.basename(path))[0], train, test, num_classes)


def _read_npz_split(archive: zipfile.ZipFile, path: str, split: str) -> Split:
    """Reads and checks `x_<split>` and `y_<split>`."""
    pixels = _read_npz_array(archive, path, f"x_{split}")
    labels = _read_npz_array(archive, path, f"y_{split}")
    if pixels.ndim == 3:
        pixels = pixels[..., np.newaxis]
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    _check_pixels(pixels, f"`x_{split}` of {path}")
    _check_label_type(labels, f"`y_{split}` of {path}")
    where = f"`x_{split}` with `y_{split}` of {path}"
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


def _read_npz_array(archive: zipfile.ZipFile, path: str, key: str) -> np.ndarray:
    """Reads one array of numbers; never objects, which are pickled.

    Args:
        archive: the open .npz file.
        path: its path.
        key: the name of the array.

    Returns:
        The array.

    Raises:
        ValueError: if it is missing, damaged, not of numbers, or not as long as stated.
    """
    if f"{key}.npy" not in archive.namelist():
        raise ValueError(
            f"{path} must hold the arrays x_train, y_train, x_test and y_test. "
            f"Received: {sorted(archive.namelist())}, without {key}. "
            "Save it by np.savez(path, x_train=..., y_train=..., x_test=..., y_test=...)."
        )
    entry = archive.getinfo(f"{key}.npy")
    check_can_hold(path, entry.file_size, DEFLATE_RATIO)
    with archive.open(entry) as file:
        shape, fortran, dtype = _npy_header(file, path, key)
        size = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or file.tell() + size != entry.file_size:
            raise ValueError(
                f"`{key}` of {path} is not as long as its header states. Received: shape {shape} "
                f"of {dtype} in {entry.file_size} bytes. Save the file again."
            )
        content = read_at_most(file, size + 1)  # the one more makes zipfile check the checksum
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")


def _npy_header(file: BinaryIO, path: str, key: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and dtype of an array of numbers in NumPy's format."""
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        shape, fortran, dtype = readers[np.lib.format.read_magic(file)](file)
    except (ValueError, TypeError, KeyError, SyntaxError, MemoryError, tokenize.TokenError) as error:
        raise ValueError(
            f"`{key}` of {path} is not an array of numbers in NumPy's format. "
            f"Received: {type(error).__name__}: {error}. Save the file again by np.savez."
        ) from error
    if dtype.kind not in "buifc":
        raise ValueError(
            f"`{key}` of {path} must be an array of numbers: one of objects is a pickle, which can "
            f"run code and is never read. Received: dtype {dtype}. Convert it before saving."
        )
    return shape, fortran, dtype
