"""What each method runs: rendered values only, ready for the wire.

The same structs, holding templates instead of values, are part of a task's definition.
"""

from typing import Any

import msgspec

Json = Any  # a JSON value; the codecs are where it is checked


class Limits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The most that a script may use; None leaves it to the ant."""

    cpu_time_s: float | None = None
    memory_bytes: int | None = None
    open_files: int | None = None
    processes: int | None = None


class ShellSpec(msgspec.Struct, frozen=True, kw_only=True, tag="SHELL", omit_defaults=True):
    """A script for ``sh -e``; the lines of each list are joined by newlines.

    ``after_script`` runs in a shell of its own whatever happened before, and changes no result.
    """

    script: tuple[str, ...] = ()
    before_script: tuple[str, ...] = ()
    after_script: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    limits: Limits | None = None


class HttpSpec(msgspec.Struct, frozen=True, kw_only=True, tag="HTTP", omit_defaults=True):
    """One HTTP request; ``method`` is one of the HTTP_* task methods, ``body`` JSON, ``form`` URL-encoded."""

    method: str
    url: str
    headers: dict[str, str] = {}
    query: dict[str, str] = {}
    body: Json = None
    form: dict[str, str] | None = None


class PythonSpec(msgspec.Struct, frozen=True, kw_only=True, tag="PYTHON", omit_defaults=True):
    """A call of ``package.module:name`` with JSON arguments."""

    function: str
    args: tuple[Json, ...] = ()
    kwargs: dict[str, Json] = {}
    in_process_pool: bool = False


class RegistrySpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who pulls an image. ``server`` is the registry's name; empty: the one in the image's name."""

    username: str
    password: str
    server: str = ""


class TokenSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A token of the pod's service account, as a file of a projected volume."""

    path: str
    audience: str = ""
    expires_after_s: float = msgspec.field(default=3600.0, name="expires_after")


class ProjectedSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One source of a projected volume: exactly one of ``config_map``, ``secret`` and ``service_account_token``.

    ``items`` maps keys to paths; without it every key is a file.
    """

    config_map: str = ""
    secret: str = ""
    service_account_token: TokenSpec | None = None
    items: dict[str, str] = {}


class EmptyDirSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A folder that lives as long as the attempt; with ``medium`` Memory in memory. ``size_limit`` is a size."""

    medium: str = ""
    size_limit: str = ""


class VolumeSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is mounted at ``mount_path``: exactly one of ``volume`` … ``empty_dir``.

    ``volume`` is a named volume of the engine. ``items`` (keys to paths) goes with ``config_map`` and ``secret``.
    """

    mount_path: str
    read_only: bool = False
    sub_path: str = ""
    volume: str = ""
    host_path: str = ""
    pvc: str = ""
    config_map: str = ""
    secret: str = ""
    items: dict[str, str] = {}
    projected: tuple[ProjectedSpec, ...] = ()
    empty_dir: EmptyDirSpec | None = None


class ContainerSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The main container. Sizes and processors are texts as in ``executors.quantities``; empty: not set.

    With a script the container runs ``entrypoint`` + ``sh -e SCRIPT`` and the image's own entrypoint counts for
    nothing; without one it runs ``entrypoint`` + ``command``, each by default the image's own. ``working_dir`` is
    where the artifacts are. ``registry``, ``network`` and ``devices`` (``HOST[:CONTAINER[:rwm]]``) are DOCKER's.
    """

    image: str
    image_pull_policy: str = "IfNotPresent"
    registry: RegistrySpec | None = None
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    cpu_limit: str = ""
    cpu_request: str = ""
    memory_limit: str = ""
    memory_request: str = ""
    volumes: tuple[VolumeSpec, ...] = ()
    network: str = ""
    devices: tuple[str, ...] = ()
    privileged: bool = False


class ReadySpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When a service is ready: something listens on ``port``, or ``command``, run in its container, exits with 0."""

    port: int | None = None
    command: tuple[str, ...] = ()
    timeout_s: float = msgspec.field(default=60.0, name="timeout")


class ServiceSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A container beside the main one, which reaches it under ``name``; without ``ready`` it need only have started."""

    name: str
    image: str
    image_pull_policy: str = "IfNotPresent"
    registry: RegistrySpec | None = None
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    environment: dict[str, str] = {}
    user: str = ""
    cpu_limit: str = ""
    cpu_request: str = ""
    memory_limit: str = ""
    memory_request: str = ""
    volumes: tuple[VolumeSpec, ...] = ()
    ready: ReadySpec | None = None


