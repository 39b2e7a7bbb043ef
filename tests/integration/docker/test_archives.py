"""Archives that no engine makes, and files whose names or times no other disk takes."""

import io
import stat
import tarfile
import tracemalloc
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from executors.docker.archives import Target, Unpacked, unpack
from tests.engines import needs_engine
from tests.integration.docker.conftest import Bench, spec


def packed(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """Returns an archive whose first entry is a file ``d/first``."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in (entry("d/first", b"first"), *members):
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def entry(name: str, data: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


async def unpacked(archive: bytes, folder: Path) -> Unpacked:
    async def pieces() -> AsyncIterator[bytes]:
        yield archive

    return await unpack(pieces(), {"d": Target(folder)})


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize(
    "fields",
    [{"mtime": 2**62}, {"mtime": -(2**62)}, {"pax_headers": {"mtime": "1e400"}}, {"pax_headers": {"mtime": "nan"}}],
)
async def test_a_time_that_no_disk_holds_costs_nothing(tmp_path: Path, fields: dict[str, object]) -> None:
    archive = packed(entry("d/odd", b"odd", **fields), entry("d/last", b"last"))

    assert await unpacked(archive, tmp_path) == Unpacked()
    assert contents(tmp_path) == {
        "first": "first",
        "odd": "odd",
        "last": "last",
    }


async def test_folders_keep_their_permissions_and_the_base_those_of_the_ant(tmp_path: Path) -> None:
    def folder(name: str, mode: int) -> tuple[tarfile.TarInfo, bytes]:
        return entry(name, type=tarfile.DIRTYPE, mode=mode)

    base = tmp_path / "base"
    base.mkdir(0o700)
    await unpacked(packed(folder("d", 0o777), folder("d/closed", 0o500), entry("d/closed/file", b"x")), base)

    found = [stat.S_IMODE(path.stat().st_mode) for path in (base, base / "closed")]
    assert found == [0o700, 0o700]
    await unpacked(packed(folder("d/open", 0o1775)), base)
    assert stat.S_IMODE((base / "open").stat().st_mode) == 0o775


def _spoilt(field: slice, text: bytes) -> Callable[[bytes], bytes]:
    """Returns what writes over a field of the second header, and mends its checksum."""

    def spoil(archive: bytes) -> bytes:
        header = bytearray(archive[1024:1536])
        header[field] = text
        header[148:156] = b" " * 8
        header[148:156] = f"{sum(header):06o}\0 ".encode()
        return archive[:1024] + bytes(header) + archive[1536:]

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        _spoilt(slice(124, 136), b"\xff" * 12),  # a negative size
        _spoilt(slice(124, 136), b"\x80" + b"\x7f" * 11),  # one beyond all disks
        _spoilt(slice(156, 157), b"x"),  # a header of the next entry, which is none
        lambda archive: archive[:1700],
        lambda archive: archive[:1024],
        lambda archive: archive[:1024] + b"\x01" * 512 + archive[1536:],
    ],
)
async def test_a_damaged_archive_is_an_error_and_what_came_before_it_is_whole(
    tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    with pytest.raises(tarfile.TarError):
        await unpacked(spoil(packed(entry("d/second", b"x" * 600))), tmp_path)

    assert (tmp_path / "first").read_text() == "first"


async def test_a_name_that_no_disk_takes_is_an_error_that_names_it(tmp_path: Path) -> None:
    archive = packed(entry("d/plain", b"x", pax_headers={"path": "d/a\0b"}))

    with pytest.raises(tarfile.TarError, match=r"a\\x00b.*null"):
        await unpacked(archive, tmp_path)


@pytest.mark.parametrize("target", ["d/missing", "elsewhere/x", "d/../../x", ""])
async def test_a_hard_link_to_nothing_is_left_out(tmp_path: Path, target: str) -> None:
    archive = packed(entry("d/link", type=tarfile.LNKTYPE, linkname=target))
    assert await unpacked(archive, tmp_path / "d") == Unpacked(left_out=["link"])


async def test_memory_does_not_grow_with_the_number_of_entries(tmp_path: Path) -> None:
    archive = packed(*(entry(f"elsewhere/{number:080}") for number in range(10_000)))

    peaks_bytes: list[int] = []
    for _ in range(3):  # now and then the table of the names that Python remembers grows
        tracemalloc.start()
        await unpacked(archive, tmp_path)
        peaks_bytes.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    assert min(peaks_bytes) < 4_500_000, "some pieces of the archive are"


async def test_a_header_that_does_not_end_is_an_error(tmp_path: Path) -> None:
    archive = packed(entry("d/" + "a/" * 20_000))

    with pytest.raises(tarfile.TarError, match="at its entry 'd/first', or just behind: the headers of an entry"):
        await unpacked(archive, tmp_path)


async def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    base, outside = tmp_path / "base", tmp_path / "outside"
    base.mkdir()
    outside.mkdir()
    (base / "old").symlink_to(outside)
    link = entry("d/new", type=tarfile.SYMTYPE, linkname="there")
    (base / "there").symlink_to(outside)

    await unpacked(packed(link, entry("d/old/file", b"a"), entry("d/new/file", b"b"), entry("d/there", b"c")), base)

    assert list(outside.iterdir()) == []
    assert [(base / name).read_text() for name in ("old/file", "new/file", "there")] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "is_made"),
    [("../first", True), ("..", True), ("x/y", True), ("../..", False), ("x/..", False), ("/etc", False)],
)
async def test_a_link_is_made_where_its_text_alone_shows_that_it_stays_inside(
    tmp_path: Path, text: str, is_made: bool
) -> None:
    archive = packed(entry("d/sub/link", type=tarfile.SYMTYPE, linkname=text))

    done = await unpacked(archive, tmp_path / "d")

    assert (done.links, done.astray) == ((["sub/link"], []) if is_made else ([], ["sub/link"]))
    assert (tmp_path / "d/sub/link").is_symlink() == is_made


@needs_engine
@pytest.mark.usefixtures("leaves_nothing")
async def test_files_of_a_container_may_have_any_name_and_any_time(bench: Bench) -> None:
    script = (
        "mkdir d; cd d",
        "touch -d @99999999999 late; touch -d @-99999999999 early; printf x > $'\\377'; printf x > $'a\\nb'",
        "mkfifo $'\\376'; mkfifo $'c\\nd'",
    )

    ended = await bench.run(spec(*script), "d")

    names = {path.name.encode(errors="surrogateescape") for path in (ended.folder / "d").iterdir()}
    assert names == {b"late", b"early", b"\xff", b"a\nb"}
    assert ended.notes.count("was left out") == 2
    assert len(ended.notes.splitlines()) == 2
