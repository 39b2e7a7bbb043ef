"""Archives that come out of containers are not trusted."""

import io
import os
import stat
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from executors.foreign_tar import MOST_NAMES
from executors.kubernetes.archive import empty, pack, roots, unpack


def archive_of(*entries: tuple[str, bytes | str | None]) -> io.BytesIO:
    """Returns an archive: bytes are a file, text is a link to it, None a folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in entries:
            member = tarfile.TarInfo(name)
            member.mode = 0o4755
            if content is None:
                member.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
            else:
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content) if isinstance(content, bytes) else None)
    buffer.seek(0)
    return buffer


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_packed_is_what_is_unpacked(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "deep" / "er" / "ünï code").write_bytes(b"\0\xff")
    (source / "empty").touch()
    target.mkdir()
    buffer = io.BytesIO()

    size = pack(source, buffer)
    unpack(buffer, target)

    assert size == len(buffer.getvalue())
    assert files_in(target) == files_in(source)


def test_permissions_and_times_are_kept(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    modes = {"closed": 0o700, "closed/file": 0o640, "open": 0o755, "open/program": 0o755, "open/read-only": 0o444}
    for name, mode in modes.items():
        path = source / name
        if "/" in name:
            path.write_text(name)
        else:
            path.mkdir(parents=True)
        path.chmod(mode)
    os.utime(source / "open/program", (1_000_000_000, 1_000_000_000))
    target.mkdir()
    buffer = io.BytesIO()

    pack(source, buffer)
    unpack(buffer, target)

    found = {name: stat.S_IMODE((target / name).stat().st_mode) for name in modes}
    assert found == {**modes, "open/read-only": 0o644}, "the ant can write to all of it"
    assert (target / "open/program").stat().st_mtime == 1_000_000_000


@pytest.mark.parametrize("name", ["/etc/outside", "../outside", "a/../../outside"])
def test_what_would_lie_outside_is_left_out_and_named(tmp_path: Path, name: str) -> None:
    target = tmp_path / "target"
    target.mkdir()

    left_out = unpack(archive_of((name, b"x"), (name, "inside"), ("inside", b"y")), target)

    assert left_out == [name, name]
    assert files_in(tmp_path) == {"target/inside": b"y"}


def test_links_that_stay_inside_come_along_and_the_others_are_named(tmp_path: Path) -> None:
    links = (("newest", "build/2"), ("build/up", "../file"), ("out", "build/../.."), ("passwd", "/etc/passwd"))

    left_out = unpack(archive_of(*links, ("build/2/a", b"a"), ("file", b"f")), tmp_path)

    assert left_out == ["out", "passwd"]
    assert {
        str(path.relative_to(tmp_path)): str(path.readlink()) for path in tmp_path.rglob("*") if path.is_symlink()
    } == {
        "newest": "build/2",
        "build/up": "../file",
    }


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    target, other = tmp_path / "target", tmp_path / "other"
    target.mkdir()
    other.mkdir()
    (target / "there").symlink_to(other)

    left_out = unpack(archive_of(("link", "."), ("link/file", b"x"), ("there/link", "x")), target)

    assert left_out == ["link", "there/link"]
    assert files_in(tmp_path) == {"target/link/file": b"x"}
    assert list(other.iterdir()) == []


def hostile(at: dict[int, bytes]) -> io.BytesIO:
    """Returns an archive with one file whose header has been tampered with."""
    member = tarfile.TarInfo("file")
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    for offset, data in at.items():
        header[offset : offset + len(data)] = data
    checksum = 256 + sum(header[:148]) + sum(header[156:512])
    header[148:156] = b"%06o\0 " % checksum
    return io.BytesIO(bytes(header) + bytes(10240))


@pytest.mark.parametrize(
    "at",
    [
        pytest.param({124: b"\x80" + b"\x7f" * 11}, id="a size beyond all numbers"),
        pytest.param({124: b"\xff" * 12}, id="a negative size"),
        pytest.param({156: b"S", 386: b"00000000000\0" * 2, 483: b"77777777777\0"}, id="a file of holes"),
        pytest.param({156: b"x", 124: b"00000000014\0"}, id="an extended header of zeros"),
    ],
)
def test_an_archive_that_no_tar_would_write_is_one_kind_of_error(tmp_path: Path, at: dict[int, bytes]) -> None:
    with pytest.raises((tarfile.TarError, OSError)):
        unpack(hostile(at), tmp_path)


def test_a_header_that_does_not_end_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(tarfile.TarError, match="the headers of an entry"):
        unpack(archive_of(("a/" * 20_000, None)), tmp_path)


@pytest.mark.parametrize(
    "target", ["absent", "file", "folder", "../outside", "/etc/passwd", "a/../../outside", "there/x"]
)
def test_a_hard_link_to_no_file_of_the_archive_is_left_out(tmp_path: Path, target: str) -> None:
    folder, other = tmp_path / "target", tmp_path / "other"
    (folder / "folder").mkdir(parents=True)
    other.mkdir()
    for path in (tmp_path / "outside", other / "x"):
        path.write_text("x")
    (folder / "to").symlink_to(other)

    assert unpack(hostile({156: b"1", 157: target.encode()}), folder) == ["file"]


def test_hard_links_become_copies(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "sub").mkdir(parents=True)
    target.mkdir()
    (source / "a").write_text("content")
    (source / "sub/b").hardlink_to(source / "a")
    (source / "sub/c").hardlink_to(source / "a")
    buffer = io.BytesIO()

    pack(source, buffer)
    left_out = unpack(buffer, target)

    assert (left_out, files_in(target)) == ([], dict.fromkeys(["a", "sub/b", "sub/c"], b"content"))
    assert (target / "sub/b").stat().st_nlink == 1


def test_memory_does_not_grow_with_the_number_of_entries(tmp_path: Path) -> None:
    buffer = archive_of(*((f"../{number:080}", None) for number in range(10_000)))

    peaks_bytes: list[int] = []
    for _ in range(3):  # now and then the table of the names that Python remembers grows
        tracemalloc.start()
        left_out = unpack(buffer, tmp_path)
        peaks_bytes.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    assert left_out[-1] == f"../{MOST_NAMES - 1:080}"
    assert min(peaks_bytes) < 3_000_000


def test_no_set_user_id_bit_comes_along(tmp_path: Path) -> None:
    unpack(archive_of(("program", b"x")), tmp_path)

    assert (tmp_path / "program").stat().st_mode & 0o7777 == 0o755


def test_half_an_archive_is_an_error(tmp_path: Path) -> None:
    half = io.BytesIO(archive_of(("file", b"x" * 5000)).getvalue()[:3000])

    with pytest.raises((tarfile.TarError, OSError)):
        unpack(half, tmp_path)


def test_emptying_follows_no_link(tmp_path: Path) -> None:
    kept, folder = tmp_path / "kept", tmp_path / "folder"
    kept.mkdir()
    (kept / "file").touch()
    (folder / "sub").mkdir(parents=True)
    (folder / "link").symlink_to(kept)

    empty(folder)

    assert list(folder.iterdir()) == []
    assert (kept / "file").exists()


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (("a.txt", "build/out"), ("a.txt", "build/out")),
        (("build/**/*.whl", "build/x?"), ("build",)),
        (("*.csv", "build"), (".",)),
        (("a/[bc]/d",), ("a",)),
        (("./a",), ("a",)),
    ],
)
def test_only_what_globs_can_select_is_moved(patterns: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert roots(patterns) == expected
