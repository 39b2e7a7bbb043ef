"""What happened to jobs, published in order, after the commit, by the leader alone."""

import json
from typing import Any

import pytest

from brokers.base import START, Message
from formicary.clock import Clock, SystemClock
from formicary.events import topics
from formicary.ids import QueenId
from formicary.model.jobs import JobRequest
from formicary.queen.lifecycle import KEPT_S, LifecyclePublisher
from formicary.store.leases import LEADER, LeaseStore
from formicary.store.lifecycle import LifecycleStore
from formicary.testing.clock import FakeClock
from formicary.testing.front import TWO_TASKS, QueenFront

_CHANGE = (
    "INSERT INTO job_history (job_id, at, state, attempt, error_code, note, task_type, exit_code, incarnation) "
    "VALUES ($1::uuid, '2026-01-02T03:04:05Z', $2, $3, $4, $5, $6, $7, $8)"
)


class Leads:
    """Leads in an epoch, or not."""

    def __init__(self, epoch: int | None = 1) -> None:
        self.epoch = epoch

    def leader_epoch(self) -> int | None:
        return self.epoch


class Newsroom:
    """A publisher, what it publishes about, and its readers."""

    def __init__(self, front: QueenFront) -> None:
        self.front = front
        self.store = LifecycleStore(front.database)

    def publisher(self, leadership: Leads, clock: Clock | None = None) -> LifecyclePublisher:
        return LifecyclePublisher(self.front.bus, self.store, leadership, clock or SystemClock())

    async def submit(self) -> str:
        request = JobRequest(job_type="two", params={"region": "eu"})
        return (await self.front.manager.submit(request)).job.id

    async def happened(self, job_id: str, state: str, *rest: object) -> None:
        await self.front.execute(_CHANGE, job_id, state, 1, *rest, *[None] * (5 - len(rest)))

    async def messages(self, timeout_s: float = 0.0) -> list[Message]:
        entries = await self.front.broker.read(topics.LIFECYCLE, START, 1000, timeout_s)
        return [entry.message for entry in entries]

    async def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for message in await self.messages() for line in message.body.splitlines()]


@pytest.fixture
async def newsroom(front: QueenFront) -> Newsroom:
    await front.manager.save_definition(TWO_TASKS)
    await LeaseStore(front.database).take([LEADER], QueenId("q"), "q@1", 60.0)
    return Newsroom(front)


async def test_changes_of_a_job_are_json_lines_under_its_id_in_their_order(newsroom: Newsroom) -> None:
    first, second = await newsroom.submit(), await newsroom.submit()
    await newsroom.happened(first, "READY")
    await newsroom.happened(first, "FAILED", "ERR_EXIT_CODE", "it ended with 3")

    assert await newsroom.publisher(Leads()).run_once() == 4

    messages = {message.key: message.body.splitlines() for message in await newsroom.messages()}
    lines = [json.loads(line) for line in messages[first]]
    assert [(line["type"], line["state"]) for line in lines] == [
        ("JobStateChanged", "PENDING"),
        ("JobStateChanged", "READY"),
        ("JobStateChanged", "FAILED"),
    ]
    assert lines[2] == {
        "type": "JobStateChanged",
        "sequence": lines[2]["sequence"],
        "job_id": first,
        "job_type": "two",
        "state": "FAILED",
        "attempt": 1,
        "at": "2026-01-02T03:04:05.000000Z",
        "error_code": "ERR_EXIT_CODE",
        "error_message": "it ended with 3",
    }
    assert len(messages[second]) == 1
    assert [line["sequence"] for line in lines] == sorted({line["sequence"] for line in lines})


async def test_changes_of_tasks_say_which_task_attempt_and_ant(newsroom: Newsroom) -> None:
    job_id = await newsroom.submit()
    await newsroom.happened(job_id, "FAILED", "ERR_EXIT_CODE", "it ended with 3", "first", 3, "ant-1@abc")

    await newsroom.publisher(Leads()).run_once()

    event = (await newsroom.events())[1]
    assert (event["type"], event["task_type"], event["attempt"]) == ("TaskStateChanged", "first", 1)
    assert (event["ant_id"], event["exit_code"], event["error_code"]) == ("ant-1", 3, "ERR_EXIT_CODE")


async def test_what_was_published_is_not_published_again_by_the_next_leader(newsroom: Newsroom) -> None:
    job_id = await newsroom.submit()
    await newsroom.publisher(Leads()).run_once()
    await newsroom.happened(job_id, "READY")

    following = newsroom.publisher(Leads())
    counts = [await following.run_once() for _ in range(2)]

    assert counts == [1, 0]
    assert [event["state"] for event in await newsroom.events()] == ["PENDING", "READY"]


async def test_who_does_not_lead_publishes_nothing(newsroom: Newsroom) -> None:
    await newsroom.submit()

    assert await newsroom.publisher(Leads(None)).run_once() == 0

    assert await newsroom.messages() == []


async def test_a_leader_of_the_past_does_not_move_the_cursor(newsroom: Newsroom) -> None:
    await newsroom.submit()
    await newsroom.publisher(Leads(epoch=0)).run_once()

    assert await newsroom.store.cursor() == 0
    assert await newsroom.publisher(Leads()).run_once() == 1


async def test_a_publisher_that_leads_again_goes_on_where_the_other_leader_ended(newsroom: Newsroom) -> None:
    leads = Leads()
    mine, other = newsroom.publisher(leads), newsroom.publisher(Leads())
    job_id = await newsroom.submit()
    await mine.run_once()
    leads.epoch = None
    await mine.run_once()
    await newsroom.happened(job_id, "READY")
    await other.run_once()
    leads.epoch = 1

    assert await mine.run_once() == 0


async def test_old_events_are_let_go_of(newsroom: Newsroom) -> None:
    clock = FakeClock()
    publisher = newsroom.publisher(Leads(), clock)
    job_id = await newsroom.submit()
    await publisher.run_once()
    await clock.advance(KEPT_S / 2)
    await newsroom.happened(job_id, "READY")
    await publisher.run_once()
    assert len(await newsroom.messages()) == 2

    await clock.advance(KEPT_S / 2)
    await newsroom.happened(job_id, "EXECUTING")
    await publisher.run_once()

    assert [event["state"] for event in await newsroom.events()] == ["READY", "EXECUTING"]


async def test_a_long_message_of_an_error_is_shortened(newsroom: Newsroom) -> None:
    job_id = await newsroom.submit()
    for _ in range(40):
        await newsroom.happened(job_id, "FAILED", "ERR_EXIT_CODE", "x" * 100_000)

    await newsroom.publisher(Leads()).run_once()

    messages = await newsroom.messages()
    assert len(messages) > 1
    assert max(len(message.body) for message in messages) < 80_000
    assert len(await newsroom.events()) == 41


async def test_the_service_publishes_what_happens_while_it_runs(newsroom: Newsroom) -> None:
    publisher = newsroom.publisher(Leads())
    await publisher.start()
    await newsroom.submit()
    publisher.wake()

    assert len(await newsroom.messages(10.0)) == 1
    await publisher.stop()


async def test_the_service_outlives_a_database_that_is_away(newsroom: Newsroom) -> None:
    await newsroom.submit()
    await newsroom.front.database.close()
    publisher = newsroom.publisher(Leads())
    await publisher.start()
    await newsroom.front.database.open()

    assert len(await newsroom.messages(10.0)) == 1
    await publisher.stop()
