"""What flags and settings say about an ant and its executors."""

import hashlib
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from brokers.base import Capabilities
from executors.docker.address import engine_url, fault_of, has_engine
from executors.kubernetes.options import KubernetesOptions
from executors.options import ExecutorOptions
from executors.quantities import parse_cpu, parse_size
from formicary.ant.config import AntConfig
from formicary.errors import InvalidInputError
from formicary.ids import AntId
from formicary.model.parse_limits import parse_limits
from formicary.settings import Settings, split_listen

_BOUNDS: dict[str, Callable[[str], float]] = {
    "cpu_min": parse_cpu,
    "cpu_max": parse_cpu,
    "memory_min": parse_size,
    "memory_max": parse_size,
}


class AntOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the flags of ``ant``, ``up`` and ``run`` say about an ant; None leaves the choice to the default."""

    id: str | None = None
    slots: int | None = None
    tags: tuple[str, ...] = ()
    methods: tuple[str, ...] | None = None
    python_paths: tuple[str, ...] = ()


def executor_options(settings: Settings, options: AntOptions, folder: Path) -> ExecutorOptions:
    """Returns the options of the executors of an ant whose attempts have their folders in ``folder``.

    Raises:
        InvalidInputError: names the setting that is wrong.
    """
    try:
        limits = parse_limits(settings.shell_limits or "")
    except ValueError as error:
        raise InvalidInputError(f"FORMICARY_SHELL_LIMITS: {error}") from error
    return ExecutorOptions(
        python_paths=tuple(Path(path).absolute() for path in options.python_paths),
        shell_user=settings.shell_user,
        shell_limits=limits,
        shell_umask=-1 if settings.shell_umask is None else int(settings.shell_umask, 8),
        shell_folder=folder,
        workers_listen=None if settings.workers_listen is None else split_listen(settings.workers_listen),
        workers_token=settings.workers_token,
        workers_origins=settings.workers_origins,
        docker_privileged=settings.docker_privileged,
        docker_host_paths=tuple(map(Path, settings.docker_host_paths)),
        docker_volumes=settings.docker_volumes,
        docker_networks=settings.docker_networks,
        kubernetes=_kubernetes(settings, folder),
    )


def ant_config(
    settings: Settings,
    options: AntOptions,
    ant_id: AntId,
    capabilities: Capabilities,
    shard_count: int,
    cache_limit_bytes: int,
) -> AntConfig:
    """Returns the configuration of an ant on a broker with these capabilities."""
    return AntConfig(
        id=ant_id,
        home=settings.home,
        slots=options.slots or default_slots(),
        tags=options.tags,
        methods=options.methods,
        lease_s=settings.ant_lease_s,
        survives_process=capabilities.survives_process,
        topics_are_dear=capabilities.topics_are_dear,
        shard_count=shard_count,
        broker_url=settings.broker_url,
        engine_url=engine_of(options),
        is_home_passable=settings.shell_user is not None,
        cache_limit_bytes=cache_limit_bytes,
    )


def engine_of(options: AntOptions) -> str | None:
    """Returns where the containers of an ant run, or None where it runs none."""
    offers = has_engine(None) if options.methods is None else "DOCKER" in options.methods
    return engine_url(None) if offers and not fault_of(engine_url(None)) else None


def _kubernetes(settings: Settings, folder: Path) -> KubernetesOptions:
    direct_from = settings.kubernetes_direct_from
    options = KubernetesOptions(
        namespace=settings.kubernetes_namespace,
        owner=_owner(folder),
        allow_privileged=settings.kubernetes_allow_privileged,
        direct_bytes=0 if direct_from == "off" else parse_size(direct_from),
    )
    return replace(options, **_bounds(settings.kubernetes_resources))


def _owner(folder: Path) -> str:
    """Returns what names an ant of this machine, the same after its restart and no other ant's."""
    place = f"{socket.gethostname()}:{folder}"
    return hashlib.sha256(place.encode()).hexdigest()[:20]


def _bounds(text: str) -> dict[str, Any]:
    """Returns the bounds of containers by name.

    Raises:
        InvalidInputError: names the bound that is wrong.
    """
    bounds: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = (word.strip() for word in part.partition("="))
        if name not in _BOUNDS:
            raise InvalidInputError(f"FORMICARY_KUBERNETES_RESOURCES: {name!r} is none of {', '.join(_BOUNDS)}")
        try:
            _BOUNDS[name](value)
        except ValueError as error:
            raise InvalidInputError(f"FORMICARY_KUBERNETES_RESOURCES: {name}: {error}") from error
        bounds[name] = value
    return bounds


def default_slots() -> int:
    """Returns the slots of an ant of which nothing is said: four a core."""
    return 4 * (os.cpu_count() or 1)
