"""Files and run directories that are whole or absent."""

import contextlib
import errno
import json
import os
import pathlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Container
from typing import Any

import filelock
import tensorflow as tf

from pineat_tf.files import check_replaceable, is_temporary, replacing, sync

__all__ = [
    "RunDirectory", "check_committable", "check_name", "check_replaceable", "check_same_data",
    "check_same_flags", "read_json", "remove",
    "replacing", "system_error", "unfinished", "wait_until_free", "write_json", "write_text",
]  # fmt: skip

_LONGEST_RECORDED, _LONGEST_JSON = 1 << 20, 1 << 28  # bytes


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_name(name: str) -> None:
    """Raises `ValueError` unless results can be called so: a name of a file, without a folder."""
    if not name or pathlib.PurePath(name).name != name or name.startswith("."):
        raise ValueError(f"--name is what files are called, as in --name=table1, and no path. Received: {name!r}.")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes strict JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike) -> Any:
    """Reads strict JSON that may come from anybody.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is no file of at most 256 MiB, or no JSON.
    """
    path = pathlib.Path(path)
    if path.exists() and not path.is_file():
        raise ValueError("it is not a file")
    with open(path, "rb") as file:
        content = file.read(_LONGEST_JSON + 1)
    if len(content) > _LONGEST_JSON:
        raise ValueError(f"it has more than {_LONGEST_JSON} bytes")
    try:
        value = json.loads(content.decode("utf-8"), parse_constant=_no_number)
        if b"\\ud" in content.lower():  # an escape for half a character, which no file can hold
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        return value
    except UnicodeEncodeError:
        raise ValueError("it holds half a character, which is no text") from None
    except UnicodeDecodeError:
        raise ValueError("it is no text in UTF-8") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _no_number(name: str) -> None:
    raise ValueError(f"it holds {name}, which is no number")


def system_error(error: tf.errors.OpError) -> OSError | None:
    """The `OSError` behind an error of TensorFlow, which words it "PATH; WORDS OF THE SYSTEM"; None without one."""
    for number in errno.errorcode:
        path, words, _ = error.message.partition(f"; {os.strerror(number)}")
        if words:
            return OSError(number, os.strerror(number), path.rpartition("}} ")[2])
    return None


def remove(path: pathlib.Path) -> None:
    """Removes a file, or a folder with what is in it."""
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def unfinished(path: str | os.PathLike) -> pathlib.Path:
    """Where a run works until its directory `path` is whole."""
    path = pathlib.Path(path)
    return path.with_name(path.name + ".unfinished")


def check_committable(path: str | os.PathLike) -> None:
    """Raises `ValueError` for a link, which a finished run cannot replace, and `OSError` for what can be no name."""
    for place in (pathlib.Path(path), unfinished(path)):
        if place.is_symlink():
            raise ValueError(
                f"{str(place)!r} is a link, which a finished run cannot replace. Name the folder itself as the "
                "--output_dir, or one within it."
            )
        with contextlib.suppress(FileNotFoundError):
            place.lstat()


def check_same_flags(
    directory: pathlib.Path,
    flags: str,
    *,
    may_differ: Container[str] = (),
    hint: str = "Give its flags to --resume it, or --overwrite to start over.",
) -> None:
    """Raises `ValueError` unless the run in `directory` has these flags.

    Args:
        directory: of a run, finished or not; nothing need be there.
        flags: what the run should have, one a line.
        may_differ: names of flags that change nothing of a run.
        hint: how to mend it, for the end of the message.
    """
    recorded = _recorded(directory / RunDirectory.FLAGS)
    if recorded is None:
        if directory.is_dir() and any(item.name != RunDirectory.LOCK for item in directory.iterdir()):
            raise ValueError(
                f"{str(directory)!r} has no {RunDirectory.FLAGS}, without which nobody can tell what run it is of. "
                f"{hint}"
            )
        return
    differing = {line.split("=")[0][:80] for line in set(recorded.splitlines()) ^ set(flags.splitlines())}
    differing = sorted(name for name in differing if name.removeprefix("--") not in may_differ)
    if differing:
        names = ", ".join(differing)
        raise ValueError(f"{str(directory)!r} holds a run with other flags: {names} differ. {hint}")


def check_same_data(directory: pathlib.Path, data: str) -> None:
    """Raises `ValueError` unless the run in `directory` has data of this content.

    Args:
        directory: of a run with recorded flags, finished or not; else nothing is checked.
        data: what tells the data from others; empty for those that are known by their name.
    """
    recorded = _recorded(directory / RunDirectory.DATA)
    if not (directory / RunDirectory.FLAGS).exists() or (recorded is None and not data):
        return
    if recorded is None or recorded.strip() != data:
        raise ValueError(
            f"{str(directory)!r} holds a run on other data: the images or labels are not what they were. Give its "
            "data to --resume it, or --overwrite to start over."
        )


def _recorded(path: pathlib.Path) -> str | None:
    """The text of a small file of a run; None if there is none.

    Raises:
        ValueError: if it is not one that a run wrote.
    """
    if not os.path.lexists(path):
        return None
    if not path.is_file() or path.stat().st_size > _LONGEST_RECORDED:
        raise ValueError(f"{str(path)!r} was not written by a run. Remove the directory, or name another.")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{str(path)!r} is damaged: {error}. Remove the directory, or name another.") from None


