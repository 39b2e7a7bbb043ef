"""What states of pods mean."""

from typing import Any

import pytest

from executors.base import Outcome, Reason
from executors.errors import EvictedError, ExecutorError, ExecutorLostError, StartFailedError, UnschedulableError
from executors.kubernetes.mark import Mark
from executors.kubernetes.status import end_of, has_main_started, obstacle_of

Json = Any  # a JSON value


def pod(phase: str = "Running", main: dict[str, Json] | None = None, **status: Json) -> dict[str, Json]:
    """Returns a pod whose main container is in a state; ``deleted`` marks it for deletion."""
    metadata = {"deletionTimestamp": "2026-01-01T00:00:00Z"} if status.pop("deleted", False) else {}
    statuses = [] if main is None else [{"name": "main", "image": "i", "state": main}]
    return {"metadata": metadata, "status": {"phase": phase, "containerStatuses": statuses, **status}}


def terminated(code: int, reason: str = "Error", message: str = "") -> dict[str, Json]:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


TARGETED = [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "for x"}]


@pytest.mark.parametrize(
    ("state", "reason", "code"),
    [
        (pod("Succeeded", terminated(0, "Completed")), Reason.EXITED, 0),
        (pod("Succeeded", terminated(0, "OOMKilled")), Reason.EXITED, 0),
        (pod("Running", terminated(0, "Completed"), deleted=True), Reason.EXITED, 0),
        (pod("Failed", terminated(3)), Reason.EXITED, 3),
        (pod("Failed", terminated(137)), Reason.EXITED, 137),
        (pod("Failed", terminated(137, "OOMKilled")), Reason.OUT_OF_MEMORY, 137),
        (pod("Failed", terminated(7, "OOMKilled")), Reason.EXITED, 7),
        (pod("Failed", terminated(137), reason="DeadlineExceeded"), Reason.TIMED_OUT, 143),
    ],
)
def test_ends_that_are_outcomes(state: dict[str, Json], reason: Reason, code: int) -> None:
    end = end_of(state)

    assert isinstance(end, Outcome)
    assert (end.reason, end.exit_code, end.is_success) == (reason, code, reason is Reason.EXITED and code == 0)
    assert end.is_success or end.message


def test_a_kill_that_the_node_does_not_explain_is_want_of_memory_where_nothing_else_could_kill() -> None:
    state = pod("Failed", terminated(137))
    ends = [end_of(state), end_of(state, is_wrapped=True)]

    assert all(isinstance(end, Outcome) and "raise memory_limit" in (end.message or "") for end in ends)
    assert [end.reason for end in ends if isinstance(end, Outcome)] == [Reason.EXITED, Reason.OUT_OF_MEMORY]
    explained = end_of(pod("Failed", terminated(137), reason="Evicted"), is_wrapped=True)
    assert isinstance(explained, EvictedError)


@pytest.mark.parametrize(
    ("state", "error", "words"),
    [
        (pod("Failed", reason="Evicted", message="low on memory"), EvictedError, "low on memory"),
        (pod("Failed", terminated(137), reason="Evicted", message="disk"), EvictedError, "disk"),
        (pod("Failed", terminated(143), conditions=TARGETED), EvictedError, "PreemptionByScheduler: for x"),
        (pod("Failed", terminated(143), deleted=True), EvictedError, "deleted the pod"),
        (pod("Failed", reason="OutOfcpu", message="no cpu left"), UnschedulableError, "no cpu left"),
        (pod("Failed", reason="NodeAffinity", message="m"), UnschedulableError, "NodeAffinity"),
        (pod("Failed", terminated(128, "StartError", "no sh")), StartFailedError, "no sh"),
        (pod("Failed", terminated(137, "ContainerStatusUnknown")), ExecutorLostError, "lost sight"),
        (pod("Failed", message="why not"), StartFailedError, "why not"),
    ],
)
def test_ends_that_are_errors(state: dict[str, Json], error: type[ExecutorError], words: str) -> None:
    end = end_of(state)

    assert type(end) is error
    assert words in str(end)


@pytest.mark.parametrize(
    "state", [pod("Pending"), pod("Running", {"running": {}}), pod("Running", {"waiting": {}}), {}]
)
def test_what_can_go_on_has_no_end(state: dict[str, Json]) -> None:
    assert end_of(state) is None


def test_a_log_is_there_once_the_container_runs() -> None:
    assert not has_main_started(pod("Pending", {"waiting": {"reason": "ContainerCreating"}}))
    assert has_main_started(pod("Running", {"running": {}}))
    assert has_main_started(pod("Failed", terminated(1)))


@pytest.mark.parametrize(
    ("reason", "code", "is_final"),
    [
        ("ErrImagePull", "ERR_IMAGE", False),
        ("ImagePullBackOff", "ERR_IMAGE", False),
        ("InvalidImageName", "ERR_IMAGE", True),
        ("ErrImageNeverPull", "ERR_IMAGE", True),
        ("CreateContainerConfigError", "ERR_EXECUTOR", False),
    ],
)
def test_what_keeps_a_container_from_being_made_has_a_code(reason: str, code: str, is_final: bool) -> None:
    obstacle = obstacle_of(pod("Pending", {"waiting": {"reason": reason, "message": "words"}}))

    assert obstacle is not None
    assert (obstacle.error.code, obstacle.is_final) == (code, is_final)
    assert "words" in str(obstacle.error)


def test_a_pod_without_a_node_says_why() -> None:
    unscheduled = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}]

    obstacle = obstacle_of(pod("Pending", conditions=unscheduled))

    assert obstacle is not None
    assert obstacle.error.code == "ERR_UNSCHEDULABLE"
    assert "0/3 nodes" in str(obstacle.error)
    assert obstacle_of(pod("Pending", {"waiting": {"reason": "ContainerCreating"}})) is None


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("0:0:", Mark(0, False, False, False)),
        ("137:2:or", Mark(137, True, True, True)),
        ("3::r", Mark(3, False, False, True)),
        ("143:0:ot", Mark(143, False, True, False, is_terminated=True)),
        ("nonsense", Mark(255, False, False, False)),
    ],
)
def test_the_wrappers_last_words_are_read(text: str, mark: Mark) -> None:
    assert Mark.read(text) == mark
