"""One attempt on the engine, from its images to its removal.

Order: images -> network -> all containers made -> the warden's promise -> services ready -> main container sent its
files -> output opened -> started -> ended -> ``after_script`` in the same container -> files fetched -> all removed.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from aiodocker.stream import Stream as Attached

from executors.base import Attempt, Outcome, Reason, Sink
from executors.docker.address import is_local
from executors.docker.errors import EngineError, EngineLostError, EngineRefusedError
from executors.docker.kernel import was_out_of_memory
from executors.docker.output import Output
from executors.docker.pod import Pod, Tools
from executors.docker.stopping import Stopper
from executors.ending import Ending, stopped_outcome
from executors.errors import ExecutorError, ExecutorLostError, ImageError, StartFailedError
from executors.specs import DockerSpec
from executors.strays import marks_of

Json = Any  # a JSON value

_KILLED_CODE = 137
#: From one look for a lost engine to the next, in seconds.
_LOOK_S = 0.2
#: What the engine says of an image that cannot run a command.
_BAD_IMAGE = ("executable file not found", "no such file or directory", "permission denied", "unable to find user")


class DockerRun:
    """State and way of one attempt."""

    def __init__(self, attempt: Attempt, spec: DockerSpec, sink: Sink, tools: Tools) -> None:
        self.ending = Ending()
        self._attempt = attempt
        self._spec = spec
        self._sink = sink
        self._tools = tools
        self._engine = tools.engine
        self._pod = Pod(attempt, spec, sink, tools)
        self._preparing: asyncio.Task[Output] | None = None
        self._stopper: Stopper | None = None
        self._stop_reason: Reason | None = None
        self._is_main_over = False
        self._is_after_skipped = False
        self._was_engine_lost = False
        self._driver: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Starts the attempt on its way, whoever waits for it."""
        self._driver = asyncio.create_task(self._drive())

    async def stop(self, grace_s: float, reason: Reason) -> None:
        """Ends the container, or else its ``after_script``; returns when the attempt is over."""
        if self.ending.is_over:
            return
        if not self._is_main_over:
            self._stop_reason = self._stop_reason or reason
        self._is_after_skipped |= grace_s <= 0 or self._stopper is None
        if self._stopper is not None:
            self._stopper.ask(grace_s)
        elif self._preparing is not None:
            self._preparing.cancel()
        await self.ending.over()

    async def _drive(self) -> None:
        try:
            outcome = await self._run_through()
        except asyncio.CancelledError:
            self.ending.fail(ExecutorLostError("the ant ended before the container did"))
            raise
        except Exception as exc:  # noqa: BLE001 - carried to whoever waits
            if self._stopper is not None:
                await self._stopper.close()
            await self._pod.remove()
            self.ending.fail(exc)
            return
        self.ending.settle(outcome)

    async def _run_through(self) -> Outcome:
        if self._stop_reason is None:
            self._preparing = asyncio.create_task(self._prepare())
            await self._finished(self._preparing)
        if self._preparing is None or self._preparing.cancelled():
            await self._pod.remove()
            return stopped_outcome(self._stop_reason or Reason.CANCELLED)
        outcome = await self._finish_main(self._preparing.result())
        self._is_main_over = True
        if self._spec.after_script and not self._is_after_skipped:
            await self._run_after_script()
        return outcome

    @staticmethod
    async def _finished(task: "asyncio.Task[Output]") -> None:
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            raise

    async def _prepare(self) -> Output:
        """Prepares and starts the main container; returns what moves its output."""
        await self._pod.prepare()
        return await self._start_main()

    async def _start_main(self) -> Output:
        try:
            output = Output(await self._engine.attach(self._pod.name), self._sink, self._reopened)
        except EngineRefusedError as exc:  # Podman makes the first process here
            raise self._not_started(exc) from exc
        has_shell = bool(self._spec.script or self._spec.before_script)
        self._stopper = Stopper(self._engine, self._pod.name, has_shell=has_shell)
        try:
            await self._tools.permitted(self._spec)  # again: where a path leads may have changed since
            await self._engine.start(self._pod.name)
        except EngineRefusedError as exc:
            output.moving.cancel()
            raise self._not_started(exc) from exc
        except BaseException:
            output.moving.cancel()
            raise
        self._stopper.open()
        return output

    async def _reopened(self) -> Attached | None:
        """Opens the output again of a container that runs."""
        if not (await self._engine.inspect(self._pod.name))["State"]["Running"]:
            return None
        return await self._engine.attach(self._pod.name)

    def _not_started(self, refusal: EngineRefusedError) -> StartFailedError:
        if any(words in refusal.reason for words in _BAD_IMAGE):
            return ImageError(f"image {self._spec.container.image} cannot run this: {refusal.reason}")
        return StartFailedError(str(refusal))

    async def _finish_main(self, output: Output) -> Outcome:
        code = await self._ended(output)
        if self._stop_reason is not None:
            return stopped_outcome(self._stop_reason)
        if code == 0:
            return Outcome(Reason.EXITED, 0, True)
        return await self._failure(code)

    async def _ended(self, output: Output) -> int:
        """Returns the exit code when the container has ended and all its output has been moved."""
        waiting = asyncio.create_task(self._exit_code())
        try:
            await asyncio.wait({waiting, output.moving}, return_when=asyncio.FIRST_COMPLETED)
            if output.moving.done():
                output.moving.result()
            code = await waiting
            if not await output.rest():
                await self._pod.note("the engine holds back the end of the container's output; some may be missing")
        except BaseException:
            waiting.cancel()
            output.moving.cancel()
            raise
        finally:
            if self._stopper is not None:
                await self._stopper.close()
        return code

    async def _exit_code(self) -> int:
        while True:
            try:
                return await self._engine.wait(self._pod.name)
            except EngineLostError as exc:
                await self._engine_back(exc)
            except EngineRefusedError as exc:
                raise ExecutorLostError(f"the container of this attempt is gone: {exc.reason}") from exc

    async def _engine_back(self, loss: EngineLostError) -> None:
        """Returns when a lost engine is there again.

        Raises:
            ExecutorLostError: it stays away; what runs on this machine has been killed.
        """
        patience_s = self._tools.options.docker_patience_s
        if not self._was_engine_lost:
            await self._pod.note(f"{loss}; waiting for it up to {patience_s:g} s, output may be missing")
        self._was_engine_lost = True
        give_up_s = asyncio.get_running_loop().time() + patience_s
        while asyncio.get_running_loop().time() < give_up_s:
            with contextlib.suppress(EngineError):
                await self._engine.ping()
                return
            await asyncio.sleep(_LOOK_S)
        marks = marks_of(self._attempt.environment)
        if marks is not None:
            await self._tools.strays.end_all(marks, 0)
        raise ExecutorLostError(f"{loss}; it did not come back within {patience_s:g} s") from loss

    async def _failure(self, code: int) -> Outcome:
        facts = await self._last_facts()
        if self._was_engine_lost and code >= 128:
            raise ExecutorLostError("the engine went away while the container ran, and ended it")
        limit = self._spec.container.memory_limit
        if await self._was_out_of_memory(facts):
            if code == _KILLED_CODE:
                message = f"the container was killed for want of memory (container.memory_limit {limit or 'not set'})"
                return Outcome(Reason.OUT_OF_MEMORY, code, False, message=message)
            return _exited(code, "; one of its processes had been killed for want of memory")
        return _exited(code, "; it may have been killed for want of memory" if code == _KILLED_CODE and limit else "")

    async def _was_out_of_memory(self, facts: Json) -> bool:
        if facts["State"].get("OOMKilled"):
            return True
        if not self._spec.container.memory_limit or not is_local(self._engine.url):
            return False
        return await asyncio.to_thread(was_out_of_memory, str(facts["Id"]))

    async def _last_facts(self) -> Json:
        try:
            return await self._engine.inspect(self._pod.name)
        except EngineLostError as exc:
            await self._engine_back(exc)
            return await self._engine.inspect(self._pod.name)

    async def _run_after_script(self) -> None:
        """Runs the lines that follow whatever happened, in the same container; they change no result."""
        try:
            await self._start_after_script()
        except ExecutorError as exc:
            await self._pod.note(f"after_script did not run: {exc}")

    async def _start_after_script(self) -> None:
        self._stopper = None
        await self._pod.send_script(self._spec.after_script)
        output = await self._start_main()
        stopper, options = self._stopper, self._tools.options
        assert stopper is not None
        if self._is_after_skipped:
            stopper.ask(0)  # a stop came while there was nothing yet that it could have ended
        loop = asyncio.get_running_loop()
        timer = loop.call_later(options.shell_after_script_limit_s, stopper.ask, options.shell_leftover_grace_s)
        try:
            code = await self._ended(output)
        finally:
            timer.cancel()
        if code != 0:
            await self._pod.note(f"after_script ended with exit code {code}")

    async def collect(self, paths: Sequence[str], *, with_results: bool) -> None:
        """Brings outputs, results and what the paths select to the attempt's folder."""
        await self._pod.collect(paths, with_results=with_results)

    async def remove(self) -> None:
        """Ends everything and has it removed; safe twice."""
        await self.stop(0, Reason.CANCELLED)
        if self._is_main_over:
            await self._pod.leave()
        else:
            await self._pod.remove()


def _exited(code: int, more: str) -> Outcome:
    signal = f": probably signal {code - 128} ended a command" if code > 128 else ""
    return Outcome(Reason.EXITED, code, False, message=f"exit code {code}{signal}{more}")
