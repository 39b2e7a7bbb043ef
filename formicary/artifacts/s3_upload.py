"""Uploads to S3: in one request, or in parts that are whole together or not there.

Rules:

- What is sent is in memory while it is sent, within the store's budget, so that it can be sent again.
- A multipart upload is aborted when it fails or is cancelled. One whose writer died is left for ``sweep``.
- An upload that the server lost, or completed without our hearing of it, is made once more from the beginning: the
  key shows the whole of it in either case.
"""

import asyncio
import base64
import contextlib
import functools
import hashlib
import io
import math
import os
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple

from formicary.artifacts.base import ArtifactError, ArtifactStoreUnavailableError, Stored
from formicary.artifacts.files import in_thread
from formicary.artifacts.s3_connection import ANSWER_S, Connection
from formicary.artifacts.s3_errors import UploadLostError

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client
    from types_aiobotocore_s3.type_defs import CompletedPartTypeDef, UploadPartOutputTypeDef

MEBIBYTE: Final = 1024 * 1024
#: Larger files go in parts.
WHOLE_LIMIT_BYTES: Final = 16 * MEBIBYTE
_PART_BYTES: Final = 8 * MEBIBYTE
_PARTS_LIMIT: Final = 10_000
#: Parts of one upload that are under way at once.
_AT_ONCE: Final = 4
#: The slowest link that is not taken for a dead one, in bytes a second.
_SLOWEST: Final = 64 * 1024
#: Servers may put the parts together only at the end: the time for that, in bytes a second.
_SLOWEST_JOIN: Final = 4 * MEBIBYTE
_LOST_LIMIT: Final = 3
_ABORT_PATIENCE_S: Final = 5.0


class _Part(NamedTuple):
    number: int
    data: bytes
    crc32: str
    #: What it takes of the budget.
    share: int


