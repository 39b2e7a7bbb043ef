"""From rows to live jobs: at a launch, a take-over, a restart."""

import random
from collections.abc import Iterable

import structlog

from formicary.errors import FormicaryError, UnavailableError
from formicary.model.states import TERMINAL_JOB_STATES, JobState
from formicary.queen.supervisor.live import LiveJob, LiveShard
from formicary.queen.supervisor.program import Program, Programs
from formicary.queen.supervisor.rows import job_cell, task_cells
from formicary.states.run import JobRun
from formicary.store.shards import LoadedJob

log = structlog.get_logger(__name__)

Prepared = tuple[LoadedJob, Program]


async def prepare(programs: Programs, loaded: Iterable[LoadedJob]) -> list[Prepared]:
    """Returns the jobs with their programs; one that cannot be compiled has a program that only fails.

    Raises:
        UnavailableError: a definition could not be read; of these jobs none must be taken for done.
    """
    prepared = []
    for item in loaded:
        program = programs.cached(item.job)
        if program is None:
            try:
                program = await programs.get(item.job)
            except UnavailableError:
                raise
            except (FormicaryError, RecursionError) as error:
                log.error("job_not_loadable", job_id=item.job.id, reason=str(error))
                program = Program.failing(item.job.job_type, f"the definition cannot be run by this version: {error}")
        prepared.append((item, program))
    return prepared


def bring_to_life(item: LoadedJob, program: Program, shard: LiveShard) -> LiveJob:
    """Returns the live job of stored rows, not yet among the shard's jobs.

    A running job whose program only fails is READY: its first step is its last, and of its tasks nothing is known.
    """
    if program.refusal is None:
        cell, cells = job_cell(item.job), task_cells(program.plan.size, item.tasks)
    else:
        cell, cells = job_cell(item.job), []
        if cell.state not in TERMINAL_JOB_STATES:
            cell.state = JobState.READY
    run = JobRun(program.plan, cell, cells, rng=random.Random(item.job.id))
    return LiveJob(item.job, program, run, shard)
