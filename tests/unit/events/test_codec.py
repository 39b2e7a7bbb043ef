"""Packs: nothing is lost, the guilty alone are poison."""

from datetime import UTC, datetime
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from formicary.errors import DataError
from formicary.events import ants, jobs, logs, tasks
from formicary.events.base import Event
from formicary.events.codec import (
    SCHEMA_VERSION,
    AnyEvent,
    AttemptKey,
    Numbers,
    decode_pack,
    encode_dead,
    encode_packs,
)
from formicary.events.tasks import TaskStarted
from formicary.ids import AntId, Incarnation, JobId
from formicary.model.jobs import ArtifactRef

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def started(number: int = 1, text: str = "a@1") -> TaskStarted:
    return TaskStarted(job_id=JobId("j"), task_no=number, attempt=1, incarnation=Incarnation(text), started_at=AT)


def body_of(*events: Any, version: int = SCHEMA_VERSION) -> bytes:
    return msgspec.msgpack.encode((version, "q@1", 7, AT, events))


def test_an_event_comes_back_as_it_was_sent() -> None:
    finished = tasks.TaskFinished(
        job_id=JobId("j"),
        task_no=1,
        attempt=2,
        incarnation=Incarnation("a@1"),
        reason="exited",
        exit_code=-9,
        is_success=False,
        started_at=AT,
        finished_at=AT,
        slots_free=3,
        error_code="ERR_SIGNAL",
        outputs={"k": [1, 2.5, None, {"x": "ü"}]},
        artifacts=(ArtifactRef(name="a", sha256="0", size_bytes=1),),
    )
    heartbeat = ants.AntHeartbeat(
        ant_id=AntId("a"),
        incarnation=Incarnation("a@1"),
        sequence=1,
        slots_free=2,
        is_draining=False,
        held=(ants.Held(1, JobId("j"), 2, 3),),
        epochs={3: 4},
        sent_at=AT,
    )
    chunk = logs.LogChunk(job_id=JobId("j"), task_no=1, attempt=1, lines=(logs.Line(1, "stdout", AT, "text"),))
    sent = (finished, heartbeat, chunk, jobs.JobLaunched(shard=1, job_ids=(JobId("j"),)))
    (body,) = encode_packs(sent, "q@1", Numbers(), AT)
    pack = decode_pack(body)
    assert pack == ("q@1", 1, AT, sent, ())


def test_an_order_stays_encoded() -> None:
    order = msgspec.msgpack.encode({"spec": [1, 2, 3]})
    dispatched = tasks.TaskDispatched(
        job_id=JobId("j"),
        task_no=1,
        attempt=1,
        shard=1,
        epoch=1,
        number=1,
        incarnation=Incarnation("a@1"),
        order=msgspec.Raw(order),
    )
    (event,) = decode_pack(encode_packs([dispatched], "q@1", Numbers(), AT)[0]).events
    assert isinstance(event, tasks.TaskDispatched)
    assert bytes(event.order) == order


def test_every_event_that_crosses_the_wire_is_known_to_the_codec() -> None:
    defined = {
        value
        for module in (ants, jobs, logs, tasks)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Event) and value is not Event
    }
    assert set(get_args(AnyEvent)) == defined


@given(st.lists(st.integers(0, 300), max_size=60), st.integers(100, 2000))
def test_packs_keep_all_events_in_order_and_within_the_limit(sizes: list[int], limit_bytes: int) -> None:
    sent = [started(number, "x" * size) for number, size in enumerate(sizes)]
    numbers = Numbers()
    bodies = encode_packs(sent, "q@1", numbers, AT, limit_bytes)
    packs = [decode_pack(body) for body in bodies]
    assert [event for pack in packs for event in pack.events] == sent
    assert all(len(body) <= limit_bytes or len(pack.events) == 1 for body, pack in zip(bodies, packs, strict=True))
    ids = [pack.first_number + index for pack in packs for index in range(len(pack.events))]
    assert ids == list(range(1, len(sent) + 1))
    assert numbers.take(1) == len(sent) + 1


def test_only_the_guilty_events_are_poison() -> None:
    body = body_of(started(1), ["TaskStarted", "j", 4, 5, 6, 7], started(2), ["TaskVanished", 1], 42, started(3))
    pack = decode_pack(body)
    assert pack.events == (started(1), started(2), started(3))
    assert [poison.event_id for poison in pack.poison] == ["q@1-8", "q@1-10", "q@1-11"]
    bad, unknown, none = pack.poison
    assert bad.attempt == AttemptKey(JobId("j"), 4, 5)
    assert bad.reason.startswith("bad TaskStarted: Expected `str`")
    assert "unknown event 'TaskVanished'" in unknown.reason
    assert none.reason.startswith("not an event")


def test_a_pack_of_another_version_is_poison_as_a_whole() -> None:
    for events in ([started()], [["New", 1]], []):
        body = body_of(*events, version=2)
        pack = decode_pack(body)
        assert pack.events == ()
        assert [(poison.raw, poison.event_id) for poison in pack.poison] == [(body, "")]
        assert "schema version 2 is unknown" in pack.poison[0].reason


def test_fields_of_a_newer_sender_are_ignored() -> None:
    pack = decode_pack(body_of(["TaskStarted", "j", 1, 1, "a@1", AT, "new field"]))
    assert pack.events == (started(),)


@given(st.binary(max_size=200))
def test_no_bytes_raise(body: bytes) -> None:
    pack = decode_pack(body)
    assert pack.poison or not pack.events


@given(st.data())
def test_no_damage_to_a_pack_raises(data: st.DataObject) -> None:
    body = bytearray(body_of(started(1), started(2)))
    place = data.draw(st.integers(0, len(body) - 1))
    body[place] = data.draw(st.integers(0, 255))
    decode_pack(bytes(body))


def test_endless_nesting_is_poison() -> None:
    body = body_of()[:-1] + b"\x91" * 200_000 + b"\x01"
    assert len(decode_pack(body).poison) == 1


def test_a_dead_letter_can_be_read_again_by_a_program_that_knows_it() -> None:
    pack = decode_pack(body_of(started(1), ["TaskVanished", 1]))
    again = decode_pack(encode_dead(pack, pack.poison[0]))
    assert (again.sender, again.sent_at, again.first_number) == ("q@1", AT, 8)
    assert again.poison == pack.poison


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
def test_a_value_that_cannot_be_sent_names_the_event(text: str) -> None:
    with pytest.raises(DataError, match="TaskStarted: cannot be sent"):
        encode_packs([started(1), started(2, text)], "q@1", Numbers(), AT)
