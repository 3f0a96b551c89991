"""How much memory the process has, for tests that nothing takes more than it should."""

import contextlib
import ctypes
import gc
import pathlib

import pytest

_STATUS = pathlib.Path("/proc/self/status")


def resident(field="VmRSS"):
    """Bytes of memory in use; with "VmHWM" the most that were since `peak_below` was entered."""
    if not _STATUS.exists():
        pytest.skip("the memory of a process is read from /proc, as Linux has it")
    (line,) = (line for line in _STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) << 10


def in_use():
    """Bytes that something holds on to: without garbage, and without what the allocator keeps for later."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return resident()


@contextlib.contextmanager
def peak_below(more):
    """Fails if the block takes, at any moment, `more` bytes more than there were at its start."""
    before = resident()
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    try:
        yield
    finally:
        taken = resident("VmHWM") - before
        assert taken < more, f"{taken >> 20} MiB were taken"
