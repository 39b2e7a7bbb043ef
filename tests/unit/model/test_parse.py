import json
from collections.abc import Callable

import pytest

from executors.specs import DummySpec, HttpSpec, PythonSpec, ShellSpec
from formicary.errors import Problem
from formicary.model.definition import (
    ArtifactsPolicy,
    ArtifactWhen,
    BackoffPolicy,
    CachePolicy,
    JobDefinition,
    MemoPolicy,
    RetryPolicy,
    TaskDefinition,
)
from formicary.model.parse import parse_definition
from tests.steps import steps_of

Problems = Callable[[str | bytes], list[Problem]]
OnlyProblem = Callable[[str | bytes], Problem]

FULL = """
job_type: daily-sales
description: Sums yesterday's sales per region
timeout: 2h
retry: 1
delay_between_retries: 5s
job_variables: {region: eu, limits: [1, 2.5, null, true]}
required_params: [day]
skip_if: "{{ day == 'sunday' }}"
max_concurrency: 3
priority: 7
fail_fast: true
labels: {team: sales, level: 2}
task_events: true
tasks:
  - task_type: extract
    method: SHELL
    description: Fetches
    timeout: PT5M
    retry: 3
    retry_backoff_policy: {min: 2s, max: 1m, factor: 3, jitter: 0}
    tags: [linux, big]
    variables: {out: "{{ day }}.csv"}
    environment: {DEBUG: 1, FLAG: true, EMPTY: , NAME: "{{ day }}"}
    before_script: [set -u]
    script: |
      curl -sf "{{ source_url | sh }}"
      true
    after_script: [true]
    artifacts: {paths: [sales.csv, out/], exclude: ["*.tmp"], when: always, expires_after: 7d}
    cache: {key: "deps-{{ day }}", key_paths: [lock], restore_keys: deps-, paths: [.deps], expires_after: 1d}
    memoize: {key: "{{ day }}", expires_after: 7d}
    except: "{{ day == 'monday' }}"
  - task_type: load
    method: HTTP_POST_JSON
    dependencies: [extract]
    url: https://example.org/load
    headers: {X-Count: 1}
    query: {q: "{{ day }}"}
    body: {rows: "{{ tasks.extract.outputs.rows }}", keep: [1, null]}
    on_exit_code: {409: repair, 0500: FATAL}
    allow_failure: true
  - task_type: repair
    method: PYTHON
    function: shop.repair:run
    args: [1, {a: b}]
    kwargs: {deep: true}
    in_process_pool: true
  - task_type: cleanup
    method: DUMMY
    exit_code: 3
    duration_s: 0.5
    lines: [a]
    outputs: {n: 1}
    always_run: true
"""


def job_of(tasks: str) -> str:
    return f"job_type: a\ntasks:\n{tasks}"


def task_of(keys: str) -> TaskDefinition:
    return parse_definition(job_of(f"  - {{task_type: t, {keys}}}")).tasks[0]


@pytest.fixture(scope="module")
def full() -> JobDefinition:
    return parse_definition(FULL)


def test_every_key_of_a_job_reaches_its_field(full: JobDefinition) -> None:
    assert full.job_type == "daily-sales"
    assert full.description == "Sums yesterday's sales per region"
    assert full.timeout_s == 7200
    assert full.retry == RetryPolicy(limit=1, delay_s=5)
    assert full.job_variables == {"region": "eu", "limits": [1, 2.5, None, True]}
    assert full.required_params == ("day",)
    assert full.skip_if == "{{ day == 'sunday' }}"
    assert (full.max_concurrency, full.priority, full.fail_fast, full.task_events) == (3, 7, True, True)
    assert full.labels == {"team": "sales", "level": "2"}
    assert full.source == FULL


def test_every_key_of_a_shell_task_reaches_its_field(full: JobDefinition) -> None:
    task = full.tasks[0]
    assert task.spec == ShellSpec(
        before_script=("set -u",),
        script=('curl -sf "{{ source_url | sh }}"\ntrue\n',),
        after_script=("true",),
        environment={"DEBUG": "1", "FLAG": "true", "EMPTY": "", "NAME": "{{ day }}"},
    )
    assert task.timeout_s == 300
    assert task.retry == RetryPolicy(limit=3, backoff=BackoffPolicy(min_s=2, max_s=60, factor=3, jitter=0))
    assert task.tags == ("linux", "big")
    assert task.variables == {"out": "{{ day }}.csv"}
    assert task.except_ == "{{ day == 'monday' }}"
    assert task.artifacts == ArtifactsPolicy(
        paths=("sales.csv", "out/"), exclude=("*.tmp",), when=ArtifactWhen.ALWAYS, expires_after_s=604800
    )
    assert task.memoize == MemoPolicy(key="{{ day }}", expires_after_s=604800)
    assert task.cache == CachePolicy(
        key="deps-{{ day }}", key_paths=("lock",), restore_keys=("deps-",), paths=(".deps",), expires_after_s=86400
    )


