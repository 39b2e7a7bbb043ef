from collections.abc import Iterator, Mapping
from typing import Any, get_args

import msgspec
import pytest
from msgspec.inspect import AnyType, DictType, NoneType, StrType, StructType, Type, UnionType, VarTupleType, type_info

from executors.specs import (
    ContainerSpec,
    DummySpec,
    HttpSpec,
    KubernetesSpec,
    MessagingSpec,
    PythonSpec,
    ShellSpec,
    Spec,
    WebsocketSpec,
)
from formicary.model.definition import ArtifactsPolicy, CachePolicy, JobDefinition, TaskDefinition
from formicary.model.jobs import ArtifactRef
from formicary.model.states import TaskState
from formicary.template.context import JobScope, TaskContext
from formicary.template.errors import TemplateError
from formicary.template.task import CompiledTask, RenderedTask, compile_task, is_skipped

EMPTY: Mapping[str, Any] = {}


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    state: TaskState = TaskState.COMPLETED
    exit_code: int | None = 0
    outputs: dict[str, Any] | None = None
    artifacts: tuple[ArtifactRef, ...] = ()


class Untouchable(Mapping[str, Any]):
    """Fails the test when anybody looks into it."""

    def __getitem__(self, key: str) -> Any:
        raise AssertionError(f"{key} was asked for")

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("the names were asked for")

    def __len__(self) -> int:
        raise AssertionError("the length was asked for")


def compiled(**fields: Any) -> CompiledTask:
    task = TaskDefinition(**{"task_type": "t", "method": "SHELL", "spec": ShellSpec(), **fields})
    return compile_task(task, JobDefinition(job_type="j", tasks=(task,)))


def context(tasks: Mapping[str, Facts] | None = None, **params: Any) -> TaskContext:
    return TaskContext(JobScope(params=params), {"job_id": "7"}, tasks or {})


def rendered(given: TaskContext, **fields: Any) -> RenderedTask:
    return compiled(**fields).render(given)


def test_a_task_without_templates_is_constant_and_asks_for_nothing() -> None:
    spec = ShellSpec(script=("true",), environment={"A": "1"})
    task = compiled(spec=spec, variables={"a": [1]}, artifacts=ArtifactsPolicy(paths=("x",)))
    scope = JobScope(params=Untouchable())
    assert task.is_constant
    assert task.render(TaskContext(scope, Untouchable(), Untouchable())).spec is spec
    assert task.constant.spec is spec


def test_only_what_a_template_reads_is_made() -> None:
    def never() -> Mapping[str, Any]:
        raise AssertionError("what is injected was made")

    task = compiled(spec=ShellSpec(script=("{{ tasks.a.exit_code }}",)))
    given = TaskContext(JobScope(params=Untouchable()), never, {"a": Facts(exit_code=3)})
    assert task.render(given).spec == ShellSpec(script=("3",))


def test_every_key_of_a_cache_is_rendered() -> None:
    names = ("{{ a }}", "constant")
    policy = CachePolicy(key="{{ a }}", key_paths=names, restore_keys=names, paths=names, expires_after_s=5)
    task = rendered(context(a="v"), spec=ShellSpec(script=("true",)), cache=policy)
    values = ("v", "constant")
    assert task.cache == CachePolicy(key="v", key_paths=values, restore_keys=values, paths=values, expires_after_s=5)


def test_every_key_of_a_shell_task_is_rendered() -> None:
    spec = ShellSpec(
        script=("echo {{ a | sh }}", "constant"),
        before_script=("{{ a }}",),
        after_script=("{{ a }}",),
        environment={"A": "{{ a }}", "{{ a }}": "x"},
    )
    result = rendered(context(a="x y"), spec=spec, artifacts=ArtifactsPolicy(paths=("{{ a }}",), exclude=("{{ a }}",)))
    assert result.spec == ShellSpec(
        script=("echo 'x y'", "constant"),
        before_script=("x y",),
        after_script=("x y",),
        environment={"A": "x y", "{{ a }}": "x"},
    )
    assert result.artifacts == ArtifactsPolicy(paths=("x y",), exclude=("x y",))


