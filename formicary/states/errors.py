"""Errors of the state machines.

StateError
├── IllegalTransitionError   this input can never meet this status: a defect, with the job's story
└── RefusedError             a person's command does not fit the present state (becomes a 409)
"""


class StateError(Exception):
    """Root of the state machines' errors."""


class IllegalTransitionError(StateError):
    """An input met a status that it never can; nothing changed."""

    def __init__(self, subject: str, status: str, event: str, story: str) -> None:
        super().__init__(f"{subject} is {status} and cannot take {event}; {story}")


class RefusedError(StateError):
    """The state forbids the command; nothing changed. The text says why, for people."""
