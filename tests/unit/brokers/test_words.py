"""What is told of a driver's error."""

import pytest
from redis import exceptions

from brokers.errors import words_of
from brokers.redis import Link
from brokers.urls import parse_url


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionResetError(), "ConnectionResetError"),
        (OSError(111, "Connection refused"), "ConnectionRefusedError: [Errno 111] Connection refused"),
        (RuntimeError("RuntimeError: no server"), "RuntimeError: no server"),
        (RuntimeError("[Error 29] RuntimeError"), "[Error 29] RuntimeError"),
    ],
)
def test_the_class_of_an_error_is_named_once(error: Exception, words: str) -> None:
    assert words_of(error) == words


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("Command # 1 (XADD t) of pipeline caused error: ('full',)", "full"),
        ("Error while reading from h:1 : (104, 'reset')", "Error while reading from h:1 : (104, 'reset')"),
    ],
)
def test_of_a_redis_pipeline_only_the_server_s_words_are_told(error: str, words: str) -> None:
    link = Link(parse_url("redis://h", 6379, ()))
    with pytest.raises(Exception, match="cannot be reached") as found, link.errors():
        raise exceptions.ConnectionError(error)
    assert str(found.value).endswith(f"cannot be reached: {words}")
