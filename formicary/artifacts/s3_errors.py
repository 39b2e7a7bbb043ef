"""What an S3 server and its driver say, as errors of the artifact stores."""

from typing import Final

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 - the driver's name for its own class
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    SSLError,
)
from botocore.parsers import ResponseParserError

from formicary.artifacts.base import (
    ArtifactError,
    ArtifactMissingError,
    ArtifactStoreAwayError,
    ArtifactStoreUnavailableError,
)

#: All that a request may end with that did not succeed.
DRIVER_ERRORS: Final = (BotoCoreError, ClientError, ResponseParserError, aiohttp.ClientError, TimeoutError, OSError)

#: The connection was lost, or what came over it was no answer.
_CUT: Final = (ConnectionError, HTTPClientError, ResponseParserError, aiohttp.ClientError, OSError)
_NO_LOGIN: Final = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError)

_FULL: Final = {"InsufficientStorage", "NoSpaceLeft", "QuotaExceeded", "StorageFull", "XMinioStorageFull"}
_FORBIDDEN: Final = {"AccessDenied", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"}
_ELSEWHERE: Final = {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"}
#: Refusals that are no judgement on the request: what was sent arrived damaged, or came at a bad moment. A server over
#: a file system may take a folder that is just being made, or removed with its last object, for an object.
_PASSING: Final = {
    "BadDigest",
    "ConditionalRequestConflict",
    "ExistingObjectIsDirectory",
    "IncompleteBody",
    "InvalidDigest",
    "OperationAborted",
    "RequestTimeout",
    "RequestTimeTooSkewed",
    "SlowDown",
    "Throttling",
    "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
}


class UploadLostError(ArtifactError):
    """The server does not know this multipart upload: it was aborted, or is complete already."""


class RangeError(ArtifactError):
    """The object is not the one any more of which a part was read."""


def translated(exc: BaseException, verb: str, place: str) -> ArtifactError:
    """Returns what one of ``DRIVER_ERRORS`` means to whoever waits for the artifact."""
    say = f"cannot {verb} (bucket {place}): "
    if isinstance(exc, ClientError):
        return _answered(exc, say)
    if isinstance(exc, SSLError):
        return ArtifactStoreUnavailableError(f"{say}TLS failed: {exc}")
    if isinstance(exc, _NO_LOGIN):
        hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        return ArtifactStoreUnavailableError(f"{say}no usable credentials ({exc}); {hint}")
    if isinstance(exc, TimeoutError):
        return ArtifactStoreAwayError(f"{say}the server does not answer in time")
    if isinstance(exc, _CUT):
        return ArtifactStoreAwayError(f"{say}the server cannot be reached, or the connection broke: {_short(exc)}")
    return ArtifactStoreUnavailableError(f"{say}{_short(exc)}")


def _answered(exc: ClientError, say: str) -> ArtifactError:
    code = str(exc.response.get("Error", {}).get("Code", ""))
    text = str(exc.response.get("Error", {}).get("Message", "")) or "no reason given"
    status = int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code == "NoSuchUpload":
        return UploadLostError(f"{say}{code}")
    if code in {"PreconditionFailed", "InvalidRange"} or status in {412, 416}:
        return RangeError(f"{say}{code}: {text}")
    if code == "NoSuchBucket":
        return ArtifactStoreUnavailableError(f"{say}there is no such bucket; create it first")
    if status == 404:
        return ArtifactMissingError(f"{say}there is no such artifact")
    if code in _FULL or status == 507:
        return ArtifactStoreUnavailableError(f"{say}the store is full ({code}: {text})")
    if code in _ELSEWHERE or status in {301, 307}:
        return ArtifactStoreUnavailableError(f"{say}the bucket is in another region ({text}); set option region")
    if code in _PASSING or status in {408, 429} or (status >= 500 and status != 501):
        return ArtifactStoreAwayError(f"{say}the server has trouble ({code} {status}: {text})")
    if code in _FORBIDDEN or status in {401, 403}:
        return ArtifactStoreUnavailableError(f"{say}forbidden ({code}: {text}); check credentials and rights")
    return ArtifactStoreUnavailableError(f"{say}refused ({code} {status}: {text})")


def _short(exc: BaseException) -> str:
    return " ".join(str(exc).split())[:300] or type(exc).__name__
