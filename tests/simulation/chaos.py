"""What goes wrong in a run, and when: chosen by the seed before the run begins."""

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Final

from tests.simulation.hosts import AntHost, Host
from tests.simulation.loop import Life

if TYPE_CHECKING:
    from tests.simulation.world import World

#: Nothing is disturbed after this, in virtual seconds.
CHAOS_END_S: Final = 26.0


class Chaos:
    """The disturbances of one run."""

    def __init__(self, world: "World", rng: Random) -> None:
        self._world = world
        self._rng = rng
        self._is_over = False
        kinds: list[tuple[int, Callable[[float], None]]] = [
            (4, self._kill),
            (6, self._freeze),
            (8, self._cut),
            (3, self._storm),
            (1, self._crash),
            (2, self._drain),
            (3, self._mute),
        ]
        # A theme: runs in which much of the same goes wrong find what needs it twice, or for long.
        theme = rng.randrange(2 * len(kinds))
        weights = [weight * (6 if number == theme else 1) for number, (weight, _) in enumerate(kinds)]
        self._is_stormy = theme == 3
        count = rng.randint(2, 9)
        self._plan = sorted(
            (
                (rng.uniform(1.0, CHAOS_END_S - 1.0), number, rng.choices(kinds, weights)[0][1])
                for number in range(count)
            ),
            key=lambda item: item[:2],
        )

    def begin(self) -> None:
        """Lets the disturbances come at their times."""
        if self._is_stormy:
            self._storm(CHAOS_END_S)
        for at_s, _, act in self._plan:
            self._world.loop.world_later(at_s, self._act, act)

    def _act(self, act: Callable[[float], None]) -> None:
        if not self._is_over:
            duration_s = self._rng.choice((0.3, 2.0, 5.0, 10.0, 16.0)) * self._rng.uniform(0.5, 1.5)
            act(duration_s)

    def end(self) -> None:
        """Mends everything, and lets everybody go on."""
        self._is_over = True
        world = self._world
        world.trace.add("all is mended")
        world.weather.calm()
        for host in world.hosts:
            for road in host.roads():
                road.mend()
            self._thaw(host)

    def _host(self) -> Host:
        world = self._world
        return self._rng.choice(world.queens) if self._rng.random() < 0.5 else self._ant()

    def _ant(self) -> "AntHost":
        """Returns an ant, mostly the one that runs most: there is more to break."""
        ants = self._world.ants
        if self._rng.random() < 0.3:
            return self._rng.choice(ants)
        return max(ants, key=lambda ant: ant.running)

    def _mute(self, duration_s: float) -> None:
        """Lets nobody hear an ant for longer than its lease and margin, while it hears everybody."""
        ant, silence_s = self._ant(), self._rng.uniform(11.0, 18.0)
        self._world.trace.add(f"mute {ant.name} for {silence_s:.1f} s")
        ant.broker_road.cut(there=True, back=False)
        self._world.loop.world_later(silence_s, self._mend, ant)

    def _kill(self, duration_s: float) -> None:
        host = self._host()
        if host.is_alive:
            self._world.trace.add(f"kill {host.name}")
            host.kill()

    def _crash(self, duration_s: float) -> None:
        ant = self._rng.choice(self._world.ants)
        self._world.trace.add(f"crash the machine of {ant.name}")
        ant.crash()

    def _drain(self, duration_s: float) -> None:
        host = self._host()
        if host.process is not None and host.process.life is Life.RUNNING:
            self._world.trace.add(f"drain {host.name}")
            host.drain()

    def _freeze(self, duration_s: float) -> None:
        host = self._host()
        if host.process is not None and host.process.life is Life.RUNNING:
            self._world.trace.add(f"freeze {host.name} for {duration_s:.1f} s")
            host.process.freeze()
            self._world.loop.world_later(duration_s, self._thaw, host)

    def _thaw(self, host: Host) -> None:
        process = host.process
        if process is not None and process.life is Life.FROZEN:
            self._world.trace.add(f"{host.name} goes on")
            process.thaw(timers_first=self._rng.random() < 0.5)

    def _cut(self, duration_s: float) -> None:
        host = self._host()
        road = self._rng.choice(host.roads())
        there, back = self._rng.choice(((True, True), (True, False), (False, True)))
        self._world.trace.add(f"cut {road.name} {'there' * there} {'back' * back} for {duration_s:.1f} s")
        road.cut(there=there, back=back)
        self._world.loop.world_later(duration_s, self._mend, host)

    def _mend(self, host: Host) -> None:
        for road in host.roads():
            if road.is_cut_there or road.is_cut_back:
                self._world.trace.add(f"mend {road.name}")
                road.mend()

    def _storm(self, duration_s: float) -> None:
        weather, rng = self._world.weather, self._rng
        weather.late = rng.choice((0.0, 0.02, 0.2))
        weather.longest_delay_s = rng.choice((0.3, 3.0, 9.0))
        weather.lost_answer = rng.choice((0.0, 0.01, 0.1))
        weather.missed = rng.choice((0.0, 0.05, 0.3))
        weather.twice = rng.choice((0.0, 0.1))
        self._world.trace.add(f"a storm for {duration_s:.1f} s")
        self._world.loop.world_later(duration_s, weather.calm)
