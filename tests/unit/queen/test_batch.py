"""What a batch commits, and what it takes back."""

from formicary.ids import JobId
from formicary.queen.supervisor.batch import job_ids_of, rows_of
from formicary.queen.supervisor.committer import _halves
from formicary.states.inputs import CancelRequested
from formicary.store.rows import CommandDone, JournalBatch
from formicary.testing.drill import task
from tests.unit.queen.conftest import Queen


def begun(queen: Queen, *names: str) -> None:
    """Begins jobs and dispatches their tasks, all in the open batch."""
    queen.ant(slots=100)
    queen.begin(*(queen.job(name=name, job_type_id=number) for number, name in enumerate(names, start=1)))
    queen.dispatch()


def closed(queen: Queen) -> JournalBatch:
    return queen.engine.batch.close(queen.clock.now())


def test_each_row_is_written_once_however_often_it_changed(queen: Queen) -> None:
    begun(queen, "a")

    rows = closed(queen)

    assert [(row.id, row.state) for row in rows.jobs] == [("a", "EXECUTING")]
    assert [(row.job_id, row.state, row.attempt) for row in rows.tasks] == [("a", "READY", 1)]
    assert [mark.shard for mark in rows.shards] == [3]


def test_changes_are_taken_by_the_batch_that_closes_and_no_other(queen: Queen) -> None:
    begun(queen, "a")
    closed(queen)
    queen.commit()

    assert queen.engine.batch.is_empty()
    queen.engine.batch.touch(queen.shard.jobs[JobId("a")])
    rows = closed(queen)
    assert (rows.jobs, rows.tasks, rows.history) == ([], [], [])


def test_positions_alone_make_a_batch_only_where_asked_for(queen: Queen) -> None:
    queen.shard.results_position = b"9"
    assert queen.engine.batch.is_empty()

    queen.engine.batch.move_positions(queen.shard)

    assert not queen.engine.batch.is_empty()
    assert closed(queen).shards[0].results_position == b"9"


def test_running_counts_follow_claims_and_ends_and_cancel_out(queen: Queen) -> None:
    batch = queen.engine.batch
    claimed, ended, both = (queen.job(name=name, job_type_id=n) for n, name in enumerate("abc"))
    batch.claim(claimed, leader_epoch=1)
    batch.claim(both, leader_epoch=1)
    batch.end(ended)
    batch.end(both)

    assert batch.running_deltas() == {0: 1, 1: -1}
    assert batch.running_deltas({ended.id}) == {1: -1}


def test_a_void_job_leaves_no_row_no_claim_and_no_count(queen: Queen) -> None:
    begun(queen, "a", "b")
    void = queen.shard.jobs[JobId("b")]
    queen.engine.batch.claim(void, leader_epoch=1)
    void.is_void = True

    rows = closed(queen)

    assert job_ids_of(rows) == {"a"}
    assert rows.claims == []
    assert rows.running_deltas == {}


def test_forgetting_a_job_takes_its_messages_and_its_end_back_and_no_others(queen: Queen) -> None:
    begun(queen, "a", "b")
    batch = queen.engine.batch
    batch.end(queen.shard.jobs[JobId("a")])
    batch.end(queen.shard.jobs[JobId("b")])

    batch.forget({JobId("a")})

    assert [getattr(message.event, "job_id", None) for message in batch.outgoing] == ["b"]
    assert batch.ended == ["b"]


def test_forgetting_a_shard_takes_everything_of_it_back(queen: Queen) -> None:
    begun(queen, "a")
    batch = queen.engine.batch
    batch.done(CommandDone(1, None), queen.shard)
    queen.engine.step(queen.shard.jobs[JobId("a")], CancelRequested(at=queen.clock.now()))

    batch.forget_shard(queen.shard)

    rows = closed(queen)
    assert job_ids_of(rows) == set()
    assert (rows.shards, rows.commands_done, batch.outgoing) == ([], [], [])


def test_rows_of_some_jobs_leave_out_all_others(queen: Queen) -> None:
    begun(queen, "a", "b")
    for live in queen.shard.jobs.values():
        queen.engine.batch.claim(live, leader_epoch=1)
    rows = closed(queen)

    part = rows_of(rows, {JobId("a")}, {1: 1})

    assert job_ids_of(part) == {"a"}
    assert {row.job_id for row in part.history} == {"a"}
    assert (part.claims, part.running_deltas) == (["a"], {1: 1})
    assert part.shards == rows.shards


def test_refused_rows_are_halved_until_one_job_is_left(queen: Queen) -> None:
    begun(queen, *"abcde")
    queen.engine.batch.done(CommandDone(7, None), queen.shard)
    queen.shard.results_position = b"9"
    parts, single = [closed(queen)], []
    while parts:
        halves = _halves(queen.engine.batch, part := parts.pop())
        parts += halves
        single += [] if halves else [part]

    assert sorted("".join(job_ids_of(part)) for part in single) == list("abcde")
    assert [command.id for part in single for command in part.commands_done] == [7]
    assert all(mark.results_position is None for part in single for mark in part.shards)


def test_rows_of_tasks_are_kept_with_their_job_when_halved(queen: Queen) -> None:
    queen.ant(slots=100)
    queen.begin(queen.job(task("x"), task("y"), name="a"), queen.job(task("x"), name="b"))
    queen.dispatch()

    first, second = _halves(queen.engine.batch, closed(queen))

    assert [(row.job_id, row.task_no) for row in first.tasks] == [("a", 0), ("a", 1)]
    assert [(row.job_id, row.task_no) for row in second.tasks] == [("b", 0)]
