"""What comes through the inbox: dispatches, recalls, cancels. Everything here is synchronous and batched."""

import asyncio
from typing import Final

import msgspec
import structlog

from executors.base import Executor, Reason
from formicary.ant.acceptance import Acceptance
from formicary.ant.assignments import Assignment, Assignments, Key, Phase
from formicary.ant.config import AntConfig
from formicary.ant.registration import Registration
from formicary.ant.reporter import End, Reporter, error_end
from formicary.ant.runner import Runner
from formicary.ant.slots import Slots
from formicary.bus import Packet
from formicary.clock import Clock
from formicary.events.base import Event
from formicary.events.codec import Poison
from formicary.events.orders import Order
from formicary.events.tasks import DeclineReason, TaskCancelRequested, TaskDispatched, TaskRecalled
from formicary.ids import ant_of, shard_of

log = structlog.get_logger(__name__)

#: Orders kept decoded: those of constant tasks come again and again.
_CACHE_SIZE: Final = 256
_CACHED_ORDER_BYTES: Final = 16 * 1024
_decoder = msgspec.msgpack.Decoder(Order)


class OrderCache:
    """Decodes orders; the same bytes are decoded once while they are kept."""

    def __init__(self) -> None:
        self._orders: dict[bytes, Order] = {}

    def decode(self, raw: msgspec.Raw) -> Order:
        """Returns the order.

        Raises:
            msgspec.DecodeError: it is none.
        """
        data = bytes(raw)
        order = self._orders.get(data)
        if order is None:
            order = _decoder.decode(data)
            if len(data) <= _CACHED_ORDER_BYTES:
                self._keep(data, order)
        return order

    def _keep(self, data: bytes, order: Order) -> None:
        if len(self._orders) >= _CACHE_SIZE:
            del self._orders[next(iter(self._orders))]
        self._orders[data] = order


