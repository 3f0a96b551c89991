"""Signals that end a command: in one line, with the exit code that shells have for them."""

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_HEARD = b"\0"
_GRACE = 10.0  # seconds within which Python must come to hear of a signal


class InterruptedRun(BaseException):
    """A signal ended the command; its checkpoint is kept.

    It is no `Exception`, so that nothing on the way takes it for a failure.

    Attributes:
        exit_code: 128 + the signal's number, as shells have it.
    """

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


@contextlib.contextmanager
def handled_by(handler: Callable) -> Iterator[None]:
    """Lets `handler(number, frame)` have the signals that end a command, but for those that its caller ignores.

    Outside the main thread, which alone may ask for signals, nothing changes.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        numbers = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]  # as `nohup` has it
        before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier if earlier is not None else signal.SIG_DFL)


class Ending:
    """Ends a command by the first signal: by `InterruptedRun`, or at once where Python does not come to hear of it.

    Python handles a signal when the main thread returns to it, which it may not for long: TensorFlow waits in C++ for
    workers that are gone. A thread sees the signal in any case. A second signal always ends the process.
    """

    def __init__(self):
        self._patience: float | None = _GRACE
        self._times = 0
        self._writer: socket.socket | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Ends the command by signals while the context lasts."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._times = 0
        earlier = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(reader,), daemon=True).start()
        try:
            with handled_by(self._interrupt):
                yield
        finally:
            signal.set_wakeup_fd(earlier)
            writer, self._writer = self._writer, None
            writer.close()  # which ends the thread

    @contextlib.contextmanager
    def patient(self, seconds: float | None) -> Iterator[None]:
        """Gives Python so long to hear of a first signal: the length of a round of training; None for any length."""
        before, self._patience = self._patience, seconds
        try:
            yield
        finally:
            self._patience = before

    def heard(self) -> None:
        """Says that Python has come to hear of a signal."""
        if self._writer:
            with contextlib.suppress(OSError):
                self._writer.send(_HEARD)

    def _interrupt(self, number: int, frame: object) -> None:
        self.heard()
        self._times += 1
        if self._times > 1:
            _end_at_once(number)
        raise InterruptedRun(f"by {signal.Signals(number).name}", 128 + number)

    def _watch(self, reader: socket.socket) -> None:
        """Ends the process if Python has not heard of a signal in time.

        The numbers of signals come from Python's handler in C, before anything of Python's own can have heard of them.
        """
        deadline, number = None, 0
        with reader:
            while True:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                if not select.select([reader], [], [], left)[0]:
                    _end_at_once(number)
                received = reader.recv(1)
                if not received:
                    return
                if received == _HEARD:
                    deadline = None
                elif received[0] in ENDING:
                    patience = _GRACE if number else self._patience
                    number = received[0]
                    deadline = None if patience is None else time.monotonic() + patience


def _end_at_once(number: int) -> None:
    line = f"interrupted: by {signal.Signals(number).name}, at once\n"
    with contextlib.suppress(OSError):
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, line.encode())
    os._exit(128 + number)


ending = Ending()
"""That of this process."""
