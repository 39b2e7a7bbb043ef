"""The worker's side of the process pool: takes calls from its socket until the ant is gone."""

import asyncio
import io
import os
import socket
import struct
import sys
import threading
from typing import Any

import msgspec

from executors.base import Outcome, Stream
from executors.errors import SpecRefusedError
from executors.functions import resolve
from executors.results import outcome_of_exception, outcome_of_exit, outcome_of_result

_HEADER = struct.Struct("!I")
_PIECE_BYTES = 64 * 1024


class CallFrame(msgspec.Struct, frozen=True, tag=True):
    """What to call."""

    function: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class OutputFrame(msgspec.Struct, frozen=True, tag=True):
    """What the function printed."""

    stream: Stream
    data: bytes


class RefusedFrame(msgspec.Struct, frozen=True, tag=True):
    """The function cannot be resolved."""

    message: str


class OutcomeFrame(msgspec.Struct, frozen=True, tag=True):
    """How the call ended."""

    outcome: Outcome


Answer = OutputFrame | RefusedFrame | OutcomeFrame


def pack(frame: msgspec.Struct) -> bytes:
    """Returns a frame with its length in front."""
    body = msgspec.msgpack.encode(frame)
    return _HEADER.pack(len(body)) + body


def body_size(header: bytes) -> int:
    """Returns the length that a header announces."""
    size: int = _HEADER.unpack(header)[0]
    return size


#: Bytes of a header.
HEADER_BYTES = _HEADER.size


class _Line:
    """The socket to the ant; threads of a function may print at the same time."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, frame: msgspec.Struct) -> None:
        with self._lock:
            self._connection.sendall(pack(frame))


class _RawPrinter(io.RawIOBase):
    """Sends what is printed through the socket: it arrives before the outcome, and waits while the ant is busy."""

    def __init__(self, line: _Line, stream: Stream) -> None:
        self._line = line
        self._stream = stream

    def write(self, data: Any) -> int:
        piece = bytes(data[:_PIECE_BYTES])
        self._line.send(OutputFrame(self._stream, piece))
        return len(piece)

    def writable(self) -> bool:
        return True


def _printer(line: _Line, stream: Stream) -> io.TextIOWrapper:
    raw = io.BufferedWriter(_RawPrinter(line, stream), _PIECE_BYTES)
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)


def main() -> None:
    """Serves calls from the socket at standard input."""
    connection = socket.socket(fileno=os.dup(0))
    with open(os.devnull) as nothing:  # noqa: PTH123 - a descriptor is what is wanted
        os.dup2(nothing.fileno(), 0)
    line = _Line(connection)
    sys.stdout, sys.stderr = _printer(line, Stream.STDOUT), _printer(line, Stream.STDERR)
    decoder = msgspec.msgpack.Decoder(CallFrame)
    with connection.makefile("rb") as reader:
        while len(header := reader.read(HEADER_BYTES)) == HEADER_BYTES:
            answer = _answer(decoder.decode(reader.read(body_size(header))))
            sys.stdout.flush()
            sys.stderr.flush()
            line.send(answer)


def _answer(call: CallFrame) -> Answer:
    try:
        function = resolve(call.function)
    except SpecRefusedError as exc:
        return RefusedFrame(str(exc))
    try:
        result = function.target(*call.args, **call.kwargs)
        return OutcomeFrame(outcome_of_result(asyncio.run(result) if function.is_async else result))
    except BaseException as exc:  # noqa: BLE001 - whatever a user's function raises is its task's failure
        outcome, text = outcome_of_exit(exc) if isinstance(exc, SystemExit) else outcome_of_exception(exc)
        sys.stderr.write(text)
        return OutcomeFrame(outcome)
