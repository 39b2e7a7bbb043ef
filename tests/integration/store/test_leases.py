"""Leases: taking, lapsing, renewing, giving back."""

from formicary.ids import QueenId
from formicary.store.database import Database
from formicary.store.leases import LeaseStore

A, B = QueenId("a"), QueenId("b")


async def test_a_free_lease_is_taken_with_a_new_epoch(database: Database) -> None:
    store = LeaseStore(database)

    (lease,) = await store.take(["shard-3"], A, "a@1", 60)

    assert (lease.name, lease.shard, lease.owner, lease.epoch, lease.is_live) == ("shard-3", 3, "a", 1, True)


async def test_a_live_lease_of_another_queen_is_not_taken(database: Database) -> None:
    store = LeaseStore(database)
    await store.take(["shard-3"], A, "a@1", 60)

    assert await store.take(["shard-3"], B, "b@1", 60) == []


async def test_a_lapsed_lease_is_taken_and_its_former_owner_cannot_renew(database: Database) -> None:
    store = LeaseStore(database)
    await store.take(["leader", "shard-3"], A, "a@1", 0)

    taken = await store.take(["shard-3"], B, "b@1", 60)

    assert [lease.epoch for lease in taken] == [2]
    assert await store.renew({"leader": 1, "shard-3": 1}, "a@1", 60) == {"leader"}


async def test_a_lapsed_lease_that_nobody_took_is_renewed(database: Database) -> None:
    store = LeaseStore(database)
    await store.take(["shard-3"], A, "a@1", 0)

    assert await store.renew({"shard-3": 1}, "a@1", 60) == {"shard-3"}
    assert next(lease for lease in await store.all() if lease.shard == 3).is_live


async def test_a_restarted_queen_raises_the_epoch_of_its_own_live_lease(database: Database) -> None:
    store = LeaseStore(database)
    await store.take(["shard-3"], A, "a@1", 60)

    (lease,) = await store.take(["shard-3"], A, "a@2", 60)

    assert lease.epoch == 2
    assert await store.renew({"shard-3": 1}, "a@1", 60) == set()


async def test_taking_again_in_the_same_life_changes_nothing(database: Database) -> None:
    store = LeaseStore(database)
    await store.take(["shard-3"], A, "a@1", 60)

    assert await store.take(["shard-3"], A, "a@1", 60) == []


async def test_released_leases_are_free_at_once_and_keep_their_epoch(database: Database) -> None:
    store = LeaseStore(database)
    await store.take(["shard-3"], A, "a@1", 60)

    assert await store.release({"shard-3": 1}, "a@1") == {"shard-3"}

    (lease,) = await store.take(["shard-3"], B, "b@1", 60)
    assert lease.epoch == 2


async def test_a_release_of_what_was_taken_over_does_nothing(database: Database) -> None:
    store = LeaseStore(database)
    await store.take(["shard-3"], A, "a@1", 0)
    await store.take(["shard-3"], B, "b@1", 60)

    assert await store.release({"shard-3": 1}, "a@1") == set()


async def test_a_reload_opens_a_new_epoch_of_what_is_still_held(database: Database) -> None:
    store = LeaseStore(database)
    await store.take(["shard-3", "shard-4"], A, "a@1", 60)

    raised = await store.raise_epoch({"shard-3": 1, "shard-4": 7}, "a@1")

    assert [(lease.shard, lease.epoch, lease.is_live) for lease in raised] == [(3, 2, True)]
