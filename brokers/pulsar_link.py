"""What all of the Pulsar backend needs: the client, producers, topics with their keeper, and receiving without loss."""

import asyncio
import contextlib
import os
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import pulsar
import pulsar.asyncio as driver
import structlog

from brokers.base import Message
from brokers.calls import end_task
from brokers.errors import BrokerError, BrokerRefusedError, BrokerUnavailableError, words_of
from brokers.handshake import TLS_RECORDS, explained
from brokers.pulsar_admin import Admin
from brokers.reconnect import Lifeline
from brokers.tls import tls_context, untrusted_is_refused
from brokers.urls import BrokerUrl

log = structlog.get_logger(__name__)

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
OPERATION_TIMEOUT_S: Final = 15
#: How long a server may take to answer a greeting, in seconds.
_GREETING_S: Final = 0.5
#: A publish without an answer for so long counts as a loss, in seconds.
SILENCE_S: Final = 1.0
#: Messages of one batch that are under way at once; beyond the limit of a producer a send fails.
_WINDOW: Final = 500
#: Time between two rounds of letting go of what is old, in seconds.
_UPKEEP_S: Final = 60.0
#: A producer that sent nothing for so long is closed, in seconds: a server makes a topic that was deleted anew for as
#: long as somebody has one.
_IDLE_S: Final = 1800.0
_STOP_S: Final = 10.0

#: Instead of a topic's ledger: the next message makes sure of its keeper.
_NO_LEDGER: Final = -1

_REFUSALS: Final = {pulsar.Result.AuthenticationError, pulsar.Result.AuthorizationError}


