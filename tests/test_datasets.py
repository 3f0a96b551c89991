"""Data sets: what is read is what was written, and what is damaged is refused with a message that helps.

No test uses the network. Where `load` would download, the one function that does, `datasets._download`, or the request
below it, is replaced; every test runs with an empty TFDS directory and without the Debian package unless it says so.
"""

import gc
import gzip
import io
import os
import pickle
import struct
import time
import tracemalloc
import weakref
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments import datasets

RNG = np.random.default_rng(0)
FMNIST_FILES = datasets._FMNIST_FILES
DEBIAN_FMNIST = datasets.DEBIAN_FMNIST


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch, tmp_path):
    """No TFDS copy, no Debian package, no download: what a test finds is what it wrote."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "no-tfds"))
    monkeypatch.setattr(datasets, "DEBIAN_FMNIST", str(tmp_path / "no-debian"))
    monkeypatch.setattr(datasets, "_download", _no_download)


def _no_download(tfds_name, url, data_dir):
    raise ConnectionError("no network in tests")


def pixels(num, shape):
    return RNG.integers(0, 256, (num, *shape), np.uint8)


def labels(num):
    return np.arange(num, dtype=np.uint8) % 10


# ---------------------------------------------------------------------------- writers


def idx(array):
    """An IDX file of bytes: magic 0x0800 + rank, big-endian dimensions, content."""
    return struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


def write_fmnist(directory, zipped=False, **changed):
    """7 training and 4 test images; `changed` replaces the bytes of a file by its short name."""
    x, y, u, v = pixels(7, (28, 28)), labels(7), pixels(4, (28, 28)), labels(4)
    short = dict(zip(("train_images", "train_labels", "test_images", "test_labels"), map(idx, (x, y, u, v))))
    directory.mkdir(exist_ok=True)
    for name, content in zip(FMNIST_FILES, {**short, **changed}.values()):
        path = directory / (name + (".gz" if zipped else ""))
        path.write_bytes(gzip.compress(content) if zipped else content)
    return x, y, u, v


def write_cifar10(directory):
    """5 batches of 3 images and 2 test images, records of a label and 3 planes."""
    directory.mkdir(parents=True, exist_ok=True)
    x, y = pixels(17, (32, 32, 3)), labels(17)
    records = np.concatenate([y[:, None], x.transpose(0, 3, 1, 2).reshape(17, -1)], axis=1)
    for n in range(5):
        (directory / f"data_batch_{n + 1}.bin").write_bytes(records[3 * n : 3 * n + 3].tobytes())
    (directory / "test_batch.bin").write_bytes(records[15:].tobytes())
    return x[:15], y[:15], x[15:], y[15:]


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


def encode(image, ending):
    encoder = {".png": tf.io.encode_png, ".jpg": lambda x: tf.io.encode_jpeg(x, quality=95)}
    return encoder[ending](image).numpy()


def bmp(image):
    """A 24-bit BMP file: rows bottom up, BGR, each padded to 4 bytes."""
    height, width, _ = image.shape
    rows = np.pad(image[::-1, :, ::-1].reshape(height, -1), [[0, 0], [0, -3 * width % 4]]).tobytes()
    header = struct.pack("<2sIHHI", b"BM", 54 + len(rows), 0, 0, 54)
    return header + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, len(rows), 0, 0, 0, 0) + rows


def write_folder(root, shape=(6, 5, 3), classes=("cat", "dog"), num=3, ending=".png"):
    """`num` images a class and split; gives them as {(split, class): images}."""
    written = {}
    for split in ("train", "test"):
        for name in classes:
            directory = root / split / name
            directory.mkdir(parents=True)
            images = pixels(num, shape)
            for n, image in enumerate(images):
                (directory / f"{n}{ending}").write_bytes(encode(image, ending))
            written[split, name] = images
    return written


def npz_arrays(**changed):
    arrays = {
        "x_train": pixels(6, (5, 4, 3)),
        "y_train": labels(6),
        "x_test": pixels(3, (5, 4, 3)),
        "y_test": labels(3),
    }
    return {k: v for k, v in {**arrays, **changed}.items() if v is not None}


def assert_is(split, images, numbers):
    """The split holds these bytes and labels, in the dtypes that `Split` promises."""
    assert (split.images.dtype, split.labels.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(split.images, images.reshape(split.images.shape).astype(np.float32) / 255)
    np.testing.assert_array_equal(split.labels, numbers)
    assert split.images.flags.c_contiguous


# ---------------------------------------------------------------------------- load


def test_names_are_the_loaders():
    assert tuple(datasets._LOADERS) == datasets.NAMES


@pytest.mark.parametrize(
    "name, message",
    [
        ("fmnst", "Did you mean 'fmnist'"),
        ("CIFAR-10", "Did you mean 'cifar10'"),
        ("imagenet21", "Give one of digits, fmnist, cifar10, image_folder, npz"),
        (None, "Received: name=None"),
    ],
)
def test_unknown_name(name, message):
    with pytest.raises(ValueError, match=message):
        datasets.load(name)


@pytest.mark.parametrize("what", ["train_size", "test_size"])
@pytest.mark.parametrize("size", [-1, 1298, 2**63, 1.5, True, "3"])
def test_size_out_of_range(what, size):
    with pytest.raises(ValueError, match=f"`{what}` must"):
        datasets.load("digits", **{what: size})


def test_subset_is_the_head_of_a_fixed_permutation():
    """Two runs have the same subset, smaller ones are part of larger ones, and no image is taken twice."""
    everything = datasets.load("digits")
    order = np.random.RandomState(0).permutation(1297)
    for size in (1, 100, 1297):
        subset = datasets.load("digits", train_size=size)
        np.testing.assert_array_equal(subset.train.images, everything.train.images[order[:size]])
        np.testing.assert_array_equal(subset.train.labels, everything.train.labels[order[:size]])
        np.testing.assert_array_equal(subset.test.images, everything.test.images)
        assert subset.num_classes == 10  # one image has one class, the data set ten


def test_npz_counts_classes_before_the_subset(tmp_path):
    np.savez(tmp_path / "d.npz", **npz_arrays(y_test=np.array([0, 0, 8])))
    dataset = datasets.load("npz", data_dir=str(tmp_path / "d.npz"), train_size=1, test_size=1)
    assert (dataset.num_classes, len(dataset.train.labels), len(dataset.test.labels)) == (9, 1, 1)


# ---------------------------------------------------------------------------- real data


def test_digits():
    dataset = datasets.load("digits", data_dir="not used")
    assert (dataset.name, dataset.num_classes) == ("digits", 10)
    assert dataset.train.images.shape == (1297, 8, 8, 1) and dataset.test.images.shape == (500, 8, 8, 1)
    for images, numbers in (dataset.train, dataset.test):
        assert (images.dtype, numbers.dtype) == (np.float32, np.int64)
        assert set(np.unique(images * 16)) == set(range(17))  # 17 levels of grey: 0 .. 16
        assert np.ptp(np.bincount(numbers) / len(numbers)) < 0.01  # stratified
    whole = np.concatenate([dataset.train.images, dataset.test.images]).reshape(1797, 64)
    assert len(np.unique(whole, axis=0)) == 1797  # all of the digits, and none in both splits


def test_the_real_fmnist(monkeypatch):
    if not os.path.isdir(DEBIAN_FMNIST):
        pytest.skip("needs the Debian package dataset-fashion-mnist")
    monkeypatch.setattr(datasets, "DEBIAN_FMNIST", DEBIAN_FMNIST)
    dataset = datasets.load("fmnist")
    images = dataset.train.images
    assert images.shape == (60000, 28, 28, 1) and dataset.test.images.shape == (10000, 28, 28, 1)
    assert round(100 * (images == 0).mean(), 2) == 50.21 and round(100 * (images == 1).mean(), 2) == 0.81
    assert (np.bincount(dataset.train.labels) == 6000).all() and (np.bincount(dataset.test.labels) == 1000).all()


# ---------------------------------------------------------------------------- fmnist


@pytest.mark.parametrize("zipped", [False, True])
def test_fmnist_files(tmp_path, zipped):
    x, y, u, v = write_fmnist(tmp_path / "raw", zipped)
    dataset = datasets.load("fmnist", data_dir=str(tmp_path / "raw"))
    assert (dataset.name, dataset.num_classes, dataset.train.images.shape) == ("fmnist", 10, (7, 28, 28, 1))
    assert_is(dataset.train, x, y)
    assert_is(dataset.test, u, v)


def test_fmnist_of_the_debian_package(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "DEBIAN_FMNIST", str(tmp_path / "debian"))
    x, y, _, _ = write_fmnist(tmp_path / "debian", zipped=True)
    assert_is(datasets.load("fmnist").train, x, y)
    (tmp_path / "empty").mkdir()
    assert_is(datasets.load("fmnist", data_dir=str(tmp_path / "empty")).train, x, y)


def test_damaged_files_in_data_dir_are_no_reason_to_look_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "DEBIAN_FMNIST", str(tmp_path / "debian"))
    write_fmnist(tmp_path / "debian")
    write_fmnist(tmp_path / "raw", train_images=b"")
    with pytest.raises(ValueError, match="raw.train-images.*not an IDX file"):
        datasets.load("fmnist", data_dir=str(tmp_path / "raw"))


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
        ("train_images", struct.pack(">4I", 2051, 2**31, 0, 28), "another size"),
        ("train_images", idx(np.zeros((7, 32, 32), np.uint8)), "another size.*expected .num, 28, 28, 1"),
        ("train_labels", idx(np.array([0, 1, 2, 200, 4, 5, 6], np.uint8)), "label 200 of image 3"),
        ("test_labels", idx(np.array([0, 1, 2, 10], np.uint8)), "outside 0 .. 9"),
        ("test_labels", LABELS, "one label an image.*4, 28.*and labels of shape .7"),
        ("train_labels", LABELS[:4] + struct.pack(">I", 0), "one label an image"),
    ],
)
def test_bad_idx(tmp_path, zipped, file, content, message):
    write_fmnist(tmp_path / "raw", zipped, **{file: content})
    with pytest.raises(ValueError, match=message):
        datasets.load("fmnist", data_dir=str(tmp_path / "raw"))


def _flipped(content, place):
    return content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda z: z[: len(z) // 2], "could not be read.*EOFError"),
        (lambda z: z[:-4], "could not be read.*EOFError"),
        (lambda z: z[:10], "could not be read.*EOFError"),
        (lambda z: b"", "not an IDX file"),
        (lambda z: IMAGES, "could not be read.*BadGzipFile"),
        (lambda z: z + b"garbage", "could not be read.*BadGzipFile"),
        (lambda z: _flipped(z, -8 % len(z)), "could not be read.*CRC"),
        (lambda z: _flipped(z, 10), "could not be read.*error"),
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
        datasets._read_idx(str(path), 2051)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 << 20


@pytest.mark.parametrize("missing", FMNIST_FILES)
def test_fmnist_with_a_file_missing(tmp_path, missing):
    write_fmnist(tmp_path / "raw")
    (tmp_path / "raw" / missing).unlink()
    (tmp_path / "raw" / missing).mkdir()  # a directory of that name is not the file
    with pytest.raises(ValueError, match=f"without {missing}. Add what is missing"):
        datasets.load("fmnist", data_dir=str(tmp_path / "raw"))


FEW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FEW
@given(
    content=st.binary(max_size=64)
    | st.builds(
        lambda magic, shape, rest: struct.pack(f">{1 + len(shape)}I", magic, *shape) + rest,
        st.sampled_from([2049, 2051]),
        st.lists(st.integers(0, 3) | st.integers(0, 2**32 - 1), min_size=1, max_size=3),
        st.binary(max_size=32),
    ),
    magic=st.sampled_from([2049, 2051]),
    zipped=st.sampled_from(["", ".gz", ".gz of it"]),
)
def test_arbitrary_bytes_as_idx(tmp_path, content, magic, zipped):
    """They are refused by a ValueError, or are an array of just these bytes."""
    path = tmp_path / f"bytes{zipped[:3]}"
    path.write_bytes(gzip.compress(content) if zipped == ".gz of it" else content)
    try:
        array = datasets._read_idx(str(path), magic)
    except ValueError:
        return
    assert array.dtype == np.uint8 and (zipped == ".gz" or idx(array) == content)


# ---------------------------------------------------------------------------- cifar10


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
        ("data_batch_5.bin", None, "without data_batch_5.bin"),
        ("test_batch.bin", None, "without test_batch.bin"),
    ],
)
def test_bad_cifar10(tmp_path, file, content, message):
    write_cifar10(tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        datasets.load("cifar10", data_dir=str(tmp_path))


class _Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was opened",)


@pytest.mark.parametrize("folder", ["", "cifar-10-batches-py"])
def test_pickled_cifar10_is_not_opened(tmp_path, folder):
    directory = tmp_path / folder
    directory.mkdir(exist_ok=True)
    for name in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"):
        (directory / name).write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(ValueError, match="Python version.*pickle can run code.*cifar-10-binary.tar.gz"):
        datasets.load("cifar10", data_dir=str(tmp_path))
    x, y, _, _ = write_cifar10(tmp_path / "cifar-10-batches-bin")  # beside the binary version it does not matter
    assert_is(datasets.load("cifar10", data_dir=str(tmp_path)).train, x, y)


# ---------------------------------------------------------------------------- TFDS


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
        path.write_bytes(_flipped(path.read_bytes(), 40))


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

    monkeypatch.setattr(datasets, "_download", download)
    assert_is(datasets.load("fmnist", data_dir=str(tmp_path)).train, *train)


@pytest.mark.parametrize(
    "name, ways",
    [
        ("fmnist", ["pip install tensorflow-datasets", "apt install dataset-fashion-mnist", *FMNIST_FILES]),
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
    monkeypatch.setattr(datasets, "DEBIAN_FMNIST", str(tmp_path / "no-debian"))
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
    assert datasets._download("cifar10", "http://a.invalid", str(tmp_path)).prepared


def test_a_server_that_answers_is_enough(monkeypatch):
    """The second server stands for the first; an error status is an answer."""
    import requests

    asked = []

    def head(url, timeout):
        asked.append(url)
        if len(asked) == 1:
            raise requests.Timeout

    monkeypatch.setattr(requests, "head", head)
    datasets._check_network("http://a.invalid", "http://b.invalid", "http://c.invalid")
    assert asked == ["http://a.invalid", "http://b.invalid"]


@pytest.mark.parametrize("name", ["fmnist", "cifar10", "image_folder"])
@pytest.mark.parametrize("kind", ["missing", "file"])
def test_data_dir_that_is_no_directory(tmp_path, name, kind):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="`data_dir` is not a directory.*Received: data_dir="):
        datasets.load(name, data_dir=str(tmp_path / kind))


@pytest.mark.parametrize("name", ["image_folder", "npz"])
@pytest.mark.parametrize("data_dir", [None, ""])
def test_data_dir_left_out(name, data_dir):
    with pytest.raises(ValueError, match=f"{name}' needs `data_dir`"):
        datasets.load(name, data_dir=data_dir)


def test_home_is_expanded(tmp_path, monkeypatch):
    """A shell leaves the tilde of --data_dir=~/x as it is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    x, y, _, _ = write_fmnist(tmp_path / "raw")
    assert_is(datasets.load("fmnist", data_dir="~/raw").train, x, y)


