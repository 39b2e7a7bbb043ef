"""Why a first connection fails: a port that speaks TLS, and a URL that does not, or the other way round.

Drivers say of both that the connection was closed, or nothing at all until their time is up. So where connecting fails,
or is silent for a while, the port is asked itself: whoever speaks TLS answers the beginning of a TLS connection.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Final
from urllib.parse import urlsplit

from brokers.calls import end_task
from brokers.errors import BrokerUnavailableError
from brokers.urls import BrokerUrl

#: How long connecting may be silent before the port is asked, and how long the port may take, in seconds; together
#: less than a check of a broker has.
SILENCE_S: Final = 1.5
ANSWER_S: Final = 2.0

#: Scheme without TLS -> the same with it.
_WITH_TLS: Final = {"redis": "rediss", "kafka": "kafkas", "pulsar": "pulsar+ssl", "http": "https"}
_WITHOUT_TLS: Final = {secure: plain for plain, secure in _WITH_TLS.items()}
#: How records of TLS begin: a handshake's or an alert's type, and the version.
TLS_RECORDS: Final = (b"\x16\x03", b"\x15\x03")


async def explained(url: BrokerUrl, connect: Callable[[], Awaitable[None]]) -> None:
    """Connects, and says so where the URL and its servers differ about TLS.

    Raises:
        BrokerUnavailableError: they do; or what ``connect`` raises.
    """
    connecting = asyncio.ensure_future(connect())
    try:
        await asyncio.wait({connecting}, timeout=SILENCE_S)
        failure = connecting.exception() if connecting.done() else None
        if not connecting.done() or isinstance(failure, BrokerUnavailableError):
            fault = await tls_fault(url.scheme, url.hosts)
            if fault:
                raise BrokerUnavailableError(url.shown, fault) from failure
        await connecting
    finally:
        await end_task(connecting)


async def tls_fault_of_url(url: str) -> str:
    """Returns ``tls_fault`` of ``http[s]://host[:port]``."""
    parts = urlsplit(url)
    return await tls_fault(parts.scheme, [f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"])


async def tls_fault(scheme: str, places: Sequence[str]) -> str:
    """Returns in what a scheme and the first of these servers that takes connections differ; nothing where in nothing.

    Args:
        scheme: with or without TLS, such as ``kafka`` or ``https``.
        places: ``host:port`` each.
    """
    for place in places:
        host, _, port = place.rpartition(":")
        has_tls = await speaks_tls(host.strip("[]"), int(port))
        if has_tls is None:
            continue
        if has_tls and scheme in _WITH_TLS:
            return f"{place} speaks TLS, and {scheme}:// is without; write {_WITH_TLS[scheme]}://"
        if not has_tls and scheme in _WITHOUT_TLS:
            plain = _WITHOUT_TLS[scheme]
            return f"{place} does not answer TLS, as {scheme}:// asks for; for a port without TLS write {plain}://"
        return ""
    return ""


async def speaks_tls(host: str, port: int) -> bool | None:
    """Tells whether a port answers TLS; None where no connection can be made."""
    try:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_connection(host, port)
    except OSError:  # among them what is late
        return None
    try:
        async with asyncio.timeout(ANSWER_S):
            writer.write(_hello())
            return await reader.readexactly(2) in TLS_RECORDS
    except (OSError, asyncio.IncompleteReadError):
        return False
    finally:
        writer.close()


def _hello() -> bytes:
    """Returns how a TLS connection begins."""
    context = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()
