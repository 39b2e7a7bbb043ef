"""The double raises where its caller breaks the contract."""

from pathlib import Path

import pytest

from executors.base import Attempt, Reason, Run
from executors.dummy import ContractBrokenError, DummyExecutor
from executors.errors import StartFailedError
from executors.specs import DummySpec
from executors.testing import CollectingSink, make_attempt


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    return make_attempt(DummySpec(), tmp_path)


@pytest.fixture
async def dummy() -> DummyExecutor:
    executor = DummyExecutor()
    await executor.check()
    return executor


async def test_start_before_check_is_a_breach(attempt: Attempt) -> None:
    with pytest.raises(ContractBrokenError, match="before check"):
        await DummyExecutor().start(attempt, CollectingSink())


async def test_the_same_attempt_twice_is_a_breach(dummy: DummyExecutor, attempt: Attempt) -> None:
    await dummy.start(attempt, CollectingSink())

    with pytest.raises(ContractBrokenError, match="twice"):
        await dummy.start(attempt, CollectingSink())


async def test_wait_without_start_and_after_cleanup_is_a_breach(dummy: DummyExecutor, attempt: Attempt) -> None:
    with pytest.raises(ContractBrokenError, match="without start"):
        await dummy.wait(Run(attempt, CollectingSink()))
    run = await dummy.start(attempt, CollectingSink())
    await dummy.cleanup(run)

    with pytest.raises(ContractBrokenError, match="after cleanup"):
        await dummy.wait(run)


async def test_stop_for_a_reason_that_is_none_is_a_breach(dummy: DummyExecutor, attempt: Attempt) -> None:
    run = await dummy.start(attempt, CollectingSink())

    with pytest.raises(ContractBrokenError, match="reason"):
        await dummy.stop(run, 0, Reason.EXITED)


async def test_close_before_cleanup_and_start_after_close_are_breaches(dummy: DummyExecutor, attempt: Attempt) -> None:
    run = await dummy.start(attempt, CollectingSink())
    with pytest.raises(ContractBrokenError, match="1 runs not cleaned up"):
        await dummy.close()
    await dummy.cleanup(run)
    await dummy.close()

    with pytest.raises(ContractBrokenError, match="after close"):
        await dummy.start(attempt, CollectingSink())


async def test_a_start_that_is_told_to_fail_fails_and_counts_as_not_running(
    dummy: DummyExecutor, tmp_path: Path
) -> None:
    with pytest.raises(StartFailedError):
        await dummy.start(make_attempt(DummySpec(fail_start=True), tmp_path), CollectingSink())

    assert dummy.live_count == 0
    await dummy.close()
