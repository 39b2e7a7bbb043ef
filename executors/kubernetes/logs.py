"""Follows the log of a pod's main container into a sink, over lost connections, until the container has ended."""

import asyncio
import math
from collections.abc import Callable
from typing import Final

from executors.base import Sink, Stream
from executors.errors import ExecutorError
from executors.kubernetes.changes import Changes
from executors.kubernetes.cluster import Cluster
from executors.kubernetes.errors import ApiRefusedError, ApiUnreachableError
from executors.kubernetes.log_lines import LogLines, MarkFinder
from executors.kubernetes.manifest import MAIN
from executors.output import PIECE_BYTES

#: A log may be silent for hours: then the connection is made anew, in seconds.
_IDLE_S: Final = 300.0
#: How long the log of a container that has ended is asked for in vain, in seconds: its node may be gone.
_GIVE_UP_S: Final = 20.0
#: How long a stream that does not end is listened to after the container has ended, in seconds.
_QUIET_S: Final = 2.0
_MIN_PAUSE_S: Final = 0.1
_MAX_PAUSE_S: Final = 5.0


class LogFollower:
    """Reads one container's log from its beginning, while it is written: what is read later may have been rotated away.

    Args:
        has_ended: whether the container has ended, so that what is there is all there will be.
        changes: what announces that this may have become true.
        on_mark: called with what the wrapper says when it waits for its results to be collected.
    """

    def __init__(
        self,
        cluster: Cluster,
        pod: str,
        sink: Sink,
        mark: str,
        *,
        has_ended: Callable[[], bool],
        changes: Changes,
        on_mark: Callable[[str], None],
    ) -> None:
        self._cluster = cluster
        self._pod = pod
        self._sink = sink
        self._lines = LogLines()
        self._marks = MarkFinder(mark)
        self._has_ended = has_ended
        self._changes = changes
        self._on_mark = on_mark
        self._is_told = False
        self._is_writing = False
        self._heard_at = 0.0

    async def run(self) -> None:
        """Returns when all of the log is in the sink; raises what the sink raises."""
        pause_s = _MIN_PAUSE_S
        give_up_at = math.inf
        while True:
            was_ended = self._has_ended()
            trouble = await self._try(is_followed=not was_ended)
            if was_ended and (trouble is None or _is_lost(trouble)):
                break
            if was_ended:
                give_up_at = min(give_up_at, asyncio.get_running_loop().time() + _GIVE_UP_S)
            if trouble is not None and asyncio.get_running_loop().time() > give_up_at:
                words = f"the end of the log could not be read: {trouble}\n"
                await self._sink.write(Stream.SYSTEM, words.encode())
                break
            await asyncio.sleep(pause_s)
            pause_s = _MIN_PAUSE_S if trouble is None else min(pause_s * 2, _MAX_PAUSE_S)
        await self._write(self._marks.rest())

    async def _try(self, *, is_followed: bool) -> ExecutorError | None:
        """Reads until the stream ends, and returns what kept it from that."""
        try:
            await (self._follow() if is_followed else self._read())
        except (ApiRefusedError, ApiUnreachableError) as exc:
            return exc
        return None

    async def _follow(self) -> None:
        """Reads what comes until the stream ends; since some do not, until the container has and all is quiet."""
        reading = asyncio.ensure_future(self._read(("follow", "true")))
        quiet = asyncio.ensure_future(self._has_gone_quiet())
        try:
            await asyncio.wait({reading, quiet}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()
        finally:
            reading.cancel()
            quiet.cancel()
            await asyncio.wait({reading, quiet})

    async def _has_gone_quiet(self) -> None:
        await self._changes.until(self._has_ended)
        self._heard_at = asyncio.get_running_loop().time()
        while True:
            rest_s = self._heard_at + _QUIET_S - asyncio.get_running_loop().time()
            if rest_s <= 0 and not self._is_writing:
                return
            await asyncio.sleep(max(rest_s, _MIN_PAUSE_S))

    async def _read(self, *more: tuple[str, str]) -> None:
        """Reads from where the last stream broke off until this one ends."""
        query = [("container", MAIN), ("timestamps", "true"), *more]
        if since := self._lines.since():
            query.append(("sinceTime", since))
        self._lines.resume()
        path = self._cluster.pod_path(self._pod) + "/log"
        async with self._cluster.stream(path, query=query, idle_s=_IDLE_S) as pieces:
            async for piece in pieces:
                self._heard_at = asyncio.get_running_loop().time()
                self._is_writing = True
                await self._take(piece)
                self._is_writing = False

    async def _take(self, piece: bytes) -> None:
        await self._write(self._marks.feed(self._lines.feed(piece)))
        if self._marks.found is not None and not self._is_told:
            self._is_told = True
            self._on_mark(self._marks.found)

    async def _write(self, data: bytes) -> None:
        for start in range(0, len(data), PIECE_BYTES):
            await self._sink.write(Stream.STDOUT, data[start : start + PIECE_BYTES])


def _is_lost(trouble: ExecutorError) -> bool:
    """Whether the pod is gone, and its log with it."""
    return isinstance(trouble, ApiRefusedError) and trouble.status == 404
