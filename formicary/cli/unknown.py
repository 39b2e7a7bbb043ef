"""Variables that look like settings of Formicary and are none: most often misspelt ones, which would be ignored."""

import os
import re
import sys
from collections.abc import Mapping
from typing import Any, Final

import structlog

from formicary import settings
from formicary.nearest import nearest_word
from formicary.settings import Settings

log = structlog.get_logger(__name__)

_PREFIX: Final = "FORMICARY_"
_SETTINGS: Final = frozenset(variable.name.removeprefix(_PREFIX) for variable in settings.VARIABLES)
#: What a task sees, and so a Formicary that a task starts; and what is for the project's own tests and servers.
_OTHERS: Final = frozenset(
    ["ANT", "ATTEMPT", "JOB_ID", "JOB_TYPE", "OUTPUT", "RESULT_DIR", "SERVERS_CACHE", "TASK_TYPE"]
)
_TESTS: Final = "TEST_"
#: What Kubernetes tells the containers of a namespace about a service whose name begins with ``formicary``.
_SERVICE: Final = re.compile(
    r"(.*_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)?)"
)


def unknown_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables that look like settings and are none, each with a sentence about it; never their values."""
    names = sorted(name.removeprefix(_PREFIX) for name in environ if name.startswith(_PREFIX))
    unknown = [name for name in names if name not in _SETTINGS | _OTHERS and not name.startswith(_TESTS)]
    return {_PREFIX + name: _sentence(name) for name in unknown if not _SERVICE.fullmatch(name)}


def _sentence(name: str) -> str:
    near = nearest_word(name, _SETTINGS)
    hint = f"did you mean {_PREFIX}{near}?" if near else "formicary settings lists those that there are"
    return f"{_PREFIX}{name} is no setting; {hint}"


def log_unknown() -> None:
    """Says in the log of a process that starts what will be ignored."""
    for name, sentence in unknown_settings(os.environ).items():
        log.warning("setting_unknown", variable=name, reason=sentence)


def load(**flags: Any) -> Settings:
    """Returns the settings of a command that writes no log; says on stderr what is ignored.

    Raises:
        InvalidInputError: as ``settings.load``.
    """
    for sentence in unknown_settings(os.environ).values():
        print(f"formicary: {sentence}", file=sys.stderr)
    return settings.load(**flags)
