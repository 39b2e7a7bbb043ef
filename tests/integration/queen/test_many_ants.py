"""One queen, several ants: what waits is spread over their slots."""

import asyncio
import importlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from formicary import settings as settings_module
from formicary import wiring
from formicary.ant_options import AntOptions
from formicary.model.jobs import JobRequest, JobView

FOLDER = str(Path(__file__).parent)
StartAnt = Callable[[str, int], Awaitable[None]]


def meeting(name: str, count: int, at_once: int) -> str:
    """Returns a job of ``count`` tasks, none of which ends before ``at_once`` of them run."""
    call = f"method: PYTHON, function: 'queen_functions:meet', args: [{name}, {at_once}]"
    tasks = "\n".join(f"  - {{task_type: t{n}, {call}}}" for n in range(count))
    return f"job_type: meeting\ntasks:\n{tasks}\n"


def by_ant(job: JobView) -> Counter[str]:
    """Returns how many tasks each ant ran."""
    return Counter(str(task.ant_id) for task in job.tasks or ())


@pytest.fixture
async def apart(warm_home: Path, tmp_path: Path) -> AsyncIterator[tuple[Any, StartAnt]]:
    """A queen, and a way to start ants beside it."""
    broker = f"memory://{tmp_path.name}"
    settings = settings_module.load({"FORMICARY_HOME": str(warm_home), "FORMICARY_BROKER_URL": broker})
    async with wiring.queen(settings, "alone") as queen, AsyncExitStack() as ants:

        async def start_ant(name: str, slots: int) -> None:
            home = {"FORMICARY_HOME": str(tmp_path / name), "FORMICARY_BROKER_URL": broker}
            options = AntOptions(id=name, slots=slots, methods=("PYTHON",), python_paths=(FOLDER,))
            await ants.enter_async_context(wiring.ant(settings_module.load(home), options))

        yield queen.manager, start_ant


async def test_a_few_tasks_are_spread_over_all_slots(apart: tuple[Any, StartAnt], tmp_path: Path) -> None:
    manager, start_ant = apart
    for name, slots in (("small", 2), ("large", 6)):
        await start_ant(name, slots)
    await manager.save_definition(meeting(tmp_path.name, 8, at_once=8))

    job = await manager.wait_for_end((await manager.submit(JobRequest(job_type="meeting"))).job.id, 60)

    assert by_ant(job) == {"small": 2, "large": 6}


async def test_what_waits_at_a_busy_ant_moves_to_one_that_comes_later(
    apart: tuple[Any, StartAnt], tmp_path: Path
) -> None:
    manager, start_ant = apart
    await start_ant("first", 1)
    await manager.save_definition(meeting(tmp_path.name, 12, at_once=11))
    submitted = await manager.submit(JobRequest(job_type="meeting"))
    its_meeting = importlib.import_module("queen_functions").meetings[tmp_path.name]
    assert await asyncio.to_thread(its_meeting.anybody_came.wait, 60)
    await start_ant("second", 10)

    job = await manager.wait_for_end(submitted.job.id, 60)

    assert job.state == "COMPLETED"
    assert by_ant(job)["second"] > by_ant(job)["first"] > 0
