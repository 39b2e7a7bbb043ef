"""The queen's memory without a database or a broker: jobs, ants and an engine made by hand."""

import random
from typing import Any

import pytest

from formicary.events.ants import AntHeartbeat, AntRegistered, Held
from formicary.ids import AntId, Incarnation, JobId
from formicary.model.definition import TaskDefinition
from formicary.queen.registry import AntRegistry, LiveAnt, Requirement
from formicary.queen.supervisor.dispatcher import Dispatcher
from formicary.queen.supervisor.engine import Engine
from formicary.queen.supervisor.live import LiveJob, LiveShard
from formicary.queen.supervisor.program import Program
from formicary.states.cells import JobCell
from formicary.states.inputs import JobBegan
from formicary.states.run import JobRun
from formicary.store.rows import JobRecord
from formicary.testing.clock import EPOCH, FakeClock
from formicary.testing.drill import job, task

DUMMY = Requirement("DUMMY")


def registered(name: str = "a", life: int = 1, **changes: Any) -> AntRegistered:
    """Returns the registration of an ant for DUMMY tasks with two slots."""
    fields: dict[str, Any] = {
        "ant_id": AntId(name),
        "incarnation": Incarnation(f"{name}@{life}"),
        "inbox_topic": f"inbox-{name}",
        "inbox_key": name,
        "methods": ("DUMMY",),
        "in_process_methods": (),
        "tags": (),
        "groups": (),
        "slots": 2,
        "prefetch": 0,
        "process": f"process of {name}",
        "sent_at": EPOCH,
    }
    return AntRegistered(**(fields | changes))


def heartbeat(name: str = "a", life: int = 1, **changes: Any) -> AntHeartbeat:
    """Returns the first heartbeat of an ant that holds nothing."""
    fields: dict[str, Any] = {
        "ant_id": AntId(name),
        "incarnation": Incarnation(f"{name}@{life}"),
        "sequence": 1,
        "slots_free": 2,
        "is_draining": False,
        "held": (),
        "epochs": {},
        "sent_at": EPOCH,
    }
    return AntHeartbeat(**(fields | changes))


class Queen:
    """One shard of a queen in memory: what the hot loop holds, stepped by hand."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.registry = AntRegistry()
        self.engine = Engine(self.registry, self.clock)
        self.shard = LiveShard(number=3, epoch=7, taken_at=self.clock.boottime())

    def ant(self, name: str = "a", **changes: Any) -> LiveAnt:
        """Registers an ant."""
        ant = self.registry.register(registered(name, **changes), self.clock.boottime())
        assert ant is not None
        return ant

    def job(self, *tasks: TaskDefinition, name: str = "job-1", priority: int = 0, job_type_id: int = 1) -> LiveJob:
        """Puts a job into the shard; it has not begun."""
        program = Program(job(tasks or [task("t")]))
        record = JobRecord(
            id=JobId(name),
            job_type_id=job_type_id,
            job_type="drill",
            definition_id="d",
            version=1,
            shard=self.shard.number,
            state="READY",
            priority=priority,
            created_at=EPOCH,
            user_name=None,
            params="{}",
            rendered_source=None,
            attempt=1,
            retries_used=0,
            cancelling=False,
            stop_code=None,
            stop_message=None,
            elapsed_s=0.0,
            counting_since=None,
            started_at=None,
            finished_at=None,
            error_code=None,
            error_message=None,
        )
        run = JobRun(program.plan, JobCell(record.id), rng=random.Random(0))
        live = self.shard.jobs[record.id] = LiveJob(record, program, run, self.shard)
        return live

    def begin(self, *lives: LiveJob) -> None:
        """Begins jobs, so that their first tasks wait."""
        for live in lives:
            self.engine.step(live, JobBegan(at=self.clock.now()))

    def dispatch(self) -> None:
        """Gives what waits to the ants."""
        Dispatcher(self.engine).dispatch()

    def commit(self) -> None:
        """Does what a commit does to memory: the open batch is committed, a new one begins."""
        self.engine.batch.close(self.clock.now())
        self.engine.batch.receipt.is_committed = True
        self.engine.batch = type(self.engine.batch)()

    def sent(self) -> list[str]:
        """Returns the kinds of the messages of the open batch."""
        return [type(message.event).__name__ for message in self.engine.batch.outgoing]


def held(*attempts: tuple[JobId, int, int]) -> tuple[Held, ...]:
    """Returns attempts as a heartbeat names them."""
    return tuple(Held(3, *attempt) for attempt in attempts)


@pytest.fixture
def queen() -> Queen:
    """A queen that owns shard 3 in epoch 7."""
    return Queen()


@pytest.fixture
def ants() -> AntRegistry:
    """A registry that nobody registered with."""
    return AntRegistry()
