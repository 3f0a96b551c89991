"""Published files: what is read is what was written, and what is damaged is refused with a message that helps."""

import gzip
import pickle
import struct
import tracemalloc

import numpy as np
import pytest
from dataset_files import (  # noqa: F401 (a fixture for every test)
    FEW,
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
from hypothesis import given
from hypothesis import strategies as st

from experiments import datasets
from experiments.datasets import raw


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
        raw._read_idx(str(path), 2051)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 << 20


@pytest.mark.parametrize("missing", raw.FMNIST_FILES)
def test_fmnist_with_a_file_missing(tmp_path, missing):
    write_fmnist(tmp_path / "raw")
    (tmp_path / "raw" / missing).unlink()
    (tmp_path / "raw" / missing).mkdir()  # a directory of that name is not the file
    with pytest.raises(ValueError, match=f"without {missing}. Add what is missing"):
        datasets.load("fmnist", data_dir=str(tmp_path / "raw"))


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
        array = raw._read_idx(str(path), magic)
    except ValueError:
        return
    assert array.dtype == np.uint8 and (zipped == ".gz" or idx(array) == content)


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


@pytest.mark.parametrize("folder", ["", "cifar-10-batches-py"])
def test_pickled_cifar10_is_not_opened(tmp_path, folder):
    directory = tmp_path / folder
    directory.mkdir(exist_ok=True)
    for name in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"):
        (directory / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="Python version.*pickle can run code.*cifar-10-binary.tar.gz"):
        datasets.load("cifar10", data_dir=str(tmp_path))
    x, y, _, _ = write_cifar10(tmp_path / "cifar-10-batches-bin")  # beside the binary version it does not matter
    assert_is(datasets.load("cifar10", data_dir=str(tmp_path)).train, x, y)