# ---------------------------------------------------------------------------- image folders


@pytest.mark.parametrize("ending", [".png", ".jpg"])
@pytest.mark.parametrize("channels", [1, 3])
def test_image_folder(tmp_path, ending, channels):
    """Classes and files in sorted order, the pixels those that TensorFlow decodes; grey stays 1 channel."""
    root = tmp_path / "pets-small"
    written = write_folder(root, (6, 5, channels), ("dog", "cat", "Bird"), 4, ending)
    dataset = datasets.load("image_folder", data_dir=str(root) + "/")
    assert (dataset.name, dataset.num_classes, dataset.train.images.shape) == ("pets-small", 3, (12, 6, 5, channels))
    for split in ("train", "test"):
        images = np.concatenate([written[split, name] for name in ("Bird", "cat", "dog")])
        if ending == ".jpg":
            images = np.stack([tf.io.decode_image(encode(image, ending)).numpy() for image in images])
        assert_is(getattr(dataset, split), images, np.repeat([0, 1, 2], 4))


def test_image_folder_in_the_order_of_more_than_one_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "_DECODE_BATCH", 4)
    written = write_folder(tmp_path / "d", (3, 3, 3), num=9)
    dataset = datasets.load("image_folder", data_dir=str(tmp_path / "d"))
    assert_is(dataset.train, np.concatenate([written["train", "cat"], written["train", "dog"]]), np.repeat([0, 1], 9))


