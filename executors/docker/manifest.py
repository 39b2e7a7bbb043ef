"""What the engine is asked to make of an attempt: pure, from specs to the engine's own words.

Layout inside the main container::

    /formicary/work         the working directory, unless the spec names another
    /formicary/out/result   $FORMICARY_RESULT_DIR
    /formicary/out/output   $FORMICARY_OUTPUT, a file that the task makes
    /formicary/tmp          TMPDIR
    /formicary/script.sh    the script, where it is too long for an argument or an after_script follows it
"""

import posixpath
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from executors.base import Attempt
from executors.docker.images import ImageFacts
from executors.errors import SpecRefusedError
from executors.options import ExecutorOptions
from executors.quantities import parse_cpu, parse_size
from executors.specs import ContainerSpec, DockerSpec, EmptyDirSpec, ServiceSpec, VolumeSpec

Json = Any  # a JSON value

ROOT = "/formicary"
WORK = f"{ROOT}/work"
OUT = f"{ROOT}/out"
OUTPUT_FILE = f"{OUT}/output"
RESULT_DIR = f"{OUT}/result"
TEMPORARY = f"{ROOT}/tmp"
SCRIPT = f"{ROOT}/script.sh"

#: Labels of all that an attempt makes. By the first, whoever ends the ant's work finds it.
ANT_LABEL = "formicary.ant"
JOB_LABEL = "formicary.job"
TASK_LABEL = "formicary.task"
ATTEMPT_LABEL = "formicary.attempt"
ROLE_LABEL = "formicary.role"
#: Seconds after which a container belongs to nobody any more, whatever became of its ant.
LIMIT_LABEL = "formicary.limit_s"

#: A longer script is sent as a file: the kernel takes no argument above 128 KiB.
MAX_ARGUMENT_BYTES = 64 * 1024
#: How long a container may outlive its task's time limit, in seconds: for its image, its after_script, its files.
LIMIT_MARGIN_S = 1800.0

#: A shell that is a container's first process ignores TERM unless it traps it.
_PRELUDE = f"trap 'exit 143' TERM; mkdir -p {RESULT_DIR} {TEMPORARY} 2>/dev/null || :; "
_MIN_MEMORY_BYTES = 6 * 1024 * 1024
_SERVICE_NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_NANO = 1_000_000_000
_CPU_SHARES = 1024
_ALONE = ("none", "host")


@dataclass(frozen=True, slots=True)
class Plan:
    """How an attempt's main container is made, and what it is sent first."""

    config: Json
    working_dir: str
    #: The script as a file; None where it is an argument, or where there is none.
    script_file: bytes | None
    #: It must be sent folders (and the script) before it starts.
    needs_folders: bool
    #: User and group of what it is sent, where they are known by number.
    owner: tuple[int, int] | None


def check_spec(spec: DockerSpec, attempt: Attempt) -> None:
    """Checks what no parser could: rendered values.

    Raises:
        SpecRefusedError: names the key, what is wrong with it and what would be right.
    """
    main = spec.container
    _check_resources("container", main)
    _check_volumes("container", main.volumes)
    _check_places(main)
    _check_texts("container", (main.image, main.user, main.working_dir, *main.entrypoint, *main.command))
    _check_texts("script", (*spec.before_script, *spec.script, *spec.after_script))
    _check_environment("environment", spec.environment, attempt)
    if main.working_dir and not PurePosixPath(main.working_dir).is_absolute():
        raise SpecRefusedError(f"container.working_dir: {main.working_dir!r} does not begin with /")
    if spec.services and main.network in _ALONE:
        message = f"container.network: {main.network} leaves no way to the services; remove one of them"
        raise SpecRefusedError(message)
    if spec.after_script and not (spec.script or spec.before_script):
        raise SpecRefusedError("after_script: there is no script that it could follow; write script too")
    for number, service in enumerate(spec.services):
        where = f"services[{number}]"
        if not _SERVICE_NAME.fullmatch(service.name):
            raise SpecRefusedError(f"{where}.name: {service.name!r} is no host name; use small letters, digits and -")
        _check_resources(where, service)
        _check_volumes(where, service.volumes)
        _check_texts(where, (service.image, service.user, *service.entrypoint, *service.command))
        _check_environment(f"{where}.environment", service.environment, None)


