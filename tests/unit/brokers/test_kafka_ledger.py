"""What a group has done, also out of order, survives in a commit."""

from hypothesis import given
from hypothesis import strategies as st

from brokers.kafka_ledger import METADATA_LIMIT_BYTES, Ledger


@given(st.integers(0, 2**40), st.lists(st.integers(0, 60)))
def test_a_new_owner_gets_exactly_what_is_not_done(low: int, finished: list[int]) -> None:
    ledger = Ledger(low)
    for offset in finished:
        ledger.finish(low + offset)
    successor = Ledger(ledger.low, ledger.metadata())
    done = [offset for offset in range(70) if successor.is_done(low + offset)]
    assert done == sorted(set(finished))
    assert not successor.is_done(successor.low)
    assert successor.low - low + successor.done_count == len(done)


def test_rejections_are_counted_across_owners() -> None:
    ledger = Ledger(10)
    ledger.rejections[12] = 3
    ledger.finish(10)
    successor = Ledger(ledger.low, ledger.metadata())
    assert successor.rejections == {12: 3}
    successor.finish(12)
    assert Ledger(successor.low, successor.metadata()).rejections == {}


def test_metadata_stays_within_what_kafka_takes_and_claims_nothing_undone() -> None:
    ledger = Ledger(0)
    for offset in range(1, 20_000, 2):
        ledger.finish(offset)
        ledger.rejections[offset + 1] = 1
    text = ledger.metadata()
    assert 0 < len(text) <= METADATA_LIMIT_BYTES
    successor = Ledger(0, text)
    assert not any(successor.is_done(offset) for offset in range(0, 20_000, 2))


def test_what_is_no_longer_in_the_log_is_passed_over() -> None:
    ledger = Ledger(0)
    for offset in (3, 5, 6):
        ledger.finish(offset)
    ledger.rejections[1] = 2
    ledger.skip_to(5)
    assert (ledger.low, ledger.done_count, ledger.rejections) == (7, 0, {})
    ledger.skip_to(2)
    assert ledger.low == 7


def test_a_commit_names_its_log_of_which_alone_offsets_are_open() -> None:
    ledger = Ledger(3, log_id="one")
    ledger.finish(4)
    successor = Ledger(ledger.low, ledger.metadata())
    assert successor.log_id == "one"
    asked = [("one", 2), ("one", 3), ("one", 4), ("one", 5), ("other", 5)]
    assert [successor.is_open(entry) for entry in asked] == [False, True, False, True, False]


def test_of_a_log_that_ends_before_it_was_done_nothing_is_done() -> None:
    for low, done in ((8, []), (3, [7])):
        ledger = Ledger(low)
        for offset in done:
            ledger.finish(offset)
        ledger.rejections[low + 1] = 1
        ledger.fit(2, 8)
        assert (ledger.low, ledger.done_count, len(ledger.rejections)) == (low, len(done), 1)
        ledger.fit(2, 7)
        assert (ledger.low, ledger.done_count, ledger.rejections) == (2, 0, {})


def test_metadata_of_another_program_means_nothing() -> None:
    for text in ("x", "[]", '{"d": 1}', '{"d": [[1]]}', '{"r": {"a": "b"}}', "null"):
        ledger = Ledger(5, text)
        assert (ledger.low, ledger.done_count) == (5, 0)


@given(st.lists(st.integers(0, 60)), st.lists(st.integers(0, 60)), st.integers(0, 40))
def test_what_either_of_two_owners_has_done_is_done(first: list[int], second: list[int], low: int) -> None:
    mine, other = Ledger(0), Ledger(low)
    for offset in first:
        mine.finish(offset)
    for offset in second:
        other.finish(offset)
    mine.merge(other)
    expected = set(first) | set(range(low)) | {offset for offset in second if offset >= low}
    assert {offset for offset in range(70) if mine.is_done(offset)} == expected
    assert mine.low + mine.done_count == len(expected)


def test_merging_keeps_the_higher_count_of_rejections_and_none_of_what_is_done() -> None:
    mine, other = Ledger(0), Ledger(2)
    mine.rejections = {1: 4, 3: 1, 5: 2}
    other.rejections = {3: 2, 5: 1, 6: 1}
    other.finish(6)
    mine.merge(other)
    assert mine.rejections == {3: 2, 5: 2}


def test_a_message_held_for_long_costs_nothing_for_each_one_done_behind_it() -> None:
    ledger = Ledger(0)
    for offset in range(1, 50_000):
        ledger.finish(offset)
    assert ledger.metadata() == '{"l":"","d":[[1,49999]],"r":{}}'
    assert (ledger.low, ledger.done_count) == (0, 49_999)
