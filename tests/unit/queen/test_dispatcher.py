"""Who gets what waits."""

import pytest

from formicary.events.ants import Held
from formicary.ids import JobId
from tests.unit.queen.conftest import Queen, heartbeat


@pytest.mark.parametrize(("used_of_two", "used_of_ten", "chosen"), [(1, 4, "large"), (1, 6, "small"), (2, 9, "large")])
def test_a_task_goes_to_the_ant_with_the_smallest_share_of_its_room_in_use(
    queen: Queen, used_of_two: int, used_of_ten: int, chosen: str
) -> None:
    small, large = queen.ant("small", slots=2), queen.ant("large", slots=10)
    small.attempts = {(JobId("s"), number, 1) for number in range(used_of_two)}
    large.attempts = {(JobId("l"), number, 1) for number in range(used_of_ten)}
    queen.begin(queen.job())

    queen.dispatch()

    (dispatch,) = queen.shard.in_flight.values()
    assert dispatch.incarnation == f"{chosen}@1"


def test_a_task_goes_where_no_other_queen_has_its_tasks(queen: Queen) -> None:
    queen.ant("a", slots=2)
    queen.ant("b", slots=2)
    queen.registry.heard(heartbeat("a", held=(Held(4, JobId("of another queen"), 0, 1),)), 0.0, own_shards=(3,))
    queen.begin(queen.job())

    queen.dispatch()

    (dispatch,) = queen.shard.in_flight.values()
    assert dispatch.incarnation == "b@1"


def test_what_waits_fills_every_slot_and_no_more(queen: Queen) -> None:
    ants = [queen.ant("a", slots=3), queen.ant("b", slots=1), queen.ant("c", slots=2)]
    queen.begin(*(queen.job(name=f"job-{number}") for number in range(9)))

    queen.dispatch()

    assert [ant.in_flight for ant in ants] == [3, 1, 2]
    assert queen.engine.ready.size() == 3
    assert [queen.sent().count(kind) for kind in ("TaskDispatched", "TaskCancelRequested")] == [6, 0]


def test_a_slot_that_is_given_back_is_filled_by_the_next(queen: Queen) -> None:
    queen.ant(slots=1)
    queen.begin(queen.job(name="first"), queen.job(name="second"))
    queen.dispatch()
    assert list(queen.shard.in_flight) == [("first", 0, 1)]

    queen.engine.release(queen.shard, (JobId("first"), 0, 1))
    queen.dispatch()

    assert list(queen.shard.in_flight) == [("second", 0, 1)]
