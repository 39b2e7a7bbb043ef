"""Every topic: who speaks on it to whom, in which order, how it is read, and how long it is kept.

``docs/events.md`` and ``docs/asyncapi.yaml`` are made of this and of the event types; see ``describe``.
"""

from typing import Any, Final, NamedTuple

from formicary.errors import Problem
from formicary.events import topics
from formicary.events.ants import AntHeartbeat, AntLeft, AntRegistered, HeartbeatsSeen
from formicary.events.base import Event
from formicary.events.jobs import JobCommandIssued, JobLaunched, LeasesReleased
from formicary.events.logs import LogChunk
from formicary.events.public import (
    CancelJob,
    CommandAccepted,
    CommandRefused,
    JobStateChanged,
    SubmitJob,
    TaskStateChanged,
)
from formicary.events.tasks import (
    BarrierReached,
    TaskCancelRequested,
    TaskDeclined,
    TaskDispatched,
    TaskFinished,
    TaskRecalled,
    TaskStarted,
)

Types = tuple[type[Any], ...]


class Channel(NamedTuple):
    """A topic, or a family of them. ``name`` shows what varies as ``<…>``."""

    name: str
    #: Name of the channel in the AsyncAPI document.
    label: str
    direction: str
    key: str
    reading: str
    kept: str
    types: Types


#: What other services exchange with queens: JSON.
PUBLIC: Final = (
    Channel(
        topics.COMMANDS,
        "commands",
        "anyone → queens",
        "free",
        f"by the queens together, group `{topics.QUEENS}`",
        "until they are acknowledged",
        (SubmitJob, CancelJob),
    ),
    Channel(
        f"{topics.COMMANDS}.dead",
        "deadCommands",
        "queens → whoever looks after it",
        "the command's",
        "as you like; nobody of the colony reads it",
        "as the broker keeps what nobody trims, by default a week",
        (),
    ),
    Channel(
        f"{topics.PREFIX}.replies.<name>",
        "replies",
        "queens → the sender of a command",
        "the command's",
        "as you like; any topic of your own outside `formicary.` will do too",
        "as the broker keeps what nobody trims, by default a week",
        (CommandAccepted, CommandRefused),
    ),
    Channel(
        topics.LIFECYCLE,
        "lifecycle",
        "leading queen → anyone",
        "the job's id",
        "by position or by a group of your own, or from now on",
        "an hour, or the newest 250,000 changes",
        (JobStateChanged, TaskStateChanged),
    ),
)

#: What queens, ants and wardens exchange: packs in MessagePack. Nobody else may rely on these.
INNER: Final = (
    Channel(
        topics.ANTS,
        "ants",
        "ant or its warden → all queens",
        "the ant's id",
        "broadcast",
        "for nobody who comes later",
        (AntRegistered, AntHeartbeat, AntLeft, LeasesReleased),
    ),
    Channel(
        topics.ANSWERS,
        "answers",
        "owner → all ants",
        "the queen's id",
        "broadcast",
        "for nobody who comes later",
        (HeartbeatsSeen,),
    ),
    Channel(
        f"{topics.PREFIX}.ant.<ant id>",
        "inbox",
        f"owner → one ant; on Kafka all ants share `{topics.ANT_INBOXES}`",
        "the ant's id",
        "by position, by the ant",
        "trimmed by the ant behind what it has read, a shared one behind what it had read ten minutes before; its own "
        "is deleted when the ant has been gone for an hour",
        (TaskDispatched, TaskRecalled, TaskCancelRequested),
    ),
    Channel(
        f"{topics.PREFIX}.results.<shard>",
        "results",
        "ant → owner of the shard",
        "the shard",
        "by position, by the owner, committed with the states that follow",
        "trimmed behind the committed position",
        (TaskDeclined, TaskStarted, TaskFinished, BarrierReached),
    ),
    Channel(
        f"{topics.PREFIX}.launch.<shard>",
        "launch",
        "scheduler, manager → owner of the shard",
        "the shard",
        "by position, by the owner",
        "trimmed behind the committed position",
        (JobLaunched, JobCommandIssued),
    ),
    Channel(
        topics.LOGS,
        "logs",
        "ant → log writers",
        "the attempt",
        f"by the queens together, group `{topics.LOG_WRITERS}`",
        "until they are acknowledged",
        (LogChunk,),
    ),
)

