"""The way of one attempt: fetch, start, wait, collect, report, clean up.

What can go wrong, and what the attempt's end says then: a transfer ``ERR_ARTIFACT``; a spec or a value that can never
work ``ERR_VALIDATION``; the executor ``ERR_EXECUTOR``, or what its error says (``ERR_IMAGE``, …). All of the attempt's
log lines are with the broker, and its executor has let go of it, before its end is reported.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Final, TypeVar

import structlog

from executors.base import Attempt, Outcome, Reason, Run
from executors.errors import ExecutorError
from formicary.ant import outputs
from formicary.ant.assignments import Assignment
from formicary.ant.caches import Caches, CacheUse
from formicary.ant.deadlines import Deadlines
from formicary.ant.errors import TransferError
from formicary.ant.folders import AttemptFolder, Folders
from formicary.ant.logs import AttemptLog, LogShipper
from formicary.ant.masking import mask_text
from formicary.ant.reporter import End, Reporter, error_end
from formicary.ant.slots import Slots
from formicary.ant.transfer import Transfer, is_wanted, select
from formicary.ant.values import check_outputs
from formicary.ant.wardship import AttemptGuard, Wardship
from formicary.clock import Clock
from formicary.errors import DataError
from formicary.model.jobs import ArtifactRef

log = structlog.get_logger(__name__)

Json = Any  # a JSON value
T = TypeVar("T")

#: From TERM to KILL for an attempt whose time is up, in seconds.
TIMEOUT_GRACE_S: Final = 10.0
#: How long a stop may take beyond its grace before the log says so, in seconds.
_STOP_MARGIN_S: Final = 5.0
#: How long a stopped attempt may run on before the log says so, in seconds.
_RELEASE_PATIENCE_S: Final = 1.0
_NO_ENVIRONMENT: Final = MappingProxyType[str, str]({})


class StoppedError(Exception):
    """The attempt was to stop while nothing of it ran."""


class Runner:
    """Runs attempts, as many at once as it is called for."""

    def __init__(
        self,
        *,
        folders: Folders,
        transfer: Transfer,
        caches: Caches,
        shipper: LogShipper,
        reporter: Reporter,
        slots: Slots,
        wardship: Wardship,
        clock: Clock,
    ) -> None:
        self._folders = folders
        self._transfer = transfer
        self._caches = caches
        self._shipper = shipper
        self._reporter = reporter
        self._slots = slots
        self._wardship = wardship
        self._clock = clock
        self._deadlines = Deadlines(self._time_out)
        self._stops: set[asyncio.Task[None]] = set()
        #: Those of which an executor runs something.
        self._live: set[Assignment] = set()
        self._is_quieter = asyncio.Event()

    async def run(self, assignment: Assignment) -> None:
        """Runs one attempt to its reported end, and frees its slot."""
        assignment.started_at = self._clock.now()
        self._reporter.begun(assignment)
        folder = self._folders.fresh()
        sink = AttemptLog(self._shipper, assignment.key, assignment.order.secrets)
        try:
            end = await self._carry_out(assignment, folder, sink)
            await sink.close()
            if not assignment.executor.is_in_process:
                await self._wardship.sync()
        except Exception as exc:  # a defect of an executor or a store must fail its attempt, not the ant
            log.exception("attempt_crashed", job_id=assignment.key[0], task_type=assignment.order.task_type)
            end = error_end("ERR_EXECUTOR", f"a defect of the ant ended the attempt: {exc!r}")
        finally:
            self._slots.release()
        self._reporter.ended(assignment, _masked(end, assignment.order.secrets))
        if folder.is_made:
            await asyncio.to_thread(folder.remove)

    def stop(self, assignment: Assignment, reason: Reason, grace_s: float) -> None:
        """Asks a running attempt to end; nothing happens to one that is being reported."""
        if assignment.stop_reason is None:
            assignment.stop_reason = reason
        assignment.grace_s = grace_s
        if assignment.transfer is not None:
            assignment.transfer.cancel()
        elif assignment.run is not None:
            self._spawn_stop(assignment, assignment.run)

    async def quiet(self, assignments: Sequence[Assignment]) -> None:
        """Returns when nothing of abandoned attempts runs: what they said may take as long as a broker is away."""
        while not self._live.isdisjoint(assignments):
            self._is_quieter.clear()
            await self._is_quieter.wait()

    async def close(self) -> None:
        """Lets go of timers and waits for stops that are under way."""
        self._deadlines.close()
        if self._stops:
            await asyncio.wait(set(self._stops))

    async def _carry_out(self, assignment: Assignment, folder: AttemptFolder, sink: AttemptLog) -> End:
        cache = self._caches.use(assignment.order, folder, sink)
        end = await self._try(assignment, folder, sink, cache)
        return end if cache is None else end._replace(cache=cache.record)

    async def _try(
        self, assignment: Assignment, folder: AttemptFolder, sink: AttemptLog, cache: CacheUse | None
    ) -> End:
        if assignment.executor.shortcut_bytes and cache is None:  # caches look at files of the folder
            assignment.shortcut = self._transfer.shortcut(assignment, folder)
        try:
            if assignment.order.fetches or assignment.executor.has_exchange:
                await self._interruptible(assignment, self._bring(assignment, folder))
            if cache is not None:
                await self._interruptible(assignment, cache.restore())
            outcome = await self._execute(assignment, folder, sink, cache)
            if cache is not None and outcome.is_success:
                await self._interruptible(assignment, cache.store(), outcome)
            return await self._collect(assignment, folder, sink, outcome)
        except StoppedError:
            reason = assignment.stop_reason or Reason.CANCELLED
            return End(reason.value, error_message="stopped while its files were being moved")
        except TransferError as exc:
            return error_end("ERR_ARTIFACT", str(exc))
        except DataError as exc:
            return error_end("ERR_VALIDATION", str(exc))
        except ExecutorError as exc:
            return error_end(exc.code, str(exc))

    async def _bring(self, assignment: Assignment, folder: AttemptFolder) -> None:
        """Brings what earlier tasks left into the folder, or has URLs for it."""
        if assignment.executor.has_exchange:
            assignment.exchange = self._transfer.exchange(assignment)
            await assignment.exchange.prepare()
        else:
            await self._transfer.fetch(assignment, folder)

    async def _execute(
        self, assignment: Assignment, folder: AttemptFolder, sink: AttemptLog, cache: CacheUse | None
    ) -> Outcome:
        if assignment.stop_reason is not None:
            raise StoppedError
        executor = assignment.executor
        self._live.add(assignment)
        try:
            run = await executor.start(self._attempt(assignment, folder), sink)
            assignment.run = run
            self._deadlines.add(assignment, assignment.order.timeout_s)
            try:
                if assignment.stop_reason is not None:
                    self._spawn_stop(assignment, run)
                outcome = await executor.wait(run)
                if executor.is_elsewhere:
                    await self._bring_back(assignment, run, sink, outcome, cache)
                return outcome
            finally:
                assignment.run = None
                self._deadlines.remove(assignment)
                await executor.cleanup(run)
                if assignment.stop_reason is not None or assignment.is_abandoned:
                    await self._released(assignment, run, sink)
        finally:
            self._live.discard(assignment)
            if assignment.is_abandoned:
                self._is_quieter.set()

    async def _bring_back(
        self, assignment: Assignment, run: Run, sink: AttemptLog, outcome: Outcome, cache: CacheUse | None
    ) -> None:
        """Has what the run left elsewhere brought into the attempt's folder; the task's own time is over by then."""
        self._deadlines.remove(assignment)
        policy = assignment.order.artifacts
        has_artifacts = is_wanted(policy, outcome)
        paths = policy.paths if has_artifacts else ()
        collect = partial(assignment.executor.collect, run, with_results=has_artifacts)
        try:
            if cache is not None and outcome.is_success and cache.paths:
                await self._interruptible(assignment, _with_cache(collect, paths, cache), outcome)
            else:
                await self._interruptible(assignment, collect(paths), outcome)
        except ExecutorError as exc:
            if outcome.is_success:
                raise
            # The task failed by itself: that, and its exit code, is what its rules look at.
            await sink.note(str(exc))

    async def _released(self, assignment: Assignment, run: Run, sink: AttemptLog) -> None:
        """Returns when nothing of a stopped attempt runs any more: until then nobody may be given its task again.

        A function in a thread cannot be ended from outside, so it keeps its slot. Where the ant's lease has ended too
        and it still runs on, the warden ends the ant.
        """
        released = asyncio.ensure_future(assignment.executor.released(run))
        await asyncio.wait({released}, timeout=_RELEASE_PATIENCE_S)
        if not released.done():
            job_id, task_no, attempt = assignment.key
            log.warning("attempt_outlives_stop", job_id=job_id, task_no=task_no, attempt=attempt)
            await sink.note(
                "told to stop, but the function runs on: the attempt ends, and its slot is free, when it returns"
            )
        await released

    def _attempt(self, assignment: Assignment, folder: AttemptFolder) -> Attempt:
        job_id, _, number = assignment.key
        order = assignment.order
        is_in_process = assignment.executor.is_in_process
        return Attempt(
            job_id=job_id,
            task_type=order.task_type,
            number=number,
            spec=order.spec,
            environment=_NO_ENVIRONMENT if is_in_process else _environment(assignment, folder),
            folder=folder,
            guard=AttemptGuard(self._wardship, assignment),
            timeout_s=order.timeout_s,
            exchange=assignment.exchange,
            shortcut=assignment.shortcut,
        )

    async def _collect(self, assignment: Assignment, folder: AttemptFolder, sink: AttemptLog, outcome: Outcome) -> End:
        await sink.finish()
        found = await _gather_outputs(folder, sink, outcome)
        artifacts: tuple[ArtifactRef, ...] = ()
        if (folder.is_made or assignment.exchange is not None) and is_wanted(assignment.order.artifacts, outcome):
            artifacts = await self._store(assignment, folder, sink, outcome)
        return End(
            outcome.reason.value,
            outcome.exit_code,
            outcome.is_success,
            None,
            outcome.message,
            found,
            artifacts,
        )

    async def _store(
        self, assignment: Assignment, folder: AttemptFolder, sink: AttemptLog, outcome: Outcome
    ) -> tuple[ArtifactRef, ...]:
        try:
            return await self._interruptible(assignment, self._select_and_store(assignment, folder, sink), outcome)
        except TransferError as exc:
            if outcome.is_success:
                raise
            # The task failed by itself: that, and its exit code, is what its rules look at.
            await sink.note(str(exc))
            return ()

    async def _select_and_store(
        self, assignment: Assignment, folder: AttemptFolder, sink: AttemptLog
    ) -> tuple[ArtifactRef, ...]:
        if assignment.exchange is not None:
            return await assignment.exchange.taken()
        sent = await asyncio.to_thread(assignment.shortcut.place) if assignment.shortcut is not None else {}
        selection = await asyncio.to_thread(select, assignment.order.artifacts, folder)
        for pattern in selection.unmatched:
            await sink.note(f"artifacts.paths: nothing matches {pattern!r}")
        return await self._transfer.store(assignment.key, selection, folder.path(), sent)

    async def _interruptible(
        self, assignment: Assignment, work: Coroutine[Any, Any, T], outcome: Outcome | None = None
    ) -> T:
        """Moves files until a stop; does not begin after one, unless to save what a stopped or failed run left."""
        if assignment.stop_reason is Reason.CANCELLED and (outcome is None or outcome.is_success):
            work.close()
            raise StoppedError
        task = asyncio.ensure_future(work)
        assignment.transfer = task
        try:
            await asyncio.wait({task})
        finally:
            assignment.transfer = None
            task.cancel()
        if task.cancelled():
            raise StoppedError
        return task.result()

    def _time_out(self, assignment: Assignment) -> None:
        self.stop(assignment, Reason.TIMED_OUT, TIMEOUT_GRACE_S)

    def _spawn_stop(self, assignment: Assignment, run: Run) -> None:
        task = asyncio.get_running_loop().create_task(self._stop(assignment, run))
        self._stops.add(task)
        task.add_done_callback(self._stops.discard)

    async def _stop(self, assignment: Assignment, run: Run) -> None:
        reason = assignment.stop_reason or Reason.CANCELLED
        stop = asyncio.ensure_future(assignment.executor.stop(run, assignment.grace_s, reason))
        await asyncio.wait({stop}, timeout=assignment.grace_s + _STOP_MARGIN_S)
        if not stop.done():
            job_id, task_no, attempt = assignment.key
            log.warning("attempt_ignores_stop", job_id=job_id, task_no=task_no, attempt=attempt, reason=reason.value)
        try:
            await stop
        except ExecutorError as exc:
            log.warning("attempt_not_stopped", job_id=assignment.key[0], error=str(exc))


async def _with_cache(
    collect: Callable[[Sequence[str]], Coroutine[Any, Any, None]], paths: tuple[str, ...], cache: CacheUse
) -> None:
    """Brings the cache's files back with the others; where that fails, the others alone."""
    try:
        await collect((*paths, *cache.paths))
    except ExecutorError as exc:
        await cache.give_up(f"could not be brought back: {exc}")
        await collect(paths)


