"""HTTP_*: one request per attempt, through one session for all."""

import asyncio
import re
import ssl
import time
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from executors.base import Attempt, Executor, Outcome, Reason, Run, Sink, Stream
from executors.ending import Ending, stopped_outcome
from executors.errors import ExecutorError, ExecutorLostError, SpecRefusedError
from executors.options import ExecutorOptions
from executors.specs import HTTP_METHODS, HttpSpec

_PIECE_BYTES = 64 * 1024
_JSON_TYPE = re.compile(r"application/(?:[\w.+-]+\+)?json$")
_NO_HEADER = re.compile(r"[\r\n\0]")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@dataclass(frozen=True, slots=True)
class _Request:
    """A checked spec, ready for aiohttp."""

    verb: str
    url: URL
    headers: dict[str, str]
    data: bytes | aiohttp.FormData | None

    @property
    def line(self) -> str:
        """The request line for logs, without a password."""
        return f"{self.verb} {_shown(self.url)}"


class _HttpRun:
    """State of one attempt."""

    def __init__(self) -> None:
        self.ending = Ending()
        self.stop_reason: Reason | None = None
        self.driver: asyncio.Task[None] | None = None


class HttpExecutor(Executor):
    """Sends requests; the status is the exit code, and below 400 is success.

    No time limit of its own, no cookies, no proxy and no ``.netrc`` of the ant. TLS certificates are verified. A
    connection that fails or breaks raises ``ExecutorLostError`` from ``wait``: whether the server acted on the request
    is unknown.
    """

    methods = HTTP_METHODS
    is_in_process = True

    def __init__(self, options: ExecutorOptions | None = None) -> None:
        self._options = options or ExecutorOptions()
        self._session: aiohttp.ClientSession | None = None

    async def check(self) -> None:
        """Proves that the certificates can be read."""
        self._tls_context()

    async def start(self, attempt: Attempt, sink: Sink) -> Run:
        """Checks the spec and sends the request in the background."""
        spec = attempt.spec
        if not isinstance(spec, HttpSpec):
            raise SpecRefusedError(f"HTTP needs an HttpSpec, not {type(spec).__name__}")
        request = _checked(spec)
        handle = _HttpRun()
        handle.driver = asyncio.create_task(self._drive(handle, request, sink))
        return Run(attempt, sink, handle)

    async def wait(self, run: Run) -> Outcome:
        """Returns the answer as an outcome."""
        handle: _HttpRun = run.handle
        return await handle.ending.wait()

    async def stop(self, run: Run, grace_s: float, reason: Reason) -> None:
        """Breaks the connection off; there is nothing to be graceful about."""
        handle: _HttpRun | None = run.handle
        if handle is None or handle.ending.is_over:
            return
        handle.stop_reason = handle.stop_reason or reason
        if handle.driver is not None:
            handle.driver.cancel()
            await asyncio.wait([handle.driver])
        handle.ending.settle(stopped_outcome(handle.stop_reason))  # a driver that never began settles nothing

    async def cleanup(self, run: Run) -> None:
        """Breaks off what still runs."""
        await self.stop(run, 0, Reason.CANCELLED)

    async def close(self) -> None:
        """Closes the connections that are kept open."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _drive(self, run: _HttpRun, request: _Request, sink: Sink) -> None:
        try:
            run.ending.settle(await self._send(request, sink))
        except asyncio.CancelledError:
            run.ending.settle(stopped_outcome(run.stop_reason or Reason.CANCELLED))
            raise
        except Exception as exc:  # noqa: BLE001 - carried to whoever waits
            run.ending.fail(exc)

    async def _send(self, request: _Request, sink: Sink) -> Outcome:
        await _log(sink, request.line)
        began_s = time.monotonic()
        try:
            response, body, is_cut = await self._exchange(request)
        except aiohttp.TooManyRedirects as exc:
            return await self._too_many_redirects(exc.history[-1].status, sink)
        except (aiohttp.ClientError, OSError, UnicodeError) as exc:
            raise ExecutorLostError(f"{request.line}: {_cause(exc)}") from exc
        size = f"{len(body)} bytes{' and more' if is_cut else ''}"
        await _log(sink, f"{_status(response)}, {size} after {time.monotonic() - began_s:.3f} s")
        return await self._outcome(response, body, is_cut, sink)

    async def _exchange(self, request: _Request) -> tuple[aiohttp.ClientResponse, bytes, bool]:
        """Returns the response, its body up to the limit, and whether there was more."""
        async with self._open_session().request(
            request.verb,
            request.url,
            headers=request.headers,
            data=request.data,
            max_redirects=self._options.http_max_redirects + 1,  # aiohttp raises at the last one
        ) as response:
            return response, *(await self._read(response))

    async def _too_many_redirects(self, status: int, sink: Sink) -> Outcome:
        message = f"more than {self._options.http_max_redirects} redirects; use the address they should lead to"
        await _log(sink, message)
        return Outcome(Reason.EXITED, status, False, {"status": status}, message)

    async def _read(self, response: aiohttp.ClientResponse) -> tuple[bytes, bool]:
        """Returns the body up to the limit, and whether there was more; what is more is never read."""
        limit, body = self._options.http_body_limit_bytes, bytearray()
        async for piece in response.content.iter_chunked(_PIECE_BYTES):
            body += piece
            if len(body) > limit:
                response.close()
                return bytes(body[:limit]), True
        return bytes(body), False

    async def _outcome(self, response: aiohttp.ClientResponse, body: bytes, is_cut: bool, sink: Sink) -> Outcome:
        outputs: dict[str, Any] = {"status": response.status, "headers": _headers(response)}
        problem = None
        if _JSON_TYPE.match(response.content_type):
            problem = self._add_json(outputs, body, is_cut)
        if "body" not in outputs and not (is_cut and problem):
            outputs["body"] = self._text(response, body)
        if problem is not None:
            await _log(sink, problem)
        is_success = response.status < 400
        message = problem if is_success else f"HTTP status {_status(response)}; {problem or ''}".rstrip("; ")
        return Outcome(Reason.EXITED, response.status, is_success, outputs, message)

    def _add_json(self, outputs: dict[str, Any], body: bytes, is_cut: bool) -> str | None:
        """Adds the decoded body; returns what is wrong with it, if anything is."""
        if is_cut:
            return (
                f"the JSON body is larger than {self._options.http_body_limit_bytes} bytes: there is no output `body`"
            )
        if not body:
            outputs["body"] = None
            return None
        try:
            outputs["body"] = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeError) as exc:
            return f"the body calls itself JSON and is none ({exc}): the output `body` is its text"
        return None

    def _text(self, response: aiohttp.ClientResponse, body: bytes) -> str:
        piece = body[: self._options.http_text_limit_bytes]
        try:
            return piece.decode(response.charset or "utf-8", errors="replace")
        except LookupError:  # the server names a charset that nobody knows
            return piece.decode("utf-8", errors="replace")

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            # The ant's slots bound the requests; a limit here would let slow ones starve the others.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ssl=self._tls_context()),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
                headers={"User-Agent": "formicary"},
            )
        return self._session

    def _tls_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        file = self._options.http_ca_file
        if file is not None:
            try:
                context.load_verify_locations(cafile=file)
            except (OSError, ssl.SSLError) as exc:
                raise ExecutorError(f"cannot read certificates from {file}: {exc}; give a PEM file") from exc
        return context


def _checked(spec: HttpSpec) -> _Request:
    """Returns the request of a spec.

    Raises:
        SpecRefusedError: names the key that is wrong.
    """
    if spec.method not in HTTP_METHODS:
        raise SpecRefusedError(f"method: {spec.method} is no HTTP method; use one of {', '.join(HTTP_METHODS)}")
    if spec.body is not None and (spec.form is not None or spec.method.endswith("_FORM")):
        raise SpecRefusedError(
            f"body: {spec.method} takes a body or a form; use `form` for HTTP_*_FORM, `body` for others"
        )
    if spec.form is not None and spec.method.endswith("_JSON"):
        raise SpecRefusedError(
            f"form: {spec.method} takes `body`; use {spec.method.replace('_JSON', '_FORM')} for a form"
        )
    headers = _checked_headers(spec.headers)
    data: bytes | aiohttp.FormData | None = None
    if spec.body is not None:
        data = _encoded(spec.body)
        if not any(name.lower() == "content-type" for name in headers):
            headers["Content-Type"] = "application/json"
    elif spec.form is not None:
        data = aiohttp.FormData(spec.form)
    return _Request(spec.method.split("_")[1], _checked_url(spec), headers, data)


def _checked_url(spec: HttpSpec) -> URL:
    try:
        url = URL(spec.url)
        if spec.query:
            url = url.update_query(spec.query)
    except (ValueError, TypeError) as exc:
        raise SpecRefusedError(f"url: not an address ({exc}); use http://host/path or https://host/path") from exc
    if url.scheme not in {"http", "https"} or not url.host:
        raise SpecRefusedError(f"url: {_shown(url)!r} is no address of a web server; use http://host/path or https://…")
    return url


def _checked_headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise SpecRefusedError(f"headers: {name!r} is no name of a header; use letters, digits and -")
        if _NO_HEADER.search(value):
            raise SpecRefusedError(f"headers.{name}: holds a line break or NUL; a header is one line")
    return dict(headers)


def _encoded(body: Any) -> bytes:
    try:
        return msgspec.json.encode(body)
    except (TypeError, ValueError, msgspec.MsgspecError) as exc:
        raise SpecRefusedError(f"body: cannot be written as JSON ({exc})") from exc


def _headers(response: aiohttp.ClientResponse) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in response.headers.items():
        key = name.lower()
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    return headers


def _status(response: aiohttp.ClientResponse) -> str:
    return f"{response.status} {response.reason or ''}".rstrip()


def _shown(url: URL) -> str:
    return str(url.with_password("***") if url.password else url)


def _cause(exc: Exception) -> str:
    """Says what went wrong without aiohttp's class names, addresses with passwords or certificates' dumps."""
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        return f"the server's certificate is not trusted ({exc.certificate_error})"
    if isinstance(exc, aiohttp.ClientConnectorError):
        return f"cannot connect to {exc.host}:{exc.port} ({exc.os_error.strerror or exc.os_error})"
    if isinstance(exc, aiohttp.InvalidURL):
        return "it leads to an invalid address"
    return f"the connection broke ({exc or type(exc).__name__})"


async def _log(sink: Sink, line: str) -> None:
    await sink.write(Stream.SYSTEM, line.encode(errors="replace") + b"\n")
