"""How much may be held in memory at once."""

from asyncio import Future, get_running_loop
from collections import deque


class ByteBudget:
    """Bytes that may be held at once; who asks waits in line. What is larger than all of it waits for all of it."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._free_bytes = limit_bytes
        self._line: deque[tuple[int, Future[None]]] = deque()

    async def take(self, size_bytes: int) -> int:
        """Returns what has to be given back: once, whatever happens."""
        share = min(size_bytes, self._limit_bytes)
        if not self._line and share <= self._free_bytes:
            self._free_bytes -= share
            return share
        turn: Future[None] = get_running_loop().create_future()
        self._line.append((share, turn))
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self.give_back(share)
            self._serve()
            raise
        return share

    def give_back(self, share: int) -> None:
        """Lets the next in line have it."""
        self._free_bytes += share
        self._serve()

    def _serve(self) -> None:
        while self._line:
            share, turn = self._line[0]
            if turn.done():
                self._line.popleft()
            elif share <= self._free_bytes:
                self._line.popleft()
                self._free_bytes -= share
                turn.set_result(None)
            else:
                return
