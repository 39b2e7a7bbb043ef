"""Folders become archives and folders again; archives of strangers do no harm."""

import io
import os
import stat
import tarfile
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from formicary.artifacts.archive import (
    ArchiveError,
    ArchiveStoppedError,
    ArchiveTooLargeError,
    Packed,
    leads_inside,
    pack,
    unpack,
)

GO = threading.Event()
STOPPED = threading.Event()
STOPPED.set()
NO_LIMIT = 10**12


def packed(folder: Path, archive: Path, is_wanted: Callable[[str], bool] = lambda name: True) -> Packed:
    archive.unlink(missing_ok=True)
    return pack(folder, is_wanted, archive, GO, NO_LIMIT)


def tree(folder: Path) -> dict[str, tuple[str, int, bytes]]:
    """Returns kind, permissions and content of everything below a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        mode = stat.S_IMODE(path.lstat().st_mode)
        if path.is_symlink():
            found[str(path.relative_to(folder))] = ("link", 0, str(path.readlink()).encode())
        else:
            content = b"" if path.is_dir() else path.read_bytes()
            found[str(path.relative_to(folder))] = ("folder" if path.is_dir() else "file", mode, content)
    return found


@pytest.fixture
def full(tmp_path: Path) -> Path:
    folder = tmp_path / "full"
    (folder / "a/deep/er").mkdir(parents=True)
    (folder / "empty").mkdir(mode=0o750)
    (folder / "a/file").write_bytes(b"1")
    (folder / "a/deep/er/large").write_bytes(os.urandom(3_000_000))
    (folder / "a/nothing").touch(mode=0o600)
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "ünï cödé").write_text("x")
    (folder / os.fsdecode(b"not-utf8-\xff")).write_text("y")
    (folder / ("n" * 200)).write_text("long")
    (folder / "a/link").symlink_to("../run.sh")
    (folder / "to-folder").symlink_to("a/deep")
    (folder / "dangling").symlink_to("a/nowhere")
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    target = tmp_path / "target"
    target.mkdir()
    return target


def test_a_folder_comes_back_as_it_was(full: Path, tmp_path: Path, target: Path) -> None:
    os.utime(full / "run.sh", (1_000_000_000, 1_000_000_000))
    packed(full, tmp_path / "archive")
    assert unpack(tmp_path / "archive", target, GO) == len(tree(full))
    assert tree(target) == tree(full)
    assert (target / "run.sh").stat().st_mtime == 1_000_000_000


def test_equal_trees_give_equal_bytes(full: Path, tmp_path: Path, target: Path) -> None:
    first = packed(full, tmp_path / "archive")
    unpack(tmp_path / "archive", target, GO)
    assert packed(target, tmp_path / "again") == first
    (target / "a/file").write_bytes(b"2")
    assert packed(target, tmp_path / "again").sha256 != first.sha256


def test_without_times_files_that_were_made_anew_are_equal_and_dated_now(
    full: Path, tmp_path: Path, target: Path
) -> None:
    first = pack(full, lambda name: True, tmp_path / "first", GO, NO_LIMIT, keeps_times=False)
    os.utime(full / "run.sh", (1_000_000_000, 1_000_000_000))
    assert pack(full, lambda name: True, tmp_path / "second", GO, NO_LIMIT, keeps_times=False) == first
    unpack(tmp_path / "second", target, GO)
    assert (target / "run.sh").stat().st_mtime > 1_600_000_000


def test_only_what_is_wanted_is_packed(full: Path, tmp_path: Path, target: Path) -> None:
    assert packed(full, tmp_path / "archive", lambda name: name.startswith("a/deep")).entry_count == 3
    unpack(tmp_path / "archive", target, GO)
    assert set(tree(target)) == {"a", "a/deep", "a/deep/er", "a/deep/er/large"}


def test_folders_that_are_not_kept_themselves_can_be_entered_by_others(
    full: Path, tmp_path: Path, target: Path
) -> None:
    packed(full, tmp_path / "archive", lambda name: name == "a/deep/er/large")
    unpack(tmp_path / "archive", target, GO)
    assert [stat.S_IMODE((target / name).stat().st_mode) for name in ("a", "a/deep", "a/deep/er")] == [0o755] * 3


def test_read_only_folders_are_filled_and_read_only_afterwards(tmp_path: Path, target: Path) -> None:
    folder = tmp_path / "full"
    (folder / "mod/inner").mkdir(parents=True)
    (folder / "mod/inner/file").write_text("x")
    (folder / "mod/inner").chmod(0o555)
    (folder / "mod").chmod(0o555)
    packed(folder, tmp_path / "archive")
    unpack(tmp_path / "archive", target, GO)
    assert tree(target) == tree(folder)


def test_what_is_there_stays_as_it_is(full: Path, tmp_path: Path, target: Path) -> None:
    packed(full, tmp_path / "archive")
    (target / "a").mkdir(mode=0o700)
    (target / "a/file").write_text("mine")
    (target / "dangling").write_text("mine")
    unpack(tmp_path / "archive", target, GO)
    assert ((target / "a/file").read_text(), (target / "dangling").read_text()) == ("mine", "mine")
    assert (target / "a/deep/er/large").exists()
    assert stat.S_IMODE((target / "a").stat().st_mode) == 0o700


def test_sockets_and_pipes_are_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "full"
    folder.mkdir()
    os.mkfifo(folder / "pipe")
    assert packed(folder, tmp_path / "archive").entry_count == 0


@pytest.mark.parametrize(
    ("name", "target", "inside"),
    [
        ("link", "file", True),
        ("a/link", "../file", True),
        ("a/b/link", "../../file", True),
        ("link", "./a/./file", True),
        ("link", "../file", False),
        ("a/link", "../../file", False),
        ("link", "/etc/passwd", False),
        ("link", "a/../../file", False),
        ("a/link", "b/../file", False),
        ("link", ".", False),
    ],
)
def test_a_symlink_leads_inside_whatever_else_lies_there(name: str, target: str, inside: bool) -> None:
    assert leads_inside(name, target) is inside


def test_symlinks_that_lead_out_are_left_out_and_named(tmp_path: Path) -> None:
    folder = tmp_path / "full"
    folder.mkdir()
    (folder / "absolute").symlink_to("/etc/passwd")
    (folder / "climbing").symlink_to("../x")
    assert packed(folder, tmp_path / "archive")[2:] == (0, ("absolute", "climbing"))


def evil(archive: Path, *members: tuple[str, bytes, str]) -> Path:
    """Writes an archive of members: name, type, link target."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, kind, link in members:
            header = tarfile.TarInfo(name)
            header.type, header.linkname = kind, link
            header.size = 1 if kind == tarfile.REGTYPE else 0
            tar.addfile(header, io.BytesIO(b"x"))
    archive.write_bytes(zstandard.compress(raw.getvalue()))
    return archive


