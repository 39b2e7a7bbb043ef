"""How many messages to ask a server for that has no limit of bytes: what one answer brings has to fit into memory."""

from collections.abc import Sequence
from typing import Final

from brokers.base import Message

#: About how much one answer may bring, in bytes.
MOUTHFUL_BYTES: Final = 8 * 2**20
#: What a message is taken for before one was seen, in bytes.
_UNKNOWN_BYTES: Final = 64 * 2**10


class Appetite:
    """Remembers how large messages are: at once when they grow, slowly when they shrink."""

    def __init__(self) -> None:
        self._size_bytes = float(_UNKNOWN_BYTES)

    def count(self, max_count: int) -> int:
        """Returns how many messages to ask for, of at most ``max_count``."""
        return max(1, min(max_count, int(MOUTHFUL_BYTES / self._size_bytes)))

    def taste(self, messages: Sequence[Message]) -> None:
        """Takes note of what an answer brought."""
        mean_bytes = sum(len(message.body) for message in messages) / len(messages)
        self._size_bytes = max(mean_bytes, 0.75 * self._size_bytes, 1.0)
