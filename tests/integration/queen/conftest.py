"""A whole colony in the test's event loop: embedded Postgres, memory broker, local files or a bucket."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from formicary import settings as settings_module
from formicary import wiring
from formicary.ant_options import AntOptions
from formicary.model.jobs import JobRequest, JobView
from formicary.model.states import JobState
from tests.s3_server import S3Server, serving

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


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with serving(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def store_kind() -> str:
    """Where artifacts, caches and output lie; a test that asks for more kinds gets them by ``parametrize``."""
    return "local"


@pytest.fixture
def store_url(request: pytest.FixtureRequest, store_kind: str, warm_home: Path) -> str:
    """A folder for all tests, or a part of a bucket for each."""
    if store_kind == "local":
        return f"{warm_home.as_uri()}/tidy"
    url: str = request.getfixturevalue("s3").url(f"queen/{os.urandom(6).hex()}")
    return url


@pytest.fixture
async def colony(warm_home: Path, store_url: str, store_kind: str) -> AsyncIterator[InProcess]:
    """A colony with one ant of 4 slots."""
    environ = {} if store_kind == "local" else {"FORMICARY_ARTIFACTS_URL": store_url}
    settings = settings_module.load({"FORMICARY_HOME": str(warm_home), **environ})
    options = AntOptions(slots=4, python_paths=(str(Path(__file__).parent),))
    async with wiring.up(settings, options) as running:
        yield InProcess(running)


@pytest.fixture
async def tidy_colony(warm_home: Path, store_url: str) -> AsyncIterator[InProcess]:
    """A colony that looks through its artifacts every second and moves output at once, in a store of their own."""
    environ = {
        "FORMICARY_HOME": str(warm_home),
        "FORMICARY_ARTIFACTS_URL": store_url,
        "FORMICARY_ARTIFACTS_SWEEP_S": "1",
        "FORMICARY_LOGS_ARCHIVE_AFTER_S": "0",
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
