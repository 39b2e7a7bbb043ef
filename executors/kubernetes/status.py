"""What a pod's state means for its attempt. Pure: a pod in, an outcome or an error out.

Read together: the phase, the main container's state, why the pod ended (``status.reason``) and its conditions. None of
them is enough: a child killed for memory leaves ``OOMKilled`` beside an exit code of the main process's own choice, and
a pod that a node drains ends with the code of a TERM.
"""

import contextlib
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from executors.base import Outcome, Reason
from executors.ending import stopped_outcome
from executors.errors import (
    EvictedError,
    ExecutorError,
    ExecutorLostError,
    ImageError,
    StartFailedError,
    UnschedulableError,
)
from executors.kubernetes.manifest import MAIN

Pod = dict[str, Any]  # a pod as the cluster's JSON has it

_OUT_OF_MEMORY = "OOMKilled"
_KILLED_CODE = 137
#: Waiting reasons of a container that will never be made; the others may pass.
_HOPELESS_IMAGE = frozenset(["InvalidImageName", "ErrImageNeverPull"])
_IMAGE = frozenset([*_HOPELESS_IMAGE, "ErrImagePull", "ImagePullBackOff", "ImageInspectError", "RegistryUnavailable"])
_CREATION = frozenset(["CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff"])
#: Why a container ended that never ran its command.
_NOT_STARTED = frozenset(["StartError", "ContainerCannotRun", "CreateContainerError"])
#: Why a pod ended that the cluster wanted to be rid of.
_TAKEN_AWAY = frozenset(["Evicted", "Preempting", "Shutdown", "NodeShutdown", "Terminated", "NodeLost"])
#: Why a node refused a pod that the scheduler gave it.
_REFUSED = re.compile(r"OutOf\w+|NodeAffinity|UnexpectedAdmissionError|Node(Name|Ports|Selector).*|.*Taint.*")


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Something keeps the pod from starting; ``is_final``: it will not pass. ``kind`` says whose patience counts."""

    kind: str
    error: ExecutorError
    is_final: bool = False


#: Kinds of obstacles; no service is called like that.
IMAGE: Final = "(image)"
CREATION: Final = "(creation)"
SCHEDULING: Final = "(scheduling)"


def end_of(pod: Pod, *, is_wrapped: bool = False) -> Outcome | ExecutorError | None:
    """Returns how the attempt ended, or None while it can still go on.

    Args:
        pod: its last known state.
        is_wrapped: the first process was the wrapper, which said nothing of an end of its script.
    """
    status = pod.get("status", {})
    reason, message = status.get("reason", ""), status.get("message", "")
    state = main_state(pod).get("terminated")
    if status.get("phase") == "Failed":
        if reason == "DeadlineExceeded":
            return stopped_outcome(Reason.TIMED_OUT, "the cluster ended the pod: its time was over long ago")
        if _REFUSED.fullmatch(reason):
            return UnschedulableError(f"the node refused the pod ({reason}): {message}")
    if state is None:
        if status.get("phase") != "Failed":
            return None
        words = f"the pod failed before its task ran: {reason} {message}".strip()
        return disruption_of(pod) or StartFailedError(words)
    if state.get("exitCode") == 0:
        return exit_outcome(0)
    return disruption_of(pod) or _end_of_main(state, is_wrapped)


def _end_of_main(state: dict[str, Any], is_wrapped: bool) -> Outcome | ExecutorError:
    reason, code = state.get("reason", ""), int(state.get("exitCode", 255))
    if reason in _NOT_STARTED:
        return StartFailedError(f"the container's command cannot be run: {state.get('message', reason)}")
    if reason == "ContainerStatusUnknown":
        return ExecutorLostError("the node lost sight of the container; how the task ended is unknown")
    if code == _KILLED_CODE and reason != _OUT_OF_MEMORY:
        return _killed_without_reason(is_wrapped)
    return exit_outcome(code, has_memory_kills=reason == _OUT_OF_MEMORY)


def _killed_without_reason(is_wrapped: bool) -> Outcome:
    """Returns the outcome of a main process with the code of SIGKILL, of which the node says no more.

    A node can lose sight of a kill for want of memory, the sooner the busier it is, and never says it later. Nothing in
    a container can kill its first process; so where that was the wrapper, which ends by no such code, something outside
    did. Other commands, and an entrypoint before the wrapper, may give that code themselves.
    """
    if is_wrapped:
        message = "the task's container was killed, as nodes do for want of memory, and its node does not say why"
        return Outcome(Reason.OUT_OF_MEMORY, _KILLED_CODE, False, message=f"{message}; raise memory_limit")
    outcome = exit_outcome(_KILLED_CODE)
    hint = "not every node says so where that was for want of memory: perhaps raise memory_limit"
    return replace(outcome, message=f"{outcome.message}; {hint}")


def exit_outcome(code: int, *, has_memory_kills: bool = False) -> Outcome:
    """Returns the outcome of a task whose main process, or script, ended with a code.

    A process killed for want of memory alone is no failure: the task may have put up with the loss of a child.
    """
    if code == 0:
        return Outcome(Reason.EXITED, 0, True)
    if has_memory_kills and code == _KILLED_CODE:
        message = "the task needed more memory than its container may have, and was killed; raise memory_limit"
        return Outcome(Reason.OUT_OF_MEMORY, code, False, message=message)
    words = f"exit code {code}"
    if code > 128 and (name := _signal_name(code - 128)):
        words += f": probably {name} ended a command of the script"
    if has_memory_kills:
        words += "; a process of the task was killed for want of memory"
    return Outcome(Reason.EXITED, code, False, message=words)


def disruption_of(pod: Pod) -> EvictedError | None:
    """Returns that the cluster, or somebody, took the pod away."""
    status = pod.get("status", {})
    for condition in status.get("conditions", ()):
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            words = f"{condition.get('reason', '')}: {condition.get('message', '')}"
            return EvictedError(f"the cluster took the pod away ({words.strip(': ')})")
    reason, message = status.get("reason", ""), status.get("message", "")
    if reason in _TAKEN_AWAY:
        return EvictedError(f"the cluster took the pod away ({reason}: {message})")
    if "deletionTimestamp" in pod.get("metadata", {}):
        return EvictedError("somebody, or a drained node, deleted the pod while its task ran")
    return None


def obstacle_of(pod: Pod) -> Obstacle | None:
    """Returns what keeps the pod from starting, or None."""
    for condition in pod.get("status", {}).get("conditions", ()):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            message = f"no node takes the pod: {condition.get('message') or condition.get('reason')}"
            return Obstacle(SCHEDULING, UnschedulableError(message))
    for container in _containers(pod):
        waiting = container.get("state", {}).get("waiting", {})
        reason, message = waiting.get("reason", ""), waiting.get("message", "")
        if reason in _IMAGE:
            words = f"the image {container['image']} cannot be had ({reason}): {message}"
            return Obstacle(IMAGE, ImageError(words), reason in _HOPELESS_IMAGE)
        if reason in _CREATION:
            words = f"the container {container['name']} cannot be made ({reason}): {message}"
            return Obstacle(CREATION, StartFailedError(words))
    return None


def broken_service(pod: Pod) -> tuple[str, str] | None:
    """Returns the name of a service that ended before it was ready, and how."""
    for container in pod.get("status", {}).get("initContainerStatuses", ()):
        ended = container.get("lastState", {}).get("terminated") or container.get("state", {}).get("terminated")
        if ended is not None and not container.get("started"):
            reason = f" ({ended['reason']})" if ended.get("reason") not in {None, "Error", "Completed"} else ""
            return container["name"], f"ended with exit code {ended.get('exitCode')}{reason} before it was ready"
    return None


def starting_services(pod: Pod) -> dict[str, datetime]:
    """Returns the services that run and are not ready yet, and since when they run."""
    starting = {}
    for container in pod.get("status", {}).get("initContainerStatuses", ()):
        running = container.get("state", {}).get("running")
        if running is not None and not container.get("started"):
            starting[container["name"]] = datetime.fromisoformat(running["startedAt"].replace("Z", "+00:00"))
    return starting


def main_state(pod: Pod) -> dict[str, Any]:
    """Returns the main container's state: ``waiting``, ``running`` or ``terminated``; empty before there is one."""
    for container in pod.get("status", {}).get("containerStatuses", ()):
        if container.get("name") == MAIN:
            return dict(container.get("state", {}))
    return {}


def has_main_started(pod: Pod) -> bool:
    """Whether the main container runs or ran: it has a log now."""
    state = main_state(pod)
    return "running" in state or "terminated" in state


def is_anything_running(pod: Pod) -> bool:
    """Whether a container of the pod may still run."""
    return pod.get("status", {}).get("phase") not in {"Succeeded", "Failed"}


def _containers(pod: Pod) -> Iterator[dict[str, Any]]:
    status = pod.get("status", {})
    yield from status.get("initContainerStatuses", ())
    yield from status.get("containerStatuses", ())


def _signal_name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return ""