FILE, FOLDER, LINK = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE


@pytest.mark.parametrize(
    "members",
    [
        [("../out", FILE, "")],
        [("a/../../out", FILE, "")],
        [("/tmp/out", FILE, "")],
        [("./a//b", FILE, "")],
        [("out", LINK, "/etc"), ("out/passwd", FILE, "")],
        [("here", LINK, "a"), ("here/file", FILE, "")],
        [("a", FOLDER, ""), ("a/l", LINK, "../..")],
        [("hard", tarfile.LNKTYPE, "/etc/passwd")],
        [("device", tarfile.CHRTYPE, "")],
        [("pipe", tarfile.FIFOTYPE, "")],
        [("file", FILE, ""), ("file/below", FILE, "")],
    ],
)
def test_an_archive_that_would_leave_the_folder_is_refused_whole(
    members: list[tuple[str, bytes, str]], tmp_path: Path, target: Path
) -> None:
    (target / "kept").write_text("mine")
    archive = evil(tmp_path / "archive", ("new/file", FILE, ""), *members)
    with pytest.raises(ArchiveError):
        unpack(archive, target, GO)
    assert set(tree(target)) == {"kept"}
    assert {path.name for path in tmp_path.iterdir()} == {"archive", "target"}


def test_a_link_that_was_there_is_not_followed(tmp_path: Path, target: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (target / "a").symlink_to(outside)
    with pytest.raises(ArchiveError):
        unpack(evil(tmp_path / "archive", ("a/file", FILE, "")), target, GO)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"no archive at all", zstandard.compress(b"no tar" * 1000)])
def test_what_is_no_archive_is_refused(content: bytes, tmp_path: Path, target: Path) -> None:
    (tmp_path / "archive").write_bytes(content)
    with pytest.raises(ArchiveError):
        unpack(tmp_path / "archive", target, GO)


def test_a_header_that_does_not_end_is_refused(tmp_path: Path, target: Path) -> None:
    with pytest.raises(ArchiveError, match="headers of an entry"):
        unpack(evil(tmp_path / "archive", ("a/" * 20_000, FOLDER, "")), target, GO)


def test_a_cut_archive_leaves_nothing(full: Path, tmp_path: Path, target: Path) -> None:
    packed(full, tmp_path / "archive")
    os.truncate(tmp_path / "archive", 1_500_000)
    with pytest.raises(ArchiveError):
        unpack(tmp_path / "archive", target, GO)
    assert tree(target) == {}


def test_an_archive_beyond_its_limit_and_work_that_shall_stop_end_at_once(
    full: Path, tmp_path: Path, target: Path
) -> None:
    with pytest.raises(ArchiveTooLargeError, match="more than 100000 bytes"):
        pack(full, lambda name: True, tmp_path / "large", GO, 100_000)
    with pytest.raises(ArchiveStoppedError):
        pack(full, lambda name: True, tmp_path / "stopped", STOPPED, NO_LIMIT)
    packed(full, tmp_path / "archive")
    with pytest.raises(ArchiveStoppedError):
        unpack(tmp_path / "archive", target, STOPPED)
    assert tree(target) == {}


def test_memory_does_not_grow_with_the_tree(tmp_path: Path, target: Path) -> None:
    folder = tmp_path / "full"
    folder.mkdir()
    (folder / "large").write_bytes(b"0123456789abcdef" * 4_000_000)
    for number in range(3_000):
        (folder / f"{number}").touch()
    tracemalloc.start()
    packed(folder, tmp_path / "archive")
    unpack(tmp_path / "archive", target, GO)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16_000_000
