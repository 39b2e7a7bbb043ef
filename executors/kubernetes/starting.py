"""How long what keeps a pod from starting is put up with."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from executors.errors import ServiceError
from executors.kubernetes.options import KubernetesOptions
from executors.kubernetes.status import (
    CREATION,
    IMAGE,
    SCHEDULING,
    broken_service,
    disruption_of,
    obstacle_of,
    starting_services,
)
from executors.specs import KubernetesSpec

Pod = dict[str, Any]  # a pod as the cluster's JSON has it

_DEFAULT_READY_S: Final = 60.0


class Patience:
    """Judges each state of a pod that has not started yet.

    Args:
        log_of: returns the last lines of a service's log.
    """

    def __init__(
        self, spec: KubernetesSpec, options: KubernetesOptions, log_of: Callable[[str], Awaitable[str]]
    ) -> None:
        schedule_s = options.schedule_timeout_s if spec.schedule_timeout_s is None else spec.schedule_timeout_s
        self._limits_s = {
            SCHEDULING: schedule_s,
            IMAGE: options.image_timeout_s,
            CREATION: options.image_timeout_s,
        }
        self._ready_s = {
            service.name: service.ready.timeout_s if service.ready is not None else _DEFAULT_READY_S
            for service in spec.services
        }
        self._log_of = log_of
        self._since: dict[str, float] = {}

    async def judge(self, pod: Pod) -> float | None:
        """Returns in how many seconds to look again; None: at the pod's next change.

        Raises:
            ExecutorError: what keeps the pod from starting has lasted too long or will last for ever, or it is gone.
        """
        if (taken_away := disruption_of(pod)) is not None:
            raise taken_away  # which ends services too
        if (broken := broken_service(pod)) is not None:
            raise await self._service_error(*broken)
        obstacle = obstacle_of(pod)
        starting = starting_services(pod)
        present = {*starting, *([obstacle.kind] if obstacle is not None else [])}
        self._since = {what: self._since.get(what, _now()) for what in present}
        if obstacle is not None and (obstacle.is_final or self._left_s(obstacle.kind) <= 0):
            raise obstacle.error
        for name in starting:
            if self._left_s(name) <= 0:
                raise await self._service_error(name, f"was not ready after {self._limit_s(name):g} s")
        return min((max(self._left_s(what), 0.0) for what in present), default=None)

    def _left_s(self, what: str) -> float:
        return self._since[what] + self._limit_s(what) - _now()

    def _limit_s(self, what: str) -> float:
        return self._limits_s.get(what) or self._ready_s.get(what, _DEFAULT_READY_S)

    async def _service_error(self, name: str, how: str) -> ServiceError:
        said = await self._log_of(name)
        return ServiceError(f"the service {name} {how}" + (f"; its last words: {said}" if said else ""))


def _now() -> float:
    return asyncio.get_running_loop().time()
