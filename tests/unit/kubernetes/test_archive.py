"""Archives that come out of containers are not trusted."""

import io
import tarfile
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("name", ["/etc/outside", "../outside", "a/../../outside"])
def test_what_would_lie_outside_is_left_out(tmp_path: Path, name: str) -> None:
    target = tmp_path / "target"
    target.mkdir()

    unpack(archive_of((name, b"x"), ("inside", b"y")), target)

    assert files_in(tmp_path) == {"target/inside": b"y"}


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()

    unpack(archive_of(("link", ".."), ("link/outside", b"x"), ("passwd", "/etc/passwd")), target)

    assert files_in(tmp_path) == {"target/link/outside": b"x"}


def test_no_set_user_id_bit_comes_along(tmp_path: Path) -> None:
    unpack(archive_of(("program", b"x")), tmp_path)

    assert (tmp_path / "program").stat().st_mode & 0o7777 == 0o700


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
