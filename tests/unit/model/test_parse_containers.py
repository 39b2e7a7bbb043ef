"""The keys of tasks that run in containers; the methods themselves may not be served yet."""

import jsonschema
import msgspec
import pytest

from executors.specs import (
    ContainerSpec,
    DockerSpec,
    EmptyDirSpec,
    KubernetesSpec,
    ProjectedSpec,
    ReadySpec,
    RegistrySpec,
    ServiceSpec,
    Spec,
    TokenSpec,
    VolumeSpec,
)
from formicary.errors import Problem
from formicary.events.orders import Order
from formicary.model.definition import TaskDefinition
from formicary.model.parse_keys import ALL_METHOD_KEYS
from formicary.model.parse_kinds import AnyJson, key_schema
from formicary.model.parse_problems import Problems
from formicary.model.parse_task import TaskKind
from formicary.model.parse_templates import task_templates
from formicary.model.parse_yaml import Node, locator, read_document
from formicary.template.context import JobScope, TaskContext
from formicary.template.errors import TemplateError
from formicary.template.task import CompiledTask

TASK = "task_type: t\nmethod: {method}\n{keys}\n"
FULL_DOCKER = """
container:
  image: registry.example.org/team/app:1
  image_pull_policy: Always
  registry: {username: me, password: "{{ registry_password }}"}
  entrypoint: [tini, --]
  user: 1000
  working_dir: /src
  cpu_limit: 1.5
  cpu_request: 500m
  memory_limit: 64Mi
  memory_request: 32Mi
  network: none
  devices: /dev/fuse
  privileged: true
  volumes:
    - {mount_path: /data, volume: data}
    - {mount_path: /host, host_path: /srv, read_only: true}
    - {mount_path: /scratch, empty_dir: {medium: Memory, size_limit: 16Mi}}
services:
  - name: db
    image: postgres:16
    command: [postgres, -c, fsync=off]
    ports: [5432]
    environment: {POSTGRES_PASSWORD: pw}
    memory_limit: "{{ db_memory }}"
    ready: {command: pg_isready -U postgres, timeout: 30s}
  - {name: cache, image: redis, ready: {port: 6379}}
before_script: [a]
script: [b]
after_script: [c]
environment: {D: 1}
"""
FULL_KUBERNETES = """
container:
  image: app
  volumes:
    - {mount_path: /a, pvc: claim, sub_path: x}
    - {mount_path: /b, config_map: settings, items: {key: path}}
    - {mount_path: /c, secret: keys}
    - mount_path: /d
      projected:
        - {secret: keys}
        - {service_account_token: {path: token, audience: vault, expires_after: 10m}}
    - {mount_path: /e, empty_dir: {}}
services: [{name: db, image: postgres}]
script: x
"""


def node_of(keys: str, method: str) -> Node:
    root, mistakes = read_document(TASK.format(method=method, keys=keys), "x")
    assert mistakes == []
    return root


def converted(keys: str, method: str = "DOCKER") -> tuple[TaskDefinition, list[Problem]]:
    root = node_of(keys, method)
    problems = Problems(locator(root))
    task = TaskKind().convert(root, (), problems)
    return task, [each for each in problems.listed() if "is not supported yet" not in each.message]


def spec_of(keys: str, method: str = "DOCKER") -> Spec:
    task, problems = converted(keys, method)
    assert problems == []
    return task.spec


def test_every_key_of_docker_is_in_its_spec() -> None:
    assert spec_of(FULL_DOCKER) == DockerSpec(
        container=ContainerSpec(
            image="registry.example.org/team/app:1",
            image_pull_policy="Always",
            registry=RegistrySpec(username="me", password="{{ registry_password }}"),
            entrypoint=("tini", "--"),
            user="1000",
            working_dir="/src",
            cpu_limit="1.5",
            cpu_request="500m",
            memory_limit="64Mi",
            memory_request="32Mi",
            network="none",
            devices=("/dev/fuse",),
            privileged=True,
            volumes=(
                VolumeSpec(mount_path="/data", volume="data"),
                VolumeSpec(mount_path="/host", host_path="/srv", read_only=True),
                VolumeSpec(mount_path="/scratch", empty_dir=EmptyDirSpec(medium="Memory", size_limit="16Mi")),
            ),
        ),
        services=(
            ServiceSpec(
                name="db",
                image="postgres:16",
                command=("postgres", "-c", "fsync=off"),
                ports=(5432,),
                environment={"POSTGRES_PASSWORD": "pw"},
                memory_limit="{{ db_memory }}",
                ready=ReadySpec(command=("sh", "-c", "pg_isready -U postgres"), timeout_s=30),
            ),
            ServiceSpec(name="cache", image="redis", ready=ReadySpec(port=6379)),
        ),
        before_script=("a",),
        script=("b",),
        after_script=("c",),
        environment={"D": "1"},
    )


def test_every_source_of_a_volume_of_kubernetes_is_in_its_spec() -> None:
    spec = spec_of(FULL_KUBERNETES, "KUBERNETES")

    assert isinstance(spec, KubernetesSpec)
    assert spec.container.volumes == (
        VolumeSpec(mount_path="/a", pvc="claim", sub_path="x"),
        VolumeSpec(mount_path="/b", config_map="settings", items={"key": "path"}),
        VolumeSpec(mount_path="/c", secret="keys"),
        VolumeSpec(
            mount_path="/d",
            projected=(
                ProjectedSpec(secret="keys"),
                ProjectedSpec(
                    service_account_token=TokenSpec(path="token", audience="vault", expires_after_s=600),
                ),
            ),
        ),
        VolumeSpec(mount_path="/e", empty_dir=EmptyDirSpec()),
    )


