"""Files and run directories that are whole or absent."""

import errno
import os
import subprocess
import sys
import threading

import pytest
import tensorflow as tf

from experiments import command_line, files
from experiments.files import RunDirectory

FLAGS = "--seed=0\n--width=1\n"


def tree(folder):
    """Every file below a folder with its content, the lock left out."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != RunDirectory.LOCK)
    return {str(path.relative_to(folder)): path.read_text() for path in paths if path.name != RunDirectory.DATA}


def finish(path, text, **options):
    """A whole run whose result is `text`."""
    directory = RunDirectory(path, flags=FLAGS, **options)
    (directory.unfinished / "result").write_text(text)
    directory.commit()


def leave_unfinished(path, text, **options):
    """A run that ended early with `text` on disk."""
    directory = RunDirectory(path, flags=FLAGS, **options)
    (directory.unfinished / "checkpoint").write_text(text)
    directory.release()


# ---------------------------------------------------------------- single files


def test_a_file_appears_when_its_writer_is_done_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "a.txt"
    with files.replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists() and temporary.parent == path.parent
    assert tree(tmp_path) == {"a.txt": "new"}


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt(), ValueError("NaN")])
def test_a_writer_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path, failure):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(failure)):
        with files.replacing(path) as temporary:
            temporary.write_text("ne")
            assert path.read_text() == "old"
            raise failure
    assert tree(tmp_path) == {"a.txt": "old"}


def test_a_folder_is_never_replaced_by_a_file(tmp_path):
    with pytest.raises(OSError, match="it is a folder"):
        files.write_text(tmp_path, "text")


def test_a_file_in_no_folder_cannot_be_written(tmp_path):
    with pytest.raises(OSError):
        files.write_text(tmp_path / "no" / "a.txt", "text")
    assert not list(tmp_path.iterdir())


def test_text_is_utf_8_and_json_ends_in_a_newline(tmp_path):
    files.write_text(tmp_path / "a.txt", "\u03b5 = 8/255")
    files.write_json(tmp_path / "a.json", {"a": [1, None]})
    assert (tmp_path / "a.txt").read_bytes() == b"\xce\xb5 = 8/255"
    assert (tmp_path / "a.json").read_text() == '{\n  "a": [\n    1,\n    null\n  ]\n}\n'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}])
def test_what_strict_json_cannot_hold_is_refused_and_the_old_file_stays(tmp_path, value):
    files.write_json(tmp_path / "a.json", {"a": 1})
    before = tree(tmp_path)
    with pytest.raises((ValueError, TypeError)):
        files.write_json(tmp_path / "a.json", {"a": value})
    assert tree(tmp_path) == before


def test_a_full_disk_names_the_file(tmp_path):
    with pytest.raises(OSError, match="a.txt'$") as error, files.replacing(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert error.value.filename == str(tmp_path / "a.txt")


def test_errors_of_tensorflow_about_files_are_os_errors_and_others_are_not(tmp_path):
    with pytest.raises(tf.errors.OpError) as missing:
        tf.io.read_file(str(tmp_path / "none"))
    told = files.system_error(missing.value)
    assert (told.errno, told.filename) == (errno.ENOENT, str(tmp_path / "none"))
    with pytest.raises(tf.errors.OpError) as bug:
        tf.reshape(tf.zeros(3), (2, 2))
    assert files.system_error(bug.value) is None


def test_a_command_tells_errors_of_files_in_one_line_and_does_not_hide_mistakes(tmp_path, capsys):
    path = str(tmp_path / "none")
    assert command_line.guarded(lambda argv: tf.io.read_file(path), []) == 2
    assert capsys.readouterr().err == f"error: [Errno 2] No such file or directory: {path!r}. Check the path.\n"
    with pytest.raises(tf.errors.InvalidArgumentError):
        command_line.guarded(lambda argv: tf.reshape(tf.zeros(3), (2, 2)), [])


# ---------------------------------------------------------------- run directories


def test_a_run_directory_appears_only_when_it_is_committed(tmp_path):
    path = tmp_path / "deep" / "run"
    directory = RunDirectory(path, flags=FLAGS)
    (directory.unfinished / "result").write_text("new")
    assert not path.exists()
    directory.commit()
    assert tree(tmp_path) == {"deep/run/result": "new", "deep/run/run.flags": FLAGS}
    assert not (path / RunDirectory.LOCK).exists()


def test_a_finished_run_is_not_touched_without_leave(tmp_path):
    finish(tmp_path / "run", "old")
    for resume in (False, True):
        with pytest.raises(ValueError, match="holds earlier results. Give --overwrite"):
            RunDirectory(tmp_path / "run", flags=FLAGS, resume=resume)
    assert tree(tmp_path) == {"run/result": "old", "run/run.flags": FLAGS}
    assert not files.unfinished(tmp_path / "run").exists()


def test_earlier_results_stay_whole_until_the_new_ones_are_committed(tmp_path):
    finish(tmp_path / "run", "old")
    directory = RunDirectory(tmp_path / "run", flags=FLAGS, overwrite=True)
    (directory.unfinished / "other").write_text("new")
    assert (tmp_path / "run" / "result").read_text() == "old"
    directory.commit()
    assert tree(tmp_path) == {"run/other": "new", "run/run.flags": FLAGS}  # nothing of the old, nothing beside it
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_earlier_results_outlive_a_run_that_ends_early_while_it_overwrites(tmp_path):
    finish(tmp_path / "run", "old")
    leave_unfinished(tmp_path / "run", "half", overwrite=True)
    assert (tmp_path / "run" / "result").read_text() == "old"
    directory = RunDirectory(tmp_path / "run", flags=FLAGS, resume=True)
    assert (directory.unfinished / "checkpoint").read_text() == "half"
    directory.commit()
    assert tree(tmp_path) == {"run/checkpoint": "half", "run/run.flags": FLAGS}


def test_earlier_results_survive_when_the_new_ones_cannot_be_put_in_their_place(tmp_path):
    finish(tmp_path / "run", "old")
    directory = RunDirectory(tmp_path / "run", flags=FLAGS, overwrite=True)
    directory.unfinished.rename(tmp_path / "moved away")
    with pytest.raises(OSError):
        directory.commit()
    directory.release()
    assert "old" in tree(tmp_path).values()


@pytest.mark.parametrize("name", ["run.old", "run.bak", "run.tmp", "run2"])
def test_neighbours_with_similar_names_are_never_touched(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "kept").write_text("mine")
    finish(tmp_path / "run", "first")
    finish(tmp_path / "run", "second", overwrite=True)
    assert (tmp_path / name / "kept").read_text() == "mine"


@pytest.mark.parametrize("options", [{}, {"overwrite": True}, {"resume": True}])
def test_what_is_no_run_is_never_replaced(tmp_path, options):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("thesis", "file"):
        with pytest.raises(ValueError, match="something other than a run"):
            RunDirectory(tmp_path / name, flags=FLAGS, **options)
    assert tree(tmp_path) == {"thesis/thesis.txt": "mine", "file": "mine"}


def test_an_empty_folder_may_be_filled_with_leave(tmp_path):
    (tmp_path / "run").mkdir()
    finish(tmp_path / "run", "new", overwrite=True)
    assert (tmp_path / "run" / "result").read_text() == "new"


def test_an_unfinished_run_is_not_touched_without_leave(tmp_path):
    leave_unfinished(tmp_path / "run", "half")
    with pytest.raises(ValueError, match="holds an unfinished run. Give --resume .* --overwrite"):
        RunDirectory(tmp_path / "run", flags=FLAGS)
    assert tree(tmp_path) == {"run.unfinished/checkpoint": "half", "run.unfinished/run.flags": FLAGS}


def test_resume_goes_on_with_an_unfinished_run(tmp_path):
    leave_unfinished(tmp_path / "run", "half")
    directory = RunDirectory(tmp_path / "run", flags=FLAGS, resume=True)
    assert (directory.unfinished / "checkpoint").read_text() == "half"
    directory.commit()
    assert tree(tmp_path) == {"run/checkpoint": "half", "run/run.flags": FLAGS}


def test_resume_begins_a_run_that_there_is_not_yet(tmp_path):
    finish(tmp_path / "run", "new", resume=True)
    assert (tmp_path / "run" / "result").read_text() == "new"


def test_flags_that_change_nothing_of_a_run_may_differ_when_it_is_resumed(tmp_path):
    def begin(flags, **options):
        RunDirectory(tmp_path / "run", flags=flags, **options).release()

    begin("--seed=1\n--export=keras\n")
    begin("--seed=1\n--export=\n", may_differ={"export"}, resume=True)
    with pytest.raises(ValueError, match="other flags: --export differ"):
        begin("--seed=1\n--export=keras\n", resume=True)
    with pytest.raises(ValueError, match="other flags: --seed differ"):
        begin("--seed=2\n--export=keras\n", may_differ={"export"}, resume=True)


def test_overwrite_starts_an_unfinished_run_over_with_other_flags(tmp_path):
    leave_unfinished(tmp_path / "run", "half")
    (files.unfinished(tmp_path / "run") / "folder").mkdir()
    directory = RunDirectory(tmp_path / "run", flags="--seed=9\n", overwrite=True)
    assert tree(directory.unfinished) == {"run.flags": "--seed=9\n"}
    assert not (directory.unfinished / "folder").exists()
    directory.release()


def test_overwrite_and_resume_exclude_each_other(tmp_path):
    with pytest.raises(ValueError, match="give one of them, not both"):
        RunDirectory(tmp_path / "run", flags=FLAGS, overwrite=True, resume=True)
    assert not list(tmp_path.iterdir())


def test_resume_with_other_flags_names_those_that_differ_and_changes_nothing(tmp_path):
    leave_unfinished(tmp_path / "run", "half")
    before = tree(tmp_path)
    with pytest.raises(ValueError, match="other flags: --momentum, --width differ") as refused:
        RunDirectory(tmp_path / "run", flags="--seed=0\n--width=2\n--momentum=0.5\n", resume=True)
    assert tree(tmp_path) == before
    RunDirectory(tmp_path / "run", flags=FLAGS, resume=True).release()  # the refusal, still held, has let go of it
    assert "--overwrite" in str(refused.value)


def test_a_run_that_ended_before_it_recorded_its_flags_can_be_resumed(tmp_path):
    files.unfinished(tmp_path / "run").mkdir()
    finish(tmp_path / "run", "new", resume=True)
    assert tree(tmp_path) == {"run/result": "new", "run/run.flags": FLAGS}


def test_what_a_killed_process_had_half_written_does_not_become_a_result(tmp_path):
    leave_unfinished(tmp_path / "run", "half")
    unfinished = files.unfinished(tmp_path / "run")
    (unfinished / ".0123456789abcdef.tmp.csv").write_text("epo")
    finish(tmp_path / "run", "new", resume=True)
    assert tree(tmp_path) == {"run/checkpoint": "half", "run/result": "new", "run/run.flags": FLAGS}


def test_the_flags_go_first_when_a_run_is_started_over(tmp_path, monkeypatch):
    leave_unfinished(tmp_path / "run", "half")

    def remove_and_die(path):
        path.unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(files, "remove", remove_and_die)
        RunDirectory(tmp_path / "run", flags="--seed=9\n", overwrite=True)
    for flags in (FLAGS, "--seed=9\n"):  # else a checkpoint of seed 0, or half of one, could be gone on with
        with pytest.raises(ValueError, match="has no run.flags, without which nobody can tell"):
            RunDirectory(tmp_path / "run", flags=flags, resume=True)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x" * (1 << 21), None], ids=["not utf-8", "long", "fifo"])
def test_flags_that_no_run_wrote_are_told(tmp_path, content):
    leave_unfinished(tmp_path / "run", "half")
    recorded = files.unfinished(tmp_path / "run") / RunDirectory.FLAGS
    recorded.unlink()
    os.mkfifo(recorded) if content is None else recorded.write_bytes(content)
    with pytest.raises(ValueError, match="run.flags' (is damaged|was not written by a run)"):
        RunDirectory(tmp_path / "run", flags=FLAGS, resume=True)


@pytest.mark.parametrize("recorded", [None, "other\n"])
def test_a_run_of_other_data_is_not_gone_on_with(tmp_path, recorded):
    leave_unfinished(tmp_path / "run", "half", data="abc")
    path = files.unfinished(tmp_path / "run") / RunDirectory.DATA
    RunDirectory(tmp_path / "run", flags=FLAGS, data="abc", resume=True).release()
    path.unlink() if recorded is None else path.write_text(recorded)
    with pytest.raises(ValueError, match="holds a run on other data"):
        RunDirectory(tmp_path / "run", flags=FLAGS, data="abc", resume=True)
    assert (files.unfinished(tmp_path / "run") / "checkpoint").read_text() == "half"


# ---------------------------------------------------------------- names that cannot be committed


def dangling(folder):
    (folder / "run").symlink_to(folder / "nowhere")
    return folder / "run"


def linked(folder):
    finish(folder / "target", "old")
    (folder / "run").symlink_to(folder / "target")
    return folder / "run"


def linked_unfinished(folder):
    (folder / "elsewhere").mkdir()
    (folder / "run.unfinished").symlink_to(folder / "elsewhere")
    return folder / "run"


def below_a_file(folder):
    (folder / "file").write_text("mine")
    return folder / "file" / "run"


NAMES = [dangling, linked, linked_unfinished, below_a_file, *(lambda f, n=n: f / ("x" * n) for n in (245, 255, 300))]


@pytest.mark.parametrize("options", [{}, {"overwrite": True}, {"resume": True}])
@pytest.mark.parametrize("make", NAMES)
def test_a_name_that_cannot_be_committed_is_told_before_there_is_anything_to_lose(tmp_path, make, options):
    path = make(tmp_path)
    before = tree(tmp_path)
    with pytest.raises((ValueError, OSError)):
        RunDirectory(path, flags=FLAGS, **options)
    assert tree(tmp_path) == before


def test_the_longest_name_that_is_taken_can_be_committed_and_replaced(tmp_path):
    path = tmp_path / ("x" * 244)  # and ".unfinished"
    finish(path, "old")
    finish(path, "new", overwrite=True)
    assert (path / "result").read_text() == "new" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("make", [dangling, linked, below_a_file, *NAMES[-2:]])
def test_a_sweep_tells_such_names_of_all_its_runs(tmp_path, make):
    path = make(tmp_path)
    with pytest.raises((ValueError, OSError)):
        files.check_committable(path)


def test_a_link_on_the_way_to_a_run_is_followed(tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path / "scratch")
    finish(tmp_path / "runs" / "run", "old")
    finish(tmp_path / "runs" / "run", "new", overwrite=True)
    assert (tmp_path / "scratch" / "run" / "result").read_text() == "new"


def test_a_run_waits_for_one_whose_sweep_was_killed(tmp_path):
    leave_unfinished(tmp_path / "run", "half")
    holder = RunDirectory(tmp_path / "run", flags=FLAGS, resume=True)
    stopping, told = threading.Event(), []

    def tell(line):
        told.append(line)
        holder.commit()  # what the other process does in the meantime

    files.wait_until_free(tmp_path / "run", tell, stopping)
    assert len(told) == 1 and "waiting for another process" in told[0]
    files.wait_until_free(tmp_path / "run", told.append, stopping)
    assert len(told) == 1


def test_a_wait_ends_when_it_is_told_to(tmp_path):
    holder = RunDirectory(tmp_path / "run", flags=FLAGS)
    stopping = threading.Event()
    files.wait_until_free(tmp_path / "run", lambda line: stopping.set(), stopping)
    holder.release()


def test_a_second_run_in_the_same_process_is_kept_out(tmp_path):
    first = RunDirectory(tmp_path / "run", flags=FLAGS)
    for options in ({"overwrite": True}, {"resume": True}):
        with pytest.raises(ValueError, match="in use by another process"):
            RunDirectory(tmp_path / "run", flags=FLAGS, **options)
    first.commit()


HOLD_LOCK = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("options", [{"overwrite": True}, {"resume": True}])
def test_a_run_is_kept_out_as_long_as_another_process_lives_in_the_directory(tmp_path, options):
    leave_unfinished(tmp_path / "run", "half")
    lock = files.unfinished(tmp_path / "run") / RunDirectory.LOCK
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="in use by another process"):
            RunDirectory(tmp_path / "run", flags=FLAGS, **options)
        assert (files.unfinished(tmp_path / "run") / "checkpoint").read_text() == "half"
    finally:
        holder.kill()  # an end without any farewell
        holder.communicate()
    RunDirectory(tmp_path / "run", flags=FLAGS, **options).commit()
    assert (tmp_path / "run").is_dir()


@pytest.mark.skipif(os.geteuid() == 0, reason="permission bits do not bind the superuser")
def test_a_parent_that_cannot_be_written_to_is_an_os_error(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OSError):
            RunDirectory(tmp_path / "run", flags=FLAGS)
    finally:
        tmp_path.chmod(0o700)


def test_a_file_where_the_run_would_work_is_an_os_error(tmp_path):
    files.unfinished(tmp_path / "run").write_text("mine")
    with pytest.raises(OSError):
        RunDirectory(tmp_path / "run", flags=FLAGS, overwrite=True)
    assert tree(tmp_path) == {"run.unfinished": "mine"}


def test_releasing_twice_or_after_the_commit_does_no_harm(tmp_path):
    directory = RunDirectory(tmp_path / "run", flags=FLAGS)
    directory.commit()
    directory.release()
    directory.release()
    assert (tmp_path / "run").is_dir()


def test_a_device_is_not_replaced_and_a_link_stays_one(tmp_path):
    with pytest.raises(OSError, match="it is not a file"), files.replacing("/dev/null"):
        pass
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    files.write_text(link, "new")
    assert link.is_symlink() and target.read_text() == "new"
