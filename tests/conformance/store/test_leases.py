"""Leases: taken, lapsed, renewed, given back; the epochs only rise."""

from typing import Any

from formicary.ids import QueenId

A, B = QueenId("a"), QueenId("b")


async def test_a_free_lease_is_taken_with_a_new_epoch(stores: Any) -> None:
    (lease,) = await stores.leases.take(["shard-3"], A, "a@1", 60)

    assert (lease.name, lease.shard, lease.owner, lease.epoch, lease.is_live) == ("shard-3", 3, "a", 1, True)
    assert await stores.leases.shard_count() == 4


async def test_leases_come_leader_first_then_by_shard_and_no_more_than_asked_for(stores: Any) -> None:
    taken = await stores.leases.take(["shard-2", "leader", "shard-1"], A, "a@1", 60, limit=2)

    assert [lease.name for lease in taken] == ["leader", "shard-1"]
    assert [lease.name for lease in await stores.leases.all()] == ["leader", *(f"shard-{n}" for n in range(4))]


async def test_a_live_lease_of_another_queen_is_taken_only_by_force(stores: Any) -> None:
    await stores.leases.take(["shard-3"], A, "a@1", 60)

    assert await stores.leases.take(["shard-3"], B, "b@1", 60) == []
    assert [lease.epoch for lease in await stores.leases.take(["shard-3"], B, "b@1", 60, only_lapsed=False)] == [2]


async def test_a_lapsed_lease_is_taken_and_its_former_owner_cannot_renew(stores: Any) -> None:
    await stores.leases.take(["leader", "shard-3"], A, "a@1", 0)

    taken = await stores.leases.take(["shard-3"], B, "b@1", 60)

    assert [lease.epoch for lease in taken] == [2]
    assert await stores.leases.renew({"leader": 1, "shard-3": 1}, "a@1", 60) == {"leader"}


async def test_a_lapsed_lease_that_nobody_took_is_renewed(stores: Any) -> None:
    await stores.leases.take(["shard-3"], A, "a@1", 0)

    assert await stores.leases.renew({"shard-3": 1}, "a@1", 60) == {"shard-3"}
    assert next(lease for lease in await stores.leases.all() if lease.shard == 3).is_live


async def test_a_restarted_queen_raises_the_epoch_of_its_own_live_lease(stores: Any) -> None:
    await stores.leases.take(["shard-3"], A, "a@1", 60)

    (lease,) = await stores.leases.take(["shard-3"], A, "a@2", 60)

    assert lease.epoch == 2
    assert await stores.leases.renew({"shard-3": 1}, "a@1", 60) == set()


async def test_taking_again_in_the_same_life_changes_nothing(stores: Any) -> None:
    await stores.leases.take(["shard-3"], A, "a@1", 60)

    assert await stores.leases.take(["shard-3"], A, "a@1", 60) == []


async def test_released_leases_are_free_at_once_and_keep_their_epoch(stores: Any) -> None:
    await stores.leases.take(["shard-3"], A, "a@1", 60)

    assert await stores.leases.release({"shard-3": 1}, "a@1") == {"shard-3"}
    assert await stores.leases.release({"shard-3": 1}, "a@1") == set()

    (lease,) = await stores.leases.take(["shard-3"], B, "b@1", 60)
    assert lease.epoch == 2


async def test_a_reload_opens_a_new_epoch_of_what_is_still_held(stores: Any) -> None:
    await stores.leases.take(["shard-2", "shard-3"], A, "a@1", 60)

    raised = await stores.leases.raise_epoch({"shard-2": 1, "shard-3": 7}, "a@1")

    assert [(lease.shard, lease.epoch, lease.is_live) for lease in raised] == [(2, 2, True)]


async def test_queens_that_live_are_counted_until_they_leave_or_fall_silent(stores: Any) -> None:
    assert await stores.leases.present(B, "b@1", 60) == ["b"]
    assert await stores.leases.present(QueenId("silent"), "s@1", 0) == ["b", "silent"]
    assert await stores.leases.present(A, "a@1", 60) == ["a", "b"]

    await stores.leases.leave(B, "b@former")
    assert await stores.leases.present(A, "a@1", 60) == ["a", "b"]
    await stores.leases.leave(B, "b@1")
    assert await stores.leases.present(A, "a@1", 60) == ["a"]