def test_types_are_kept_where_a_key_takes_any_value_and_only_there() -> None:
    given = context(n=3)
    http = HttpSpec(
        method="HTTP_POST_JSON", url="http://{{ n }}", query={"q": "{{ n }}"}, body={"n": ["{{ n }}", "n{{ n }}"]}
    )
    assert rendered(given, method="HTTP_POST_JSON", spec=http).spec == HttpSpec(
        method="HTTP_POST_JSON", url="http://3", query={"q": "3"}, body={"n": [3, "n3"]}
    )
    python = PythonSpec(function="a:{{ n }}", args=("{{ n }}",), kwargs={"k": "{{ n }}"})
    assert rendered(given, method="PYTHON", spec=python).spec == PythonSpec(function="a:3", args=(3,), kwargs={"k": 3})
    remote = WebsocketSpec(worker_method="m", payload={"n": ["{{ n }}"]})
    assert rendered(given, method="WEBSOCKET", spec=remote).spec == WebsocketSpec(worker_method="m", payload={"n": [3]})
    asked = MessagingSpec(
        topic="t{{ n }}", reply_topic="r{{ n }}", key="{{ n }}", headers={"h": "{{ n }}"}, body="{{ n }}"
    )
    assert rendered(given, method="MESSAGING", spec=asked).spec == MessagingSpec(
        topic="t3", reply_topic="r3", key="3", headers={"h": "3"}, body=3
    )
    dummy = DummySpec(lines=("{{ n }}",), outputs={"n": "{{ n }}"})
    assert rendered(given, method="DUMMY", spec=dummy).spec == DummySpec(lines=("3",), outputs={"n": 3})


@pytest.mark.parametrize("kind", get_args(Spec))
def test_no_template_that_a_definition_may_hold_is_left_in_what_an_ant_gets(kind: type[msgspec.Struct]) -> None:
    # The words that choose among ants and requests are refused as templates when the definition is read.
    words = {"HTTP_POST_JSON", "m", "gpu"}
    spec = filled(type_info(kind), "")
    result = rendered(context(a="v"), spec=spec)
    assert set(texts(msgspec.to_builtins(result.spec))) <= {"v", "k", kind.__struct_config__.tag, *words}


def filled(kind: Type, name: str) -> Any:
    """Returns a value of a type with a template in every text but keys and what is refused as one."""
    if isinstance(kind, StructType):
        return kind.cls(**{field.name: filled(field.type, field.name) for field in kind.fields})
    if isinstance(kind, UnionType):
        return filled(next(each for each in kind.types if not isinstance(each, NoneType)), name)
    if isinstance(kind, VarTupleType):
        return (filled(kind.item_type, name),)
    if isinstance(kind, DictType):
        return {"k": filled(kind.value_type, name)}
    if isinstance(kind, StrType | AnyType):
        return {"method": "HTTP_POST_JSON", "worker_method": "m", "worker_tags": "gpu"}.get(name, "{{ a }}")
    return 1


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        yield from texts(each)


def test_types_are_kept_in_the_affinity_of_a_pod() -> None:
    spec = KubernetesSpec(container=ContainerSpec(image="i"), affinity={"podAffinity": {"weight": "{{ n }}"}})
    result = rendered(context(n=3), method="KUBERNETES", spec=spec).spec
    assert isinstance(result, KubernetesSpec)
    assert result.affinity == {"podAffinity": {"weight": 3}}


def test_a_form_is_rendered_as_text() -> None:
    spec = HttpSpec(method="HTTP_POST_FORM", url="http://x", form={"n": "{{ n }}"})
    result = rendered(context(n=3), method="HTTP_POST_FORM", spec=spec)
    assert result.spec == HttpSpec(method="HTTP_POST_FORM", url="http://x", form={"n": "3"})


