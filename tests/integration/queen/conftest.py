"""A whole colony in the test's event loop: embedded Postgres, memory broker, local files."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from formicary import settings as settings_module
from formicary import wiring
from formicary.ant_options import AntOptions
from formicary.model.jobs import JobRequest, JobView
from formicary.model.states import JobState

Run = Callable[..., Awaitable[JobView]]


class InProcess:
    """The colony and shortcuts to what tests ask of it."""

    def __init__(self, running: wiring.Colony) -> None:
        self.manager = running.manager
        self.running = running

    async def submit(self, source: str, **request: object) -> str:
        """Saves the definition and submits a job of it; returns the job's id."""
        saved = await self.manager.save_definition(source)
        wanted = JobRequest(job_type=saved.record.job_type, **request)  # type: ignore[arg-type]  # fields by name
        return (await self.manager.submit(wanted)).job.id

    async def run(self, source: str, **request: object) -> JobView:
        """Runs a job to its end."""
        return await self.end(await self.submit(source, **request))

    async def end(self, job_id: str) -> JobView:
        """Returns the job once it is terminal."""
        job = await self.manager.wait_for_end(job_id, 60.0)
        assert job.state in {JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED}, job
        return job

    async def until(self, job_id: str, claim: Callable[[JobView], bool]) -> JobView:
        """Returns the job once the claim holds of it."""
        import asyncio

        async with asyncio.timeout(40):
            while not claim(job := await self.manager.job(job_id)):  # noqa: ASYNC110 - rows have no signal
                await asyncio.sleep(0.02)  # what people see is polled: it is rows
        return job


@pytest.fixture(scope="session")
def warm_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder whose database is made by the first test and used by the others."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
async def colony(warm_home: Path) -> AsyncIterator[InProcess]:
    """A colony with one ant of 4 slots."""
    settings = settings_module.load({"FORMICARY_HOME": str(warm_home)})
    options = AntOptions(slots=4, python_paths=(str(Path(__file__).parent),))
    async with wiring.up(settings, options) as running:
        yield InProcess(running)


@pytest.fixture
async def tidy_colony(warm_home: Path) -> AsyncIterator[InProcess]:
    """A colony that looks through its artifacts every second, in the folder ``tidy`` of its home."""
    environ = {
        "FORMICARY_HOME": str(warm_home),
        "FORMICARY_ARTIFACTS_URL": f"{warm_home.as_uri()}/tidy",
        "FORMICARY_ARTIFACTS_SWEEP_S": "1",
    }
    async with wiring.up(settings_module.load(environ), AntOptions(slots=4)) as running:
        yield InProcess(running)


def states(job: JobView) -> dict[str, str]:
    """Returns the states of a job's tasks by name."""
    return {task.task_type: str(task.state) for task in job.tasks or ()}


@pytest.fixture(name="states")
def states_fixture() -> Callable[[JobView], dict[str, str]]:
    """Gives tests ``states``."""
    return states
