"""Waiting for what is away when a process starts."""

import asyncio
import math

import pytest
from structlog.testing import capture_logs

from formicary.errors import LoginRefusedError, UnavailableError
from formicary.patience import Patience
from formicary.testing.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class Server:
    """Answers once it has been asked ``failures`` times."""

    def __init__(self, clock: FakeClock, failures: float, error: Exception) -> None:
        self._clock = clock
        self._failures = failures
        self._error = error
        self.asked_at: list[float] = []

    async def ask(self) -> str:
        self.asked_at.append(round(self._clock.boottime(), 1))
        if len(self.asked_at) <= self._failures:
            raise self._error
        return "answer"


async def test_a_step_is_tried_with_growing_pauses_until_its_server_is_there(clock: FakeClock) -> None:
    server = Server(clock, 6, UnavailableError("gone"))

    with capture_logs() as logged:
        waiting = asyncio.ensure_future(Patience(clock).wait_out("x_away", server.ask))
        await clock.advance(0.0)
        await clock.advance(60.0)

    assert waiting.result() == "answer"
    assert [round(at - server.asked_at[0], 1) for at in server.asked_at] == [0.0, 0.1, 0.3, 0.7, 1.5, 3.1, 5.1]
    assert [(line["event"], line["away_s"]) for line in logged] == [("x_away", 0.0), ("waited_enough", 5.1)]


async def test_a_step_is_given_up_before_its_time_is_over(clock: FakeClock) -> None:
    server = Server(clock, math.inf, UnavailableError("gone"))

    waiting = asyncio.ensure_future(Patience(clock, give_up_after_s=2.0).wait_out("x_away", server.ask))
    await clock.advance(0.0)
    await clock.advance(60.0)

    assert isinstance(waiting.exception(), UnavailableError)
    assert len(server.asked_at) == 5


@pytest.mark.parametrize("error", [LoginRefusedError("wrong password"), ValueError("a defect")])
async def test_what_waiting_does_not_mend_is_raised_at_once(clock: FakeClock, error: Exception) -> None:
    server = Server(clock, math.inf, error)

    with pytest.raises(type(error)):
        await Patience(clock).wait_out("x_away", server.ask)

    assert len(server.asked_at) == 1
