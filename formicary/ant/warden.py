"""The warden: one small process per ant that ends the ant's work when the ant cannot.

``python -m formicary.ant.warden FD`` speaks lines of tab-separated words over the inherited socket ``FD``.
From the ant: ``config lock_path ant_pid ant_id lease_s broker_url sys_path engine_url`` (once, first) ·
``life incarnation`` · ``lease incarnation shard expires_at`` · ``register n pid incarnation shard job task attempt`` ·
``forget pid`` · ``admit n incarnation shard job task attempt`` · ``allow n incarnation shard`` ·
``dismiss job task attempt`` · ``end n incarnation`` · ``sync n`` · ``over incarnation`` · ``bye``. To the ant:
``ready [life …]`` · ``held holder`` · ``yes n`` · ``no n`` · ``lapsed incarnation``.

Rules:

- It holds an advisory lock on ``lock_path`` for as long as it or any of that work lives; the file says whose it is, so
  that the next warden also finds what outlived a warden that was killed too. ``ready`` names those former lives: the
  ant says in its registration that they are over, since nobody may have heard, or published, their obituary.
- The ant's death (end of the socket, or of its process) or a lapsed lease: every registered process group gets SIGKILL,
  then whatever is in its control group, where it has one of its own, or has ``FORMICARY_ANT=<incarnation>`` in its
  environment, until nothing is left; then all containers with the label ``formicary.ant=<incarnation>`` are removed,
  where the ant has an engine. While the ant lives, a thread does that (``engagement.py``): the warden goes on watching.
- After a lapse the ant must say ``over`` within ``PATIENCE_S`` (what runs in its own process is over), or is killed
  too: a stopped ant would go on otherwise. What it said in time is heard before it is judged.
- Only when all of it is dead, and the ant too, is the obituary published, where the broker outlives the ant. Nothing is
  said about a life whose containers an engine that is away may still run: its owners wait for the end of the lease.
- Without a broker URL there are no leases: the warden acts on the ant's death only. An idle one stays below 12 MB.
"""

import contextlib
import fcntl
import os
import select
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from formicary.ant.engagement import Engagement

#: How long the ant may take to end what runs in its own process after a lapse, in seconds.
PATIENCE_S = 2.0
_POLL_S = 0.02
_MAX_POLL_S = 0.2
#: Former lives that the lock file remembers; owners have long noticed the end of older ones.
_FORMER_KEPT = 8


class Guarded:
    """A registered process group. ``held``: shard, job, task and attempt."""

    __slots__ = ("control_group", "held", "incarnation", "pid", "started")

    def __init__(self, pid: int, incarnation: str, held: tuple[int, str, int, int]) -> None:
        self.pid = pid
        self.incarnation = incarnation
        self.held = held
        self.started = start_time(pid)
        self.control_group = control_group(pid)


