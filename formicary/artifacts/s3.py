"""Artifacts in a bucket of an S3-compatible server: ``s3://bucket/prefix?endpoint=…&region=…``.

Rules:

- A key is the name of an object, below the prefix. Objects are put in one request or as a multipart upload, both of
  which S3 shows only when they are whole.
- Every byte is covered by a checksum on its way in, which the server verifies, and by the sha256 of the whole on its
  way out.
- Nothing rests on rules of the bucket: uploads of dead writers are found by ``sweep``.
- Credentials are those of the AWS environment: variables, files, roles.
"""

import base64
import contextlib
import functools
import math
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from brokers.handshake import tls_fault_of_url
from formicary.artifacts.base import (
    ArtifactCorruptError,
    ArtifactMissingError,
    ArtifactStore,
    ArtifactStoreUnavailableError,
    SignedPut,
    Stored,
)
from formicary.artifacts.files import Digested, check_digest, check_size, in_thread, open_source_and_read
from formicary.artifacts.keys import RESERVED_PREFIX, check_key
from formicary.artifacts.s3_connection import Connection, Place
from formicary.artifacts.s3_download import Download, FileDownload
from formicary.artifacts.s3_errors import DRIVER_ERRORS, UploadLostError, translated
from formicary.artifacts.s3_options import S3Options, parse_options
from formicary.artifacts.s3_upload import SMALL_BYTES, Upload

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client
    from types_aiobotocore_s3.type_defs import (
        CopySourceTypeDef,
        HeadObjectOutputTypeDef,
        ListMultipartUploadsOutputTypeDef,
        ListObjectsV2OutputTypeDef,
    )

#: Signed URLs live for a week at most, in seconds.
_LONGEST_SIGNATURE_S: Final = 7 * 24 * 3600
#: How much longer than another request the server's copying of an object may take, in seconds.
_LONGEST_COPY_S: Final = 300.0
#: Written at every start to prove that it can be; a key of ours never begins so.
_PROBE: Final = f"{RESERVED_PREFIX}probe"