@pytest.mark.parametrize(("keys", "method"), [(FULL_DOCKER, "DOCKER"), (FULL_KUBERNETES, "KUBERNETES")])
def test_a_spec_crosses_the_wire_as_it_is(keys: str, method: str) -> None:
    task, _ = converted(keys, method)

    order = Order(job_type="j", task_type="t", method=method, spec=task.spec, timeout_s=1)

    assert msgspec.msgpack.decode(msgspec.msgpack.encode(order), type=Order) == order
    assert msgspec.json.decode(msgspec.json.encode(order), type=Order) == order


def test_templates_are_found_and_rendered_wherever_they_stand() -> None:
    task, _ = converted(FULL_DOCKER)
    context = TaskContext(JobScope(params={"registry_password": "secret", "db_memory": "1Gi"}), {}, {})

    spec = CompiledTask(task, "t").render(context).spec

    assert isinstance(spec, DockerSpec)
    assert spec.container.registry == RegistrySpec(username="me", password="secret")
    assert [service.memory_limit for service in spec.services] == ["1Gi", ""]
    assert spec.container.volumes[0] == VolumeSpec(mount_path="/data", volume="data")
    assert [path for path, _ in task_templates(0, task)] == [
        ("tasks", 0, "container", "registry", "password"),
        ("tasks", 0, "services", 0, "memory_limit"),
    ]


def test_a_template_that_fails_names_its_place() -> None:
    task, _ = converted("container: {image: '{{ nothing }}'}\nscript: x")

    with pytest.raises(TemplateError, match=r"t\.container\.image"):
        CompiledTask(task, "t").render(TaskContext(JobScope(params={}), {}, {}))


def test_a_spec_without_templates_is_constant() -> None:
    task, _ = converted("container: {image: a}\nservices: [{name: b, image: c}]")
    assert CompiledTask(task, "t").is_constant


@pytest.mark.parametrize(
    ("keys", "path", "words"),
    [
        ("script: x", "", '"container" is missing'),
        ("container: {}", "container", '"image" is missing'),
        ("container: {image: a b}", "container.image", "without spaces"),
        ("container: {image: a, imagee: b}", "container.imagee", 'did you mean "image"?'),
        ("container: {image: a, image_pull_policy: always}", "container.image_pull_policy", '"Always"'),
        ("container: {image: a, memory_limit: 64MB3}", "container.memory_limit", "64MB3"),
        ("container: {image: a, memory_limit: [1]}", "container.memory_limit", "a size like 64Mi"),
        ("container: {image: a, cpu_limit: 0}", "container.cpu_limit", "leaves no processor"),
        ("container: {image: a, cpu_limit: two}", "container.cpu_limit", "2, 0.5 or 500m"),
        ("container: {image: a, working_dir: src}", "container.working_dir", "begin with /"),
        ("container: {image: a, privileged: yes}", "container.privileged", "true or false"),
        ("container: {image: a, entrypoint: []}", "container.entrypoint", "empty"),
        ("container: {image: a, registry: {username: b}}", "container.registry", '"password" is missing'),
        ("container: {image: a, volumes: [{mount_path: /b}]}", "container.volumes[0]", "volume, host_path, empty_dir"),
        (
            "container: {image: a, volumes: [{mount_path: /b, volume: c, host_path: /d}]}",
            "container.volumes[0].host_path",
            "both given",
        ),
        (
            "container: {image: a, volumes: [{mount_path: /b, pvc: c}]}",
            "container.volumes[0].pvc",
            "no volume of DOCKER",
        ),
        ("container: {image: a}\nservices: [{name: DB, image: a}]", "services[0].name", "host name"),
        ("container: {image: a}\nservices: [{image: a}]", "services[0]", '"name" is missing'),
        (
            "container: {image: a}\nservices: [{name: b, image: a}, {name: b, image: a}]",
            "services[1].name",
            'two services are called "b"',
        ),
        ("container: {image: a}\nservices: [{name: b, image: a, ports: [0]}]", "services[0].ports[0]", "out of range"),
        ("container: {image: a}\nservices: [{name: b, image: a, ready: {}}]", "services[0].ready", "port, command"),
        (
            "container: {image: a}\nservices: [{name: b, image: a, ready: {port: 1, command: x}}]",
            "services[0].ready.command",
            "both given",
        ),
    ],
)
def test_a_wrong_key_says_where_it_is_and_what_would_be_right(keys: str, path: str, words: str) -> None:
    _, problems = converted(keys)

    assert [problem.path for problem in problems if words in problem.text("job.yaml")] == [path], problems
    assert all(problem.line for problem in problems)


@pytest.mark.parametrize("key", ["network", "devices", "registry"])
def test_what_only_an_engine_has_is_unknown_to_kubernetes(key: str) -> None:
    _, problems = converted(f"container: {{image: a, {key}: none}}", "KUBERNETES")
    assert [problem.path for problem in problems if problem.line] == [f"container.{key}"]


@pytest.mark.parametrize(("keys", "method"), [(FULL_DOCKER, "DOCKER"), (FULL_KUBERNETES, "KUBERNETES")])
def test_the_schema_takes_what_the_parser_takes(keys: str, method: str) -> None:
    schema = {word: key_schema(key) for word, key in ALL_METHOD_KEYS[method].items()}
    root = node_of(keys, method)
    instance = AnyJson().convert(root, (), Problems(locator(root)))

    validator = jsonschema.Draft202012Validator({"type": "object", "properties": schema})
    validator.validate(instance)
    instance["container"]["memory_limit"] = "much"
    assert not validator.is_valid(instance)
