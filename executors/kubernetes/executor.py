"""KUBERNETES: the executor, which composes the parts of this folder."""

import asyncio
import os
import secrets
import socket
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final

from executors.base import Attempt, Executor, Outcome, Reason, Run, Sink
from executors.errors import ExecutorError, SpecRefusedError
from executors.excerpts import without_last_line
from executors.kubernetes.access import check_access
from executors.kubernetes.cluster import Cluster
from executors.kubernetes.collecting import collect
from executors.kubernetes.errors import ApiRefusedError, ApiUnreachableError
from executors.kubernetes.labels import session_selector
from executors.kubernetes.manifest import Plan, has_script, pod_manifest
from executors.kubernetes.options import KubernetesOptions
from executors.kubernetes.reaper import Reaper
from executors.kubernetes.run import PodRun
from executors.kubernetes.starting import Patience
from executors.kubernetes.watch import PodWatch
from executors.options import ExecutorOptions
from executors.specs import KubernetesSpec

Pod = dict[str, Any]  # a pod as the cluster's JSON has it

#: Lines of a broken service's log that its error quotes.
_QUOTED_LINES: Final = 5
_QUOTED_BYTES: Final = 16 * 1024


class KubernetesExecutor(Executor):
    """Runs each attempt in a pod of its own.

    All attempts of a task have the same pod name, so that two never run at once in one place, whatever became of the
    ant that ran the former one; and a task never changes its place. ``cleanup`` returns when the cluster has confirmed
    that the pod is gone.
    """

    methods = ("KUBERNETES",)
    is_elsewhere = True

    def __init__(self, options: ExecutorOptions | None = None) -> None:
        self._after_limit_s = (options or ExecutorOptions()).shell_after_script_limit_s
        self._options: KubernetesOptions = (options or ExecutorOptions()).kubernetes
        self.shortcut_bytes = self._options.direct_bytes
        self._cluster = Cluster(self._options.namespace, self._options.kubeconfig)
        self._session = secrets.token_hex(8)
        self._runs: dict[str, PodRun] = {}
        self._owner_reference: Mapping[str, str] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._errands: set[asyncio.Task[None]] = set()
        self._reaper = Reaper(self._cluster, self._options.owner, self._session, self._is_wanted)
        self._watch = PodWatch(
            self._cluster,
            session_selector(self._session),
            on_pod=self._on_pod,
            on_gone=self._on_gone,
            on_listed=self._on_listed,
        )

    async def check(self) -> None:
        """Proves that a cluster lets the ant make pods; removes what a former process of its owner left."""
        await self._cluster.open()
        await check_access(self._cluster)
        self.place = await self._cluster.place()
        self._owner_reference = await self._own_pod()
        await self._reaper.sweep()
        self._reaper.start()
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch.run(), name="pod watch")

    def lives_over(self, lives: Sequence[str]) -> None:
        """Has the pods of lives removed that were counted lost."""
        self._reaper.note_lost(lives)

    async def start(self, attempt: Attempt, sink: Sink) -> Run:
        """Has the pod made; what that needs is waited for in ``wait``."""
        spec = attempt.spec
        if not isinstance(spec, KubernetesSpec):
            raise SpecRefusedError(f"KUBERNETES needs a KubernetesSpec, not {type(spec).__name__}")
        plan = Plan(
            attempt=attempt,
            spec=spec,
            session=self._session,
            token=secrets.token_hex(8),
            mark=secrets.token_hex(16),
            has_inputs=attempt.folder.is_made and has_script(spec),
            after_limit_s=self._after_limit_s,
            owner_reference=self._owner_reference,
        )
        manifest = pod_manifest(plan, self._options)
        name = manifest["metadata"]["name"]
        patience = Patience(spec, self._options, lambda service: self._last_words(name, service))
        run = PodRun(self._cluster, plan, manifest, sink, patience)
        self._runs[run.name] = run
        run.begin()
        return Run(attempt, sink, run)

    async def wait(self, run: Run) -> Outcome:
        """Returns how the task ended."""
        pod_run: PodRun = run.handle
        return await pod_run.ending.wait()

    async def stop(self, run: Run, grace_s: float, reason: Reason) -> None:
        """Ends the script, or else its pod."""
        pod_run: PodRun | None = run.handle
        if pod_run is not None:
            await pod_run.stop(grace_s, reason)

    async def collect(self, run: Run, paths: Sequence[str], *, with_results: bool) -> None:
        """Brings what the task left in its container."""
        await collect(run.handle, paths, with_results=with_results)

    async def cleanup(self, run: Run) -> None:
        """Removes the pod; returns when the cluster has confirmed it."""
        pod_run: PodRun | None = run.handle
        if pod_run is None:
            return
        await pod_run.stop(0, Reason.CANCELLED)
        await pod_run.remove()
        if self._runs.get(pod_run.name) is pod_run:
            del self._runs[pod_run.name]

    async def close(self) -> None:
        """Ends the watch and all connections; what still runs is a later process's to remove."""
        await self._reaper.close()
        watching, self._watching = self._watching, None
        tasks = {*self._errands, *([watching] if watching is not None else [])}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for run in list(self._runs.values()):
            await run.close()
        self._runs.clear()
        await self._cluster.close()

    def _on_pod(self, pod: Pod) -> None:
        if self._is_wanted(pod):
            self._runs[pod["metadata"]["name"]].update(pod)
        elif "deletionTimestamp" not in pod["metadata"]:
            # Made by a request that got no answer, after its attempt had been given up.
            self._spawn(self._reaper.remove(pod))

    def _is_wanted(self, pod: Pod) -> bool:
        """Whether a pod of this process belongs to an attempt that is not over."""
        run = self._runs.get(pod["metadata"]["name"])
        return run is not None and run.is_own(pod)

    def _on_gone(self, pod: Pod) -> None:
        if self._is_wanted(pod):
            self._runs[pod["metadata"]["name"]].removed(pod)

    def _on_listed(self, names: frozenset[str]) -> None:
        for run in self._runs.values():
            if run.is_created and run.name not in names:
                self._spawn(run.verify())

    def _spawn(self, errand: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    async def _own_pod(self) -> Mapping[str, str] | None:
        """Returns the ant's own pod as the owner of those that it makes, where it runs in their namespace."""
        if not self._cluster.is_inside:
            return None
        name = os.environ.get("HOSTNAME") or socket.gethostname()
        try:
            pod = await self._cluster.request("GET", self._cluster.pod_path(name))
        except ExecutorError:
            return None
        return {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": pod["metadata"]["uid"]}

    async def _last_words(self, pod: str, container: str) -> str:
        query = [("container", container), ("tailLines", str(_QUOTED_LINES)), ("limitBytes", str(_QUOTED_BYTES))]
        data = bytearray()
        try:
            async with self._cluster.stream(self._cluster.pod_path(pod) + "/log", query=query, idle_s=5) as pieces:
                async for piece in pieces:
                    data += piece
        except (ApiRefusedError, ApiUnreachableError):
            return ""
        text = data.decode(errors="replace")
        return (without_last_line(text) if len(data) >= _QUOTED_BYTES else text).strip()
