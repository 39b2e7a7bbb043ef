"""The contract of a message broker: bytes in, bytes out.

Every backend passes the suite in ``tests/conformance/brokers``. Its promises:

1. At least once per group; what a consumer did not acknowledge when it died comes back to another.
2. Order is kept per key within a topic.
3. ``publish`` returns only when the server has every message of the batch.
4. ``ack`` and ``nack`` twice are harmless.
5. A message rejected (``nack``) five times goes to ``<topic>.dead`` with its reason; a lost consumer does not count.
6. Reading from a position gives exactly what follows it, in order, also after a restart of the server.
7. A backend reconnects by itself, for ever, with backoff, and says so in the log and in a metric.
8. Cancelling any call loses no message.
9. ``close`` is safe twice and before ``open``.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, NamedTuple, NewType

Position = NewType("Position", bytes)
"""An opaque place in a topic's log, behind one message; comparable only by its backend."""


class Edge(Enum):
    """The two places of a log that need no position."""

    START = "start"
    END = "end"


START: Final = Edge.START
END: Final = Edge.END

#: Explicit rejections after which a message goes to the dead-letter topic.
MAX_REJECTIONS: Final = 5
#: Suffix of the topic that receives what was rejected too often.
DEAD_SUFFIX: Final = ".dead"
#: Header of a dead-lettered message that says why it is there.
REASON_HEADER: Final = "formicary-dead-reason"


class Message(NamedTuple):
    """What is published. ``key`` chooses the ordering lane within the topic."""

    topic: str
    key: str
    body: bytes
    headers: Mapping[str, str] = {}


class Entry(NamedTuple):
    """A message read by position; ``position`` lies behind it."""

    position: Position
    message: Message


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message received through a group. ``token`` belongs to the backend.

    ``message_id`` is the message's own however often it comes, and no other's of its topic: not of one made anew
    under that name either, where the server outlives this process.
    """

    message: Message
    message_id: str
    rejections: int = 0
    token: Any = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What differs between backends; asked instead of names."""

    #: Messages and positions outlive the process that holds the broker object.
    survives_process: bool
    #: A topic costs so much that ants share one, keyed by ant, instead of one each.
    topics_are_dear: bool
    #: The largest body ``publish`` takes, in bytes.
    max_message_bytes: int


class Durability(NamedTuple):
    """A setting of the server that the promises rest on, and what comes of it."""

    setting: str
    #: As the server says it; None where it does not tell.
    value: str | None
    wanted: str
    is_met: bool
    #: What may happen where it is not met.
    risk: str


class Subscription(ABC):
    """One consumer of one group on some topics."""

    @abstractmethod
    async def receive(self, max_count: int, timeout_s: float) -> list[Delivery]:
        """Returns up to ``max_count`` deliveries, as soon as there is one; empty when ``timeout_s`` passed.

        Raises:
            BrokerClosedError: after ``close``.
        """

    @abstractmethod
    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Marks deliveries as done; they never come back once this returned."""

    @abstractmethod
    async def nack(self, deliveries: Sequence[Delivery], delay_s: float = 0.0, reason: str = "") -> None:
        """Rejects deliveries: they come back after ``delay_s``, or move to the dead-letter topic the fifth time."""

    @abstractmethod
    async def close(self) -> None:
        """Leaves the group; what was received and not acknowledged goes to another consumer. Safe twice."""


class Broker(ABC):
    """A connection to a broker; safe for concurrent use within one event loop."""

    capabilities: Capabilities

    @abstractmethod
    async def open(self) -> None:
        """Connects.

        Raises:
            BrokerUnavailableError: the server does not answer; the caller decides whether to try again.
            BrokerRefusedError: the credentials are wrong.
        """

    @abstractmethod
    async def close(self) -> None:
        """Disconnects; closes subscriptions and ends pending reads. Safe twice and before ``open``."""

    @abstractmethod
    async def publish(self, messages: Sequence[Message]) -> None:
        """Publishes a batch; returns when the server has all of it.

        On an error any part of the batch may have arrived: publishing again is safe for readers that take
        duplicates. Cancelling may leave the batch published.

        Raises:
            MessageTooLargeError: one of the messages is too large; nothing was published.
            BrokerUnavailableError: the server was lost; nothing is known about the batch.
        """

    @abstractmethod
    async def subscribe(self, topics: Sequence[str], group: str | None, consumer: str) -> Subscription:
        """Joins ``group`` as ``consumer``. A new group starts at the oldest message that the topic holds.

        ``group=None`` is a broadcast: every message published from now on, to this subscription alone, with no
        acknowledgement and no redelivery.
        """

    @abstractmethod
    async def read(self, topic: str, after: Position | Edge, max_count: int, timeout_s: float) -> list[Entry]:
        """Returns up to ``max_count`` entries behind ``after``, in order; waits up to ``timeout_s`` for the first.

        A topic that does not exist reads as empty. ``END`` means "published after this call began".

        Raises:
            PositionTrimmedError: the log no longer reaches back to ``after``.
        """

    @abstractmethod
    async def end(self, topic: str) -> Position | Edge:
        """Returns the present end of the log: reading after it gives what is published from now on.

        ``START`` where the log is still empty.
        """

    @abstractmethod
    async def trim(self, topic: str, before: Position) -> None:
        """Lets go of everything up to and including the message that ``before`` lies behind; may keep more.

        A position of another broker names nothing here, and nothing happens.
        """

    @abstractmethod
    async def depth(self, topic: str, group: str) -> int:
        """Returns how many messages of ``topic`` the group has yet to acknowledge."""

    async def settle(self, topic: str, group: str) -> None:
        """Returns when what was published on ``topic`` so far outlives this process.

        That is at once where a server has it; else when ``group``, where there is one, has acknowledged it.
        """
        del topic, group

    @abstractmethod
    async def ensure_topics(self, topics: Sequence[str]) -> None:
        """Makes the topics that do not exist, empty: whoever comes with a client of its own finds them."""

    @abstractmethod
    async def topics(self, prefix: str) -> list[str]:
        """Returns the names of the topics that exist and begin with ``prefix``, in any order.

        A server may hear a moment later of one that was just made or deleted.
        """

    @abstractmethod
    async def delete_topic(self, topic: str) -> None:
        """Deletes a topic with its messages and groups; nothing happens where there is none."""

    async def discard_topic(self, topic: str) -> None:
        """Deletes a topic for good; its name must never be used again.

        Unlike ``delete_topic`` it leaves nothing behind, at the price that positions of a topic of the same name would
        mean other messages.
        """
        await self.delete_topic(topic)

    async def durability(self, topic: str) -> Sequence[Durability]:
        """Returns what the server says about the settings that the messages of an existing topic depend on.

        Raises:
            BrokerUnavailableError: the server was lost.
        """
        del topic
        return ()
