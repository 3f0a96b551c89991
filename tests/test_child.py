"""Runs that another command began: they end with it, and say why they failed."""

import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest

from experiments import child

ROOT = Path(__file__).resolve().parents[1]
GUARD = 1200.0  # seconds, against a hang


def flags_in(folder, *flags):
    return ["--flagfile=quickstart.flags", "--flagfile=smoke.flags", f"--output_dir={folder}/run", *flags]


@contextlib.contextmanager
def started(folder, *flags):
    flags = flags_in(folder, *flags)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with open(folder / "log", "w") as log:
        with child.start(flags, errors=folder / "error", output=log, environment=environment) as process:
            yield process


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_run_ends_when_the_other_end_of_its_pipe_is_closed(tmp_path):
    (tmp_path / "error").write_text("of an earlier run")
    with started(tmp_path, "--updates=1000000") as process:
        assert not (tmp_path / "error").exists()  # that of an earlier run is gone
        process.stdin.close()  # as the kernel does when the command is killed
        assert process.wait(GUARD) == 143


def test_causes_without_a_file_are_signals_and_exit_codes(tmp_path):
    none = tmp_path / "none"
    assert child.why_it_failed(-signal.SIGKILL, none) == "killed by SIGKILL, as for want of memory"
    assert child.why_it_failed(-signal.SIGSEGV, none) == "killed by SIGSEGV"
    assert child.why_it_failed(-99, none) == "killed by signal 99" and child.why_it_failed(1, none) == "exit code 1"


@pytest.fixture
def here(monkeypatch):
    """Nothing waits for the end of this process' standard input."""
    monkeypatch.setattr("experiments.child._end_with_parent", lambda: None)


def test_a_run_that_fails_says_why_in_a_file(tmp_path, here, capsys):
    errors = tmp_path / "error"
    assert child.main(["child", str(errors), *flags_in(tmp_path, "--variant=pineat", "--batch_size=1000")]) == 2
    why = child.why_it_failed(2, errors)
    assert why.startswith("`batch_size` must be at most the number of training images, 200.") and "\n" not in why
    assert errors.read_text() == f"error: {why}\n" and capsys.readouterr().err.endswith(f"error: {why}\n")


def test_an_error_of_the_program_itself_is_named(tmp_path, monkeypatch, here):
    def fail(argv):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("experiments.run.run", fail)
    with pytest.raises(RuntimeError):
        child.main(["child", str(tmp_path / "error")])
    assert child.why_it_failed(1, tmp_path / "error") == "RuntimeError: two lines"