EVENTS: Final[tuple[type[Event], ...]] = tuple(kind for channel in INNER for kind in channel.types)

_JOB: Final = "01a1fe02-a9ca-7ae7-a6f8-95aab6fb3d82"
_MESSAGE: Final = "1763736000000-0"
_AT: Final = "2026-03-01T06:00:00.123456Z"

#: One of each public type, as it is sent.
EXAMPLES: Final[tuple[Any, ...]] = (
    SubmitJob(
        job_type="daily-sales",
        params={"region": "eu", "days": 7},
        priority=5,
        labels={"team": "data"},
        idempotency_key="sales-2026-03-01-eu",
        reply_to="formicary.replies.shop",
        correlation_id="order 4711",
    ),
    CancelJob(
        job_id=_JOB,
        reason="the customer withdrew the order",
        idempotency_key="withdraw-4711",
        reply_to="formicary.replies.shop",
        correlation_id="order 4711",
    ),
    CommandAccepted(
        command="SubmitJob", message_id=_MESSAGE, correlation_id="order 4711", at=_AT, job_id=_JOB, is_new=True
    ),
    CommandRefused(
        command="SubmitJob",
        message_id=_MESSAGE,
        correlation_id="order 4711",
        at=_AT,
        code="ERR_VALIDATION",
        detail="prams: is no field of this command; did you mean params?",
        errors=(Problem(path="prams", message="is no field of this command", hint="did you mean params?"),),
    ),
    JobStateChanged(
        sequence=4811,
        job_id=_JOB,
        job_type="daily-sales",
        state="FAILED",
        attempt=1,
        at=_AT,
        error_code="ERR_EXIT_CODE",
        error_message='task "load" failed: exit code 2',
    ),
    TaskStateChanged(
        sequence=4810,
        job_id=_JOB,
        job_type="daily-sales",
        task_type="load",
        state="FAILED",
        attempt=1,
        at=_AT,
        ant_id="builder-1",
        exit_code=2,
        error_code="ERR_EXIT_CODE",
        error_message="exit code 2",
    ),
)


class Reason(NamedTuple):
    """Why a message is in a dead-letter topic, and what helps."""

    begins: str
    means: str
    helps: str


#: Of commands; the header begins with the code.
COMMAND_REASONS: Final = (
    Reason(
        "ERR_VALIDATION",
        "No JSON, a field that is unknown, missing or wrong, refused params, or a key of another body.",
        "Correct the sender; each mistake is in `errors` of the answer.",
    ),
    Reason("ERR_NOT_FOUND", "No such job type, version or job.", "Apply the definition, then send the command again."),
    Reason(
        "ERR_CONFLICT",
        "The state of the job forbids it.",
        "Look at the job; it may have ended.",
    ),
    Reason(
        "internal error", "Carrying it out failed five times.", "Look into the log of the queens, then send it again."
    ),
)

#: Of events between queens and ants.
EVENT_REASONS: Final = (
    Reason("not a pack of events", "The body is none of ours.", "Find out who publishes on topics of the colony."),
    Reason(
        "schema version",
        "The sender is newer or older than the reader by more than fields.",
        "Bring all processes to one version.",
    ),
    Reason("unknown event", "The sender knows an event that the reader does not.", "Upgrade the reader."),
    Reason(
        "bad …",
        "A field has a value that it cannot have. The attempt that it names is failed.",
        "Report it, with the dead letter.",
    ),
)
