"""What an engine runs of the lives of an ant, as its warden sees it; loaded by the warden of an ant that has an engine.

Rules:

- While the ant lives, a thread ends what a life has on the engine: engines are slow, and the warden watches the ant.
- That thread looks again and again until the ant has dismissed each attempt that it was allowed to put on the engine:
  it may have been making a container when its life ended.
- Nothing is said about a life with such attempts when an engine that is away may still run them.
"""

import contextlib
import os
import sys
import threading

#: Shard, job, task number, attempt.
Held = tuple[int, str, int, int]

#: How long an engine that is away is waited for before its containers are left to it, in seconds.
PATIENCE_S = 5.0
#: From one look for containers of a life that has ended to the next, in seconds.
_AGAIN_S = 0.2
#: What a released thread may take to end, in seconds.
_JOIN_S = 1.0


class Engagement:
    """All that the engine may run of one ant, by life. ``bell`` is written to when a life has been looked for."""

    def __init__(self, url: str, bell: int) -> None:
        self._url = url
        self._bell = bell
        self._admitted: dict[tuple[str, int, int], tuple[str, Held]] = {}
        self._clearings: dict[str, Clearing] = {}

    def admit(self, life: str, held: Held) -> None:
        """Expects containers of an attempt."""
        self._admitted[held[1:]] = (life, held)

    def dismiss(self, job: str, task: int, attempt: int) -> None:
        """Knows that nothing of an attempt is left."""
        life, _ = self._admitted.pop((job, task, attempt), ("", None))
        if life in self._clearings and not self.held(life):
            self._clearings[life].is_released.set()

    def held(self, life: str) -> list[Held]:
        """Returns the attempts of a life that may be on the engine."""
        return [held for other, held in self._admitted.values() if other == life]

    def end(self, life: str) -> None:
        """Has all containers of a life removed, as long as there may come some."""
        if self.held(life) and life not in self._clearings:
            self._clearings[life] = Clearing(self._url, life, self._bell)

    def is_ending(self, life: str) -> bool:
        """Tells whether the first look for a life's containers is under way."""
        return life in self._clearings and not self._clearings[life].has_looked

    def close(self, lives: list[str], patience_s: float) -> set[str]:
        """Removes everything of an ant that is dead; returns the lives of which something may run on."""
        for clearing in self._clearings.values():
            clearing.is_released.set()
        engaged = {life for life, _ in self._admitted.values()}
        # Also what was only made: nothing of that runs, so an engine that is away is not waited for.
        is_clear = self.remove(lives, max(PATIENCE_S, patience_s) if engaged else 0)
        for clearing in self._clearings.values():
            clearing.join()
        if is_clear:
            return set()
        if engaged:
            names = ", ".join(sorted(engaged))
            sys.stderr.write(f"containers of {names} may run on at {self._url}: it is away\n")
        return engaged

    def remove(self, lives: list[str], patience_s: float = 0) -> bool:
        """Removes all containers of these lives; tells whether none is left."""
        from formicary.ant.engines import remove_containers  # heavy: only where there is something to end

        return not lives or remove_containers(self._url, lives, patience_s)


class Clearing:
    """Looks for the containers of one life, in a thread of its own, until it is released."""

    def __init__(self, url: str, life: str, bell: int) -> None:
        self._url = url
        self._life = life
        self._bell = bell
        self.has_looked = False
        self.is_released = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Returns when the thread has ended, or hangs with its engine."""
        self._thread.join(_JOIN_S)

    def _run(self) -> None:
        from formicary.ant.engines import remove_containers

        while True:
            remove_containers(self._url, [self._life], PATIENCE_S)
            self.has_looked = True
            with contextlib.suppress(OSError):
                os.write(self._bell, b"\n")
            if self.is_released.wait(_AGAIN_S):
                return
