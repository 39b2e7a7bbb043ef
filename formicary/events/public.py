"""What other services exchange with queens: JSON documents, one type each, told apart by ``type``.

Unlike the packs between queens and ants these are documented for everyone (``docs/events.md``), so fields are only ever
added, with a default. Commands refuse fields they do not know: a misspelt one must not be ignored. Readers of events
must ignore those that they do not know.
"""

from datetime import datetime
from typing import Annotated, Any, Final

import msgspec

from formicary.errors import Problem

Json = Any  # a JSON value

#: Topics that a reply may be sent to: no inner topic of the colony, and a name that every broker takes.
REPLY_TOPIC: Final = r"^(?!formicary\.(?!replies\.))[A-Za-z0-9_-][A-Za-z0-9._-]*$"

Key = Annotated[str, msgspec.Meta(min_length=1, max_length=255, description="The same key is carried out once.")]
ReplyTo = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=200,
        pattern=REPLY_TOPIC,
        description="Topic of the answer, such as formicary.replies.shop; without it there is none.",
    ),
]
CorrelationId = Annotated[str, msgspec.Meta(max_length=255, description="Comes back in the answer.")]
Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)]


class SubmitJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag=True):
    """Asks for a job. Without ``idempotency_key`` the topic and the message's id are its key."""

    job_type: str
    version: Annotated[int, msgspec.Meta(ge=1, lt=2**31)] | None = None
    params: dict[str, Json] = {}
    priority: Int32 | None = None
    scheduled_at: datetime | None = None
    labels: dict[str, str] = {}
    idempotency_key: Key | None = None
    reply_to: ReplyTo | None = None
    correlation_id: CorrelationId | None = None


class CancelJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag=True):
    """Asks that a job be cancelled. A second one, with another key, also stops ``always_run`` tasks."""

    job_id: str
    reason: Annotated[str, msgspec.Meta(max_length=1000)] | None = None
    idempotency_key: Key | None = None
    reply_to: ReplyTo | None = None
    correlation_id: CorrelationId | None = None


Command = SubmitJob | CancelJob


class CommandAccepted(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag=True):
    """The command is committed. ``is_new`` is false where its key had been seen, with the same body."""

    command: str
    message_id: str
    correlation_id: str | None
    at: str
    job_id: str
    is_new: bool


class CommandRefused(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag=True):
    """The command changed nothing, and lies in the dead-letter topic. ``code`` is stable, ``detail`` is for people."""

    command: str | None
    message_id: str
    correlation_id: str | None
    at: str
    code: str
    detail: str
    errors: tuple[Problem, ...] = ()


Reply = CommandAccepted | CommandRefused


class JobStateChanged(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag=True):
    """A job reached a state, and it is committed. ``attempt`` counts job attempts from 1."""

    sequence: int
    job_id: str
    job_type: str
    state: str
    attempt: int
    at: str
    error_code: str | None
    error_message: str | None


class TaskStateChanged(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag=True):
    """A task of a job type with ``task_events: true`` reached a state. ``attempt`` counts its dispatches, from 1."""

    sequence: int
    job_id: str
    job_type: str
    task_type: str
    state: str
    attempt: int
    at: str
    ant_id: str | None
    exit_code: int | None
    error_code: str | None
    error_message: str | None


LifecycleEvent = JobStateChanged | TaskStateChanged
