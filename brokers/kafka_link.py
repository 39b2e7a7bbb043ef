"""What all of the Kafka backend needs: clients with their settings, topics, and errors by this package's names."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.conn import create_conn

from brokers.base import Message
from brokers.errors import BrokerRefusedError, BrokerUnavailableError, words_of
from brokers.handshake import explained
from brokers.kafka_metadata import log_ids
from brokers.kafka_topics import Topics
from brokers.reconnect import Lifeline
from brokers.tls import tls_context, untrusted_is_refused
from brokers.urls import BrokerUrl

# The driver reports every lost connection as an error, with a traceback; the lifeline reports each loss once.
logging.getLogger("aiokafka").setLevel(logging.CRITICAL)

T = TypeVar("T")

MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
#: Room for key, headers and the record batch around a body.
_ENVELOPE_BYTES: Final = 256 * 1024
#: Longest time that a request may take, in seconds; a lost server shows after it at the latest.
REQUEST_TIMEOUT_S: Final = 15.0
#: A publish without an answer for so long counts as a loss, in seconds.
SILENCE_S: Final = 1.0
#: Longest time that a client is given to say good-bye, in seconds.
STOP_S: Final = 5.0

#: What is said of a topic that another server leads, or of which the servers have yet to hear.
LEADERLESS: Final = (
    kafka.LeaderNotAvailableError,
    kafka.NotLeaderForPartitionError,
    kafka.UnknownTopicOrPartitionError,
)

_REFUSALS: Final = (
    kafka.AuthenticationFailedError,
    kafka.AuthenticationMethodNotSupported,
    kafka.ClusterAuthorizationFailedError,
    kafka.GroupAuthorizationFailedError,
    kafka.SaslAuthenticationFailed,
    kafka.TopicAuthorizationFailedError,
    kafka.UnsupportedSaslMechanismError,
)
_LOSSES: Final = (kafka.KafkaError, OSError, asyncio.TimeoutError)


class Link:
    """One producer and one administrator for all, consumers on demand; one partition per topic."""

    def __init__(self, url: BrokerUrl) -> None:
        self.claim_after_s = url.seconds("claim_after_s", 30.0)
        self.lifeline = Lifeline(url.shown)
        self._url = url
        self._trust = tls_context(url) if url.scheme == "kafkas" else None
        self._producer: Any = None
        self._admin: Any = None
        self._topics = Topics(
            url.shown,
            replication=int(url.options.get("replication", "0")),
            retention_s=url.seconds("retention_s", 7 * 86400.0),
            max_message_bytes=MAX_MESSAGE_BYTES + _ENVELOPE_BYTES,
        )

    async def open(self) -> None:
        """Connects."""
        await explained(self._url, self._connect)

    async def _connect(self) -> None:
        with untrusted_is_refused(self._url), self.errors():
            await self._probe()
            self._producer = AIOKafkaProducer(
                # Without idempotence one batch per partition is under way at a time, so order holds all the same, and
                # a batch that timed out does not end the producer. Duplicates are the readers' affair.
                **self._settings(),
                acks="all",
                max_request_size=MAX_MESSAGE_BYTES + _ENVELOPE_BYTES,
                max_batch_size=2**20,
            )
            self._admin = AIOKafkaAdminClient(**self._settings())
            try:
                await self._begin()
            except BaseException:
                await self.close()
                raise

    async def _begin(self) -> None:
        try:
            await self._producer.start()
        except kafka.KafkaConnectionError as exc:
            if self._url.user:
                raise
            # It took the connection by hand: without a login it may take no request.
            hint = "does this port ask for user and password, kafka://user:password@…?"
            raise kafka.KafkaConnectionError(f"{exc.args[0] if exc.args else exc}; {hint}") from exc
        await self._admin.start()
        await self._topics.open(self._admin)

    async def _probe(self) -> None:
        """Connects once by hand: a client's start would say that it failed, but not why."""
        for number, server in enumerate(self._url.hosts, 1):
            host, _, port = server.rpartition(":")
            try:
                connection = await self.connect(host.strip("[]"), int(port))
            except (TimeoutError, kafka.KafkaConnectionError, OSError):
                if number == len(self._url.hosts):
                    raise
            else:
                connection.close()
                return

    async def close(self) -> None:
        """Disconnects."""
        producer, admin = self._producer, self._admin
        self._producer = self._admin = None
        if producer is not None:
            await good_bye(producer.stop())
        if admin is not None:
            await good_bye(admin.close())

    async def publish(self, messages: Iterable[Message]) -> None:
        """Sends messages, all at once, and waits until the server has them."""
        messages, sent = list(messages), []
        with self.errors():
            await self.ensure({message.topic for message in messages})
            try:
                for message in messages:
                    sent.append(await self._send(message))
                await self._confirmed(sent, {message.topic for message in messages})
            except BaseException:
                self._topics.forget_all()  # one may have gone
                for future in sent:
                    future.add_done_callback(_nobody_asks)
                raise

    async def _send(self, message: Message) -> "asyncio.Future[Any]":
        headers = [(name, value.encode()) for name, value in message.headers.items()]
        future: asyncio.Future[Any] = await self._producer.send(
            message.topic, message.body, key=message.key.encode(), partition=0, headers=headers
        )
        return future

    async def _confirmed(self, sent: "list[asyncio.Future[Any]]", topics: set[str]) -> None:
        if not sent:
            return
        _, silent = await asyncio.wait(sent, timeout=SILENCE_S)
        if silent:
            self.lifeline.lost(f"no answer to {len(silent)} messages for {SILENCE_S} s")
            await self._make_again(topics)
            await asyncio.wait(silent)
        failures = [failure for future in sent if (failure := future.exception()) is not None]
        if failures:
            raise failures[0]

    async def _make_again(self, topics: set[str]) -> None:
        """Makes topics that were deleted underneath, which the driver would wait for until its time is up."""
        self._topics.forget_all()
        with contextlib.suppress(*_LOSSES):
            await self.ensure(topics)

    async def ensure(self, topics: Iterable[str]) -> None:
        """Makes the topics that do not exist."""
        await self._topics.ensure(topics)

    async def leader(self, topic: str) -> tuple[str, int]:
        """Returns host and port of the server that leads a topic."""
        await self.ensure([topic])
        await self._producer.partitions_for(topic)
        cluster = self._producer.client.cluster
        server = cluster.broker_metadata(cluster.leader_for_partition(partition(topic)))
        if server is None:
            self.forget_topics()
            raise kafka.LeaderNotAvailableError(topic)
        return server.host, server.port

    async def log_ids(self, topics: Sequence[str]) -> dict[str, str]:
        """Returns the ids of the logs that some topics are now, of those that exist."""
        try:
            return await log_ids(self._producer.client, topics)
        except kafka.IncompatibleBrokerVersion as exc:
            raise BrokerRefusedError(self._url.shown, "its topics have no ids; Kafka 2.8 or newer is needed") from exc

    async def log_id(self, topic: str) -> str:
        """Returns the id of the log that a topic is now; makes it if there is none."""
        await self.ensure([topic])
        found = await self.log_ids([topic])
        if topic not in found:
            self.forget_topics()  # deleted underneath, or just made, and this server has yet to hear of it
            raise BrokerUnavailableError(self._url.shown, f"topic {topic} is being made")
        return found[topic]

    async def connect(self, host: str, port: int) -> Any:
        """Returns a connection of the driver's to one server, for requests of its protocol."""
        settings = self._settings()
        del settings["bootstrap_servers"]
        return await create_conn(host, port, **settings)

    def forget_topics(self) -> None:
        """Has every topic and its leader looked for again, when they are used the next time."""
        self._topics.forget_all()
        self._producer.client.force_metadata_update()

    def consumer(self, group: str | None, **settings: Any) -> Any:
        """Returns a consumer that is not yet started; offsets are committed by its owner only."""
        return AIOKafkaConsumer(
            **self._settings(),
            group_id=group,
            enable_auto_commit=False,
            max_partition_fetch_bytes=2 * 2**20,
            retry_backoff_ms=100,
            **settings,
        )

    @property
    def admin(self) -> Any:
        """Returns the administrator."""
        return self._admin

    @contextmanager
    def errors(self, *, is_contact: bool = True) -> Iterator[None]:
        """Translates the driver's errors and keeps the account of losses.

        Args:
            is_contact: success shows that the server is there; a wait that nothing ended does not.
        """
        try:
            yield
        except kafka.IllegalSaslStateError as exc:
            reason = "this port takes no user and password; leave them out, or name a port that does"
            raise BrokerRefusedError(self._url.shown, reason) from exc
        except _REFUSALS as exc:
            raise BrokerRefusedError(self._url.shown, words_of(exc)) from exc
        except _LOSSES as exc:
            self.lifeline.lost(words_of(exc))
            raise BrokerUnavailableError(self._url.shown, words_of(exc)) from exc
        if is_contact:
            self.lifeline.found()

    def _settings(self) -> dict[str, Any]:
        url = self._url
        is_secret = bool(url.user or url.password)
        settings: dict[str, Any] = {
            "bootstrap_servers": list(url.hosts),
            "request_timeout_ms": int(REQUEST_TIMEOUT_S * 1000),
            "security_protocol": ("SASL_" if is_secret else "") + ("SSL" if url.scheme == "kafkas" else "PLAINTEXT"),
        }
        if self._trust is not None:
            settings["ssl_context"] = self._trust
        if is_secret:
            settings["sasl_mechanism"] = url.options.get("mechanism", "SCRAM-SHA-256")
            settings["sasl_plain_username"] = url.user
            settings["sasl_plain_password"] = url.password
        return settings


async def good_bye(stop: Awaitable[None]) -> None:
    """Stops a client, but does not wait for a server that is gone."""
    with contextlib.suppress(*_LOSSES):
        await asyncio.wait_for(stop, STOP_S)


def partition(topic: str) -> TopicPartition:
    """Returns a topic's only partition."""
    return TopicPartition(topic, 0)


def message_of(topic: str, record: Any) -> Message:
    """Returns a record as a message."""
    headers = {name: (value or b"").decode(errors="replace") for name, value in record.headers}
    return Message(topic, (record.key or b"").decode(errors="replace"), record.value or b"", headers)


def _nobody_asks(future: "asyncio.Future[Any]") -> None:
    """Takes note of a failure that nobody waits for any more, or the loop would report it."""
    if not future.cancelled():
        future.exception()