async def _gather_outputs(folder: AttemptFolder, sink: AttemptLog, outcome: Outcome) -> dict[str, Json] | None:
    """Returns the outputs from all three places, checked; the file wins over lines, these over the executor's."""
    if sink.error is not None:
        raise sink.error
    found = dict(outcome.outputs)
    if sink.outputs:
        found.update(sink.outputs)
    if folder.is_made:
        found.update(await asyncio.to_thread(outputs.read_file, folder.output_file, sink.told))
    if not found:
        return None
    check_outputs(found, sink.told)
    return found


def _environment(assignment: Assignment, folder: AttemptFolder) -> dict[str, str]:
    job_id, _, number = assignment.key
    return {
        "FORMICARY_JOB_ID": job_id,
        "FORMICARY_JOB_TYPE": assignment.order.job_type,
        "FORMICARY_TASK_TYPE": assignment.order.task_type,
        "FORMICARY_ATTEMPT": str(number),
        "FORMICARY_ANT": assignment.incarnation,
        "FORMICARY_OUTPUT": str(folder.output_file),
        "FORMICARY_RESULT_DIR": str(folder.result_dir),
    }


def _masked(end: End, secrets: tuple[str, ...]) -> End:
    if not secrets or end.error_message is None:
        return end
    return end._replace(error_message=mask_text(end.error_message, secrets))
