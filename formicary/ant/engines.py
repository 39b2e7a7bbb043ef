"""Ends containers without an event loop or a driver: loaded by the warden when there are some to end."""

import contextlib
import http.client
import json
import os
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

Json = Any  # a JSON value

#: The label that all containers and networks of an ant's life carry.
LABEL: Final = "formicary.ant"
#: How long one call may take, in seconds: removing a container kills it first.
_CALL_LIMIT_S: Final = 30.0
#: How many are removed at once: an engine takes some tenths of a second for each, whoever else it works for.
_AT_ONCE: Final = 8
_PAUSE_S: Final = 0.05
_MAX_PAUSE_S: Final = 1.0
#: States of containers of which nothing runs any more, though the engine still knows them.
_OVER: Final = frozenset({"dead", "removing"})


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_CALL_LIMIT_S)
        self._path = path

    def connect(self) -> None:
        """Connects to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def remove_containers(url: str, lives: list[str], patience_s: float) -> bool:
    """Kills and removes all containers and networks of these lives of ants. Blocks.

    Returns:
        Whether none is left; False where the engine did not answer for ``patience_s``.
    """
    give_up_at, pause_s = time.monotonic() + patience_s, _PAUSE_S
    while True:
        try:
            left = sum(_sweep(url, life) for life in lives)
        except (OSError, http.client.HTTPException, ValueError):
            left = -1
        if left == 0:
            return True
        if left < 0 and time.monotonic() > give_up_at:
            return False
        if left > 0:
            give_up_at = time.monotonic() + patience_s  # it answers: it is only not done yet
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, _MAX_PAUSE_S)


def _sweep(url: str, life: str) -> int:
    """Removes what one life has left; returns how many containers there were."""
    filters = quote(json.dumps({"label": [f"{LABEL}={life}"]}))
    with contextlib.closing(_connection(url)) as connection:
        found = _call(connection, "GET", f"/containers/json?all=1&filters={filters}")
        # What the engine fails to take away, or is still taking away, runs no more: waiting for it could take for ever.
        containers = [container for container in found if container.get("State") not in _OVER]
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            list(threads.map(partial(_remove, url), (container["Id"] for container in containers)))
        if not found:
            for network in _call(connection, "GET", f"/networks?filters={filters}"):
                _call(connection, "DELETE", f"/networks/{network['Id']}")
        return len(containers)


def _remove(url: str, container_id: str) -> None:
    with contextlib.closing(_connection(url)) as connection:
        _call(connection, "DELETE", f"/containers/{container_id}?force=1&v=1")


def _call(connection: http.client.HTTPConnection, verb: str, path: str) -> Json:
    connection.request(verb, path)
    response = connection.getresponse()
    body = response.read()
    if verb == "DELETE":
        return None  # what could not be removed is found again by the next sweep
    if response.status != http.client.OK:
        raise http.client.HTTPException(f"{path}: status {response.status}")
    return json.loads(body)


def _connection(url: str) -> http.client.HTTPConnection:
    if url.startswith("unix://"):
        return UnixConnection(url.removeprefix("unix://"))
    address = urlsplit(url)
    host, port = address.hostname or "localhost", address.port or 2375
    if not os.environ.get("DOCKER_TLS_VERIFY"):
        return http.client.HTTPConnection(host, port, timeout=_CALL_LIMIT_S)
    folder = Path(os.environ.get("DOCKER_CERT_PATH") or Path.home() / ".docker")
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.load_cert_chain(str(folder / "cert.pem"), str(folder / "key.pem"))
    return http.client.HTTPSConnection(host, port, timeout=_CALL_LIMIT_S, context=context)
