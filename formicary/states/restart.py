"""What runs anew in the next job attempt, and how a task forgets the last one."""

from collections.abc import Iterable

from formicary.ids import only_place
from formicary.model.states import TaskState
from formicary.states.cells import TaskCell
from formicary.states.graph import Plan


def anew(plan: Plan, tasks: list[TaskCell], seeds: Iterable[int] = ()) -> list[int]:
    """Returns the tasks that a soft restart runs anew, ascending.

    These are ``seeds``, what did not end well, all that lies downstream of either by any edge, and ``always_run``
    tasks. SKIPPED tasks are judged again: the same edges skip them again, unless only the job's stop skipped them.
    """
    chosen = bytearray(plan.is_always_run)
    stack = list(seeds)
    for cell in tasks:
        if cell.state is TaskState.SKIPPED and not cell.is_excepted:
            chosen[cell.no] = 1
        elif cell.state is not TaskState.COMPLETED and cell.state is not TaskState.SKIPPED:
            stack.append(cell.no)
    seen = bytearray(plan.size)
    while stack:
        no = stack.pop()
        if not seen[no]:
            seen[no] = chosen[no] = 1
            stack.extend(plan.targets[no])
    return [no for no in range(plan.size) if chosen[no]]


def forget_attempt(cell: TaskCell) -> None:
    """Takes from a cell what its ended attempt left, once that is archived; code and error stay to be shown."""
    cell.incarnation = only_place(cell.incarnation)
    cell.outputs = None
    cell.artifacts = ()
    cell.cache = None
    cell.memo = None
    cell.reused_from = None
    cell.dispatched_at = None
    cell.started_at = None
    cell.finished_at = None


def reset(cell: TaskCell, job_attempt: int) -> None:
    """Makes a cell PENDING in a new job attempt; only the number of its dispatches stays."""
    forget_attempt(cell)
    cell.state = TaskState.PENDING
    cell.job_attempt = job_attempt
    cell.retries_used = cell.polls_used = cell.ants_lost = 0
    cell.not_before = None
    cell.is_excepted = False
    cell.exit_code = None
    cell.error_code = None
    cell.error_message = None