class Warden:
    """Serves one ant until it or its work is gone."""

    def __init__(self, descriptor: int) -> None:
        self._socket = descriptor
        self._input = b""
        self._guarded: dict[int, Guarded] = {}
        #: What the engine runs; None where the ant has none.
        self._engagement: Engagement | None = None
        #: Rings when containers were looked for.
        self._bell = os.pipe()
        #: Lives whose end the ant waits for, with the numbers of its questions.
        self._askers: list[tuple[str, str]] = []
        self._lives: list[str] = []
        self._former: list[str] = []
        self._leases: dict[int, float] = {}
        self._lapsed: dict[str, float] = {}
        #: Lives of which nothing may start any more.
        self._ended: set[str] = set()
        self._obituaries: list[tuple[str, list[tuple[int, str, int, int]]]] = []
        self._ant_pid = 0
        self._ant_id = ""
        self._lock = -1
        self._broker_url = ""
        self._lease_s = 0.0
        self._sys_path: list[str] = []
        self._pidfd = -1
        self._is_told_bye = False

    def serve(self) -> None:
        """Does the warden's work and returns when there is none any more."""
        if not self._configure() or not self._acquire():
            return
        self._say("ready", *self._former)
        self._watch()
        self._end_all()
        if not self._is_told_bye and self._broker_url:
            self._publish_obituaries()

    def _configure(self) -> bool:
        while b"\n" not in self._input:
            data = os.read(self._socket, 65536)
            if not data:
                return False
            self._input += data
        line, _, self._input = self._input.partition(b"\n")
        _, path, pid, self._ant_id, lease_s, self._broker_url, sys_path, engine_url = line.decode().split("\t")
        self._ant_pid, self._lease_s, self._sys_path = int(pid), float(lease_s), sys_path.split("\x1f")
        if engine_url:
            self._engage(engine_url)
        self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                self._pidfd = os.pidfd_open(self._ant_pid)
        return os.getppid() == self._ant_pid

    def _engage(self, engine_url: str) -> None:
        sys.path[:] = self._sys_path
        from formicary.ant.engagement import Engagement

        self._engagement = Engagement(engine_url, self._bell[1])

    def _handle(self, line: str) -> None:
        match line.split("\t"):
            case ["life", incarnation]:
                self._lives.append(incarnation)
                self._leases.clear()
                self._write_lock_file()
            case ["lease", incarnation, shard, expires_at]:
                if self._is_current(incarnation):
                    self._leases[int(shard)] = float(expires_at)
            case ["register", number, pid, incarnation, shard, job, task, attempt]:
                guarded = Guarded(int(pid), incarnation, (int(shard), job, int(task), int(attempt)))
                self._say("yes" if self._register(guarded) else "no", number)
            case ["forget", pid]:
                self._guarded.pop(int(pid), None)
            case ["admit" | "allow", number, incarnation, shard, *attempt]:
                self._say("yes" if self._admit(incarnation, int(shard), attempt) else "no", number)
            case ["dismiss", job, task, attempt]:
                if self._engagement is not None:
                    self._engagement.dismiss(job, int(task), int(attempt))
            case ["end", number, incarnation]:
                self._end(incarnation)
                self._askers.append((incarnation, number))
                self._answer_askers()
            case ["sync", number]:
                self._say("yes", number)
            case ["over", incarnation]:
                self._note_over(incarnation)
            case ["bye"]:
                self._is_told_bye = True

    def _is_current(self, incarnation: str) -> bool:
        return self._lives[-1:] == [incarnation] and incarnation not in self._ended

    def _register(self, guarded: Guarded) -> bool:
        if not self._may_start(guarded.incarnation, guarded.held[0]):
            return False
        self._guarded[guarded.pid] = guarded
        return True

    def _admit(self, incarnation: str, shard: int, attempt: list[str]) -> bool:
        """Promises to end what the engine runs of an attempt; without one, says only whether the lease holds."""
        if not self._may_start(incarnation, shard) or (attempt and self._engagement is None):
            return False
        if attempt and self._engagement is not None:
            job, task, number = attempt
            self._engagement.admit(incarnation, (shard, job, int(task), int(number)))
        return True

    def _may_start(self, incarnation: str, shard: int) -> bool:
        is_leased = not self._broker_url or self._leases.get(shard, 0.0) > now()
        return is_leased and self._is_current(incarnation)

    def _note_over(self, incarnation: str) -> None:
        """Of this life only the engine may still run something, which is looked for until it is gone."""
        self._lapsed.pop(incarnation, None)
        if incarnation in self._ended and self._lives[-1:] == [incarnation]:
            self._leases.clear()

    def _watch(self) -> None:
        """Returns when the ant is dead, killed or has said goodbye."""
        poll = select.poll()
        for descriptor in (self._socket, self._bell[0], self._pidfd):
            if descriptor >= 0:
                poll.register(descriptor, select.POLLIN)
        while not self._is_told_bye:
            ready = dict(poll.poll(self._timeout_ms()))
            self._check_leases()
            if self._bell[0] in ready:
                os.read(self._bell[0], 4096)
                self._answer_askers()
            if self._socket in ready:
                if not self._read():
                    return
            elif self._pidfd in ready or self._kills_impatiently():
                return

    def _read(self) -> bool:
        try:
            data = os.read(self._socket, 65536)
        except ConnectionError:
            data = b""
        *lines, self._input = (self._input + data).split(b"\n")
        for line in lines:
            self._handle(line.decode())
        return bool(data)

    def _timeout_ms(self) -> float | None:
        ends = [*self._leases.values(), *self._lapsed.values()]
        return max(1.0, (min(ends) - now()) * 1000) if ends else None

    def _check_leases(self) -> None:
        if not any(expires_at <= now() for expires_at in self._leases.values()):
            return
        incarnation = self._lives[-1]
        self._leases.clear()
        # Said before anything is killed: the ant must not take our KILL for the task's own end.
        self._say("lapsed", incarnation)
        self._lapsed[incarnation] = now() + PATIENCE_S
        self._end(incarnation)

    def _kills_impatiently(self) -> bool:
        """Kills an ant that did not end a lapsed incarnation in time."""
        if not any(patience_at <= now() for patience_at in self._lapsed.values()):
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._ant_pid, signal.SIGKILL)
        return True

    def _end(self, incarnation: str) -> None:
        """Kills what runs here of a life, and has what the engine runs of it looked for."""
        self._ended.add(incarnation)
        work = [item for item in self._guarded.values() if item.incarnation == incarnation]
        kill_all(work, [incarnation])
        for item in work:
            self._guarded.pop(item.pid, None)
        if self._engagement is not None:
            self._engagement.end(incarnation)
        self._remember(incarnation, work)

    def _remember(self, incarnation: str, work: list[Guarded]) -> None:
        contained = self._engagement.held(incarnation) if self._engagement is not None else []
        self._obituaries.append((incarnation, [*(item.held for item in work), *contained]))

    def _answer_askers(self) -> None:
        """Answers those whose containers are gone, or left to an engine that is away."""
        for incarnation, number in self._askers[:]:
            if self._engagement is None or not self._engagement.is_ending(incarnation):
                self._askers.remove((incarnation, number))
                self._say("yes", number)

    def _end_all(self) -> None:
        work = list(self._guarded.values())
        kill_all(work, self._lives)
        if self._lives:
            self._remember(self._lives[-1], work)
        if self._engagement is not None:
            left = self._engagement.close(self._lives, self._lease_s)
            self._obituaries = [each for each in self._obituaries if each[0] not in left]

    def _say(self, *words: object) -> None:
        with contextlib.suppress(OSError):
            os.write(self._socket, "\t".join(map(str, words)).encode() + b"\n")

    def _acquire(self) -> bool:
        """Takes the ant's lock; waits for a former warden, not for a live ant of the same id."""
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = self._read_lock_file()
                if holder and is_same_process(int(holder[0]), holder[1]):
                    self._say("held", f"process {holder[0]} on this machine")
                    return False
                if os.getppid() != self._ant_pid:
                    return False
                time.sleep(_POLL_S)
                continue
            self._former = self._read_lock_file()[2:][-_FORMER_KEPT:]
            kill_all([], self._former)
            if self._engagement is not None:
                self._engagement.remove(self._former)
            self._write_lock_file()
            return True

    def _read_lock_file(self) -> list[str]:
        words = os.pread(self._lock, 65536, 0).decode().split()
        return words if len(words) >= 2 else []

    def _write_lock_file(self) -> None:
        words = [str(self._ant_pid), start_time(self._ant_pid), *self._former, *self._lives]
        data = " ".join(words).encode()
        os.pwrite(self._lock, data, 0)
        os.ftruncate(self._lock, len(data))

    def _publish_obituaries(self) -> None:
        sys.path[:] = self._sys_path
        from formicary.ant.obituary import publish_obituaries

        publish_obituaries(self._broker_url, self._ant_id, self._obituaries, give_up_s=self._lease_s * 1.5)


