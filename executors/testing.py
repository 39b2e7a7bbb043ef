"""Doubles of what an ant hands to an executor, for the tests of executors and of ants."""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from executors.base import Attempt, Executor, Stream
from executors.errors import StartFailedError
from executors.specs import Spec


class CollectingSink:
    """Keeps all output; with ``delay_s`` it is slow, with ``keep_bytes`` it keeps only the sizes beyond that."""

    def __init__(self, delay_s: float = 0.0, keep_bytes: int | None = None) -> None:
        self.pieces: list[tuple[Stream, bytes]] = []
        self.sizes: dict[Stream, int] = {}
        self.largest_bytes = 0
        self.first_write = asyncio.Event()
        self._delay_s = delay_s
        self._keep_bytes = keep_bytes
        self._kept_bytes = 0

    async def write(self, stream: Stream, data: bytes) -> None:
        """Takes a piece of output."""
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        self.sizes[stream] = self.sizes.get(stream, 0) + len(data)
        self.largest_bytes = max(self.largest_bytes, len(data))
        if self._keep_bytes is None or self._kept_bytes < self._keep_bytes:
            self._kept_bytes += len(data)
            self.pieces.append((stream, data))
        self.first_write.set()

    def text(self, stream: Stream = Stream.STDOUT) -> bytes:
        """Returns what came on one stream."""
        return b"".join(data for from_stream, data in self.pieces if from_stream is stream)


class RecordingGuard:
    """Stands in for the warden: promises at once, or refuses, and remembers every process group."""

    def __init__(self, refuses: bool = False) -> None:
        self.registered: list[int] = []
        self.forgotten: list[int] = []
        self.admitted_count = 0
        self.dismissed_count = 0
        self.allowed_count = 0
        self._refuses = refuses

    async def register(self, pid: int) -> None:
        """Remembers the group, or refuses as a warden does whose lease has ended."""
        self.registered.append(pid)
        if self._refuses:
            raise StartFailedError("the lease of this attempt has ended; nothing was started")

    async def forget(self, pid: int) -> None:
        """Remembers that the group is gone."""
        self.forgotten.append(pid)

    async def admit(self) -> None:
        """Counts the attempt, or refuses it as a warden does whose lease has ended."""
        self.admitted_count += 1
        if self._refuses:
            raise StartFailedError("the lease of this attempt has ended; nothing was started")

    async def dismiss(self) -> None:
        """Counts the attempt that has left the engine."""
        self.dismissed_count += 1

    async def allow(self) -> None:
        """Counts the attempt, or refuses it as a warden does whose lease has ended."""
        self.allowed_count += 1
        if self._refuses:
            raise StartFailedError("the lease of this attempt has ended; nothing was started")


class LazyFolder:
    """A working directory that is made on first use."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def path(self) -> Path:
        """Returns the folder, which exists from now on."""
        self._path.mkdir(parents=True, exist_ok=True)
        return self._path

    def give_to(self, uid: int, gid: int) -> None:
        """Gives the folder and its files to a user."""
        for path in (self.path(), *self.path().rglob("*")):
            os.chown(path, uid, gid, follow_symlinks=False)

    def take_back(self) -> None:
        """Gives them to this process's own user again."""
        self.give_to(os.geteuid(), os.getegid())

    @property
    def is_made(self) -> bool:
        """Whether anybody has needed the folder."""
        return self._path.exists()

    @property
    def result_dir(self) -> Path:
        """Returns the folder of results, beside the working directory."""
        return self._path.with_name(self._path.name + ".result")

    @property
    def output_file(self) -> Path:
        """Returns the file of outputs, beside the working directory."""
        return self._path.with_name(self._path.name + ".output")


def make_attempt(
    spec: Spec,
    folder: Path,
    *,
    job_id: str = "job-1",
    task_type: str = "task",
    number: int = 1,
    environment: Mapping[str, str] | None = None,
    guard: RecordingGuard | None = None,
) -> Attempt:
    """Returns an attempt with the environment that an ant gives."""
    marks = {"FORMICARY_JOB_ID": job_id, "FORMICARY_TASK_TYPE": task_type, "FORMICARY_ATTEMPT": str(number)}
    return Attempt(
        job_id=job_id,
        task_type=task_type,
        number=number,
        spec=spec,
        environment={**marks, **(environment or {})},
        folder=LazyFolder(folder),
        guard=guard or RecordingGuard(),
        timeout_s=60.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Specimen:
    """What the conformance suite must know about an executor to put it to the test.

    Attributes:
        executor: The executor, checked.
        success: Ends well by itself, with ``success_code``.
        failure: Ends badly by itself, with ``failure_code``.
        talking: Writes ``said`` to ``said_on`` and ends.
        lasting: Runs until it is stopped.
        stubborn: Runs on when it is asked to end.
        refused: Can never run.
        at_once: How many run at the same time.
        big: Writes ``big_bytes`` in all to ``said_on``; None where output is never big.
    """

    executor: Executor
    success: Spec
    failure: Spec
    talking: Spec
    said: bytes
    lasting: Spec
    stubborn: Spec
    refused: Spec
    big: Spec | None = None
    big_bytes: int = 0
    said_on: Stream = Stream.STDOUT
    success_code: int = 0
    failure_code: int = 3
    at_once: int = 100
