"""What a run has to do: a few job types, and jobs of them with the times of submissions and of people's commands."""

from datetime import UTC, datetime
from functools import cache
from random import Random
from typing import Final, NamedTuple

from formicary.ids import JobId, shard_of
from formicary.model.definition import DefinitionRecord
from formicary.model.parse import parse_definition

SHARDS: Final = 4
#: The last submission, in virtual seconds.
LAST_SUBMISSION_S: Final = 14.0

#: A script is ``<seconds> <exit code>``.
SOURCES: Final = (
    """
job_type: single
tasks:
  - {task_type: a, method: SHELL, script: ["1.5 0"]}
""",
    """
job_type: chain
tasks:
  - {task_type: a, method: SHELL, script: ["0.5 0"], on_completed: b}
  - {task_type: b, method: DUMMY, duration_s: 0.4, on_completed: c}
  - {task_type: c, method: SHELL, script: ["2 0"]}
""",
    """
job_type: diamond
tasks:
  - {task_type: a, method: DUMMY, duration_s: 0.2}
  - {task_type: b, method: SHELL, script: ["1 0"], dependencies: [a]}
  - {task_type: c, method: SHELL, script: ["3 0"], dependencies: [a]}
  - {task_type: d, method: DUMMY, duration_s: 1, dependencies: [a]}
  - {task_type: e, method: SHELL, script: ["0.3 0"], dependencies: [b, c, d]}
""",
    """
job_type: retried
tasks:
  - {task_type: a, method: SHELL, script: ["0.8 3"], retry: 2, delay_between_retries: 1s, on_failed: b}
  - {task_type: b, method: SHELL, script: ["0.5 0"]}
  - {task_type: z, method: DUMMY, duration_s: 0.3, always_run: true}
""",
    """
job_type: limited
max_concurrency: 1
tasks:
  - {task_type: a, method: SHELL, script: ["1 0"], on_completed: b}
  - {task_type: b, method: SHELL, script: ["0.5 0"]}
""",
    """
job_type: timed
timeout: 40s
tasks:
  - {task_type: a, method: SHELL, script: ["4 0"], timeout: 20s}
  - {task_type: b, method: DUMMY, duration_s: 30, timeout: 3s, allow_failure: true}
""",
    """
job_type: long
tasks:
  - {task_type: a, method: SHELL, script: ["18 0"]}
""",
    """
job_type: inline
tasks:
  - {task_type: a, method: DUMMY, duration_s: 15}
  - {task_type: b, method: DUMMY, duration_s: 6}
  - {task_type: c, method: DUMMY, duration_s: 3}
""",
)
#: Job types whose tasks take results of earlier jobs.
MEMOIZED: Final = (
    """
job_type: remembered
tasks:
  - {task_type: a, method: SHELL, script: ["1.5 0"], memoize: {key: a}}
  - {task_type: b, method: DUMMY, duration_s: 0.4, memoize: {key: b}, dependencies: [a]}
  - {task_type: c, method: SHELL, script: ["2 0"], dependencies: [b]}
""",
    """
job_type: forgotten
retry: 1
tasks:
  - {task_type: a, method: SHELL, script: ["0.8 3"], memoize: {key: a}, retry: 1, allow_failure: true}
  - {task_type: b, method: SHELL, script: ["3 0"], memoize: {key: b, expires_after: 6s}}
""",
)
#: How often each is chosen: what runs for longer than an ant's lease meets more.
_WEIGHTS: Final = (1, 1, 1, 1, 1, 1, 2, 2)


class Submission(NamedTuple):
    """A job, when it is submitted, and what people ask of it when (``cancel``, ``pause``, ``resume``)."""

    job_id: JobId
    definition: DefinitionRecord
    at_s: float
    priority: int
    commands: tuple[tuple[float, str], ...]


Definitions = tuple[tuple[DefinitionRecord, int | None], ...]


@cache
def definitions(sources: tuple[str, ...] = SOURCES) -> Definitions:
    """Returns the job types with their limits."""
    found = []
    for number, source in enumerate(sources, 1):
        parsed = parse_definition(source)
        record = DefinitionRecord(
            id=f"00000000-0000-7000-8000-{number:012x}",
            job_type_id=number,
            job_type=parsed.job_type,
            version=1,
            source=source,
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
        )
        found.append((record, parsed.max_concurrency))
    return tuple(found)


def submissions(rng: Random, known: Definitions) -> list[Submission]:
    """Returns the jobs of a run, by time."""
    made = [_submission(rng, number, known) for number in range(rng.randint(6, 10))]
    return sorted(made, key=lambda item: item.at_s)


def _submission(rng: Random, number: int, known: Definitions) -> Submission:
    definition, _ = rng.choices(known, _WEIGHTS[: len(known)])[0]
    at_s = rng.uniform(0.5, LAST_SUBMISSION_S)
    commands: tuple[tuple[float, str], ...] = ()
    if rng.random() < 0.15:
        commands = ((at_s + rng.uniform(0.1, 5.0), "cancel"),)
    elif rng.random() < 0.1:
        paused_at = at_s + rng.uniform(0.1, 3.0)
        commands = ((paused_at, "pause"), (paused_at + rng.uniform(3.0, 9.0), "resume"))
    job_id = JobId(f"00000000-0000-7000-9000-{rng.getrandbits(32):08x}{number:04x}")
    return Submission(job_id, definition, at_s, rng.choice((0, 0, 5)), commands)


def shard(job_id: JobId) -> int:
    """Returns the shard of a job."""
    return shard_of(job_id, SHARDS)
