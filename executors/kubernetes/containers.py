"""What the main container's manifest and that of a service have in common. Pure."""

import re
from collections.abc import Mapping
from typing import Any

from executors.errors import SpecRefusedError
from executors.specs import SecuritySpec

Json = Any  # a JSON value

_USER = re.compile(r"(\d{1,10})(?::(\d{1,10}))?")
_NO_SECURITY = SecuritySpec()


def escaped(text: str) -> str:
    """Returns a text that stays what it is where a cluster replaces ``$(NAME)``."""
    return text.replace("$", "$$")


def environment(variables: Mapping[str, str]) -> list[Json]:
    """Returns variables as a container's manifest lists them."""
    return [{"name": name, "value": escaped(value)} for name, value in variables.items()]


def security_context(user_text: str, spec: SecuritySpec | None = None, privileged: bool = False) -> dict[str, Json]:
    """Returns as whom a container runs and what it may do: without a wish for more, no new rights and no raw sockets.

    Raises:
        SpecRefusedError: the user is no number.
    """
    security = spec or _NO_SECURITY
    user, group = _user(user_text)
    context: dict[str, Json] = {
        "runAsUser": security.run_as_user if user is None else user,
        "runAsGroup": security.run_as_group if group is None else group,
        "runAsNonRoot": security.run_as_non_root or None,
        "readOnlyRootFilesystem": security.read_only_root_filesystem or None,
        "privileged": privileged or None,
        "allowPrivilegeEscalation": privileged or security.allow_privilege_escalation,
    }
    if not privileged:
        drop = sorted({"NET_RAW", *security.drop_capabilities} - set(security.add_capabilities))
        capabilities = {"add": list(security.add_capabilities), "drop": drop}
        context["capabilities"] = {key: names for key, names in capabilities.items() if names}
    return {key: value for key, value in context.items() if value is not None}


def service_security(user_text: str, spec: SecuritySpec | None) -> dict[str, Json]:
    """Returns the same of a service, which has a user of its own; where nobody may be root, it has no capability.

    Raises:
        SpecRefusedError: the user is no number.
    """
    is_bound = spec is not None and spec.run_as_non_root
    return security_context(user_text, SecuritySpec(run_as_non_root=is_bound, drop_capabilities=("ALL",) * is_bound))


def _user(text: str) -> tuple[int | None, int | None]:
    if not text:
        return None, None
    match = _USER.fullmatch(text)
    if match is None:
        raise SpecRefusedError(f'user: a pod takes numbers only, such as "1000" or "1000:1000", not "{text}"')
    return int(match[1]), int(match[2]) if match[2] else None
