"""Checks the graph of a definition: names, targets, always_run tasks, exit codes, cycles.

Every check is linear in tasks and edges; a near word is looked for only when a name is wrong.
"""

from collections.abc import Iterator

from executors.specs import HTTP_METHODS
from formicary.model.definition import JobDefinition, Special, TaskDefinition
from formicary.model.parse_keys import is_special
from formicary.model.parse_problems import Path, Problems
from formicary.model.parse_yaml import Node, locate

#: An edge: the number of the task it leads to, and where it is written.
Edge = tuple[int, Path]

_EDGES: dict[str | int, str] = {"COMPLETED": "on_completed", "FAILED": "on_failed"}
_WORDS: dict[str | int, str] = {"on_completed": "COMPLETED", "on_failed": "FAILED"}

#: So many cycles are reported.
_MAX_CYCLES = 5
#: What the exit code of an always_run task may lead to: it runs after everything else.
_LAST_TARGETS = frozenset({Special.COMPLETED, Special.FAILED, Special.RESTART_TASK, Special.EXECUTING})


def check_flow(job: JobDefinition, root: Node, problems: Problems) -> None:
    """Reports every mistake in the graph of ``job``, which was read from ``root``."""
    numbers = _numbers(job, root, problems)
    for no, task in enumerate(job.tasks):
        _check_targets(no, task, job, numbers, problems, root)
        _check_codes(no, task, problems)
        if task.always_run:
            _check_last(no, task, problems, root)
    _check_cycles(job, numbers, problems, root)


def written_edges(no: int, task: TaskDefinition) -> Iterator[tuple[str, Path]]:
    """Yields the targets of control edges, special ones too, and the dependencies of a task, with their places."""
    here: Path = ("tasks", no)
    for code, target in task.on_exit_code.items():
        yield target, (*here, "on_exit_code", code)
    for key in ("on_completed", "on_failed", "dependencies"):
        for place, target in enumerate(getattr(task, key)):
            yield target, (*here, key, place)


def _as_written(path: Path, root: Node) -> Path:
    """Returns the path of an edge in the document: state words of ``on_exit_code`` and plain edges mean the same."""
    here, key = path[:2], path[2]
    task, _ = locate(root, here, at_key=False)
    if key in _WORDS and key not in task.value:
        return (*here, "on_exit_code", _WORDS[key], *path[3:])
    if key == "on_exit_code" and path[3] in _EDGES and not _has_route(task, str(path[3])):
        return (*here, _EDGES[path[3]])
    return path


def _has_route(task: Node, word: str) -> bool:
    routes = task.value.get("on_exit_code")
    return routes is not None and word in routes.value


def _numbers(job: JobDefinition, root: Node, problems: Problems) -> dict[str, int]:
    numbers: dict[str, int] = {}
    for no, task in enumerate(job.tasks):
        path: Path = ("tasks", no, "task_type")
        if is_special(task.task_type):
            problems.add(path, f"{task.task_type} is a special target, no name for a task", "choose another name")
        elif task.task_type in numbers:
            first, _ = locate(root, ("tasks", numbers[task.task_type], "task_type"), at_key=False)
            problems.add(path, f'a second task "{task.task_type}"', f"the first is in line {first.line}")
        elif task.task_type:
            numbers[task.task_type] = no
    return numbers


def _check_targets(
    no: int, task: TaskDefinition, job: JobDefinition, numbers: dict[str, int], problems: Problems, root: Node
) -> None:
    for target, path in written_edges(no, task):
        is_data = path[2] == "dependencies"
        if not target or (is_special(target) and not is_data):
            continue
        if target not in numbers:
            words = numbers if is_data else (*numbers, *Special)
            problems.add(_as_written(path, root), f'no task "{target}"', problems.suggest(target, words))
        elif numbers[target] != no and job.tasks[numbers[target]].always_run and not task.always_run:
            message = f'"{target}" is always_run: it runs last, whatever happened'
            problems.add(_as_written(path, root), message, "no task can lead to it or wait for it")


def _check_codes(no: int, task: TaskDefinition, problems: Problems) -> None:
    low, high = (100, 599) if task.method in HTTP_METHODS else (0, 255)
    if task.method not in HTTP_METHODS and task.method not in ("SHELL", "PYTHON"):
        return
    for code in task.on_exit_code:
        if code.isdigit() and not low <= int(code) <= high:
            path: Path = ("tasks", no, "on_exit_code", code)
            word = "HTTP status" if low else "exit code"
            problems.add(path, f"{code} is no {word}", f"use {low} to {high}", at_key=True)


def _check_last(no: int, task: TaskDefinition, problems: Problems, root: Node) -> None:
    for target, path in written_edges(no, task):
        if target in _LAST_TARGETS or target.startswith("ERR_"):
            continue
        message = f'an always_run task has no edges; it runs last, in the order of the tasks ("{target}")'
        hint = "remove it" if path[2] == "dependencies" else "use allow_failure or an ERR_ code"
        problems.add(_as_written(path, root), message, hint)


def _check_cycles(job: JobDefinition, numbers: dict[str, int], problems: Problems, root: Node) -> None:
    following: list[list[Edge]] = [[] for _ in job.tasks]
    for no, task in enumerate(job.tasks):
        for target, path in written_edges(no, task):
            other = numbers.get(target)
            if other is None:
                continue
            if path[2] == "dependencies":
                following[other].append((no, path))
            else:
                following[no].append((other, path))
    for cycle in _cycles(following):
        _report_cycle(cycle, job, problems, root)


def _cycles(following: list[list[Edge]]) -> Iterator[list[Edge]]:
    """Yields the edges along the first few cycles; a depth-first search without recursion."""
    unseen, open_, done = 0, 1, 2
    state = bytearray(len(following))
    found = 0
    for start in range(len(following)):
        if state[start] != unseen:
            continue
        trail: list[Edge] = [(start, ())]
        iterators = [iter(following[start])]
        state[start] = open_
        while iterators:
            edge = next(iterators[-1], None)
            if edge is None:
                iterators.pop()
                state[trail.pop()[0]] = done
            elif state[edge[0]] == unseen:
                state[edge[0]] = open_
                trail.append(edge)
                iterators.append(iter(following[edge[0]]))
            elif state[edge[0]] == open_:
                yield _closed(trail, edge)
                found += 1
                if found == _MAX_CYCLES:
                    return


def _closed(trail: list[Edge], closing: Edge) -> list[Edge]:
    first = next(place for place, (no, _) in enumerate(trail) if no == closing[0])
    return [*trail[first:], closing]


def _report_cycle(cycle: list[Edge], job: JobDefinition, problems: Problems, root: Node) -> None:
    names = [job.tasks[no].task_type for no, _ in cycle]
    path = _as_written(cycle[-1][1], root)
    if len(cycle) == 2:
        hint = "RESTART_TASK runs a task again, EXECUTING polls" if path[2] != "dependencies" else "remove it"
        problems.add(path, f'the task "{names[0]}" leads to itself', hint)
        return
    shown = names if len(names) <= 12 else [*names[:6], "…", *names[-5:]]
    problems.add(path, f"the tasks form a cycle: {' -> '.join(shown)}", "remove one of these edges")