def test_every_key_of_other_methods_reaches_its_spec(full: JobDefinition) -> None:
    _, load, repair, cleanup = full.tasks
    assert load.spec == HttpSpec(
        method="HTTP_POST_JSON",
        url="https://example.org/load",
        headers={"X-Count": "1"},
        query={"q": "{{ day }}"},
        body={"rows": "{{ tasks.extract.outputs.rows }}", "keep": [1, None]},
    )
    assert load.on_exit_code == {"409": "repair", "500": "FATAL"}
    assert repair.spec == PythonSpec(
        function="shop.repair:run", args=(1, {"a": "b"}), kwargs={"deep": True}, in_process_pool=True
    )
    assert cleanup.spec == DummySpec(exit_code=3, duration_s=0.5, lines=("a",), outputs={"n": 1})
    assert cleanup.always_run


def test_a_json_request_without_a_body_sends_the_tasks_variables() -> None:
    task = task_of("method: HTTP_PUT_JSON, url: 'http://x', variables: {a: '{{ b }}', n: 1}")
    assert isinstance(task.spec, HttpSpec)
    assert task.spec.body == {"a": "{{ a }}", "n": 1}


def test_state_words_of_on_exit_code_are_plain_edges() -> None:
    text = job_of(
        "  - {task_type: t, method: DUMMY, on_exit_code: {COMPLETED: u, FAILED: [u, v], 3: ERR_MINE}}\n"
        "  - {task_type: u, method: DUMMY}\n  - {task_type: v, method: DUMMY}\n"
    )
    task = parse_definition(text).tasks[0]
    assert (task.on_completed, task.on_failed, task.on_exit_code) == (("u",), ("u", "v"), {"3": "ERR_MINE"})


def test_a_special_target_of_an_edge_is_a_state_word_of_on_exit_code() -> None:
    assert task_of("method: DUMMY, on_failed: FATAL, on_completed: PAUSE_JOB").on_exit_code == {
        "FAILED": "FATAL",
        "COMPLETED": "PAUSE_JOB",
    }


def test_all_mistakes_are_reported_at_once_in_order(problems: Problems) -> None:
    text = """job_type: "bad name!"
timout: 2h
retry: no
tasks:
  - task_type: a
    method: SHEL
  - task_type: b
    method: SHELL
    script: [x]
    on_completed: trasform
  - task_type: transform
    method: DUMMY
    timeout: 30
"""
    places = [(each.line, each.column, each.path) for each in problems(text)]
    assert places == [
        (1, 11, "job_type"),
        (2, 1, "timout"),
        (3, 8, "retry"),
        (6, 13, "tasks[0].method"),
        (10, 19, "tasks[1].on_completed"),
        (13, 14, "tasks[2].timeout"),
    ]


