"""Takes commands that other services publish as JSON: carries them out, answers, acknowledges.

Rules:

- A command is acknowledged after its commit, and after its answer is published. So it can come twice, and its key
  (``idempotency_key``, else topic and message id) makes the second time harmless; only its answer is given again.
- What can never be right (no JSON, a missing field, an unknown job type) goes to the dead-letter topic at once, with
  the reason, and is answered. What fails otherwise is rejected: the broker brings it back, five times in all.
- While the database is away nothing is acknowledged, rejected or received.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
import structlog

from brokers.base import DEAD_SUFFIX, MAX_REJECTIONS, REASON_HEADER, Delivery, Message, Subscription
from brokers.errors import BrokerRefusedError
from formicary.bus import Bus
from formicary.clock import Clock, time_text
from formicary.errors import ConflictError, FormicaryError, InvalidInputError, UnavailableError
from formicary.events import topics
from formicary.events.public import CancelJob, Command, CommandAccepted, CommandRefused, Reply, SubmitJob
from formicary.metrics import COMMANDS_HANDLED
from formicary.model.jobs import JobRequest
from formicary.model.states import JobState
from formicary.outage import Outage
from formicary.queen.command_reading import Unreadable, read_command
from formicary.queen.manager.manager import Manager
from formicary.service import Service

log = structlog.get_logger(__name__)

#: Commands that one commit takes at most.
_BATCH: Final = 256
_RECEIVE_S: Final = 30.0
#: Pauses while the database is away, and before a failed command comes back, in seconds: doubled each time.
_FIRST_RETRY_S: Final = 0.1
_LAST_RETRY_S: Final = 5.0
_REASON_LIMIT: Final = 500
#: W3C trace context: handed on to the answer.
_TRACE_HEADERS: Final = ("traceparent", "tracestate")

_encode = msgspec.json.Encoder().encode


class Accepted(NamedTuple):
    """Committed."""

    job_id: str
    is_new: bool


class Refused(NamedTuple):
    """Will never be right."""

    error: FormicaryError


class Failed(NamedTuple):
    """Went wrong in a way that may pass."""

    reason: str


Outcome = Accepted | Refused | Failed


class Item(NamedTuple):
    """A delivery and what it says."""

    delivery: Delivery
    command: Command | Unreadable
    key: str


class CommandsDesk(Service):
    """Serves ``formicary.commands`` together with the other queens.

    Args:
        incarnation: this life of the queen; makes message ids unique where those of the broker begin anew with it.
    """

    def __init__(self, bus: Bus, manager: Manager, clock: Clock, incarnation: str) -> None:
        super().__init__()
        self._bus = bus
        self._manager = manager
        self._clock = clock
        self._incarnation = incarnation
        self._outage = Outage("commands_wait_for_database", clock.boottime)

    async def run(self) -> None:
        """Serves until cancelled; what is unacknowledged then goes to another queen."""
        subscription = await self._bus.subscribe_messages([topics.COMMANDS], topics.QUEENS, self._incarnation)
        self.started.set()
        try:
            while True:
                await self.run_once(subscription, _RECEIVE_S)
        finally:
            await asyncio.shield(subscription.close())

    async def run_once(self, subscription: Subscription, timeout_s: float) -> int:
        """Carries out what arrives within ``timeout_s``; returns the number of commands."""
        deliveries = await subscription.receive(_BATCH, timeout_s)
        if not deliveries:
            return 0
        items = [self._item(delivery) for delivery in deliveries]
        outcomes = await self._until_available(items)
        await self._publish(items, outcomes)
        await self._settle(subscription, deliveries, outcomes)
        return len(items)

    async def _settle(
        self, subscription: Subscription, deliveries: Sequence[Delivery], outcomes: Sequence[Outcome]
    ) -> None:
        done: list[Delivery] = []
        for delivery, outcome in zip(deliveries, outcomes, strict=True):
            COMMANDS_HANDLED.labels(type(outcome).__name__.lower()).inc()
            if isinstance(outcome, Failed):
                delay_s = min(_FIRST_RETRY_S * 2**delivery.rejections, _LAST_RETRY_S)
                await subscription.nack([delivery], delay_s, outcome.reason[:_REASON_LIMIT])
            else:
                done.append(delivery)
        await subscription.ack(done)

    def _item(self, delivery: Delivery) -> Item:
        command = read_command(delivery.message.body)
        key = None if isinstance(command, Unreadable) else command.idempotency_key
        if key is None:
            life = "" if self._bus.capabilities.survives_process else f"{self._incarnation}:"
            key = f"{delivery.message.topic}:{life}{delivery.message_id}"
        return Item(delivery, command, key)

    async def _until_available(self, items: Sequence[Item]) -> list[Outcome]:
        pause_s = _FIRST_RETRY_S
        while True:
            try:
                outcomes = await self._carry_out(items)
            except UnavailableError as error:
                self._outage.note(str(error), count=len(items))
            else:
                self._outage.over()
                return outcomes
            await self._clock.sleep(pause_s)
            pause_s = min(pause_s * 2, _LAST_RETRY_S)

    async def _carry_out(self, items: Sequence[Item]) -> list[Outcome]:
        """Submits all jobs in one commit, then cancels; nobody can cancel a job before its submission is answered."""
        outcomes: dict[int, Outcome] = {}
        submissions: dict[int, JobRequest] = {}
        for number, item in enumerate(items):
            match item.command:
                case Unreadable():
                    outcomes[number] = Refused(item.command.error)
                case SubmitJob():
                    submissions[number] = _request(item.command, item.key)
                case CancelJob():
                    pass
        submitted = await self._submit(list(submissions.values()))
        outcomes.update(zip(submissions, submitted, strict=True))
        for number, item in enumerate(items):
            if isinstance(item.command, CancelJob):
                outcomes[number] = await self._cancel(item.command, item.key)
        return [outcomes[number] for number in range(len(items))]

    async def _submit(self, requests: list[JobRequest]) -> list[Outcome]:
        if not requests:
            return []
        try:
            results = await self._manager.submit_batch(requests)
        except UnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 - one command must not end the service, nor hold up the others
            if len(requests) > 1:
                return [outcome for request in requests for outcome in await self._submit([request])]
            return [_outcome_of(error)]
        return [
            Refused(result) if isinstance(result, FormicaryError) else Accepted(result.job.id, result.is_new)
            for result in results
        ]

    async def _cancel(self, command: CancelJob, key: str) -> Outcome:
        try:
            is_new = await self._manager.cancel_once(command.job_id, command.reason, key)
            return Accepted(command.job_id.lower(), is_new)
        except UnavailableError:
            raise
        except ConflictError as error:
            if (await self._manager.job(command.job_id)).state is JobState.CANCELLED:
                return Accepted(command.job_id.lower(), is_new=False)
            return Refused(error)
        except Exception as error:  # noqa: BLE001 - one command must not end the service, nor hold up the others
            return _outcome_of(error)

    async def _publish(self, items: Sequence[Item], outcomes: Sequence[Outcome]) -> None:
        """Buries what is refused and answers what asks for it."""
        dead = [
            _dead_letter(item.delivery.message, outcome.error)
            for item, outcome in zip(items, outcomes, strict=True)
            if isinstance(outcome, Refused)
        ]
        await self._bus.publish_messages(dead)
        answers = [self._answer(item, outcome) for item, outcome in zip(items, outcomes, strict=True)]
        await self._reply([answer for answer in answers if answer is not None])

    async def _reply(self, answers: Sequence[Message]) -> None:
        try:
            await self._bus.publish_messages(answers)
        except BrokerRefusedError as error:
            if len(answers) == 1:
                log.warning("answer_refused_by_broker", topic=answers[0].topic, reason=str(error))
                return
            for answer in answers:
                await self._reply([answer])

    def _answer(self, item: Item, outcome: Outcome) -> Message | None:
        command = item.command
        if command.reply_to is None:
            return None
        reply = self._reply_to(item, outcome)
        if reply is None:
            return None
        asked = item.delivery.message
        return Message(command.reply_to, asked.key, _encode(reply), _trace(asked.headers))

    def _reply_to(self, item: Item, outcome: Outcome) -> Reply | None:
        kind = item.command.kind if isinstance(item.command, Unreadable) else type(item.command).__name__
        message_id, at = item.delivery.message_id, time_text(self._clock.now())
        correlation_id = item.command.correlation_id
        match outcome:
            case Accepted():
                return CommandAccepted(
                    command=str(kind),
                    message_id=message_id,
                    correlation_id=correlation_id,
                    at=at,
                    job_id=outcome.job_id,
                    is_new=outcome.is_new,
                )
            case Failed() if item.delivery.rejections + 1 < MAX_REJECTIONS:
                return None
            case Failed() | Refused():
                error = outcome.error if isinstance(outcome, Refused) else FormicaryError(outcome.reason)
                return CommandRefused(
                    command=kind,
                    message_id=message_id,
                    correlation_id=correlation_id,
                    at=at,
                    code=error.code,
                    detail=_printable(str(error)),
                    errors=error.problems if isinstance(error, InvalidInputError) else (),
                )


def _request(command: SubmitJob, key: str) -> JobRequest:
    return JobRequest(
        job_type=command.job_type,
        version=command.version,
        params=command.params,
        priority=command.priority,
        scheduled_at=command.scheduled_at,
        labels=command.labels,
        idempotency_key=key,
    )


def _outcome_of(error: Exception) -> Outcome:
    if isinstance(error, FormicaryError):
        return Refused(error)
    log.error("command_failed", reason=repr(error), exc_info=error)
    return Failed(f"internal error: {error!r}")


def _dead_letter(message: Message, error: FormicaryError) -> Message:
    reason = _printable(f"{error.code}: {error}"[:_REASON_LIMIT])
    return Message(message.topic + DEAD_SUFFIX, message.key, message.body, {**message.headers, REASON_HEADER: reason})


def _trace(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: headers[name] for name in _TRACE_HEADERS if name in headers}


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
