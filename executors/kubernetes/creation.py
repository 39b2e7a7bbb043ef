"""Makes the pod of an attempt, exactly one, whatever answers are lost.

All attempts of a task have the same pod name, so a cluster never holds two of them: one that is still there, of an
attempt whose ant died or was cut off, is removed first, and its removal confirmed.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from executors.errors import ExecutorError, SpecRefusedError, StartFailedError, UnschedulableError
from executors.kubernetes.cluster import Cluster
from executors.kubernetes.errors import ApiRefusedError, ApiUnreachableError
from executors.kubernetes.labels import ATTEMPT, MANAGED_BY, MANAGER, TOKEN
from executors.kubernetes.manifest import Plan

Pod = dict[str, Any]  # a pod as the cluster's JSON has it

_MIN_PAUSE_S: Final = 0.1
_MAX_PAUSE_S: Final = 5.0
#: How long the lack of a right is put up with, in seconds.
_RIGHTS_S: Final = 10.0
#: How often a former attempt's pod is looked at while it goes, in seconds.
_LOOK_S: Final = 0.2


class Creation:
    """The making of one pod."""

    def __init__(self, cluster: Cluster, manifest: Pod, plan: Plan, note: Callable[[str], Awaitable[None]]) -> None:
        self._cluster = cluster
        self._manifest = manifest
        self._plan = plan
        self._note = note
        self._name: str = manifest["metadata"]["name"]
        #: The pod's identity, once it was made.
        self.uid = ""
        self._refused_s = 0.0
        #: Whether it is certain now that the pod was made or was not.
        self.is_over = False

    @property
    def is_done(self) -> bool:
        """Whether the pod was made."""
        return bool(self.uid)

    def is_own(self, pod: Pod) -> bool:
        """Whether a pod is the one that was made here."""
        return bool(pod["metadata"].get("annotations", {}).get(TOKEN) == self._plan.token)

    async def run(self, is_stopped: Callable[[], bool]) -> Pod | None:
        """Returns the pod, or None where it was not made since it is not wanted any more.

        Raises:
            SpecRefusedError: the cluster does not take such a pod.
            UnschedulableError: the namespace's quota is used up.
            StartFailedError: the ant may not make pods, or a newer attempt of the task runs.
        """
        try:
            pod = await self._make(is_stopped)
        finally:
            self.is_over = True
        return pod

    async def _make(self, is_stopped: Callable[[], bool]) -> Pod | None:
        pause_s = _MIN_PAUSE_S
        is_unclear = False
        while is_unclear or not is_stopped():
            trouble: ExecutorError
            try:
                pod = await (self._look() if is_stopped() else self._try(is_stopped))
                if pod is not None:
                    self.uid = pod["metadata"]["uid"]
                    return pod
                is_unclear = False
                continue
            except ApiRefusedError as exc:
                self._refused_s = self._refused_s or asyncio.get_running_loop().time()
                if not self._may_pass(exc):
                    raise _refusal(exc) from exc
                trouble = exc  # which says nothing of an earlier request that got no answer
            except ApiUnreachableError as exc:
                is_unclear, trouble = True, exc
            await self._note(f"the pod is not made yet, trying again: {trouble}")
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _MAX_PAUSE_S)
        return None

    def _may_pass(self, exc: ApiRefusedError) -> bool:
        """Whether a refusal may be one that passes: rights are refused to all by a server that has just started."""
        if exc.is_about_rights and not _is_quota(exc):
            return asyncio.get_running_loop().time() < self._refused_s + _RIGHTS_S
        return exc.is_worth_retrying

    async def _try(self, is_stopped: Callable[[], bool]) -> Pod | None:
        """Returns the pod, or None where another one of its name was in the way.

        Raises:
            StartFailedError: the lease under which the attempt was accepted has ended.
        """
        await self._plan.attempt.guard.allow()
        path, query = self._cluster.pod_path(), [("fieldValidation", "Strict")]
        try:
            return await self._cluster.request("POST", path, query=query, body=self._manifest)
        except ApiRefusedError as exc:
            if exc.reason != "AlreadyExists":
                raise
        return await self._settle_former(is_stopped)

    async def _look(self) -> Pod | None:
        """Returns the pod that a request without an answer made, though it is not wanted any more; None: there is none.

        One that is made later still, as soon as the server gets to it, is removed by the watch.
        """
        try:
            pod = await self._cluster.request("GET", self._cluster.pod_path(self._name))
        except ApiRefusedError as exc:
            if exc.status == 404:
                return None
            raise
        return pod if self.is_own(pod) else None

    async def _settle_former(self, is_stopped: Callable[[], bool]) -> Pod | None:
        """Returns the pod of this name if it is our own, after a lost answer; otherwise removes it.

        Raises:
            StartFailedError: it belongs to a newer attempt, or to something else.
            ApiUnreachableError: there was no answer.
        """
        try:
            pod = await self._cluster.request("GET", self._cluster.pod_path(self._name))
        except ApiRefusedError as exc:
            if exc.status == 404:
                return None
            raise
        if self.is_own(pod):
            return pod
        labels = pod["metadata"].get("labels", {})
        number = labels.get(ATTEMPT, "")
        if labels.get(MANAGED_BY) != MANAGER or not number.isdigit():
            raise StartFailedError(f"a pod called {self._name} is there already, and it is not formicary's")
        if int(number) > self._plan.attempt.number:
            raise StartFailedError(f"attempt {number} of this task has a pod already: this one is out of date")
        await self._note(f"removing the pod of attempt {number} first")
        await self._remove(pod["metadata"]["uid"], is_stopped)
        return None

    async def _remove(self, uid: str, is_stopped: Callable[[], bool]) -> None:
        options = {"gracePeriodSeconds": 1, "preconditions": {"uid": uid}}
        path = self._cluster.pod_path(self._name)
        try:
            await self._cluster.request("DELETE", path, body=options)
            pod = {"metadata": {"uid": uid}}
            while not is_stopped() and pod["metadata"]["uid"] == uid:
                await asyncio.sleep(_LOOK_S)
                pod = await self._cluster.request("GET", path)
        except ApiRefusedError as exc:
            if exc.status not in {404, 409}:
                raise


def _is_quota(exc: ApiRefusedError) -> bool:
    return "exceeded quota" in exc.message


def _refusal(exc: ApiRefusedError) -> ExecutorError:
    if exc.status in {400, 422, 413}:
        return SpecRefusedError(f"the cluster does not take such a pod: {exc.message}")
    if exc.status == 403 and _is_quota(exc):
        return UnschedulableError(f"the namespace has no room for the pod: {exc.message}")
    return StartFailedError(f"the pod cannot be made: {exc}")
