"""The paper's experiments: data, networks, flags and the commands that run them."""

import gc
import os
import signal
import sys

WITHOUT_TENSORFLOW = "PINEAT_TF_WITHOUT_TENSORFLOW"
"""Set in the environment of processes that import another framework, which in one process with TensorFlow crashes."""


def _end_in_one_line_while_importing(stderr: int) -> None:
    """Lets signals end a command before it can listen to them; nothing of it is there to keep yet."""

    def end(number: int, frame: object) -> None:
        os.write(stderr, b"interrupted\n")
        os._exit(128 + number)

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)


def _import_tensorflow_quietly() -> None:
    """TensorFlow writes remarks to stderr while it is imported, among which one line of ours would be lost.

    In a command nothing of it is garbage: to look for some again and again would be a quarter of the time.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    is_command = sys.argv[:1] == ["-m"]  # python -m experiments.COMMAND, and not an import of somebody else's program
    if is_command:
        _end_in_one_line_while_importing(os.dup(kept))
        gc.disable()
    try:
        os.dup2(nothing, 2)
        import tensorflow  # noqa: F401
    finally:
        if is_command:
            gc.freeze()
            gc.enable()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


if not os.environ.get(WITHOUT_TENSORFLOW):
    _import_tensorflow_quietly()
