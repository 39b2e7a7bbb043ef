"""The contract of an executor: how an ant runs one attempt of a task.

Every executor passes the suite in ``tests/conformance/executors``. The order of calls is
``check()`` once per ant, then for each attempt ``start`` -> ``wait`` (``stop`` at any time) -> ``collect`` (of those
that are elsewhere) -> ``cleanup``.
**A task that fails is an** ``Outcome``; **an executor that fails is an exception** (``executors.errors``).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from executors.specs import Spec


class Reason(StrEnum):
    """How a run ended."""

    EXITED = "exited"
    SIGNALLED = "signalled"
    OUT_OF_MEMORY = "out_of_memory"
    CPU_TIME = "cpu_time"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"


class Stream(StrEnum):
    """Where a piece of output came from."""

    STDOUT = "stdout"
    STDERR = "stderr"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a run. ``exit_code`` is the process's, the HTTP status, or 128 + signal where one killed it.

    ``outputs`` are JSON values that the executor itself found (an HTTP body, a function's result); those written by
    the script to stdout or ``$FORMICARY_OUTPUT`` are the ant's to collect. ``message`` says in one sentence what
    happened when it is no plain success.
    """

    reason: Reason
    exit_code: int
    is_success: bool
    outputs: Mapping[str, Any] = field(default_factory=dict)
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """What a remote worker behind an executor takes: tasks of these methods of its own, which ask for no other tags."""

    methods: tuple[str, ...]
    tags: tuple[str, ...] = ()


class Sink(Protocol):
    """Takes the output of a run, as it comes."""

    async def write(self, stream: Stream, data: bytes) -> None:
        """Takes a piece of output, at most 64 KiB; returns when there is room for the next (backpressure)."""
        ...


class Guard(Protocol):
    """The ant's warden, seen from an executor that starts processes of this machine, or containers of an engine."""

    async def register(self, pid: int) -> None:
        """Returns when the warden has promised to kill the process group ``pid`` after the ant's death.

        Raises:
            StartFailedError: the lease under which the attempt was accepted has ended; start nothing.
        """
        ...

    async def forget(self, pid: int) -> None:
        """Tells the warden that the process group is gone."""
        ...

    async def admit(self) -> None:
        """Returns when the warden has promised to end, after the ant's death, whatever an engine runs for this ant.

        It finds that by its label, so make everything before asking, and start nothing before this returns.

        Raises:
            StartFailedError: the lease under which the attempt was accepted has ended; start nothing.
        """
        ...

    async def dismiss(self) -> None:
        """Tells the warden that nothing of the attempt is left on the engine."""
        ...

    async def allow(self) -> None:
        """Returns when the warden has confirmed the lease, for what runs elsewhere and is kept apart there.

        Raises:
            StartFailedError: the lease under which the attempt was accepted has ended; start nothing.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """An artifact of an earlier task. With ``folder`` it is that folder, as a tar archive compressed by zstd.

    Whoever gets it from its ``url`` checks the sha256; None: the artifact store has no URLs.
    """

    name: str
    task_type: str
    sha256: str
    size_bytes: int
    is_executable: bool = False
    folder: str | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Upload:
    """Where to PUT a file, and with which headers."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)


class Exchange(Protocol):
    """The artifact store, for whoever moves an attempt's files by URLs."""

    @property
    def inputs(self) -> tuple[Input, ...]:
        """What the attempt gets."""
        ...

    async def offer(self, name: str, sha256: str, size_bytes: int, *, is_executable: bool) -> Upload:
        """Announces a file that the attempt leaves; it must be stored before ``wait`` returns.

        Raises:
            CollectFailedError: it cannot be taken; says why.
        """
        ...


class Shortcut(Protocol):
    """The artifact store's URLs for big files; each that does not go by one goes through the attempt's folder."""

    @property
    def least_bytes(self) -> int:
        """The size of the smallest file that counts as big."""
        ...

    @property
    def most_bytes(self) -> int:
        """The size of the largest file that an attempt can leave this way."""
        ...

    @property
    def inputs(self) -> tuple[Input, ...]:
        """What the attempt gets and its folder lacks; every one has a URL."""
        ...

    async def bring(self) -> None:
        """Puts the inputs into the attempt's folder after all.

        Raises:
            InputMissingError: names the one that cannot be had.
        """
        ...

    def is_wanted(self, name: str) -> bool:
        """Tells whether a file of the working directory would be an artifact of its own."""
        ...

    async def offer(self, name: str, sha256: str, size_bytes: int, *, is_executable: bool) -> Upload | None:
        """Returns where to PUT a file that the attempt leaves, always with a URL; None: it cannot go that way."""
        ...

    async def accept(self, name: str) -> bool:
        """Tells whether the store has what was offered last under this name; if so, ``collect`` need not bring it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Everything about one attempt that an executor may see.

    ``workdir`` is a fresh folder, made on first use by ``folder()`` since most PYTHON and HTTP tasks need none.
    ``environment`` holds the ``FORMICARY_*`` variables and nothing of the ant's own environment. ``exchange`` is there
    where the executor ``has_exchange``, ``shortcut`` perhaps where it has ``shortcut_bytes``.
    """

    job_id: str
    task_type: str
    number: int
    spec: Spec
    environment: Mapping[str, str]
    folder: "Folder"
    guard: Guard
    timeout_s: float
    exchange: Exchange | None = None
    shortcut: Shortcut | None = None


