"""A job definition compiled to numbers: who follows whom, and by which rule.

A *route* is what the end of a task does to its outgoing edges. There is one edge per pair of tasks, whatever the
number of keys that name it; it is

- *fired* by the one control rule that was chosen, or, where no control rule names the target, by the data,
- *refused* where the target depends on data of a task that failed or was routed away by a non-zero code,
- *dead* otherwise. So a handler that also lists its task under ``dependencies`` runs only when it is chosen.

``always_run`` tasks stand outside of the graph: edges from and to them only carry artifacts.
"""

from array import array
from collections.abc import Iterable
from typing import NamedTuple

from formicary.model.definition import JobDefinition, Special, TaskDefinition
from formicary.model.states import ErrorCode, TaskState
from formicary.states.cells import TaskCell

Numbers = tuple[int, ...]


class Route(NamedTuple):
    """The targets whose edge from one task fires, dies or is refused."""

    fired: Numbers
    dead: Numbers = ()
    refused: Numbers = ()


NOWHERE = Route(())


class ExitRules:
    """What ``on_exit_code`` of one task says, resolved.

    Attributes:
        tasks: exit code -> number of the task that handles it.
        specials: exit code -> ``Special`` or ``ERR_*``.
        on_success, on_failure: the special target of the words COMPLETED and FAILED.
    """

    __slots__ = ("on_failure", "on_success", "specials", "tasks")

    def __init__(self) -> None:
        self.tasks: dict[int, int] = {}
        self.specials: dict[int, str] = {}
        self.on_success: str | None = None
        self.on_failure: str | None = None


