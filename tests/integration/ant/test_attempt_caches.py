"""What an ant does with the cache of an attempt."""

import asyncio
from pathlib import Path
from typing import Any

from executors.base import Stream
from formicary.artifacts.base import ArtifactStoreUnavailableError, Stored
from formicary.artifacts.blobs import Blobs
from formicary.artifacts.caches import ROOT
from formicary.artifacts.local import LocalStore
from formicary.bus import Bus
from formicary.events.orders import Fetch, Order
from formicary.events.tasks import TaskFinished, TaskStarted
from formicary.model.definition import ArtifactsPolicy, CachePolicy
from formicary.model.holders import Holder
from formicary.model.jobs import ArtifactRef, CacheRecord, CacheResult
from formicary.testing.owner import ScriptedOwner, shell

#: Fills the folder ``deps`` where it is missing, and says so.
INSTALL = ("test -d deps || { echo installing; mkdir deps; echo content > deps/file; }", "cat deps/file")


def cached(*script: str, key: str = "k1", paths: tuple[str, ...] = ("deps",), **changes: Any) -> Order:
    policy = {"restore_keys": changes.pop("restore_keys", ()), "key_paths": changes.pop("key_paths", ())}
    expires_after_s = changes.pop("expires_after_s", None)
    return shell(*script, cache=CachePolicy(key=key, paths=paths, expires_after_s=expires_after_s, **policy), **changes)


def record(end: TaskFinished) -> CacheRecord:
    assert end.cache is not None
    return end.cache


async def system_lines(owner: ScriptedOwner, task_no: int) -> list[str]:
    lines = await owner.lines()
    return [text for _, number, stream, text in lines if (number, stream) == (task_no, Stream.SYSTEM)]


async def fetch_of(owner: ScriptedOwner, store: LocalStore, path: Path, name: str) -> Fetch:
    """Stores a file as an artifact of an earlier task."""
    sha256, size_bytes = await Blobs(store).add(path, Holder(owner.job_id, 9, 1))
    return Fetch("before", 9, 1, (ArtifactRef(name=name, sha256=sha256, size_bytes=size_bytes),))


async def stored_names(store: LocalStore) -> list[str]:
    return [name async for name in store.list(ROOT)]


async def test_the_second_run_finds_what_the_first_one_stored(owner: ScriptedOwner, store: LocalStore) -> None:
    first = await owner.run(cached(*INSTALL))
    assert first.is_success
    size_bytes = record(first).stored_bytes
    assert size_bytes
    assert record(first) == CacheRecord(key="k1", result=CacheResult.MISS, stored_bytes=size_bytes)

    second = await owner.run(cached(*INSTALL), task_no=1)
    assert record(second) == CacheRecord(key="k1", result=CacheResult.HIT, restored_key="k1", restored_bytes=size_bytes)
    assert [(number, text) for _, number, _, text in await owner.lines() if text == "installing"] == [(0, "installing")]
    assert "cache 'k1': restored, 2 entries" in (await system_lines(owner, 1))[0]
    assert len(await stored_names(store)) == 1


async def test_a_new_key_begins_with_the_newest_that_a_restore_key_finds_and_is_stored(owner: ScriptedOwner) -> None:
    await owner.run(cached(*INSTALL, key="deps-1"))
    second = await owner.run(
        cached(*INSTALL, "echo more > deps/more", key="deps-2", restore_keys=("x-", "deps-")), task_no=1
    )
    assert (record(second).result, record(second).restored_key) == (CacheResult.RESTORED, "deps-1")
    assert record(second).stored_bytes
    third = await owner.run(cached("cat deps/file deps/more", key="deps-3", restore_keys=("deps-",)), task_no=2)
    assert (third.is_success, record(third).restored_key) == (True, "deps-2")


async def test_a_restored_cache_that_did_not_change_is_stored_under_the_new_key_without_its_bytes(
    make_ant: Any, bus: Bus, tmp_path: Path
) -> None:
    counting = CountingStore(tmp_path / "counting")
    await counting.open()
    ant = await make_ant(slots=1, store=counting)
    owner = ScriptedOwner(bus, lambda: ant.registration.incarnation)
    await owner.run(cached(*INSTALL, key="deps-1"))
    same = await owner.run(cached(*INSTALL, key="deps-2", restore_keys=("deps-",)), task_no=1)
    assert (record(same).result, bool(record(same).stored_bytes)) == (CacheResult.RESTORED, True)
    assert (counting.puts, len(await stored_names(counting))) == (1, 2)
    assert "cache 'deps-2': equals what was restored, so its bytes are not sent again" in await system_lines(owner, 1)

    hit = await owner.run(cached(*INSTALL, key="deps-2"), task_no=2)
    assert (hit.is_success, record(hit).result) == (True, CacheResult.HIT)
    await owner.run(cached("echo more > deps/more", key="deps-3", restore_keys=("deps-",)), task_no=3)
    assert (counting.puts, len(await stored_names(counting))) == (2, 3)