def test_image_folder_of_grey_and_colour(tmp_path):
    """A grey file among colour ones has its channel repeated, in whichever split it is."""
    written = write_folder(tmp_path / "d")
    grey = pixels(1, (6, 5, 1))[0]
    (tmp_path / "d" / "test" / "cat" / "0.png").write_bytes(encode(grey, ".png"))
    dataset = datasets.load("image_folder", data_dir=str(tmp_path / "d"))
    images = np.concatenate([np.repeat(grey[None], 3, -1), written["test", "cat"][1:], written["test", "dog"]])
    assert_is(dataset.test, images, np.repeat([0, 1], 3))
    assert dataset.train.images.shape[-1] == 3


def test_image_folder_reads_image_files_only(tmp_path):
    """Upper case and BMP too; not what is hidden, not other files, not links."""
    root = tmp_path / "d"
    written = write_folder(root)
    extra = pixels(2, (6, 5, 3))
    cat = root / "train" / "cat"
    (cat / "3.PNG").write_bytes(encode(extra[0], ".png"))
    (cat / "4.bmp").write_bytes(bmp(extra[1]))
    for name in ("._0.png", "notes.txt"):
        (cat / name).write_text("not an image")
    (cat / "directory.png").mkdir()
    (root / "train" / ".ipynb_checkpoints").mkdir()
    (root / "train" / "readme.txt").touch()
    (tmp_path / "outside.png").write_bytes(encode(extra[0], ".png"))
    (cat / "link.png").symlink_to(tmp_path / "outside.png")
    (root / "train" / "zebra").symlink_to(root / "train" / "dog")
    dataset = datasets.load("image_folder", data_dir=str(root))
    images = np.concatenate([written["train", "cat"], extra, written["train", "dog"]])
    assert_is(dataset.train, images, [0] * 5 + [1] * 3)


