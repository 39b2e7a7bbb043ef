"""One attempt's pod, from its creation to its confirmed deletion.

The driver creates the pod, waits until the task's container runs, gives it its inputs, follows its log and settles the
end. ``stop`` and ``cleanup`` remove the pod; the attempt is over only when the cluster has confirmed that.

Never with a grace of 0: that removes the pod's record, and its containers run on for a while.
"""

import asyncio
import math
from typing import Any, Final

from executors.base import Outcome, Reason, Sink, Stream
from executors.ending import Ending, stopped_outcome
from executors.errors import EvictedError, ExecutorError, ExecutorLostError, StartFailedError
from executors.kubernetes.changes import Changes
from executors.kubernetes.cluster import Cluster
from executors.kubernetes.creation import Creation
from executors.kubernetes.direct import DirectTransfer
from executors.kubernetes.errors import ApiRefusedError, ApiUnreachableError
from executors.kubernetes.logs import LogFollower
from executors.kubernetes.manifest import Plan
from executors.kubernetes.mark import Mark
from executors.kubernetes.starting import Patience
from executors.kubernetes.status import disruption_of, end_of, has_main_started
from executors.kubernetes.transfer import Transfer

Pod = dict[str, Any]  # a pod as the cluster's JSON has it

#: What the wrapper ends with when it has no place to work in.
NO_PLACE_CODE: Final = 125
#: How often a deletion that nobody confirmed is asked for again, in seconds.
_ASK_AGAIN_S: Final = 5.0
_MIN_PAUSE_S: Final = 0.1
_MAX_PAUSE_S: Final = 5.0


