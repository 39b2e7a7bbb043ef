"""What ``run`` shows: a live tree on a terminal, plain lines elsewhere, and a summary at the end."""

import asyncio
import sys
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

from formicary.cli.source import JobSource
from formicary.errors import FormicaryError
from formicary.model.jobs import JobView, LogLine, TaskView
from formicary.model.states import TERMINAL_JOB_STATES, TERMINAL_TASK_STATES, TaskState

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

#: Between two looks at the job: at least this long, and at least so many times what a look took.
_LOOK_S = 0.2
_LOOK_SHARE = 10.0
#: Lines of output kept for the tree, and tasks named in a summary.
_LAST_LINES = 5
_SUMMARY_TASKS = 200

_MARKS = {
    TaskState.PENDING: ("·", "dim"),
    TaskState.READY: ("◦", "cyan"),
    TaskState.EXECUTING: ("▶", "bold cyan"),
    TaskState.COMPLETED: ("✔", "green"),
    TaskState.FAILED: ("✘", "bold red"),
    TaskState.CANCELLED: ("■", "yellow"),
    TaskState.SKIPPED: ("-", "dim"),
    TaskState.PAUSED: ("‖", "yellow"),
    TaskState.MANUAL_APPROVAL_REQUIRED: ("?", "yellow"),
}


class Progress:
    """Follows one job on ``stream`` until its end."""

    def __init__(self, source: JobSource, *, is_quiet: bool, stream: TextIO) -> None:
        self._source = source
        self._is_quiet = is_quiet
        self._stream = stream
        self._last: deque[LogLine] = deque(maxlen=_LAST_LINES)
        self._states: dict[str, TaskState] = {}

    async def show(self) -> JobView:
        """Returns the ended job, after everything about it was shown."""
        if self._is_quiet:
            return await self._until_end()
        if self._stream.isatty():
            return await self._show_tree()
        return await self._show_plain()

    async def _until_end(self) -> JobView:
        while (job := await self._source.wait(30.0)).state not in TERMINAL_JOB_STATES:
            pass
        return job

    async def _show_plain(self) -> JobView:
        printing = asyncio.ensure_future(self._print_lines())
        try:
            job = await self._look_until_end()
            with suppress(FormicaryError):
                await printing
        finally:
            printing.cancel()
        self._print_changes(job)
        return job

    async def _look_until_end(self) -> JobView:
        loop = asyncio.get_running_loop()
        interval_s = _LOOK_S
        while True:
            job = await self._source.wait(interval_s)
            if job.state in TERMINAL_JOB_STATES:
                return job
            started_s = loop.time()
            self._print_changes(job)
            interval_s = max(_LOOK_S, _LOOK_SHARE * (loop.time() - started_s))

    async def _print_lines(self) -> None:
        async for lines in self._source.lines():
            for line in lines:
                self._print(f"{line.task_type} | {line.text}")

    def _print_changes(self, job: JobView) -> None:
        for task in job.tasks or ():
            if self._states.get(task.task_type, TaskState.PENDING) is not task.state:
                self._states[task.task_type] = task.state
                note = f": {task.error_message}" if task.error_message else ""
                self._print(f"{task.task_type} {task.state}{_duration(task)}{note}")

    async def _show_tree(self) -> JobView:
        from rich.console import Console
        from rich.live import Live

        console = Console(file=self._stream)
        collecting = asyncio.ensure_future(self._collect_lines())
        try:
            with Live(console=console, auto_refresh=False, transient=True) as live:
                job = await self._source.job()
                while job.state not in TERMINAL_JOB_STATES:
                    live.update(self._tree(job, console), refresh=True)
                    job = await self._source.wait(_LOOK_S)
                with suppress(FormicaryError):
                    await collecting
            console.print(self._tree(job, console))
        finally:
            collecting.cancel()
        return job

    async def _collect_lines(self) -> None:
        async for lines in self._source.lines():
            self._last.extend(lines)

    def _tree(self, job: JobView, console: "Console") -> "RenderableType":
        from rich.text import Text
        from rich.tree import Tree

        title = f"{job.job_type} v{job.version}  {job.state}{_job_duration(job)}"
        tree = Tree(Text(title + (f"  {job.waiting_for}" if job.waiting_for else ""), style="bold"))
        room = max(3, console.size.height - _LAST_LINES - 4)
        tasks = _most_telling(job.tasks or (), room)
        for task in tasks:
            mark, style = _MARKS[task.state]
            tree.add(Text(f"{mark} {task.task_type}  {task.state}{_duration(task)}{_note_of(task)}", style=style))
        hidden = len(job.tasks or ()) - len(tasks)
        if hidden:
            tree.add(Text(f"… and {hidden} more: {_counts(job)}", style="dim"))
        if job.state not in TERMINAL_JOB_STATES:
            for line in self._last:
                tree.add(Text(f"{line.task_type} | {_printable(line.text)}", style="dim", no_wrap=True))
        return tree

    def _print(self, text: str) -> None:
        print(_printable(text), file=self._stream, flush=True)


def summary(job: JobView, source: JobSource) -> Iterator[str]:
    """Yields the lines that end a run: the result, what went wrong, and where the artifacts lie."""
    yield ""
    yield f"{job.job_type} v{job.version} {job.state}{_job_duration(job)}  ({_counts(job)})  job {job.id}"
    if job.error_message:
        yield f"  {job.error_code}: {_printable(job.error_message)}"
    for task in [task for task in job.tasks or () if task.state is TaskState.FAILED][:_SUMMARY_TASKS]:
        yield f"  {task.task_type}: {task.error_code}: {_printable(task.error_message or '')}"
    for task in job.tasks or ():
        for artifact in task.artifacts[:_SUMMARY_TASKS]:
            yield f"  artifact of {task.task_type}: {source.place_of(task, artifact)} ({artifact.size_bytes} bytes)"


def _most_telling(tasks: tuple[TaskView, ...], room: int) -> list[TaskView]:
    if len(tasks) <= room:
        return list(tasks)
    ranks = {TaskState.FAILED: 0, TaskState.EXECUTING: 1, TaskState.READY: 2, TaskState.CANCELLED: 3}
    chosen = sorted(range(len(tasks)), key=lambda number: ranks.get(tasks[number].state, 4))[: room - 1]
    return [tasks[number] for number in sorted(chosen)]


def _counts(job: JobView) -> str:
    counted = Counter(task.state for task in job.tasks or ())
    return ", ".join(f"{count} {state}" for state, count in counted.items()) or "no tasks"


def _note_of(task: TaskView) -> str:
    note = task.error_message or task.waiting_for
    return f"  {_printable(note)}" if note else ""


def _duration(task: TaskView) -> str:
    if task.reused_from is not None:
        return "  (the result of an earlier job)"
    if task.started_at is None:
        return ""
    is_over = task.state in TERMINAL_TASK_STATES
    return _span(task.started_at, task.finished_at if is_over else None)


def _job_duration(job: JobView) -> str:
    return _span(job.started_at or job.created_at, job.finished_at)


def _span(start: datetime, end: datetime | None) -> str:
    seconds = max(0.0, ((end or datetime.now(UTC)) - start).total_seconds())
    return f"  {seconds:.2f} s" if seconds < 60 else f"  {int(seconds // 60)} min {int(seconds % 60)} s"


def _printable(text: str) -> str:
    kept = "".join(
        character if character.isprintable() or character == "\t" else "\N{REPLACEMENT CHARACTER}" for character in text
    )
    encoding = sys.stdout.encoding or "utf-8"
    return kept.encode(encoding, "replace").decode(encoding, "replace")
