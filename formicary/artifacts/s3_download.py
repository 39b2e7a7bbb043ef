"""Downloads from S3: streams that go on where they were cut, one for whoever reads, several for a file.

Rules of a file's download:

- The first request asks for a part of the object and learns its size. The others, of the same object only, come beside
  it, a few at a time, and are written where they belong; memory holds a chunk of each.
- What is written is digested in its order while the rest is on its way: read again from the file, which is in the
  system's cache then.
"""

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from formicary.artifacts.base import ArtifactCorruptError, ArtifactStoreAwayError
from formicary.artifacts.files import CHUNK_BYTES, Draft, check_digest, commit, in_thread, too_short, write_draft
from formicary.artifacts.parallel import each
from formicary.artifacts.s3_connection import Connection
from formicary.artifacts.s3_errors import DRIVER_ERRORS, RangeError, translated

if TYPE_CHECKING:
    from aiobotocore.response import StreamingBody


#: Pieces that can be written at once.
_PIECES_LIMIT: Final = 1024
#: Of a part of a file. Each is a request that has to be signed, and an answer that has to be parsed.
_PART_BYTES: Final = 16 * 1024 * 1024
#: Parts of one file that are under way at once. More of them write to the file in each other's way, and what they wrote
#: has left the processor's cache when it is digested.
_AT_ONCE: Final = 2

_Pieces = AsyncGenerator[list[bytes], None]