def test_variables_are_rendered_first_and_seen_by_the_rest() -> None:
    result = rendered(context(a=[1]), spec=ShellSpec(script=("{{ b }} {{ c }}",)), variables={"b": "{{ a }}", "c": "x"})
    assert result.variables == {"b": [1], "c": "x"}
    assert result.spec == ShellSpec(script=("[1] x",))


def test_the_layers_of_variables_win_in_order() -> None:
    names = ["group", "user", "variables", "configs", "params", "task", "job_id"]
    layers = [dict.fromkeys(names[no:], layer) for no, layer in enumerate(names)]
    scope = JobScope(
        group_configs=layers[0],
        user_configs=layers[1],
        job_variables=layers[2],
        job_configs=layers[3],
        params=layers[4],
    )
    task = compiled(spec=ShellSpec(script=tuple(f"{{{{ {name} }}}}" for name in names)), variables=layers[5])
    result = task.render(TaskContext(scope, layers[6], EMPTY))
    assert isinstance(result.spec, ShellSpec)
    assert result.spec.script == tuple(names)


def test_no_variable_hides_the_other_tasks() -> None:
    spec = ShellSpec(script=("{{ tasks.a.state }}",))
    given = TaskContext(JobScope(params={"tasks": "mine"}), {"tasks": 2}, {"a": Facts()})
    assert rendered(given, spec=spec, variables={"tasks": 1}).spec == ShellSpec(script=("COMPLETED",))


def test_facts_of_other_tasks_are_read_by_attribute_and_by_name() -> None:
    artifact = ArtifactRef(name="s.csv", sha256="ab", size_bytes=10)
    tasks = {
        "extract": Facts(outputs={"rows": 3, "items": [1]}, artifacts=(artifact,)),
        "my-task": Facts(state=TaskState.SKIPPED, exit_code=None),
    }
    script = (
        "{{ tasks.extract.outputs.rows }} {{ tasks.extract.outputs.items }}",
        '{{ tasks["my-task"].state }} {{ tasks["my-task"].exit_code }} {{ tasks["my-task"].outputs }}',
        "{{ tasks.extract.artifacts[0].name }} {{ tasks.extract.artifacts[0].size_bytes }}",
    )
    result = rendered(context(tasks), spec=ShellSpec(script=script))
    assert result.spec == ShellSpec(script=("3 [1]", "SKIPPED null {}", "s.csv 10"))


def test_an_error_names_the_task_and_key() -> None:
    with pytest.raises(TemplateError) as caught:
        rendered(context(name="x"), spec=ShellSpec(script=("ok", "{{ nam }}")))
    assert str(caught.value) == (
        't.script[1]: "nam" is not defined; did you mean "name"?; defined are job_id, name, tasks'
    )


def test_the_strings_of_a_task_share_one_budget() -> None:
    with pytest.raises(TemplateError, match="524,288 characters"):
        rendered(context(big="x" * 200_000), spec=ShellSpec(script=("{{ big }}",) * 3))


@pytest.mark.parametrize(
    ("text", "is_excepted"),
    [("true", True), ("{{ a }}", True), (" True\n", True), ("TRUE", True), ("false", False), ("{{ 1 }}", False)],
)
def test_except_is_the_word_true_in_any_case(text: str, is_excepted: bool) -> None:
    assert compiled(except_=text).is_excepted(context(a=True)) is is_excepted


def test_a_task_without_except_is_never_excepted() -> None:
    assert compiled().is_excepted(TaskContext(JobScope(), Untouchable(), Untouchable())) is False


def test_except_renders_only_those_variables_that_it_reads() -> None:
    task = compiled(except_="{{ day == 'monday' }}", variables={"day": "{{ d }}", "broken": "{{ nothing }}"})
    assert task.is_excepted(context(d="monday")) is True


@pytest.mark.parametrize(("skip_if", "is_"), [(None, False), ("{{ a }}", True), ("{{ not a }}", False)])
def test_skip_if_is_rendered_likewise(skip_if: str | None, is_: bool) -> None:
    assert is_skipped(JobDefinition(job_type="j", skip_if=skip_if), context(a=True)) is is_
