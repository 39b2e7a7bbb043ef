"""The client of the HTTP API behind the commands: the standard library's, which starts quickly."""

import http.client
import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from formicary import settings
from formicary.cli.unknown import load
from formicary.errors import (
    ConflictError,
    DefinitionError,
    FormicaryError,
    InvalidInputError,
    NotFoundError,
    Problem,
    UnavailableError,
)

Json = Any  # a JSON value

_CONNECT_TIMEOUT_S = 10.0
#: How long an answer may take beyond what was asked for, in seconds.
_ANSWER_TIMEOUT_S = 60.0
_READ_BYTES = 64 * 1024


class Answer(NamedTuple):
    """A successful answer."""

    status: int
    body: bytes

    def json(self) -> Json:
        """Returns the body decoded."""
        return json.loads(self.body)

    def text(self) -> str:
        """Returns the body as JSON text, indented."""
        return json.dumps(self.json(), indent=2, ensure_ascii=False)


class RefusedError(FormicaryError):
    """The server answered with an error that is none of the known kinds."""


class Client:
    """One server; each call uses a connection of its own, so a client may be used from several threads."""

    def __init__(self, server: str, token: str | None) -> None:
        self.server = server.rstrip("/")
        self._token = token
        self._parts = urlsplit(self.server)

    def get(self, path: str, query: Mapping[str, object] | None = None, timeout_s: float = 0.0) -> Answer:
        """Returns the answer to a GET; ``timeout_s`` is how long the server may take on purpose."""
        return self._exchange("GET", _with_query(path, query), None, {}, timeout_s)

    def post(
        self,
        path: str,
        body: bytes = b"",
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Returns the answer to a POST."""
        return self._exchange("POST", path, body, {"Content-Type": content_type, **(headers or {})}, 0.0)

    def lines(self, path: str, query: Mapping[str, object]) -> Iterator[bytes]:
        """Yields the lines of a streamed answer as they arrive.

        Raises:
            UnavailableError: the stream was cut short.
        """
        connection = self._connection(None)
        try:
            response = self._send(connection, "GET", _with_query(path, query), None, {})
            rest = b""
            while data := response.read1(_READ_BYTES):  # readline takes a connection that breaks off for the end
                *lines, rest = (rest + data).split(b"\n")
                yield from (line + b"\n" for line in lines)
            if response.length:
                raise UnavailableError(f"{self.server} closed the connection before its answer was complete")
        except http.client.IncompleteRead as error:
            raise UnavailableError(f"{self.server} closed the connection before its answer was complete") from error
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], timeout_s: float
    ) -> Answer:
        connection = self._connection(_ANSWER_TIMEOUT_S + timeout_s)
        try:
            response = self._send(connection, method, path, body, headers)
            return Answer(response.status, response.read())
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()

    def _connection(self, timeout_s: float | None) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        connection: http.client.HTTPConnection
        if self._parts.scheme == "https":
            connection = http.client.HTTPSConnection(
                host, port, timeout=_CONNECT_TIMEOUT_S, context=ssl.create_default_context()
            )
        else:
            connection = http.client.HTTPConnection(host, port, timeout=_CONNECT_TIMEOUT_S)
        try:
            connection.connect()
        except OSError as error:
            raise self._unreachable(error) from error
        connection.sock.settimeout(timeout_s)
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
    ) -> http.client.HTTPResponse:
        sent = dict(headers)
        if self._token is not None:
            sent["Authorization"] = f"Bearer {self._token}"
        connection.request(method, self._parts.path + path, body, sent)
        response = connection.getresponse()
        if response.status >= 300:
            raise _refusal(response.status, response.read(), self.server)
        return response

    def _unreachable(self, error: Exception) -> UnavailableError:
        if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
            return UnavailableError(f"cannot reach {self.server}: it speaks no TLS there; write http://")
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return UnavailableError(
            f"cannot reach {settings.hide_secrets(self.server)} ({reason}); is `formicary up` running there?"
        )


def connect(server: str | None, token: str | None) -> Client:
    """Returns the client for the flags of a command and the environment."""
    loaded = load(server=server, token=token)
    return Client(loaded.server, loaded.token)


def quoted(part: str) -> str:
    """Returns one part of a path, quoted.

    Raises:
        InvalidInputError: it would be no part but another path.
    """
    if not part.strip("."):
        raise InvalidInputError(f"{part!r} is no id and no name")
    return quote(part, safe="")


def _with_query(path: str, query: Mapping[str, object] | None) -> str:
    given = {key: value for key, value in (query or {}).items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def _refusal(status: int, body: bytes, server: str) -> FormicaryError:
    try:
        document = json.loads(body)
        detail, errors = str(document["detail"]), document.get("errors") or []
        problems = [
            Problem(**{key: error[key] for key in Problem.__struct_fields__ if key in error}) for error in errors
        ]
    except (ValueError, KeyError, TypeError):
        text = " ".join(body[:200].decode("utf-8", "replace").split())
        return RefusedError(f"{server} answered {status}, not as Formicary does: {text}")
    match status:
        case 404:
            return NotFoundError(detail)
        case 409:
            return ConflictError(detail)
        case 503:
            return UnavailableError(detail)
        case _ if status < 500:
            has_lines = any(problem.line for problem in problems)
            return DefinitionError(problems) if has_lines else InvalidInputError(detail, problems)
        case _:
            return RefusedError(f"{server} answered {status}: {detail}")