def test_an_error_names_file_place_path_and_the_nearest_word(only_problem: OnlyProblem) -> None:
    text = job_of(
        "  - task_type: transform\n    method: DUMMY\n"
        "  - task_type: b\n    method: DUMMY\n    on_completed:      trasform\n"
    )
    assert (
        only_problem(text).text("etl.yaml")
        == 'etl.yaml:7:24 tasks[1].on_completed: no task "trasform"; did you mean "transform"?'
    )


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("method: SHELL, script: [x], url: 'http://x'", "belongs to HTTP_GET"),
        ("method: SHELL, script: [x], body: 1", "belongs to HTTP_POST_JSON"),
        ("method: HTTP_GET, url: 'http://x', body: 1", '"body" is no key of HTTP_GET'),
        ("method: HTTP_POST_JSON, url: 'http://x', form: {a: b}", '"form" is no key of HTTP_POST_JSON'),
        ("method: HTTP_POST_FORM, url: 'http://x', body: {a: b}", '"body" is no key of HTTP_POST_FORM'),
        ("method: HTTP_GET", '"url" is missing'),
        ("method: HTTP_GET, url: 'ftp://x'", "http:// or https://"),
        ("method: SHELL", '"script" is missing'),
        ("method: SHELL, script: []", "empty"),
        ("method: SHELL, script: [echo: hi]", "needs quotes"),
        ("method: PYTHON", '"function" is missing'),
        ("method: PYTHON, function: nothing", "package.module:name"),
        ("method: shell, script: [x]", 'did you mean "SHELL"?'),
        ("method: DOCKER, script: [x]", '"container" is missing'),
        ("method: KUBERNETES, script: [x]", '"container" is missing'),
        ("method: MANUAL", "MANUAL is not supported yet"),
        ("method: FORK_JOB", "FORK_JOB is not supported yet"),
        ("method: DUMMY, fan_out: {source: x}", '"fan_out" is not supported yet'),
        ("method: DUMMY, container: {image: x}", '"container" is no key of DUMMY; it belongs to DOCKER'),
        ("method: DUMMY, services: []", '"services" is no key of DUMMY; it belongs to DOCKER'),
        ("method: DUMMY, memoize: {}", '"key" is missing'),
        ("method: DUMMY, memoize: {key: ' '}", "name what the result depends on"),
        ("method: DUMMY, memoize: {key: x, expires_after: 0s}", "longer than 0"),
        ("method: DUMMY, memoize: {key: '{{ x'}", "no valid template"),
        ("method: DUMMY, memoize: {key: x}, always_run: true", "takes no earlier result"),
        ("method: DUMMY, timout: 3s", 'did you mean "timeout"?'),
        ("method: DUMMY, timeout: 0s", "longer than 0"),
        ("method: DUMMY, timeout: 5 minutes", "no duration"),
        ("method: DUMMY, retry: -1", "out of range"),
        ("method: DUMMY, retry: 1.5", "whole number"),
        ("method: DUMMY, retry: '1'", "without quotes"),
        ("method: DUMMY, allow_failure: yes", "true or false"),
        ("method: DUMMY, tags: gpu gpu", "no valid name"),
        ("method: DUMMY, tags: [a, a]", "listed twice"),
        ("method: SHELL, script: x, artifacts: {paths: [/etc/passwd]}", "leads out of"),
        ("method: SHELL, script: x, artifacts: {paths: [a/../../b]}", "leads out of"),
        ("method: SHELL, script: x, cache: {key: k, paths: [../up]}", "leads out of"),
        ("method: SHELL, script: x, cache: {key_paths: [/etc], paths: [a]}", "leads out of"),
        ("method: SHELL, script: x, cache: {paths: [a]}", "the cache has no key"),
        ("method: SHELL, script: x, cache: {key: k}", '"paths" is missing'),
        ("method: SHELL, script: x, cache: {key: k, paths: a, restore_keys: ['']}", "is empty"),
        ("method: KUBERNETES, container: {image: i}, artifacts: {paths: [a]}", "give the task a script"),
        ("method: KUBERNETES, container: {image: i}, cache: {key: k, paths: a}", "cache of a pod are collected"),
        ("method: EXPIRE_ARTIFACTS, memoize: {key: x}", "EXPIRE_ARTIFACTS finds something new to do each time"),
        ('method: PYTHON, function: "a:b", artifacts: {paths: [a]}', "files to keep; use it with SHELL, DOCKER"),
        ("method: DUMMY, cache: {key: k, paths: a}", "no working directory to cache; use it with SHELL"),
        ("method: SHELL, script: x, cache: {key: '{{ tasks.other.state }}', paths: a}", 'no task "other" exists'),
        ("method: DUMMY, artifacts: {when: onSucces}", 'did you mean "onSuccess"?'),
        ("method: DUMMY, artifacts: {pathes: [a]}", 'did you mean "paths"?'),
        ("method: DUMMY, retry_backoff_policy: {min: 5s, max: 1s}", "min is longer than max"),
        ("method: DUMMY, retry_backoff_policy: {jitter: 2}", "out of range"),
        ("method: DUMMY, delay_between_retries: 1s, retry_backoff_policy: {min: 1s}", "both given"),
        ("method: DUMMY, on_failed: FATAL, on_exit_code: {FAILED: FATAL}", "given too"),
        ("method: DUMMY, on_exit_code: {COMPLETD: FATAL}", 'did you mean "COMPLETED"?'),
        ("method: DUMMY, on_exit_code: {03: FATAL, 3: FATAL}", "given twice"),
        ("method: DUMMY, on_exit_code: {3: [FATAL]}", "one target"),
        ("method: DUMMY, on_exit_code: [FATAL]", "expected a mapping"),
        ("method: SHELL, script: [x], on_exit_code: {300: FATAL}", "300 is no exit code"),
        ("method: HTTP_GET, url: 'http://x', on_exit_code: {1: FATAL}", "1 is no HTTP status"),
        ("method: DUMMY, on_failed: [FATAL, ERR_X]", "stands alone"),
        ("method: DUMMY, variables: {a: .inf}", "no JSON value"),
        ("method: DUMMY, variables: {a: 99999999999999999999}", "64 bits"),
        ("method: DUMMY, variables: [1]", "expected a mapping"),
        ("method: DUMMY, dependencies: 3x y", "no valid name"),
    ],
)
def test_a_wrong_key_of_a_task_says_what_would_be_right(keys: str, words: str, only_problem: OnlyProblem) -> None:
    assert words in only_problem(job_of(f"  - {{task_type: t, {keys}}}")).text("job.yaml")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("cron_trigger: '* * * * *'", "not supported yet"),
        ("triggers: []", "not supported yet"),
        ("max_concurrency: 0", "out of range"),
        ("priority: 99999999", "out of range"),
        ("labels: {'bad label': x}", "no valid name"),
        ("required_params: {a: b}", "expected a list"),
        ("skip_if: '{{ x'", "no valid template"),
        ("fail_fast: 'true'", "true or false"),
        ("timeout: 30", "did you mean 30s?"),
        ("describtion: x", 'did you mean "description"?'),
    ],
)
def test_a_wrong_key_of_a_job_says_what_would_be_right(line: str, words: str, only_problem: OnlyProblem) -> None:
    text = f"job_type: a\n{line}\ntasks: [{{task_type: t, method: DUMMY}}]\n"
    assert words in only_problem(text).text("job.yaml")


