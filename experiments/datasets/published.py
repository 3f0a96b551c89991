"""Fashion-MNIST and CIFAR-10: the first copy that is found, or a download by TensorFlow Datasets (TFDS)."""

import contextlib
import gzip
import math
import os
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from experiments.datasets.reading import check_can_hold, reading
from experiments.datasets.types import Dataset, Split, checked_split

DEBIAN_FMNIST = "/usr/share/datasets/fashion-mnist"
"""Where the Debian package `dataset-fashion-mnist` installs its files."""
FMNIST_FILES = tuple(f"{split}-{kind}-ubyte" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))
CIFAR10_FILES = (*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin")

_MOST_IDX, _CIFAR10_RECORD, _CIFAR10_RECORDS = 60_000 * 28 * 28, 1 + 3 * 32 * 32, 10_000
_CONNECT_SECONDS = 5.0


def load_published(name: str, data_dir: str | None) -> Dataset:
    """Reads Fashion-MNIST ("fmnist") or CIFAR-10 ("cifar10") from the first copy, in the order of `datasets.load`."""
    root = data_dir or os.environ.get("TFDS_DATA_DIR") or os.path.expanduser("~/tensorflow_datasets")
    splits = None
    if any(pathlib.Path(root, _SOURCES[name].tfds).glob("*/dataset_info.json")):  # most runs need no import of TFDS
        splits = _by_tfds(name, root, download=False)
    for folder in (data_dir, data_dir and os.path.join(data_dir, "cifar-10-batches-bin"), DEBIAN_FMNIST):
        splits = splits or folder and _read_files(_SOURCES[name], folder)
    return Dataset(name, *(splits or _by_tfds(name, data_dir, download=True)), 10)


def read_tfds(name: str, split: str, data_dir: str | None, *, download: bool) -> tuple[np.ndarray, np.ndarray]:
    """Reads images and labels of a data set of TFDS, which raises what it likes if it cannot."""
    import tensorflow_datasets as tfds

    columns = tfds.as_numpy(tfds.load(name, split=split, data_dir=data_dir, batch_size=-1, download=download))
    return columns["image"], columns["label"]


def _by_tfds(name: str, root: str | None, *, download: bool) -> list[Split]:
    """Reads a prepared copy, for which nothing is asked of the network, or downloads, or tells all ways to the data."""
    source = _SOURCES[name]
    try:
        if download:
            _check_network(source.server, "https://storage.googleapis.com")
        arrays = [read_tfds(source.tfds, split, root, download=download) for split in ("train", "test")]
        return [checked_split(*pair, f"The copy of {source.tfds}", source.shape, 10) for pair in arrays]
    except Exception as error:  # no network, no TFDS, a wrong checksum, a full disk: TFDS documents no set of errors
        copy = f"'s TensorFlow Datasets copy of {source.tfds} could not be read. Delete it if it is damaged"
        raise ValueError(
            f"The data set {name!r}{' is not on this machine, and its download failed' if download else copy}. "
            f"Received: data_dir={root!r}; {type(error).__name__}: {error}. Ways to mend it: with a network, `pip "
            f"install tensorflow-datasets importlib_resources` and run again; {source.way}"
        ) from error


def _check_network(*urls: str) -> None:
    """Raises unless one of the servers answers: TFDS itself retries for minutes without one."""
    import requests  # heeds the same proxy settings as TFDS

    for url in urls[:-1]:
        with contextlib.suppress(requests.RequestException):
            return requests.head(url, timeout=_CONNECT_SECONDS)
    requests.head(urls[-1], timeout=_CONNECT_SECONDS)


def _read_files(source: "_Source", folder: str) -> list[Split] | None:
    """Reads the files of a data set, plain or gzip-ed; None if there are none. Those of other kinds are not opened."""
    plain = [os.path.join(folder, name) for name in source.files]
    paths = [path if os.path.isfile(path) or not os.path.isfile(path + ".gz") else path + ".gz" for path in plain]
    if not any(map(os.path.isfile, paths)):
        return None
    parts = zip(*[iter(paths)] * source.files_a_part)
    *train, test = (checked_split(*source.read(*part), part[0], source.shape, 10) for part in parts)
    return [Split(*map(np.concatenate, zip(*train))), test]


def _read_idx(path: str, rank: int) -> np.ndarray:
    """Reads one IDX file of bytes of as many dimensions, if it is exactly that."""
    with reading(path), gzip.open(path) if path.endswith(".gz") else open(path, "rb") as file:
        header = file.read(4 * (1 + rank))
        if len(header) != 4 * (1 + rank) or int.from_bytes(header[:4], "big") != 0x800 + rank:
            raise ValueError(
                f"{path} is not an IDX file of {rank}-dimensional bytes: its magic number must be {0x800 + rank}. "
                f"Received: a file that begins with {header[:4]!r}. Fetch it again."
            )
        shape = np.frombuffer(header, ">u4", offset=4).tolist()
        size = math.prod(shape)
        check_can_hold(path, size, os.path.getsize(path), _MOST_IDX)
        content = file.read(size + 1)
    if len(content) != size:
        amount = "fewer" if len(content) < size else "more"
        raise ValueError(f"{path} has {amount} bytes than its header states. Received: shape {shape}. Fetch it again.")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _read_cifar10(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads records of one label and 3 x 32 x 32 bytes, channel first."""
    with reading(path), gzip.open(path) if path.endswith(".gz") else open(path, "rb") as file:
        content = file.read(_CIFAR10_RECORDS * _CIFAR10_RECORD + 1)
    if len(content) % _CIFAR10_RECORD:
        raise ValueError(
            f"{path} is not made of at most {_CIFAR10_RECORDS} records of {_CIFAR10_RECORD} bytes. Received: "
            f"{os.path.getsize(path)} bytes. Fetch it again."
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, _CIFAR10_RECORD)
    return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0]


class _Source(NamedTuple):
    tfds: str
    server: str  # that TFDS downloads from
    shape: tuple[int, int, int]
    files: tuple[str, ...]
    files_a_part: int  # the last part is the test split, those before are joined
    read: Callable[..., tuple[np.ndarray, np.ndarray]]  # a part
    way: str  # to get the files, for the message


_SOURCES = {
    "fmnist": _Source(
        *("fashion_mnist", "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com", (28, 28, 1)),
        *(FMNIST_FILES, 2, lambda images, labels: (_read_idx(images, 3), _read_idx(labels, 1))),
        "on Debian or Ubuntu, `apt install dataset-fashion-mnist`; or --data_dir=<directory> with "
        f"{', '.join(FMNIST_FILES)}, each with or without .gz, from https://github.com/zalandoresearch/fashion-mnist.",
    ),
    "cifar10": _Source(
        *("cifar10", "https://www.cs.toronto.edu", (32, 32, 3), CIFAR10_FILES, 1, _read_cifar10),
        f"or --data_dir=<directory> with {', '.join(CIFAR10_FILES)}, the unpacked cifar-10-binary.tar.gz of "
        "https://www.cs.toronto.edu/~kriz/cifar.html (its Python version is pickled and never read: a pickle can run "
        "code). Debian has no package of it.",
    ),
}