class DockerSpec(msgspec.Struct, frozen=True, kw_only=True, tag="DOCKER", omit_defaults=True):
    """A container of an engine, with services beside it. The lines are those of ``ShellSpec``."""

    container: ContainerSpec
    services: tuple[ServiceSpec, ...] = ()
    script: tuple[str, ...] = ()
    before_script: tuple[str, ...] = ()
    after_script: tuple[str, ...] = ()
    environment: dict[str, str] = {}


class TolerationSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A taint that the pod puts up with. Without ``value`` any value of ``key``; without ``key`` every taint."""

    key: str = ""
    value: str = ""
    effect: str = ""
    for_s: float | None = msgspec.field(default=None, name="for")


class EnvironmentSourceSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Variables from exactly one of ``config_map`` and ``secret``, each with ``prefix`` in front of its name."""

    config_map: str = ""
    secret: str = ""
    prefix: str = ""
    optional: bool = False


class SecuritySpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the processes of the pod may do and as whom they run; None and empty: the cluster's default."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool = False
    fs_group: int | None = None
    supplemental_groups: tuple[int, ...] = ()
    read_only_root_filesystem: bool = False
    allow_privilege_escalation: bool = False
    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()


class KubernetesSpec(msgspec.Struct, frozen=True, kw_only=True, tag="KUBERNETES", omit_defaults=True):
    """A pod of a cluster: the main container, with services beside it. The lines are those of ``ShellSpec``.

    ``affinity`` is written as in the cluster's own manifests. ``schedule_timeout_s`` is how long the pod may wait for a
    node; None: as long as the ant says.
    """

    container: ContainerSpec
    services: tuple[ServiceSpec, ...] = ()
    script: tuple[str, ...] = ()
    before_script: tuple[str, ...] = ()
    after_script: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    env_from: tuple[EnvironmentSourceSpec, ...] = ()
    node_selector: dict[str, str] = {}
    tolerations: tuple[TolerationSpec, ...] = ()
    affinity: dict[str, Json] = {}
    pod_labels: dict[str, str] = {}
    pod_annotations: dict[str, str] = {}
    service_account: str = ""
    image_pull_secrets: tuple[str, ...] = ()
    host_network: bool = False
    priority_class: str = ""
    security_context: SecuritySpec | None = None
    schedule_timeout_s: float | None = msgspec.field(default=None, name="schedule_timeout")


class MessagingSpec(msgspec.Struct, frozen=True, kw_only=True, tag="MESSAGING", omit_defaults=True):
    """A request on a topic of the broker; without ``reply_topic`` the ant listens to one of its own.

    ``key`` chooses the ordering lane within the topic, by default the job; ``headers`` are the message's.
    """

    topic: str
    reply_topic: str = ""
    key: str = ""
    headers: dict[str, str] = {}
    body: Json = None


class WebsocketSpec(msgspec.Struct, frozen=True, kw_only=True, tag="WEBSOCKET", omit_defaults=True):
    """Work for a remote worker that offers ``worker_method`` and has all ``worker_tags``; ``payload`` is any JSON."""

    worker_method: str
    worker_tags: tuple[str, ...] = ()
    payload: Json = None


class DummySpec(msgspec.Struct, frozen=True, kw_only=True, tag="DUMMY", omit_defaults=True):
    """What the strict dummy does, in place of real work; for tests and simulations."""

    exit_code: int = 0
    duration_s: float = 0.0
    lines: tuple[str, ...] = ()
    outputs: dict[str, Json] = {}
    fail_start: bool = False
    ignore_stop: bool = False


Spec = ShellSpec | HttpSpec | PythonSpec | DockerSpec | KubernetesSpec | WebsocketSpec | MessagingSpec | DummySpec

HTTP_METHODS = (
    "HTTP_GET",
    "HTTP_POST_JSON",
    "HTTP_POST_FORM",
    "HTTP_PUT_JSON",
    "HTTP_PUT_FORM",
    "HTTP_PATCH_JSON",
    "HTTP_DELETE",
)
