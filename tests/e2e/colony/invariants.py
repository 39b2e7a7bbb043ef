"""What must hold when all is over, judged from outside: by the ledger, the API's answers and the rows."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.e2e.colony.workload import TERMINAL, Accepted, Success

#: Job attempts that ended, and how often.
ENDS = """SELECT job_id::text, attempt, count(*) AS times FROM job_history
WHERE task_type IS NULL AND state IN ('COMPLETED', 'FAILED', 'CANCELLED') GROUP BY 1, 2"""
#: Attempts that succeeded and were followed by another one.
REPEATED = """SELECT a.job_id::text, a.task_no, a.attempt FROM task_attempts a JOIN tasks t USING (job_id, task_no)
WHERE a.state = 'COMPLETED' AND t.attempt > a.attempt"""


class Line(NamedTuple):
    """A line of the ledger."""

    number: int
    job_id: str
    task_type: str
    attempt: int
    word: str


class Findings(NamedTuple):
    """All that is judged."""

    accepted: Sequence[Accepted]
    ends: dict[str, Any]
    successes: Sequence[Success]
    ledger: list[Line]
    ended_rows: Sequence[Any]
    repeated_rows: Sequence[Any]


def read_ledger(path: Path) -> list[Line]:
    """Returns the ledger's lines in order."""
    lines = []
    for number, text in enumerate(path.read_text().splitlines()):
        job_id, task_type, attempt, _, word = text.split()
        lines.append(Line(number, job_id, task_type, int(attempt), word))
    return lines


def violations(found: Findings, *, is_disturbed: bool) -> list[str]:
    """Returns everything that must not be; ``is_disturbed`` admits jobs that lost three ants under one task."""
    runs: defaultdict[tuple[str, str], list[Line]] = defaultdict(list)
    for line in found.ledger:
        runs[line.job_id, line.task_type].append(line)
    return [
        *_ends(found, is_disturbed),
        *_one_end_each(found),
        *(wrong for item in found.accepted for wrong in _what_ran(item, found.ends[item.job_id], runs)),
        *(wrong for lines in runs.values() for wrong in _one_at_a_time(lines)),
        *_nothing_again(found, runs),
    ]


def _ends(found: Findings, is_disturbed: bool) -> Iterator[str]:
    for job_id, kind in found.accepted:
        job = found.ends[job_id]
        if is_disturbed and job["error_code"] == "ERR_ANT_LOST":
            continue
        if (job["state"], job["error_code"]) != (kind.state, kind.error_code) and kind.state != "CANCELLED":
            yield f"{kind.name} {job_id} ended as {job['state']} {job['error_code']}: {job['error_message']}"
        if kind.state == "CANCELLED" and job["state"] != "CANCELLED":
            yield f"{kind.name} {job_id} was cancelled and ended as {job['state']}"
        states = {task["task_type"]: task["state"] for task in job["tasks"]}
        yield from (
            f"{kind.name} {job_id}: {name} is {states[name]}" for name in kind.ran if states[name] != "COMPLETED"
        )
        yield from (f"{kind.name} {job_id}: {name} is {state}" for name, state in states.items() if _is_open(state))


def _is_open(state: str) -> bool:
    return state not in {*TERMINAL, "SKIPPED"}


def _one_end_each(found: Findings) -> Iterator[str]:
    ends: defaultdict[str, dict[int, int]] = defaultdict(dict)
    for row in found.ended_rows:
        ends[row["job_id"]][row["attempt"]] = row["times"]
    for job_id, kind in found.accepted:
        if any(times != 1 for times in ends[job_id].values()) or found.ends[job_id]["attempt"] not in ends[job_id]:
            yield f"{kind.name} {job_id} has not one terminal state per job attempt: {ends[job_id]}"


def _what_ran(item: Accepted, job: dict[str, Any], runs: dict[tuple[str, str], list[Line]]) -> Iterator[str]:
    for task in job["tasks"]:
        name, attempt = task["task_type"], task["attempt"]
        words = Counter(line.word for line in runs.get((item.job_id, name), ()) if line.attempt == attempt)
        if task["state"] == "COMPLETED" and task["exit_code"] in (0, None) and words["end"] != 1:
            yield f"{item.kind.name} {item.job_id}: {name} is COMPLETED, but attempt {attempt} did not end: {words}"
        if task["state"] == "SKIPPED" and any(line.job_id == item.job_id for line in runs.get((item.job_id, name), ())):
            yield f"{item.kind.name} {item.job_id}: {name} is SKIPPED, but ran"


def _one_at_a_time(lines: Iterable[Line]) -> Iterator[str]:
    newest, started = 0, set()
    for line in lines:
        if line.word == "overlap":
            yield f"two at once: {line}"
        elif line.attempt < newest:
            yield f"{line.word} after attempt {newest} had started: {line}"
        elif line.word == "start" and line.attempt in started:
            yield f"one attempt twice: {line}"
        if line.word == "start":
            started.add(line.attempt)
        newest = max(newest, line.attempt)


def _nothing_again(found: Findings, runs: dict[tuple[str, str], list[Line]]) -> Iterator[str]:
    for told in found.successes:
        for line in runs.get((told.job_id, told.task_type), ()):
            if line.number >= told.lines:
                yield f"ran again after its success was told: {line}, {told}"
        tasks = {task["task_type"]: task for task in found.ends[told.job_id]["tasks"]}
        last = tasks[told.task_type]
        if (last["state"], last["attempt"]) != ("COMPLETED", told.attempt):
            yield f"a success was taken back: {told}, now {last['state']} by attempt {last['attempt']}"
    for row in found.repeated_rows:
        yield f"ran again after its success was committed: {dict(row)}"