def test_image_folder_with_names_that_are_no_text(tmp_path, monkeypatch):
    """Names need not be UTF-8, and a colon makes no URL of a relative path."""
    monkeypatch.chdir(tmp_path)
    written = write_folder(tmp_path / "gs:", classes=("cat",))
    try:
        os.rename(tmp_path / "gs:/train/cat/0.png", os.fsencode(tmp_path / "gs:/train/cat") + b"/0\xff.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert_is(datasets.load("image_folder", data_dir="gs:").train, written["train", "cat"], [0, 0, 0])


def _write(path, content):
    return lambda root: (root / path).write_bytes(content)


def _png(*shape):
    return encode(np.zeros(shape, np.uint8), ".png")


def _replace_by_link(path):
    def replace(root):
        (root / path).rename(root.parent / "elsewhere")
        (root / path).symlink_to(root.parent / "elsewhere")

    return replace


def _empty(path):
    return lambda root: [file.unlink() for file in (root / path).iterdir()]


@pytest.mark.parametrize(
    "damage, message",
    [
        (_write("train/dog/1.png", b""), "train/dog/1.png could not be decoded"),
        (_write("train/cat/0.png", b""), "train/cat/0.png could not be decoded"),  # the one that sets the size
        (_write("test/dog/2.png", b"not an image"), "test/dog/2.png could not be decoded"),
        (_write("test/dog/2.png", _png(6, 5, 3)[:-20]), "test/dog/2.png could not be decoded"),
        (_write("test/cat/1.png", encode(pixels(1, (6, 5, 3))[0], ".jpg")[:-30]), "test/cat/1.png could not"),
        (_write("train/dog/1.png", _png(5, 6, 3)), r"one size.*\(5, 6, 3\) in .*train/dog/1.png, expected \(6, 5, 3\)"),
        (_write("test/cat/1.png", _png(6, 5, 4)), r"\(6, 5, 4\) in .*test/cat/1.png.*transparency"),
        (_write("test/cat/1.png", _png(6, 5, 2)), r"\(6, 5, 2\) in .*test/cat/1.png"),
        (_write("train/cat/0.png", encode(pixels(1, (6, 5, 3))[0], ".jpg")[:-30]), "train/cat/0.png could not"),
        (_write("train/cat/0.png", _png(6, 5, 4)), r"\(6, 5, 4\) in .*train/cat/0.png"),
        (_empty("test/dog"), r"'test'.*no images in \['dog'\]"),
        (lambda root: (root / "train" / "eel").mkdir(), r"'train'.*no images in \['eel'\]"),
        (lambda root: (root / "train").rename(root / "training"), "'train'.*no class"),
        (lambda root: (root / "test").rename(root / "val"), "'test'.*no class"),
        (lambda root: (root / "test" / "dog").rename(root / "test" / "cow"), r"same classes.*\['cow', 'dog'\]"),
        (_replace_by_link("test"), "'test'.*no class.*links are not followed"),
        (_replace_by_link("test/dog"), r"same classes.*\['dog'\]"),
    ],
)
def test_bad_image_folder(tmp_path, damage, message):
    write_folder(tmp_path / "d")
    damage(tmp_path / "d")
    with pytest.raises(ValueError, match=message):
        datasets.load("image_folder", data_dir=str(tmp_path / "d"))


# ---------------------------------------------------------------------------- npz


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, save):
    arrays = npz_arrays()
    save(tmp_path / "mine.npz", **arrays, something_else=np.zeros(3))
    dataset = datasets.load("npz", data_dir=str(tmp_path / "mine.npz"))
    assert (dataset.name, dataset.num_classes) == ("mine", 6)
    assert_is(dataset.train, arrays["x_train"], arrays["y_train"])
    assert_is(dataset.test, arrays["x_test"], arrays["y_test"])


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: np.float64(x) / 255,
        lambda x: np.float32(x) / np.float32(255),
        lambda x: (np.float64(x) / 255).astype(">f8"),
        lambda x: np.asfortranarray(x),
        lambda x: np.float16(x > 127),
        lambda x: x[..., 0],
    ],
)
def test_npz_of_other_arrays(tmp_path, convert):
    """Floats in [0, 1], any order of bytes and axes, no channel; labels in a column, of any whole type."""
    arrays = npz_arrays()
    x_train, x_test = convert(arrays["x_train"]), convert(arrays["x_test"])
    y_train = arrays["y_train"].astype(np.uint64)[:, None]
    np.savez(tmp_path / "d.npz", **{**arrays, "x_train": x_train, "x_test": x_test, "y_train": y_train})
    dataset = datasets.load("npz", data_dir=str(tmp_path / "d.npz"))
    expected = np.float64(x_train) / (255 if x_train.dtype == np.uint8 else 1)
    assert dataset.train.images.dtype == np.float32 and dataset.train.images.ndim == 4
    np.testing.assert_allclose(dataset.train.images.reshape(expected.shape), expected, atol=1e-7)
    np.testing.assert_array_equal(dataset.train.labels, arrays["y_train"])


