"""Content on its way up: read from its file as the server takes it, so that no size costs memory."""

import functools
import hashlib
import os
import zlib
from collections.abc import AsyncIterator
from typing import Any, BinaryIO, Final

from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Order, Payload, payload_type

from formicary.artifacts.base import ArtifactStoreUnavailableError
from formicary.artifacts.files import CHUNK_BYTES, in_thread

#: What is read ahead of the network, per request.
_STEP_BYTES: Final = 256 * 1024


class FilePart:
    """A part of a file that is sent, if need be several times, and has to stay what it was when it was ``digested``.

    The last bytes are not sent where it did not stay so: no server then takes the rest for the whole.
    """

    def __init__(self, file: BinaryIO, start: int, size_bytes: int) -> None:
        self._file = file
        self._start = start
        self._size_bytes = size_bytes
        self._position = 0
        self.crc32 = 0
        self.taken_count = 0
        self.is_changed = False

    async def digested(self, digest: "hashlib._Hash") -> "FilePart":
        """Passes the content through a digest, notes its checksum, and returns the part."""
        await in_thread("read", lambda: self._digest(digest))
        return self

    def _digest(self, digest: "hashlib._Hash") -> None:
        for offset in range(0, self._size_bytes, CHUNK_BYTES):
            data = self._read_at(offset, CHUNK_BYTES)
            digest.update(data)
            self.crc32 = zlib.crc32(data, self.crc32)

    def check(self) -> None:
        """Raises ``ArtifactStoreUnavailableError`` if the file was found changed."""
        if self.is_changed:
            raise ArtifactStoreUnavailableError(f"{self._file.name} changed while it was stored")

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yields the content, from the beginning."""
        crc32 = 0
        for offset in range(0, self._size_bytes, _STEP_BYTES):
            data = await in_thread("read", functools.partial(self._read_at, offset, _STEP_BYTES))
            crc32 = zlib.crc32(data, crc32)
            if offset + len(data) == self._size_bytes and crc32 != self.crc32:
                self.is_changed = True
            self.check()
            self.taken_count += 1
            yield data

    def _read_at(self, offset: int, size_bytes: int) -> bytes:
        wanted = min(size_bytes, self._size_bytes - offset)
        data = os.pread(self._file.fileno(), wanted, self._start + offset)
        if len(data) < wanted:
            self.is_changed = True
            self.check()
        return data

    # What the driver asks of a file.

    def __len__(self) -> int:
        return self._size_bytes

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves to a place; only ``read`` minds it."""
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: len(self)}[whence]
        return self._position

    def tell(self) -> int:
        """Returns the place."""
        return self._position

    def read(self, size_bytes: int = -1) -> bytes:
        """Returns what comes next."""
        rest = len(self) - self._position
        data = self._read_at(self._position, rest if size_bytes < 0 else min(rest, size_bytes))
        self._position += len(data)
        return data


@payload_type(FilePart, order=Order.try_first)
class _FilePartPayload(Payload):
    """How aiohttp sends a ``FilePart``; what it does with other files copies them, or takes a thread per 64 KiB."""

    _value: FilePart

    def __init__(self, value: FilePart, *args: Any, **kwargs: Any) -> None:
        super().__init__(value, *args, **kwargs)
        self._size = len(value)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        self._value.seek(0)
        return self._value.read().decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        async for data in self._value.chunks():
            await writer.write(data)
