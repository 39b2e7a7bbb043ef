"""What ants report: whose word about an attempt counts."""

from datetime import UTC, datetime

import pytest

from brokers.base import Position
from formicary.bus import Packet
from formicary.events.base import Event
from formicary.events.tasks import TaskFinished, TaskStarted
from formicary.ids import Incarnation, JobId
from formicary.model.states import TaskState
from formicary.queen.supervisor.intake import Intake
from formicary.queen.supervisor.live import AttemptKey
from tests.unit.queen.conftest import Queen

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY: AttemptKey = (JobId("job-1"), 0, 1)
HERE, ELSEWHERE = Incarnation("a@1"), Incarnation("a@0")


class Reading(Queen):
    """A queen with one dispatch under way, who reads its log."""

    def __init__(self) -> None:
        super().__init__()
        self.ant()
        self.live = self.job()
        self.begin(self.live)
        self.dispatch()
        self.commit()
        self.intake = Intake(self.engine)

    def read(self, *events: Event) -> TaskState:
        """Reads events; returns the state of the task."""
        self.intake.take(self.shard, Packet(Position(b"1"), events, "ant", None), NOW)
        return self.live.run.tasks[0].state


def finished(incarnation: Incarnation, *, is_success: bool = True) -> TaskFinished:
    job_id, task_no, attempt = KEY
    return TaskFinished(
        job_id=job_id,
        task_no=task_no,
        attempt=attempt,
        incarnation=incarnation,
        reason="exited",
        exit_code=0,
        is_success=is_success,
        started_at=NOW,
        finished_at=NOW,
        slots_free=1,
    )


def started(incarnation: Incarnation) -> TaskStarted:
    job_id, task_no, attempt = KEY
    return TaskStarted(job_id=job_id, task_no=task_no, attempt=attempt, incarnation=incarnation, started_at=NOW)


@pytest.mark.parametrize("is_success", [True, False])
def test_a_report_from_before_a_restore_does_not_end_the_attempt_of_the_same_number(*, is_success: bool) -> None:
    reading = Reading()
    assert reading.read(started(ELSEWHERE), finished(ELSEWHERE, is_success=is_success)) is TaskState.READY
    assert not reading.shard.in_flight[KEY].is_confirmed
    assert reading.read(started(HERE), finished(HERE)) is TaskState.COMPLETED


def test_an_inherited_attempt_is_ended_by_its_own_ant_only() -> None:
    reading = Reading()
    del reading.shard.in_flight[KEY]
    reading.shard.inherited[KEY] = HERE
    assert reading.read(finished(ELSEWHERE)) is TaskState.READY
    assert reading.read(finished(HERE)) is TaskState.COMPLETED
