"""How many messages are asked for: about as much as fits into memory."""

from brokers.appetite import Appetite
from brokers.base import Message

MIB = 2**20


def messages(count: int, size_bytes: int) -> list[Message]:
    return [Message("t", "k", bytes(size_bytes)) for _ in range(count)]


def test_the_first_answer_is_small_also_where_messages_are_large() -> None:
    assert Appetite().count(10_000) * 64 * 1024 <= 8 * MIB


def test_large_messages_are_asked_for_one_by_one_at_once() -> None:
    appetite = Appetite()
    appetite.taste(messages(1, 8 * MIB))
    assert appetite.count(256) == 1


def test_small_messages_are_soon_asked_for_in_full() -> None:
    appetite = Appetite()
    appetite.taste(messages(1, 4 * MIB))
    for _ in range(20):
        appetite.taste(messages(10, 200))
    assert appetite.count(256) == 256


def test_no_more_is_asked_for_than_the_caller_takes() -> None:
    assert Appetite().count(3) == 3
