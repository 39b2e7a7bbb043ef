"""What an ant and its remote workers say to each other: JSON objects, one a text message, told apart by ``type``.

The documented protocol is ``docs/executors/websocket.md``; its schema is made of these structs.
"""

import inspect
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from executors.base import Input
from executors.verdict import Verdict

Json = Any  # a JSON value

#: Version of the protocol, and the WebSocket subprotocol that a worker may ask for.
PROTOCOL: Final = 1
SUBPROTOCOL: Final = "formicary.worker.v1"
#: The largest message of a worker, in bytes.
MAX_MESSAGE_BYTES: Final = 1024 * 1024

# The end is a look-ahead: `$` takes a newline behind it in Python, and `\Z` is none in JSON Schema.
_Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:\-]{0,99}(?![\s\S])")]


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", forbid_unknown_fields=True):
    pass


class Register(_Message, frozen=True, kw_only=True, tag="register"):
    """The first message of a worker: who it is and what it takes.

    Attributes:
        protocol: Version of the protocol.
        name: Shown in logs; need not be unique.
        methods: What it can do, as ``worker.method`` of a task asks for.
        tags: A task goes to it only if all of its ``worker.tags`` are among them.
        slots: How many tasks it takes at a time.
        token: The ant's token, unless the header ``Authorization: Bearer TOKEN`` has it.
    """

    protocol: Literal[1] = 1
    name: Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f-\x9f]{1,100}(?![\s\S])")] = "worker"
    methods: Annotated[tuple[_Name, ...], Meta(min_length=1, max_length=100)]
    tags: Annotated[tuple[_Name, ...], Meta(max_length=100)] = ()
    slots: Annotated[int, Meta(ge=1, le=1000)] = 1
    token: str | None = None


class Log(_Message, frozen=True, kw_only=True, tag="log"):
    """Lines of a task's log; a newline at the end may be left out."""

    task: str
    text: str
    stream: Literal["stdout", "stderr"] = "stdout"


class Artifact(_Message, frozen=True, kw_only=True, tag="artifact"):
    """A file that the task leaves: asks where to put it, which ``upload`` answers. A later one takes its name.

    Attributes:
        name: A relative path.
        sha256: Of its content, in hexadecimal digits.
        size_bytes: Of its content.
        is_executable: Whether tasks that get it can execute it.
    """

    task: str
    name: Annotated[str, Meta(min_length=1, max_length=1024)]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}(?![\s\S])")]
    size_bytes: Annotated[int, Meta(ge=0)]
    is_executable: bool = False


class Result(Verdict, frozen=True, kw_only=True, tag_field="type", tag="result"):
    """The end of a task: nothing more is said about it, and its slot is free."""

    task: str


class Drain(_Message, frozen=True, kw_only=True, tag="drain"):
    """The worker takes no more tasks; what it has it finishes."""


class Ping(_Message, frozen=True, kw_only=True, tag="ping"):
    """Asks for a pong: for workers that cannot send a WebSocket ping."""


class Registered(_Message, frozen=True, kw_only=True, tag="registered"):
    """The answer to ``register``: tasks may come from now on."""

    protocol: int = PROTOCOL
    heartbeat_s: float
    max_message_bytes: int = MAX_MESSAGE_BYTES


class Task(_Message, frozen=True, kw_only=True, tag="task"):
    """Work. ``task`` names this attempt in all further messages and is never used twice."""

    task: str
    job_id: str
    task_type: str
    attempt: int
    method: str
    payload: Json
    timeout_s: float
    inputs: tuple[Input, ...] = ()


class Cancel(_Message, frozen=True, kw_only=True, tag="cancel"):
    """The task is to end; a result is awaited for ``grace_s``, and then the task is over for the ant."""

    task: str
    reason: Literal["cancelled", "timed_out"]
    grace_s: float


class UploadTo(_Message, frozen=True, kw_only=True, tag="upload"):
    """The answer to ``artifact``: PUT the content to ``url`` with just these ``headers``, before the result.

    Attributes:
        task: Whose artifact.
        name: Its name.
        url: Where to put it; null: its content is in the store already, or it was refused.
        headers: What has to go with it.
        refusal: Why it cannot be taken.
    """

    task: str
    name: str
    url: str | None = None
    headers: Mapping[str, str] = {}
    refusal: str | None = None


class Pong(_Message, frozen=True, kw_only=True, tag="pong"):
    """The answer to ``ping``."""


class Error(_Message, frozen=True, kw_only=True, tag="error"):
    """A message that could not be taken. It changed nothing, unless the connection is closed after it."""

    code: Literal["bad_message", "unauthorized", "unknown_task", "already_registered"]
    message: str
    task: str | None = None


FromWorker = Register | Log | Artifact | Result | Drain | Ping
ToWorker = Registered | Task | UploadTo | Cancel | Pong | Error


class BadMessageError(Exception):
    """A message of a worker that cannot be taken; says why."""


_decoder: msgspec.json.Decoder[FromWorker] = msgspec.json.Decoder(FromWorker)
_encoder = msgspec.json.Encoder()


def decode(text: str) -> FromWorker:
    """Returns a worker's message.

    Raises:
        BadMessageError: it is none.
    """
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
        raise BadMessageError(f"{exc}; see docs/executors/websocket.md") from exc


def encode(message: ToWorker) -> str:
    """Returns a message as text."""
    return _encoder.encode(message).decode()


def json_schema() -> dict[str, Json]:
    """Returns the JSON Schema of all messages (draft 2020-12)."""
    (from_worker, to_worker), definitions = msgspec.json.schema_components((FromWorker, ToWorker))
    for definition in definitions.values():
        definition["description"] = inspect.cleandoc(definition["description"])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Messages between an ant and its remote workers",
        "$defs": {"FromWorker": from_worker, "ToWorker": to_worker, **definitions},
        "anyOf": [{"$ref": "#/$defs/FromWorker"}, {"$ref": "#/$defs/ToWorker"}],
    }
