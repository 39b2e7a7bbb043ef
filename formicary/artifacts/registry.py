"""From a URL to an artifact store."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from formicary.artifacts.base import ArtifactStore
from formicary.artifacts.local import LocalStore
from formicary.errors import InvalidInputError


def make_store(url: str) -> ArtifactStore:
    """Returns a store for ``file:///folder``, not yet opened.

    Raises:
        InvalidInputError: no store has this scheme, or the URL is malformed.
    """
    try:
        parts = urlsplit(url)
    except ValueError as exc:
        raise InvalidInputError(f"artifacts URL is malformed: {exc}") from exc
    if parts.scheme == "s3":
        raise InvalidInputError("artifacts URL s3://…: object stores are not supported yet; use file:///folder")
    if parts.scheme != "file":
        raise InvalidInputError(f"artifacts URL must be file:///folder, not {parts.scheme or url}://…")
    if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
        raise InvalidInputError(f"artifacts URL {url} has no absolute path; write file:///folder, with three slashes")
    return LocalStore(Path(unquote(parts.path)))
