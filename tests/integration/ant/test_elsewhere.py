"""Attempts that run where the ant's folder is not: their files are taken along and brought back."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from executors.base import Attempt, Outcome, Reason, Run, Sink
from executors.errors import CollectFailedError, ExecutorError, ImageError, ServiceError
from executors.shell import ShellExecutor
from executors.testing import LazyFolder
from formicary.ant.ant import Ant
from formicary.ant.config import AntConfig
from formicary.artifacts.blobs import Blobs
from formicary.artifacts.local import LocalStore
from formicary.bus import Bus
from formicary.clock import SystemClock
from formicary.events.orders import Fetch
from formicary.ids import AntId, Incarnation, place_of
from formicary.model.definition import ArtifactsPolicy, ArtifactWhen, CachePolicy
from formicary.model.holders import Holder
from formicary.model.jobs import ArtifactRef
from formicary.testing.owner import ScriptedOwner, shell


class FarShell(ShellExecutor):
    """Runs scripts in a folder that the ant does not know."""

    is_elsewhere = True

    def __init__(self, far: Path) -> None:
        super().__init__()
        self.folder = LazyFolder(far)
        self.collected: list[tuple[tuple[str, ...], bool]] = []
        self.is_stuck = asyncio.Event()
        self.error: ExecutorError | None = None
        self.hangs = False
        self.told_to_stop = asyncio.Event()
        self.has_ended = asyncio.Event()
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.over: asyncio.Queue[Sequence[str]] = asyncio.Queue()

    def lives_over(self, lives: Sequence[str]) -> None:
        self.over.put_nowait(lives)

    async def start(self, attempt: Attempt, sink: Sink) -> Run:
        if isinstance(self.error, ImageError | ServiceError):
            raise self.error
        if attempt.folder.is_made:
            shutil.copytree(attempt.folder.path(), self.folder.path(), dirs_exist_ok=True)
        self.folder.result_dir.mkdir(parents=True)
        far = {"FORMICARY_OUTPUT": str(self.folder.output_file), "FORMICARY_RESULT_DIR": str(self.folder.result_dir)}
        environment = {**attempt.environment, **far}
        run = await super().start(replace(attempt, folder=self.folder, environment=environment), sink)
        return Run(attempt, sink, run.handle)

    async def wait(self, run: Run) -> Outcome:
        outcome = await super().wait(run)
        self.has_ended.set()
        await self.goes_on.wait()
        return outcome

    async def stop(self, run: Run, grace_s: float, reason: Reason) -> None:
        await super().stop(run, grace_s, reason)
        self.told_to_stop.set()

    async def collect(self, run: Run, paths: Sequence[str], *, with_results: bool) -> None:
        self.collected.append((tuple(paths), with_results))
        if self.hangs:
            self.is_stuck.set()
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        near = run.attempt.folder
        for path in paths:
            if not (self.folder.path() / path).exists():
                raise CollectFailedError(f"there is no {path}")
            shutil.copy(self.folder.path() / path, near.path() / path)
        if with_results:
            shutil.copytree(self.folder.result_dir, near.result_dir, dirs_exist_ok=True)
        if self.folder.output_file.exists():
            near.path()
            shutil.copy(self.folder.output_file, near.output_file)


@pytest.fixture
def far(tmp_path: Path) -> FarShell:
    return FarShell(tmp_path / "far")


@pytest.fixture
async def ant(bus: Bus, store: LocalStore, tmp_path: Path, far: FarShell) -> AsyncIterator[Ant]:
    ant = Ant(bus, {"SHELL": far}, store, AntConfig(id=AntId("ant-1"), home=tmp_path / "home"), SystemClock())
    await ant.start()
    yield ant
    await ant.stop()


async def test_what_was_fetched_is_there_and_what_is_left_comes_back(
    owner: ScriptedOwner, store: LocalStore, tmp_path: Path
) -> None:
    (tmp_path / "in.txt").write_text("brought along")
    digest, size = await Blobs(store).add(tmp_path / "in.txt", Holder(owner.job_id, 7, 1))
    fetch = Fetch("before", 7, 1, (ArtifactRef(name="in.txt", sha256=digest, size_bytes=size),))
    script = 'cat in.txt > out.txt; echo more > "$FORMICARY_RESULT_DIR/r.txt"; echo rows=3 > "$FORMICARY_OUTPUT"'

    end = await owner.run(shell(script, fetches=(fetch,), artifacts=ArtifactsPolicy(paths=("out.txt",))))

    assert end.outputs == {"rows": 3}
    assert [(each.name, each.size_bytes) for each in end.artifacts] == [("out.txt", 13), ("result/r.txt", 5)]


@pytest.mark.parametrize(
    ("when", "script", "asked"),
    [
        (ArtifactWhen.ON_SUCCESS, "true", (("a",), True)),
        (ArtifactWhen.ON_SUCCESS, "false", ((), False)),
        (ArtifactWhen.ON_FAILURE, "true", ((), False)),
        (ArtifactWhen.ON_FAILURE, "false", (("a",), True)),
    ],
)
async def test_only_what_this_end_keeps_is_brought_back(
    owner: ScriptedOwner, far: FarShell, when: ArtifactWhen, script: str, asked: tuple[tuple[str, ...], bool]
) -> None:
    await owner.run(shell("touch a", script, artifacts=ArtifactsPolicy(paths=("a",), when=when)))

    assert far.collected == [asked]


async def test_a_cache_is_taken_along_and_brought_back(owner: ScriptedOwner, far: FarShell) -> None:
    policy = CachePolicy(key="k", paths=("dep",))
    first = await owner.run(shell("echo content > dep", cache=policy))
    assert first.cache is not None
    assert first.cache.stored_bytes

    shutil.rmtree(far.folder.path())
    shutil.rmtree(far.folder.result_dir)
    second = await owner.run(shell("cat dep", cache=policy), task_no=1)

    assert (second.is_success, second.cache and second.cache.result) == (True, "hit")
    assert far.collected == [(("dep",), True), ((), True)]


async def test_a_cache_that_cannot_be_brought_back_fails_nothing(owner: ScriptedOwner, far: FarShell) -> None:
    end = await owner.run(shell("true", cache=CachePolicy(key="k", paths=("dep",))))

    assert (end.is_success, far.collected) == (True, [(("dep",), True), ((), True)])
    assert end.cache is not None
    assert "could not be brought back: there is no" in str(end.cache.problem)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ImageError("no image"), "ERR_IMAGE"),
        (ServiceError("no service"), "ERR_SERVICE"),
        (CollectFailedError("no files"), "ERR_ARTIFACT"),
    ],
)
async def test_an_error_of_an_executor_names_its_code(
    owner: ScriptedOwner, far: FarShell, error: ExecutorError, code: str
) -> None:
    far.error = error

    end = await owner.run(shell("true"))

    assert (end.reason, end.error_code, end.error_message) == ("error", code, str(error))


async def test_a_failed_task_keeps_its_exit_code_when_its_files_cannot_be_had(
    owner: ScriptedOwner, far: FarShell
) -> None:
    far.error = CollectFailedError("the machine is gone")

    end = await owner.run(shell("exit 7"))

    assert (end.reason, end.exit_code, end.error_code) == ("exited", 7, None)
    assert ("system", "the machine is gone") in [(stream, text) for _, _, stream, text in await owner.lines()]


async def test_a_stop_ends_the_bringing_back_too(owner: ScriptedOwner, far: FarShell) -> None:
    far.hangs = True
    await owner.send(owner.dispatch(shell("true")))
    await far.is_stuck.wait()

    await owner.send(owner.cancel())

    assert (await owner.finished()).reason == "cancelled"


async def test_a_stop_between_the_end_and_the_bringing_back_is_not_forgotten(
    owner: ScriptedOwner, far: FarShell
) -> None:
    far.hangs = True
    far.goes_on.clear()
    await owner.send(owner.dispatch(shell("true")))
    await far.has_ended.wait()

    await owner.send(owner.cancel())
    await far.told_to_stop.wait()
    far.goes_on.set()

    assert ((await owner.finished()).reason, far.collected) == ("cancelled", [])


async def test_every_life_of_an_ant_names_the_place_of_its_executor(
    bus: Bus, store: LocalStore, tmp_path: Path, far: FarShell
) -> None:
    far.place = "0123456789"
    ant = Ant(bus, {"SHELL": far}, store, AntConfig(id=AntId("ant-1"), home=tmp_path / "home"), SystemClock())
    owner = ScriptedOwner(bus, lambda: ant.registration.incarnation)
    await ant.start()
    first = ant.registration.incarnation

    assert (await owner.run(shell('test "$FORMICARY_ANT" = ' + first))).is_success
    await owner.say(lost=(first, Incarnation("ant-2@1")))
    assert await far.over.get() == (), "no ant of this id died before"
    assert await far.over.get() == (first, "ant-2@1")
    await ant.stop()

    assert ant.registration.incarnation != first
    assert (place_of(first), place_of(ant.registration.incarnation)) == (far.place, far.place)