class RunDirectory:
    """A directory of results that appears under its name once it is whole.

    Until then the run works in `NAME.unfinished` beside it, which stays for `--resume` if the run ends early;
    earlier results under the name stay untouched. A lock keeps a second run out.

    Args:
        path: the name of the finished directory.
        flags: the run's flags, one a line: a resumed run must have the same.
        data: what tells its data from others by content: a resumed run must have the same.
        may_differ: names of flags in which a resumed run may differ.
        overwrite: replace an earlier run, finished or not.
        resume: go on with an unfinished run.

    Raises:
        ValueError: if the name is taken and neither `overwrite` nor `resume` says what to do, what stands there is
            no run or a link, another process is at work in it, or the unfinished run has other flags or data.
        OSError: if there cannot be such a directory.
    """

    FLAGS, DATA, LOCK = "run.flags", "run.data", "lock"

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        flags: str,
        data: str = "",
        may_differ: Container[str] = (),
        overwrite: bool = False,
        resume: bool = False,
    ):
        self.path = pathlib.Path(path)
        self.unfinished = unfinished(self.path)
        self._lock, self._may_differ = None, may_differ
        if overwrite and resume:
            raise ValueError("--overwrite starts over and --resume goes on: give one of them, not both.")
        self._check_free(overwrite)
        try:
            self._claim(flags, data, overwrite, resume)
        except BaseException:
            self.release()
            raise

    def commit(self) -> None:
        """Gives the finished directory its name, in place of an earlier one."""
        _sync_tree(self.unfinished)
        if os.name == "nt":  # where nothing that is open can be renamed
            self.release()
        (self.unfinished / self.LOCK).unlink(missing_ok=True)
        attic = _new_attic(self.path.parent)
        earlier = attic / self.path.name
        if self.path.exists():
            self.path.rename(earlier)
        try:
            self.unfinished.rename(self.path)
        except OSError:
            if earlier.exists():
                earlier.rename(self.path)
            raise
        sync(self.path.parent)
        shutil.rmtree(attic, ignore_errors=True)
        self.release()

    def release(self) -> None:
        """Lets other processes have the directory."""
        if self._lock:
            self._lock.release()
            self._lock = None

    def _check_free(self, overwrite: bool) -> None:
        check_committable(self.path)
        if self.path.exists() and not self._is_run():
            raise ValueError(
                f"output_dir {str(self.path)!r} holds something other than a run, which is not replaced. Name another "
                "--output_dir."
            )
        if self.path.exists() and not overwrite and not self.unfinished.exists():
            raise ValueError(
                f"output_dir {str(self.path)!r} holds earlier results. Give --overwrite to replace them once the "
                "new ones are whole, or name another --output_dir."
            )

    def _is_run(self) -> bool:
        return self.path.is_dir() and ((self.path / self.FLAGS).is_file() or not any(self.path.iterdir()))

    def _claim(self, flags: str, data: str, overwrite: bool, resume: bool) -> None:
        is_new = not self.unfinished.exists()
        if not is_new and not overwrite and not resume:
            raise ValueError(
                f"{str(self.unfinished)!r} holds an unfinished run. Give --resume to go on with it, --overwrite to "
                "start over, or name another --output_dir."
            )
        self.unfinished.mkdir(parents=True, exist_ok=True)
        _new_attic(self.path.parent).rmdir()  # what `commit` will do there is possible
        self._take_lock()
        if overwrite:
            self._clear()
        if resume:
            check_same_flags(self.unfinished, flags, may_differ=self._may_differ)
            check_same_data(self.unfinished, data)
        self._clear_halves()
        if data:
            write_text(self.unfinished / self.DATA, data + "\n")
        write_text(self.unfinished / self.FLAGS, flags)

    def _take_lock(self) -> None:
        self._lock = filelock.FileLock(self.unfinished / self.LOCK, timeout=0)
        try:
            self._lock.acquire()
        except filelock.Timeout:
            raise ValueError(
                f"output_dir {str(self.path)!r} is in use by another process. Wait for it, or name another."
            ) from None

    def _clear(self) -> None:
        """Removes everything, the flags first: without them, nothing of what is left is gone on with."""
        for item in sorted(self.unfinished.iterdir(), key=lambda item: item.name != self.FLAGS):
            if item.name != self.LOCK:
                remove(item)

    def _clear_halves(self) -> None:
        """Removes what a process that was killed had not written to its end."""
        for item in self.unfinished.iterdir():
            if is_temporary(item):
                remove(item)


def wait_until_free(path: str | os.PathLike, tell: Callable[[str], None], stopping: threading.Event) -> None:
    """Waits for another process that is at work in a run directory, a run whose sweep was killed, say.

    Args:
        path: the name of the finished directory.
        tell: called with a line about it, if there is one to wait for.
        stopping: ends the wait when it is set.
    """
    lock, told = unfinished(path) / RunDirectory.LOCK, False
    while lock.is_file() and not stopping.is_set():
        with contextlib.suppress(FileNotFoundError):  # the other process has just come to its end
            try:
                filelock.FileLock(lock, timeout=0).acquire().lock.release()
                return
            except filelock.Timeout:
                if not told:
                    tell(f"{path}: waiting for another process that is at work there")
                told = True
                stopping.wait(0.5)


def _new_attic(folder: pathlib.Path) -> pathlib.Path:
    """Where what is replaced goes until its successor has its name."""
    return pathlib.Path(tempfile.mkdtemp(prefix=".replaced-", dir=folder))


def _sync_tree(folder: pathlib.Path) -> None:
    for place, _, names in os.walk(folder):
        for name in names:
            sync(pathlib.Path(place, name))
        sync(place)
