"""What is quoted of a task's own words: whole lines, since masking recognises no half of a secret."""

import pytest

from executors.docker.engine import OUTPUT_BYTES
from executors.docker.services import last_said
from executors.excerpts import last_lines
from executors.kubernetes.exec import STDERR_BYTES, ExecSession
from executors.kubernetes.transfer import words_of
from executors.results import outcome_of_exception


def complaint(stderr: bytes) -> str:
    session = ExecSession(None)  # type: ignore[arg-type]  # its command has ended
    session.stderr, session.exit_code = stderr[-STDERR_BYTES:], 2
    return words_of(session)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("short", "short"), ("one\ntwo\nthree", "two\nthree"), ("one\n" + "x" * 20, "x" * 20), ("", "")],
)
def test_the_last_lines_that_fit_are_quoted(text: str, expected: str) -> None:
    assert last_lines(text, 10) == expected


def test_a_complaint_begins_with_a_whole_line() -> None:
    line = b"tar: a-secret: no such file\n"

    assert complaint(line * 10) == (line * 10).decode().strip()
    assert complaint(line * 1000).splitlines() == [line.decode().strip()] * 17
    assert complaint(b"a" * 3000) == "a" * 3000
    assert complaint(b"a" * 5000) == "exit code 2", "how much of the line is missing is not known"


def test_what_a_command_said_beyond_what_is_kept_is_not_quoted_in_part() -> None:
    assert last_said(b"one\ntwo\n \n") == "two"
    assert last_said((b"one\n" + b"x" * OUTPUT_BYTES)[:OUTPUT_BYTES]) == "one"


def test_a_long_message_of_an_exception_is_cut_between_its_lines() -> None:
    outcome, _ = outcome_of_exception(ValueError("first line\n" + "a-secret " * 100))
    assert outcome.message == "ValueError: first line\n" + ("a-secret " * 100).strip()

    outcome, _ = outcome_of_exception(ValueError("first line\n" + "a-secret " * 10_000))
    assert outcome.message == "ValueError: first line\n… (90022 characters)"
