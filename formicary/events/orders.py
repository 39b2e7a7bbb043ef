"""What an ant is told to do: the part of a dispatch that is the same for every attempt of a constant task."""

import msgspec

from executors.specs import Spec
from formicary.model.definition import ArtifactsPolicy, CachePolicy
from formicary.model.groups import DEFAULT_GROUP
from formicary.model.jobs import ArtifactRef


class Fetch(msgspec.Struct, frozen=True, array_like=True):
    """Artifacts of an earlier task, to be unpacked at the same relative paths before the start."""

    task_type: str
    task_no: int
    attempt: int
    artifacts: tuple[ArtifactRef, ...]


class Order(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A rendered task of a job of ``group``. ``secrets`` are the values to mask in its output."""

    job_type: str
    task_type: str
    method: str
    spec: Spec
    timeout_s: float
    artifacts: ArtifactsPolicy = ArtifactsPolicy()
    fetches: tuple[Fetch, ...] = ()
    secrets: tuple[str, ...] = ()
    cache: CachePolicy | None = None
    group: str = DEFAULT_GROUP
