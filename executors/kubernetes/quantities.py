"""Sizes and processors as a cluster writes them, and the bounds that the ant sets. Pure."""

import math
from typing import Any

from executors.errors import SpecRefusedError
from executors.kubernetes.options import KubernetesOptions
from executors.quantities import parse_cpu, parse_size
from executors.specs import ContainerSpec, ServiceSpec

Json = Any  # a JSON value


def memory_text(text: str) -> str:
    """Returns a size as the cluster takes it: it knows no ``GB``."""
    return str(_read(text, parse_size))


def resources(spec: ContainerSpec | ServiceSpec, options: KubernetesOptions) -> dict[str, Json]:
    """Returns requests and limits of a container, within the ant's bounds.

    Raises:
        SpecRefusedError: it asks for more than the ant gives.
    """
    cpu = _Bounds("cpu", _cpu(options.cpu_min), _cpu(options.cpu_max))
    memory = _Bounds("memory", _memory(options.memory_min), _memory(options.memory_max))
    cpu_request, cpu_limit = cpu.applied(_cpu(spec.cpu_request), _cpu(spec.cpu_limit))
    memory_request, memory_limit = memory.applied(_memory(spec.memory_request), _memory(spec.memory_limit))
    requests = _given(cpu=_text(cpu_request, "m"), memory=_text(memory_request))
    limits = _given(cpu=_text(cpu_limit, "m"), memory=_text(memory_limit))
    return _given(requests=requests, limits=limits)


class _Bounds:
    """Least and most of one resource; 0 means no bound.

    A limit that the ant sets is no wish of the task's; a cluster would take it for the request too, if it were told of
    no other.
    """

    def __init__(self, word: str, least: int, most: int) -> None:
        self._word = word
        self._least = least
        self._most = most

    def applied(self, request: int, limit: int) -> tuple[int | None, int | None]:
        """Returns request and limit; None where the cluster is told of none."""
        for key, value in (("request", request), ("limit", limit)):
            if self._most and value > self._most:
                shown = f"{self._most}m" if self._word == "cpu" else f"{self._most} bytes"
                raise SpecRefusedError(f"{self._word}_{key}: this ant gives a container at most {shown}; ask for less")
        is_limited = limit > 0
        limit = limit or self._most
        request = max(request, self._least)
        if limit and request > limit:
            limit = max(limit, self._least)
            request = min(request, limit)
        is_told = request > 0 or (limit > 0 and not is_limited)
        return request if is_told else None, limit or None


def _given(**values: Json) -> dict[str, Json]:
    return {name: value for name, value in values.items() if value}


def _text(value: int | None, unit: str = "") -> str:
    return "" if value is None else f"{value}{unit}"


def _cpu(text: str) -> int:
    """Returns thousandths of a processor; 0 where nothing is written."""
    return math.ceil(_read(text, parse_cpu) * 1000) if text else 0


def _memory(text: str) -> int:
    return int(_read(text, parse_size)) if text else 0


def _read(text: str, parse: Any) -> Any:
    try:
        return parse(text)
    except ValueError as exc:
        raise SpecRefusedError(str(exc)) from exc
