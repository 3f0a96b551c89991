"""Reads files that may be incomplete, damaged or made to do harm."""

import contextlib
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

_CHUNK = 1 << 20
_UNREADABLE = (OSError, EOFError, RuntimeError, UnicodeDecodeError, zlib.error, zipfile.BadZipFile)

# Photographs compress to a half, drawings and saturated predictions to a tenth; DEFLATE, the format of gzip, zip and
# PNG, can go down to 1/1032. What is small may be as empty as it likes.
_MOST_EXPANSION = 100
_ALWAYS_ALLOWED = 16 << 20


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
            f"{path!r} could not be read: it is absent, damaged or not what its name says. "
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


def check_regular_file(path: str) -> None:
    """Raises `ValueError` unless `path` is a file: a pipe or a device would be waited for, or read, without end."""
    with read_errors_as_value_errors(path):
        mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise ValueError(
            f"{path!r} could not be read: it is not a regular file. Received: {stat.filemode(mode)}. "
            "Copy the data into a file first."
        )


def check_can_hold(where: str, stated: int, stored: int, most: int | None = None) -> None:
    """Refuses a size that is stated but not to be believed, before memory is taken for it.

    Args:
        where: the source, for the message.
        stated: bytes in memory, by what headers say.
        stored: bytes on the disk.
        most: bytes that data of this kind can have, where that is known.

    Raises:
        ValueError: if it is more than `most`, or more than 100 times what is stored (16 MiB are never too many).
    """
    limit = max(_ALWAYS_ALLOWED, _MOST_EXPANSION * stored)
    if stated > (limit if most is None else min(limit, most)):
        raise ValueError(
            f"{where} states more than it can hold. Received: {stated} bytes stated in {stored} bytes on the disk. "
            "Fetch it again, or save it without compression."
        )