X = np.float32(pixels(6, (5, 4, 3))) / 255
Y = np.arange(6)


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"x_train": None}, "must hold the arrays.*without x_train"),
        ({"y_test": None}, "must hold the arrays.*without y_test"),
        ({"x_train": np.where(X > 0.5, np.nan, X)}, "without NaN.*minimum nan"),
        ({"x_train": np.where(X > 0.5, np.inf, X)}, r"in \[0, 1\].*maximum inf"),
        ({"x_train": X * 255}, r"in \[0, 1\].*Divide by 255"),
        ({"x_train": X * 2 - 1}, r"in \[0, 1\].*minimum -"),
        ({"x_train": X - 1e-6}, r"in \[0, 1\]"),
        ({"x_train": X + 0j}, "dtype complex64"),
        ({"x_train": np.int64(X)}, "dtype int64"),
        ({"x_train": X > 0.5}, "dtype bool"),
        ({"x_train": X.astype(object)}, "pickle.*dtype object"),
        ({"x_train": np.full((6, 5, 4, 3), "a")}, "array of numbers.*dtype <U1"),
        ({"x_train": np.zeros((6, 5, 4), [("red", "u1")])}, "array of numbers"),
        ({"x_train": np.zeros((6, 5, 4), "M8[s]")}, "array of numbers"),
        ({"x_train": X.reshape(6, -1)}, r"must have the shape.*Received: shape \(6, 60\)"),
        ({"x_train": X[..., None]}, "must have the shape"),
        ({"x_train": np.float32(0.5)}, r"Received: shape \(\)"),
        ({"x_train": X[:0], "y_train": Y[:0]}, r"at least 1 image. Received: shape \(0,"),
        ({"x_train": X[:, :0]}, r"shape \(6, 0,"),
        ({"x_train": X[:5]}, "one label an image"),
        ({"y_train": Y[:5]}, "one label an image"),
        ({"y_train": np.eye(6, dtype=int)}, "one label an image"),
        ({"y_train": np.int64(3)}, "one label an image"),
        ({"y_train": np.float64(Y)}, "whole numbers.*dtype float64"),
        ({"y_train": np.eye(6)}, "whole numbers.*one-hot"),
        ({"y_train": Y > 2}, "whole numbers.*dtype bool"),
        ({"y_train": Y.astype(object)}, "pickle.*dtype object"),
        ({"y_train": Y.astype(str)}, "array of numbers"),
        ({"y_train": Y - 1}, "label -1 of image 0"),
        ({"y_train": np.uint64([0, 1, 2, 3, 4, 2**63])}, "label 9223372036854775808 of image 5"),
        ({"y_train": np.int64([0, 1, 2, 3, 4, -(2**63)])}, "label -9223372036854775808 of image 5"),
        ({"y_test": np.int64([0, 1, 100_000])}, "label 100000 of image 2"),
        ({"x_test": pixels(3, (5, 4, 1))}, r"another size.*expected \(num, 5, 4, 3\)"),
        ({"x_test": pixels(3, (4, 5, 3))}, "another size"),
    ],
)
def test_bad_npz_arrays(tmp_path, changed, message):
    np.savez(tmp_path / "d.npz", **npz_arrays(**changed))
    with pytest.raises(ValueError, match=message):
        datasets.load("npz", data_dir=str(tmp_path / "d.npz"))


