"""SHELL: the script of an attempt, as one ``sh -e`` in a process group of its own."""

import asyncio
import contextlib
import math
import shutil
import signal
import subprocess
from pathlib import Path

from executors.base import Attempt, Executor, Outcome, Reason, Run, Sink, Stream
from executors.confinement import Confinement, Warder
from executors.ending import Ending, stopped_outcome
from executors.errors import ExecutorError, ExecutorLostError, SpecRefusedError, StartFailedError
from executors.memory_limits import count_oom_kills, oom_counter_file
from executors.options import ExecutorOptions
from executors.output import OutputPump
from executors.process import Child, Command, Gate, spawn_gated
from executors.specs import ShellSpec
from executors.strays import Marks, StrayHunter, marks_of

#: Beside the working directory, which itself starts empty (so that ``git clone … .`` works): scripts and ``TMPDIR``.
PRIVATE_SUFFIX = ".private"
#: What a shell reports when KILL ended one of its commands.
_KILLED_CODE = 128 + signal.SIGKILL
#: The same for the signal of a process that used up its processor time.
_CPU_TIME_CODE = 128 + signal.SIGXCPU


class _Script:
    """One running shell: its process and what reads its output."""

    def __init__(self, child: Child, gate: Gate, pumps: list[OutputPump]) -> None:
        self.child = child
        self.gate = gate
        self.pumps = pumps
        self.readers = [asyncio.create_task(pump.run()) for pump in pumps]


class _ShellRun:
    """State of one attempt."""

    def __init__(
        self,
        attempt: Attempt,
        spec: ShellSpec,
        sink: Sink,
        confinement: Confinement,
        command: Command,
        private: Path,
    ) -> None:
        self.attempt = attempt
        self.spec = spec
        self.sink = sink
        self.confinement = confinement
        self.command = command
        self.private = private
        self.marks: Marks | None = marks_of(command.environment)
        self.ending = Ending()
        self.running: _Script | None = None
        self.is_main_over = False
        self.is_after_skipped = False
        self.stop_reason: Reason | None = None
        #: When the grace of ``stop`` is over, by the loop's clock.
        self.kill_at_s = math.inf
        self.asking: asyncio.Task[None] | None = None
        self.oom_kills_before: int | None = None
        self.driver: asyncio.Task[None] | None = None

    def close(self) -> None:
        """Removes scripts, ``TMPDIR`` and the control group. Blocks; safe twice."""
        self.confinement.close()
        shutil.rmtree(self.private, ignore_errors=True)


