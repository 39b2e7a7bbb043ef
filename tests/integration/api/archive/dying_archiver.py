"""Moves output, and kills itself in the middle. Arguments: database, folder of the store, epoch, when to die."""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from formicary.artifacts.base import Stored
from formicary.artifacts.local import LocalStore
from formicary.clock import SystemClock
from formicary.ids import JobId
from formicary.queen.log_archiver import LogArchiver
from formicary.queen.log_reader import LogSources
from formicary.store.database import Database
from formicary.store.log_parts import AttemptLines, LogPart, LogPartStore
from formicary.store.logs import LogStore


class DyingStore(LocalStore):
    async def put(self, key: str, source: Path) -> Stored:
        await super().put(key, source)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


class DyingParts(LogPartStore):
    async def commit(self, job_id: JobId, part: LogPart, attempts: Sequence[AttemptLines], leader_epoch: int) -> bool:
        await super().commit(job_id, part, attempts, leader_epoch)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


class Leader:
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def leader_epoch(self) -> int | None:
        return self.epoch


async def main(url: str, folder: str, epoch: int, death: str) -> None:
    database = Database(url)
    await database.open()
    store = (DyingStore if death == "after put" else LocalStore)(Path(folder))
    parts = (LogPartStore if death == "after put" else DyingParts)(database)
    sources = LogSources(LogStore(database), parts, store)
    await LogArchiver(sources, Leader(epoch), SystemClock(), after_s=0.0).run_once()


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))
