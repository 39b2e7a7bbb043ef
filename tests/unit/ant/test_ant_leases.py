"""Leases run from the sending of the newest answered heartbeat."""

import math

from formicary.ant.leases import Leases


def test_a_lease_runs_from_the_sending_not_from_the_answer() -> None:
    leases = Leases(60.0, can_lapse=True)
    leases.note_sent(1, 100.0)
    assert leases.note_answer({3: 1}, 1, 150.0) == {3: 160.0}
    assert leases.holds(3, 159.9)
    assert not leases.holds(3, 160.0)
    assert leases.has_lapsed(160.0)


def test_only_the_shards_that_were_answered_have_a_lease() -> None:
    leases = Leases(60.0, can_lapse=True)
    leases.note_sent(1, 100.0)
    leases.note_answer({3: 1}, 1, 100.0)
    assert not leases.holds(4, 100.0)


def test_an_older_heartbeat_never_shortens_a_lease() -> None:
    leases = Leases(60.0, can_lapse=True)
    leases.note_sent(1, 100.0)
    leases.note_sent(2, 110.0)
    leases.note_answer({3: 1}, 2, 110.0)
    assert leases.note_answer({3: 1}, 1, 111.0) == {}
    assert leases.next_end == 170.0


def test_an_answer_of_an_older_epoch_counts_nothing() -> None:
    leases = Leases(60.0, can_lapse=True)
    leases.note_epoch(3, 5)
    leases.note_sent(1, 100.0)
    assert leases.note_answer({3: 4}, 1, 100.0) == {}


def test_an_answer_that_comes_after_its_own_end_gives_no_lease() -> None:
    leases = Leases(60.0, can_lapse=True)
    leases.note_sent(1, 100.0)
    assert leases.note_answer({3: 1}, 1, 160.0) == {}
    assert not leases.has_lapsed(1000.0)


def test_a_new_incarnation_holds_no_lease_but_remembers_the_epochs() -> None:
    leases = Leases(60.0, can_lapse=True)
    leases.note_epoch(3, 5)
    leases.note_sent(1, 100.0)
    leases.note_answer({3: 5}, 1, 100.0)
    leases.begin()
    assert not leases.holds(3, 100.0)
    assert leases.note_answer({3: 5}, 1, 100.0) == {}
    assert leases.epochs == {3: 5}


def test_within_one_process_no_lease_ever_lapses() -> None:
    leases = Leases(60.0, can_lapse=False)
    leases.note_sent(1, 0.0)
    leases.note_answer({3: 1}, 1, 0.0)
    assert leases.holds(3, 1e9)
    assert not leases.has_lapsed(1e9)
    assert leases.next_end == math.inf


def test_the_memory_of_heartbeats_is_bounded() -> None:
    leases = Leases(60.0, can_lapse=True)
    for sequence in range(1, 10_000):
        leases.note_sent(sequence, float(sequence))
    assert leases.note_answer({3: 1}, 1, 2.0) == {}
    assert leases.note_answer({3: 1}, 9_999, 9_999.0) == {3: 10_059.0}


def test_a_lease_lasts_no_longer_than_its_owner_says() -> None:
    leases = Leases(60.0, can_lapse=True)
    leases.note_sent(1, 100.0)
    assert leases.note_answer({3: 1}, 1, 100.0, told_s=12.0) == {3: 112.0}
    assert leases.note_answer({4: 1}, 1, 100.0, told_s=90.0) == {4: 160.0}


def test_heartbeats_keep_the_shortest_lease_that_an_owner_told_in_this_incarnation() -> None:
    leases = Leases(60.0, can_lapse=True)
    assert leases.heartbeat_s == 5.0
    leases.note_answer({3: 1}, 1, 100.0, told_s=3.0)
    leases.note_answer({4: 1}, 1, 100.0, told_s=12.0)
    assert leases.heartbeat_s == 1.0
    leases.begin()
    assert leases.heartbeat_s == 5.0
