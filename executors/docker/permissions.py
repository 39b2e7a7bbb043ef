"""What a task may ask of the machine and of the engine: only what the settings of the ant allow.

A path of the machine counts as what it really is: a task that may write below an allowed folder could put a symlink
there that leads anywhere. So the ant follows the links, and the engine is given the path that has none. Where the ant
cannot look (the engine is on another machine, or the ant in a container of its own), only the paths that it was told
to allow can be mounted, exactly as they are written.
"""

import re
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

import msgspec

from executors.errors import SpecRefusedError
from executors.options import ExecutorOptions
from executors.specs import ContainerSpec, DockerSpec, VolumeSpec

#: Networks that no task needs leave for: none at all, and the one that it has where it names none.
_FREE_NETWORKS = ("", "none", "default", "bridge")
#: What an engine takes for the name of a network or volume, and for no path, mode or option.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def permitted(spec: DockerSpec, options: ExecutorOptions, *, is_local: bool) -> DockerSpec:
    """Returns the spec, its paths of the machine as they really are. Looks at the disk.

    Args:
        spec: what the task asks for.
        options: what the ant allows.
        is_local: the engine is on the machine of the ant.

    Raises:
        SpecRefusedError: names the key that the ant does not allow, and the setting that would.
    """
    _check_rights(spec.container, options)
    _check_network(spec.container.network, options)
    main = _real_volumes("container", spec.container.volumes, options, is_local)
    services = tuple(
        msgspec.structs.replace(
            service, volumes=_real_volumes(f"services[{number}]", service.volumes, options, is_local)
        )
        for number, service in enumerate(spec.services)
    )
    return msgspec.structs.replace(
        spec, container=msgspec.structs.replace(spec.container, volumes=main), services=services
    )


def has_host_paths(spec: DockerSpec) -> bool:
    """Tells whether there is anything of the machine to look at."""
    of_services = (volume for service in spec.services for volume in service.volumes)
    return any(volume.host_path for volume in (*spec.container.volumes, *of_services))


def _check_rights(main: ContainerSpec, options: ExecutorOptions) -> None:
    if options.docker_privileged:
        return
    asked = {
        "privileged": main.privileged,
        "devices": bool(main.devices),
        "network: host": main.network == "host",
        f"network: {main.network.partition(':')[0]}:…": ":" in main.network,
    }
    for key, is_asked in asked.items():
        if is_asked:
            raise SpecRefusedError(
                f"container.{key} is not allowed on this ant; it is where FORMICARY_DOCKER_PRIVILEGED=true"
            )


def _check_network(network: str, options: ExecutorOptions) -> None:
    is_special = network == "host" or ":" in network
    if is_special or network in _FREE_NETWORKS or network in options.docker_networks:
        return
    allowed = ", ".join(options.docker_networks) or "none"
    message = f"container.network: network {network!r} of the engine is not allowed; FORMICARY_DOCKER_NETWORKS allows"
    raise SpecRefusedError(f"{message} {allowed}")


def _real_volumes(
    where: str, volumes: tuple[VolumeSpec, ...], options: ExecutorOptions, is_local: bool
) -> tuple[VolumeSpec, ...]:
    real: list[VolumeSpec] = []
    for number, volume in enumerate(volumes):
        here = f"{where}.volumes[{number}]"
        if volume.volume:
            _check_named(here, volume.volume, options)
        path = _real_path(here, volume.host_path, options, is_local) if volume.host_path else ""
        real.append(msgspec.structs.replace(volume, host_path=path))
    return tuple(real)


def _check_named(here: str, name: str, options: ExecutorOptions) -> None:
    if not _NAME.fullmatch(name):
        message = f"{here}.volume: {name!r} is no name of a volume, of letters, digits and _.-"
        raise SpecRefusedError(f"{message}; a path is a host_path")
    if not any(fnmatchcase(name, pattern) for pattern in options.docker_volumes):
        allowed = ", ".join(options.docker_volumes) or "none"
        message = f"{here}.volume: volume {name!r} of the engine is not allowed; FORMICARY_DOCKER_VOLUMES allows"
        raise SpecRefusedError(f"{message} {allowed}")


def _real_path(here: str, path: str, options: ExecutorOptions, is_local: bool) -> str:
    wanted = PurePosixPath(path)
    if wanted in [PurePosixPath(allowed) for allowed in options.docker_host_paths]:
        return path
    allowed = ", ".join(map(str, options.docker_host_paths)) or "no path"
    refusal = f"{here}.host_path: {path} is not allowed; this ant allows {allowed}"
    if not wanted.is_absolute() or ".." in wanted.parts:
        raise SpecRefusedError(refusal)
    real = _resolved(wanted) if is_local else None
    if real is not None and any(real.is_relative_to(Path(each).resolve()) for each in options.docker_host_paths):
        return str(real)
    if real is not None and real != Path(path):
        refusal = f"{here}.host_path: {path} is {real}, which is not allowed; this ant allows {allowed}"
    elif real is None and any(wanted.is_relative_to(each) for each in options.docker_host_paths):
        reason = "is not there, or not for it to see" if is_local else "is on another machine"
        refusal += f", and nothing below that it cannot look at: {path} {reason}"
    raise SpecRefusedError(refusal)


def _resolved(path: PurePosixPath) -> Path | None:
    """Returns what a path of this machine really is; None where that cannot be seen."""
    try:
        return Path(path).resolve(strict=True)
    except (OSError, RuntimeError):
        return None
