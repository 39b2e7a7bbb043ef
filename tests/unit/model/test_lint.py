import pytest

from formicary.errors import Problem
from formicary.model.lint import lint
from formicary.model.parse import parse_definition


def warnings(text: str) -> list[Problem]:
    return lint(parse_definition(text))


def shell(script: str, head: str = "", keys: str = "") -> list[Problem]:
    return warnings(f"job_type: a\n{head}\ntasks:\n  - {{task_type: t, method: SHELL, script: ['{script}'], {keys}}}\n")


def test_a_task_without_edges_beside_others_is_warned_of() -> None:
    text = (
        "job_type: a\ntasks:\n  - {task_type: a, method: DUMMY, on_completed: b}\n  - {task_type: b, method: DUMMY}\n"
        "  - {task_type: alone, method: DUMMY}\n  - {task_type: last, method: DUMMY, always_run: true}\n"
    )
    (warning,) = warnings(text)
    assert (warning.path, warning.line) == ("tasks[2].task_type", 5)


def test_tasks_that_all_stand_alone_are_no_reason_to_warn() -> None:
    assert warnings("job_type: a\ntasks: [{task_type: a, method: DUMMY}, {task_type: b, method: DUMMY}]") == []


def test_a_param_that_stands_bare_in_a_script_is_warned_of() -> None:
    (warning,) = shell("curl {{ url }}", "required_params: [url]")
    assert (warning.path, warning.line, warning.hint) == ("tasks[0].script[0]", 4, "write {{ url | sh }}")


@pytest.mark.parametrize(
    ("script", "head", "keys"),
    [
        ("curl {{ url | sh }}", "", ""),
        ("seq {{ count | int }}", "", ""),
        ("echo {{ region }}", "job_variables: {region: eu}", ""),
        ("echo {{ job_id }} {{ task_retry }}", "", ""),
        ("echo {{ name }}", "", "variables: {name: fixed}"),
        ("{% for i in range(3) %}{{ i }}{% endfor %}", "", ""),
    ],
)
def test_what_no_request_can_set_may_stand_bare(script: str, head: str, keys: str) -> None:
    assert shell(script, head, keys) == []


def test_a_variable_that_passes_a_param_on_is_warned_of() -> None:
    (warning,) = shell("echo {{ name }}", "", "variables: {name: 'x-{{ url }}'}".replace("'", '"'))
    assert '"name" stands bare' in warning.message


def test_a_default_that_a_required_param_replaces_is_warned_of() -> None:
    assert len(shell("echo {{ a }}", "job_variables: {a: 1}\nrequired_params: [a]")) == 1


def test_a_reference_to_a_task_that_is_not_upstream_is_warned_of() -> None:
    text = (
        "job_type: a\ntasks:\n  - {task_type: a, method: DUMMY, on_completed: [b, c]}\n"
        "  - {task_type: b, method: DUMMY, lines: ['{{ tasks.a.state }} {{ tasks.c.state }}']}\n"
        "  - {task_type: c, method: DUMMY}\n"
        "  - {task_type: last, method: DUMMY, always_run: true, lines: ['{{ tasks.c.state }}']}\n"
    )
    (warning,) = warnings(text)
    assert (warning.path, warning.hint) == ("tasks[1].lines[0]", "add c to its dependencies")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("job_variables: {out: '{{ x }}'}", "not rendered"),
        ("job_variables: {my-var: 1}", "no template can read"),
        ("job_variables: {job_id: 1}", "given by Formicary"),
    ],
)
def test_variables_that_do_not_do_what_they_seem_to_are_warned_of(line: str, words: str) -> None:
    (warning,) = shell("true", line)
    assert words in warning.message


def test_polling_without_a_retry_is_warned_of() -> None:
    (warning,) = shell("true", "", "on_exit_code: {3: EXECUTING}")
    assert "retry of at least 1" in warning.message
