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


def test_what_was_renamed_is_on_disk_before_a_writer_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls: list[tuple[str, str]] = []
    sync, replace, rename = os.fsync, os.replace, os.rename

    def noted(descriptor: int) -> None:
        calls.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append(("rename", str(b))), replace(a, b)))
    monkeypatch.setattr(os, "rename", lambda a, b: (calls.append(("rename", str(b))), rename(a, b)))
    atomic.write_bytes(tmp_path / "out", b"x")
    (content, written), *rest = calls
    assert content == "sync"
    assert written.endswith(".tmp")
    assert rest == [("rename", str(tmp_path / "out")), ("sync", str(tmp_path))]
    calls.clear()
    atomic.write_folder(tmp_path / "new", {"a": b"1", "b": b"2"})
    assert [what for what, _ in calls] == ["sync"] * 3 + [
        "rename",
        "sync",
    ]  # two files and their folder first
    assert calls[-2:] == [("rename", str(tmp_path / "new")), ("sync", str(tmp_path))]
    calls.clear()
    atomic.make_folder(tmp_path / "x" / "y")
    assert calls == [("sync", str(tmp_path / "x")), ("sync", str(tmp_path))]
    calls.clear()
    atomic.make_folder(tmp_path / "x" / "y")
    assert calls == []


def test_a_folder_that_cannot_be_synced_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sync = os.fsync

    def files_only(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", files_only)
    atomic.write_bytes(tmp_path / "out", b"x")
    assert (tmp_path / "out").read_bytes() == b"x"


def test_files_appear_in_a_folder_in_the_order_they_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    renamed: list[str] = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (renamed.append(Path(b).name), replace(a, b)))
    atomic.write_folder(tmp_path, {"weights": b"1", "card": b"2", "about": b"3"})
    assert renamed == ["weights", "card", "about"]


def test_no_overwrite_without_hard_links_leaves_no_empty_file_when_it_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "rename", stop)
    with pytest.raises(KeyboardInterrupt):
        atomic.write_bytes(tmp_path / "out", b"one", overwrite=False)
    assert names(tmp_path) == []


def left_over(tmp_path: Path) -> list[Path]:
    """What a process that was killed leaves of a file and of a folder called out."""
    file, folder = tmp_path / ".out.0123abcd.tmp", tmp_path / ".out.4567cdef.tmp"
    file.write_bytes(b"half")
    folder.mkdir()
    (folder / "0000.png").write_bytes(b"whole")
    return [file, folder]


def test_what_a_killed_process_left_is_swept(tmp_path: Path):
    left_over(tmp_path)
    atomic.sweep([tmp_path / "out", tmp_path / "nowhere" / "out"])
    assert names(tmp_path) == []


def test_nothing_else_is_swept(tmp_path: Path):
    kept = [
        "out",
        ".other.0123abcd.tmp",
        ".out.0123abcg.tmp",
        ".out.0123abcd.tmpx",
        "out.0123abcd.tmp",
        ".out.tmp",
    ]
    for name in kept:
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "out.d").mkdir()
    (tmp_path / ".out.89abcdef.tmp").symlink_to("out.d")  # none of ours: we make no links
    atomic.sweep([tmp_path / "out"])
    assert names(tmp_path) == sorted([*kept, "out.d", ".out.89abcdef.tmp"])


def test_what_a_living_process_writes_is_not_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sync = os.fsync

    def swept_meanwhile(descriptor: int) -> None:
        sync(descriptor)
        atomic.sweep([tmp_path / "out"])

    monkeypatch.setattr(os, "fsync", swept_meanwhile)
    atomic.write_bytes(tmp_path / "out", b"x")
    atomic.write_bytes(tmp_path / "out", b"y")
    assert (tmp_path / "out").read_bytes() == b"y"
    os.unlink(tmp_path / "out")
    atomic.write_folder(tmp_path / "out", {"a": b"1", "b": b"2"})
    assert names(tmp_path / "out") == ["a", "b"]
    atomic.write_folder(tmp_path / "out", {"a": b"3"})
    assert names(tmp_path / "out") == ["a", "b"]


def test_without_locks_a_sweep_would_end_a_living_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(atomic, "_lock", lambda path, wait: os.open(path, os.O_RDONLY))
    sync = os.fsync

    def swept_meanwhile(descriptor: int) -> None:
        sync(descriptor)
        atomic.sweep([tmp_path / "out"])

    monkeypatch.setattr(os, "fsync", swept_meanwhile)
    with pytest.raises(OutputError):
        atomic.write_bytes(tmp_path / "out", b"x")


