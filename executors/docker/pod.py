"""What an attempt makes on the engine: its network, its containers, the files that go in and come out.

Everything is made before the warden's promise is asked for, and nothing starts before it is given: what the warden then
finds by its labels is all that could ever run.
"""

import asyncio
import re
import secrets
import tarfile
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from executors.base import Attempt, Sink, Stream
from executors.docker import manifest
from executors.docker.address import is_local
from executors.docker.archives import Packer
from executors.docker.collecting import Collector
from executors.docker.engine import Engine
from executors.docker.errors import EngineError, EngineRefusedError
from executors.docker.images import Images
from executors.docker.permissions import has_host_paths, permitted
from executors.docker.reaper import Reaper, remove_all
from executors.docker.services import Service
from executors.errors import CollectFailedError, ImageError, StartFailedError
from executors.options import ExecutorOptions
from executors.specs import DockerSpec
from executors.strays import StrayHunter

_NAME_CHARACTERS = re.compile(r"[^A-Za-z0-9_.-]+")
#: From one try for a network to the next, in seconds: engines have a small number of them.
_NETWORK_RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class Tools:
    """What all attempts share."""

    engine: Engine
    images: Images
    reaper: Reaper
    options: ExecutorOptions
    strays: StrayHunter

    async def permitted(self, spec: DockerSpec) -> DockerSpec:
        """Returns the spec, its paths of the machine as they really are now.

        Raises:
            SpecRefusedError: it asks for what the ant does not allow.
        """
        check = partial(permitted, spec, self.options, is_local=is_local(self.engine.url))
        return await asyncio.to_thread(check) if has_host_paths(spec) else check()


