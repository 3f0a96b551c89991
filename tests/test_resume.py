"""A run loses nothing: it is killed, its disk is full, its training diverges, and it goes on to the same end."""

import contextlib
import errno
import json
import os
import pathlib
import random
import re
import resource
import signal
import subprocess
import sys
import time

import pytest
from test_pipeline import SMOKE, execute, metrics_of, refusal, rows_of_history, without_times

from experiments.study import resume_trial

ROOT = pathlib.Path(__file__).resolve().parents[1]

# 10 rounds a pass, a checkpoint after each: seconds, in which a moment can be chosen.
ARGUMENTS = [*resume_trial.FLAGS, "--variant=pineat", "--updates=160"]


# ---------------------------------------------------------------- killed


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run that ended by itself, in a process of its own."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert resume_trial.run_to_end(folder, ARGUMENTS) == 0
    return folder / "run"


def assert_same_end(first, second):
    state = resume_trial.final_state(first)
    assert len(state) > 8 and state == resume_trial.final_state(second)  # 8 weights, and the optimizer's
    assert without_times(metrics_of(first)) == without_times(metrics_of(second))
    assert rows_of_history(first) == rows_of_history(second)


@contextlib.contextmanager
def frozen(folder, *arguments):
    """The command as a process of its own, which stands still once it has trained a pass, and its updates by then."""
    command = [sys.executable, "-m", "experiments.run", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    history, deadline = folder / "run.unfinished" / "history.csv", time.monotonic() + resume_trial.LONGEST_WAIT
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **pipes) as process:
        try:
            while not history.exists():
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.01)
            process.send_signal(signal.SIGSTOP)
            yield process, int(history.read_text().splitlines()[-1].split(",")[1])
        finally:
            process.kill()


def test_a_run_that_is_interrupted_and_then_killed_ends_as_if_it_had_not_been(undisturbed, tmp_path, monkeypatch):
    monkeypatch.setattr(resume_trial, "RANGE", 0.1)
    checkpoints = tmp_path / "run.unfinished" / "checkpoints"
    with frozen(tmp_path, *ARGUMENTS, "--checkpoint_seconds=3600") as (process, updates):
        assert "in use by another process" in refusal(tmp_path, *ARGUMENTS, "--resume")
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        printed, _ = process.communicate()
    assert process.returncode == 130
    assert printed.splitlines()[-1] == "interrupted: the checkpoint is kept; --resume goes on from it."
    assert len(list(checkpoints.glob("*.index"))) == 1
    interrupted = resume_trial._last_update(checkpoints)
    kill, resumed_from = resume_trial.run_and_kill(tmp_path, [*ARGUMENTS, "--resume"], random.Random(0))
    assert updates <= interrupted == resumed_from < kill.update < 160
    assert not (tmp_path / "run").exists()
    assert resume_trial.run_to_end(tmp_path, [*ARGUMENTS, "--resume"]) == kill.update
    assert_same_end(tmp_path / "run", undisturbed)
    assert [int(row["updates"]) for row in rows_of_history(undisturbed)] == list(range(20, 161, 20))  # every pass once
    assert not list((tmp_path / "run").glob("*.tmp")) and len(list((tmp_path / "run" / "checkpoints").iterdir())) == 4
    assert metrics_of(undisturbed).keys() - without_times(metrics_of(undisturbed)).keys() == {"hours", "seconds"}


# ---------------------------------------------------------------- no space left


@contextlib.contextmanager
def files_of_at_most(size):
    """No file can grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a file system of so many bytes, and makes it larger when it is called again."""
    mounted = []

    def mount(size):
        options = ["-o", f"remount,size={size}" if mounted else f"size={size}"]
        done = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(tmp_path)], capture_output=True)
        if done.returncode:
            pytest.skip("only root can mount a small disk")
        mounted.append(size)
        return tmp_path

    yield mount
    if mounted:
        subprocess.run(["umount", str(tmp_path)], check=True)


def error_of(printed):
    """What a command that failed said last, which must be all that it said of it."""
    assert "Traceback" not in printed and printed.count("error: ") == 1
    return printed.splitlines()[-1]


SPACE = [*SMOKE, "--export=keras", "--checkpoint_seconds=0"]  # small_cnn: 168 KB a checkpoint, 88 KB exported


def test_a_checkpoint_that_there_is_no_space_for_ends_the_run_which_goes_on_later(tmp_path):
    with files_of_at_most(100_000):
        code, printed = execute(tmp_path, *SPACE)
    assert code == 2
    assert error_of(printed).startswith(f"error: [Errno {errno.EFBIG}] File too large: 'runs/pineat.unfinished/")
    assert not list((tmp_path / "runs" / "pineat.unfinished" / "checkpoints").iterdir())
    code, _ = execute(tmp_path, *SPACE, "--resume")
    assert code == 0 and (tmp_path / "runs" / "pineat" / "metrics.json").exists()


