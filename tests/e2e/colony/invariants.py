"""What must hold when all is over, judged from outside: by the ledger, the API's answers and the rows."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from formicary.model.states import ErrorCode
from formicary.states import texts
from formicary.states.task import ANTS_LOST_LIMIT
from tests.e2e.colony.jobs import Kind
from tests.e2e.colony.workload import TERMINAL, Accepted, Success

#: Job attempts that ended, and how often.
ENDS = """SELECT job_id::text, attempt, count(*) AS times FROM job_history
WHERE task_type IS NULL AND state IN ('COMPLETED', 'FAILED', 'CANCELLED') GROUP BY 1, 2"""
#: Attempts that succeeded and were followed by another one.
REPEATED = """SELECT a.job_id::text, a.task_no, a.attempt FROM task_attempts a JOIN tasks t USING (job_id, task_no)
WHERE a.state = 'COMPLETED' AND t.attempt > a.attempt"""
#: Attempts that ended with their ants, or were taken for it, and whether their task was given up then.
LOSSES = f"""SELECT job_id::text, task_no, job_attempt, incarnation, error_code IS NOT NULL AS is_last
FROM task_attempts WHERE error_code = '{ErrorCode.ANT_LOST}' OR error_message = '{texts.ANT_LOST}'
UNION ALL SELECT job_id::text, task_no, job_attempt, incarnation, true FROM tasks
WHERE error_code = '{ErrorCode.ANT_LOST}'"""

_EXITED = ("FAILED", ErrorCode.EXIT_CODE)


class Line(NamedTuple):
    """A line of the ledger."""

    number: int
    job_id: str
    task_type: str
    attempt: int
    word: str


class Findings(NamedTuple):
    """All that is judged; ``lives_over``: how many lives of each ant can have ended, at most."""

    accepted: Sequence[Accepted]
    ends: dict[str, Any]
    successes: Sequence[Success]
    ledger: list[Line]
    ended_rows: Sequence[Any]
    repeated_rows: Sequence[Any]
    loss_rows: Sequence[Any]
    lives_over: dict[str, int]


def read_ledger(path: Path) -> list[Line]:
    """Returns the ledger's lines in order."""
    lines = []
    for number, text in enumerate(path.read_text().splitlines()):
        job_id, task_type, attempt, _, word = text.split()
        lines.append(Line(number, job_id, task_type, int(attempt), word))
    return lines


def violations(found: Findings) -> list[str]:
    """Returns everything that must not be."""
    runs: defaultdict[tuple[str, str], list[Line]] = defaultdict(list)
    for line in found.ledger:
        runs[line.job_id, line.task_type].append(line)
    return [
        *_ends(found),
        *_given_up(found),
        *_one_end_each(found),
        *(wrong for item in found.accepted for wrong in _what_ran(item, found.ends[item.job_id], runs)),
        *(wrong for lines in runs.values() for wrong in _one_at_a_time(lines)),
        *_nothing_again(found, runs),
    ]


def _ends(found: Findings) -> Iterator[str]:
    retried = {
        row["job_id"]
        for row in found.loss_rows
        if row["is_last"] and row["job_id"] in found.ends and row["job_attempt"] < found.ends[row["job_id"]]["attempt"]
    }
    for item in found.accepted:
        job, told = found.ends[item.job_id], f"{item.kind.name} {item.job_id}"
        yield from (f"{told}{wrong}" for wrong in _end(item.kind, job, is_retried=item.job_id in retried))
        yield from (f"{told}: {task['task_type']} is {task['state']}" for task in job["tasks"] if _is_open(task))


def _end(kind: Kind, job: dict[str, Any], *, is_retried: bool) -> Iterator[str]:
    """Judges how a job ended; ``is_retried``: a task that was given up used its restart up, which others then lack."""
    tasks = {task["task_type"]: task for task in job["tasks"]}
    lost = {name for name, task in tasks.items() if task["error_code"] == ErrorCode.ANT_LOST}
    end = (job["state"], job["error_code"])
    is_expected = end == (kind.state, kind.error_code) or job["state"] == kind.state == "CANCELLED"
    is_excused = (bool(lost) and end == ("FAILED", ErrorCode.ANT_LOST)) or (is_retried and end == _EXITED)
    if not is_expected and not is_excused:
        yield f" ended as {job['state']} {job['error_code']}: {job['error_message']}"
    # What runs in a job that is to fail runs whatever else fails.
    may_be_left_out = is_excused and kind.state != "FAILED"
    for name in kind.ran - lost:
        state, code = tasks[name]["state"], tasks[name]["error_code"]
        is_left_out = may_be_left_out and state in {"CANCELLED", "SKIPPED"}
        if state != "COMPLETED" and not is_left_out and not (is_retried and (state, code) == _EXITED):
            yield f": {name} is {state} {code}"


def _given_up(found: Findings) -> Iterator[str]:
    """Judges tasks that were given up: each lost enough ants for it, and no ant was lost oftener than it can be."""
    accepted = {item.job_id for item in found.accepted}
    lives: defaultdict[tuple[str, int, int], set[str]] = defaultdict(set)
    for row in found.loss_rows:
        lives[row["job_id"], row["task_no"], row["job_attempt"]].add(row["incarnation"])
    given_up = {(row["job_id"], row["task_no"], row["job_attempt"]) for row in found.loss_rows if row["is_last"]}
    over: set[str] = set()
    for key in sorted(given_up):
        if key[0] in accepted:
            over |= lives[key]
            if len(lives[key]) < ANTS_LOST_LIMIT:
                yield f"task {key[1]} of {key[0]} was given up after {len(lives[key])} ants: {lives[key]}"
    for ant, count in Counter(life.partition("@")[0] for life in over).items():
        if count > found.lives_over.get(ant, 0):
            yield f"{count} lives of {ant} were lost, of {found.lives_over.get(ant, 0)} that can have ended"


def _is_open(task: dict[str, Any]) -> bool:
    return task["state"] not in {*TERMINAL, "SKIPPED"}


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