class Plan:
    """A compiled definition: immutable, shared by all jobs of that version. It trusts the parser's validation.

    Attributes:
        definition: what it was compiled from.
        numbers: task type -> number, its index in the definition.
        size: count of tasks.
        roots: tasks that start together.
        always_run: the tasks that run last, in definition order; ``is_always_run`` says the same per number.
        in_counts: count of incoming edges per task, 0 for ``always_run``.
        targets: targets of each task by any edge, each once.
        completed: the route of each task's plain completion.
        exits: the rules of ``on_exit_code``, None where there are none.
    """

    __slots__ = (
        "_controls",
        "_data",
        "_failed",
        "always_run",
        "completed",
        "definition",
        "exits",
        "in_counts",
        "is_always_run",
        "numbers",
        "roots",
        "size",
        "targets",
        "tasks",
    )

    def __init__(self, definition: JobDefinition) -> None:
        self.definition = definition
        self.tasks: tuple[TaskDefinition, ...] = definition.tasks
        self.size = len(definition.tasks)
        self.numbers: dict[str, int] = {task.task_type: no for no, task in enumerate(definition.tasks)}
        self.is_always_run = bytearray(task.always_run for task in definition.tasks)
        self.always_run: Numbers = tuple(no for no, flag in enumerate(self.is_always_run) if flag)
        self.exits: list[ExitRules | None] = []
        self.completed: list[Route] = []
        self.targets: list[Numbers] = []
        self.in_counts = array("i", bytes(4 * self.size))
        self._failed: dict[int, Numbers] = {}
        self._controls: dict[int, Numbers] = {}
        self._data: list[Numbers] = self._data_edges()
        for no, task in enumerate(definition.tasks):
            self._add(no, task)
        for targets in self.targets:
            for target in targets:
                self.in_counts[target] += 1
        self.roots: Numbers = tuple(
            no for no in range(self.size) if not self.in_counts[no] and not self.is_always_run[no]
        )

    @classmethod
    def compile(cls, definition: JobDefinition) -> "Plan":
        """Returns the plan of ``definition``, in time and memory proportional to its tasks and edges."""
        return cls(definition)

    def has_handler(self, no: int) -> bool:
        """Says whether ``on_failed`` of a task names a task, ``always_run`` ones included: its failure is handled."""
        rules = self.exits[no]
        if self.tasks[no].on_failed:
            return True
        return rules is not None and rules.on_failure is None and "FAILED" in self.tasks[no].on_exit_code

    def route(self, cell: TaskCell) -> Route:
        """Returns what the terminal state in ``cell`` does to the outgoing edges, a function of stored fields alone."""
        no = cell.no
        if self.is_always_run[no]:
            return NOWHERE
        state = cell.state
        if state is TaskState.COMPLETED:
            rules = self.exits[no]
            if rules is not None and cell.exit_code in rules.tasks:
                return self._routed(no, cell.exit_code, rules.tasks[cell.exit_code])
            return self.completed[no]
        if state is TaskState.SKIPPED:
            return self.completed[no] if cell.is_excepted else Route((), self.targets[no])
        if state is TaskState.FAILED and cell.error_code != ErrorCode.FATAL:
            return self._failure(no)
        return self._split(no, (), is_refusing=True)

    def _add(self, no: int, task: TaskDefinition) -> None:
        rules = _exit_rules(task, self.numbers) if task.on_exit_code else None
        self.exits.append(rules)
        if task.always_run:
            self.completed.append(NOWHERE)
            self.targets.append(())
            return
        completed = self._numbers_of(task.on_completed, _word_target(task, "COMPLETED"))
        failed = self._numbers_of(task.on_failed, _word_target(task, "FAILED"))
        codes = self._inside(rules.tasks.values()) if rules is not None else ()
        controls = _once((*completed, *failed, *codes))
        if failed:
            self._failed[no] = failed
        if task.on_failed or rules is not None:
            self._controls[no] = controls
        data = self._data[no]
        chosen = completed if not data else _once((*completed, *(to for to in data if to not in controls)))
        others = tuple(to for to in controls if to not in completed)
        self.targets.append((*chosen, *others) if others else chosen)
        self.completed.append(Route(chosen, others) if chosen or others else NOWHERE)

    def _routed(self, no: int, code: int | None, target: int) -> Route:
        chosen = self._inside((target,))
        if code == 0:
            controls = self._controls.get(no, ())
            return self._split(no, (*chosen, *(to for to in self._data[no] if to not in controls)), is_refusing=False)
        return self._split(no, chosen, is_refusing=True)

    def _failure(self, no: int) -> Route:
        failed = self._failed.get(no, ())
        if not self.tasks[no].allow_failure:
            return self._split(no, failed, is_refusing=True)
        if not self.has_handler(no):
            return self.completed[no]
        controls = self._controls.get(no, ())
        return self._split(no, (*failed, *(to for to in self._data[no] if to not in controls)), is_refusing=False)

    def _split(self, no: int, chosen: Numbers, *, is_refusing: bool) -> Route:
        taken = set(chosen)
        refusing = set(self._data[no]) if is_refusing else ()
        rest = [to for to in self.targets[no] if to not in taken]
        return Route(chosen, tuple(to for to in rest if to not in refusing), tuple(to for to in rest if to in refusing))

    def _data_edges(self) -> list[Numbers]:
        edges: dict[int, list[int]] = {}
        for no, task in enumerate(self.tasks):
            if not task.always_run:
                for name in task.dependencies:
                    edges.setdefault(self.numbers[name], []).append(no)
        return [tuple(edges[no]) if no in edges and not self.is_always_run[no] else () for no in range(self.size)]

    def _numbers_of(self, names: tuple[str, ...], word_target: str | None) -> Numbers:
        if not names and word_target is None:
            return ()
        found = [self.numbers[name] for name in names]
        if word_target in self.numbers:
            found.append(self.numbers[word_target])
        return _once(self._inside(found))

    def _inside(self, numbers: Iterable[int]) -> Numbers:
        return tuple(no for no in numbers if not self.is_always_run[no])


def is_special(target: str) -> bool:
    """Says whether a target of ``on_exit_code`` is no task."""
    return target in Special.__members__ or target.startswith("ERR_")


def _word_target(task: TaskDefinition, word: str) -> str | None:
    target = task.on_exit_code.get(word)
    return None if target is None or is_special(target) else target


def _exit_rules(task: TaskDefinition, numbers: dict[str, int]) -> ExitRules:
    rules = ExitRules()
    for key, target in task.on_exit_code.items():
        special = target if is_special(target) else None
        if key == TaskState.COMPLETED:
            rules.on_success = special
        elif key == TaskState.FAILED:
            rules.on_failure = special
        elif special is not None:
            rules.specials[int(key)] = special
        else:
            rules.tasks[int(key)] = numbers[target]
    return rules


def _once(numbers: Iterable[int]) -> Numbers:
    return tuple(dict.fromkeys(numbers))
