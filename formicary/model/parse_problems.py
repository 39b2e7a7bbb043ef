"""Collects the mistakes of a document, with their positions and the nearest valid word."""

from collections.abc import Callable, Collection

from formicary.errors import Problem
from formicary.nearest import nearest

#: Where something is: keys and indices from the root, like ``("tasks", 2, "on_completed")``.
Path = tuple[str | int, ...]

#: So many mistakes are listed; the rest is counted.
MAX_PROBLEMS = 100
#: Looking for a near word costs time: it is done for so many mistakes.
_MAX_SEARCHES = 20


def path_text(path: Path) -> str:
    """Returns ``tasks[2].on_completed`` for ``("tasks", 2, "on_completed")``."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text


class Problems:
    """The mistakes found so far; ``find`` turns the path of one into line, column and the path as written."""

    def __init__(self, find: Callable[[Path, bool], tuple[int, int, Path]], found: Collection[Problem] = ()) -> None:
        self._find = find
        self._found = list(found)
        self._left_out = 0
        self._searches = 0

    def __len__(self) -> int:
        return len(self._found) + self._left_out

    def add(self, path: Path, message: str, hint: str = "", *, at_key: bool = False) -> None:
        """Adds a mistake at the value of ``path``, or at its key."""
        if len(self._found) >= MAX_PROBLEMS:
            self._left_out += 1
            return
        line, column, written = self._find(path, at_key)
        problem = Problem(message=message, hint=hint, path=path_text(written), line=line, column=column)
        self._found.append(problem)

    def add_at(self, line: int, message: str, hint: str = "") -> None:
        """Adds a mistake at the start of a line of the document."""
        self._found.append(Problem(message=message, hint=hint, line=line, column=1))

    def suggest(self, word: str, words: Collection[str]) -> str:
        """Returns ``did you mean "…"?`` or nothing; gives up after many mistakes."""
        self._searches += 1
        return nearest(word, words) if self._searches <= _MAX_SEARCHES else ""

    def listed(self) -> list[Problem]:
        """Returns them in the order of the document."""
        ordered = sorted(self._found, key=lambda problem: (problem.line, problem.column))
        if self._left_out:
            ordered.append(Problem(message=f"and {self._left_out} more mistakes"))
        return ordered
