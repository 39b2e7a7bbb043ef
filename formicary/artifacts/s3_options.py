"""URLs of S3 stores: ``s3://bucket/prefix?endpoint=…&region=…``."""

import re
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import msgspec

from formicary.artifacts.base import ArtifactError
from formicary.artifacts.keys import check_key

#: A key has at most 900 bytes and S3 takes 1,024.
_PREFIX_LIMIT_BYTES: Final = 100
#: What S3 allows, and what some servers allow beside it.
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
_OPTIONS: Final = ("checksums", "endpoint", "patience_s", "presign_endpoint", "region", "timeout_s")


class S3Options(msgspec.Struct, frozen=True, kw_only=True):
    """Where a store is, and how it is spoken to.

    ``prefix`` is empty or ends with a slash. An ``endpoint`` that is None is Amazon's, or what the AWS configuration
    names. ``presign_endpoint`` is the address that signed URLs name, where others reach the server under another one.
    ``patience_s`` is how long a call goes on trying a store that is away, ``timeout_s`` how long the server may take to
    answer, or to go on with a download.
    """

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    presign_endpoint: str | None = None
    region: str | None = None
    patience_s: float = 60.0
    timeout_s: float = 30.0
    has_checksums: bool = True

    @property
    def place(self) -> str:
        """Returns what people call it."""
        return f"{self.bucket} at {self.endpoint}" if self.endpoint else self.bucket


def parse_options(url: str) -> S3Options:
    """Returns what a URL says.

    Raises:
        ValueError: says what is wrong, and what would be right.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError(
            "credentials do not belong here; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    if not _BUCKET.fullmatch(parts.netloc):
        raise ValueError(f"{parts.netloc!r} is no name of a bucket; write s3://bucket/prefix?endpoint=https://host")
    given = _given(parts)
    return S3Options(
        bucket=parts.netloc,
        prefix=_prefix(unquote(parts.path).strip("/")),
        endpoint=_endpoint(given, "endpoint"),
        presign_endpoint=_endpoint(given, "presign_endpoint"),
        region=given.get("region"),
        patience_s=_seconds("patience_s", given.get("patience_s", "60"), 0.0),
        timeout_s=_seconds("timeout_s", given.get("timeout_s", "30"), 0.1),
        has_checksums=_is_on(given.get("checksums", "on")),
    )


def _given(parts: SplitResult) -> dict[str, str]:
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    for option, value in given.items():
        if option not in _OPTIONS:
            raise ValueError(f"unknown option {option!r}; known are {', '.join(_OPTIONS)}")
        if not value:
            raise ValueError(f"option {option} is empty")
    if parts.fragment:
        raise ValueError("it has a part after '#'; write %23 where a '#' is meant")
    return given


def _prefix(text: str) -> str:
    if not text:
        return ""
    try:
        check_key(text)
    except ArtifactError as exc:
        raise ValueError(f"its prefix is none: {exc}") from exc
    if len(text.encode()) > _PREFIX_LIMIT_BYTES:
        raise ValueError(f"its prefix has more than {_PREFIX_LIMIT_BYTES} bytes")
    return f"{text}/"


def _endpoint(given: dict[str, str], option: str) -> str | None:
    if (text := given.get(option)) is None:
        return None
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query:
        raise ValueError(f"option {option} must be http[s]://host:port, not {text!r}")
    return text.rstrip("/")


def _seconds(option: str, text: str, least: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not least <= value <= 3600:
        raise ValueError(f"option {option} must be a number of seconds from {least:g} to 3600, not {text!r}")
    return value


def _is_on(text: str) -> bool:
    if text not in {"on", "off"}:
        raise ValueError(f"option checksums must be on or off, not {text!r}")
    return text == "on"
