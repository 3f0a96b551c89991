"""Arrays of numbers in an npz archive that may be damaged or made to do harm; never pickles."""

import collections
import math
import os
import pathlib
import stat
import zipfile
from collections.abc import Container, Iterable
from typing import BinaryIO

import numpy as np

from experiments.datasets.reading import (
    check_can_hold,
    check_regular_file,
    read_at_most,
    read_errors_as_value_errors,
)

_NUMPY_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_MOST_NAMES = 20


def read_arrays(path: str, wanted: Container[str]) -> dict[str, np.ndarray | None]:
    """Reads the arrays of an .npz file that are wanted.

    Args:
        path: the file, as `np.savez` or `np.savez_compressed` writes it.
        wanted: the names of the arrays to read; what others hold is not looked at.

    Returns:
        Every array by its name: whole numbers, truth values, floating point or complex numbers of at most 64 bits a
        part; None for those that are not wanted.

    Raises:
        ValueError: if it is no such file, damaged, larger in memory than can be meant, or has a name twice or one
            that leads out of a directory; if a wanted array is not of numbers, or not as long as it states.

    Example:
        >>> read_arrays("mnist.npz", ("x_train", "y_train"))["x_train"].shape  # doctest: +SKIP
        (60000, 28, 28)
    """
    check_regular_file(path)
    with read_errors_as_value_errors(path), zipfile.ZipFile(path) as archive:
        _check_names(path, [member.filename for member in archive.infolist()])
        members = {m.filename.removesuffix(".npy"): m for m in archive.infolist() if m.filename.endswith(".npy")}
        needed = [member for name, member in members.items() if name in wanted]
        check_can_hold(repr(path), sum(member.file_size for member in needed), os.path.getsize(path))
        return {
            name: _read_array(archive, member, f"`{name}` of {path!r}") if name in wanted else None
            for name, member in members.items()
        }


def listed(names: Iterable[str]) -> str:
    """The names of the arrays of an archive, for a message: quoted, and not too many."""
    names = list(names)
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return (", ".join(repr(name[:80]) for name in names[:_MOST_NAMES]) + more) or "nothing"


def _check_names(path: str, names: list[str]) -> None:
    """Refuses names that no honest writer gives, though nothing is ever unpacked to the disk."""
    parts = {name: pathlib.PurePosixPath(name.replace("\\", "/")) for name in names}
    leading_out = [name for name, place in parts.items() if place.is_absolute() or ".." in place.parts]
    if leading_out:
        raise ValueError(
            f"{path!r} has a member that leads out of the directory it would be unpacked to. "
            f"Received: {listed(leading_out)}. Do not trust the file."
        )
    if len(parts) < len(names):
        twice = [name for name, times in collections.Counter(names).items() if times > 1]
        raise ValueError(
            f"{path!r} has members of the same name, and readers differ in which one they take. "
            f"Received: {listed(twice)}. Save it again by np.savez."
        )


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> np.ndarray:
    """Reads one array of numbers; never objects, which are pickled."""
    if member.compress_type not in _NUMPY_COMPRESSIONS or stat.S_ISLNK(member.external_attr >> 16):
        raise ValueError(
            f"{where} is a link, or compressed in a way that NumPy does not write. Received: compression "
            f"{member.compress_type}. Save it again by np.savez_compressed."
        )
    with archive.open(member) as file:
        shape, fortran, dtype = _header(file, where)
        size = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or file.tell() + size != member.file_size:
            raise ValueError(
                f"{where} is not as long as its header states. Received: shape {shape} "
                f"of {dtype} in {member.file_size} bytes. Save the file again."
            )
        content = read_at_most(file, size + 1)  # the one more makes zipfile check the checksum
    try:
        array = np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
    except (ValueError, TypeError) as error:  # too many dimensions, or too large ones beside one that is 0
        raise ValueError(f"{where} has a shape that no array has. Received: {error}. Save the file again.") from error
    return array.astype(dtype.newbyteorder("="), copy=False)


def _header(file: BinaryIO, where: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and dtype of an array of numbers in NumPy's format."""
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        shape, fortran, dtype = readers[np.lib.format.read_magic(file)](file)
    except Exception as error:  # the header is a Python literal, over which NumPy stumbles in ways it does not list
        raise ValueError(
            f"{where} is not an array of numbers in NumPy's format. "
            f"Received: {type(error).__name__}: {error}. Save the file again by np.savez."
        ) from error
    if dtype.kind not in "buifc" or dtype.itemsize > (16 if dtype.kind == "c" else 8):
        raise ValueError(
            f"{where} must be an array of numbers of at most 64 bits: one of objects is a pickle, which can "
            f"run code and is never read. Received: dtype {dtype}. Convert it before saving."
        )
    return shape, fortran, dtype