class ShellExecutor(Executor):
    """Runs scripts on this machine.

    The environment holds the attempt's variables, ``PATH``, ``HOME`` (the working directory), ``LANG``, ``TMPDIR`` and
    what the spec names; standard input is empty. When the script has ended, whatever it left behind is ended too, in
    its group or out of it. ``stop`` ends the script; its ``after_script`` runs all the same unless the grace is 0. A
    ``stop`` that arrives while the ``after_script`` runs ends that, and the script's result stands.
    """

    methods = ("SHELL",)

    def __init__(self, options: ExecutorOptions | None = None, oom_counter: Path | None = None) -> None:
        self._options = options or ExecutorOptions()
        self._strays = StrayHunter()
        self._warder = Warder(self._options)
        self._oom_counter = oom_counter or oom_counter_file()

    async def check(self) -> None:
        """Proves that the shell works, for the user that runs scripts."""
        shell = self._options.shell
        try:
            process = await asyncio.create_subprocess_exec(str(shell), "-e", "-c", ":", stdin=subprocess.DEVNULL)
        except OSError as exc:
            raise ExecutorError(f"SHELL needs {shell}: {exc.strerror}; install a POSIX shell there") from exc
        if await process.wait() != 0:
            raise ExecutorError(f"SHELL needs a POSIX shell, and {shell} does not work as one")
        await self._warder.check()

    async def start(self, attempt: Attempt, sink: Sink) -> Run:
        """Starts the script, after the warden's promise."""
        spec = attempt.spec
        if not isinstance(spec, ShellSpec):
            raise SpecRefusedError(f"SHELL needs a ShellSpec, not {type(spec).__name__}")
        _check_spec(spec, attempt)
        handle = await self._prepare(attempt, spec, sink)
        try:
            handle.oom_kills_before = count_oom_kills(self._oom_counter)
            script = await self._start_script(handle, "script.sh", (*spec.before_script, *spec.script))
        except BaseException:
            handle.close()
            raise
        handle.running = script
        handle.driver = asyncio.create_task(self._drive(handle, script))
        return Run(attempt, sink, handle)

    async def wait(self, run: Run) -> Outcome:
        """Returns how the script ended."""
        handle: _ShellRun = run.handle
        return await handle.ending.wait()

    async def stop(self, run: Run, grace_s: float, reason: Reason) -> None:
        """Ends the script, or else its ``after_script``; returns when the attempt is over."""
        handle: _ShellRun | None = run.handle
        if handle is None or handle.ending.is_over:
            return
        if not handle.is_main_over:
            handle.stop_reason = handle.stop_reason or reason
            handle.kill_at_s = min(handle.kill_at_s, asyncio.get_running_loop().time() + grace_s)
            self._ask_strays(handle, grace_s)
        handle.is_after_skipped |= grace_s <= 0 or handle.running is None
        if handle.running is not None:
            handle.running.child.end(grace_s)
        await handle.ending.over()

    def _ask_strays(self, run: _ShellRun, grace_s: float) -> None:
        """Asks what left the group to end too, so that all share one grace."""
        if run.asking is None and grace_s > 0 and run.marks is not None and run.running is not None:
            run.asking = asyncio.create_task(self._strays.ask(run.marks, run.running.child.pid))

    async def cleanup(self, run: Run) -> None:
        """Ends what still runs and removes scripts and ``TMPDIR``."""
        handle: _ShellRun | None = run.handle
        if handle is None:
            return
        await self.stop(run, 0, Reason.CANCELLED)
        if handle.private.exists():
            await asyncio.to_thread(handle.close)

    async def _prepare(self, attempt: Attempt, spec: ShellSpec, sink: Sink) -> _ShellRun:
        confinement = self._warder.confine(spec.limits)
        try:
            workdir = attempt.folder.path()
        except OSError as exc:
            raise StartFailedError(f"cannot make the working directory: {exc.strerror} ({exc.filename})") from exc
        private = workdir.with_name(workdir.name + PRIVATE_SUFFIX)
        if confinement.gives_folder:
            temporary = await asyncio.to_thread(confinement.open, attempt, private)
        else:
            temporary = confinement.open(attempt, private)
        environment = {
            "PATH": self._options.shell_path,
            "HOME": str(workdir),
            "LANG": "C.UTF-8",
            "TMPDIR": str(temporary),
            **self._options.shell_environment,
            **attempt.environment,
            **spec.environment,
        }
        try:
            file = confinement.write_environment(private / "environment", environment)
        except BaseException:
            confinement.close()
            raise
        command = Command(
            argv=(str(self._options.shell),),
            cwd=workdir,
            environment=environment,
            umask=confinement.umask,
            prefix=confinement.prefix,
            environment_file=file,
        )
        return _ShellRun(attempt, spec, sink, confinement, command, private)

    async def _start_script(self, run: _ShellRun, name: str, lines: tuple[str, ...]) -> _Script:
        """Starts a shell; it runs nothing before the warden has promised to look after it."""
        file = run.private / name
        try:
            file.write_bytes("\n".join(lines).encode() + b"\n")
            run.confinement.show(file)
        except OSError as exc:
            raise StartFailedError(f"cannot write the script: {exc.strerror} ({file})") from exc
        child, gate, out_fd, err_fd = await spawn_gated(run.command, file, self._options.shell)
        pumps = [OutputPump(out_fd, Stream.STDOUT, run.sink), OutputPump(err_fd, Stream.STDERR, run.sink)]
        script = _Script(child, gate, pumps)
        try:
            run.confinement.hold(child.pid)
            await run.attempt.guard.register(child.pid)
        except BaseException:
            gate.close()
            child.signal(signal.SIGKILL)
            await asyncio.shield(asyncio.gather(child.exited(), *script.readers))
            raise
        gate.open()
        return script

    async def _drive(self, run: _ShellRun, script: _Script) -> None:
        """Sees the attempt through to its end, whoever waits for it."""
        try:
            code = await self._finish_script(run, script)
            run.is_main_over = True
            outcome = self._outcome(run, code)
            if run.spec.after_script and not run.is_after_skipped:
                await self._run_after_script(run)
            await run.confinement.release(run.attempt)
        except asyncio.CancelledError:
            _kill(run, script)
            run.ending.fail(ExecutorLostError("the ant ended before the script did, and killed it"))
            raise
        except Exception as exc:  # noqa: BLE001 - carried to whoever waits
            _kill(run, script)
            run.ending.fail(exc)
            return
        run.ending.settle(outcome)

    async def _finish_script(self, run: _ShellRun, script: _Script) -> int:
        """Returns the shell's code when it, all it left behind, and its output are done."""
        code = await script.child.exited()
        is_gone = await script.child.group_gone(self._grace_left_s(run))
        run.running = None
        if run.asking is not None:
            await run.asking
        if run.marks is not None:
            await self._strays.end_all(run.marks, self._grace_left_s(run))
        await run.confinement.end()
        for pump in script.pumps:
            pump.finish()
        await asyncio.gather(*script.readers)
        if is_gone:
            await run.attempt.guard.forget(script.child.pid)
        return code

    def _grace_left_s(self, run: _ShellRun) -> float:
        if run.stop_reason is None or run.is_main_over:
            return self._options.shell_leftover_grace_s
        return max(0.0, run.kill_at_s - asyncio.get_running_loop().time())

    async def _run_after_script(self, run: _ShellRun) -> None:
        """Runs the lines that follow whatever happened; what becomes of them changes no result."""
        try:
            script = await self._start_script(run, "after.sh", run.spec.after_script)
        except ExecutorError as exc:
            await run.sink.write(Stream.SYSTEM, f"after_script did not start: {exc}\n".encode())
            return
        run.running = script
        limit_s = self._options.shell_after_script_limit_s
        timer = asyncio.get_running_loop().call_later(limit_s, script.child.end, self._options.shell_leftover_grace_s)
        code = await self._finish_script(run, script)
        timer.cancel()
        if code != 0:
            await run.sink.write(Stream.SYSTEM, f"after_script ended with {_words(code)}\n".encode())

    def _outcome(self, run: _ShellRun, code: int) -> Outcome:
        if run.stop_reason is not None:
            return stopped_outcome(run.stop_reason)
        if code == 0:
            return Outcome(Reason.EXITED, 0, True)
        exit_code = code if code > 0 else 128 - code
        limits = run.confinement.limits
        if exit_code == _KILLED_CODE and self._is_memory_to_blame(run):
            return Outcome(Reason.OUT_OF_MEMORY, exit_code, False, message=_memory_words(run.confinement))
        if exit_code == _CPU_TIME_CODE and limits.cpu_time_s is not None:
            words = f"a process of the script used up its processor time of {limits.cpu_time_s:g} s (limits.cpu_time)"
            return Outcome(Reason.CPU_TIME, exit_code, False, message=words)
        return Outcome(Reason.EXITED if code > 0 else Reason.SIGNALLED, exit_code, False, message=_words(code))

    def _is_memory_to_blame(self, run: _ShellRun) -> bool:
        if run.confinement.counts_oom_kills and run.confinement.oom_kills():
            return True
        kills = count_oom_kills(self._oom_counter)
        return kills is not None and run.oom_kills_before is not None and kills > run.oom_kills_before


