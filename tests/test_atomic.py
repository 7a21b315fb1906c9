"""Atomic: results appear whole or not at all."""

import errno
import os
import stat
import tempfile
from pathlib import Path

import pytest

from rcccodec import atomic
from rcccodec.errors import OutputError


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_file_is_written_and_replaced(tmp_path: Path):
    target = tmp_path / "out"
    atomic.write_bytes(target, b"one")
    atomic.write_bytes(target, b"two")
    assert target.read_bytes() == b"two"
    assert names(tmp_path) == ["out"]


def test_new_files_obey_the_umask_and_replaced_ones_keep_their_mode(tmp_path: Path):
    target = tmp_path / "out"
    old = os.umask(0o027)
    try:
        atomic.write_bytes(target, b"x")
    finally:
        os.umask(old)
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    target.chmod(0o604)
    atomic.write_bytes(target, b"y")
    assert stat.S_IMODE(target.stat().st_mode) == 0o604


def test_a_link_is_followed(tmp_path: Path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    atomic.write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_no_overwrite_keeps_what_is_there(tmp_path: Path):
    target = tmp_path / "out"
    atomic.write_bytes(target, b"one", overwrite=False)
    with pytest.raises(OutputError, match="exists"):
        atomic.write_bytes(target, b"two", overwrite=False)
    assert target.read_bytes() == b"one"
    assert names(tmp_path) == ["out"]


def test_no_overwrite_holds_when_the_name_is_taken_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = tmp_path / "out"
    sync = os.fsync

    def race(descriptor: int) -> None:
        sync(descriptor)
        target.write_bytes(b"theirs")

    monkeypatch.setattr(os, "fsync", race)
    with pytest.raises(OutputError, match="exists"):
        atomic.write_bytes(target, b"ours", overwrite=False)
    assert target.read_bytes() == b"theirs"
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_disk_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
):
    target = tmp_path / "out"
    target.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OutputError, match=os.strerror(code)):
        atomic.write_bytes(target, b"new")
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["out"]


def test_an_interrupt_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = tmp_path / "out"
    target.write_bytes(b"old")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic.write_bytes(target, b"new")
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["out"]


def test_missing_folders_and_folders_as_files_are_output_errors(tmp_path: Path):
    with pytest.raises(OutputError, match="nowhere"):
        atomic.write_bytes(tmp_path / "nowhere" / "out", b"x")
    with pytest.raises(OutputError):
        atomic.write_bytes(tmp_path, b"x")
    assert names(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_a_device_is_written_to_and_not_replaced():
    with pytest.raises(OutputError, match="No space left"):
        atomic.write_bytes("/dev/full", b"x" * 100)
    atomic.write_bytes("/dev/null", b"x")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_folder_is_made_or_filled(tmp_path: Path):
    folder = tmp_path / "pictures"
    atomic.write_folder(folder, {"a": b"1", "b": b"2"})
    atomic.write_folder(folder, {"b": b"3"})
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {"a": b"1", "b": b"3"}
    assert names(tmp_path) == ["pictures"]


def test_a_folder_is_not_made_when_one_file_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write = atomic._write_and_sync

    def second_fails(path: Path, data: bytes) -> None:
        if path.name == "b":
            raise OSError(errno.ENOSPC, "disk full")
        write(path, data)

    monkeypatch.setattr(atomic, "_write_and_sync", second_fails)
    with pytest.raises(OutputError):
        atomic.write_folder(tmp_path / "pictures", {"a": b"1", "b": b"2"})
    assert names(tmp_path) == []


def test_a_folder_is_not_touched_when_a_name_is_taken(tmp_path: Path):
    (tmp_path / "b").write_bytes(b"old")
    with pytest.raises(OutputError, match="exists"):
        atomic.write_folder(tmp_path, {"a": b"1", "b": b"2"}, overwrite=False)
    assert names(tmp_path) == ["b"]


def test_a_folder_in_the_way_stops_all_files_before_the_first(tmp_path: Path):
    (tmp_path / "1").mkdir()
    (tmp_path / "0").write_bytes(b"old")
    with pytest.raises(OutputError, match="1: cannot write"):
        atomic.write_folder(tmp_path, {"0": b"new", "1": b"new"})
    assert (tmp_path / "0").read_bytes() == b"old"
    assert names(tmp_path) == ["0", "1"]


def test_a_full_disk_is_told_under_the_name_that_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError) as caught:
        atomic.write_folder(tmp_path / "new", {"0": b"x"})
    assert str(caught.value) == f"{tmp_path / 'new'}: cannot write: No space left on device"
    assert names(tmp_path) == []


def test_no_overwrite_works_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    atomic.write_bytes(tmp_path / "out", b"one", overwrite=False)
    with pytest.raises(OutputError, match="exists already"):
        atomic.write_bytes(tmp_path / "out", b"two", overwrite=False)
    assert (tmp_path / "out").read_bytes() == b"one"
    assert names(tmp_path) == ["out"]


def test_a_target_that_cannot_be_written_is_found_early(tmp_path: Path):
    (tmp_path / "taken").write_bytes(b"")
    atomic.check_target(tmp_path / "taken")
    atomic.check_target(tmp_path / "free", overwrite=False)
    for name, overwrite in (("taken", False), ("", True), ("no/out", True), ("taken/out", True)):
        with pytest.raises(OutputError):
            atomic.check_target(tmp_path / name, overwrite=overwrite)


def test_a_folder_that_takes_no_files_is_found_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: object, **options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(OutputError, match="Read-only file system"):
        atomic.check_target(tmp_path / "free")
    os.mkfifo(tmp_path / "pipe")
    atomic.check_target(tmp_path / "pipe")  # a pipe or device needs no new file
    assert names(tmp_path) == ["pipe"]
