"""Reads files that may be incomplete, damaged or made to do harm."""

import contextlib
import os
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

DEFLATE_RATIO = 1032
"""The most that DEFLATE, the format of gzip and zip, can expand a byte."""

_CHUNK = 1 << 20
_UNREADABLE = (OSError, EOFError, RuntimeError, UnicodeDecodeError, zlib.error, zipfile.BadZipFile)


def find_files(directory: str, names: tuple[str, ...], endings: tuple[str, ...]) -> list[str]:
    """The paths of all the files `names`, each with the first ending it is found with.

    Args:
        directory: where to look.
        names: the files of one data set.
        endings: what a name may end in besides, in order of preference.

    Returns:
        A path a name; nothing if none of the files is there.

    Raises:
        ValueError: if only some are there.
    """
    candidates = [[os.path.join(directory, name + ending) for ending in endings] for name in names]
    found = [next(filter(os.path.isfile, paths), None) for paths in candidates]
    missing = [name for name, path in zip(names, found) if path is None]
    if len(missing) == len(names):
        return []
    if missing:
        raise ValueError(
            f"{directory} holds only a part of the files of the data set. "
            f"Received: a directory without {', '.join(missing)}. Add what is missing."
        )
    return [path for path in found if path is not None]


@contextlib.contextmanager
def read_errors_as_value_errors(path: str) -> Iterator[None]:
    """Turns what reading a damaged file raises into an error that names the file."""
    try:
        yield
    except _UNREADABLE as error:
        raise ValueError(
            f"{path} could not be read: it is damaged or not what its name says. "
            f"Received: {type(error).__name__}: {error}. Fetch it again."
        ) from error


def read_at_most(file: BinaryIO, size: int) -> bytearray:
    """Reads up to `size` bytes; memory grows with what the file gives, not with what is asked."""
    content = bytearray()
    while len(content) < size:
        chunk = file.read(min(_CHUNK, size - len(content)))
        if not chunk:
            break
        content += chunk
    return content


def check_can_hold(path: str, size: int, ratio: int) -> None:
    """Refuses a stated size that the file cannot have, before memory is taken for it."""
    if size > os.path.getsize(path) * ratio:
        raise ValueError(
            f"{path} states more than it can hold. Received: {size} bytes stated in a file of "
            f"{os.path.getsize(path)} bytes. Fetch it again."
        )
