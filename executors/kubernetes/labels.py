"""Names and labels of pods: which pod belongs to which task, attempt, owner and process. Pure."""

import hashlib
import re
from typing import Final

from executors.base import Attempt

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MANAGER: Final = "formicary"
OWNER: Final = "formicary/owner"
SESSION: Final = "formicary/session"
ATTEMPT: Final = "formicary/attempt"
#: The life of the ant, as a digest: ants may have longer names than labels.
LIFE: Final = "formicary/life"
TASK_TYPE: Final = "formicary/task-type"
JOB_ID: Final = "formicary/job-id"
#: What marks the one pod that a process made for an attempt, so that it knows it again after a lost answer.
TOKEN: Final = "formicary/token"
#: Prefixes that a task's own labels and annotations may not have.
RESERVED_PREFIXES: Final = ("formicary/", MANAGED_BY)

_NO_LABEL = re.compile(r"[^A-Za-z0-9_.-]")
_NO_NAME = re.compile(r"[^a-z0-9-]+")


def pod_name(attempt: Attempt) -> str:
    """Returns the name of the task's pod, the same for all its attempts: so a cluster never holds two of them."""
    digest = hashlib.sha256(f"{attempt.job_id}\n{attempt.task_type}".encode()).hexdigest()[:20]
    word = _NO_NAME.sub("-", attempt.task_type.lower())[:30].strip("-") or "task"
    return f"formicary-{word}-{digest}"


def label_value(text: str) -> str:
    """Returns a text as the value of a label: what does not fit is replaced and cut."""
    return _NO_LABEL.sub("_", text)[:63].strip("_.-")


def life_value(life: str) -> str:
    """Returns the value of the label that names a life of an ant; empty for none."""
    return hashlib.sha256(life.encode()).hexdigest()[:20] if life else ""


def pod_labels(attempt: Attempt, owner: str, session: str) -> dict[str, str]:
    """Returns the labels of an attempt's pod."""
    life = life_value(attempt.environment.get("FORMICARY_ANT", ""))
    return {
        MANAGED_BY: MANAGER,
        OWNER: label_value(owner),
        SESSION: session,
        JOB_ID: label_value(attempt.job_id),
        TASK_TYPE: label_value(attempt.task_type),
        ATTEMPT: str(attempt.number),
        **({LIFE: life} if life else {}),
    }


def session_selector(session: str) -> str:
    """Returns what selects the pods of one process."""
    return f"{MANAGED_BY}={MANAGER},{SESSION}={session}"


def managed_selector() -> str:
    """Returns what selects the pods of all ants."""
    return f"{MANAGED_BY}={MANAGER}"
