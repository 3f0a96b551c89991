"""Fashion-MNIST and CIFAR-10: the first copy that is found, or a download by TensorFlow Datasets (TFDS)."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

from experiments.datasets.checks import check_directory, checked_split
from experiments.datasets.raw import CIFAR10_FILES, FMNIST_FILES, read_cifar10, read_fmnist
from experiments.datasets.types import Dataset, Split

DEBIAN_FMNIST = "/usr/share/datasets/fashion-mnist"
"""Where the Debian package `dataset-fashion-mnist` installs its files."""

_CONNECT_SECONDS = 5.0


class _Published(NamedTuple):
    """A data set that has one content and several packagings, all of ten classes.

    Attributes:
        name: as `load` knows it.
        tfds_name: as TensorFlow Datasets knows it.
        image_shape: height, width, channels.
        url: the server that TFDS downloads from.
        read_raw: reads the raw files of a directory, None if it holds none.
        ways: how to get the data, for the message.
    """

    name: str
    tfds_name: str
    image_shape: tuple[int, int, int]
    url: str
    read_raw: Callable[[str], Dataset | None]
    ways: str


_FMNIST = _Published(
    name="fmnist",
    tfds_name="fashion_mnist",
    image_shape=(28, 28, 1),
    url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    read_raw=read_fmnist,
    ways=(
        "on Debian or Ubuntu, `apt install dataset-fashion-mnist`; or --data_dir=<directory> with "
        f"{', '.join(FMNIST_FILES)}, each with or without .gz, from "
        "https://github.com/zalandoresearch/fashion-mnist."
    ),
)
_CIFAR10 = _Published(
    name="cifar10",
    tfds_name="cifar10",
    image_shape=(32, 32, 3),
    url="https://www.cs.toronto.edu",
    read_raw=read_cifar10,
    ways=(
        f"or --data_dir=<directory> with {', '.join(CIFAR10_FILES)}, the unpacked "
        "cifar-10-binary.tar.gz of https://www.cs.toronto.edu/~kriz/cifar.html. Debian has no "
        "package of it."
    ),
)


def load_fmnist(data_dir: str | None) -> Dataset:
    """Reads Fashion-MNIST, which Debian has a package of."""
    return _load_published(_FMNIST, data_dir, package_dir=DEBIAN_FMNIST)


def load_cifar10(data_dir: str | None) -> Dataset:
    """Reads CIFAR-10."""
    return _load_published(_CIFAR10, data_dir, package_dir=None)


def _load_published(source: _Published, data_dir: str | None, package_dir: str | None) -> Dataset:
    """Reads the first copy there is, in the order that `load` documents."""
    if data_dir is not None:
        check_directory(data_dir)
    dataset = _read_prepared(source, data_dir)
    for directory in filter(None, (data_dir, package_dir)):
        dataset = dataset or source.read_raw(directory)
    return dataset or _read_downloaded(source, data_dir)


def _read_prepared(source: _Published, data_dir: str | None) -> Dataset | None:
    """Reads the prepared TFDS copy, None if there is none. Nothing is asked of the network."""
    default = os.environ.get("TFDS_DATA_DIR") or os.path.expanduser("~/tensorflow_datasets")
    root = data_dir or default
    if not _holds_prepared(os.path.join(root, source.tfds_name)):
        return None
    try:
        import tensorflow_datasets as tfds

        builder = tfds.builder(source.tfds_name, data_dir=root)
        return _read_builder(source, builder) if builder.is_prepared() else None
    except Exception as error:  # TFDS documents no set of errors, and TF, protobuf, json add theirs
        raise ValueError(
            f"The TensorFlow Datasets copy of {source.tfds_name} in {root!r} could not be read. "
            f"Received: {type(error).__name__}: {error}. Delete it, or `pip install "
            "tensorflow-datasets` if that is what is missing."
        ) from error


def _holds_prepared(directory: str) -> bool:
    """Whether there is a version that TFDS finished; spares most runs the import of TFDS."""
    try:
        with os.scandir(directory) as versions:
            return any(os.path.isfile(os.path.join(v.path, "dataset_info.json")) for v in versions)
    except OSError:
        return False


def _read_builder(source: _Published, builder: Any) -> Dataset:
    """Reads both splits of a prepared TFDS builder."""

    def read(split: str) -> Split:
        columns = builder.as_dataset(split=split, batch_size=-1)
        pixels, labels = columns["image"].numpy(), columns["label"].numpy()
        where = f"The split {split!r} in {builder.data_path}"
        return checked_split(Split(pixels, labels), source.image_shape, 10, where)

    return Dataset(source.name, read("train"), read("test"), 10)


def _read_downloaded(source: _Published, data_dir: str | None) -> Dataset:
    """Downloads by TFDS and reads, or tells all the ways to get the data."""
    try:
        return _read_builder(source, _download(source.tfds_name, source.url, data_dir))
    except Exception as error:  # no network, no TFDS, a wrong checksum, a full disk, ...
        raise ValueError(
            f"The data set {source.name!r} is not on this machine, and its download failed. "
            f"Received: data_dir={data_dir!r}; {type(error).__name__}: {error}. Ways to mend it: "
            "with a network, `pip install tensorflow-datasets importlib_resources` and run again; "
            f"{source.ways}"
        ) from error


def _download(tfds_name: str, url: str, data_dir: str | None) -> Any:
    """Has TFDS download and prepare a data set, and gives its builder."""
    _check_network(url, "https://storage.googleapis.com")
    import tensorflow_datasets as tfds

    builder = tfds.builder(tfds_name, data_dir=data_dir)
    builder.download_and_prepare()
    return builder


def _check_network(*urls: str) -> None:
    """Raises unless one of the servers answers: TFDS itself retries for minutes without one."""
    import requests  # comes with TFDS, and heeds the same proxy settings

    for url in urls:
        try:
            requests.head(url, timeout=_CONNECT_SECONDS)
            return
        except requests.RequestException as error:
            failure = error
    raise failure
