"""Files that are whole or absent: what stands in for them meanwhile, and what they keep of those they replace."""

import os
import stat
import sys

import pytest

from pineat_tf.files import check_replaceable, is_temporary, replacing

posix = pytest.mark.skipif(sys.platform == "win32", reason="permissions and links of POSIX")


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_temporary_names_cannot_be_guessed_and_keep_the_suffix(tmp_path):
    names = set()
    for _ in range(5):
        with replacing(tmp_path / "a.keras") as temporary:
            names.add(temporary.name)
            assert temporary.parent == tmp_path and temporary.suffix == ".keras" and is_temporary(temporary)
    assert len(names) == 5 and [path.name for path in tmp_path.iterdir()] == ["a.keras"]
    assert not any(is_temporary(tmp_path / name) for name in ("a.keras", "a.tmp", ".hidden.tmp", "run.unfinished"))


@posix
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_permissions_that_new_files_have(tmp_path, umask):
    before = os.umask(umask)
    try:
        with replacing(tmp_path / "a") as temporary:
            temporary.write_text("new")
    finally:
        os.umask(before)
    assert mode(tmp_path / "a") == 0o666 & ~umask


@posix
@pytest.mark.parametrize("permissions", [0o600, 0o640, 0o664, 0o755])
def test_a_file_keeps_its_permissions_also_while_it_is_written(tmp_path, permissions):
    path = tmp_path / "a"
    path.write_text("old")
    path.chmod(permissions)
    with replacing(path) as temporary:
        assert mode(temporary) == permissions
        temporary.write_text("new")
    assert mode(path) == permissions and path.read_text() == "new"


@posix
def test_what_stands_under_the_temporary_name_is_not_followed(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    monkeypatch.setattr("secrets.token_hex", lambda num: "0" * 2 * num)  # as if it could be guessed
    (tmp_path / f".{'0' * 16}.tmp").symlink_to(victim)
    with pytest.raises(FileExistsError), replacing(tmp_path / "a") as temporary:
        temporary.write_text("new")
    assert victim.read_text() == "mine" and not (tmp_path / "a").exists()


def test_file_and_folder_are_on_the_disk_before_and_after_the_rename(tmp_path, monkeypatch):
    done, replace = [], os.replace
    monkeypatch.setattr("os.fsync", lambda descriptor: done.append(stat.S_ISDIR(os.fstat(descriptor).st_mode)))
    monkeypatch.setattr("os.replace", lambda *names: (done.append("renamed"), replace(*names)))
    with replacing(tmp_path / "a") as temporary:
        temporary.write_text("new")
    assert done == [False, "renamed", True]


def cannot_be(folder):
    """Names under which there can be no file."""
    (folder / "file").write_text("mine")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "to nowhere").symlink_to(folder / "no" / "where")
    return [folder / "file" / "below", folder / "no" / "folder", folder / ("x" * 300), folder, folder / "loop",
            folder / "to nowhere"]  # fmt: skip


@posix
@pytest.mark.parametrize("number", range(6))
def test_a_name_that_cannot_be_written_is_told_beforehand_and_afterwards(tmp_path, number):
    path = cannot_be(tmp_path)[number]
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OSError) as told:
        check_replaceable(path)
    assert str(path)[:100] in str(told.value) and ".tmp" not in str(told.value)
    with pytest.raises(OSError), replacing(path) as temporary:
        temporary.write_text("new")
    assert sorted(tmp_path.iterdir()) == before


def test_a_check_leaves_nothing_and_changes_nothing(tmp_path):
    (tmp_path / "old").write_text("old")
    for name in ("old", "new", "x" * 255):
        check_replaceable(tmp_path / name)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
