"""Fashion-MNIST and CIFAR-10: the first copy that is found, or a download by TensorFlow Datasets (TFDS)."""

import gzip
import math
import os

import numpy as np

from experiments.datasets.reading import check_can_hold, reading
from experiments.datasets.types import Dataset, Split, checked_split

DEBIAN_FMNIST = "/usr/share/datasets/fashion-mnist"
"""Where the Debian package `dataset-fashion-mnist` installs its files."""
FMNIST_FILES = tuple(f"{split}-{kind}-ubyte" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))
CIFAR10_FILES = (*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin")

_TFDS_NAMES = {"fmnist": "fashion_mnist", "cifar10": "cifar10"}
_SERVERS = {  # that TFDS downloads from
    "fmnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    "cifar10": "https://www.cs.toronto.edu",
}
_WAYS = {  # to get the data, for the message
    "fmnist": "on Debian or Ubuntu, `apt install dataset-fashion-mnist`; or --data_dir=<directory> with "
    f"{', '.join(FMNIST_FILES)}, each with or without .gz, from https://github.com/zalandoresearch/fashion-mnist.",
    "cifar10": f"or --data_dir=<directory> with {', '.join(CIFAR10_FILES)}, the unpacked cifar-10-binary.tar.gz of "
    "https://www.cs.toronto.edu/~kriz/cifar.html. Debian has no package of it.",
}
_MOST_IDX, _CIFAR10_RECORD, _CIFAR10_RECORDS = 60_000 * 28 * 28, 1 + 3 * 32 * 32, 10_000
_CONNECT_SECONDS = 5.0


def load_published(name: str, data_dir: str | None) -> Dataset:
    """Reads Fashion-MNIST ("fmnist") or CIFAR-10 ("cifar10") from the first copy, in the order of `datasets.load`."""
    splits = _read_prepared(name, data_dir)
    for directory in filter(None, (data_dir, DEBIAN_FMNIST if name == "fmnist" else None)):
        splits = splits or (_read_fmnist if name == "fmnist" else _read_cifar10)(directory)
    train, test = splits or _read_downloaded(name, data_dir)
    return Dataset(name, train, test, 10)


def read_tfds(name: str, split: str, data_dir: str | None, *, download: bool) -> Split:
    """Reads a split of a data set of TFDS, which raises what it likes if it cannot."""
    import tensorflow_datasets as tfds

    columns = tfds.as_numpy(tfds.load(name, split=split, data_dir=data_dir, batch_size=-1, download=download))
    return Split(columns["image"], columns["label"])


def _find(directory: str, names: tuple[str, ...], endings: tuple[str, ...] = ("",)) -> list[str]:
    """The paths of all these files, each with the first ending it is found with; nothing if none is there."""
    candidates = [[os.path.join(directory, name + ending) for ending in endings] for name in names]
    found = [next(filter(os.path.isfile, paths), None) for paths in candidates]
    missing = [name for name, path in zip(names, found) if path is None]
    if missing and len(missing) < len(names):
        raise ValueError(
            f"{directory} holds only a part of the files of the data set. Received: a directory without "
            f"{', '.join(missing)}. Add what is missing."
        )
    return [path for path in found if path is not None]


def _read_fmnist(directory: str) -> list[Split] | None:
    """Reads the four IDX files, plain or gzip-ed; None if there are none."""
    paths = _find(directory, FMNIST_FILES, ("", ".gz"))
    if not paths:
        return None
    splits = (Split(_read_idx(x, 3)[..., np.newaxis], _read_idx(y, 1)) for x, y in (paths[:2], paths[2:]))
    return [checked_split(split, (28, 28, 1), 10, path) for split, path in zip(splits, paths[::2])]


def _read_idx(path: str, rank: int) -> np.ndarray:
    """Reads one IDX file of bytes (gzip-ed if it ends in `.gz`) of as many dimensions, if it is exactly that."""
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
        raise ValueError(
            f"{path} has {amount} bytes than its header states. Received: shape {shape}, that is {size} bytes, and "
            f"{amount} in the file. Fetch it again."
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def _read_cifar10(directory: str) -> list[Split] | None:
    """Reads the six files of the binary version; None if there are none."""
    paths = _find(directory, CIFAR10_FILES) or _find(os.path.join(directory, "cifar-10-batches-bin"), CIFAR10_FILES)
    if paths:
        *batches, test = map(_read_cifar10_batch, paths)
        return [Split(*(np.concatenate(arrays) for arrays in zip(*batches))), test]
    for folder in (directory, os.path.join(directory, "cifar-10-batches-py")):
        if os.path.isfile(os.path.join(folder, "data_batch_1")):
            raise ValueError(
                f"{folder} holds the Python version of CIFAR-10, which is pickled and never read, for a pickle can run "
                "code. Received: data_batch_1 without an ending. Unpack the binary version (cifar-10-binary.tar.gz) "
                "there instead."
            )
    return None


def _read_cifar10_batch(path: str) -> Split:
    """Reads records of one label and 3 x 32 x 32 bytes, channel first."""
    size = os.path.getsize(path)
    if size % _CIFAR10_RECORD or size > _CIFAR10_RECORDS * _CIFAR10_RECORD:
        raise ValueError(
            f"{path} is not made of at most {_CIFAR10_RECORDS} records of {_CIFAR10_RECORD} bytes. Received: {size} "
            "bytes. Fetch it again."
        )
    with reading(path):
        records = np.fromfile(path, np.uint8).reshape(-1, _CIFAR10_RECORD)
    pixels = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return checked_split(Split(pixels, records[:, 0]), (32, 32, 3), 10, path)


def _read_prepared(name: str, data_dir: str | None) -> list[Split] | None:
    """Reads the prepared TFDS copy, None if there is none. Nothing is asked of the network."""
    root = data_dir or os.environ.get("TFDS_DATA_DIR") or os.path.expanduser("~/tensorflow_datasets")
    directory = os.path.join(root, _TFDS_NAMES[name])
    versions = os.listdir(directory) if os.path.isdir(directory) else []
    if not any(os.path.isfile(os.path.join(directory, version, "dataset_info.json")) for version in versions):
        return None  # which spares most runs the import of TFDS
    try:
        return _read_both(name, root, download=False)
    except Exception as error:  # TFDS documents no set of errors, and TF, protobuf, json add theirs
        raise ValueError(
            f"The TensorFlow Datasets copy of {_TFDS_NAMES[name]} in {root!r} could not be read. Received: "
            f"{type(error).__name__}: {error}. Delete it, or `pip install tensorflow-datasets` if that is what is "
            "missing."
        ) from error


def _read_downloaded(name: str, data_dir: str | None) -> list[Split]:
    """Downloads by TFDS and reads, or tells all the ways to get the data."""
    try:
        _check_network(_SERVERS[name], "https://storage.googleapis.com")
        return _read_both(name, data_dir, download=True)
    except Exception as error:  # no network, no TFDS, a wrong checksum, a full disk, ...
        raise ValueError(
            f"The data set {name!r} is not on this machine, and its download failed. Received: data_dir={data_dir!r}; "
            f"{type(error).__name__}: {error}. Ways to mend it: with a network, `pip install tensorflow-datasets "
            f"importlib_resources` and run again; {_WAYS[name]}"
        ) from error


def _read_both(name: str, root: str | None, *, download: bool) -> list[Split]:
    shape = (28, 28, 1) if name == "fmnist" else (32, 32, 3)
    splits = (read_tfds(_TFDS_NAMES[name], split, root, download=download) for split in ("train", "test"))
    return [checked_split(split, shape, 10, f"The copy of {_TFDS_NAMES[name]}") for split in splits]


def _check_network(*urls: str) -> None:
    """Raises unless one of the servers answers: TFDS itself retries for minutes without one."""
    import requests  # heeds the same proxy settings as TFDS

    for url in urls:
        try:
            requests.head(url, timeout=_CONNECT_SECONDS)
            return
        except requests.RequestException as error:
            failure = error
    raise failure