async def test_key_paths_make_the_contents_a_part_of_the_key(
    owner: ScriptedOwner, store: LocalStore, tmp_path: Path
) -> None:
    async def run(task_no: int, content: str) -> CacheRecord:
        (tmp_path / "lock").write_text(content)
        fetch = await fetch_of(owner, store, tmp_path / "lock", "requirements.lock")
        order = cached(*INSTALL, key="pip", key_paths=("*.lock",), fetches=(fetch,))
        return record(await owner.run(order, task_no=task_no))

    first, same, other = await run(0, "a==1"), await run(1, "a==1"), await run(2, "a==2")
    assert first.key.startswith("pip-")
    assert (same.key, same.result) == (first.key, CacheResult.HIT)
    assert (other.key != first.key, other.result) == (True, CacheResult.MISS)


async def test_a_key_path_that_selects_nothing_is_said(owner: ScriptedOwner) -> None:
    end = await owner.run(cached(*INSTALL, key="", key_paths=("*.lock",)))
    assert len(record(end).key) == 32
    assert "cache.key_paths: nothing matches '*.lock'" in await system_lines(owner, 0)


async def test_a_task_that_fails_stores_nothing(owner: ScriptedOwner, store: LocalStore) -> None:
    end = await owner.run(cached(*INSTALL, "exit 3"))
    assert (end.exit_code, record(end).stored_bytes) == (3, None)
    assert await stored_names(store) == []


async def test_an_expired_cache_is_stored_anew(owner: ScriptedOwner, store: LocalStore) -> None:
    await owner.run(cached(*INSTALL, expires_after_s=0.001))
    end = await owner.run(cached(*INSTALL), task_no=1)
    assert (record(end).result, bool(record(end).stored_bytes)) == (CacheResult.MISS, True)
    assert len(await stored_names(store)) == 2


async def test_caches_of_another_job_type_are_not_seen(owner: ScriptedOwner) -> None:
    await owner.run(cached(*INSTALL))
    end = await owner.run(cached(*INSTALL, restore_keys=("k",), job_type="other"), task_no=1)
    assert record(end).result is CacheResult.MISS


async def test_caches_of_another_group_are_not_seen(owner: ScriptedOwner) -> None:
    await owner.run(cached(*INSTALL))
    other = await owner.run(cached(*INSTALL, group="other", restore_keys=("k",)), task_no=1)
    assert record(other).result is CacheResult.MISS


async def test_a_damaged_cache_is_a_miss_that_is_told_and_replaced(owner: ScriptedOwner, store: LocalStore) -> None:
    await owner.run(cached(*INSTALL))
    (name,) = await stored_names(store)
    file = store._root / name
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    second = await owner.run(cached(*INSTALL), task_no=1)
    assert (second.is_success, record(second).result) == (True, CacheResult.MISS)
    assert "could not be restored" in str(record(second).problem)
    third = await owner.run(cached(*INSTALL), task_no=2)
    assert (record(third).result, record(third).problem) == (CacheResult.HIT, None)


async def test_artifacts_of_dependencies_win_over_a_cache(
    owner: ScriptedOwner, store: LocalStore, tmp_path: Path
) -> None:
    await owner.run(cached(*INSTALL))
    (tmp_path / "mine").write_text("mine\n")
    fetch = await fetch_of(owner, store, tmp_path / "mine", "deps/file")
    end = await owner.run(cached("test $(cat deps/file) = mine", fetches=(fetch,)), task_no=1)
    assert (end.is_success, record(end).result) == (True, CacheResult.HIT)


async def test_a_cache_is_no_artifact(owner: ScriptedOwner) -> None:
    end = await owner.run(cached(*INSTALL, artifacts=ArtifactsPolicy(paths=("deps/file",))))
    assert [ref.name for ref in end.artifacts] == ["deps/file"]


