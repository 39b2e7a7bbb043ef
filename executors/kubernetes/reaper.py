"""Removes the pods that nobody looks after any more, at the start and then regularly.

A pod is reaped when it is certain that no living ant uses it:

- a former process of this ant's owner made it, and it was there when this one started: there is one at a time;
- the life of the ant that made it was counted lost, which is final;
- it should have ended long ago by its own deadline, which counts from its creation where no node ever took it;
- this process made it, by a request that got no answer, and gave the attempt up.
"""

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final

import structlog

from executors.kubernetes.cluster import Cluster
from executors.kubernetes.errors import ApiRefusedError, ApiUnreachableError
from executors.kubernetes.labels import LIFE, OWNER, SESSION, label_value, life_value, managed_selector

log = structlog.get_logger(__name__)

Pod = dict[str, Any]  # a pod as the cluster's JSON has it

#: From one sweep to the next, in seconds.
SWEEP_EVERY_S: Final = 60.0
#: How long after its deadline a pod is left to the cluster and to whoever made it, in seconds.
EXPIRY_MARGIN_S: Final = 300.0
#: Lost lives that are remembered.
_LOST_KEPT: Final = 10_000
_PAGE: Final = 500


class Reaper:
    """Sweeps one namespace for as long as an ant uses it.

    Args:
        owner: whose former pods to remove; empty: nobody's.
        session: of this process, whose pods are judged by ``is_wanted``.
        every_s: from one sweep to the next.
        margin_s: how long after its deadline a pod is left to the cluster and to whoever made it.
    """

    def __init__(
        self,
        cluster: Cluster,
        owner: str,
        session: str,
        is_wanted: Callable[[Pod], bool],
        *,
        every_s: float = SWEEP_EVERY_S,
        margin_s: float = EXPIRY_MARGIN_S,
    ) -> None:
        self._cluster = cluster
        self._owner = label_value(owner)
        self._session = session
        self._is_wanted = is_wanted
        self._every_s = every_s
        self._margin_s = margin_s
        self._lost: dict[str, None] = {}
        #: Identities of the pods that this owner's former processes had left at the start; None before the first sweep.
        self._former: set[str] | None = None
        self._news = asyncio.Event()
        self._sweeping: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to sweep; safe twice."""
        if self._sweeping is None:
            self._sweeping = asyncio.create_task(self._run(), name="pod reaper")

    async def close(self) -> None:
        """Stops. Safe twice and before ``start``."""
        sweeping, self._sweeping = self._sweeping, None
        if sweeping is not None:
            sweeping.cancel()
            await asyncio.wait({sweeping})

    def note_lost(self, lives: Iterable[str]) -> None:
        """Has the pods of lost lives removed, at once and whenever another one of theirs turns up."""
        new = [value for value in map(life_value, lives) if value not in self._lost and value]
        if not new:
            return
        self._lost.update(dict.fromkeys(new))
        while len(self._lost) > _LOST_KEPT:
            del self._lost[next(iter(self._lost))]
        self._news.set()

    async def sweep(self) -> list[str]:
        """Removes what is left now, without waiting until it is gone; returns the names.

        Raises:
            ExecutorError: the cluster does not tell what there is.
        """
        left: list[Pod] = []
        former: set[str] = set()
        query = [("labelSelector", managed_selector()), ("limit", str(_PAGE))]
        following = ""
        while True:
            page = query + ([("continue", following)] if following else [])
            answer = await self._cluster.request("GET", self._cluster.pod_path(), query=page)
            pods = [pod for pod in answer.get("items", ()) if "deletionTimestamp" not in pod["metadata"]]
            former |= {pod["metadata"]["uid"] for pod in pods if self._is_former(pod)}
            left += [pod for pod in pods if pod["metadata"]["uid"] in former or self._is_left(pod)]
            following = answer.get("metadata", {}).get("continue", "")
            if not following:
                break
        self._former = former
        await asyncio.gather(*(self.remove(pod) for pod in left))
        return [pod["metadata"]["name"] for pod in left]

    async def remove(self, pod: Pod) -> None:
        """Has a pod removed that nobody waits for; a later sweep makes sure."""
        options = {"gracePeriodSeconds": 1, "preconditions": {"uid": pod["metadata"]["uid"]}}
        try:
            await self._cluster.request("DELETE", self._cluster.pod_path(pod["metadata"]["name"]), body=options)
        except (ApiRefusedError, ApiUnreachableError):
            return

    def _is_left(self, pod: Pod) -> bool:
        labels = pod["metadata"].get("labels", {})
        if labels.get(SESSION) == self._session:
            return not self._is_wanted(pod)
        return labels.get(LIFE, "") in self._lost or has_expired(pod, self._cluster.server_time, self._margin_s)

    def _is_former(self, pod: Pod) -> bool:
        labels = pod["metadata"].get("labels", {})
        if not self._owner or labels.get(OWNER) != self._owner or labels.get(SESSION) == self._session:
            return False
        return self._former is None or pod["metadata"]["uid"] in self._former

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._every_s):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()
            try:
                names = await self.sweep()
            except (ApiRefusedError, ApiUnreachableError) as exc:
                log.warning("pods_not_swept", reason=str(exc))
                continue
            except Exception as exc:  # noqa: BLE001 - what makes no sense once must not end it for the ant's life
                log.error("pod_sweep_stumbled", error=repr(exc))
                continue
            if names:
                log.info("left_pods_removed", pods=names)


def has_expired(pod: Pod, now: datetime | None, margin_s: float = EXPIRY_MARGIN_S) -> bool:
    """Whether a pod is left over by its own deadline, at a time of the API server's clock; pure."""
    deadline_s = pod.get("spec", {}).get("activeDeadlineSeconds")
    since = pod.get("status", {}).get("startTime") or pod["metadata"].get("creationTimestamp")
    if now is None or deadline_s is None or since is None:
        return False
    age_s = (now - datetime.fromisoformat(since.replace("Z", "+00:00"))).total_seconds()
    return bool(age_s > deadline_s + margin_s)
