"""Downloads from S3: a stream that goes on where it was cut."""

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from formicary.artifacts.base import ArtifactCorruptError, ArtifactStoreAwayError
from formicary.artifacts.files import CHUNK_BYTES, too_short
from formicary.artifacts.s3_connection import Connection
from formicary.artifacts.s3_errors import DRIVER_ERRORS, RangeError, translated

if TYPE_CHECKING:
    from aiobotocore.response import StreamingBody


class Download:
    """The content of one key, or ``size_bytes`` of it: of the object that was there at the beginning."""

    def __init__(
        self, connection: Connection, key: str, name: str, start: int = 0, size_bytes: int | None = None
    ) -> None:
        self._connection = connection
        self._key = key
        self._place = connection.place(name)
        self._verb = f"read artifact {key}"
        self._position = start
        self._end = None if size_bytes is None else start + size_bytes
        self._etag = ""

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yields the content in chunks of at most 1 MiB; patience begins anew with every byte."""
        pauses = self._connection.pauses()
        while True:
            begun_at = self._position
            body, end = await self._begin()
            try:
                while self._position < end:
                    chunk = await self._read(body, end)
                    self._position += len(chunk)
                    yield chunk
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
            if self._end is not None and not self._etag:
                raise too_short(self._key, self._end) from exc
            raise ArtifactCorruptError(f"{self._key} was replaced while it was read") from exc
        self._etag = answer["ETag"]
        end = self._position + answer["ContentLength"]
        if self._end is not None and end < self._end:
            answer["Body"].close()
            raise too_short(self._key, self._end)
        return answer["Body"], end

    def _wanted(self) -> dict[str, Any]:
        wanted: dict[str, Any] = {"IfMatch": self._etag} if self._etag else {}
        if self._position or self._end is not None:
            wanted["Range"] = f"bytes={self._position}-{'' if self._end is None else self._end - 1}"
        return wanted

    async def _read(self, body: "StreamingBody", end: int) -> bytes:
        """Returns what comes next: a whole chunk of it, or less at the end or where the connection is cut."""
        came: list[bytes] = []
        wanted_bytes = min(CHUNK_BYTES, end - self._position)
        try:
            async with asyncio.timeout(self._connection.options.timeout_s):
                while wanted_bytes and (piece := await body.read(wanted_bytes)):
                    came.append(piece)
                    wanted_bytes -= len(piece)
        except DRIVER_ERRORS as exc:
            if not came:
                raise translated(exc, self._verb, self._connection.options.place) from exc
        if not came:
            raise ArtifactStoreAwayError(f"cannot {self._verb}: the connection ended before the content")
        return b"".join(came)
