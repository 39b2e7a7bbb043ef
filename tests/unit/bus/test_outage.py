"""What the log says of something that is away."""

import pytest
from structlog.testing import capture_logs

from formicary.outage import LAST_PAUSE_S, Outage
from formicary.testing.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def lines_within(outage: Outage, clock: FakeClock, seconds: int) -> list[float]:
    """Returns how long it was away at each line, where somebody tries again every second."""
    with capture_logs() as logged:
        for _ in range(seconds):
            outage.note("no answer")
            await clock.advance(1.0)
    assert {(line["event"], line["log_level"], line["reason"]) for line in logged} <= {
        ("x_away", "warning", "no answer")
    }
    return [line["away_s"] for line in logged]


async def test_it_is_said_at_once_and_then_more_and_more_rarely(clock: FakeClock) -> None:
    outage = Outage("x_away", clock.boottime)

    assert await lines_within(outage, clock, 120) == [0.0, 10.0, 30.0, 70.0]


async def test_a_long_outage_is_said_every_ten_minutes(clock: FakeClock) -> None:
    outage = Outage("x_away", clock.boottime)
    await lines_within(outage, clock, 3600)

    assert len(await lines_within(outage, clock, 3600)) == 3600 // LAST_PAUSE_S


async def test_its_end_is_said_once_with_its_length_and_the_next_one_at_once(clock: FakeClock) -> None:
    outage = Outage("x_away", clock.boottime)
    await lines_within(outage, clock, 5)

    with capture_logs() as logged:
        outage.over()
        outage.over()

    expected = {"event": "waited_enough", "log_level": "info", "after": "x_away", "away_s": 5.0}
    assert logged == [expected]
    assert await lines_within(outage, clock, 1) == [0.0]
