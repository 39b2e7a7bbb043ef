"""DOCKER: the executor, in front of the engine."""

from collections.abc import Sequence
from pathlib import Path

from executors.base import Attempt, Executor, Outcome, Reason, Run, Sink
from executors.docker.address import engine_url, fault_of
from executors.docker.engine import Engine
from executors.docker.images import Images
from executors.docker.manifest import check_spec
from executors.docker.pod import Tools
from executors.docker.reaper import Reaper
from executors.docker.run import DockerRun
from executors.errors import ExecutorError, SpecRefusedError
from executors.options import ExecutorOptions
from executors.specs import DockerSpec
from executors.strays import StrayHunter


class DockerExecutor(Executor):
    """Runs each attempt in a container of its own, with services beside it.

    The container has the attempt's variables, and its image's; files go in and out as archives, so it needs no share of
    this machine's disk. ``stop`` sends TERM to all its processes; its ``after_script`` runs all the same, in the same
    container, unless the grace is 0. Everything an attempt makes carries labels, and is removed with it.
    """

    methods = ("DOCKER",)
    is_elsewhere = True

    def __init__(self, options: ExecutorOptions | None = None) -> None:
        self._options = options or ExecutorOptions()
        self._engine = Engine(engine_url(self._options.docker_host), self._options.docker_silence_s)
        images = Images(self._engine, self._options.docker_logins, self._options.docker_progress_s)
        self._reaper = Reaper(self._engine)
        self._tools = Tools(self._engine, images, self._reaper, self._options, StrayHunter())

    async def check(self) -> None:
        """Proves that an engine answers."""
        if fault := fault_of(self._engine.url):
            raise ExecutorError(fault)
        if not self._has_socket():
            message = f"DOCKER needs an engine, and there is no {self._engine.url}"
            raise ExecutorError(f"{message}; start one, or set DOCKER_HOST")
        try:
            await self._engine.ping()
        except ExecutorError as exc:
            raise ExecutorError(f"DOCKER needs an engine: {exc}; start it, or set DOCKER_HOST") from exc
        self._reaper.start()

    def _has_socket(self) -> bool:
        scheme, _, path = self._engine.url.partition("://")
        return scheme != "unix" or Path(path).exists()

    async def start(self, attempt: Attempt, sink: Sink) -> Run:
        """Checks the spec and sets the attempt on its way: images and services take their time."""
        spec = attempt.spec
        if not isinstance(spec, DockerSpec):
            raise SpecRefusedError(f"DOCKER needs a DockerSpec, not {type(spec).__name__}")
        check_spec(spec, attempt)
        handle = DockerRun(attempt, await self._tools.permitted(spec), sink, self._tools)
        handle.begin()
        return Run(attempt, sink, handle)

    async def wait(self, run: Run) -> Outcome:
        """Returns how the container ended."""
        handle: DockerRun = run.handle
        return await handle.ending.wait()

    async def stop(self, run: Run, grace_s: float, reason: Reason) -> None:
        """Ends the container, or else its ``after_script``; returns when the attempt is over."""
        handle: DockerRun | None = run.handle
        if handle is not None:
            await handle.stop(grace_s, reason)

    async def collect(self, run: Run, paths: Sequence[str], *, with_results: bool) -> None:
        """Brings outputs, results and what the paths select to the attempt's folder."""
        handle: DockerRun = run.handle
        await handle.collect(paths, with_results=with_results)

    async def cleanup(self, run: Run) -> None:
        """Ends what still runs, and removes all that the attempt made."""
        handle: DockerRun | None = run.handle
        if handle is not None:
            await handle.remove()

    async def close(self) -> None:
        """Closes the connections to the engine."""
        await self._reaper.close()
        await self._engine.close()