class Download:
    """The content of one key, or ``size_bytes`` of it: of the object that was there at the beginning.

    Args:
        connection: to the server.
        key: what people call it.
        name: of the object.
        start: where to begin.
        size_bytes: how much is wanted; None: all.
        is_less_enough: the content may end before that.
        etag: of the object, where it is known already.
    """

    def __init__(
        self,
        connection: Connection,
        key: str,
        name: str,
        start: int = 0,
        size_bytes: int | None = None,
        *,
        is_less_enough: bool = False,
        etag: str = "",
    ) -> None:
        self._connection = connection
        self._key = key
        self._place = connection.place(name)
        self._verb = f"read artifact {key}"
        self._position = start
        self._end = None if size_bytes is None else start + size_bytes
        self._is_less_enough = is_less_enough
        self.etag = etag
        #: Where the content ends that comes, and the size of the whole object; known with the first chunk.
        self.end = self.total_bytes = 0

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yields the content in chunks of at most 1 MiB; patience begins anew with every byte."""
        async with contextlib.aclosing(self.pieces()) as many:
            async for pieces in many:
                yield b"".join(pieces)

    async def pieces(self) -> AsyncGenerator[list[bytes], None]:
        """Yields the content as ``chunks`` does, each in the pieces in which it came."""
        pauses = self._connection.pauses()
        while True:
            begun_at = self._position
            body, end = await self._begin()
            try:
                while self._position < end:
                    pieces = await self._read(body, end)
                    self._position += sum(map(len, pieces))
                    yield pieces
                return
            except ArtifactStoreAwayError as exc:
                failure = exc
            finally:
                body.close()
            if self._position > begun_at:
                pauses = self._connection.pauses()
            if (pause_s := next(pauses)) is None:
                raise failure
            await self._connection.rest(failure, pause_s)

    async def _begin(self) -> "tuple[StreamingBody, int]":
        """Returns what is left of the content, and the position of its end."""
        try:
            answer = await self._connection.call(
                self._verb, lambda client: client.get_object(**self._place, **self._wanted())
            )
        except RangeError as exc:
            if self._is_less_enough and not self.etag:
                self._is_less_enough, self._end = False, None  # an empty object, of which no part can be had
                return await self._begin()
            if self._end is not None and not self.etag:
                raise too_short(self._key, self._end) from exc
            raise ArtifactCorruptError(f"{self._key} was replaced while it was read") from exc
        self.etag = answer["ETag"]
        end = self.end = self._position + answer["ContentLength"]
        self.total_bytes = int(answer.get("ContentRange", "").rpartition("/")[2] or end)
        if self._end is not None and end < (min(self._end, self.total_bytes) if self._is_less_enough else self._end):
            answer["Body"].close()
            raise too_short(self._key, self._end)
        return answer["Body"], end

    def _wanted(self) -> dict[str, Any]:
        wanted: dict[str, Any] = {"IfMatch": self.etag} if self.etag else {}
        if self._position or self._end is not None:
            wanted["Range"] = f"bytes={self._position}-{'' if self._end is None else self._end - 1}"
        return wanted

    async def _read(self, body: "StreamingBody", end: int) -> list[bytes]:
        """Returns what comes next: a whole chunk of it, or less at the end or where the connection is cut."""
        came: list[bytes] = []
        wanted_bytes = min(CHUNK_BYTES, end - self._position)
        try:
            async with asyncio.timeout(self._connection.options.timeout_s):
                while wanted_bytes and len(came) < _PIECES_LIMIT and (piece := await body.read(wanted_bytes)):
                    came.append(piece)
                    wanted_bytes -= len(piece)
        except DRIVER_ERRORS as exc:
            if not came:
                raise translated(exc, self._verb, self._connection.options.place) from exc
        if not came:
            raise ArtifactStoreAwayError(f"cannot {self._verb}: the connection ended before the content")
        return came


class FileDownload:
    """The content of one key on its way to a file."""

    def __init__(self, connection: Connection, key: str, name: str) -> None:
        self._connection = connection
        self._key = key
        self._name = name

    async def run(self, target: Path, sha256: str) -> None:
        """Writes the content to ``target``, which appears when it is whole and its digest is right.

        Raises:
            ArtifactCorruptError: the digest is another one.
        """
        first = Download(self._connection, self._key, self._name, 0, _PART_BYTES, is_less_enough=True)
        async with contextlib.aclosing(first.pieces()) as begun:
            head: list[bytes] = await anext(begun, [])
            draft = await in_thread("write", lambda: Draft.at(target), Draft.discard)
            if first.end < first.total_bytes:
                await self._run_parts(draft, first, _continued(head, begun), sha256)
            else:
                await write_draft(draft, _joined(_continued(head, begun)), is_durable=False, sha256=sha256)

    async def _run_parts(self, draft: Draft, first: Download, begun: _Pieces, sha256: str) -> None:
        parts = [_Part(0, first.end, begun), *self._others(first)]
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_digest(draft, parts))
                group.create_task(each(parts, functools.partial(self._write, draft), _AT_ONCE))
            check_digest(draft.stored().sha256, sha256)
        except BaseException as exc:
            draft.discard()
            if isinstance(exc, ExceptionGroup):
                raise exc.exceptions[0] from None
            raise
        await commit(draft, is_durable=False)

    def _others(self, first: Download) -> Iterator["_Part"]:
        for start in range(first.end, first.total_bytes, _PART_BYTES):
            size_bytes = min(_PART_BYTES, first.total_bytes - start)
            rest = Download(self._connection, self._key, self._name, start, size_bytes, etag=first.etag)
            yield _Part(start, size_bytes, rest.pieces())

    async def _write(self, draft: Draft, part: "_Part") -> None:
        # The first one has begun already, and must not wait for others to end.
        async with self._connection.receiving if part.start else contextlib.nullcontext():
            position = part.start
            async with contextlib.aclosing(part.content) as content:
                async for pieces in content:
                    await in_thread("write", functools.partial(draft.write_at, position, pieces))
                    position += sum(map(len, pieces))
        part.is_written.set()


class _Part:
    """A part of an object on its way to its place in a file."""

    def __init__(self, start: int, size_bytes: int, content: _Pieces) -> None:
        self.start = start
        self.size_bytes = size_bytes
        self.content = content
        self.is_written = asyncio.Event()


async def _digest(draft: Draft, parts: Iterable[_Part]) -> None:
    for part in parts:
        await part.is_written.wait()
        await in_thread("read", functools.partial(draft.digest, part.size_bytes))


async def _continued(head: list[bytes], rest: _Pieces) -> _Pieces:
    yield head
    async for pieces in rest:
        yield pieces


async def _joined(many: _Pieces) -> AsyncGenerator[bytes, None]:
    async for pieces in many:
        yield b"".join(pieces)
