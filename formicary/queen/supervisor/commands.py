"""Commands from people: rows of ``job_commands``, applied or refused in the transaction of their effect."""

import asyncio
from collections.abc import Callable
from datetime import datetime

import msgspec
import structlog

from formicary.clock import Clock
from formicary.errors import UnavailableError
from formicary.ids import JobId
from formicary.model.states import TERMINAL_JOB_STATES, JobState
from formicary.queen.supervisor.live import LiveJob, LiveShard
from formicary.queen.supervisor.loading import Prepared, bring_to_life, prepare
from formicary.queen.supervisor.loop import HotLoop
from formicary.queen.supervisor.program import Programs
from formicary.queen.supervisor.rows import storable
from formicary.states.errors import RefusedError
from formicary.states.inputs import (
    CancelRequested,
    Input,
    PauseRequested,
    RestartMode,
    RestartRequested,
    ResumeRequested,
)
from formicary.store.commands import CommandStore
from formicary.store.rows import CommandDone, CommandRow
from formicary.store.shards import ShardStore

log = structlog.get_logger(__name__)


class RestartBody(msgspec.Struct, frozen=True):
    """The body of a restart; ``from_task`` is a task type."""

    mode: RestartMode = RestartMode.FAILED
    from_task: str | None = None


class Commands:
    """Fetches open commands of own shards when woken, and hands them to the hot loop in order."""

    def __init__(
        self, store: CommandStore, shards: ShardStore, programs: Programs, loop: HotLoop, clock: Clock
    ) -> None:
        self._store = store
        self._shards = shards
        self._programs = programs
        self._loop = loop
        self._clock = clock
        self._wake = asyncio.Event()
        #: Handed to the loop: command id -> the shard as it was then. A shard that was loaded again lost what was not
        #: committed, so its open commands are handed over again.
        self._taken: dict[int, LiveShard] = {}

    def wake(self) -> None:
        """Makes the next look happen now."""
        self._wake.set()

    async def run(self) -> None:
        """Looks whenever woken."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self.run_once()
            except UnavailableError as error:
                log.warning("commands_not_read", reason=str(error))

    async def run_once(self) -> None:
        """Hands every open command that was not handed over yet to the loop."""
        rows = await self._store.open(list(self._loop.shards))
        shards = self._loop.shards
        self._taken = {row.id: self._taken[row.id] for row in rows if row.id in self._taken}
        fresh = [row for row in rows if row.shard in shards and self._taken.get(row.id) is not shards[row.shard]]
        if not fresh:
            return
        stored = await self._load([row for row in fresh if self._live(row) is None])
        ended: set[JobId] = set()
        for row in fresh:
            # A second command to an ended job must see what the first one made of it.
            if row.job_id not in ended and row.shard in shards:
                self._taken[row.id] = shards[row.shard]
                self._loop.put(self._work(row, stored.get(row.job_id)))
            if row.job_id in stored:
                ended.add(row.job_id)
        if ended:
            await self._loop.flushed()
            # Those that are to be looked at again wait for the next tick, or this would never rest.
            if any(row.id in self._taken for row in fresh):
                self._wake.set()

    async def _load(self, rows: list[CommandRow]) -> dict[JobId, Prepared]:
        restarts: dict[JobId, int] = {}
        for row in rows:
            if row.kind == "restart":
                restarts.setdefault(row.job_id, row.id)
        if restarts:
            await self._store.hold(restarts)
        loaded = await self._shards.load_jobs([row.job_id for row in rows]) if rows else []
        return {item.job.id: (item, program) for item, program in await prepare(self._programs, loaded)}

    def _live(self, row: CommandRow) -> LiveJob | None:
        shard = self._loop.shards.get(row.shard)
        return shard.jobs.get(row.job_id) if shard is not None else None

    def _work(self, row: CommandRow, stored: Prepared | None) -> Callable[[datetime], None]:
        return lambda now: self._apply(row, stored, now)

    def _apply(self, row: CommandRow, stored: Prepared | None, now: datetime) -> None:
        shard = self._loop.shards.get(row.shard)
        if shard is None:
            self._taken.pop(row.id, None)
            return
        live = shard.jobs.get(row.job_id)
        if live is None and not _is_loadable(stored):
            self._later_or_refuse(row, stored, shard)
            return
        if live is None:
            assert stored is not None
            live = bring_to_life(*stored, shard)
        refusal = None
        try:
            self._loop.engine.step(live, _input(row, live, now))
        except RefusedError as error:
            refusal = str(error)
        self._done(row, shard, refusal)

    def _later_or_refuse(self, row: CommandRow, stored: Prepared | None, shard: LiveShard) -> None:
        """A job that ran when the rows were read and is gone now is looked at again."""
        state = stored[0].job.state if stored is not None else "unknown"
        is_unclaimed = stored is not None and state == JobState.PAUSED and stored[0].job.started_at is None
        if stored is None or (state in (JobState.READY, JobState.EXECUTING, JobState.PAUSED) and not is_unclaimed):
            self._taken.pop(row.id, None)
            return
        self._done(row, shard, f"the job is {state}")

    def _done(self, row: CommandRow, shard: LiveShard, refusal: str | None) -> None:
        self._loop.engine.batch.done(CommandDone(row.id, storable(refusal)), shard)
        log.info("command_applied", kind=row.kind, job_id=row.job_id, refusal=refusal)


def _is_loadable(stored: Prepared | None) -> bool:
    return stored is not None and stored[0].job.state in TERMINAL_JOB_STATES


def _input(row: CommandRow, live: LiveJob, now: datetime) -> Input:
    match row.kind:
        case "cancel":
            return CancelRequested(at=now)
        case "pause":
            return PauseRequested(at=now)
        case "resume":
            return ResumeRequested(at=now)
        case "restart":
            return _restart(row, live, now)
        case _:
            raise RefusedError(f"unknown command {row.kind}")


def _restart(row: CommandRow, live: LiveJob, now: datetime) -> RestartRequested:
    try:
        body = msgspec.json.decode(row.body, type=RestartBody)
    except msgspec.MsgspecError as error:
        raise RefusedError(f"the restart cannot be read: {error}") from error
    if body.from_task is None:
        return RestartRequested(mode=body.mode, at=now)
    number = live.program.plan.numbers.get(body.from_task)
    if number is None:
        raise RefusedError(f'no task "{body.from_task}" in {live.record.job_type} version {live.record.version}')
    return RestartRequested(mode=body.mode, from_task=number, at=now)