def _npy(shape, content, descr="|u1", version=(1, 0)):
    """NumPy's format by hand: magic, version, length of the header, a dictionary as text, content."""
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode() + b"\n"
    length = struct.pack("<H" if version == (1, 0) else "<I", len(header))
    return b"\x93NUMPY" + bytes(version) + length + header + content


def _with_x_train(member, compression=zipfile.ZIP_DEFLATED):
    """The bytes of an archive whose `x_train.npy` is `member`."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("x_train.npy", member)
        for name, array in npz_arrays(x_train=None).items():
            archive.writestr(f"{name}.npy", _npy(array.shape, array.tobytes()))
    return file.getvalue()


def _saved(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _saved_array(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


GOOD = _saved(**npz_arrays())


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "BadZipFile"),
        (b"not a zip", "BadZipFile"),
        (_saved_array(X), "BadZipFile"),
        (pickle.dumps(_Bomb()), "BadZipFile"),
        (GOOD[: len(GOOD) // 2], "BadZipFile"),
        (_flipped(GOOD, 250), "Bad CRC-32"),
        (_saved(**npz_arrays(**{"é": X})).replace("é".encode(), b"\xff\xff"), "UnicodeDecodeError"),
        (_with_x_train(b""), "not an array of numbers in NumPy's format"),
        (_with_x_train(pickle.dumps(_Bomb())), "not an array of numbers in NumPy's format"),
        (_with_x_train(_npy((6, 5, 4, 3), bytes(360))[:50]), "not an array of numbers in NumPy's format"),
        (_with_x_train(b"\x93NUMPY\x09\x00"), "not an array of numbers in NumPy's format"),
        (_with_x_train(_npy((6, 5, 4, 3), bytes(360), version=(3, 0))), "not an array of numbers in NumPy's format"),
        (_with_x_train(_npy((6, 5, 4, 3), b"").replace(b"'shape'", b"b'hape'")), "TypeError"),  # keys do not sort
        (_with_x_train(b"\x93NUMPY\1\0" + struct.pack("<H", 9000) + b"-" * 9000), "Error"),  # nested too deeply
        (_with_x_train(_npy((6, 5, 4, 3), bytes(359))), "not as long as its header states"),
        (_with_x_train(_npy((6, 5, 4, 3), bytes(361))), "not as long as its header states"),
        (_with_x_train(_npy((2**31, 32, 32, 3), bytes(360))), "not as long as its header states"),
        (_with_x_train(_npy((2**63, 2**63), bytes(360))), "not as long as its header states"),
        (_with_x_train(_npy((-6, -5, 4, 3), bytes(360))), "not as long as its header states"),
        (_with_x_train(_npy((1, 1 << 23), bytes(1 << 23))), "must have the shape"),
        (_with_x_train(_npy((3,), pickle.dumps(_Bomb()), "|O")), "pickle.*never read"),
    ],
)
def test_bad_npz_files(tmp_path, content, message):
    (tmp_path / "d.npz").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        datasets.load("npz", data_dir=str(tmp_path / "d.npz"))


def test_npz_that_states_more_than_the_file_can_hold(tmp_path):
    """The size in the directory of the archive is raised to 4 GB, and the shape in the array's header with it."""
    shape = (4_000_000_000, 1, 1)
    member = _npy(shape, bytes(10))
    content = _with_x_train(member, zipfile.ZIP_STORED)
    size = struct.pack("<I", len(member))
    stated = struct.pack("<I", len(member) - 10 + shape[0])
    directory = content.index(b"PK\x01\x02")
    content = content[:directory] + content[directory:].replace(size, stated)
    (tmp_path / "d.npz").write_bytes(content)
    with pytest.raises(ValueError, match="states more than it can hold"):
        datasets.load("npz", data_dir=str(tmp_path / "d.npz"))


