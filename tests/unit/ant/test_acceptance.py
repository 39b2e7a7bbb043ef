"""Accept or decline, once per dispatch."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from formicary.ant.acceptance import Acceptance, Numbers
from formicary.ant.leases import Leases
from formicary.ant.slots import Slots
from formicary.events.tasks import TaskDispatched
from formicary.ids import Incarnation, JobId

ME = Incarnation("ant@1")


def dispatch(number: int = 1, **changes: Any) -> TaskDispatched:
    base = TaskDispatched(
        job_id=JobId("job"),
        task_no=0,
        attempt=1,
        shard=2,
        epoch=7,
        number=number,
        incarnation=ME,
        order=msgspec.Raw(b"\xc0"),
    )
    return msgspec.structs.replace(base, **changes)


def acceptance(can_lapse: bool = False, prefetch: int = 1) -> tuple[Acceptance, Leases]:
    leases = Leases(60.0, can_lapse)
    return Acceptance(leases, Slots(1, prefetch)), leases


@given(st.lists(st.integers(1, 60), max_size=200))
def test_a_number_is_new_exactly_once_whatever_the_order(numbers: list[int]) -> None:
    judged, seen = Numbers(), set[int]()
    for number in numbers:
        assert judged.add(number) == (number not in seen)
        seen.add(number)


@given(st.permutations(range(1, 40)))
def test_the_memory_is_one_number_when_the_gaps_are_filled(numbers: list[int]) -> None:
    judged = Numbers()
    for number in numbers:
        judged.add(number)
    assert (judged.highest, judged.gap_count) == (39, 0)


def test_a_far_jump_costs_one_gap() -> None:
    judged = Numbers()
    judged.add(10**9)
    assert judged.gap_count == 1
    assert judged.add(5)
    assert not judged.add(5)


def test_a_dispatch_is_accepted_when_nothing_speaks_against_it() -> None:
    judge, _ = acceptance()
    assert judge.refusal(dispatch(), ME, 0.0) is None


@pytest.mark.parametrize(
    ("changes", "reason"), [({"incarnation": "ant@0"}, "wrong_incarnation"), ({"epoch": 6}, "old_epoch")]
)
def test_what_is_not_meant_for_this_life_is_refused(changes: dict[str, Any], reason: str) -> None:
    judge, leases = acceptance()
    leases.note_epoch(2, 7)
    assert judge.refusal(dispatch(**changes), ME, 0.0) == reason


def test_an_answer_of_an_older_epoch_admits_the_dispatch_of_a_newer_one() -> None:
    judge, leases = acceptance(can_lapse=True)
    assert judge.refusal(dispatch(), ME, 1.0) == "no_lease"
    leases.note_sent(1, 0.0)
    leases.note_answer({2: 7}, 1, 1.0)
    assert judge.refusal(dispatch(2, epoch=8), ME, 1.0) is None
    assert judge.refusal(dispatch(3, epoch=7), ME, 1.0) == "old_epoch"


def test_a_refused_epoch_is_remembered_all_the_same() -> None:
    judge, leases = acceptance()
    judge.refusal(dispatch(incarnation=Incarnation("ant@0"), epoch=9), ME, 0.0)
    assert leases.epochs == {2: 9}


def test_a_draining_ant_and_a_full_one_refuse() -> None:
    judge, _ = acceptance(prefetch=-1)
    assert judge.refusal(dispatch(), ME, 0.0) == "busy"
    judge.is_draining = True
    assert judge.refusal(dispatch(2), ME, 0.0) == "draining"


def test_copies_are_known_per_shard_epoch_and_incarnation() -> None:
    judge, _ = acceptance()
    assert not judge.is_copy(dispatch())
    assert judge.is_copy(dispatch())
    for changes in ({"shard": 3}, {"epoch": 8}, {"incarnation": "ant@2"}):
        assert not judge.is_copy(dispatch(**changes))