class Link:
    """One client, one producer per topic."""

    def __init__(self, url: BrokerUrl) -> None:
        self.lifeline = Lifeline(url.shown)
        self.namespace = url.path or "public/default"
        self._retention_s = url.seconds("retention_s", 7 * 86400.0)
        self._url = url
        self._is_tls = url.scheme == "pulsar+ssl"
        self._trust = tls_context(url)
        self.admin = Admin(_admin_url(url), self.namespace, url.password, self._trust)
        self._client: Any = None
        self._producers: dict[str, asyncio.Future[Any]] = {}
        #: Topic -> when its producer was used last, in seconds of the loop.
        self._used_at: dict[str, float] = {}
        #: Topic -> the ledger that its server writes to, as far as this producer saw.
        self._ledgers: dict[str, int] = {}
        #: Topic -> how long it keeps what nobody trims, in seconds.
        self._kept_s: dict[str, float] = {}
        self._upkeep: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connects; the client itself would only say that time is up."""
        try:
            await explained(self._url, self._prove)
        except BaseException:
            await self.admin.close()
            raise
        self._client = driver.Client(
            f"{self._url.scheme}://{','.join(self._url.hosts)}",
            operation_timeout_seconds=OPERATION_TIMEOUT_S,
            authentication=self._authentication(),
            tls_trust_certs_file_path=self._url.options.get("ca"),
            tls_validate_hostname=self._is_tls,
            # It knows standard output and files; the lifeline reports what matters.
            logger=pulsar.FileLogger(pulsar.LoggerLevel.Error, os.devnull),
        )
        self._upkeep = asyncio.create_task(self._keep())

    async def _prove(self) -> None:
        with untrusted_is_refused(self._url), self.errors():
            await self._probe()
            await self.admin.open()

    def _authentication(self) -> Any:
        cert = self._url.options.get("cert")
        if self._url.password:
            return pulsar.AuthenticationToken(self._url.password)
        return pulsar.AuthenticationTLS(cert, self._url.options.get("key", cert)) if cert else None

    async def _probe(self) -> None:
        trust = self._trust if self._is_tls else None
        for number, place in enumerate(self._url.hosts, 1):
            host, _, port = place.rpartition(":")
            try:
                connection = asyncio.open_connection(host.strip("[]"), int(port), ssl=trust)
                reader, writer = await asyncio.wait_for(connection, OPERATION_TIMEOUT_S)
                await self._greet(reader, writer)
            except OSError:
                if number == len(self._url.hosts):
                    raise
            else:
                return

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Says who is there: of a server that speaks TLS, a client without would only know that time is up."""
        try:
            writer.write(_greeting(self._url.password.encode()))
            answer = await asyncio.wait_for(reader.read(2), _GREETING_S)
        except TimeoutError:
            return  # it is slow; the client will wait for it
        finally:
            writer.close()
        if not answer or answer in TLS_RECORDS:
            raise ConnectionResetError("it closed the connection without an answer")

    async def close(self) -> None:
        """Disconnects. The client must be closed before the loop is: its threads call back into it."""
        await end_task(self._upkeep)
        client, self._client = self._client, None
        self._producers.clear()
        if client is not None:
            await good_bye(_shut_down(client))
        await self.admin.close()

    async def publish(self, messages: Sequence[Message]) -> None:
        """Sends messages in their order and waits until the server has them."""
        with self.errors():
            topics = list({message.topic: None for message in messages})
            self._used_at.update(dict.fromkeys(topics, asyncio.get_running_loop().time()))
            if len(topics) == 1:  # as most often: no task for what is there already
                producers = {topics[0]: await self._producer(topics[0])}
            else:
                producers = dict(zip(topics, await asyncio.gather(*map(self._producer, topics)), strict=True))
            try:
                for start in range(0, len(messages), _WINDOW):
                    await self._send_some(messages[start : start + _WINDOW], producers)
            except driver.PulsarException as exc:
                if exc.error() != pulsar.Result.Timeout:  # a producer that lost its topic is of no more use
                    await asyncio.gather(*map(self._renew_producer, topics))
                raise

    async def _send_some(self, messages: Sequence[Message], producers: dict[str, Any]) -> None:
        sent = [asyncio.ensure_future(_send(producers[message.topic], message)) for message in messages]
        await self._confirmed(sent)
        # A topic that was deleted underneath is made anew by the server, without its keeper: such a topic begins a
        # ledger, as every topic does now and then. It still holds these messages, so the keeper comes in time.
        for message, future in zip(messages, sent, strict=True):
            ledger = future.result().ledger_id()
            if self._ledgers.setdefault(message.topic, ledger) != ledger:
                await self.admin.make_keeper(message.topic)
                self._ledgers[message.topic] = ledger

    async def _confirmed(self, sent: "Sequence[asyncio.Future[Any]]") -> None:
        try:
            _, silent = await asyncio.wait(sent, timeout=SILENCE_S)
            if silent:
                self.lifeline.lost(f"no answer to {len(silent)} messages for {SILENCE_S} s")
                await asyncio.wait(silent)
        except asyncio.CancelledError:
            for future in sent:
                future.add_done_callback(_nobody_asks)
            raise
        failures = [failure for future in sent if (failure := future.exception()) is not None]
        if failures:
            raise failures[0]

    async def _producer(self, topic: str) -> Any:
        found = self._producers.get(topic)
        if found is None or (found.done() and (found.cancelled() or found.exception() is not None)):
            found = self._producers[topic] = asyncio.ensure_future(self._make_producer(topic))
            found.add_done_callback(_nobody_asks)  # whoever waits is told all the same
        return await asyncio.shield(found)

    async def _make_producer(self, topic: str) -> Any:
        await self.ensure([topic])
        return await self._client.create_producer(
            self.name(topic),
            # Bodies are packs already: batching would hold them up, and one entry per message makes positions exact.
            batching_enabled=False,
            max_pending_messages=100_000,
            max_pending_messages_across_partitions=1_000_000,
            send_timeout_millis=OPERATION_TIMEOUT_S * 1000,
        )

    async def ensure(self, topics: Iterable[str], kept_s: float | None = None) -> None:
        """Makes topics with their keeper; ``kept_s`` is how long they keep what nobody trims, by default a week."""
        for topic in topics:
            if topic not in self._kept_s:
                await self.admin.make_keeper(topic)
            self._kept_s[topic] = kept_s or self._kept_s.get(topic, self._retention_s)

    async def forget(self, topic: str) -> None:
        """Lets go of what belongs to a topic that is deleted now."""
        self._kept_s.pop(topic, None)
        self._ledgers.pop(topic, None)
        await self._drop_producer(topic)

    async def _renew_producer(self, topic: str) -> None:
        self._ledgers[topic] = _NO_LEDGER
        await self._drop_producer(topic)

    async def _drop_producer(self, topic: str) -> None:
        self._used_at.pop(topic, None)
        producer = self._producers.pop(topic, None)
        if producer is not None and producer.done() and not producer.cancelled() and producer.exception() is None:
            await good_bye(producer.result().close())

    @property
    def client(self) -> Any:
        """Returns the driver's client."""
        return self._client

    def name(self, topic: str) -> str:
        """Returns a topic's full name."""
        return f"persistent://{self.namespace}/{topic}"

    @contextmanager
    def errors(self, *, is_contact: bool = True) -> Iterator[None]:
        """Translates the driver's errors and keeps the account of losses.

        Args:
            is_contact: success shows that the server is there; a wait that nothing ended does not.
        """
        try:
            yield
        except BrokerUnavailableError as exc:
            self.lifeline.lost(exc.reason)
            raise
        except (driver.PulsarException, pulsar.PulsarException, OSError, TimeoutError) as exc:
            if isinstance(exc, driver.PulsarException) and exc.error() in _REFUSALS:
                raise BrokerRefusedError(self._url.shown, str(exc)) from exc
            self.lifeline.lost(words_of(exc))
            raise BrokerUnavailableError(self._url.shown, words_of(exc)) from exc
        if is_contact:
            self.lifeline.found()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(_UPKEEP_S)
            await self._close_idle_producers()
            for topic, kept_s in list(self._kept_s.items()):
                try:
                    is_there = await self.admin.expire(topic, kept_s)
                except BrokerError as exc:
                    log.warning("pulsar_upkeep_failed", topic=topic, reason=str(exc))
                    break
                if not is_there and topic not in self._producers and kept_s == self._retention_s:
                    await self.forget(topic)

    async def _close_idle_producers(self) -> None:
        oldest = asyncio.get_running_loop().time() - _IDLE_S
        for topic in [topic for topic, used_at in self._used_at.items() if used_at < oldest]:
            await self._drop_producer(topic)


