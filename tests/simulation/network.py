"""Roads between pretended processes and servers: they delay, they are cut, and what was sent may arrive much later.

A request that is lost on its way there was not carried out; one whose answer is lost was. The sender cannot tell, and
a request that it has given up may still arrive: bytes wait in a socket's buffer until a road is mended.
"""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any, Final, TypeVar

from tests.simulation.loop import VirtualLoop

T = TypeVar("T")

#: The usual time of one way, in seconds.
MIN_DELAY_S: Final = 0.0002
MAX_DELAY_S: Final = 0.004


class Weather:
    """How bad all roads are: the probabilities that chaos turns up and calm sets to 0."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        #: Of a request or answer that is late by seconds.
        self.late = 0.0
        #: Of an answer that is lost though the road is not cut.
        self.lost_answer = 0.0
        #: Of a broadcast that one listener misses, and of one that it hears twice.
        self.missed = 0.0
        self.twice = 0.0
        self.longest_delay_s = 0.5

    def calm(self) -> None:
        """Ends all of it."""
        self.late = self.lost_answer = self.missed = self.twice = 0.0

    def delay_s(self) -> float:
        """Returns how long one way takes this time."""
        rng = self.rng
        if self.late and rng.random() < self.late:
            return rng.uniform(0.05, self.longest_delay_s)
        return MIN_DELAY_S + (MAX_DELAY_S - MIN_DELAY_S) * rng.random()

    def happens(self, probability: float) -> bool:
        """Says whether something of this probability happens now."""
        return probability > 0.0 and self.rng.random() < probability


class Road:
    """The road of one machine to one server; each direction can be cut by itself."""

    def __init__(self, loop: VirtualLoop, weather: Weather, name: str) -> None:
        self._loop = loop
        self._weather = weather
        self.name = name
        self.is_cut_there = False
        self.is_cut_back = False
        #: The run is over: whoever still asks is cancelled.
        self.is_over = False
        self._held: list[Callable[[], object]] = []

    def cut(self, *, there: bool, back: bool) -> None:
        """Cuts one direction or both."""
        self.is_cut_there, self.is_cut_back = there, back

    def mend(self) -> None:
        """Opens both directions; what waited in buffers arrives now."""
        self.is_cut_there = self.is_cut_back = False
        held, self._held = self._held, []
        for arrive in held:
            self._loop.world_later(self._weather.delay_s(), arrive)

    async def request(self, execute: Callable[[], T], lost: Callable[[], Exception]) -> T:
        """Has ``execute`` called at the server and returns its answer.

        Raises:
            Exception: what ``execute`` raised, or ``lost()`` where no answer came.
        """
        return await self.ask(lambda answer: answer(execute), lost)

    async def ask(
        self, arrive: Callable[[Callable[[Callable[[], T]], None]], object], lost: Callable[[], Exception]
    ) -> T:
        """Has ``arrive`` called at the server with the way to answer, which it may use later, once."""
        if self.is_over:
            raise asyncio.CancelledError
        future: asyncio.Future[T] = self._loop.create_future()

        def answer(compute: Callable[[], T]) -> None:
            self._carry_back(future, compute, lost)

        self._carry_there(lambda: arrive(answer), future, lost)
        return await future

    def _carry_there(
        self, arrive: Callable[[], object], future: "asyncio.Future[Any]", lost: Callable[[], Exception]
    ) -> None:
        def at_server() -> None:
            if not self.is_cut_there:
                arrive()
                return
            if self._weather.rng.random() < 0.5:
                self._held.append(arrive)
            self._lose(future, lost)

        self._loop.world_later(self._weather.delay_s(), at_server)

    def _carry_back(self, future: "asyncio.Future[T]", compute: Callable[[], T], lost: Callable[[], Exception]) -> None:
        try:
            value = compute()
        except Exception as error:  # noqa: BLE001 - the server's refusal travels back as the answer
            self._deliver(future, lambda error=error: future.set_exception(error), lost)  # type: ignore[misc]  # bound now
        else:
            self._deliver(future, lambda: future.set_result(value), lost)

    def _deliver(
        self, future: "asyncio.Future[Any]", resolve: Callable[[], object], lost: Callable[[], Exception]
    ) -> None:
        def at_client() -> None:
            if future.done():
                return
            if self.is_cut_back or self._weather.happens(self._weather.lost_answer):
                self._lose(future, lost)
            else:
                resolve()

        self._loop.world_later(self._weather.delay_s(), at_client)

    def _lose(self, future: "asyncio.Future[Any]", lost: Callable[[], Exception]) -> None:
        def give_up() -> None:
            if not future.done():
                future.set_exception(lost())

        self._loop.world_later(self._weather.rng.uniform(0.1, 2.5), give_up)

    def hears(self) -> bool:
        """Says whether something pushed by the server arrives."""
        return not self.is_cut_back and not self._weather.happens(self._weather.missed)