class S3Store(ArtifactStore):
    """Objects of a bucket, which has to exist."""

    def __init__(self, options: S3Options) -> None:
        self._options = options
        self._connection = Connection(options)

    @property
    def checks_uploads(self) -> bool:
        """Whether the server knows checksums, as far as its URL says."""
        return self._options.has_checksums

    async def open(self) -> None:
        """Proves that the bucket is there and can be written to; does not wait for a server that is away."""
        await self._connection.open()
        place = self._connection.place(self._name(_PROBE))
        try:
            await self._connection.call("write", lambda client: client.put_object(**place, Body=b""), patience_s=0)
            await self._connection.call("write", lambda client: client.delete_object(**place), patience_s=0)
        except ArtifactMissingError as exc:
            raise ArtifactStoreUnavailableError(f"there is no bucket {self._options.place}; create it first") from exc
        except ArtifactStoreUnavailableError as exc:
            endpoint = self._options.endpoint
            if endpoint is not None and (fault := await tls_fault_of_url(endpoint)):
                message = f"cannot write (bucket {self._options.place}): option endpoint: {fault}"
                raise type(exc)(message) from exc
            raise

    async def close(self) -> None:
        """Closes the connections."""
        await self._connection.close()

    async def put(self, key: str, source: Path) -> Stored:
        """Stores a regular file, in parts where it is large."""
        name = self._checked_name(key)
        file, content = await in_thread(
            "read", lambda: open_source_and_read(source, SMALL_BYTES), lambda opened: opened[0].close()
        )
        with file:
            return await Upload(self._connection, name, file).run(content)

    async def get(self, key: str, sha256: str | None = None) -> AsyncGenerator[bytes, None]:
        """Yields the content, going on where the connection was cut; the digest is checked at the end."""
        digested = Digested(Download(self._connection, key, self._checked_name(key)).chunks())
        async with contextlib.aclosing(digested.chunks()) as chunks:
            async for chunk in chunks:
                yield chunk
        digested.check(sha256)

    async def get_range(self, key: str, start: int, size_bytes: int) -> AsyncGenerator[bytes, None]:
        """Yields a part of the content, going on where the connection was cut."""
        name = self._checked_name(key)
        if not size_bytes:
            await self._connection.call(f"read artifact {key}", functools.partial(_head, self._connection.place(name)))
            return
        async with contextlib.aclosing(Download(self._connection, key, name, start, size_bytes).chunks()) as chunks:
            async for chunk in chunks:
                yield chunk

    async def fetch(self, key: str, target: Path, sha256: str) -> None:
        """Writes the content to ``target`` in one step; what arrives damaged is fetched a second time."""
        try:
            await self._fetch(key, target, sha256)
        except ArtifactCorruptError:
            await self._fetch(key, target, sha256)

    async def _fetch(self, key: str, target: Path, sha256: str) -> None:
        await FileDownload(self._connection, key, self._checked_name(key)).run(target, sha256)

    async def copy(self, source: str, target: str) -> None:
        """Has the server copy an object of at most 5 GiB."""
        origin: CopySourceTypeDef = {"Bucket": self._options.bucket, "Key": self._checked_name(source)}
        place = self._connection.place(self._checked_name(target))
        await self._connection.call(
            f"copy artifact {source}",
            lambda client: client.copy_object(**place, CopySource=origin),
            longer_s=_LONGEST_COPY_S,
        )

    async def presign(self, key: str, expires_s: float) -> str | None:
        """Returns a URL to GET."""
        return await self._signed("get_object", key, expires_s)

    async def presign_put(self, key: str, expires_s: float, sha256: str | None = None) -> SignedPut | None:
        """Returns where to PUT at most 5 GiB."""
        if sha256 is None or not self._options.has_checksums:
            return SignedPut(await self._signed("put_object", key, expires_s), {})
        checksum = _base64(sha256)
        url = await self._signed("put_object", key, expires_s, ChecksumSHA256=checksum)
        return SignedPut(url, {"x-amz-checksum-sha256": checksum})

    async def verify(self, key: str, stored: Stored) -> None:
        """Asks the server for size and digest, and reads the content where it has no digest."""
        place = self._connection.place(self._checked_name(key))
        found = await self._connection.call(
            f"verify artifact {key}", lambda client: client.head_object(**place, ChecksumMode="ENABLED")
        )
        check_size(key, found["ContentLength"], stored)
        if "ChecksumSHA256" in found:
            check_digest(base64.b64decode(found["ChecksumSHA256"]).hex(), stored.sha256)
            return
        async with contextlib.aclosing(self.get(key, stored.sha256)) as chunks:
            async for _ in chunks:
                pass

    async def delete(self, key: str) -> None:
        """Deletes; S3 does not say whether there was something."""
        place = self._connection.place(self._checked_name(key))
        # Servers over a file system say so where a part of the key is an object, below which nothing can be.
        with contextlib.suppress(ArtifactMissingError):
            await self._connection.call(f"delete artifact {key}", lambda client: client.delete_object(**place))

    async def list(self, prefix: str) -> AsyncIterator[str]:
        """Yields the keys that begin with ``prefix``, in the order of their bytes, which is the server's."""
        verb, start = f"list artifacts {prefix}", len(self._options.prefix)
        more: dict[str, Any] = {"Bucket": self._options.bucket, "Prefix": self._name(prefix)}
        while True:
            page = await self._connection.call(verb, functools.partial(_objects, more))
            for item in page.get("Contents", ()):
                key = item["Key"][start:]
                if not key.startswith(RESERVED_PREFIX):
                    yield key
            if not page.get("IsTruncated"):
                return
            more["ContinuationToken"] = page["NextContinuationToken"]

    async def sweep(self, older_than_s: float) -> int:
        """Aborts the multipart uploads below the prefix that were begun longer ago."""
        before = datetime.now(UTC) - timedelta(seconds=older_than_s)
        count = 0
        async for name, upload_id, begun_at in self._uploads():
            if begun_at < before:
                count += await self._abort(name, upload_id)
        return count

    async def _uploads(self) -> AsyncIterator[tuple[str, str, datetime]]:
        more: dict[str, Any] = {"Bucket": self._options.bucket, "Prefix": self._options.prefix, "EncodingType": "url"}
        while True:
            page = await self._connection.call("list uploads", functools.partial(_multipart_uploads, more))
            is_encoded = page.get("EncodingType") == "url"
            for upload in page.get("Uploads", ()):
                name = unquote(upload["Key"]) if is_encoded else upload["Key"]
                yield name, upload["UploadId"], upload["Initiated"]
            if not page.get("IsTruncated"):
                return
            key = page["NextKeyMarker"]
            more["KeyMarker"] = unquote(key) if is_encoded else key
            more["UploadIdMarker"] = page["NextUploadIdMarker"]

    async def _abort(self, name: str, upload_id: str) -> bool:
        """Says whether there was such an upload, and it is gone now."""
        place = self._connection.place(name)
        try:
            await self._connection.call(
                f"abort the upload of {name}", lambda client: client.abort_multipart_upload(**place, UploadId=upload_id)
            )
        except UploadLostError:
            return False
        return True

    async def _signed(self, method: str, key: str, expires_s: float, **more: str) -> str:
        place = {**self._connection.place(self._checked_name(key)), **more}
        life_s = math.ceil(min(max(expires_s, 1.0), _LONGEST_SIGNATURE_S))
        try:
            signer = self._connection.signer
            url: str = await signer.generate_presigned_url(method, Params=place, ExpiresIn=life_s)
        except DRIVER_ERRORS as exc:
            raise translated(exc, f"sign a URL of artifact {key}", self._options.place) from exc
        return url

    def _checked_name(self, key: str) -> str:
        check_key(key)
        return self._name(key)

    def _name(self, key: str) -> str:
        return f"{self._options.prefix}{key}"


def _base64(sha256: str) -> str:
    return base64.b64encode(bytes.fromhex(sha256)).decode()


async def _head(place: Place, client: "S3Client") -> "HeadObjectOutputTypeDef":
    return await client.head_object(**place)


async def _objects(query: dict[str, Any], client: "S3Client") -> "ListObjectsV2OutputTypeDef":
    return await client.list_objects_v2(**query)


async def _multipart_uploads(query: dict[str, Any], client: "S3Client") -> "ListMultipartUploadsOutputTypeDef":
    return await client.list_multipart_uploads(**query)


def from_url(url: str) -> S3Store:
    """Returns a store for ``s3://``, not yet opened; raises ``ValueError`` where the URL is wrong."""
    return S3Store(parse_options(url))