class Upload:
    """One file on its way to one key."""

    def __init__(self, connection: Connection, name: str, file: BinaryIO) -> None:
        self._connection = connection
        self._place = connection.place(name)
        self._file = file
        self._size_bytes = os.fstat(file.fileno()).st_size
        self._verb = f"store artifact {name}"

    async def run(self) -> Stored:
        """Stores as many bytes as the file had at the beginning, and returns their digest."""
        if self._size_bytes <= WHOLE_LIMIT_BYTES:
            return await self._put_whole()
        for _ in range(_LOST_LIMIT - 1):
            with contextlib.suppress(UploadLostError):
                return await self._put_parts()
            await in_thread("read", lambda: self._file.seek(0))
        return await self._put_parts()

    async def _put_whole(self) -> Stored:
        share = await self._connection.budget.take(self._size_bytes)
        try:
            data, digest = await in_thread("read", self._read_whole)
            extra: dict[str, Any] = {"ChecksumSHA256": _base64(digest)} if self._has_checksums else {}
            await self._connection.call(
                self._verb,
                lambda client: client.put_object(**self._place, **extra, Body=io.BytesIO(data)),
                limit_s=ANSWER_S + self._size_bytes / _SLOWEST,
            )
        finally:
            self._connection.budget.give_back(share)
        return Stored(digest.hex(), self._size_bytes)

    async def _put_parts(self) -> Stored:
        algorithm: dict[str, Any] = {"ChecksumAlgorithm": "CRC32"} if self._has_checksums else {}
        begun = await self._connection.call(
            self._verb, lambda client: client.create_multipart_upload(**self._place, **algorithm)
        )
        upload_id = begun["UploadId"]
        try:
            digest = hashlib.sha256()
            parts = await self._send_parts(upload_id, digest)
            await self._complete(upload_id, parts)
        except BaseException:
            await asyncio.shield(self._abort(upload_id))
            raise
        return Stored(digest.hexdigest(), self._size_bytes)

    async def _send_parts(self, upload_id: str, digest: "hashlib._Hash") -> "list[CompletedPartTypeDef]":
        at_once = asyncio.Semaphore(_AT_ONCE)
        tasks: list[asyncio.Task[CompletedPartTypeDef]] = []
        try:
            async with asyncio.TaskGroup() as group:
                for number, size_bytes in enumerate(_part_sizes(self._size_bytes), start=1):
                    await at_once.acquire()
                    part = await self._next_part(number, size_bytes, digest)
                    task = group.create_task(self._send_part(upload_id, part))
                    # A task that is cancelled before its first step runs nothing, but its callbacks.
                    task.add_done_callback(functools.partial(self._sent, part.share, at_once))
                    tasks.append(task)
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        return [task.result() for task in tasks]

    def _sent(self, share: int, at_once: asyncio.Semaphore, _: object) -> None:
        self._connection.budget.give_back(share)
        at_once.release()

    async def _next_part(self, number: int, size_bytes: int, digest: "hashlib._Hash") -> _Part:
        share = await self._connection.budget.take(size_bytes)
        try:
            data, crc32 = await in_thread("read", lambda: self._read_part(size_bytes, digest))
        except BaseException:
            self._connection.budget.give_back(share)
            raise
        return _Part(number, data, crc32, share)

    async def _send_part(self, upload_id: str, part: _Part) -> "CompletedPartTypeDef":
        checksum: dict[str, Any] = {"ChecksumCRC32": part.crc32} if self._has_checksums else {}

        async def send(client: "S3Client") -> "UploadPartOutputTypeDef":
            body = io.BytesIO(part.data)
            return await client.upload_part(
                **self._place, **checksum, UploadId=upload_id, PartNumber=part.number, Body=body
            )

        answer = await self._connection.call(self._verb, send, limit_s=ANSWER_S + len(part.data) / _SLOWEST)
        done: CompletedPartTypeDef = {"PartNumber": part.number, "ETag": answer["ETag"]}
        if checksum:
            done["ChecksumCRC32"] = part.crc32
        return done

    async def _complete(self, upload_id: str, parts: "list[CompletedPartTypeDef]") -> None:
        await self._connection.call(
            self._verb,
            lambda client: client.complete_multipart_upload(
                **self._place, UploadId=upload_id, MultipartUpload={"Parts": parts}
            ),
            limit_s=ANSWER_S + self._size_bytes / _SLOWEST_JOIN,
        )

    async def _abort(self, upload_id: str) -> None:
        # What cannot be aborted now is found by a sweep; an upload that is not there needs none.
        with contextlib.suppress(ArtifactError):
            await self._connection.call(
                "abort an upload",
                lambda client: client.abort_multipart_upload(**self._place, UploadId=upload_id),
                patience_s=_ABORT_PATIENCE_S,
            )

    def _read_whole(self) -> tuple[bytes, bytes]:
        data = self._read(self._size_bytes)
        return data, hashlib.sha256(data).digest()

    def _read_part(self, size_bytes: int, digest: "hashlib._Hash") -> tuple[bytes, str]:
        data = self._read(size_bytes)
        digest.update(data)
        return data, _base64(zlib.crc32(data).to_bytes(4, "big"))

    def _read(self, size_bytes: int) -> bytes:
        data = self._file.read(size_bytes)
        while len(data) < size_bytes:
            more = self._file.read(size_bytes - len(data))
            if not more:
                raise ArtifactStoreUnavailableError(f"cannot {self._verb}: the file became shorter meanwhile")
            data += more
        return data

    @property
    def _has_checksums(self) -> bool:
        return self._connection.options.has_checksums


def _part_sizes(size_bytes: int) -> Iterator[int]:
    """Yields the sizes of as few parts as may be; all but the last are equal, as some servers ask."""
    least = math.ceil(size_bytes / _PARTS_LIMIT)
    part_bytes = max(_PART_BYTES, math.ceil(least / MEBIBYTE) * MEBIBYTE)
    for start in range(0, size_bytes, part_bytes):
        yield min(part_bytes, size_bytes - start)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
