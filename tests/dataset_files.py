"""What the tests of data sets share: a machine that has none, files as they are published, and damage to them."""

import gzip
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from experiments.datasets import published

RNG = np.random.default_rng(0)
FEW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch, tmp_path):
    """No TFDS copy, no Debian package, no download: what a test finds is what it wrote."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "no-tfds"))
    monkeypatch.setattr(published, "DEBIAN_FMNIST", str(tmp_path / "no-debian"))
    monkeypatch.setattr(published, "_check_network", _no_network)


def _no_network(*urls):
    raise ConnectionError("no network in tests")


def pixels(num, shape):
    return RNG.integers(0, 256, (num, *shape), np.uint8)


def labels(num):
    return np.arange(num, dtype=np.uint8) % 10


def idx(array):
    """An IDX file of bytes: magic 0x0800 + rank, big-endian dimensions, content."""
    return struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


def bmp(image):
    """A 24-bit BMP file: rows bottom up, BGR, each padded to 4 bytes."""
    height, width, _ = image.shape
    rows = np.pad(image[::-1, :, ::-1].reshape(height, -1), [[0, 0], [0, -3 * width % 4]]).tobytes()
    header = struct.pack("<2sIHHI", b"BM", 54 + len(rows), 0, 0, 54)
    return header + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, len(rows), 0, 0, 0, 0) + rows


def write_fmnist(directory, zipped=False, **changed):
    """7 training and 4 test images; `changed` replaces the bytes of a file by its short name."""
    x, y, u, v = pixels(7, (28, 28)), labels(7), pixels(4, (28, 28)), labels(4)
    short = dict(zip(("train_images", "train_labels", "test_images", "test_labels"), map(idx, (x, y, u, v))))
    directory.mkdir(exist_ok=True)
    for name, content in zip(published.FMNIST_FILES, {**short, **changed}.values()):
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


def flipped(content, place):
    return content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was opened",)
