"""The states of tasks and jobs, and the error codes a failure can carry."""

from enum import StrEnum


class TaskState(StrEnum):
    """Where a task is. READY means: dispatched to an ant that has not said that it started."""

    PENDING = "PENDING"
    READY = "READY"
    EXECUTING = "EXECUTING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    SKIPPED = "SKIPPED"
    PAUSED = "PAUSED"
    MANUAL_APPROVAL_REQUIRED = "MANUAL_APPROVAL_REQUIRED"


class JobState(StrEnum):
    """Where a job is."""

    PENDING = "PENDING"
    READY = "READY"
    EXECUTING = "EXECUTING"
    PAUSED = "PAUSED"
    MANUAL_APPROVAL_REQUIRED = "MANUAL_APPROVAL_REQUIRED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


TERMINAL_TASK_STATES = frozenset({TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED, TaskState.SKIPPED})
TERMINAL_JOB_STATES = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})


class ErrorCode(StrEnum):
    """The codes that Formicary itself gives; definitions may give others that begin with ``ERR_``."""

    EXIT_CODE = "ERR_EXIT_CODE"
    SIGNAL = "ERR_SIGNAL"
    TASK_TIMEOUT = "ERR_TASK_TIMEOUT"
    JOB_TIMEOUT = "ERR_JOB_TIMEOUT"
    ANT_LOST = "ERR_ANT_LOST"
    VALIDATION = "ERR_VALIDATION"
    TEMPLATE = "ERR_TEMPLATE"
    ARTIFACT = "ERR_ARTIFACT"
    EXECUTOR = "ERR_EXECUTOR"
    OUT_OF_MEMORY = "ERR_OUT_OF_MEMORY"
    CPU_TIME = "ERR_CPU_TIME"
    IMAGE = "ERR_IMAGE"
    SERVICE = "ERR_SERVICE"
    UNSCHEDULABLE = "ERR_UNSCHEDULABLE"
    EVICTED = "ERR_EVICTED"
    FATAL = "ERR_FATAL"
    CANCELLED = "ERR_CANCELLED"
