"""Uploads to S3: in one request, or in parts that are whole together or not there.

Rules:

- A file is read twice: for its digest and checksums, which go before the content, and for sending. Only what is on
  the network at the moment is in memory. Small files are read once.
- A multipart upload is aborted when it fails or is cancelled. One whose writer died is left for ``sweep``.
- An upload that the server lost, or completed without our hearing of it, is made once more from the beginning: the
  key shows the whole of it in either case.
"""

import asyncio
import base64
import contextlib
import hashlib
import math
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from formicary.artifacts.base import ArtifactError, Stored
from formicary.artifacts.s3_body import FilePart
from formicary.artifacts.s3_connection import Connection
from formicary.artifacts.s3_errors import UploadLostError

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client
    from types_aiobotocore_s3.type_defs import CompletedPartTypeDef

MEBIBYTE: Final = 1024 * 1024
#: Smaller files are read once, and sent from memory.
SMALL_BYTES: Final = 64 * 1024
#: Larger files go in parts.
WHOLE_LIMIT_BYTES: Final = 16 * MEBIBYTE
_PART_BYTES: Final = 8 * MEBIBYTE
_PARTS_LIMIT: Final = 10_000
#: Parts of one upload that are under way at once.
_AT_ONCE: Final = 4
#: Servers may put the parts together only at the end: the time for that, in bytes a second.
_SLOWEST_JOIN: Final = 4 * MEBIBYTE
_LOST_LIMIT: Final = 3
#: Who failed or was cancelled does not wait longer for the server, in seconds.
_ABORT_S: Final = 5.0


class Upload:
    """One file on its way to one key."""

    def __init__(self, connection: Connection, name: str, file: BinaryIO) -> None:
        self._connection = connection
        self._place = connection.place(name)
        self._file = file
        self._size_bytes = os.fstat(file.fileno()).st_size
        self._verb = f"store artifact {name}"

    async def run(self, content: bytes | None) -> Stored:
        """Stores as many bytes as the file had at the beginning, and returns their digest.

        Args:
            content: all of it, where it is small and was read already.
        """
        if content is not None:
            return await self._put_small(content)
        if self._size_bytes <= WHOLE_LIMIT_BYTES:
            return await self._put_whole()
        for _ in range(_LOST_LIMIT - 1):
            with contextlib.suppress(UploadLostError):
                return await self._put_parts()
        return await self._put_parts()

    async def _put_small(self, content: bytes) -> Stored:
        digest = hashlib.sha256(content)
        checksum = self._sha256(digest)
        await self._connection.send(
            self._verb, lambda client: client.put_object(**self._place, **checksum, Body=content)
        )
        return Stored(digest.hexdigest(), len(content))

    async def _put_whole(self) -> Stored:
        digest = hashlib.sha256()
        part = await FilePart(self._file, 0, self._size_bytes).digested(digest)

        async def put(client: "S3Client") -> None:
            part.check()
            await client.put_object(**self._place, **self._sha256(digest), Body=part)

        await self._connection.send(self._verb, put, lambda: part.taken_count)
        return Stored(digest.hexdigest(), self._size_bytes)

    def _sha256(self, digest: "hashlib._Hash") -> dict[str, Any]:
        return {"ChecksumSHA256": _base64(digest.digest())} if self._has_checksums else {}

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
                for number, (start, size_bytes) in enumerate(_parts(self._size_bytes), start=1):
                    await at_once.acquire()
                    part = await FilePart(self._file, start, size_bytes).digested(digest)
                    tasks.append(group.create_task(self._send_part(upload_id, number, part)))
                    tasks[-1].add_done_callback(lambda _: at_once.release())
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        return [task.result() for task in tasks]

    async def _send_part(self, upload_id: str, number: int, part: FilePart) -> "CompletedPartTypeDef":
        crc32 = _base64(part.crc32.to_bytes(4, "big"))
        checksum: dict[str, Any] = {"ChecksumCRC32": crc32} if self._has_checksums else {}

        async def send(client: "S3Client") -> "CompletedPartTypeDef":
            part.check()
            answer = await client.upload_part(
                **self._place, **checksum, UploadId=upload_id, PartNumber=number, Body=part
            )
            return {"PartNumber": number, "ETag": answer["ETag"]}

        sent = await self._connection.send(self._verb, send, lambda: part.taken_count)
        if checksum:
            sent["ChecksumCRC32"] = crc32
        return sent

    async def _complete(self, upload_id: str, parts: "list[CompletedPartTypeDef]") -> None:
        await self._connection.call(
            self._verb,
            lambda client: client.complete_multipart_upload(
                **self._place, UploadId=upload_id, MultipartUpload={"Parts": parts}
            ),
            longer_s=self._size_bytes / _SLOWEST_JOIN,
        )

    async def _abort(self, upload_id: str) -> None:
        # What cannot be aborted now is found by a sweep; an upload that is not there needs none.
        with contextlib.suppress(ArtifactError, TimeoutError):
            async with asyncio.timeout(min(_ABORT_S, self._connection.options.timeout_s)):
                await self._connection.call(
                    "abort an upload",
                    lambda client: client.abort_multipart_upload(**self._place, UploadId=upload_id),
                )

    @property
    def _has_checksums(self) -> bool:
        return self._connection.options.has_checksums


def _parts(size_bytes: int) -> Iterator[tuple[int, int]]:
    """Yields beginnings and sizes of as few parts as may be; all but the last are equal, as some servers ask."""
    least_mebibytes = math.ceil(size_bytes / _PARTS_LIMIT / MEBIBYTE)
    part_bytes = max(_PART_BYTES, least_mebibytes * MEBIBYTE)
    for start in range(0, size_bytes, part_bytes):
        yield start, min(part_bytes, size_bytes - start)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
