"""Progress bars: one that moves on a terminal, a line every ten seconds elsewhere."""

import sys
from typing import TextIO

from tqdm import tqdm

_SECONDS_A_LINE = 10.0

Bar = tqdm


def bar(**options: object) -> Bar:
    """A progress bar on stderr.

    Args:
        **options: of `tqdm`: `total`, `unit`, `desc`, ...
    """
    if sys.stderr.isatty():
        return tqdm(dynamic_ncols=True, **options)
    return tqdm(file=_Lines(sys.stderr), mininterval=_SECONDS_A_LINE, miniters=1, ncols=100, **options)


class _Lines:
    """A stream that gets a line for each state of a bar, which a terminal would write over the one before."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> None:
        for line in filter(str.strip, text.replace("\r", "\n").split("\n")):
            self._stream.write(line.strip() + "\n")

    def flush(self) -> None:
        self._stream.flush()
