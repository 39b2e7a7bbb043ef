"""What every executor promises; each claim runs against all of them, under asyncio's loop and uvloop."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from executors.base import Outcome, Reason, Run
from executors.errors import SpecRefusedError
from executors.output import PIECE_BYTES
from executors.testing import CollectingSink, Specimen, make_attempt

Begin = Callable[..., Awaitable[Run]]
GRACE_S = 0.3


def find_private_folders(folder: Path) -> list[Path]:
    return list(folder.rglob("*.private"))


async def finish(specimen: Specimen, run: Run) -> Outcome:
    outcome = await specimen.executor.wait(run)
    await specimen.executor.cleanup(run)
    return outcome


async def test_success_is_an_outcome(specimen: Specimen, begin: Begin) -> None:
    outcome = await finish(specimen, await begin(specimen.success))

    assert (outcome.reason, outcome.exit_code, outcome.is_success) == (Reason.EXITED, specimen.success_code, True)
    assert outcome.message is None


async def test_failure_is_an_outcome_that_says_why(specimen: Specimen, begin: Begin) -> None:
    outcome = await finish(specimen, await begin(specimen.failure))

    assert (outcome.reason, outcome.exit_code, outcome.is_success) == (Reason.EXITED, specimen.failure_code, False)
    assert str(specimen.failure_code) in (outcome.message or "")


async def test_all_output_has_arrived_when_wait_returns(specimen: Specimen, begin: Begin) -> None:
    sink = CollectingSink(delay_s=0.02)

    await finish(specimen, await begin(specimen.talking, sink))

    assert specimen.said in sink.text(specimen.said_on)


@pytest.mark.parametrize("reason", [Reason.CANCELLED, Reason.TIMED_OUT])
async def test_a_stopped_run_ends_with_the_reason_given(specimen: Specimen, begin: Begin, reason: Reason) -> None:
    run = await begin(specimen.lasting)

    await specimen.executor.stop(run, GRACE_S, reason)

    outcome = await finish(specimen, run)
    assert (outcome.reason, outcome.is_success) == (reason, False)
    assert outcome.message


async def test_a_run_that_ignores_stop_ends_after_the_grace(specimen: Specimen, begin: Begin) -> None:
    run = await begin(specimen.stubborn)

    async with asyncio.timeout(40):
        await specimen.executor.stop(run, GRACE_S, Reason.TIMED_OUT)
        outcome = await finish(specimen, run)

    assert outcome.reason is Reason.TIMED_OUT


async def test_stop_without_grace_right_after_start_ends_the_run(specimen: Specimen, begin: Begin) -> None:
    run = await begin(specimen.stubborn)

    async with asyncio.timeout(40):
        await specimen.executor.stop(run, 0, Reason.CANCELLED)

    assert (await finish(specimen, run)).reason is Reason.CANCELLED


async def test_stops_at_the_same_time_all_return_and_the_first_reason_counts(specimen: Specimen, begin: Begin) -> None:
    run = await begin(specimen.lasting)

    async with asyncio.timeout(40):
        await asyncio.gather(
            specimen.executor.stop(run, GRACE_S, Reason.TIMED_OUT),
            specimen.executor.stop(run, GRACE_S, Reason.CANCELLED),
        )

    assert (await finish(specimen, run)).reason is Reason.TIMED_OUT


async def test_stop_after_the_end_changes_nothing(specimen: Specimen, begin: Begin) -> None:
    run = await begin(specimen.success)
    before = await specimen.executor.wait(run)

    await specimen.executor.stop(run, GRACE_S, Reason.CANCELLED)
    await specimen.executor.stop(run, GRACE_S, Reason.CANCELLED)

    assert await finish(specimen, run) == before


async def test_cleanup_ends_what_runs_and_is_safe_twice(specimen: Specimen, begin: Begin) -> None:
    run = await begin(specimen.lasting)
    waiting = asyncio.create_task(specimen.executor.wait(run))
    await asyncio.sleep(0)

    async with asyncio.timeout(40):
        await specimen.executor.cleanup(run)
        await specimen.executor.cleanup(run)
        outcome = await waiting

    assert outcome.reason is Reason.CANCELLED
    await specimen.executor.stop(run, 0, Reason.CANCELLED)


async def test_a_spec_that_can_never_run_is_refused_and_leaves_nothing(
    specimen: Specimen, tmp_path: Path, begin: Begin
) -> None:
    with pytest.raises(SpecRefusedError):
        await specimen.executor.wait(await begin(specimen.refused))

    remains = Run(make_attempt(specimen.refused, tmp_path / "never", number=99), CollectingSink())
    await specimen.executor.stop(remains, GRACE_S, Reason.CANCELLED)
    await specimen.executor.cleanup(remains)
    await specimen.executor.cleanup(remains)
    await specimen.executor.released(remains)
    assert find_private_folders(tmp_path) == []


async def test_cancelling_wait_does_not_stop_the_run(specimen: Specimen, begin: Begin) -> None:
    run = await begin(specimen.lasting)
    first, second = (asyncio.create_task(specimen.executor.wait(run)) for _ in range(2))
    await asyncio.sleep(0)

    first.cancel()

    assert await asyncio.wait([first, second], timeout=0.1) == ({first}, {second})
    await specimen.executor.stop(run, GRACE_S, Reason.TIMED_OUT)
    assert (await second).reason is Reason.TIMED_OUT
    await specimen.executor.cleanup(run)


async def test_everyone_who_waits_gets_the_outcome(specimen: Specimen, begin: Begin) -> None:
    run = await begin(specimen.failure)

    outcomes = await asyncio.gather(*(specimen.executor.wait(run) for _ in range(3)))

    assert {outcome.exit_code for outcome in outcomes} == {specimen.failure_code}
    await specimen.executor.cleanup(run)


async def test_big_output_reaches_a_slow_sink_whole_and_in_small_pieces(specimen: Specimen, begin: Begin) -> None:
    sink = CollectingSink(delay_s=0.002)
    if specimen.big is None:
        assert specimen.executor.methods[0].startswith(("HTTP", "MESSAGING")), "only requests have no big output"
        return

    outcome = await finish(specimen, await begin(specimen.big, sink))

    assert outcome.is_success
    assert sink.sizes[specimen.said_on] == specimen.big_bytes
    assert sink.largest_bytes <= PIECE_BYTES


async def test_many_at_once_keep_their_output_apart(specimen: Specimen, begin: Begin) -> None:
    sinks = [CollectingSink() for _ in range(specimen.at_once)]

    async with asyncio.timeout(60):
        runs = await asyncio.gather(*(begin(specimen.talking, sink) for sink in sinks))
        outcomes = await asyncio.gather(*(finish(specimen, run) for run in runs))

    assert all(outcome.is_success for outcome in outcomes)
    assert all(sink.text(specimen.said_on).count(specimen.said) == 1 for sink in sinks)


async def test_a_run_that_ended_by_itself_is_released_with_its_outcome(specimen: Specimen, begin: Begin) -> None:
    run = await begin(specimen.success)
    await specimen.executor.wait(run)

    async with asyncio.timeout(40):
        await specimen.executor.released(run)

    await specimen.executor.cleanup(run)


async def test_a_broken_sink_fails_the_run_instead_of_hanging_it(specimen: Specimen, begin: Begin) -> None:
    class BrokenSink(CollectingSink):
        async def write(self, stream: object, data: bytes) -> None:
            raise ConnectionResetError("the sink is gone")

    run = await begin(specimen.talking, BrokenSink())

    async with asyncio.timeout(40):  # a container may take its time to start
        with pytest.raises(ConnectionResetError):
            await specimen.executor.wait(run)
        await specimen.executor.cleanup(run)


async def test_close_is_safe_before_use_and_twice(specimen: Specimen) -> None:
    await specimen.executor.close()
    await specimen.executor.close()
