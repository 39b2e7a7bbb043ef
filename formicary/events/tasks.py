"""Events of attempts: between the owner of a job's shard and one ant."""

from datetime import datetime
from typing import Any

import msgspec

from formicary.events.base import Event
from formicary.ids import Incarnation, JobId
from formicary.model.jobs import ArtifactRef, CacheRecord

Json = Any  # a JSON value


class TaskDispatched(Event, frozen=True, kw_only=True, array_like=True, tag="TaskDispatched"):
    """Owner -> ant: run this attempt. ``number`` runs per shard, epoch and incarnation, from 1.

    ``order`` is an encoded ``Order``.
    """

    job_id: JobId
    task_no: int
    attempt: int
    shard: int
    epoch: int
    number: int
    incarnation: Incarnation
    order: msgspec.Raw
    trace: str | None = None


class TaskRecalled(Event, frozen=True, kw_only=True, array_like=True, tag="TaskRecalled"):
    """Owner -> ant: give a waiting attempt back; answered by ``TaskDeclined`` unless it runs already."""

    job_id: JobId
    task_no: int
    attempt: int
    shard: int
    epoch: int
    incarnation: Incarnation


class TaskCancelRequested(Event, frozen=True, kw_only=True, array_like=True, tag="TaskCancelRequested"):
    """Owner -> ant: stop this attempt; answered by ``TaskFinished`` or, if it is not held, by ``TaskDeclined``."""

    job_id: JobId
    task_no: int
    attempt: int
    shard: int
    epoch: int
    incarnation: Incarnation
    grace_s: float = 10.0


class TaskDeclined(Event, frozen=True, kw_only=True, array_like=True, tag="TaskDeclined"):
    """Ant -> owner: this attempt does not run here, and never will. ``reason``: see ``DeclineReason``."""

    job_id: JobId
    task_no: int
    attempt: int
    incarnation: Incarnation
    reason: str
    slots_free: int = 0


class TaskStarted(Event, frozen=True, kw_only=True, array_like=True, tag="TaskStarted"):
    """Ant -> owner: the attempt runs. Left out where ``TaskFinished`` leaves in the same flush."""

    job_id: JobId
    task_no: int
    attempt: int
    incarnation: Incarnation
    started_at: datetime


class TaskFinished(Event, frozen=True, kw_only=True, array_like=True, tag="TaskFinished"):
    """Ant -> owner: the attempt ended.

    ``reason`` is an ``executors.base.Reason``, or ``error`` where the executor or a transfer failed, and then
    ``error_code`` says which. ``slots_free`` is the ant's count after this end.
    """

    job_id: JobId
    task_no: int
    attempt: int
    incarnation: Incarnation
    reason: str
    exit_code: int | None
    is_success: bool
    started_at: datetime | None
    finished_at: datetime
    slots_free: int
    error_code: str | None = None
    error_message: str | None = None
    outputs: dict[str, Json] | None = None
    artifacts: tuple[ArtifactRef, ...] = ()
    cache: CacheRecord | None = None


class BarrierReached(Event, frozen=True, kw_only=True, array_like=True, tag="BarrierReached"):
    """Owner -> its own results log: everything an ant reported before this has been read."""

    shard: int
    epoch: int
    number: int


class DeclineReason:
    """Why an ant does not run an attempt."""

    BUSY = "busy"
    DRAINING = "draining"
    UNKNOWN_METHOD = "unknown_method"
    WRONG_INCARNATION = "wrong_incarnation"
    OLD_EPOCH = "old_epoch"
    NO_LEASE = "no_lease"
    NOT_HELD = "not_held"
    RECALLED = "recalled"
    DUPLICATE = "duplicate"
    BAD_ORDER = "bad_order"