def main_plan(
    spec: DockerSpec, attempt: Attempt, image: ImageFacts, network: str | None, options: ExecutorOptions
) -> Plan:
    """Returns how the main container is made; ``network`` is the private one, where there are services."""
    main = spec.container
    lines = (*spec.before_script, *spec.script)
    text = "\n".join(lines)
    is_file = bool(lines) and (bool(spec.after_script) or len(text.encode()) > MAX_ARGUMENT_BYTES)
    user = main.user or image.user
    working_dir = main.working_dir or WORK
    config = {
        "Image": main.image,
        "Env": _environment(spec, attempt, image),
        "WorkingDir": working_dir,
        "User": main.user,
        "Labels": labels(attempt, "main", options),
        **_command(main, text if lines else None, is_file),
        "HostConfig": {
            **_resources(main),
            **_mounts(main.volumes),
            "NetworkMode": network or main.network or "default",
            "Privileged": main.privileged,
            "Devices": [_device(device) for device in main.devices],
            "LogConfig": {"Type": "none"},
        },
    }
    return Plan(
        config=config,
        working_dir=working_dir,
        script_file=text.encode() + b"\n" if is_file else None,
        needs_folders=is_file or not lines or not _is_root(user),
        owner=_owner(user),
    )


def service_config(service: ServiceSpec, attempt: Attempt, network: str, options: ExecutorOptions) -> Json:
    """Returns how the container of a service is made."""
    marks = {name: value for name, value in attempt.environment.items() if name in _MARKS}
    return {
        "Image": service.image,
        "Env": [f"{name}={value}" for name, value in {**marks, **service.environment}.items()],
        "User": service.user,
        "Labels": labels(attempt, "service", options),
        **_own_command(service),
        "ExposedPorts": {f"{port}/tcp": {} for port in service.ports},
        "HostConfig": {
            **_resources(service),
            **_mounts(service.volumes),
            "NetworkMode": network,
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "1"}},
        },
        "NetworkingConfig": {"EndpointsConfig": {network: {"Aliases": [service.name]}}},
    }


def network_config(name: str, attempt: Attempt, options: ExecutorOptions) -> Json:
    """Returns how the private network of an attempt is made."""
    return {"Name": name, "CheckDuplicate": True, "Labels": labels(attempt, "network", options)}


def labels(attempt: Attempt, role: str, options: ExecutorOptions) -> dict[str, str]:
    """Returns what marks all that an attempt makes."""
    limit_s = attempt.timeout_s + options.shell_after_script_limit_s + LIMIT_MARGIN_S
    return {
        ANT_LABEL: attempt.environment.get("FORMICARY_ANT", ""),
        JOB_LABEL: attempt.job_id,
        TASK_LABEL: attempt.task_type,
        ATTEMPT_LABEL: str(attempt.number),
        ROLE_LABEL: role,
        LIMIT_LABEL: f"{limit_s:.0f}",
    }


#: What a service shares with the task: by it the ant's warden finds the processes of both on its own machine.
_MARKS = ("FORMICARY_JOB_ID", "FORMICARY_TASK_TYPE", "FORMICARY_ATTEMPT", "FORMICARY_ANT")


def _environment(spec: DockerSpec, attempt: Attempt, image: ImageFacts) -> list[str]:
    inside = {"FORMICARY_OUTPUT": OUTPUT_FILE, "FORMICARY_RESULT_DIR": RESULT_DIR, "TMPDIR": TEMPORARY}
    language = {} if "LANG" in image.environment else {"LANG": "C.UTF-8"}
    variables = {**language, **attempt.environment, **inside, **spec.environment}
    return [f"{name}={value}" for name, value in variables.items()]


def _command(main: ContainerSpec, script: str | None, is_file: bool) -> Json:
    if script is None:
        return _own_command(main)
    text = f"{_PRELUDE}. {shlex.quote(SCRIPT)}" if is_file else _PRELUDE + script
    return {"Entrypoint": [*main.entrypoint, "sh", "-e", "-c", text], "Cmd": []}


def _own_command(spec: ContainerSpec | ServiceSpec) -> Json:
    """Returns entrypoint and command as far as they are given; the image's count where they are not."""
    given: Json = {}
    if spec.entrypoint:
        given["Entrypoint"] = list(spec.entrypoint)
    if spec.command:
        given["Cmd"] = list(spec.command)
    return given


def _resources(spec: ContainerSpec | ServiceSpec) -> Json:
    given: Json = {}
    if spec.cpu_limit:
        given["NanoCpus"] = int(parse_cpu(spec.cpu_limit) * _NANO)
    if spec.cpu_request:
        given["CpuShares"] = max(2, int(parse_cpu(spec.cpu_request) * _CPU_SHARES))
    if spec.memory_limit:
        given["Memory"] = given["MemorySwap"] = parse_size(spec.memory_limit)
    if spec.memory_request:
        given["MemoryReservation"] = parse_size(spec.memory_request)
    return given


def _mounts(volumes: tuple[VolumeSpec, ...]) -> Json:
    mounts: list[Json] = []
    in_memory: dict[str, str] = {}
    for volume in volumes:
        if volume.empty_dir is not None and volume.empty_dir.medium == "Memory":
            in_memory[volume.mount_path] = _memory_options(volume.empty_dir)
            continue
        kind, source = ("bind", volume.host_path) if volume.host_path else ("volume", volume.volume)
        mount = {"Type": kind, "Target": volume.mount_path, "ReadOnly": volume.read_only}
        mounts.append({**mount, "Source": source} if source else mount)
    return {"Mounts": mounts, "Tmpfs": in_memory}


