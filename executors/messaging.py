"""MESSAGING: a request on a topic of the broker, and the reply to it.

Whoever consumes the topic does the task. A request that was sent cannot be called back: after a stop the service may go
on, and whatever it replies is dropped. Only the result of an attempt is fenced, not its work.
"""

import asyncio
import re
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from executors.base import Attempt, Executor, Outcome, Reason, Run, Sink, Stream
from executors.ending import Ending, stopped_outcome
from executors.errors import ExecutorError, SpecRefusedError
from executors.options import ExecutorOptions
from executors.replies import ReplyDesk
from executors.specs import MessagingSpec

Json = Any  # a JSON value

#: Names that every broker takes.
TOPIC_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
#: Topics that begin so are the colony's own: a message of a task could pass for one of an ant or a queen.
RESERVED_PREFIX: Final = "formicary."


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What a service gets: one JSON object a message.

    Attributes:
        correlation_id: Of this attempt alone, and the same when the message comes twice. The reply has it.
        reply_to: The topic of the reply.
        sent_at: RFC 3339, by the ant's clock.
        timeout_s: Nobody waits for a reply that comes later than so long after ``sent_at``.
        body: What the task sends.
    """

    correlation_id: str
    reply_to: str
    job_id: str
    task_type: str
    attempt: int
    sent_at: str
    timeout_s: float
    body: Json


class _MessagingRun:
    """State of one attempt."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.ending = Ending()
        self.stop_reason: Reason | None = None
        self.driver: asyncio.Task[None] | None = None


class MessagingExecutor(Executor):
    """Sends requests to other services over the broker, and takes their replies."""

    methods = ("MESSAGING",)
    is_in_process = True

    def __init__(self, options: ExecutorOptions | None = None) -> None:
        options = options or ExecutorOptions()
        self._exchange = options.exchange
        self._reply_topic = options.reply_topic
        self._desk = None if self._exchange is None else ReplyDesk(self._exchange, self._reply_topic)

    async def check(self) -> None:
        """Proves that there is a broker; whether it is alive is the ant's business."""
        if self._exchange is None:
            raise ExecutorError("MESSAGING needs the ant's message broker, and this program has none")

    async def start(self, attempt: Attempt, sink: Sink) -> Run:
        """Checks the spec and sends the request in the background."""
        spec = attempt.spec
        if not isinstance(spec, MessagingSpec):
            raise SpecRefusedError(f"MESSAGING needs a MessagingSpec, not {type(spec).__name__}")
        handle = _MessagingRun(self._request(attempt, spec))
        handle.driver = asyncio.create_task(self._drive(handle, spec, sink))
        return Run(attempt, sink, handle)

    async def wait(self, run: Run) -> Outcome:
        """Returns what the service says."""
        handle: _MessagingRun = run.handle
        return await handle.ending.wait()

    async def stop(self, run: Run, grace_s: float, reason: Reason) -> None:
        """Waits for the reply no more; there is nobody to be graceful to."""
        handle: _MessagingRun | None = run.handle
        if handle is None or handle.ending.is_over:
            return
        handle.stop_reason = handle.stop_reason or reason
        if handle.driver is not None:
            handle.driver.cancel()
            await asyncio.wait([handle.driver])
        handle.ending.settle(stopped_outcome(handle.stop_reason))  # a driver that never began settles nothing

    async def cleanup(self, run: Run) -> None:
        """Waits for the reply no more."""
        await self.stop(run, 0, Reason.CANCELLED)

    async def close(self) -> None:
        """Stops listening to replies."""
        if self._desk is not None:
            await self._desk.close()

    def _request(self, attempt: Attempt, spec: MessagingSpec) -> Request:
        _check_topic("topic", spec.topic)
        if spec.reply_topic:
            _check_topic("reply_topic", spec.reply_topic)
        return Request(
            correlation_id=f"{attempt.job_id}/{attempt.task_type}/{attempt.number}",
            reply_to=spec.reply_topic or self._reply_topic,
            job_id=attempt.job_id,
            task_type=attempt.task_type,
            attempt=attempt.number,
            sent_at=datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            timeout_s=attempt.timeout_s,
            body=spec.body,
        )

    async def _drive(self, run: _MessagingRun, spec: MessagingSpec, sink: Sink) -> None:
        try:
            run.ending.settle(await self._ask(run.request, spec, sink))
        except asyncio.CancelledError:
            run.ending.settle(stopped_outcome(run.stop_reason or Reason.CANCELLED, _unanswered(spec, run.stop_reason)))
            raise
        except Exception as exc:  # noqa: BLE001 - carried to whoever waits
            run.ending.fail(exc)

    async def _ask(self, request: Request, spec: MessagingSpec, sink: Sink) -> Outcome:
        assert self._desk is not None
        assert self._exchange is not None
        body = _encoded(request)
        try:
            reply = await self._desk.expect(request.reply_to, request.correlation_id)
            await self._exchange.send(spec.topic, spec.key or request.job_id, body, spec.headers)
            line = f"request {request.correlation_id} is on {spec.topic}; the reply is awaited on {request.reply_to}"
            await sink.write(Stream.SYSTEM, line.encode(errors="replace") + b"\n")
            return (await reply).outcome(f"the service on {spec.topic}")
        finally:
            self._desk.forget(request.reply_to, request.correlation_id)


def _check_topic(key: str, topic: str) -> None:
    if not TOPIC_NAME.fullmatch(topic):
        raise SpecRefusedError(
            f"{key}: {topic[:100]!r} is no name of a topic; use 1 to 200 letters, digits and . _ -, and begin with a"
            " letter or digit"
        )
    if topic.startswith(RESERVED_PREFIX):
        raise SpecRefusedError(f"{key}: {topic[:100]} is one of Formicary's own topics; use another name")


def _encoded(request: Request) -> bytes:
    try:
        return msgspec.json.encode(request)
    except (TypeError, ValueError, msgspec.MsgspecError) as exc:
        raise SpecRefusedError(f"body: cannot be written as JSON ({exc})") from exc


def _unanswered(spec: MessagingSpec, reason: Reason | None) -> str | None:
    if reason is not Reason.TIMED_OUT:
        return None
    return f"no reply came in time; is there a service that consumes {spec.topic}?"
