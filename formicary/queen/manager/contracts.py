"""What the manager needs of the rest of the process, passed in by the composition root."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from formicary.artifacts.blobs import Blobs
from formicary.clock import Clock
from formicary.ids import JobId
from formicary.model.jobs import AntView
from formicary.queen.log_reader import LogSources
from formicary.queen.watch import JobWatch, Signals
from formicary.store.commands import CommandStore
from formicary.store.database import Database
from formicary.store.definitions import DefinitionStore
from formicary.store.jobs import JobStore
from formicary.store.rows import JobRecord, NewJob


class Wake(Protocol):
    """Tells others in the colony that rows wait for them. Losing a call costs time, never a job."""

    def submitted(self, startable: Sequence[JobRecord] = ()) -> None:
        """Says that PENDING jobs were inserted or changed.

        ``startable`` are all of those inserted, where nothing keeps any of them from starting at once.
        """
        ...

    def command(self, shard: int) -> None:
        """Says that ``job_commands`` has rows for ``shard``."""
        ...


class Starter(Protocol):
    """Inserts jobs and starts them in the same commit, where nothing else waits."""

    async def begin(self, row: NewJob, record: JobRecord) -> bool:
        """Says whether the job is committed; where not, inserting it is safe. It is due at once, its type unlimited."""
        ...


class NoStarter:
    """Starts nothing."""

    async def begin(self, row: NewJob, record: JobRecord) -> bool:
        """Returns False."""
        return False


class AntDirectory(Protocol):
    """The live ants, as this queen sees them."""

    def views(self) -> list[AntView]:
        """Returns them, sorted by id."""
        ...


class TaskWaits(Protocol):
    """Why tasks of live jobs wait; knows only the jobs that this queen owns."""

    def is_live(self, job_id: JobId) -> bool:
        """Says whether this queen runs the job: it has not ended, and its end will be signalled here."""
        ...

    def reasons(self, job_id: JobId) -> Mapping[int, str]:
        """Returns sentences by task number; empty for jobs of other queens."""
        ...


class LogBacklog(Protocol):
    """How many messages of task output are published and not yet stored."""

    async def backlog(self) -> int:
        """Returns the count; 0 means that everything published before the call can be read."""
        ...


class NoTaskWaits:
    """Knows no job."""

    def is_live(self, job_id: JobId) -> bool:
        """Returns False."""
        return False

    def reasons(self, job_id: JobId) -> Mapping[int, str]:
        """Returns none."""
        return {}


class Stores(msgspec.Struct, frozen=True, kw_only=True):
    """The stores behind the manager."""

    database: Database
    definitions: DefinitionStore
    jobs: JobStore
    commands: CommandStore
    logs: LogSources
    artifacts: Blobs


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of the process that the manager asks or tells. ``log_signals`` fire when lines of a job were stored."""

    clock: Clock
    wake: Wake
    watch: JobWatch
    log_signals: Signals
    log_backlog: LogBacklog
    ants: AntDirectory
    waits: TaskWaits = NoTaskWaits()
    starter: Starter = NoStarter()
