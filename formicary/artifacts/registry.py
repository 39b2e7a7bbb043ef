"""From a URL to an artifact store. Drivers are imported only when their scheme is used."""

import importlib
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from formicary.artifacts.base import ArtifactStore
from formicary.artifacts.local import LocalStore
from formicary.errors import InvalidInputError

#: Top-level packages of the driver behind ``s3://``.
_S3_DRIVER: Final = {"aioboto3", "aiobotocore", "boto3", "botocore"}


def make_store(url: str) -> ArtifactStore:
    """Returns a store for ``file:///folder`` or ``s3://bucket/prefix``, not yet opened.

    Raises:
        InvalidInputError: no store has this scheme, its driver is not installed, or the URL is malformed.
    """
    try:
        parts = urlsplit(url)
    except ValueError as exc:
        raise InvalidInputError(f"artifacts URL is malformed: {exc}") from exc
    if parts.scheme == "s3":
        return _make_s3(url, parts)
    if parts.scheme != "file":
        raise InvalidInputError(f"artifacts URL must be file:///folder or s3://bucket, not {parts.scheme or url}://…")
    if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
        raise InvalidInputError(f"artifacts URL {url} has no absolute path; write file:///folder, with three slashes")
    return LocalStore(Path(unquote(parts.path)))


def _make_s3(url: str, parts: SplitResult) -> ArtifactStore:
    try:
        store: ArtifactStore = importlib.import_module("formicary.artifacts.s3").from_url(url)
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] not in _S3_DRIVER:
            raise
        raise InvalidInputError("artifacts URL s3:// needs a driver: pip install 'formicary[s3]'") from exc
    except ValueError as exc:
        shown = parts.netloc.rpartition("@")[2]
        raise InvalidInputError(f"artifacts URL s3://{shown}: {exc}") from exc
    return store
