"""Fashion-MNIST and CIFAR-10: which copy is read, and what is said where there is none.

No test uses the network. Where `load` would download, the one function that does, `published._download`, or the request
below it, is replaced; every test runs with an empty TFDS directory and without the Debian package unless it says so.
"""

import os
import time

import numpy as np
import pytest
from dataset_files import (  # noqa: F401 (a fixture for every test)
    assert_is,
    bare_machine,
    flipped,
    labels,
    pixels,
    write_cifar10,
    write_fmnist,
)

from experiments import datasets
from experiments.datasets import published, raw

DEBIAN_FMNIST = published.DEBIAN_FMNIST  # of this machine, which no other test reads


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
    with pytest.raises(ValueError, match="copy of fashion_mnist in .* could not be read.*Delete it"):
        datasets.load("fmnist", data_dir=str(tmp_path))


def test_tfds_download(tmp_path, monkeypatch):
    """Step 4, with the function that downloads replaced by one that writes a copy to where it was asked to."""
    import tensorflow_datasets as tfds

    train, test = (pixels(3, (28, 28, 1)), labels(3)), (pixels(2, (28, 28, 1)), labels(2))

    def download(tfds_name, url, data_dir):
        assert url.startswith("http")
        write_tfds(tmp_path, tfds_name, (28, 28, 1), train, test)
        return tfds.builder(tfds_name, data_dir=data_dir)

    monkeypatch.setattr(published, "_download", download)
    assert_is(datasets.load("fmnist", data_dir=str(tmp_path)).train, *train)


@pytest.mark.parametrize(
    "name, ways",
    [
        ("fmnist", ["pip install tensorflow-datasets", "apt install dataset-fashion-mnist", *raw.FMNIST_FILES]),
        ("cifar10", ["pip install tensorflow-datasets", "data_batch_1.bin", "test_batch.bin", "cifar-10-binary"]),
    ],
)
@pytest.mark.parametrize("given_dir", [False, True])
def test_no_data_and_no_network(tmp_path, monkeypatch, name, ways, given_dir):
    """Quick, and names all the ways. The real `_download` runs, on a machine where no server answers."""
    import requests

    def no_answer(url, timeout):
        raise requests.ConnectionError("Name or service not known")

    monkeypatch.undo()
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "no-tfds"))
    monkeypatch.setattr(published, "DEBIAN_FMNIST", str(tmp_path / "no-debian"))
    monkeypatch.setattr(requests, "head", no_answer)
    began = time.perf_counter()
    with pytest.raises(ValueError, match="not on this machine.*Name or service not known") as caught:
        datasets.load(name, data_dir=str(tmp_path) if given_dir else None)
    assert time.perf_counter() - began < 10  # TFDS itself retries for two minutes
    for way in (*ways, "--data_dir"):
        assert way in str(caught.value)


def test_download_is_tfds(tmp_path, monkeypatch):
    """The real `_download` with both ends replaced: the server that is asked, and the builder of TFDS."""
    import requests
    import tensorflow_datasets as tfds

    class Builder:
        prepared = False

        def download_and_prepare(self):
            self.prepared = True

    monkeypatch.undo()
    monkeypatch.setattr(requests, "head", lambda url, timeout: None)
    monkeypatch.setattr(tfds, "builder", lambda name, data_dir: Builder())
    assert published._download("cifar10", "http://a.invalid", str(tmp_path)).prepared


def test_a_server_that_answers_is_enough(monkeypatch):
    """The second server stands for the first; an error status is an answer."""
    import requests

    asked = []

    def head(url, timeout):
        asked.append(url)
        if len(asked) == 1:
            raise requests.Timeout

    monkeypatch.setattr(requests, "head", head)
    published._check_network("http://a.invalid", "http://b.invalid", "http://c.invalid")
    assert asked == ["http://a.invalid", "http://b.invalid"]
