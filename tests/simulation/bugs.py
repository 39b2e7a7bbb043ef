"""Bugs to plant, one at a time: each takes one rule of ``protocol.md`` out, and the simulation must find it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from formicary.ids import QueenId
from formicary.queen.supervisor.batch import Batch
from formicary.queen.supervisor.committer import Committer
from formicary.queen.supervisor.intake import Intake
from formicary.queen.supervisor.live import AttemptKey, LiveShard
from formicary.queen.supervisor.logs import ShardLogs
from formicary.queen.supervisor.loop import HotLoop
from formicary.queen.supervisor.supervisor import Supervisor
from formicary.queen.supervisor.sweep import Sweep
from formicary.store.rows import JournalBatch, LeaseRow, ShardMark
from tests.simulation import ant_bugs
from tests.simulation.stores import MemoryJournal
from tests.simulation.world import Parts, WatchedDatabase


class Bug(NamedTuple):
    """A rule that is broken, and the parts that break it."""

    section: int
    parts: Parts


class _PositionsFirst(MemoryJournal):
    async def commit(self, batch: JournalBatch) -> None:
        await self._call(lambda: self._memory.write_positions(batch.shards))
        await super().commit(batch)


class _TrimsWhatIsRead(ShardLogs):
    async def trim(self) -> None:
        for shard in self._loop.shards.values():
            shard.committed_position = shard.results_position
        await super().trim()


class _NoFences(WatchedDatabase):
    def check_epochs(self, marks: Sequence[ShardMark]) -> None:
        pass


class _BelievesInLuck(MemoryJournal):
    async def _settled(self, shards: list[int], epochs: list[int], number: int) -> list[Any]:
        return [{"shard": shard, "epoch": epoch, "is_ours": True} for shard, epoch in zip(shards, epochs, strict=True)]


class _KeepsEpochs(WatchedDatabase):
    def take(
        self,
        names: Collection[str],
        owner: QueenId,
        incarnation: str,
        lease_s: float,
        only_lapsed: bool,
        limit: int | None,
    ) -> list[LeaseRow]:
        owners = {name: lease.owner for name, lease in self.leases.items()}
        rows = super().take(names, owner, incarnation, lease_s, only_lapsed, limit)
        for row in rows:
            if owners[row.name] == owner:
                self.leases[row.name].epoch -= 1
        kept = [self._row(self.leases[row.name]) for row in rows]
        self.checker.took(kept)
        return kept


class _KeepsMemory(HotLoop):
    def drop_shards(self, shards: list[LiveShard], why: str) -> None:
        pass


class _PublishesFirst(Committer):
    async def commit(self, batch: Batch) -> None:
        await self._publishing.put((batch.outgoing, []))
        batch.outgoing = []
        await super().commit(batch)


class _AnyoneClaims(WatchedDatabase):
    def check_leader(self, batch: JournalBatch) -> None:
        pass


class _ForgetsToCount(WatchedDatabase):
    def journal_commit(self, incarnation: str, number: int, batch: JournalBatch) -> None:
        ends = {type_id: change for type_id, change in batch.running_deltas.items() if change < 0}
        super().journal_commit(incarnation, number, msgspec.structs.replace(batch, running_deltas=ends))


class _TakesLateResults(Intake):
    def _finished(self, shard: LiveShard, event: Any, now: Any) -> None:
        live = shard.jobs.get(event.job_id)
        if live is not None:
            cell = live.run.tasks[event.task_no]
            incarnation = cell.incarnation or event.incarnation
            event = msgspec.structs.replace(event, attempt=cell.attempt, incarnation=incarnation)
        super()._finished(shard, event, now)


class _NoBarrier(Sweep):
    intake: Intake

    def _send_barrier(self, shard: LiveShard, doubtful: dict[AttemptKey, bool]) -> None:
        for key, counts in doubtful.items():
            self.intake.lost(shard, key, self._engine.clock.now(), counts=counts)


def _plant(change: Callable[[Supervisor], None]) -> Parts:
    """Returns parts with a supervisor that is changed once it is made."""

    class Planted(Supervisor):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            change(self)

    return Parts(supervisor=Planted)


def _skip_the_barrier(supervisor: Supervisor) -> None:
    sweep = supervisor._sweep
    sweep.__class__ = _NoBarrier
    assert isinstance(sweep, _NoBarrier)
    sweep.intake = supervisor.loop.intake


def _lose_at_once(supervisor: Supervisor) -> None:
    supervisor._sweep._lost_after_s = 3.0


def _publish_first(supervisor: Supervisor) -> None:
    supervisor.loop._committer.__class__ = _PublishesFirst


def _keep_memory(supervisor: Supervisor) -> None:
    supervisor.loop.__class__ = _KeepsMemory


def _take_late_results(supervisor: Supervisor) -> None:
    intake = supervisor.loop.intake
    intake.__class__ = _TakesLateResults
    intake._handlers = {kind: getattr(intake, handler.__name__) for kind, handler in intake._handlers.items()}


def _trim_what_is_read(supervisor: Supervisor) -> None:
    supervisor._logs.__class__ = _TrimsWhatIsRead


def _lose_what_is_inherited(supervisor: Supervisor) -> None:
    sweep, former = supervisor._sweep, supervisor._sweep._judge_inherited

    def judge(shard: LiveShard, key: AttemptKey, incarnation: Any, doubtful: dict[AttemptKey, bool]) -> None:
        former(shard, key, incarnation, doubtful)
        doubtful.setdefault(key, False)

    sweep._judge_inherited = judge  # type: ignore[method-assign]  # that is the bug


BUGS: Mapping[str, Bug] = {
    "positions are written outside the transaction": Bug(1, Parts(journal=_PositionsFirst)),
    "logs are trimmed behind what was read, not what was committed": Bug(1, _plant(_trim_what_is_read)),
    "a journal statement is not fenced by the epochs": Bug(2, Parts(database=_NoFences)),
    "a commit without an answer is taken for done": Bug(2, Parts(journal=_BelievesInLuck)),
    "a restarted queen goes on in its former epoch": Bug(2, Parts(database=_KeepsEpochs)),
    "memory is kept though its commit did not happen": Bug(2, _plant(_keep_memory)),
    "messages leave before the commit": Bug(3, _plant(_publish_first)),
    "a claim does not check the leader's epoch": Bug(3, Parts(database=_AnyoneClaims)),
    "a claim is not counted in its own transaction": Bug(3, Parts(database=_ForgetsToCount)),
    "the result of any attempt ends the present one": Bug(4, _plant(_take_late_results)),
    "an attempt is taken for not running without the barrier": Bug(5, _plant(_skip_the_barrier)),
    "an ant is counted lost before its lease has ended": Bug(5, _plant(_lose_at_once)),
    "what an older epoch dispatched is taken for not running at once": Bug(5, _plant(_lose_what_is_inherited)),
    **{name: Bug(section, parts) for name, (section, parts) in ant_bugs.BUGS.items()},
}
