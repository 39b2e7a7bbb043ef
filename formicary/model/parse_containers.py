"""The keys of tasks that run in containers: DOCKER and KUBERNETES."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from executors.quantities import CPU_PATTERN, SIZE_PATTERN, parse_cpu, parse_size
from formicary.model.parse_kinds import (
    Choice,
    Duration,
    Flag,
    Key,
    Kind,
    ListOf,
    Number,
    Record,
    Schema,
    Text,
    TextMap,
)
from formicary.model.parse_problems import Path, Problems
from formicary.model.parse_yaml import Node

Json = Any  # a JSON value

#: More services of a task are refused.
MAX_SERVICES = 32


@dataclass(frozen=True)
class Quantity:
    """A size or a share of processors, kept as written; a template is checked once it is rendered."""

    parse: Callable[[str], float]
    what: str
    pattern: str

    def convert(self, node: Node, path: Path, problems: Problems) -> str:
        """Returns the text as written."""
        if isinstance(node.value, dict | list | bool) or node.value is None:
            problems.add(path, f"expected {self.what}, got {node.kind}")
        elif "{{" not in node.text:
            try:
                self.parse(node.text)
            except ValueError as error:
                problems.add(path, str(error))
        return node.text

    def schema(self) -> Schema:
        """Returns the schema of the quantity; a template is any text that holds one."""
        written: Schema = {"type": "string", "pattern": self.pattern}
        return {"anyOf": [written, {"type": "number", "minimum": 0}, {"type": "string", "pattern": r"\{\{"}]}


@dataclass(frozen=True)
class Command:
    """The words of a command: a list, or a text for ``sh -c``."""

    def convert(self, node: Node, path: Path, problems: Problems) -> tuple[str, ...]:
        """Returns the words."""
        if isinstance(node.value, str):
            return ("sh", "-c", node.value)
        words: tuple[str, ...] = _WORDS.convert(node, path, problems)
        return words

    def schema(self) -> Schema:
        """Returns the schema of a command."""
        return {"anyOf": [{"type": "string"}, _WORDS.schema()]}


@dataclass(frozen=True)
class OneOf:
    """A record of which exactly one of some keys must be given."""

    record: Record
    words: tuple[str, ...]

    def convert(self, node: Node, path: Path, problems: Problems) -> dict[str, Json]:
        """Returns the converted values by key."""
        values = self.record.convert(node, path, problems)
        if isinstance(node.value, dict):
            given = [word for word in self.words if word in node.value]
            if not given:
                problems.add(path, f"nothing says what {self.record.name} is", f"give one of {', '.join(self.words)}")
            elif len(given) > 1:
                message = f"{' and '.join(given)} are both given"
                problems.add((*path, given[1]), message, "keep one of them", at_key=True)
        return values

    def schema(self) -> Schema:
        """Returns the schema of the record."""
        return {**self.record.schema(), "oneOf": [{"required": [word]} for word in self.words]}


_WORDS = ListOf(Text(is_loose=True), min_items=1)
_SIZE = Quantity(parse_size, "a size like 64Mi", SIZE_PATTERN)
_CPU = Quantity(parse_cpu, "a number of processors like 0.5 or 500m", CPU_PATTERN)
_IMAGE = Text(
    pattern=r"^[^\s]+$|\{\{", pattern_hint="write it like registry.example.org/team/image:tag, without spaces"
)
_PATH = Text(pattern=r"^/|\{\{", pattern_hint="begin with /")
_SERVICE_NAME = Text(
    pattern=r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$",
    pattern_hint="use 1 to 63 small letters, digits and -, as in a host name, and begin with a letter",
)
_PULL_POLICY = Choice(
    ("Always", "IfNotPresent", "Never"),
    {
        "Always": "Ask the registry each time.",
        "IfNotPresent": "Pull it where it is not there yet.",
        "Never": "Fail where it is not there.",
    },
)

_SOURCES = {
    "volume": Key(Text(is_loose=True), "A named volume of the engine; it is made on first use."),
    "host_path": Key(_PATH, "A file or folder of the machine that runs the container, where the ant allows it."),
    "empty_dir": Key(
        Record(
            name="empty_dir",
            keys={
                "medium": Key(Choice(("Memory",)), "Memory: it lives in memory."),
                "size_limit": Key(_SIZE, "The most that it holds."),
            },
        ),
        "An empty folder that lives as long as the attempt.",
    ),
    "pvc": Key(Text(is_loose=True), "A persistent volume claim."),
    "config_map": Key(Text(is_loose=True), "A config map."),
    "secret": Key(Text(is_loose=True), "A secret of the cluster."),
    "projected": Key(
        ListOf(
            OneOf(
                Record(
                    name="a source",
                    keys={
                        "config_map": Key(Text(is_loose=True), "A config map."),
                        "secret": Key(Text(is_loose=True), "A secret of the cluster."),
                        "items": Key(TextMap(), "Which keys become files, and their paths."),
                        "service_account_token": Key(
                            Record(
                                name="service_account_token",
                                keys={
                                    "path": Key(Text(), "The file's path.", is_required=True),
                                    "audience": Key(Text(), "Whom the token is meant for."),
                                    "expires_after": Key(Duration(is_positive=True), "Its life.", default="1h"),
                                },
                            ),
                            "A token of the pod's service account.",
                        ),
                    },
                ),
                ("config_map", "secret", "service_account_token"),
            ),
            min_items=1,
        ),
        "Several sources in one folder.",
    ),
}
_DOCKER_SOURCES = ("volume", "host_path", "empty_dir")
_KUBERNETES_SOURCES = ("host_path", "empty_dir", "pvc", "config_map", "secret", "projected")


def _volumes(method: str, sources: tuple[str, ...], more: dict[str, Key]) -> Key:
    keys = {
        "mount_path": Key(_PATH, "Where it is mounted.", is_required=True),
        "read_only": Key(Flag(), "It cannot be written to.", default=False),
        **{word: _SOURCES[word] for word in sources},
        **more,
    }
    elsewhere = {word: f'"{word}" is no volume of {method}' for word in _SOURCES if word not in sources}
    record = Record(name="a volume", keys=keys, elsewhere=elsewhere)
    return Key(ListOf(OneOf(record, sources)), "What is mounted into the container.")


_DOCKER_VOLUMES = _volumes("DOCKER", _DOCKER_SOURCES, {})
_KUBERNETES_VOLUMES = _volumes(
    "KUBERNETES",
    _KUBERNETES_SOURCES,
    {
        "items": Key(TextMap(), "Which keys become files, and their paths."),
        "sub_path": Key(Text(), "The part of it that is mounted."),
    },
)
_IMAGE_KEYS = {
    "image": Key(_IMAGE, "The image that it runs.", is_required=True),
    "image_pull_policy": Key(_PULL_POLICY, "When the image is pulled.", default="IfNotPresent"),
    "entrypoint": Key(Command(), "What runs in place of the image's entrypoint; a text is one for sh -c."),
    "command": Key(Command(), "Its arguments, in place of the image's; a text is one for sh -c."),
    "user": Key(Text(is_loose=True), "The user, or user:group, that runs it."),
}
_RESOURCE_KEYS = {
    "cpu_limit": Key(_CPU, "The most processors it may use, like 0.5 or 500m."),
    "cpu_request": Key(_CPU, "The processors it is meant to have."),
    "memory_limit": Key(_SIZE, "The most memory it may use, like 512Mi."),
    "memory_request": Key(_SIZE, "The memory it is meant to have."),
}
_REGISTRY = {
    "registry": Key(
        Record(
            name="registry",
            keys={
                "username": Key(Text(is_loose=True), "The user.", is_required=True),
                "password": Key(Text(is_loose=True), "The password or token.", is_required=True),
                "server": Key(Text(), "The registry's name, where it is not the one in the image's name."),
            },
        ),
        "Who pulls the image; without it the engine's own logins of the ant count.",
    ),
}
_MAIN_KEYS = {
    **_IMAGE_KEYS,
    **_RESOURCE_KEYS,
    "working_dir": Key(_PATH, "Where the script runs and its artifacts are.", default="/formicary/work"),
    "privileged": Key(Flag(), "All rights on the machine, where the ant allows it.", default=False),
}
_READY = OneOf(
    Record(
        name="ready",
        keys={
            "port": Key(Number(1, 65535), "Ready when something listens on this port."),
            "command": Key(Command(), "Ready when this, run in the service's container, exits with 0."),
            "timeout": Key(Duration(is_positive=True), "The task fails when it takes longer.", default="1m"),
        },
    ),
    ("port", "command"),
)
_SERVICE_KEYS = {
    "name": Key(_SERVICE_NAME, "The name under which the task reaches it.", is_required=True),
    **_IMAGE_KEYS,
    **_RESOURCE_KEYS,
    "ports": Key(ListOf(Number(1, 65535), takes_one=True, is_unique=True), "The ports that it listens on."),
    "environment": Key(TextMap(), "Its environment variables."),
    "ready": Key(_READY, "How to tell that it is ready; without it, it need only have started."),
}


@dataclass(frozen=True)
class Services:
    """``services``: each has a name of its own."""

    record: Record

    def convert(self, node: Node, path: Path, problems: Problems) -> tuple[dict[str, Json], ...]:
        """Returns the services."""
        services: tuple[dict[str, Json], ...] = self._items().convert(node, path, problems)
        seen: set[str] = set()
        for no, service in enumerate(services):
            name = service.get("name", "")
            if name and name in seen:
                problems.add((*path, no, "name"), f'two services are called "{name}"', "give each its own name")
            seen.add(name)
        return services

    def schema(self) -> Schema:
        """Returns the schema of the services."""
        return self._items().schema()

    def _items(self) -> ListOf:
        return ListOf(self.record, max_items=MAX_SERVICES)


def _keys(container: dict[str, Key], service: dict[str, Key]) -> dict[str, Key]:
    lines = ListOf(Text(is_loose=True), takes_one=True)
    main: Kind = Record(name="container", keys=container)
    services: Kind = Services(Record(name="a service", keys=service))
    return {
        "container": Key(main, "The container of the task.", is_required=True),
        "services": Key(services, "Containers that run beside it for as long as it runs."),
        "script": Key(lines, "Lines for one sh -e in the container; without them it runs the image's own command."),
        "before_script": Key(lines, "Lines that run before the script, in the same shell."),
        "after_script": Key(lines, "Lines that run whatever happened, and change no result."),
        "environment": Key(TextMap(), "Environment variables of the container."),
    }


DOCKER_KEYS = _keys(
    {
        **_MAIN_KEYS,
        **_REGISTRY,
        "volumes": _DOCKER_VOLUMES,
        "network": Key(Text(is_loose=True), "A network of the engine to join as well; none or host stand alone."),
        "devices": Key(ListOf(Text(), takes_one=True), "Devices, as HOST[:CONTAINER[:rwm]], where the ant allows it."),
    },
    {**_SERVICE_KEYS, **_REGISTRY, "volumes": _DOCKER_VOLUMES},
)
KUBERNETES_KEYS = _keys(
    {**_MAIN_KEYS, "volumes": _KUBERNETES_VOLUMES}, {**_SERVICE_KEYS, "volumes": _KUBERNETES_VOLUMES}
)
