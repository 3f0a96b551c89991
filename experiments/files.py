"""Files and run directories that are whole or absent."""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import tensorflow as tf


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Gives a temporary name to write to; what stands there then takes the place of `path`, or nothing does."""
    path = pathlib.Path(path).resolve()  # a link stays a link to what is written
    if path.is_dir():
        raise OSError(f"cannot write {str(path)!r}: it is a folder")
    if path.exists() and not path.is_file():  # /dev/null, say, which a rename would do away with
        raise OSError(f"cannot write {str(path)!r}: it is not a file")
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno and not error.filename:  # a full disk, say
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


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


def check_same_flags(
    directory: pathlib.Path,
    flags: str,
    *,
    hint: str = "Give its flags to --resume it, or --overwrite to begin anew.",
) -> None:
    """Raises `ValueError` if the run in `directory` has other flags.

    Args:
        directory: of a run, finished or not; nothing need be there.
        flags: what the run should have, one a line.
        hint: how to mend it, for the end of the message.
    """
    recorded = directory / RunDirectory.FLAGS
    given = set(flags.splitlines())
    differing = set(recorded.read_text(encoding="utf-8").splitlines()) ^ given if recorded.exists() else set()
    if differing:
        names = ", ".join(sorted({line.split("=")[0] for line in differing}))
        raise ValueError(f"{str(directory)!r} holds a run with other flags: {names} differ. {hint}")


class RunDirectory:
    """A directory of results that appears under its name once it is whole.

    Until then the run works in `NAME.unfinished` beside it, which stays for `--resume` if the run ends early;
    earlier results under the name stay untouched. A lock keeps a second run out.

    Args:
        path: the name of the finished directory.
        flags: the run's flags, one a line: a resumed run must have the same.
        overwrite: replace an earlier run, finished or not.
        resume: go on with an unfinished run.

    Raises:
        ValueError: if the name is taken and neither `overwrite` nor `resume` says what to do, what stands there is
            no run, another process is at work in it, or the unfinished run has other flags.
    """

    FLAGS = "run.flags"
    LOCK = "lock"

    def __init__(self, path: str | os.PathLike, *, flags: str, overwrite: bool = False, resume: bool = False):
        self.path = pathlib.Path(path)
        self.unfinished = unfinished(self.path)
        self._lock = None
        if overwrite and resume:
            raise ValueError("--overwrite begins anew and --resume goes on: give one of them, not both.")
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
        try:
            self._claim(flags, overwrite, resume)
        except BaseException:
            self.release()
            raise

    def commit(self) -> None:
        """Gives the finished directory its name, in place of an earlier one."""
        (self.unfinished / self.LOCK).unlink()
        attic = tempfile.mkdtemp(prefix=f".{self.path.name}-replaced-", dir=self.path.parent)
        if self.path.exists():
            self.path.rename(pathlib.Path(attic, self.path.name))
        self.unfinished.rename(self.path)
        shutil.rmtree(attic, ignore_errors=True)
        self.release()

    def release(self) -> None:
        """Lets other processes have the directory."""
        if self._lock:
            self._lock.close()
            self._lock = None

    def _is_run(self) -> bool:
        return self.path.is_dir() and ((self.path / self.FLAGS).is_file() or not any(self.path.iterdir()))

    def _claim(self, flags: str, overwrite: bool, resume: bool) -> None:
        is_new = not self.unfinished.exists()
        if not is_new and not overwrite and not resume:
            raise ValueError(
                f"{str(self.unfinished)!r} holds an unfinished run. Give --resume to go on with it, --overwrite to "
                "begin anew, or name another --output_dir."
            )
        self.unfinished.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        if overwrite:
            self._clear()
        if resume:
            check_same_flags(self.unfinished, flags)
        self._clear_halves()
        write_text(self.unfinished / self.FLAGS, flags)

    def _take_lock(self) -> None:
        self._lock = open(self.unfinished / self.LOCK, "w", encoding="utf-8")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.release()
            raise ValueError(
                f"output_dir {str(self.path)!r} is in use by another process. Wait for it, or name another."
            ) from None

    def _clear(self) -> None:
        """Removes everything, the flags last: without them, what is left would pass for a run of any flags."""
        for item in sorted(self.unfinished.iterdir(), key=lambda item: item.name == self.FLAGS):
            if item.name != self.LOCK:
                remove(item)

    def _clear_halves(self) -> None:
        """Removes what a process that was killed had not written to its end."""
        for pattern in ("*.tmp", ".export-*"):
            for item in self.unfinished.glob(pattern):
                remove(item)