class Pod:
    """The containers of one attempt and their network. ``name`` is the main container's."""

    def __init__(self, attempt: Attempt, spec: DockerSpec, sink: Sink, tools: Tools) -> None:
        self._attempt = attempt
        self._spec = spec
        self._sink = sink
        self._tools = tools
        self._engine = tools.engine
        task = _NAME_CHARACTERS.sub("-", attempt.task_type)[:40]
        self.name = f"formicary-{attempt.job_id[:8]}-{task}-{attempt.number}-{secrets.token_hex(4)}"
        self._network: str | None = None
        #: What was made, or is being made, by name.
        self._containers: list[str] = []
        self._making: set[asyncio.Task[str]] = set()
        self._plan: manifest.Plan | None = None
        self._is_admitted = False

    async def prepare(self) -> None:
        """Makes everything, starts the services and waits for them; the main container only needs to be started.

        Raises:
            ImageError: an image cannot be had.
            ServiceError: a service did not get ready.
            StartFailedError: the engine would not, or the warden.
        """
        facts = await self._tools.images.ensure(self._spec.container, self._sink)
        for service in self._spec.services:
            await self._tools.images.ensure(service, self._sink)
        if self._spec.services:
            self._network = await self._make_network()
        for service in self._spec.services:
            config = manifest.service_config(service, self._attempt, self._need_network(), self._tools.options)
            await self._make(config, f"{self.name}-{service.name}")
        plan = manifest.main_plan(self._spec, self._attempt, facts, self._network, self._tools.options)
        self._plan = plan
        await self._make(plan.config, self.name)
        await self._join_network()
        await self._attempt.guard.admit()
        self._is_admitted = True
        await self._tools.permitted(self._spec)  # again: where a path leads may have changed since
        await self._start_services()
        await self._send_files(plan)

    def _need_network(self) -> str:
        assert self._network is not None
        return self._network

    async def _make_network(self) -> str:
        """Makes the private network; where the engine has none left, once another attempt gives one back."""
        config = manifest.network_config(self.name, self._attempt, self._tools.options)
        self._network = self.name
        is_told = False
        while True:
            try:
                await self._shielded(self._engine.create_network(config))
            except EngineRefusedError as exc:
                if "address pool" not in exc.reason:
                    raise
                if not is_told:
                    await self.note("the engine has no free network; waiting for one")
                is_told = True
                await asyncio.sleep(_NETWORK_RETRY_S)
            else:
                return self.name

    async def _make(self, config: manifest.Json, name: str) -> None:
        self._containers.append(name)
        try:
            await self._shielded(self._engine.create(config, name))
        except EngineRefusedError as exc:
            if exc.status == 404:
                raise ImageError(f"image {config['Image']}: {exc.reason}") from exc
            raise StartFailedError(str(exc)) from exc

    async def _shielded(self, call: Coroutine[Any, Any, str]) -> str:
        """Awaits a call that makes something; cancelled, it goes on, and the removal waits for it."""
        task = asyncio.ensure_future(call)
        self._making.add(task)
        task.add_done_callback(self._making.discard)
        return await asyncio.shield(task)

    async def _join_network(self) -> None:
        network = self._spec.container.network
        if not self._spec.services or not network:
            return
        try:
            await self._engine.connect(network, self.name)
        except EngineRefusedError as exc:
            raise StartFailedError(f"container.network {network}: {exc.reason}") from exc

    async def _start_services(self) -> None:
        services = [
            Service(self._engine, f"{self.name}-{spec.name}", self._need_network(), spec)
            for spec in self._spec.services
        ]
        for service in services:
            await service.start()
        for service in services:
            await service.ready(self._sink)

    async def _send_files(self, plan: manifest.Plan) -> None:
        """Sends folders, script and what the attempt's folder holds, as far as there is need."""
        folder = self._attempt.folder
        if not plan.needs_folders and not folder.is_made:
            return
        packer = Packer(plan.owner or (0, 0), is_open=plan.owner is None)
        for path in (manifest.ROOT, manifest.OUT, manifest.RESULT_DIR, manifest.TEMPORARY):
            packer.add_folder(path.lstrip("/"), 0o777)
        if plan.working_dir == manifest.WORK:
            packer.add_folder(manifest.WORK.lstrip("/"), 0o777)
        if plan.script_file is not None:
            packer.add_bytes(manifest.SCRIPT.lstrip("/"), plan.script_file)
        if folder.is_made:
            packer.add_tree(plan.working_dir.strip("/"), folder.path())
        await self._engine.send(self.name, packer.pieces())

    async def collect(self, paths: Sequence[str], *, with_results: bool) -> None:
        """Brings outputs, results and what the paths select to the attempt's folder."""
        try:
            await self._collect(paths, with_results)
        except (EngineError, tarfile.TarError, OSError) as exc:
            raise CollectFailedError(f"the files of the container cannot be had: {exc}") from exc

    async def _collect(self, paths: Sequence[str], with_results: bool) -> None:
        if self._plan is not None:
            collector = Collector(
                self._engine, self.name, self._plan.working_dir, self._spec.container.volumes, self._attempt, self.note
            )
            await collector.bring_results(with_results=with_results)
            await collector.bring(paths)

    async def send_script(self, lines: Sequence[str]) -> None:
        """Puts other lines in place of the script, for the next start of the main container."""
        packer = Packer()
        packer.add_bytes(manifest.SCRIPT.lstrip("/"), "\n".join(lines).encode() + b"\n")
        await self._engine.send(self.name, packer.pieces())

    async def remove(self) -> None:
        """Kills and removes everything, now or as soon as the engine is there again; safe twice."""
        containers, network = await self._taken()
        if not containers and network is None:
            return
        try:
            await remove_all(self._engine, containers, network)
        except EngineError:
            self._owe(containers, network)
            return
        if self._is_admitted:
            await self._attempt.guard.dismiss()

    async def leave(self) -> None:
        """Has what is dead removed in the background; where services may run still, removes everything."""
        if self._spec.services:
            await self.remove()
            return
        containers, network = await self._taken()
        if containers:
            self._owe(containers, network)

    def _owe(self, containers: list[str], network: str | None) -> None:
        dismiss = self._attempt.guard.dismiss if self._is_admitted else None
        self._tools.reaper.owe(containers, network, dismiss)

    async def _taken(self) -> tuple[list[str], str | None]:
        """Returns what is to be removed, once; all of it has been made by then."""
        if self._making:
            await asyncio.wait(set(self._making))
        containers, network = self._containers, self._network
        self._containers, self._network = [], None
        return containers, network

    async def note(self, text: str) -> None:
        """Adds a line of ours to the attempt's log."""
        await self._sink.write(Stream.SYSTEM, text.encode(errors="backslashreplace") + b"\n")
