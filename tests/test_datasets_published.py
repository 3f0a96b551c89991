"""Fashion-MNIST and CIFAR-10: which copy is read, what is refused, and what is said where there is none.

No test uses the network: the function that asks for it is replaced, or the request below it. Every test runs with an
empty TFDS directory and without the Debian package unless it says so.
"""

import gzip
import os
import pickle
import struct
import tracemalloc

import numpy as np
import pytest
from dataset_files import (  # noqa: F401 (a fixture for every test)
    Bomb,
    assert_is,
    bare_machine,
    flipped,
    idx,
    labels,
    pixels,
    write_cifar10,
    write_fmnist,
)

from experiments import datasets
from experiments.datasets import published

DEBIAN_FMNIST, CHECK_NETWORK = published.DEBIAN_FMNIST, published._check_network  # which no other test uses


def test_the_real_fmnist(monkeypatch):
    if not os.path.isdir(DEBIAN_FMNIST):
        pytest.skip("needs the Debian package dataset-fashion-mnist")
    monkeypatch.setattr(published, "DEBIAN_FMNIST", DEBIAN_FMNIST)
    dataset = datasets.load("fmnist")
    images = dataset.train.images
    assert images.shape == (60000, 28, 28, 1) and dataset.test.images.shape == (10000, 28, 28, 1)
    assert round(100 * (images == 0).mean(), 2) == 50.21 and round(100 * (images == 1).mean(), 2) == 0.81
    assert (np.bincount(dataset.train.labels) == 6000).all() and (np.bincount(dataset.test.labels) == 1000).all()


def test_fmnist_of_the_debian_package(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "DEBIAN_FMNIST", str(tmp_path / "debian"))
    x, y, _, _ = write_fmnist(tmp_path / "debian", zipped=True)
    assert_is(datasets.load("fmnist").train, x, y)
    (tmp_path / "empty").mkdir()
    assert_is(datasets.load("fmnist", data_dir=str(tmp_path / "empty")).train, x, y)


def test_damaged_files_in_data_dir_are_no_reason_to_look_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "DEBIAN_FMNIST", str(tmp_path / "debian"))
    write_fmnist(tmp_path / "debian")
    write_fmnist(tmp_path / "raw", train_images=b"")
    with pytest.raises(ValueError, match="raw.train-images.*not an IDX file"):
        datasets.load("fmnist", data_dir=str(tmp_path / "raw"))


def write_tfds(root, name, shape, train, test):
    """A prepared TFDS copy.

    By `SequentialWriter`: `store_as_tfds_dataset` makes a download manager, and with it needs the package
    importlib_resources, which TFDS 4.9.10 uses without requiring it (tensorflow/datasets issue 11212).
    """
    import tensorflow_datasets as tfds

    version = tfds.builder_cls(name).VERSION
    directory = root / name / str(version)
    directory.mkdir(parents=True)
    features = {"image": tfds.features.Image(shape=shape), "label": tfds.features.ClassLabel(num_classes=10)}
    if name == "cifar10":
        features["id"] = tfds.features.Text()
    identity = tfds.core.DatasetIdentity(name=name, version=version, data_dir=str(directory), module_name="")
    info = tfds.core.DatasetInfo(builder=identity, features=tfds.features.FeaturesDict(features))
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=1000)
    extra = {"id": "0"} if name == "cifar10" else {}
    writer.initialize_splits(["train", "test"])
    writer.add_examples(
        {
            split: [{"image": image, "label": label, **extra} for image, label in zip(*arrays)]
            for split, arrays in (("train", train), ("test", test))
        }
    )
    writer.close_all()
    return directory


@pytest.mark.parametrize(
    "name, tfds_name, shape", [("fmnist", "fashion_mnist", (28, 28, 1)), ("cifar10", "cifar10", (32, 32, 3))]
)
@pytest.mark.parametrize("where", ["data_dir", "default"])
def test_prepared_tfds_copy(tmp_path, monkeypatch, name, tfds_name, shape, where):
    """Found in `data_dir` and preferred to the raw files there; without `data_dir`, in TFDS' own directory."""
    train, test = (pixels(5, shape), labels(5)), (pixels(2, shape), labels(2))
    write_tfds(tmp_path, tfds_name, shape, train, test)
    {"fmnist": write_fmnist, "cifar10": write_cifar10}[name](tmp_path)
    if where == "default":
        monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    dataset = datasets.load(name, data_dir=str(tmp_path) if where == "data_dir" else None)
    assert (dataset.name, dataset.num_classes) == (name, 10)
    assert_is(dataset.train, *train)
    assert_is(dataset.test, *test)


