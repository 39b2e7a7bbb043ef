"""The sentences that a failed task or job carries: what happened and what to do, for people."""

from formicary.model.definition import JobDefinition, TaskDefinition


def seconds(value: float) -> str:
    """Returns a duration as people write it."""
    return f"{value:g} s"


def exit_code(task: TaskDefinition, code: int | None) -> str:
    """Returns the sentence of a plain failure."""
    return f"{_code(task, code)}; see its log, or map this code in on_exit_code if it is expected"


def mapped_code(task: TaskDefinition, code: int | None, target: str) -> str:
    """Returns the sentence of a code that the definition maps to a failure."""
    return f"{_code(task, code)}, which on_exit_code maps to {target}; see its log"


def used_up(task: TaskDefinition, code: int | None, wish: str, limit: int) -> str:
    """Returns the sentence of a special target whose budget is gone."""
    budget = "no retry is configured" if not limit else f"all {limit} were used"
    return f"{_code(task, code)} asks for {wish}, but {budget}; raise retry or see its log"


def signalled(code: int | None) -> str:
    """Returns the sentence of an end by a signal."""
    name = f"signal {code - 128}" if code is not None and code > 128 else "a signal"
    return f"was ended by {name} that Formicary did not send; see its log and the system log of its machine"


def task_timeout(task: TaskDefinition) -> str:
    """Returns the sentence of a task that ran too long."""
    return (
        f"ran longer than its timeout of {seconds(task.timeout_s)} and was stopped; raise its timeout or make it faster"
    )


def job_timeout(definition: JobDefinition) -> str:
    """Returns the sentence of a job that ran too long."""
    return (
        f"the job ran longer than its timeout of {seconds(definition.timeout_s)}; raise its timeout or make it faster"
    )


def ants_lost(count: int) -> str:
    """Returns the sentence of a poison task."""
    return f"{count} ants were lost while they ran it; see their logs: it may use up the machine's memory or disk"


def task_failed(task_type: str, message: str | None) -> str:
    """Returns the job's sentence for the task that failed it."""
    return f'task "{task_type}" failed: {message}'


def _code(task: TaskDefinition, code: int | None) -> str:
    return f"{'HTTP status' if task.method.startswith('HTTP_') else 'exit code'} {code}"


OUT_OF_MEMORY = "ran out of memory and was killed; raise its memory limit or let it use less"
CPU_TIME = "used up its processor time and was ended; raise limits.cpu_time or let it compute less"
NOT_ORDERED = "was stopped by its ant although nobody asked for it; see the ant's log"
EXECUTOR = "could not be run; see the ant's log"
ANT_LOST = "its ant was lost; the attempt is repeated at no cost"
STOPPED = "stopped because the job stopped"
STOPPED_BY_CANCEL = "stopped because the job was cancelled"
STOPPED_EARLY = "the job stopped before its next attempt"
RESTARTING = "asked for a restart of the job"


def declined(reason: str) -> str:
    """Returns the sentence of an attempt that an ant did not take."""
    return f"its ant declined it ({reason}); the attempt is repeated at no cost"
