"""Files that are whole or absent, also after a crash, on a full disk and beside other processes."""

import contextlib
import os
import pathlib
import re
import secrets
from collections.abc import Iterator

__all__ = ["check_replaceable", "is_temporary", "replacing", "sync"]


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Gives a temporary name to write to; what stands there then takes the place of `path`, or nothing does.

    The temporary file is in the same folder under a name that nobody can guess, with the suffix of `path` and the
    permissions of the file that it replaces. It is on the disk before it is renamed. Where `path` is a link, the file
    that it leads to is replaced.

    Args:
        path: of a file, or of one that does not exist in a folder that does.

    Raises:
        OSError: if there cannot be such a file.

    Example:
        >>> with replacing("scores.json") as temporary:
        ...     temporary.write_text("[0.5]")
    """
    target = _file_at(path)
    with _new_beside(target, told=path) as temporary:
        yield temporary
        sync(temporary)
        os.replace(temporary, target)
        sync(target.parent)


def check_replaceable(path: str | os.PathLike) -> None:
    """Raises `OSError` where `replacing` would, before hours of work are to be written there."""
    target = _file_at(path)
    with _new_beside(target, told=path), contextlib.suppress(FileNotFoundError):
        os.lstat(target)  # tells of a name that is too long


def is_temporary(path: pathlib.Path) -> bool:
    """Whether this is what a process that was killed left of `replacing`."""
    return bool(re.fullmatch(r"\.[0-9a-f]{16}\.tmp(\..*)?", path.name))


def sync(path: str | os.PathLike) -> None:
    """Waits until a file or folder is on the disk, where the system can say so."""
    if os.name == "nt" and os.path.isdir(path):  # which cannot be opened there
        return
    with contextlib.suppress(OSError):  # some file systems of networks cannot
        descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _file_at(path: str | os.PathLike) -> pathlib.Path:
    """Where a file is to be written, links followed."""
    target = pathlib.Path(os.path.realpath(path))
    if target.is_dir():
        raise OSError(f"cannot write {os.fspath(path)!r}: it is a folder")
    if os.path.lexists(target) and not target.is_file():  # /dev/null, say, which a rename would do away with
        raise OSError(f"cannot write {os.fspath(path)!r}: it is not a file")
    return target


@contextlib.contextmanager
def _new_beside(target: pathlib.Path, *, told: str | os.PathLike) -> Iterator[pathlib.Path]:
    """An empty file beside another, with its permissions or those of any new file, that does not outlive the context.

    What the system says against it names `told`.
    """
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp{pathlib.PurePath(told).suffix[:16]}")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0), 0o666))
        try:
            if target.exists():
                os.chmod(temporary, target.stat().st_mode & 0o777)
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if error.errno and error.filename in (None, str(temporary)):  # a full disk, say
            raise OSError(error.errno, error.strerror, str(told)) from error
        raise