@pytest.mark.parametrize("kind", ["missing.npz", "."])
def test_npz_that_is_no_file(tmp_path, kind):
    with pytest.raises(ValueError, match="could not be read"):
        datasets.load("npz", data_dir=str(tmp_path / kind))


@FEW
@given(place=st.integers(0, len(GOOD) - 1), byte=st.integers(0, 255), end=st.integers(0, len(GOOD)) | st.none())
def test_an_npz_file_with_a_byte_changed(tmp_path, place, byte, end):
    (tmp_path / "d.npz").write_bytes((GOOD[:place] + bytes([byte]) + GOOD[place + 1 :])[:end])
    try:
        dataset = datasets.load("npz", data_dir=str(tmp_path / "d.npz"))
    except ValueError:
        return
    assert len(dataset.train.images) == len(dataset.train.labels)


# ---------------------------------------------------------------------------- batches


def numbered(num, shape=(4, 3, 1)):
    """A split whose image k has the label k and, in all pixels, a value of its own above 0."""
    values = (np.arange(num, dtype=np.float32) + 1) / num
    return datasets.Split(np.broadcast_to(values[:, None, None, None], (num, *shape)).copy(), np.arange(num))


def batches(split, first_round, num_rounds, batch_size=4, seed=0, **augmentation):
    return list(
        datasets.training_batches(
            split,
            batch_size=batch_size,
            seed=seed,
            first_round=first_round,
            num_rounds=num_rounds,
            **augmentation,
        ).as_numpy_iterator()
    )


@pytest.mark.parametrize("num", [4, 11, 12])
def test_each_pass_is_a_permutation(num):
    """No image twice in a pass, each image with its own label, and each pass in another order."""
    rounds_a_pass = num // 4
    orders = []
    for number in range(5):
        got = batches(numbered(num), number * rounds_a_pass, (number + 1) * rounds_a_pass)
        images, numbers = (np.concatenate(arrays) for arrays in zip(*got))
        assert len(numbers) == len(set(numbers)) == rounds_a_pass * 4
        np.testing.assert_array_equal(images[:, 0, 0, 0], np.float32(numbers + 1) / np.float32(num))
        orders.append(tuple(numbers))
    assert len(set(orders)) == 5


@pytest.mark.parametrize("augmentation", [{}, {"pad": 2, "flip": True}])
@pytest.mark.parametrize("first_round", [1, 2, 3, 6, 7, 8])
def test_resumed_batches_are_the_same(augmentation, first_round):
    """3 rounds a pass: within a pass, at its end, and two passes on; the seed decides everything."""
    split = datasets.Split(pixels(13, (4, 3, 1)).astype(np.float32) / 255, np.arange(13))
    whole = batches(split, 0, 8, seed=5, **augmentation)
    resumed = batches(split, first_round, 8, seed=5, **augmentation)
    assert len(resumed) == 8 - first_round
    for a, b in zip(whole[first_round:], resumed):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])
    other = batches(split, 0, 8, seed=6, **augmentation)
    assert any((a[1] != b[1]).any() for a, b in zip(whole, other))