@pytest.mark.parametrize(
    "name", ["", "-a", "a b", "a/b", ".hidden", "ä", "x" * 101, "a\n"], ids=lambda name: repr(name)[:12]
)
def test_names_outside_the_rules_are_refused(name: str, problems: Problems) -> None:
    text = f"job_type: {json.dumps(name)}\ntasks: [{{task_type: t, method: DUMMY}}]"
    assert problems(text)[0].path == "job_type"


@pytest.mark.parametrize("name", ["a", "x" * 100, "A-1_b.c:d", "no", "12"])
def test_names_within_the_rules_are_taken(name: str) -> None:
    assert parse_definition(f"job_type: {name}\ntasks: [{{task_type: {name}, method: DUMMY}}]").job_type == name


@pytest.mark.parametrize("tasks", ["[]", "{}", "", "[t]", "[[]]"])
def test_a_job_without_proper_tasks_is_refused(tasks: str, problems: Problems) -> None:
    assert problems(f"job_type: a\ntasks: {tasks}")[0].path.startswith("tasks")


def test_a_job_without_the_key_tasks_is_refused(only_problem: OnlyProblem) -> None:
    assert 'the key "tasks" is missing' in only_problem("job_type: a").message


def test_a_template_mistake_is_shown_where_it_stands(only_problem: OnlyProblem) -> None:
    problem = only_problem(job_of("  - {task_type: t, method: SHELL, script: [ok, '{{ x'], variables: {}}"))
    assert (problem.line, problem.path) == (3, "tasks[0].script[1]")
    assert "no valid template" in problem.message


@pytest.mark.parametrize("text", ["{{ 2 ** 9 }}", "{{ x.__class__ }}", "{% include 'y' %}", "{{ x|nofilter }}"])
def test_what_the_sandbox_refuses_is_reported_before_a_job_runs(text: str, only_problem: OnlyProblem) -> None:
    assert (
        "no valid template" in only_problem(job_of(f'  - {{task_type: t, method: SHELL, script: ["{text}"]}}')).message
    )


def test_a_reference_to_a_task_that_does_not_exist_is_a_mistake(only_problem: OnlyProblem) -> None:
    text = job_of(
        "  - {task_type: my-task, method: DUMMY}\n"
        "  - {task_type: u, method: SHELL, dependencies: [my-task],"
        """ script: ['{{ tasks["my-tsk"].state }} {{ tasks["my-task"].outputs.x }}']}\n"""
    )
    problem = only_problem(text)
    assert (problem.path, problem.hint) == ("tasks[1].script[0]", 'did you mean "my-task"?')


def test_a_flood_of_mistakes_is_cut_off(problems: Problems) -> None:
    found = problems(flood(5000))
    assert found[-1].message == "and 4900 more mistakes"


def test_the_work_for_a_flood_of_mistakes_grows_no_faster_than_the_flood(problems: Problems) -> None:
    few, many = flood(200), flood(800)
    problems(few)  # what is made once and kept
    steps = steps_of(lambda: problems(few))
    assert steps_of(lambda: problems(many), most=5 * steps) > steps


def flood(count: int) -> str:
    return job_of("".join(f"  - {{task_type: t{n}, method: DUMMY, on_completed: x{n}}}\n" for n in range(count)))


def test_the_work_to_parse_grows_no_faster_than_the_tasks() -> None:
    few, many = chain(500), chain(2000)
    parse_definition(few)  # what is made once and kept
    steps = steps_of(lambda: parse_definition(few))
    assert steps_of(lambda: parse_definition(many), most=5 * steps) > steps


def chain(count: int) -> str:
    lines = [f"  - {{task_type: t{n}, method: DUMMY, dependencies: [t{n - 1}]}}\n" for n in range(1, count)]
    return job_of("  - {task_type: t0, method: DUMMY}\n" + "".join(lines))