def test_a_file_swept_before_it_was_locked_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lock, swept = atomic._lock, []

    def late(path: Path, *, wait: bool) -> int | None:
        if wait and not swept:
            swept.append(path)
            atomic.sweep([tmp_path / "out"])
        return lock(path, wait=wait)

    monkeypatch.setattr(atomic, "_lock", late)
    atomic.write_bytes(tmp_path / "out", b"x")
    assert len(swept) == 1
    assert names(tmp_path) == ["out"]


def test_where_there_are_no_locks_nothing_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(atomic, "fcntl", None)
    left = left_over(tmp_path)
    atomic.sweep([tmp_path / "out"])
    atomic.write_bytes(tmp_path / "out", b"x")
    assert names(tmp_path) == sorted([*(path.name for path in left), "out"])


@pytest.mark.parametrize("name", [".", "./", "../here", os.sep])
def test_a_folder_is_filled_whatever_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    if name == os.sep:  # which tests had better not write to
        monkeypatch.setattr(os.path, "realpath", lambda path: os.sep if path == Path(os.sep) else str(path))
        monkeypatch.setattr(atomic, "_temporary", stopped := Stopped())
        with pytest.raises(KeyboardInterrupt):
            atomic.write_folder(name, {"a": b"1"})
        assert stopped.target == Path(f"{os.sep}root")
        return
    atomic.write_folder(name, {"a": b"1"})
    atomic.write_folder(name, {"b": b"2"}, overwrite=False)
    with pytest.raises(OutputError, match="exists already"):
        atomic.write_folder(name, {"b": b"3"}, overwrite=False)
    assert {p.name: p.read_bytes() for p in here.iterdir()} == {"a": b"1", "b": b"2"}
    assert names(tmp_path) == ["here"]


class Stopped:
    """In place of `atomic._temporary`: notes the target and ends."""

    target: Path | None = None

    def __call__(self, target: Path, _make: object) -> None:
        self.target = target
        raise KeyboardInterrupt


@pytest.mark.parametrize("links", [True, False])
def test_a_name_taken_meanwhile_is_not_overwritten_in_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
):
    sync = os.fsync

    def race(descriptor: int) -> None:
        sync(descriptor)
        (tmp_path / "b").write_bytes(b"theirs")

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "fsync", race)
    if not links:
        monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(OutputError, match="b: exists already"):
        atomic.write_folder(tmp_path, {"a": b"1", "b": b"2"}, overwrite=False)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a": b"1", "b": b"theirs"}
    monkeypatch.setattr(os, "fsync", sync)
    atomic.write_folder(tmp_path, {"b": b"2"})
    assert (tmp_path / "b").read_bytes() == b"2"


@pytest.mark.parametrize("name", ["中" * 83 + ".rcc", "é" * 125 + ".png", "x" * 255])
def test_names_of_the_most_bytes_are_written_and_swept(tmp_path: Path, name: str):
    atomic.write_bytes(tmp_path / name, b"x")
    assert names(tmp_path) == [name]
    short = atomic.short_name(name)
    assert len(os.fsencode(short)) <= 200
    assert name.startswith(short)
    (tmp_path / f".{short}.0123abcd.tmp").write_bytes(b"half")
    atomic.sweep([tmp_path / name])
    assert names(tmp_path) == [name]
    assert atomic.short_name("ordinary.rcc") == "ordinary.rcc"


def test_a_name_that_is_too_long_is_an_output_error(tmp_path: Path):
    for path in (tmp_path / ("a" * 300), tmp_path / ("a" * 300) / "out"):
        for write in (
            lambda p: atomic.check_target(p),
            lambda p: atomic.write_bytes(p, b""),
            lambda p: atomic.write_folder(p, {"a": b""}),
            lambda p: atomic.make_folder(p),
        ):
            with pytest.raises(OutputError, match="File name too long"):
                write(path)
    assert names(tmp_path) == []


def test_a_folder_that_may_not_be_searched_is_an_output_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real = os.stat

    def refuse(path: object, *args: object, **options: object) -> os.stat_result:
        if not isinstance(path, int) and "closed/" in os.fsdecode(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, *args, **options)

    (tmp_path / "closed").mkdir()
    monkeypatch.setattr(os, "stat", refuse)  # as root has it, who may search all of them
    for write in (atomic.check_target, lambda p: atomic.write_bytes(p, b"")):
        with pytest.raises(OutputError, match="Permission denied"):
            write(tmp_path / "closed" / "out")


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="only Unix has /dev/fd")
def test_a_pipe_without_a_name_is_written_to():
    read, write = os.pipe()
    try:
        atomic.check_target(f"/dev/fd/{write}")
        atomic.sweep([f"/dev/fd/{write}"])
        atomic.write_bytes(f"/dev/fd/{write}", b"through")
        assert os.read(read, 99) == b"through"
    finally:
        os.close(read)
        os.close(write)
