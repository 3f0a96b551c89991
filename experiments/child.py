"""A run that another command began: it ends when that command does, and says in a file why it failed.

    python -m experiments.child ERROR_FILE FLAGS

Standard input is a pipe whose other end the command holds. It closes however the command ends, by SIGKILL too, and
the run then ends as by SIGTERM: while it trains, with a checkpoint.
"""

import os
import pathlib
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import TextIO

from experiments import command_line, files, run
from pineat_tf import accelerate


def start(
    flags: Sequence[str],
    *,
    errors: pathlib.Path,
    output: TextIO,
    environment: Mapping[str, str] | None = None,
    folder: pathlib.Path | None = None,
) -> subprocess.Popen:
    """Begins a run in a process of its own.

    Args:
        flags: of the run, as for `experiments.run`.
        errors: file for the one line that says why it failed.
        output: what it prints goes here.
        environment: of the process; None for that of this one.
        folder: that it works in; None for that of this process.

    Returns:
        The process. Its standard input is to stay open until it has ended.
    """
    errors.unlink(missing_ok=True)
    command = [sys.executable, "-m", "experiments.child", str(errors.absolute()), *flags]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=output, env=environment, cwd=folder)


def why_it_failed(code: int, errors: pathlib.Path) -> str:
    """One line: what a run wrote about its failure, or which signal ended it before it could."""
    if errors.is_file():
        return errors.read_text(encoding="utf-8", errors="replace").strip().removeprefix("error: ")
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return f"killed by {name}" + (", as for want of memory" if -code == getattr(signal, "SIGKILL", 0) else "")
    return f"exit code {code}"


def main(argv: list[str]) -> int:
    """Runs what the arguments after the error file say; gives the exit code."""
    errors, *arguments = argv[1:]
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        code, line = command_line.ended(run.run, ["run", *arguments])
    except Exception as error:
        files.write_text(errors, _one_line(f"{type(error).__name__}: {error}"))
        raise
    if line:
        print(line, file=sys.stderr)
        files.write_text(errors, _one_line(line))
    return code


def _end_with_parent() -> None:
    while os.read(0, 1024):  # until the other end is closed
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300] + "\n"


if __name__ == "__main__":
    accelerate.set_threads()
    sys.exit(main(sys.argv))
