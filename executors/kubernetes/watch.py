"""One watch over the pods of this process: lists, follows, resumes where it broke off, lists again where it cannot.

One for all pods, since each watch holds a connection and a goroutine of the API server. Bookmarks keep the position new
in quiet times and tell a quiet connection from a dead one.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any, Final

import structlog

from executors.errors import ExecutorError
from executors.kubernetes.cluster import Cluster
from executors.kubernetes.errors import ApiRefusedError, ApiUnreachableError

log = structlog.get_logger(__name__)

Pod = dict[str, Any]  # a pod as the cluster's JSON has it

#: The server ends a watch after this, in seconds, and it is resumed.
WATCH_S: Final = 290
#: Bookmarks come about once a minute: a watch silent for longer is dead, in seconds.
_IDLE_S: Final = 150.0
_MIN_PAUSE_S: Final = 0.1
_MAX_PAUSE_S: Final = 5.0
_PAGE: Final = 500


class PodWatch:
    """Tells of every change of the selected pods, for ever.

    Args:
        on_pod: called with each new state of a pod.
        on_gone: called with the last state of a pod that was removed.
        on_listed: called with the names of all pods there are, after each list: others are gone.
        on_trouble: called with what keeps the watch from working, each time.
        version: where to go on from; None: with a list.
    """

    def __init__(
        self,
        cluster: Cluster,
        selector: str,
        *,
        on_pod: Callable[[Pod], None],
        on_gone: Callable[[Pod], None],
        on_listed: Callable[[frozenset[str]], None],
        on_trouble: Callable[[ExecutorError], None] = lambda error: None,
        version: str | None = None,
    ) -> None:
        self._cluster = cluster
        self._selector = selector
        self._on_pod = on_pod
        self._on_gone = on_gone
        self._on_listed = on_listed
        self._on_trouble = on_trouble
        self._version = version
        self._pause_s = _MIN_PAUSE_S

    async def run(self) -> None:
        """Watches until cancelled."""
        while True:
            try:
                await self.run_once()
                await asyncio.sleep(_MIN_PAUSE_S)
            except ApiRefusedError as exc:
                if exc.is_expired:
                    self._version = None
                    continue
                await self._rest(exc)
            except ApiUnreachableError as exc:
                await self._rest(exc)
            except Exception as exc:  # noqa: BLE001 - all attempts hang on it, whatever makes no sense or has a defect
                log.error("pod_watch_stumbled", error=repr(exc))
                self._version = None
                await self._rest(ExecutorError(f"the watch stumbled: {exc!r}"))

    async def run_once(self) -> None:
        """Lists where there is no position to go on from, then watches until the server or the connection ends it.

        Raises:
            ApiRefusedError: the position has expired, or the server refuses.
            ApiUnreachableError: the connection broke; the position is kept.
        """
        if self._version is None:
            self._version = await self._list()
        query = [
            ("watch", "true"),
            ("labelSelector", self._selector),
            ("resourceVersion", self._version),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", str(WATCH_S)),
        ]
        async with self._cluster.stream(self._cluster.pod_path(), query=query, idle_s=_IDLE_S) as pieces:
            rest = bytearray()
            async for piece in pieces:
                rest += piece
                if b"\n" in piece:
                    *lines, last = rest.split(b"\n")
                    rest = bytearray(last)
                    for line in lines:
                        self._hear(json.loads(line))

    async def _list(self) -> str:
        """Tells of all pods and returns the position of that list."""
        names: set[str] = set()
        query = [("labelSelector", self._selector), ("limit", str(_PAGE))]
        following = ""
        while True:
            page = query + ([("continue", following)] if following else [])
            answer = await self._cluster.request("GET", self._cluster.pod_path(), query=page)
            for pod in answer.get("items", ()):
                names.add(pod["metadata"]["name"])
                self._on_pod(pod)
            following = answer["metadata"].get("continue", "")
            if not following:
                break
        self._on_listed(frozenset(names))
        return str(answer["metadata"]["resourceVersion"])

    def _hear(self, event: dict[str, Any]) -> None:
        kind, thing = event.get("type"), event.get("object", {})
        if kind == "ERROR":
            raise ApiRefusedError.of(int(thing.get("code", 500)), thing)
        self._version = thing["metadata"]["resourceVersion"]
        self._pause_s = _MIN_PAUSE_S
        if kind in {"ADDED", "MODIFIED"}:
            self._on_pod(thing)
        elif kind == "DELETED":
            self._on_gone(thing)

    async def _rest(self, error: ExecutorError) -> None:
        self._on_trouble(error)
        await asyncio.sleep(self._pause_s)
        self._pause_s = min(self._pause_s * 2, _MAX_PAUSE_S)
