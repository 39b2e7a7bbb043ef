"""Ants as a queen knows them: who is live, lost, full, and who gets the next task."""

import pytest

from formicary.events.ants import Held, WorkerOffer
from formicary.ids import Incarnation, JobId
from formicary.model.jobs import WorkersView
from formicary.queen.registry import LOST_KEPT, LOST_TOLD, AntRegistry, Requirement
from tests.unit.queen.conftest import DUMMY, heartbeat, registered

A = Incarnation("a@1")
KEY = (JobId("job"), 0, 1)


def attempts(count: int) -> set[tuple[JobId, int, int]]:
    return {(JobId("job"), number, 1) for number in range(count)}


def test_a_registration_that_comes_twice_is_one_ant(ants: AntRegistry) -> None:
    assert ants.register(registered(), 0.0) is not None
    assert ants.register(registered(), 1.0) is None
    assert len(ants) == 1


def test_a_lost_incarnation_is_never_live_again(ants: AntRegistry) -> None:
    ants.register(registered(), 0.0)
    ants.lose(A)

    assert ants.register(registered(), 1.0) is None
    assert ants.heard(heartbeat(sequence=9), 1.0) is None
    assert ants.is_lost(A)
    assert ants.get(A) is None
    assert ants.sequences() == {}


def test_the_next_life_of_a_lost_ant_is_welcome(ants: AntRegistry) -> None:
    ants.register(registered(), 0.0)
    ants.lose(A)

    assert ants.register(registered(life=2), 1.0) is not None


def test_a_second_process_under_a_live_id_finds_the_holder(ants: AntRegistry) -> None:
    ants.register(registered(process="first"), 0.0)

    holder = ants.holder_of(registered(life=2, process="second"))

    assert holder is not None
    assert holder.registration.process == "first"
    assert ants.holder_of(registered(life=2, process="first")) is None
    assert ants.holder_of(registered("b", process="second")) is None


def test_a_heartbeat_that_was_overtaken_changes_nothing(ants: AntRegistry) -> None:
    ants.register(registered(), 0.0)
    ants.heard(heartbeat(sequence=5, epochs={3: 7}, held=(Held(3, JobId("job"), 0, 1),)), 10.0)

    ant = ants.heard(heartbeat(sequence=4), 20.0)

    assert ant is not None
    assert (ant.sequence, ant.received_at, ant.epochs) == (5, 10.0, {3: 7})
    assert ant.held == {("job", 0, 1)}


def test_silence_is_counted_from_when_a_heartbeat_was_received(ants: AntRegistry) -> None:
    ants.register(registered("a"), 0.0)
    ants.register(registered("b"), 0.0)
    ants.heard(heartbeat("b"), 50.0)

    assert ants.silent_since(40.0) == [A]


def test_a_loss_that_did_not_count_once_never_counts(ants: AntRegistry) -> None:
    ants.lose(A, counts=False)
    ants.lose(A)

    assert not ants.loss_counts(A, KEY)
    assert ants.loss_counts(Incarnation("other@1"), KEY)


def test_answers_name_the_lost_that_were_heard_of_last(ants: AntRegistry) -> None:
    for life in range(LOST_TOLD + 50):
        ants.lose(Incarnation(f"a@{life}"))
    assert Incarnation("a@0") not in ants.lost()

    ants.heard(heartbeat(life=0), 0.0)

    assert ants.lost()[0] == "a@0"
    assert len(ants.lost()) == LOST_TOLD


def test_the_memory_of_lost_ants_is_bounded(ants: AntRegistry) -> None:
    for life in range(LOST_KEPT + 1):
        ants.lose(Incarnation(f"a@{life}"))

    assert not ants.is_lost(Incarnation("a@0"))
    assert ants.is_lost(Incarnation("a@1"))


