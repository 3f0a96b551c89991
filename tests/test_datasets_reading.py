"""The guard of files: npz archives that are damaged or made to do harm are refused by an error that names the file."""

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest
from dataset_files import Bomb, flipped, npz_arrays

from experiments import datasets
from experiments.datasets import reading

NO_ARRAY = "`x_train` of .* must be an array of numbers of at most 64 bits in NumPy's format.*, and undamaged"
X = np.float32(npz_arrays()["x_train"]) / 255


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
        (_with_x_train(b""), NO_ARRAY),
        (_with_x_train(pickle.dumps(Bomb())), NO_ARRAY),
        (_with_x_train(_npy((6, 5, 4, 3), bytes(360))[:50]), NO_ARRAY),
        (_with_x_train(b"\x93NUMPY\x09\x00"), NO_ARRAY),
        (_with_x_train(_npy((6, 5, 4, 3), b"").replace(b"'shape'", b"b'hape'")), "TypeError"),  # keys do not sort
        (_with_x_train(b"\x93NUMPY\1\0" + struct.pack("<H", 9000) + b"-" * 9000), "Error"),  # nested too deeply
        (_with_x_train(_npy((6, 5, 4, 3), bytes(359))), NO_ARRAY),
        (_with_x_train(_npy((2**31, 32, 32, 3), bytes(360))), NO_ARRAY),
        (_with_x_train(_npy((2**63, 2**63), bytes(360))), NO_ARRAY),
        (_with_x_train(_npy((-6, -5, 4, 3), bytes(360))), NO_ARRAY),
        (_with_x_train(_npy((1, 1 << 23), bytes(1 << 23))), "must have the shape"),
        (_with_x_train(_npy((3,), pickle.dumps(Bomb()), "|O")), "pickle.*never read"),
    ],
    ids=lambda value: "npz" if isinstance(value, bytes) else value,
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


def test_arrays_that_nobody_asked_for_are_not_read(tmp_path):
    np.savez(tmp_path / "d.npz", a=np.arange(3), b=np.array([Bomb()]))
    arrays = reading.read_arrays(tmp_path / "d.npz", ["a"])
    assert arrays["a"].tolist() == [0, 1, 2] and arrays["b"] is None