class Pump:
    """Receives from a consumer or reader: cancelling a receive of the driver loses its message, so none is."""

    def __init__(self, receive: Callable[[], Awaitable[Any]], width: int) -> None:
        self._receive = receive
        self._width = width
        self._pending: deque[asyncio.Future[Any]] = deque()

    def waiting(self) -> "asyncio.Future[Any]":
        """Returns what is done when there is a message to ``take``."""
        while len(self._pending) < self._width:
            self._pending.append(asyncio.ensure_future(self._receive()))
        return self._pending[0]

    def take(self, max_count: int) -> list[Any]:
        """Returns the messages that have arrived, in order."""
        taken: list[Any] = []
        while self._pending and self._pending[0].done() and len(taken) < max_count:
            if taken and self._pending[0].exception() is not None:
                break  # raised by the next call: what came before it is not lost
            taken.append(self._pending.popleft().result())
        return taken

    def stop(self) -> None:
        """Ends what is pending; the server hands it out again when its consumer is closed."""
        for pending in self._pending:
            pending.cancel()
            if pending.done() and not pending.cancelled():
                pending.exception()  # nobody else will ask
        self._pending.clear()


async def _shut_down(client: Any) -> None:
    """Closes a client and waits for its threads: one that needs the interpreter after its end aborts the process.

    Not by the asynchronous class: the thread that answers its ``close`` lets go of our callback some time after the
    call, which can be too late. The blocking one gives the driver nothing of ours.
    """
    try:
        await asyncio.to_thread(client._client.close)
    finally:
        await asyncio.to_thread(client._client.shutdown)  # where that was given up


def _greeting(token: bytes) -> bytes:
    """Returns the frame by which a client of Pulsar begins: the command CONNECT, in protocol buffers."""
    login = _field(3, token) + _field(5, b"token") if token else b""
    command = b"\x08\x02" + _field(2, _field(1, b"formicary") + login)
    return struct.pack(">II", len(command) + 4, len(command)) + command


def _field(number: int, content: bytes) -> bytes:
    size, length = len(content), b""
    while size > 0x7F:
        length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


async def _send(producer: Any, message: Message) -> Any:
    return await producer.send(
        message.body, properties=dict(message.headers) or None, partition_key=message.key or None
    )


def _nobody_asks(sent: "asyncio.Future[Any]") -> None:
    """Takes note of what became of a message whose sender has left."""
    if not sent.cancelled():
        sent.exception()


async def good_bye(stop: Awaitable[None]) -> None:
    """Stops a client, but does not wait for a server that is gone."""
    with contextlib.suppress(driver.PulsarException, pulsar.PulsarException, TimeoutError):
        await asyncio.wait_for(stop, _STOP_S)


def message_of(topic: str, received: Any) -> Message:
    """Returns a message of the driver as one of ours."""
    return Message(topic, received.partition_key(), received.data(), dict(received.properties()))


def _admin_url(url: BrokerUrl) -> str:
    host = url.hosts[0].rpartition(":")[0]
    found = url.options.get("admin", f"https://{host}:8443" if url.scheme == "pulsar+ssl" else f"http://{host}:8080")
    if not found.startswith(("http://", "https://")) or "@" in found:
        raise ValueError("option admin must be http://host:port or https://host:port, without credentials")
    return found