def test_tfds_copy_that_is_not_finished_is_passed_over(tmp_path):
    (tmp_path / "fashion_mnist" / "3.0.1.incompleteABC").mkdir(parents=True)
    x, y, _, _ = write_fmnist(tmp_path)
    assert_is(datasets.load("fmnist", data_dir=str(tmp_path)).train, x, y)


def test_tfds_copy_in_data_dir_only(tmp_path, monkeypatch):
    """With `data_dir`, TFDS' own directory is not looked into."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    split = pixels(2, (28, 28, 1)), labels(2)
    write_tfds(tmp_path / "tfds", "fashion_mnist", (28, 28, 1), split, split)
    x, y, _, _ = write_fmnist(tmp_path / "raw")
    assert_is(datasets.load("fmnist", data_dir=str(tmp_path / "raw")).train, x, y)


def _damage_records(directory):
    for path in directory.glob("*.tfrecord*"):
        path.write_bytes(flipped(path.read_bytes(), 40))


def _damage_info(directory):
    (directory / "dataset_info.json").write_text("{")


def _remove_records(directory):
    for path in directory.glob("*.tfrecord*"):
        path.unlink()


@pytest.mark.parametrize("damage", [_damage_records, _damage_info, _remove_records])
def test_damaged_tfds_copy(tmp_path, damage):
    split = pixels(2, (28, 28, 1)), labels(2)
    damage(write_tfds(tmp_path, "fashion_mnist", (28, 28, 1), split, split))
    with pytest.raises(ValueError, match="copy of fashion_mnist could not be read. Delete it"):
        datasets.load("fmnist", data_dir=str(tmp_path))


@pytest.mark.parametrize(
    "name, ways",
    [
        ("fmnist", ["pip install tensorflow-datasets", "apt install dataset-fashion-mnist", *published.FMNIST_FILES]),
        ("cifar10", ["pip install tensorflow-datasets", "data_batch_1.bin", "test_batch.bin", "cifar-10-binary"]),
    ],
)
@pytest.mark.parametrize("given_dir", [False, True])
def test_no_data_and_no_network(tmp_path, monkeypatch, name, ways, given_dir):
    """Names all the ways, and does not ask TFDS, which retries for two minutes where no server answers."""
    import requests

    def no_answer(url, timeout):
        raise requests.ConnectionError("Name or service not known")

    monkeypatch.setattr(published, "_check_network", CHECK_NETWORK)
    monkeypatch.setattr(requests, "head", no_answer)
    with pytest.raises(ValueError, match="not on this machine.*Name or service not known") as caught:
        datasets.load(name, data_dir=str(tmp_path) if given_dir else None)
    for way in (*ways, "--data_dir"):
        assert way in str(caught.value)


def test_a_server_that_answers_is_enough(monkeypatch):
    """The second server stands for the first; an error status is an answer."""
    import requests

    asked = []

    def head(url, timeout):
        asked.append(url)
        if len(asked) == 1:
            raise requests.Timeout

    monkeypatch.setattr(requests, "head", head)
    CHECK_NETWORK("http://a.invalid", "http://b.invalid", "http://c.invalid")
    assert asked == ["http://a.invalid", "http://b.invalid"]


@pytest.mark.parametrize("zipped", [False, True])
def test_fmnist_files(tmp_path, zipped):
    x, y, u, v = write_fmnist(tmp_path / "raw", zipped)
    dataset = datasets.load("fmnist", data_dir=str(tmp_path / "raw"))
    assert (dataset.name, dataset.num_classes, dataset.train.images.shape) == ("fmnist", 10, (7, 28, 28, 1))
    assert_is(dataset.train, x, y)
    assert_is(dataset.test, u, v)


IMAGES = idx(np.zeros((7, 28, 28), np.uint8))
LABELS = idx(np.arange(7, dtype=np.uint8))


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    "file, content, message",
    [
        ("train_images", b"", "must be 2051"),
        ("train_images", IMAGES[:15], "must be 2051"),
        ("train_images", LABELS, "must be 2051"),
        ("train_images", b"<html>404 not found</html>", "must be 2051"),
        ("train_images", b"\0\0\x0d\x03" + IMAGES[4:], "must be 2051"),  # floats
        ("train_labels", IMAGES, "must be 2049"),
        ("train_labels", LABELS[:4], "must be 2049"),
        ("train_images", IMAGES[:-1], "fewer bytes than its header states"),
        ("train_images", IMAGES + b"\0", "more bytes than its header states"),
        ("test_labels", LABELS + b"\0" * 10_000, "more bytes than its header states"),
        ("train_images", struct.pack(">4I", 2051, 2**31, 28, 28) + IMAGES[16:], "states more than it can hold"),
        ("train_images", struct.pack(">4I", 2051, *[2**32 - 1] * 3) + IMAGES[16:], "states more than it can hold"),
        ("train_labels", struct.pack(">2I", 2049, 2**31) + LABELS[8:], "states more than it can hold"),
        ("train_images", struct.pack(">4I", 2051, 0, 28, 28), "at least 1 image"),
        ("train_images", struct.pack(">4I", 2051, 2**31, 0, 28), "must have the shape"),
        ("train_images", idx(np.zeros((7, 32, 32), np.uint8)), "must have the shape .num, 28, 28, 1"),
        ("train_labels", idx(np.array([0, 1, 2, 200, 4, 5, 6], np.uint8)), "label 200 of image 3"),
        ("test_labels", idx(np.array([0, 1, 2, 10], np.uint8)), "outside 0 .. 9"),
        ("test_labels", LABELS, "one label an image.*4, 28.*labels of shape .7"),
        ("train_labels", LABELS[:4] + struct.pack(">I", 0), "one label an image"),
    ],
)
def test_bad_idx(tmp_path, zipped, file, content, message):
    write_fmnist(tmp_path / "raw", zipped, **{file: content})
    with pytest.raises(ValueError, match=message):
        datasets.load("fmnist", data_dir=str(tmp_path / "raw"))


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda z: z[: len(z) // 2], "could not be read.*EOFError"),
        (lambda z: z[:-4], "could not be read.*EOFError"),
        (lambda z: z[:10], "could not be read.*EOFError"),
        (lambda z: b"", "not an IDX file"),
        (lambda z: IMAGES, "could not be read.*BadGzipFile"),
        (lambda z: z + b"garbage", "could not be read.*BadGzipFile"),
        (lambda z: flipped(z, -8 % len(z)), "could not be read.*CRC"),
        (lambda z: flipped(z, 10), "could not be read.*error"),
        (lambda z: z + z, "more bytes than its header states"),  # gzip files may follow one another
    ],
)
def test_bad_gzip(tmp_path, damage, message):
    write_fmnist(tmp_path / "raw", zipped=True)
    path = tmp_path / "raw" / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        datasets.load("fmnist", data_dir=str(tmp_path / "raw"))


def test_a_gzip_bomb_is_not_unpacked(tmp_path):
    """16 MB of zeros behind a header of one image: 785 bytes are asked for."""
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx(np.zeros((1, 28, 28), np.uint8)) + bytes(16 << 20), 1))
    tracemalloc.start()
    with pytest.raises(ValueError, match="more bytes than its header states"):
        published._read_idx(str(path), 3)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 << 20


@pytest.mark.parametrize("missing", published.FMNIST_FILES)
def test_fmnist_with_a_file_missing(tmp_path, missing):
    write_fmnist(tmp_path / "raw")
    (tmp_path / "raw" / missing).unlink()
    (tmp_path / "raw" / missing).mkdir()  # a directory of that name is not the file
    with pytest.raises(ValueError, match=f"{missing}' could not be read: it is absent"):
        datasets.load("fmnist", data_dir=str(tmp_path / "raw"))


@pytest.mark.parametrize("folder", ["", "cifar-10-batches-bin"])
def test_cifar10_files(tmp_path, folder):
    x, y, u, v = write_cifar10(tmp_path / folder)
    dataset = datasets.load("cifar10", data_dir=str(tmp_path))
    assert (dataset.name, dataset.num_classes, dataset.train.images.shape) == ("cifar10", 10, (15, 32, 32, 3))
    assert_is(dataset.train, x, y)
    assert_is(dataset.test, u, v)


@pytest.mark.parametrize(
    "file, content, message",
    [
        ("data_batch_3.bin", b"", "at least 1 image"),
        ("data_batch_3.bin", bytes(3072), "records of 3073 bytes.*Received: 3072"),
        ("test_batch.bin", bytes(3074), "records of 3073 bytes"),
        ("test_batch.bin", bytes(3073) + b"\xc8" + bytes(3072), "label 200 of image 1"),
        ("data_batch_5.bin", None, "data_batch_5.bin' could not be read: it is absent"),
        ("test_batch.bin", None, "test_batch.bin' could not be read: it is absent"),
    ],
)
def test_bad_cifar10(tmp_path, file, content, message):
    write_cifar10(tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        datasets.load("cifar10", data_dir=str(tmp_path))


@pytest.mark.parametrize("folder", ["", "cifar-10-batches-py"])
def test_pickled_cifar10_is_not_opened(tmp_path, folder):
    directory = tmp_path / folder
    directory.mkdir(exist_ok=True)
    for name in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"):
        (directory / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="cifar-10-binary.tar.gz.*Python version.*a pickle can run code"):
        datasets.load("cifar10", data_dir=str(tmp_path))
    x, y, _, _ = write_cifar10(tmp_path / "cifar-10-batches-bin")  # beside the binary version it does not matter
    assert_is(datasets.load("cifar10", data_dir=str(tmp_path)).train, x, y)
