"""Jobs that a ``run`` has started: remembered under the home, so that those of a dead one are cancelled later."""

from contextlib import suppress
from pathlib import Path

import structlog

from formicary.errors import ConflictError, NotFoundError
from formicary.ids import JobId
from formicary.queen.manager.manager import Manager

log = structlog.get_logger(__name__)

_REASON = "the `formicary run` that started it is gone"


class RunLedger:
    """The jobs of runs, one empty file each in ``<home>/runs``; for the holder of the home."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "runs"

    def note(self, job_id: JobId) -> None:
        """Remembers a job that is about to be submitted."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        (self._folder / job_id).touch()

    def forget(self, job_id: JobId) -> None:
        """Forgets a job that has ended."""
        (self._folder / job_id).unlink(missing_ok=True)

    async def cancel_orphans(self, manager: Manager) -> None:
        """Cancels what former runs left, and forgets it."""
        for path in list(self._folder.glob("*")):
            with suppress(NotFoundError, ConflictError):
                await manager.cancel(path.name, _REASON)
                log.warning("orphan_cancelled", job_id=path.name, reason=_REASON)
            self.forget(JobId(path.name))