def _memory_words(confinement: Confinement) -> str:
    if confinement.counts_oom_kills and confinement.oom_kills():
        return f"killed at its memory limit of {confinement.limits.memory_bytes} bytes (limits.memory)"
    return "the kernel killed the task for want of memory"


def _kill(run: _ShellRun, script: _Script) -> None:
    for one in (script, run.running):
        if one is not None and not one.child.has_exited:
            one.child.signal(signal.SIGKILL)


def _words(code: int) -> str:
    """Says what a shell's end means; its own code is above 128 where a signal ended a command."""
    if code < 0:
        return f"the script was ended by {_signal_name(-code)}, sent by something other than formicary"
    if code > 128 and (name := _signal_name(code - 128)):
        return f"exit code {code}: probably {name} ended a command of the script"
    return f"exit code {code}"


def _signal_name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return ""


def _check_spec(spec: ShellSpec, attempt: Attempt) -> None:
    for key in ("before_script", "script", "after_script"):
        for number, line in enumerate(getattr(spec, key)):
            _check_text(f"{key}[{number}]", line)
    for name, value in spec.environment.items():
        if not name or "=" in name or "\0" in name:
            raise SpecRefusedError(f"environment: {name!r} is no name of a variable; use letters, digits and _")
        if name in attempt.environment:
            raise SpecRefusedError(f"environment: {name} is set by formicary; choose another name")
        _check_text(f"environment.{name}", value)


def _check_text(where: str, text: str) -> None:
    if "\0" in text:
        raise SpecRefusedError(f"{where}: holds a NUL character, which no process can be given; remove it")
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise SpecRefusedError(f"{where}: character {exc.start} is half of a surrogate pair; remove it") from exc
