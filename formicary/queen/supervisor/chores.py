"""Tasks that the queen does itself, beside the hot loop: EXPIRE_ARTIFACTS.

A chore is done first and told afterwards: dispatch and end of its attempt are one commit. What crashes in between is
done again, since doing it twice changes nothing; no attempt of it is ever with anybody who could be lost.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple, Protocol

from executors.base import Reason
from formicary.artifacts.base import ArtifactError
from formicary.clock import Clock
from formicary.errors import UnavailableError
from formicary.ids import Incarnation, QueenId
from formicary.model.states import ErrorCode
from formicary.queen.supervisor.engine import Chore
from formicary.queen.supervisor.loop import HotLoop
from formicary.states.inputs import AttemptDispatched, AttemptFinished

#: What the lives of queens are called where those of ants are.
_LIFE: Final = "queen"


class Housekeeping(Protocol):
    """Who lets artifacts go."""

    async def expire(self) -> tuple[int, int]:
        """Lets go of every artifact whose time has come; returns how many, and how many contents were deleted."""
        ...


class _Done(NamedTuple):
    began_at: datetime
    outputs: dict[str, int] | None
    problem: str | None


class Chores:
    """Does what the engine asks, for all jobs that ask at the same time once."""

    def __init__(self, housekeeping: Housekeeping | None, loop: HotLoop, clock: Clock, queen_id: QueenId) -> None:
        self._housekeeping = housekeeping
        self._loop = loop
        self._clock = clock
        self._incarnation = Incarnation(f"{queen_id}@{_LIFE}")

    async def run(self) -> None:
        """Works whenever something is asked."""
        engine = self._loop.engine
        while True:
            await engine.chores_asked.wait()
            engine.chores_asked.clear()
            chores, engine.chores = engine.chores, []
            await self._do(chores)

    async def _do(self, chores: Sequence[Chore]) -> None:
        began, outputs, problem = self._clock.now(), None, None
        try:
            if self._housekeeping is not None:
                expired, deleted = await self._housekeeping.expire()
                outputs = {"expired_count": expired, "deleted_count": deleted}
        except (UnavailableError, ArtifactError) as error:
            problem = str(error)
        done = _Done(began, outputs, problem)
        self._loop.put(lambda now: self._tell(chores, done, now))

    def _tell(self, chores: Sequence[Chore], done: _Done, now: datetime) -> None:
        engine = self._loop.engine
        for live, task_no in chores:
            if live.is_gone or not live.run.is_waiting(task_no):
                continue
            epoch = live.shard.epoch
            engine.step(live, AttemptDispatched(task_no=task_no, incarnation=self._incarnation, epoch=epoch, at=now))
            end = AttemptFinished(
                task_no=task_no,
                attempt=live.run.tasks[task_no].attempt,
                reason=Reason.EXITED if done.problem is None else "error",
                exit_code=0 if done.problem is None else None,
                is_success=done.problem is None,
                started_at=done.began_at,
                finished_at=now,
                error_code=None if done.problem is None else ErrorCode.ARTIFACT,
                error_message=done.problem,
                outputs=done.outputs,
                at=now,
            )
            engine.step(live, end)
