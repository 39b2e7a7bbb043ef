"""Where the engine is; needs no driver, so that an ant without one can ask."""

import os
from pathlib import Path
from urllib.parse import urlsplit

_DOCKER_SOCKET = "/var/run/docker.sock"


def engine_url(given: str | None) -> str:
    """Returns what is given, or ``DOCKER_HOST``, or the first socket that is there, or where Docker's would be."""
    return given or os.environ.get("DOCKER_HOST") or f"unix://{_found_socket() or _DOCKER_SOCKET}"


def has_engine(given: str | None) -> bool:
    """Tells whether an engine was named, or one's socket is in its usual place."""
    return bool(given or os.environ.get("DOCKER_HOST") or _found_socket())


def fault_of(url: str) -> str:
    """Returns what is wrong with the address of an engine, and what would be right; nothing where it is one."""
    scheme, _, rest = url.partition("://")
    if scheme == "unix" and rest.startswith("/"):
        return ""
    try:
        is_place = scheme in {"tcp", "http"} and bool(urlsplit(url).hostname) and urlsplit(url).port != 0
    except ValueError:  # a port that is none
        is_place = False
    hint = "write unix:///path/of/docker.sock or tcp://host:port, and for TLS set DOCKER_TLS_VERIFY=1"
    return "" if is_place else f"DOCKER_HOST: {url!r} is no address of an engine; {hint}"


def is_local(url: str) -> bool:
    """Tells whether an engine is on this machine, as far as its address says."""
    return url.startswith("unix://")


def _found_socket() -> str | None:
    """Returns the socket of a Docker Engine, or of Podman, for the whole machine or this user."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "/run")
    paths = (_DOCKER_SOCKET, "/run/podman/podman.sock", f"{runtime}/podman/podman.sock")
    return next((path for path in paths if Path(path).is_socket()), None)