def test_on_a_full_disk_the_checkpoints_before_are_kept_and_the_run_goes_on_later(small_disk):
    folder = small_disk(300_000)  # for one checkpoint
    code, printed = execute(folder, *SPACE)
    assert code == 2 and error_of(printed).startswith("error: [Errno 28] No space left on device: 'runs/")
    unfinished = folder / "runs" / "pineat.unfinished"
    assert resume_trial._last_update(unfinished / "checkpoints") == 2
    assert not list(unfinished.rglob("*.tmp")) + list(unfinished.rglob("*temp*"))
    small_disk("20m")
    code, printed = execute(folder, *SPACE, "--resume")
    assert code == 0 and "Going on from update 2." in printed


def test_a_full_disk_after_the_training_costs_no_training(small_disk):
    folder = small_disk(220_000)  # a checkpoint and the predictions, and not the pictures
    once = [*SPACE, "--checkpoint_seconds=3600"]
    code, printed = execute(folder, *once)
    assert code == 2 and "No space left on device" in error_of(printed)
    small_disk("20m")
    code, printed = execute(folder, *once, "--resume")
    assert code == 0 and "Going on from update 8." in printed and "rounds of" not in printed


@pytest.mark.parametrize("place", ["/proc/runs", "/dev/null/runs", "x" * 300])
def test_a_place_that_cannot_be_written_to_is_one_line(place, tmp_path):
    assert "[Errno " in refusal(tmp_path, *SPACE, f"--output_dir={place}")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- diverged


@pytest.mark.parametrize(
    "every_seconds, kept", [(0, "the checkpoint of update 4 is kept"), (3600, "there is no checkpoint before it")]
)
def test_training_that_diverges_names_the_round_and_keeps_the_checkpoint_before(every_seconds, kept, tmp_path):
    # 4 rounds of 1/1. From the fifth update on the rate is absurd: the sixth, in the third round, makes weights NaN,
    # and on some machines the loss before them.
    bad = [*SMOKE, "--optimizer=sgd", "--learning_rates=1e-3,1e30", "--boundaries=3"]
    bad += [f"--checkpoint_seconds={every_seconds}"]
    code, printed = execute(tmp_path, *bad)
    told = r"error: training diverged: (the weights are not finite|the loss is nan) in round 3 "
    assert code == 2 and re.match(told + re.escape(f"(pass 1, batch 3 of 4); {kept}. Give "), error_of(printed))
    code, again = execute(tmp_path, *bad, "--resume")
    assert code == 2 and error_of(again) == error_of(printed)
    assert ("Going on from update 4." in again) == (every_seconds == 0)
    assert not (tmp_path / "runs" / "pineat").exists()


# ---------------------------------------------------------------- the command


@pytest.mark.parametrize("flag", ["--help", "--helpshort"])
def test_the_trial_explains_itself(flag, capsys):
    assert resume_trial.main(["resume_trial", flag]) == 0
    assert "  --kills (default: 30)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--kills=0"], "`kills` must be a whole number >= 1"),
        (["--kills=few"], "--kills=few"),
        (["--kils=3"], "kils"),
        (["thirty"], "there is no use for ['thirty']"),
        (["--json=no/such/folder/a.json"], "No such file or directory"),
        (["--json=."], "it is a folder"),
    ],
)
def test_the_trial_refuses_bad_arguments_in_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resume_trial.main(["resume_trial", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and message in err
    assert not list(tmp_path.iterdir())


def test_a_run_that_fails_ends_the_trial(tmp_path, monkeypatch):
    def start(arguments, *, errors, **options):
        errors.write_text("error: `epsilon` must be positive\n")
        return subprocess.Popen(["false"])

    monkeypatch.setattr(resume_trial.child, "start", start)
    with pytest.raises(ValueError, match="a run failed: `epsilon` must be positive"):
        resume_trial.run_to_end(tmp_path, ["--epsilon=-1"])


def test_the_committed_trial_found_no_difference():
    path = os.path.join(os.path.dirname(resume_trial.__file__), "results", "resume", "trial.json")
    with open(path, encoding="utf-8") as file:
        trial = json.load(file)
    kills = [kill for run in trial["runs"] for kill in run["kills"]]
    assert len(kills) == trial["kills"] >= 30 and all(run["identical"] for run in trial["runs"])
    assert {(run["precision"], run["variant"]) for run in trial["runs"]} == {
        tuple(case.values()) for case in resume_trial.CASES
    }
    assert all(kill["resumed_from"] == kill["update"] for kill in kills)