class Intake:
    """Turns what owners say into assignments, answers and stops."""

    def __init__(
        self,
        *,
        config: AntConfig,
        clock: Clock,
        executors: dict[str, Executor],
        registration: Registration,
        acceptance: Acceptance,
        assignments: Assignments,
        slots: Slots,
        runner: Runner,
        reporter: Reporter,
    ) -> None:
        self._config = config
        self._clock = clock
        self._executors = executors
        self._registration = registration
        self._acceptance = acceptance
        self._assignments = assignments
        self._slots = slots
        self._runner = runner
        self._reporter = reporter
        self._orders = OrderCache()
        self.workers: set[asyncio.Task[None]] = set()

    def handle(self, packets: list[Packet]) -> None:
        """Takes what came, in order, then fills free slots."""
        now = self._clock.boottime()
        for packet in packets:
            for event in packet.events:
                self._take(event, now)
            for poison in packet.poison:
                self._fail_poison(poison)
        self.fill()

    def fill(self) -> None:
        """Starts what waits, as far as there are free slots."""
        while (assignment := self._slots.take()) is not None:
            worker = asyncio.get_running_loop().create_task(self._work(assignment))
            self.workers.add(worker)
            worker.add_done_callback(self.workers.discard)

    def hand_back(self) -> None:
        """Declines everything that waits: the ant drains."""
        for assignment in self._slots.withdraw_all():
            self._assignments.drop(assignment.key)
            self._decline(assignment, DeclineReason.DRAINING)

    def abandon(self) -> list[Assignment]:
        """Ends everything that was not reported yet, without a word about it; returns it."""
        for assignment in self._slots.withdraw_all():
            assignment.is_abandoned = True
        unfinished = [item for item in self._assignments if item.phase is not Phase.ENDED]
        for assignment in unfinished:
            assignment.is_abandoned = True
            if assignment.phase is Phase.WAITING:
                self._assignments.drop(assignment.key)
            else:
                self._runner.stop(assignment, Reason.CANCELLED, 0.0)
        return unfinished

    async def idle(self) -> None:
        """Returns when nothing runs."""
        while self.workers:
            await asyncio.wait(set(self.workers))

    async def _work(self, first: Assignment) -> None:
        """Runs one attempt after the other: a task of the loop per slot, not per attempt."""
        assignment: Assignment | None = first
        while assignment is not None:
            await self._runner.run(assignment)
            assignment = self._slots.take()

    def _take(self, event: Event, now: float) -> None:
        match event:
            case TaskDispatched():
                if self._is_ours(event):
                    self._judge(event, now)
            case TaskCancelRequested():
                if self._is_ours(event):
                    self._acceptance.note_epoch(event)
                    self._cancel(event)
            case TaskRecalled():
                if self._is_ours(event):
                    self._acceptance.note_epoch(event)
                    self._recall(event)
            case _:
                log.warning("inbox_event_unexpected", event_type=type(event).__name__)

    def _is_ours(self, event: TaskDispatched | TaskCancelRequested | TaskRecalled) -> bool:
        return not self._config.topics_are_dear or ant_of(event.incarnation) == self._config.id

    def _judge(self, dispatch: TaskDispatched, now: float) -> None:
        key = (dispatch.job_id, dispatch.task_no, dispatch.attempt)
        if self._acceptance.is_copy(dispatch) or key in self._assignments:
            return
        refusal = self._acceptance.refusal(dispatch, self._registration.incarnation, now)
        if refusal is not None:
            self._answer(dispatch, refusal)
            return
        try:
            order = self._orders.decode(dispatch.order)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            end = error_end("ERR_VALIDATION", f"the order cannot be read: {exc}")
            self._reporter.failed(key, dispatch.shard, dispatch.incarnation, end)
            return
        self._accept(dispatch, order)

    def _accept(self, dispatch: TaskDispatched, order: Order) -> None:
        executor = self._executors.get(order.method)
        if executor is None:
            self._answer(dispatch, DeclineReason.UNKNOWN_METHOD)
            return
        assignment = Assignment(dispatch, order, executor)
        self._assignments.add(assignment)
        self._slots.add(assignment)

    def _cancel(self, event: TaskCancelRequested) -> None:
        key = (event.job_id, event.task_no, event.attempt)
        assignment = self._assignments.get(key)
        if assignment is None:
            self._answer(event, DeclineReason.NOT_HELD)
        elif assignment.phase is Phase.RUNNING:
            self._runner.stop(assignment, Reason.CANCELLED, event.grace_s)
        elif self._slots.withdraw(key) is not None:
            self._reporter.ended(assignment, End(Reason.CANCELLED.value, error_message="cancelled before it started"))

    def _recall(self, event: TaskRecalled) -> None:
        key = (event.job_id, event.task_no, event.attempt)
        if key not in self._assignments:
            self._answer(event, DeclineReason.NOT_HELD)
        elif self._slots.withdraw(key) is not None:
            self._assignments.drop(key)
            self._answer(event, DeclineReason.RECALLED)

    def _answer(self, event: TaskDispatched | TaskCancelRequested | TaskRecalled, reason: str) -> None:
        key: Key = (event.job_id, event.task_no, event.attempt)
        self._reporter.declined(key, event.shard, self._registration.incarnation, reason)

    def _decline(self, assignment: Assignment, reason: str) -> None:
        self._reporter.declined(assignment.key, assignment.shard, assignment.incarnation, reason)

    def _fail_poison(self, poison: Poison) -> None:
        if poison.attempt is None or poison.tag != "TaskDispatched":
            log.warning("inbox_event_unreadable", reason=poison.reason, event_id=poison.event_id)
            return
        key: Key = (poison.attempt.job_id, poison.attempt.task_no, poison.attempt.attempt)
        shard = shard_of(poison.attempt.job_id, self._config.shard_count)
        end = error_end("ERR_VALIDATION", f"the dispatch cannot be read: {poison.reason}")
        self._reporter.failed(key, shard, self._registration.incarnation, end)