class PodRun:
    """State of one attempt; ``update`` and ``removed`` are called with what the watch sees."""

    def __init__(self, cluster: Cluster, plan: Plan, manifest: Pod, sink: Sink, patience: Patience) -> None:
        self.name: str = manifest["metadata"]["name"]
        self.plan = plan
        self.ending = Ending()
        self.transfer = Transfer(cluster, self.name)
        self.direct = DirectTransfer(cluster, self.name)
        self._cluster = cluster
        self._sink = sink
        self._patience = patience
        self._creation = Creation(cluster, manifest, plan, self.note)
        self._pod: Pod = {}
        self._is_removed = False
        self._mark: Mark | None = None
        self._stop_reason: Reason | None = None
        self._changes = Changes()
        self._driver: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Starts the driver."""
        self._driver = asyncio.create_task(self._drive(), name=f"pod {self.name}")

    def is_own(self, pod: Pod) -> bool:
        """Whether a pod is this run's, and not another attempt's of the same name."""
        return self._creation.is_own(pod)

    @property
    def is_created(self) -> bool:
        """Whether the pod was made, and is not known to be gone."""
        return self._creation.is_done and not self._is_removed

    @property
    def mark(self) -> Mark | None:
        """Returns what the container said when its script had ended."""
        return self._mark

    @property
    def can_be_collected(self) -> bool:
        """Whether the container waits for its results to be collected."""
        return self._mark is not None and not self._is_removed and end_of(self._pod) is None

    @property
    def is_going(self) -> bool:
        """Whether the pod was removed, or is about to be."""
        return self._is_over() or disruption_of(self._pod) is not None

    def update(self, pod: Pod) -> None:
        """Takes a new state of the pod."""
        self._pod = pod
        self._changes.announce()

    def removed(self, pod: Pod | None = None) -> None:
        """Notes that the cluster has removed the pod: nothing of it runs any more."""
        if pod is not None:
            self._pod = pod
        self._is_removed = True
        self._changes.announce()

    async def note(self, text: str) -> None:
        """Writes a line of the executor's own to the log."""
        await self._sink.write(Stream.SYSTEM, f"{text}\n".encode())

    async def stop(self, grace_s: float, reason: Reason) -> None:
        """Ends the script, keeping the container for what it leaves; after the grace the pod is removed."""
        if self.ending.is_over:
            return
        self._stop_reason = self._stop_reason or reason
        self._changes.announce()
        kill_at = asyncio.get_running_loop().time() + grace_s
        if grace_s > 0 and self.plan.has_script and has_main_started(self._pod):
            try:
                async with asyncio.timeout_at(kill_at):
                    if await self.transfer.interrupt():
                        await self.ending.over()
                        return
            except TimeoutError:
                pass
        await self._changes.until(lambda: self._creation.is_over or self.ending.is_over)
        if not self.ending.is_over:
            await self.remove(kill_at - asyncio.get_running_loop().time())
        await self.ending.over()

    async def remove(self, grace_s: float = 0) -> None:
        """Deletes the pod; returns when the cluster has confirmed it. Safe at any time and twice."""
        pause_s = _MIN_PAUSE_S
        options = {"gracePeriodSeconds": max(1, math.ceil(grace_s)), "preconditions": {"uid": self._creation.uid}}
        while self.is_created:
            try:
                await self._cluster.request("DELETE", self._cluster.pod_path(self.name), body=options)
            except ApiRefusedError as exc:
                if exc.status in {404, 409}:  # it is gone, or another pod has its name
                    return self.removed()
                await self._rest(pause_s)
            except ApiUnreachableError:
                await self._rest(pause_s)
            else:
                await self._rest(_ASK_AGAIN_S)
            pause_s = min(pause_s * 2, _MAX_PAUSE_S)
        return None

    async def verify(self) -> None:
        """Looks whether the pod is still there, after a list that lacked it."""
        try:
            pod = await self._cluster.request("GET", self._cluster.pod_path(self.name))
        except ApiRefusedError as exc:
            if exc.status == 404:
                self.removed()
        except ApiUnreachableError:
            return
        else:
            self.update(pod) if self.is_own(pod) else self.removed()

    async def close(self) -> None:
        """Ends the driver."""
        if self._driver is not None:
            self._driver.cancel()
            await asyncio.wait({self._driver})

    async def _rest(self, limit_s: float) -> None:
        """Waits for the confirmation, or for the time to ask again."""
        try:
            async with asyncio.timeout(limit_s):
                await self._changes.until(lambda: self._is_removed)
        except TimeoutError:
            return

    async def _drive(self) -> None:
        """Sees the attempt through to its end, whoever waits for it."""
        try:
            outcome = await self._run()
        except asyncio.CancelledError:
            self.ending.fail(ExecutorLostError("the ant ended before the pod did"))
            raise
        except Exception as exc:  # noqa: BLE001 - carried to whoever waits
            self.ending.fail(exc)
        else:
            self.ending.settle(outcome)
        self._changes.announce()

    async def _run(self) -> Outcome:
        if not self.plan.has_script and self.plan.attempt.folder.is_made:
            await self.note("without a script the task gets no artifacts of earlier tasks and no caches")
        pod = await self._creation.run(lambda: self._stop_reason is not None)
        if pod is None:
            return self._stopped()
        if not self._pod:
            self.update(pod)
        self._changes.announce()
        await self._changes.until(lambda: self._is_over() or has_main_started(self._pod), self._judge)
        if has_main_started(self._pod):
            await self._follow()
        if self._mark is not None and self._mark.is_terminated and self._mark.exit_code != 0:
            await self._changes.until(self._is_explained)
        return self._outcome()

    def _is_explained(self) -> bool:
        """Whether it is known who sent TERM; a script that sent it to the wrapper ends the container itself."""
        return self._stop_reason is not None or self.is_going

    def _is_over(self) -> bool:
        return self._is_removed or end_of(self._pod) is not None

    async def _follow(self) -> None:
        """Gives the script its inputs and reads the log to its end, or to the line that says that the script ended."""
        follower = LogFollower(
            self._cluster,
            self.name,
            self._sink,
            self.plan.mark,
            has_ended=self._is_over,
            changes=self._changes,
            on_mark=self._on_mark,
        )
        following = asyncio.create_task(follower.run())
        following.add_done_callback(lambda _: self._changes.announce())
        try:
            if self.plan.has_inputs and not self._is_over():
                await self._give_inputs()
            await self._changes.until(lambda: self._mark is not None or following.done())
            if following.done():
                following.result()
        finally:
            following.cancel()
            await asyncio.wait({following})

    async def _give_inputs(self) -> None:
        try:
            await self._give_big_inputs()
            await self.transfer.put(self.plan.attempt.folder.path(), self.plan.work_path)
        except ExecutorError:
            if self._stop_reason is None and not self._is_over():
                raise

    async def _give_big_inputs(self) -> None:
        """Has the container get them, or else the ant."""
        shortcut = self.plan.attempt.shortcut
        if shortcut is None or not shortcut.inputs or await self.direct.fetch(self.plan.work_path, shortcut.inputs):
            return
        if self._stop_reason is None and not self._is_over():
            await self.say_trouble()
            await shortcut.bring()

    async def say_trouble(self) -> None:
        """Says why big files take the long way, where it is worth a word."""
        if trouble := self.direct.trouble:
            await self.note(f"big files go through the ant, not straight to or from the artifact store: {trouble}")

    def _on_mark(self, text: str) -> None:
        self._mark = Mark.read(text)
        self._changes.announce()

    async def _judge(self) -> float | None:
        return None if self._stop_reason is not None else await self._patience.judge(self._pod)

    def _outcome(self) -> Outcome:
        if self._stop_reason is not None:
            return self._stopped()
        disruption = disruption_of(self._pod)
        if self._mark is not None:
            if disruption is not None and self._mark.exit_code != 0:
                raise disruption
            return self._mark.outcome()
        end = end_of(self._pod, is_wrapped=self.plan.is_wrapper_first)
        if isinstance(end, ExecutorError):
            raise end
        if end is None:
            raise disruption or EvictedError("somebody deleted the pod while its task ran")
        if self.plan.has_script and end.exit_code == NO_PLACE_CODE:
            raise StartFailedError(
                f"the script cannot begin: {self.plan.work_path} cannot be made or written to as the container's user"
            )
        return end

    def _stopped(self) -> Outcome:
        return stopped_outcome(self._stop_reason or Reason.CANCELLED)