class Folder(Protocol):
    """The attempt's working directory, created on first use."""

    @property
    def is_made(self) -> bool:
        """Whether it exists: it then holds the artifacts that the attempt needs, and restored caches."""
        ...

    @property
    def result_dir(self) -> Path:
        """Where the files of ``$FORMICARY_RESULT_DIR`` belong; it may have to be made."""
        ...

    @property
    def output_file(self) -> Path:
        """Where the file ``$FORMICARY_OUTPUT`` belongs; the folder it lies in exists once ``path`` was called."""
        ...

    def path(self) -> Path:
        """Returns the folder, which exists from now on."""
        ...

    def give_to(self, uid: int, gid: int) -> None:
        """Lets a user of this machine, and nobody else, work in the folder and what belongs to it. Blocks.

        Raises:
            OSError: this process may not give files away.
        """
        ...

    def take_back(self) -> None:
        """Ends what ``give_to`` began: nobody else can change or reach the folder any more. Blocks; safe twice."""
        ...


@dataclass(slots=True)
class Run:
    """A started attempt. ``handle`` belongs to the executor."""

    attempt: Attempt
    sink: Sink
    handle: Any = None


class Executor(ABC):
    """Runs attempts of the methods it names."""

    #: The task methods that this executor serves.
    methods: tuple[str, ...] = ()
    #: Runs in the ant's own process: attempts are cheap and many may wait at once.
    is_in_process: bool = False
    #: Attempts run where the ant's folder is not: ``start`` takes along what it holds, ``collect`` brings back.
    is_elsewhere: bool = False
    #: Files go by URLs of the artifact store: the ant puts none into the attempt's folder, and collects none.
    has_exchange: bool = False
    #: Files of at least so many bytes may go between the artifact store and where attempts run, past the ant; 0: none.
    shortcut_bytes: int = 0
    #: Where attempts run, if two of a task are kept apart within one place only; known after ``check``. Holds neither
    #: ``@`` nor ``+``.
    place: str = ""

    @abstractmethod
    async def check(self) -> None:
        """Proves that this executor can work here.

        Raises:
            ExecutorError: says what is missing and how to get it; the ant then does not offer the methods.
        """

    def watch_offers(self, changed: Callable[[tuple[Offer, ...]], None]) -> None:  # noqa: B027 - most have no workers
        """Has ``changed`` called whenever the remote workers behind this executor change, with all that they offer.

        Called before ``check``.
        """

    def lives_over(self, lives: Sequence[str]) -> None:  # noqa: B027 - most leave nothing that outlives their ant
        """Takes that these lives of ants, named in ``FORMICARY_ANT``, were counted lost: nobody uses what they left.

        Called often, with many that were named before.
        """

    @abstractmethod
    async def start(self, attempt: Attempt, sink: Sink) -> Run:
        """Starts the attempt and returns at once.

        Raises:
            SpecRefusedError: the spec can never run here.
            StartFailedError: it did not start; nothing is left of it.
        """

    @abstractmethod
    async def wait(self, run: Run) -> Outcome:
        """Waits for the end; when it returns, all output has gone to the sink. Cancelling it does not stop the run.

        Enforces no time limit: the ant calls ``stop`` with the reason.

        Raises:
            ExecutorLostError: the fate of the run is unknown.
        """

    @abstractmethod
    async def stop(self, run: Run, grace_s: float, reason: Reason) -> None:
        """Asks the run to end, and after ``grace_s`` ends it; ``wait`` then returns an outcome with ``reason``.

        Returns when the run is over. Safe at any time, twice, after the end and after a failed start.
        """

    async def collect(self, run: Run, paths: Sequence[str], *, with_results: bool) -> None:  # noqa: B027 - see is_elsewhere
        """Brings what the run left to the attempt's folder; called after ``wait``, where ``is_elsewhere``.

        Called once; again with fewer paths where it failed and only a cache was among them that can be done without.

        That is: the file of outputs, always; with ``with_results`` the files of ``$FORMICARY_RESULT_DIR``; and of the
        working directory at least what ``paths`` (globs and folders, relative to it) select. What does not exist is
        left out, and so is all that would lie outside of the folder, and what the attempt's shortcut has accepted.

        Raises:
            CollectFailedError: names what could not be had.
        """

    async def released(self, run: Run) -> None:  # noqa: B027 - most have nothing to wait for
        """Returns when the run no longer occupies anything here, which can be after its outcome.

        A function in a thread cannot be killed: its run ends by ``stop``, its thread does not. The ant frees the slot
        after this. Safe at any time and after a failed start; cancelling it changes nothing.
        """

    @abstractmethod
    async def cleanup(self, run: Run) -> None:
        """Lets go of everything the run holds. Safe at any time, twice and after a failed start."""

    async def close(self) -> None:  # noqa: B027 - most hold nothing
        """Ends what the executor itself holds (threads, pools, sessions). Safe twice."""
