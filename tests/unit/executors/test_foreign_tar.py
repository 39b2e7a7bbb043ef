"""Archives of strangers cannot fill the memory with what they say of their entries."""

import io
import tarfile
import tracemalloc

import pytest

from executors.foreign_tar import HEADER_BYTES, ForeignTar

MIB = 1024 * 1024


def header(name: str, kind: bytes, size: int = 0) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.USTAR_FORMAT)


def sparse_header() -> bytes:
    """Returns the header of a file of holes that says that more of them follow."""
    block = bytearray(header("holes", tarfile.GNUTYPE_SPARSE))
    block[482], block[483:495] = 1, b"00000000001\0"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


MORE_HOLES = b"00000000001\0" * 42 + b"\1" + bytes(7)


@pytest.mark.parametrize("mode", ["r:", "r|"])
@pytest.mark.parametrize(
    "archive",
    [
        pytest.param(header("x", tarfile.XHDTYPE, 20 * MIB) + bytes(20 * MIB), id="an extended header"),
        pytest.param(header("x", tarfile.XGLTYPE, 20 * MIB) + bytes(20 * MIB), id="a header for all that follow"),
        pytest.param(header("x", tarfile.GNUTYPE_LONGNAME, 20 * MIB) + b"x" * 20 * MIB, id="a long name"),
        pytest.param(header("x", tarfile.XHDTYPE) * 300, id="many headers of one entry"),
        pytest.param(sparse_header() + MORE_HOLES * 2000, id="a map of holes"),
        pytest.param(
            header("x", tarfile.XHDTYPE, 50)
            + b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n".ljust(512, b"\0")
            + header("holes", tarfile.REGTYPE)
            + b"9999999\n"
            + b"1\n" * MIB,
            id="a map of holes in the content",
        ),
    ],
)
def test_headers_that_do_not_end_are_an_error_before_they_are_in_memory(archive: bytes, mode: str) -> None:
    first = header("first", tarfile.DIRTYPE)
    tracemalloc.start()
    with ForeignTar.open(fileobj=io.BytesIO(first + archive), mode=mode) as reader:  # type: ignore[call-overload]
        assert reader.next().name == "first"
        with pytest.raises(tarfile.ReadError, match=f"more than {HEADER_BYTES} bytes"):
            reader.next()
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak_bytes < len(first + archive) + MIB


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_the_longest_paths_are_read(form: int) -> None:
    buffer = io.BytesIO()
    name = "/".join(["ü" * 127] * 16)[:4090]
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for number in range(3):
            link = tarfile.TarInfo(f"{number}{name}")
            link.type, link.linkname = tarfile.SYMTYPE, name
            archive.addfile(link)
    buffer.seek(0)

    with ForeignTar.open(fileobj=buffer, mode="r|") as reader:
        found = [(entry.name, entry.linkname) for entry in iter(reader.next, None)]

    assert found == [(f"{number}{name}", name) for number in range(3)]


def test_what_is_no_header_is_not_taken_for_the_end() -> None:
    with ForeignTar.open(fileobj=io.BytesIO(header("a", tarfile.DIRTYPE) + b"x" * 512), mode="r:") as reader:
        reader.next()
        with pytest.raises(tarfile.ReadError):
            reader.next()
