"""What can be wrong with a kubeconfig before it is used; the client's own loader has no words for most of it."""

import os
from pathlib import Path
from typing import Any, Final

import yaml

from executors.errors import ExecutorError

_PARTS: Final = ("clusters", "contexts", "users")
_DEFAULT: Final = "~/.kube/config"
_HINT: Final = "set KUBECONFIG to a kubeconfig file, or run the ant in a pod"


def check_kubeconfig(given: str) -> None:
    """Reads what the client will read. Blocks.

    Args:
        given: the file; empty: what ``KUBECONFIG`` names, of which some may be missing, else ``~/.kube/config``.

    Raises:
        ExecutorError: there is none, or one is no kubeconfig.
    """
    named = given or os.environ.get("KUBECONFIG", "")
    source = "KUBECONFIG: " if named and not given else ""
    files = [Path(part).expanduser() for part in (named or _DEFAULT).split(os.pathsep) if part]
    present = [file for file in files if file.exists()]
    if not present:
        names = ", ".join(map(str, files)) or "nothing"
        raise _no_cluster(f"{source}there is no file {names}")
    contents = {file: _content(file, source) for file in present}
    if not any(content.get("clusters") for content in contents.values()):
        raise _no_cluster(f"{source}{', '.join(map(str, present))}: names no clusters")


def _content(file: Path, source: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_bytes()) or {}
    except OSError as exc:
        raise _no_cluster(f"{source}{file} cannot be read ({exc.strerror})") from exc
    except (yaml.YAMLError, ValueError) as exc:
        raise _no_cluster(f"{source}{file} is no YAML ({' '.join(str(exc).split())[:200]})") from exc
    if not isinstance(content, dict) or not all(isinstance(content.get(part) or [], list) for part in _PARTS):
        raise _no_cluster(f"{source}{file} is no kubeconfig, which has lists of {', '.join(_PARTS)}")
    return content


def _no_cluster(reason: str) -> ExecutorError:
    return ExecutorError(f"KUBERNETES finds no cluster: {reason}; {_HINT}")