@pytest.mark.parametrize("why", ["full", "draining", "backing off", "other method", "lacks a tag", "lost"])
def test_no_task_goes_to_an_ant_that_is(ants: AntRegistry, why: str) -> None:
    ant = ants.register(registered(methods=("SHELL",) if why == "other method" else ("DUMMY",)), 0.0)
    assert ant is not None
    requirement = Requirement("DUMMY", ("gpu",)) if why == "lacks a tag" else DUMMY
    match why:
        case "full":
            ant.attempts = attempts(2)
        case "draining":
            ant.is_draining = True
        case "backing off":
            ant.backoff_until = 5.0
        case "lost":
            ants.lose(A)

    assert ants.with_room(requirement, 4.9) == []


def test_an_ant_that_backed_off_is_chosen_again_in_time(ants: AntRegistry) -> None:
    ant = ants.register(registered(), 0.0)
    assert ant is not None
    ant.backoff_until = 5.0
    assert ants.with_room(DUMMY, 5.0) == [ant]


def test_only_methods_without_processes_queue_in_an_ant(ants: AntRegistry) -> None:
    ant = ants.register(registered(methods=("DUMMY", "SHELL"), in_process_methods=("DUMMY",), slots=2, prefetch=6), 0.0)
    assert ant is not None
    ant.attempts = attempts(2)

    assert ants.with_room(DUMMY, 0.0) == [ant]
    assert ants.with_room(Requirement("SHELL"), 0.0) == []


def test_an_ant_that_comes_later_is_found_for_a_requirement_asked_before(ants: AntRegistry) -> None:
    assert ants.with_room(Requirement("DUMMY", ("gpu",)), 0.0) == []

    ant = ants.register(registered(tags=("gpu", "large")), 0.0)

    assert ants.with_room(Requirement("DUMMY", ("gpu",)), 0.0) == [ant]


def test_who_waits_is_told_why(ants: AntRegistry) -> None:
    requirement = Requirement("DUMMY", ("gpu",))
    assert ants.explain(requirement) == "no live ant offers DUMMY with tags [gpu]"

    first = ants.register(registered("a", tags=("gpu",), slots=2), 0.0)
    assert first is not None
    first.attempts = attempts(5)
    assert ants.explain(requirement) == "the only matching ant is full (2 of 2 slots)"

    ants.register(registered("b", tags=("gpu",), slots=4), 0.0)
    assert ants.explain(requirement) == "all 2 matching ants are full (2 of 6 slots)"

    first.is_draining = True
    assert ants.explain(requirement) == "the only matching ant is full (0 of 4 slots)"


def test_dispatches_are_numbered_per_shard_and_anew_in_each_epoch(ants: AntRegistry) -> None:
    ant = ants.register(registered(), 0.0)
    assert ant is not None

    assert [ant.next_number(3, 7), ant.next_number(3, 7), ant.next_number(4, 7)] == [1, 2, 1]
    assert [ant.next_number(3, 8), ant.next_number(3, 8)] == [1, 2]


def test_a_task_for_a_remote_worker_needs_an_ant_with_such_a_worker_and_says_what_is_missing(ants: AntRegistry) -> None:
    needs = Requirement("WEBSOCKET", (), ("cut", ("gpu",)))
    assert ants.explain(needs) == "no live ant takes workers (WEBSOCKET)"
    ants.register(registered(methods=("WEBSOCKET",), workers=(WorkerOffer(("cut",), ("cpu",)),)), 0.0)
    assert ants.with_room(needs, 0.0) == []
    assert ants.explain(needs) == "no worker for cut with tags [gpu] is connected to ant a"

    assert ants.update(registered(methods=("WEBSOCKET",), version=1, workers=(WorkerOffer(("cut",), ("gpu", "x")),)))

    assert [ant.registration.ant_id for ant in ants.with_room(needs, 0.0)] == ["a"]
    assert ants.views()[0].workers == (WorkersView(("cut",), ("gpu", "x")),)


def test_of_two_registrations_of_one_incarnation_the_newer_holds(ants: AntRegistry) -> None:
    needs = Requirement("DUMMY", (), ("cut", ()))
    ants.register(registered(version=2), 0.0)

    assert not ants.update(registered(version=1, workers=(WorkerOffer(("cut",)),)))
    assert not ants.update(registered("stranger", version=9))

    assert ants.with_room(needs, 0.0) == []
