"""The errors that cross package boundaries, one class per decision a caller can take.

FormicaryError
├── InvalidInputError       the caller's input is wrong; nothing was changed (exit code 2, HTTP 422)
│   └── DefinitionError     with one ``Problem`` per mistake
├── NotFoundError           the thing named does not exist (exit code 2, HTTP 404)
│   └── ExpiredError        it did, until its time was over (exit code 2, HTTP 410)
├── ConflictError           the state forbids it (exit code 2, HTTP 409)
├── UnavailableError        a server, database or broker cannot be reached; try again (exit code 3, HTTP 503)
│   └── LoginRefusedError   it refuses the credentials or the name given; waiting does not help
├── HomeHeldError           another process holds the home folder (exit code 2)
└── DataError               a value that no store accepts (NUL, lone surrogate, range, size)
"""

from collections.abc import Sequence

import msgspec


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One mistake in an input: where, what is wrong, what would be right.

    ``line`` and ``column`` count from 1; 0 means "the whole document". ``path`` is like ``tasks[2].on_completed``.
    """

    message: str
    path: str = ""
    line: int = 0
    column: int = 0
    hint: str = ""

    def text(self, file: str) -> str:
        """Returns ``file:line:column path: message; hint``, parts that are unknown left out."""
        place = f"{file}:{self.line}:{self.column}" if self.line else file
        where = f"{place} {self.path}" if self.path else place
        return f"{where}: {self.message}" + (f"; {self.hint}" if self.hint else "")


class FormicaryError(Exception):
    """Root of the errors that Formicary raises on purpose; ``code`` is stable, the text is for people."""

    code = "ERR_INTERNAL"


class InvalidInputError(FormicaryError):
    """The input is wrong and nothing was changed."""

    code = "ERR_VALIDATION"

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.problems = tuple(problems)


class DefinitionError(InvalidInputError):
    """A job definition has mistakes, all of which are listed."""

    def __init__(self, problems: Sequence[Problem], file: str = "definition") -> None:
        super().__init__("\n".join(problem.text(file) for problem in problems), problems)
        self.file = file


class NotFoundError(FormicaryError):
    """The thing named does not exist."""

    code = "ERR_NOT_FOUND"


class ExpiredError(NotFoundError):
    """The thing named existed until its time was over."""

    code = "ERR_EXPIRED"


class ConflictError(FormicaryError):
    """The present state forbids the request."""

    code = "ERR_CONFLICT"


class UnavailableError(FormicaryError):
    """A server, database or broker cannot be reached now; the request was not carried out and may be repeated."""

    code = "ERR_UNAVAILABLE"

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class LoginRefusedError(UnavailableError):
    """A server answers, but takes neither credentials nor name as they are set: a start should end, not wait."""


class HomeHeldError(FormicaryError):
    """Another process holds the home folder; ``holder`` is what it wrote about itself."""

    code = "ERR_HOME_HELD"

    def __init__(self, home: str, holder: dict[str, str]) -> None:
        super().__init__(f"{home} is held by process {holder.get('pid', '?')} ({holder.get('mode', '?')})")
        self.home = home
        self.holder = holder


class DataError(FormicaryError):
    """A value cannot be stored; ``key`` names it."""

    code = "ERR_VALIDATION"

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}")
        self.key = key