async def test_paths_that_match_nothing_and_bad_patterns_are_said_and_fail_nothing(
    owner: ScriptedOwner, store: LocalStore
) -> None:
    end = await owner.run(cached("true", paths=("nowhere",)))
    assert (end.is_success, record(end).problem) == (True, None)
    assert "cache 'k1': nothing matches its paths, nothing is stored" in await system_lines(owner, 0)
    end = await owner.run(cached("true", paths=("../x",)), task_no=1)
    assert (end.is_success, "must be a relative path" in str(record(end).problem)) == (True, True)
    end = await owner.run(cached("true", key="ü" * 100), task_no=2)
    assert (end.is_success, "600 characters" in str(record(end).problem)) == (True, True)
    assert await stored_names(store) == []


async def test_a_name_that_is_no_text_and_a_secret_in_it_harm_neither_task_nor_log(owner: ScriptedOwner) -> None:
    script = ["mkdir -p deps", r"ln -s \"/tmp/hush$(printf '\377')\" deps/out", "echo done"]

    end = await owner.run(cached(*script, secrets=("hush",), artifacts=ArtifactsPolicy(paths=("deps/*",))))

    told = " ".join(await system_lines(owner, 0)) + str(record(end).problem) + str(end.error_message)
    assert "hush" not in told
    assert "done" in [text for _, _, _, text in await owner.lines()]
    assert end.error_code in {None, "ERR_ARTIFACT"}


async def test_a_pattern_that_is_none_is_said_and_fails_nothing(owner: ScriptedOwner) -> None:
    end = await owner.run(cached("true", paths=("[z-a]",)))
    assert (end.is_success, "is no glob" in str(record(end).problem)) == (True, True)


class CountingStore(LocalStore):
    """A local store that counts what is sent to it."""

    puts = 0

    async def put(self, key: str, source: Path) -> Stored:
        self.puts += 1
        return await super().put(key, source)


class BrokenStore(LocalStore):
    """A local store that is away, or that never answers."""

    is_stuck = False

    async def put(self, key: str, source: Path) -> Stored:
        if self.is_stuck:
            await asyncio.Event().wait()
        raise ArtifactStoreUnavailableError("the store is away")


async def test_a_store_that_is_away_fails_no_task(make_ant: Any, bus: Bus, tmp_path: Path) -> None:
    broken = BrokenStore(tmp_path / "broken")
    await broken.open()
    ant = await make_ant(slots=1, store=broken)
    owner = ScriptedOwner(bus, lambda: ant.registration.incarnation)
    end = await owner.run(cached(*INSTALL))
    assert (end.is_success, record(end).problem) == (True, "could not be stored: the store is away")
    broken.is_stuck = True
    end = await owner.run(cached(*INSTALL, timeout_s=5.0), task_no=1)
    assert (end.is_success, "within the task's timeout of 5 s" in str(record(end).problem)) == (True, True)


async def test_an_attempt_is_stopped_while_its_cache_is_stored(make_ant: Any, bus: Bus, tmp_path: Path) -> None:
    broken = BrokenStore(tmp_path / "broken")
    broken.is_stuck = True
    await broken.open()
    ant = await make_ant(slots=1, store=broken)
    owner = ScriptedOwner(bus, lambda: ant.registration.incarnation)
    await owner.send(owner.dispatch(cached(*INSTALL)))
    await owner.report(TaskStarted)
    await owner.send(owner.cancel())
    assert (await owner.finished()).reason == "cancelled"


async def test_a_cache_beyond_the_limit_is_not_stored(make_ant: Any, bus: Bus, store: LocalStore) -> None:
    ant = await make_ant(slots=1, cache_limit_bytes=1000)
    owner = ScriptedOwner(bus, lambda: ant.registration.incarnation)
    end = await owner.run(cached("mkdir deps", "head -c 5000 /dev/urandom > deps/file"))
    assert (end.is_success, "more than 1000 bytes" in str(record(end).problem)) == (True, True)
    assert await stored_names(store) == []


async def test_nothing_of_an_archive_stays_in_the_ants_folder(owner: ScriptedOwner, tmp_path: Path) -> None:
    await owner.run(cached(*INSTALL))
    end = await owner.run(cached("ls -A .. > ls", "cat ls", artifacts=ArtifactsPolicy(paths=("ls",))), task_no=1)
    lines = [text for _, number, stream, text in await owner.lines() if (number, stream) == (1, Stream.STDOUT)]
    assert end.is_success
    assert [line for line in lines if "cache" in line] == []
