"""The mixed jobs that a colony is given, and what has to become of each.

Every attempt of every task appends ``job task attempt pid start`` and, if it gets there, ``… end`` to one file, the
ledger, and holds a lock of its task meanwhile, which its child processes inherit: an attempt that finds the lock taken
runs beside another one, and notes ``overlap``.
"""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

PYTHON_PATH = Path(__file__).parent
#: What a task does that is to be cut short: longer than anything waits here.
FOR_EVER_S = 600


class Kind(NamedTuple):
    """A job type: how often it comes, its definition, and what its jobs end as.

    ``ran`` are the tasks that must have ended well; ``is_cancelled`` jobs are cancelled some time after submission.
    """

    weight: int
    name: str
    tasks: Sequence[str]
    state: str = "COMPLETED"
    error_code: str | None = None
    ran: frozenset[str] = frozenset()
    job_keys: str = ""
    is_cancelled: bool = False


class Workshop:
    """Writes definitions whose tasks note what they do in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ledger = folder / "ledger"
        (folder / "locks").mkdir(parents=True, exist_ok=True)
        self.ledger.touch()

    def shell(self, name: str, body: str, after: str = "", keys: str = "") -> str:
        """Returns a SHELL task; ``body`` runs between the two notes."""
        who = "$FORMICARY_JOB_ID $FORMICARY_TASK_TYPE $FORMICARY_ATTEMPT $$"
        lines = [
            f"exec 9>>{self._folder}/locks/$FORMICARY_JOB_ID.$FORMICARY_TASK_TYPE",
            f'flock -n 9 || echo "{who} overlap" >> {self.ledger}',
            f'echo "{who} start" >> {self.ledger}',
            *([body] if body else []),
            f'echo "{who} end" >> {self.ledger}',
        ]
        script = "".join(f"\n      - >-\n        {line}" for line in lines)
        return self._task(name, after, keys) + f"    method: SHELL\n    script:{script}\n"

    def python(self, name: str, seconds: float, after: str = "", keys: str = "") -> str:
        """Returns a PYTHON task."""
        values = f"['{self._folder}', '{{{{ job_id }}}}', {name}, '{{{{ task_attempt }}}}', {seconds}]"
        return (
            self._task(name, after, keys) + f"    method: PYTHON\n    function: 'ledgered:hold'\n    args: {values}\n"
        )

    def once(self, name: str, code: int) -> str:
        """Returns a script's line that exits with ``code`` the first time that it is reached in a job."""
        mark = f"{self._folder}/locks/$FORMICARY_JOB_ID.{name}.once"
        return f"if [ ! -e {mark} ]; then touch {mark}; exit {code}; fi"

    @staticmethod
    def _task(name: str, after: str, keys: str) -> str:
        dependencies = f"    dependencies: [{after}]\n" if after else ""
        return f"  - task_type: {name}\n{dependencies}" + (f"    {keys}\n" if keys else "")


def definition(kind: Kind) -> str:
    """Returns the YAML of a job type."""
    return f"job_type: {kind.name}\n{kind.job_keys}tasks:\n" + "".join(kind.tasks)


def kinds(shop: Workshop) -> list[Kind]:
    """Returns every job type of the mix."""
    return [make(shop) for make in _MAKERS]


def mix(known: Sequence[Kind], count: int, dice: random.Random) -> list[Kind]:
    """Returns ``count`` jobs, each type at least once, in an order that ``dice`` chooses."""
    chosen = [*known, *dice.choices(known, [kind.weight for kind in known], k=count - len(known))]
    dice.shuffle(chosen)
    return chosen


def _chain(shop: Workshop) -> Kind:
    names = ("c1", "c2", "c3", "c4")
    after = dict(zip(names[1:], names, strict=False))
    tasks = [shop.shell(name, "sleep 0.1", after.get(name, "")) for name in names]
    return Kind(5, "chain", tasks, ran=frozenset(names))


def _functions(shop: Workshop) -> Kind:
    names = ("p1", "p2", "p3", "p4")
    after = dict(zip(names[1:], names, strict=False))
    tasks = [shop.python(name, 0.05, after.get(name, "")) for name in names]
    return Kind(4, "functions", tasks, ran=frozenset(names))


def _fan(shop: Workshop) -> Kind:
    blades = [f"b{number}" for number in range(5)]
    middle = [
        shop.python(name, 0.2, "first") if number % 2 else shop.shell(name, "sleep 0.2", "first")
        for number, name in enumerate(blades)
    ]
    tasks = [shop.shell("first", ""), *middle, shop.python("last", 0.01, ", ".join(blades))]
    return Kind(4, "fan", tasks, ran=frozenset({"first", *blades, "last"}))


def _retried(shop: Workshop) -> Kind:
    tasks = [
        shop.shell("flaky", shop.once("flaky", 1), keys="retry: 2\n    delay_between_retries: 200ms"),
        shop.python("after", 0.05, "flaky"),
    ]
    return Kind(3, "retried", tasks, ran=frozenset({"flaky", "after"}))


def _allowed(shop: Workshop) -> Kind:
    tasks = [
        shop.shell("audit", "exit 4", keys="allow_failure: true"),
        shop.shell("go-on", "sleep 0.1", "audit"),
    ]
    return Kind(3, "allowed", tasks, ran=frozenset({"go-on"}))


def _cleaned(shop: Workshop) -> Kind:
    tasks = [
        shop.shell("break", "exit 5"),
        shop.shell("never", "", "break"),
        shop.shell("cleanup", "sleep 0.1", keys="always_run: true"),
    ]
    return Kind(3, "cleaned", tasks, "FAILED", "ERR_EXIT_CODE", frozenset({"cleanup"}))


def _branched(shop: Workshop) -> Kind:
    routes = "on_exit_code: {3: aside}\n    on_completed: ahead"
    tasks = [shop.shell("fork", "exit 3", keys=routes), shop.shell("ahead", ""), shop.python("aside", 0.05)]
    return Kind(3, "branched", tasks, ran=frozenset({"aside"}))


def _resumed(shop: Workshop) -> Kind:
    tasks = [shop.shell("done", "sleep 0.1"), shop.shell("shaky", shop.once("shaky", 6), "done")]
    return Kind(3, "resumed", tasks, ran=frozenset({"done", "shaky"}), job_keys="retry: 1\n")


def _late(shop: Workshop) -> Kind:
    tasks = [
        shop.shell("slow", f"sleep {FOR_EVER_S}", keys="timeout: 500ms"),
        shop.shell("tidy", "", keys="always_run: true"),
    ]
    return Kind(2, "late", tasks, "FAILED", "ERR_TASK_TIMEOUT", frozenset({"tidy"}))


def _unwanted(shop: Workshop) -> Kind:
    tasks = [shop.shell("endless", f"sleep {FOR_EVER_S}"), shop.python("side", 0.3), shop.shell("next", "", "endless")]
    return Kind(3, "unwanted", tasks, "CANCELLED", is_cancelled=True)


def _long(shop: Workshop) -> Kind:
    tasks = [shop.shell("stay", "sleep 3"), shop.python("dwell", 2.0), shop.shell("close", "", "stay, dwell")]
    return Kind(5, "long", tasks, ran=frozenset({"stay", "dwell", "close"}))


_MAKERS: tuple[Callable[[Workshop], Kind], ...] = (
    _chain,
    _functions,
    _fan,
    _retried,
    _allowed,
    _cleaned,
    _branched,
    _resumed,
    _late,
    _unwanted,
    _long,
)
