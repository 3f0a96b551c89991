"""Arrays in a NumPy archive: what is read is what was saved, and what is not images with labels is refused."""

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest
from dataset_files import FEW, Bomb, assert_is, flipped, labels, pixels
from hypothesis import given
from hypothesis import strategies as st

from experiments import datasets


def npz_arrays(**changed):
    arrays = {
        "x_train": pixels(6, (5, 4, 3)),
        "y_train": labels(6),
        "x_test": pixels(3, (5, 4, 3)),
        "y_test": labels(3),
    }
    return {k: v for k, v in {**arrays, **changed}.items() if v is not None}


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


def test_npz_counts_classes_before_the_subset(tmp_path):
    np.savez(tmp_path / "d.npz", **npz_arrays(y_test=np.array([0, 0, 8])))
    dataset = datasets.load("npz", data_dir=str(tmp_path / "d.npz"), train_size=1, test_size=1)
    assert (dataset.num_classes, len(dataset.train.labels), len(dataset.test.labels)) == (9, 1, 1)


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
        (pickle.dumps(Bomb()), "BadZipFile"),
        (GOOD[: len(GOOD) // 2], "BadZipFile"),
        (flipped(GOOD, 250), "Bad CRC-32"),
        (_saved(**npz_arrays(**{"é": X})).replace("é".encode(), b"\xff\xff"), "UnicodeDecodeError"),
        (_with_x_train(b""), "not an array of numbers in NumPy's format"),
        (_with_x_train(pickle.dumps(Bomb())), "not an array of numbers in NumPy's format"),
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
        (_with_x_train(_npy((3,), pickle.dumps(Bomb()), "|O")), "pickle.*never read"),
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
