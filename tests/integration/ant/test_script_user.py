"""An ant whose scripts run as somebody else: it moves their files, and it and its warden still rule over them."""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from brokers.memory import MemoryBroker
from brokers.memory_server import MemoryServer
from executors.cgroups import PIDS, Cgroups
from executors.options import ExecutorOptions
from executors.registry import make_executors
from formicary.ant.ant import Ant
from formicary.ant.config import AntConfig
from formicary.ant.warden import stat_fields
from formicary.artifacts.local import LocalStore
from formicary.bus import Bus
from formicary.clock import SystemClock
from formicary.events.orders import Fetch
from formicary.ids import AntId
from formicary.model.definition import ArtifactsPolicy
from formicary.testing.owner import ScriptedOwner, shell

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
_LONE_ANT = Path(__file__).with_name("lone_ant.py")


@pytest.fixture
def home() -> Iterator[Path]:
    """A home below folders that everybody can pass through, unlike those of pytest."""
    place = Path(tempfile.mkdtemp(prefix="formicary-", dir="/tmp"))
    place.chmod(0o711)
    yield place / "home"
    shutil.rmtree(place)


@pytest.fixture
async def store(home: Path) -> LocalStore:
    store = LocalStore(home / "artifacts")
    await store.open()
    return store


@pytest.fixture
async def owner(home: Path, store: LocalStore) -> AsyncIterator[ScriptedOwner]:
    broker = MemoryBroker(MemoryServer())
    await broker.open()
    bus = Bus(broker, "test", SystemClock())
    config = AntConfig(id=AntId("ant-1"), home=home, is_home_passable=True)
    executors = make_executors(("SHELL",), ExecutorOptions(shell_user="nobody", shell_folder=config.folder))
    ant = Ant(bus, executors, store, config, SystemClock())
    await ant.start()
    yield ScriptedOwner(bus, lambda: ant.registration.incarnation)
    await ant.stop()
    await broker.close()


async def test_files_come_to_the_user_and_go_from_it(owner: ScriptedOwner) -> None:
    policy = ArtifactsPolicy(paths=("data",))
    before = await owner.run(shell("mkdir data; echo from before > data/in.txt", artifacts=policy), task_no=9)
    fetch = Fetch("before", 9, 1, before.artifacts)
    script = (
        "id -un",
        "cat data/in.txt > data/out.txt && rm data/in.txt",
        'echo mine > "$FORMICARY_RESULT_DIR/kept"',
        'echo answer=42 >> "$FORMICARY_OUTPUT"',
    )
    end = await owner.run(shell(*script, fetches=(fetch,), artifacts=policy))

    assert (end.is_success, end.outputs) == (True, {"answer": 42})
    assert {artifact.name for artifact in end.artifacts} == {"data.tar.zst", "result/kept"}
    assert [text for _, _, _, text in await owner.lines()] == ["nobody"]


async def test_nothing_that_only_the_ant_may_read_can_be_had_by_links(owner: ScriptedOwner) -> None:
    script = ('! ln -sf /etc/shadow "$FORMICARY_OUTPUT" 2>/dev/null', "ln -s /etc/shadow leak", "mkdir d")
    policy = ArtifactsPolicy(paths=("leak",))
    end = await owner.run(shell(*script, artifacts=policy))

    assert (end.is_success, end.error_code) == (False, "ERR_ARTIFACT")
    assert end.outputs is None


async def test_nothing_of_an_attempt_is_left(owner: ScriptedOwner, home: Path) -> None:
    await owner.run(shell("mkdir -p a/b && touch a/b/c && chmod 0 a/b a", 'touch "$TMPDIR/x"'))

    async with asyncio.timeout(40):
        await _until(lambda: not list((home / "ants/ant-1/work").iterdir()))


@pytest.mark.parametrize(
    "escape",
    [
        "setsid sleep 300 &",
        pytest.param(
            "env -i setsid sleep 300 &",
            marks=pytest.mark.skipif(PIDS not in Cgroups.find().kept, reason="no control groups to be had here"),
        ),
    ],
)
async def test_the_warden_ends_scripts_of_another_user_whatever_they_did_to_escape(home: Path, escape: str) -> None:
    user = "48214:48214"
    arguments = (str(_LONE_ANT), str(home), f"{escape} sleep 300", "0", user)
    ant = await asyncio.create_subprocess_exec(sys.executable, *arguments)
    async with asyncio.timeout(60):
        await _until(lambda: len(_named("sleep", 48214)) == 2)
        ant.kill()
        await ant.wait()
        await _until(lambda: not _named("sleep", 48214))


async def _until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110 - processes of others die without telling us
        await asyncio.sleep(0.01)


def _named(name: str, uid: int) -> list[int]:
    """Returns the live processes of a user that run a program."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        fields = stat_fields(entry.name)
        try:
            is_wanted = entry.stat().st_uid == uid and (entry / "comm").read_text().strip() == name
        except OSError:
            continue
        if is_wanted and fields and fields[0] not in "ZX":
            found.append(int(entry.name))
    return found