def _memory_options(folder: EmptyDirSpec) -> str:
    options = ["mode=1777"]
    if folder.size_limit:
        options.append(f"size={parse_size(folder.size_limit)}")
    return ",".join(options)


def _device(text: str) -> Json:
    host, _, rest = text.partition(":")
    inside, _, rights = rest.partition(":")
    return {"PathOnHost": host, "PathInContainer": inside or host, "CgroupPermissions": rights or "rwm"}


def _is_root(user: str) -> bool:
    return user.partition(":")[0] in ("", "0", "root")


def _owner(user: str) -> tuple[int, int] | None:
    """Returns the numbers of ``1000`` or ``1000:1000``; None where there are names in it."""
    name, _, group = user.partition(":")
    if _is_root(user):
        return 0, 0
    if not name.isdigit() or (group and not group.isdigit()):
        return None
    return int(name), int(group or 0)


def _check_resources(where: str, spec: ContainerSpec | ServiceSpec) -> None:
    for key, parse in (
        ("cpu_limit", parse_cpu),
        ("cpu_request", parse_cpu),
        ("memory_limit", parse_size),
        ("memory_request", parse_size),
    ):
        text = getattr(spec, key)
        if not text:
            continue
        try:
            amount = parse(text)
        except ValueError as exc:
            raise SpecRefusedError(f"{where}.{key}: {exc}") from exc
        if parse is parse_size and amount < _MIN_MEMORY_BYTES:
            raise SpecRefusedError(f"{where}.{key}: {text} is too little for a container; give it at least 6Mi")


def _check_volumes(where: str, volumes: tuple[VolumeSpec, ...]) -> None:
    for number, volume in enumerate(volumes):
        here = f"{where}.volumes[{number}]"
        if not PurePosixPath(volume.mount_path).is_absolute():
            raise SpecRefusedError(f"{here}.mount_path: {volume.mount_path!r} does not begin with /")
        if volume.empty_dir is not None:
            _check_empty_dir(here, volume, volume.empty_dir)


def _check_places(main: ContainerSpec) -> None:
    """Checks that no volume hides what is sent to the container, or fetched from it."""
    for number, volume in enumerate(main.volumes):
        here, mount = f"container.volumes[{number}]", volume.mount_path
        if covers(mount, OUT) or covers(OUT, mount) or covers(mount, SCRIPT):
            message = f"{here}.mount_path: {mount} holds formicary's own files"
            raise SpecRefusedError(f"{message}; mount it elsewhere, such as at {WORK} or {TEMPORARY}")
        is_memory = volume.empty_dir is not None and volume.empty_dir.medium == "Memory"
        if is_memory and covers(mount, main.working_dir or WORK):
            message = f"{here}.empty_dir.medium: files can be sent to the working directory, and fetched from it"
            raise SpecRefusedError(f"{message}, only where it is not in memory; leave out Memory, or mount it below")


def covers(mount: str, path: str) -> bool:
    """Tells whether a path lies in what is mounted at another."""
    return _plain(path).is_relative_to(_plain(mount))


def _plain(path: str) -> PurePosixPath:
    return PurePosixPath(posixpath.normpath("/" + path.lstrip("/")))


def _check_empty_dir(here: str, volume: VolumeSpec, folder: EmptyDirSpec) -> None:
    if volume.read_only:
        raise SpecRefusedError(f"{here}.read_only: an empty folder that takes nothing is of no use; remove it")
    if folder.size_limit and folder.medium != "Memory":
        raise SpecRefusedError(f"{here}.empty_dir.size_limit: the engine limits only those with medium: Memory")
    try:
        parse_size(folder.size_limit or "0")
    except ValueError as exc:
        raise SpecRefusedError(f"{here}.empty_dir.size_limit: {exc}") from exc


def _check_environment(where: str, environment: Mapping[str, str], attempt: Attempt | None) -> None:
    for name, value in environment.items():
        if not name or "=" in name or "\0" in name:
            raise SpecRefusedError(f"{where}: {name!r} is no name of a variable; use letters, digits and _")
        if attempt is not None and name in attempt.environment:
            raise SpecRefusedError(f"{where}: {name} is set by formicary; choose another name")
        _check_texts(f"{where}.{name}", (value,))


def _check_texts(where: str, texts: tuple[str, ...]) -> None:
    for text in texts:
        if "\0" in text:
            raise SpecRefusedError(f"{where}: holds a NUL character, which no process can be given; remove it")
        try:
            text.encode()
        except UnicodeEncodeError as exc:
            raise SpecRefusedError(f"{where}: character {exc.start} is half of a surrogate pair; remove it") from exc
