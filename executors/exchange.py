"""The message broker, as an executor needs it; whoever makes the executors hands one in."""

from collections.abc import Mapping
from typing import Protocol


class Replies(Protocol):
    """A topic that is read from the moment it was asked for."""

    async def receive(self) -> list[bytes]:
        """Returns the next messages, as soon as there are some; waits for a broker that is lost. Cancelling loses none.

        Raises:
            ExecutorLostError: the topic can be read no more.
        """
        ...


class Exchange(Protocol):
    """Sends messages, and listens to answers."""

    async def send(self, topic: str, key: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Returns when the broker has the message, perhaps more than once; waits for a broker that is lost.

        Raises:
            SpecRefusedError: the message is too large.
            StartFailedError: the broker refuses it.
        """
        ...

    async def listen(self, topic: str) -> Replies:
        """Returns what comes to a topic from now on; waits for a broker that is lost.

        Raises:
            StartFailedError: the broker refuses it.
        """
        ...
