"""The files that Fashion-MNIST (IDX) and CIFAR-10 (binary version) are published as."""

import gzip
import math
import os
from typing import BinaryIO

import numpy as np

from experiments.datasets.checks import checked_split
from experiments.datasets.reading import (
    check_can_hold,
    find_files,
    read_at_most,
    read_errors_as_value_errors,
)
from experiments.datasets.types import Dataset, Split

FMNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
CIFAR10_FILES = (*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin")
_IDX_IMAGES, _IDX_LABELS = 2051, 2049  # 0x08: bytes; the last digit: the number of dimensions
_CIFAR10_RECORD = 1 + 3 * 32 * 32
_MOST_IDX, _MOST_CIFAR10 = 60_000 * 28 * 28, 10_000 * _CIFAR10_RECORD  # a file that is longer is sparse, or no such one


def read_fmnist(directory: str) -> Dataset | None:
    """Reads the four IDX files, plain or gzip-ed; None if there are none."""
    paths = find_files(directory, FMNIST_FILES, ("", ".gz"))
    if not paths:
        return None
    train, test = _read_idx_pair(*paths[:2]), _read_idx_pair(*paths[2:])
    return Dataset("fmnist", train, test, 10)


def _read_idx_pair(images_path: str, labels_path: str) -> Split:
    pixels = _read_idx(images_path, _IDX_IMAGES)[..., np.newaxis]
    labels = _read_idx(labels_path, _IDX_LABELS)
    where = f"{images_path} with {os.path.basename(labels_path)}"
    return checked_split(Split(pixels, labels), (28, 28, 1), 10, where)


def _read_idx(path: str, magic: int) -> np.ndarray:
    """Reads one IDX file of bytes.

    Args:
        path: the file; gzip-ed if it ends in `.gz`.
        magic: 2051 for images, 2049 for labels.

    Returns:
        uint8, of the shape that the header states and the file was found to have.

    Raises:
        ValueError: if the file is damaged, of another kind, or not exactly as long as stated.
    """
    with read_errors_as_value_errors(path), _open_idx(path) as file:
        shape = _idx_shape(read_at_most(file, 4 + 4 * (magic % 256)), magic, path)
        size = math.prod(shape)
        check_can_hold(path, size, os.path.getsize(path), _MOST_IDX)
        content = read_at_most(file, size + 1)
    if len(content) != size:
        amount = "fewer" if len(content) < size else "more"
        raise ValueError(
            f"{path} has {amount} bytes than its header states. Received: shape {shape}, that is "
            f"{size} bytes, and {amount} in the file. Fetch it again."
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def _open_idx(path: str) -> BinaryIO:
    return gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb")


def _idx_shape(header: bytes, magic: int, path: str) -> tuple[int, ...]:
    """The dimensions in an IDX header: big-endian 32-bit numbers after the magic one."""
    rank = magic % 256
    if len(header) != 4 + 4 * rank or int.from_bytes(header[:4], "big") != magic:
        raise ValueError(
            f"{path} is not an IDX file of {rank}-dimensional bytes: its magic number must be "
            f"{magic}. Received: a file that begins with {bytes(header[:4])!r}. Fetch it again."
        )
    return tuple(int(n) for n in np.frombuffer(header, ">u4", offset=4))


def read_cifar10(directory: str) -> Dataset | None:
    """Reads the six files of the binary version; None if there are none."""
    folders = (directory, os.path.join(directory, "cifar-10-batches-bin"))
    paths = find_files(folders[0], CIFAR10_FILES, ("",)) or find_files(folders[1], CIFAR10_FILES, ("",))
    if not paths:
        return _refuse_pickled(directory)
    batches = [_read_cifar10_batch(path) for path in paths]
    train = Split(*(np.concatenate(arrays) for arrays in zip(*batches[:5])))
    return Dataset("cifar10", train, batches[5], 10)


def _refuse_pickled(directory: str) -> None:
    """Says so if all there is are pickles, which could run code when they are opened."""
    for folder in (directory, os.path.join(directory, "cifar-10-batches-py")):
        if os.path.isfile(os.path.join(folder, "data_batch_1")):
            raise ValueError(
                f"{folder} holds the Python version of CIFAR-10, which is pickled and never read, "
                "for a pickle can run code. Received: data_batch_1 without an ending. "
                "Unpack the binary version (cifar-10-binary.tar.gz) there instead."
            )


def _read_cifar10_batch(path: str) -> Split:
    """Reads records of one label and 3 x 32 x 32 bytes, channel first."""
    size = os.path.getsize(path)
    if size % _CIFAR10_RECORD or size > _MOST_CIFAR10:
        raise ValueError(
            f"{path} is not made of at most 10000 records of {_CIFAR10_RECORD} bytes. Received: {size} bytes. "
            "Fetch it again."
        )
    with read_errors_as_value_errors(path):
        records = np.fromfile(path, np.uint8).reshape(-1, _CIFAR10_RECORD)
    pixels = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return checked_split(Split(pixels, records[:, 0]), (32, 32, 3), 10, path)