def test_order_is_random():
    """Of 60,000 images sorted into 10 classes, a batch of 256 holds each class as often as in a random order.

    The number of a class in a batch is hypergeometric: mean 25.6, variance 256 * 0.1 * 0.9 * 59744 / 59999 = 22.94.
    Over 468 batches and 10 classes (9 of them free) its relative error is about sqrt(2 / 4212) = 2.2 %; four of these
    are allowed. With `tf.random.experimental.index_shuffle` in place of `stateless_shuffle` it is 34 % off.
    """
    got = batches(numbered(60000, (1, 1, 1)), 0, 468, batch_size=256)
    counts = np.stack([np.bincount(numbers // 6000, minlength=10) for _, numbers in got])
    assert abs(((counts - 25.6) ** 2).mean() / 22.94 - 1) < 0.09


def test_windows_of_the_padded_image():
    """Each image given is one of the 5 x 5 windows of the padded image, mirrored or not; all of them occur."""
    split = datasets.Split(pixels(8, (4, 3, 2)).astype(np.float32) / 255, np.arange(8))
    padded = np.pad(split.images, [[0, 0], [2, 2], [2, 2], [0, 0]])
    windows = {
        (image[top : top + 4, left : left + 3][:, ::step].tobytes(), label): (top, left, step)
        for label, image in enumerate(padded)
        for top in range(5)
        for left in range(5)
        for step in (1, -1)
    }
    given = batches(split, 0, 150, batch_size=8, pad=2, flip=True)
    places = [windows[image.tobytes(), label] for images, numbers in given for image, label in zip(images, numbers)]
    counts = np.unique(places, axis=0, return_counts=True)[1]
    assert len(counts) == 50 and counts.min() >= 8  # 1,200 draws of 50, mean 24, standard deviation 4.8
    assert len(set(places[:8])) > 1  # within a batch, each image has its own


@pytest.mark.parametrize("augmentation, kinds", [({"flip": True}, 2), ({"pad": 1}, 9), ({}, 1)])
def test_one_augmentation_alone(augmentation, kinds):
    split = datasets.Split(pixels(1, (4, 3, 1)).astype(np.float32) / 255, np.arange(1))
    given = {images.tobytes() for images, _ in batches(split, 0, 100, batch_size=1, **augmentation)}
    assert len(given) == kinds and split.images.tobytes() in given


def test_shapes_are_static_and_the_length_is_known():
    ds = datasets.training_batches(
        numbered(10), batch_size=3, seed=2**63 - 1, first_round=5, num_rounds=9, pad=1, flip=True
    )
    assert ds.element_spec == (tf.TensorSpec((3, 4, 3, 1), tf.float32), tf.TensorSpec((3,), tf.int64))
    assert int(ds.cardinality()) == len(list(ds)) == 4


def test_no_rounds_left():
    assert batches(numbered(10), 7, 7) == []


def test_images_are_not_in_the_graph():
    """Neither as a constant nor captured: the graph of the map is small and holds no images, whatever the data are."""
    node = datasets.training_batches(numbered(1000, (8, 8, 1)), batch_size=10, seed=0, first_round=0, num_rounds=3)
    while not node._functions():
        (node,) = node._inputs()
    function = node._functions()[0].function
    assert all(t.shape.num_elements() <= 2 for t in function.captured_inputs)
    assert function.graph.as_graph_def().ByteSize() < 10_000 < 1000 * 8 * 8 * 4


def test_images_are_given_up_with_the_batches(monkeypatch):
    """At once, not when the garbage collector comes: a run makes batches several times, and data sets are large."""
    copies, identity = [], tf.identity
    monkeypatch.setattr(tf, "identity", lambda array: [t := identity(array), copies.append(weakref.ref(t))][0])
    gc.disable()
    try:
        assert len(batches(numbered(10), 0, 3, pad=1, flip=True)) == 3
        assert len(copies) == 2 and all(copy() is None for copy in copies)
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"batch_size": 11}, "`batch_size` must not be larger than the data.*batch_size=11 for 10 images"),
        ({"batch_size": 0}, "`batch_size` must be a whole number >= 1"),
        ({"batch_size": 2.0}, "`batch_size` must be a whole number >= 1"),
        ({"first_round": -1}, "`first_round` must be a whole number >= 0"),
        ({"first_round": 5}, "`num_rounds` must be a whole number >= 5"),
        ({"pad": -1}, "`pad` must be a whole number >= 0"),
        ({"seed": 2**63}, "`seed` must fit in 64 bits"),
        ({"seed": -(2**63) - 1}, "`seed` must be a whole number"),
        ({"seed": "0"}, "`seed` must be a whole number"),
    ],
)
def test_bad_arguments_of_training_batches(changed, message):
    arguments = {"batch_size": 3, "seed": 0, "first_round": 0, "num_rounds": 4, **changed}
    with pytest.raises(ValueError, match=message):
        datasets.training_batches(numbered(10), **arguments)
