"""The process's settings: environment variables, over which flags win."""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import msgspec

from executors.quantities import parse_size
from formicary.errors import InvalidInputError

#: What stands for a secret wherever settings are printed.
HIDDEN = "***"

_LOG_LEVELS = ("debug", "info", "warning", "error")
_LOG_FORMATS = ("console", "json")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is chosen outside the code; see ``interfaces.md`` for the variables.

    ``database_url`` None means the embedded Postgres under ``home``; ``log_format`` None chooses by the terminal.
    """

    home: Path
    database_url: str | None = None
    broker_url: str = "memory://"
    artifacts_url: str
    listen: str = "127.0.0.1:7777"
    server: str = "http://127.0.0.1:7777"
    token: str | None = None
    lease_s: float = 10.0
    ant_lease_s: float = 60.0
    cache_limit: str = "5GB"
    cache_total_limit: str = "50GB"
    logs_archive_after_s: float = 60.0
    artifacts_expire_after_s: float | None = None
    artifacts_sweep_s: float = 3600.0
    jobs_retention_s: float | None = None
    shell_user: str | None = None
    shell_limits: str | None = None
    shell_umask: str | None = None
    workers_listen: str | None = None
    workers_token: str | None = None
    workers_origins: tuple[str, ...] = ()
    docker_privileged: bool = False
    docker_host_paths: tuple[str, ...] = ()
    docker_volumes: tuple[str, ...] = ()
    docker_networks: tuple[str, ...] = ()
    kubernetes_namespace: str = ""
    kubernetes_resources: str = ""
    kubernetes_allow_privileged: bool = False
    kubernetes_direct_from: str = "16MiB"
    log_level: str = "info"
    log_format: str | None = None

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.public().items())
        return f"Settings({fields})"

    def public(self) -> dict[str, str | float | None]:
        """Returns the settings by variable name, with passwords and tokens hidden."""
        return {variable.name: _shown(variable, getattr(self, variable.field)) for variable in VARIABLES}


class Variable(NamedTuple):
    """A setting; ``read`` raises ``ValueError`` saying what would be right."""

    name: str
    field: str
    read: Callable[[str], Any]
    meaning: str


def load(environ: Mapping[str, str] | None = None, **flags: object) -> Settings:
    """Returns the effective settings.

    Args:
        environ: the environment; None is the process's own.
        flags: values by field name; None means that the flag was not given.

    Raises:
        InvalidInputError: naming every variable that is wrong, and what would be right.
    """
    values, mistakes = _collect(os.environ if environ is None else environ, flags)
    if mistakes:
        raise InvalidInputError("; ".join(mistakes))
    _check_workers(values)
    home = values.setdefault("home", _default_home(os.environ if environ is None else environ))
    values.setdefault("artifacts_url", (home / "artifacts").as_uri())
    return Settings(**values)


def _check_workers(values: Mapping[str, Any]) -> None:
    listen = values.get("workers_listen")
    if listen is None or values.get("workers_token") is not None:
        return
    host, _ = split_listen(listen)
    if host != "localhost" and not host.startswith("127.") and host != "::1":
        raise InvalidInputError(
            f"FORMICARY_WORKERS_LISTEN: {listen} can be reached from elsewhere; set FORMICARY_WORKERS_TOKEN too, or"
            " listen on 127.0.0.1"
        )


def _collect(environ: Mapping[str, str], flags: Mapping[str, object]) -> tuple[dict[str, Any], list[str]]:
    values: dict[str, Any] = {}
    mistakes: list[str] = []
    for variable in VARIABLES:
        flag = flags.get(variable.field)
        text = environ.get(variable.name, "") if flag is None else str(flag)
        if not text:
            continue
        try:
            values[variable.field] = variable.read(text)
        except ValueError as error:
            mistakes.append(f"{variable.name}: {error}")
    return values, mistakes


def _default_home(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_DATA_HOME") or ""
    root = Path(base) if Path(base).is_absolute() else Path.home() / ".local" / "share"
    return root / "formicary"


def split_listen(text: str) -> tuple[str, int]:
    """Returns host and port of an address like ``127.0.0.1:7777`` or ``[::1]:7777``.

    Raises:
        ValueError: it is none.
    """
    host, separator, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not separator or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:7777")
    return host, int(port)


def _folder(text: str) -> Path:
    if "\0" in text:
        raise ValueError("a path holds no NUL")
    return Path(text).expanduser().absolute()


def _listen(text: str) -> str:
    split_listen(text)
    return text


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(filter(None, (word.strip() for word in text.split(","))))
    for origin in origins:
        parts = urlsplit(origin)
        if origin != "null" and (parts.scheme not in {"http", "https"} or origin != f"{parts.scheme}://{parts.netloc}"):
            raise ValueError(f"{origin!r} is no origin, such as https://pages.example.org or http://localhost:8000")
    return origins


def _flag(text: str) -> bool:
    words = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in words:
        raise ValueError(f"{text!r} is neither true nor false")
    return words[text.lower()]


def _paths(text: str) -> tuple[str, ...]:
    paths = tuple(filter(None, text.split(":")))
    for path in paths:
        if not Path(path).is_absolute() or ".." in Path(path).parts:
            raise ValueError(f"{path!r} is no absolute path, such as /srv/data:/var/cache/builds")
    return paths


def _names(text: str) -> tuple[str, ...]:
    names = tuple(filter(None, (word.strip() for word in text.split(","))))
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_.*-]+", name):
            raise ValueError(f"{name!r} is no name, of letters, digits and _.-, such as cache,data-*")
    return names


def _url(*schemes: str, example: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        scheme = text.partition("://")[0] if "://" in text else ""
        if scheme not in schemes:
            raise ValueError(f"{hide_secrets(text)!r} is not a URL of {', '.join(schemes)}, such as {example}")
        return text

    return read


def _server(text: str) -> str:
    example = "http://127.0.0.1:7777"
    checked = _url("http", "https", example=example)(text)
    try:
        is_whole = bool(urlsplit(checked).hostname) and urlsplit(checked).port != 0
    except ValueError:  # a port that is none
        is_whole = False
    if not is_whole:
        raise ValueError(f"{hide_secrets(text)!r} names no host, or a port that is none; write it like {example}")
    return checked


def _token(text: str) -> str:
    if not text.isascii() or not text.isprintable():
        raise ValueError("it has characters that no token has, such as the end of a line")
    return text


def _seconds(least: float, most: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not least <= value <= most:
            raise ValueError(f"{text!r} is not a number of seconds from {least:,.12g} to {most:,.12g}")
        return value

    return read


def _size_or_off(text: str) -> str:
    if text != "off" and not parse_size(text):
        raise ValueError('must be a size such as 16MiB, or "off"')
    return text


def _size(text: str) -> str:
    parse_size(text)
    return text


def _umask(text: str) -> str:
    if not re.fullmatch(r"(0o?)?[0-7]{1,3}", text):
        raise ValueError(f"{text!r} is not a mask of three octal digits, such as 077")
    return text


def _one_of(words: tuple[str, ...]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"{text!r} is none of {', '.join(words)}")
        return text.lower()

    return read


def hide_secrets(url: str) -> str:
    """Returns a URL without its password and without the values of secret query parameters."""
    try:
        parts = urlsplit(url)
        password = parts.password
    except ValueError:
        return HIDDEN
    netloc, query = parts.netloc, parts.query
    if password is None and not query:
        return url
    if password is not None:
        userinfo, _, host = netloc.rpartition("@")
        netloc = f"{userinfo.partition(':')[0]}:{HIDDEN}@{host}"
    if query:
        query = "&".join(_hide_pair(pair) for pair in query.split("&"))
    return urlunsplit(parts._replace(netloc=netloc, query=query))


def _hide_pair(pair: str) -> str:
    key, separator, _ = pair.partition("=")
    is_secret = any(word in key.lower() for word in ("password", "secret", "token", "key"))
    return f"{key}={HIDDEN}" if separator and is_secret else pair


def _shown(variable: Variable, value: object) -> str | float | None:
    if value is None or isinstance(value, float):
        return value
    if variable.field in {"token", "workers_token"}:
        return HIDDEN
    if isinstance(value, tuple):
        return (":" if variable.read is _paths else ",").join(value)
    if isinstance(value, bool):
        return str(value).lower()
    return hide_secrets(str(value)) if "://" in str(value) else str(value)


_BROKERS = ("memory", "redis", "rediss", "kafka", "kafkas", "pulsar", "pulsar+ssl")

VARIABLES = (
    Variable("FORMICARY_HOME", "home", _folder, "folder of the embedded parts"),
    Variable(
        "FORMICARY_DATABASE_URL",
        "database_url",
        _url("postgres", "postgresql", example="postgresql://user@host/name"),
        "Postgres; unset: embedded, under the home folder",
    ),
    Variable("FORMICARY_BROKER_URL", "broker_url", _url(*_BROKERS, example="redis://host:6379/0"), "message broker"),
    Variable(
        "FORMICARY_ARTIFACTS_URL",
        "artifacts_url",
        _url("file", "s3", example="file:///var/lib/formicary"),
        "store of artifacts; unset: a folder under the home folder",
    ),
    Variable(
        "FORMICARY_ARTIFACTS_EXPIRE_AFTER_S",
        "artifacts_expire_after_s",
        _seconds(1, 1e10),
        "how long artifacts are kept of whose task does not say, in seconds; unset: as long as their job",
    ),
    Variable(
        "FORMICARY_ARTIFACTS_SWEEP_S",
        "artifacts_sweep_s",
        _seconds(1, 1e7),
        "between two looks for stored contents that nothing refers to, in seconds",
    ),
    Variable(
        "FORMICARY_JOBS_RETENTION_S",
        "jobs_retention_s",
        _seconds(1, 1e9),
        "how long jobs are kept that have ended, in seconds; unset: for ever",
    ),
    Variable("FORMICARY_LISTEN", "listen", _listen, "address of the HTTP API"),
    Variable(
        "FORMICARY_SERVER",
        "server",
        _server,
        "what the client commands talk to",
    ),
    Variable("FORMICARY_TOKEN", "token", _token, "token of the client commands"),
    Variable("FORMICARY_LEASE_S", "lease_s", _seconds(0.5, 3600), "life of a queen's leases, in seconds"),
    Variable("FORMICARY_ANT_LEASE_S", "ant_lease_s", _seconds(1, 86400), "life of an ant's lease, in seconds"),
    Variable("FORMICARY_CACHE_LIMIT", "cache_limit", _size, "what the caches of one job type may take, such as 5GB"),
    Variable("FORMICARY_CACHE_TOTAL_LIMIT", "cache_total_limit", _size, "what all caches may take, such as 50GB"),
    Variable(
        "FORMICARY_LOGS_ARCHIVE_AFTER_S",
        "logs_archive_after_s",
        _seconds(0, 1e10),
        "how long after a job's end its output moves to the artifact store, in seconds",
    ),
    Variable("FORMICARY_SHELL_USER", "shell_user", str, "user or user:group that runs scripts; unset: the ant's own"),
    Variable(
        "FORMICARY_SHELL_LIMITS",
        "shell_limits",
        str,
        "what a script may use at most, such as cpu_time=1h,memory=2Gi,open_files=4096,processes=512",
    ),
    Variable("FORMICARY_SHELL_UMASK", "shell_umask", _umask, "mode bits that files of scripts lack, such as 077"),
    Variable("FORMICARY_WORKERS_LISTEN", "workers_listen", _listen, "address where remote workers connect to an ant"),
    Variable("FORMICARY_WORKERS_TOKEN", "workers_token", str, "token that remote workers must know"),
    Variable(
        "FORMICARY_WORKERS_ORIGINS", "workers_origins", _origins, "origins of web pages that may be remote workers"
    ),
    Variable(
        "FORMICARY_DOCKER_PRIVILEGED", "docker_privileged", _flag, "whether containers may have all rights and devices"
    ),
    Variable("FORMICARY_DOCKER_HOST_PATHS", "docker_host_paths", _paths, "folders that containers may mount, a:b"),
    Variable("FORMICARY_DOCKER_VOLUMES", "docker_volumes", _names, "the engine's volumes that they may mount, a,b-*"),
    Variable("FORMICARY_DOCKER_NETWORKS", "docker_networks", _names, "the engine's networks that they may join, a,b"),
    Variable("FORMICARY_KUBERNETES_NAMESPACE", "kubernetes_namespace", str, "where pods of tasks are made"),
    Variable(
        "FORMICARY_KUBERNETES_RESOURCES",
        "kubernetes_resources",
        str,
        "bounds of a pod's container, such as cpu_min=100m,cpu_max=4,memory_min=64Mi,memory_max=8Gi",
    ),
    Variable(
        "FORMICARY_KUBERNETES_ALLOW_PRIVILEGED",
        "kubernetes_allow_privileged",
        _flag,
        "whether pods may have rights on their node",
    ),
    Variable(
        "FORMICARY_KUBERNETES_DIRECT_FROM",
        "kubernetes_direct_from",
        _size_or_off,
        "size from which files go straight between pods and the artifact store, or off",
    ),
    Variable("FORMICARY_LOG_LEVEL", "log_level", _one_of(_LOG_LEVELS), "least level that is logged"),
    Variable("FORMICARY_LOG_FORMAT", "log_format", _one_of(_LOG_FORMATS), "console or json; unset: by the terminal"),
)
