"""The guard of files: they may be incomplete, damaged or made to do harm."""

import contextlib
import os
import stat
import zipfile
import zlib
from collections.abc import Container, Iterable, Iterator

import numpy as np

# What readers raise of damaged files: RuntimeError of encrypted zips, NotImplementedError of a zip's newer formats.
_UNREADABLE = (OSError, EOFError, RuntimeError, UnicodeDecodeError, NotImplementedError, zlib.error, zipfile.BadZipFile)
_MOST_NAMES = 20

# Photographs compress to a half, drawings and saturated predictions to a tenth; DEFLATE, the format of gzip, zip and
# PNG, can go down to 1/1032. What is small may be as empty as it likes.
_MOST_EXPANSION = 100
_ALWAYS_ALLOWED = 16 << 20


@contextlib.contextmanager
def reading(path: str | os.PathLike) -> Iterator[None]:
    """Turns what reading a damaged file raises into a `ValueError` that names the file.

    Pipes and devices, which would be waited for or read without end, are refused before.
    """
    try:
        mode = os.stat(path).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise OSError("it is not a regular file")
        yield
    except _UNREADABLE as error:
        raise ValueError(
            f"{os.fspath(path)!r} could not be read: it is absent, damaged or not what its name says. Received: "
            f"{type(error).__name__}: {error}. Fetch it again."
        ) from error


def check_can_hold(where: str, stated: int, stored: int, most: int | None = None) -> None:
    """Raises `ValueError` if a header states more bytes than can be meant, before memory is taken for them.

    That is more than 100 times what is stored on the disk (16 MiB are never too many), or more than the `most` that
    data of this kind can have; `where` names the source.
    """
    limit = max(_ALWAYS_ALLOWED, _MOST_EXPANSION * stored)
    if stated > (limit if most is None else min(limit, most)):
        raise ValueError(
            f"{where} states more than it can hold. Received: {stated} bytes stated in {stored} bytes on the disk. "
            "Fetch it again, or save it without compression."
        )


@contextlib.contextmanager
def opened_zip(path: str | os.PathLike, wanted: Container[str] | None = None) -> Iterator[zipfile.ZipFile]:
    """Opens a zip archive; `ValueError` if it is none, or its wanted members (all if None) state too large sizes."""
    with reading(path), zipfile.ZipFile(path) as archive:
        stated = sum(item.file_size for item in archive.infolist() if wanted is None or item.filename in wanted)
        check_can_hold(repr(os.fspath(path)), stated, os.path.getsize(path))
        yield archive


def read_arrays(path: str | os.PathLike, wanted: Iterable[str]) -> dict[str, np.ndarray | None]:
    """Reads the wanted arrays of an .npz file.

    Args:
        path: the file, as `np.savez` or `np.savez_compressed` writes it.
        wanted: the names of the arrays to read; what others hold is not looked at.

    Returns:
        Every array by its name: whole numbers, truth values, floating point or complex numbers of at most 64 bits a
        part; None for those that are not wanted.

    Raises:
        ValueError: if it is no such file, damaged, or larger than can be meant, or if a wanted array is not of numbers.

    Example:
        >>> read_arrays("mnist.npz", ("x_train", "y_train"))["x_train"].shape  # doctest: +SKIP
        (60000, 28, 28)
    """
    wanted = set(wanted)
    with opened_zip(path, {f"{name}.npy" for name in wanted}):
        with np.lib.npyio.NpzFile(path, allow_pickle=False) as arrays:  # np.load may see something else in it
            return {name: _numbers(arrays, name, path) if name in wanted else None for name in arrays.files}


def _numbers(arrays: np.lib.npyio.NpzFile, name: str, path: str | os.PathLike) -> np.ndarray:
    try:
        array = arrays[name]
        if array.dtype.kind not in "buifc" or array.dtype.itemsize > (16 if array.dtype.kind == "c" else 8):
            raise ValueError(f"dtype {array.dtype}")
    except Exception as error:  # the header is a Python literal, over which NumPy stumbles in ways it does not list
        raise ValueError(
            f"`{name}` of {os.fspath(path)!r} must be an array of numbers of at most 64 bits in NumPy's format (one of "
            "objects is a pickle, which can run code and is never read), and undamaged. Received: "
            f"{type(error).__name__}: {str(error)[:200]}. Save it again by np.savez."
        ) from error
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def listed(names: Iterable[str]) -> str:
    """The names of the members of an archive, for a message: quoted, and not too many."""
    names = list(names)
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return (", ".join(repr(name[:80]) for name in names[:_MOST_NAMES]) + more) or "nothing"