def now() -> float:
    """Returns seconds of the clock that the ant's leases are told in."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def stat_fields(pid: int | str) -> list[str]:
    """Returns the fields of ``/proc/<pid>/stat`` from the state on (proc(5): field 3); empty where it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - pathlib is heavy, the warden is light
            return file.read().rpartition(b")")[2].decode().split()
    except OSError:
        return []


def start_time(pid: int) -> str:
    """Returns what tells a process from a later one with its pid; ``0`` where it is gone."""
    fields = stat_fields(pid)
    return fields[19] if fields else "0"


def is_same_process(pid: int, started: str) -> bool:
    """Tells whether the process lives; a zombie does not."""
    fields = stat_fields(pid)
    return bool(fields) and fields[0] != "Z" and fields[19] == started


def kill_all(work: list[Guarded], incarnations: list[str]) -> None:
    """Kills the process groups and every stray of the incarnations; returns when none of them lives."""
    marks = [b"FORMICARY_ANT=" + incarnation.encode() for incarnation in incarnations]
    pause_s = 0.002
    for item in work:
        kill_group(item)
    while marks or work:
        victims = living(work, marks)
        for pid in victims:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not victims:
            return
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, _MAX_POLL_S)


def kill_group(item: Guarded) -> None:
    """Kills a process group, unless its leader's pid belongs to another process by now."""
    fields = stat_fields(item.pid)
    if fields and fields[19] != item.started:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(item.pid, signal.SIGKILL)


def living(work: list[Guarded], marks: list[bytes]) -> list[int]:
    """Returns the processes of the groups and those that carry a mark; neither zombies nor ourselves."""
    groups = {str(item.pid) for item in work if start_time(item.pid) in ("0", item.started)}
    control_groups = {item.control_group for item in work if item.control_group}
    found: list[int] = []
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib is heavy, the warden is light
        if not name.isdigit() or int(name) == os.getpid():
            continue
        fields = stat_fields(name)
        if not fields or fields[0] in "ZX":
            continue
        if fields[2] in groups or carries(name, marks) or (control_groups and control_group(name) in control_groups):
            found.append(int(name))
    return found


def control_group(pid: int | str) -> bytes:
    """Returns the name of the control group that an executor made for an attempt and the process is in; else empty."""
    try:
        with open(f"/proc/{pid}/cgroup", "rb") as file:  # noqa: PTH123 - pathlib is heavy, the warden is light
            names = [line.rpartition(b"/")[2] for line in file.read().splitlines()]
    except OSError:
        return b""
    return next((name for name in names if name.startswith(b"formicary-") and name != b"formicary-ant"), b"")


def carries(pid: str, marks: list[bytes]) -> bool:
    """Tells whether one of the marks is a variable of the process's environment."""
    if not marks:
        return False
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123 - pathlib is heavy, the warden is light
            environment = file.read()
    except OSError:
        return False
    return b"FORMICARY_ANT=" in environment and not set(environment.split(b"\0")).isdisjoint(marks)


def main() -> None:
    """Runs the warden on the descriptor named by the first argument."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    Warden(int(sys.argv[1])).serve()


if __name__ == "__main__":
    main()
