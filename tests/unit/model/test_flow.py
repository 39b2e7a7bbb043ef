from collections.abc import Callable

import pytest

from formicary.errors import Problem
from formicary.model.parse import parse_definition

Problems = Callable[[str], list[Problem]]
OnlyProblem = Callable[[str], Problem]


def job(**tasks: str) -> str:
    lines = [f"  - {{task_type: {name}, method: DUMMY, {keys}}}\n" for name, keys in tasks.items()]
    return "job_type: a\ntasks:\n" + "".join(lines)


@pytest.mark.parametrize(
    ("text", "cycle"),
    [
        (job(a="on_completed: b", b="on_completed: c", c="on_completed: a"), "a -> b -> c -> a"),
        (job(a="dependencies: [c]", b="dependencies: [a]", c="dependencies: [b]"), "a -> b -> c -> a"),
        (job(a="on_failed: b", b="", c="dependencies: [b], on_exit_code: {3: a}"), "a -> b -> c -> a"),
        (job(s="on_completed: a", a="on_exit_code: {1: b}", b="on_completed: a"), "a -> b -> a"),
    ],
)
def test_a_cycle_over_any_edges_is_reported_as_its_path(text: str, cycle: str, only_problem: OnlyProblem) -> None:
    assert only_problem(text).message == f"the tasks form a cycle: {cycle}"


def test_a_cycle_is_shown_at_the_edge_that_closes_it(only_problem: OnlyProblem) -> None:
    problem = only_problem(job(a="on_completed: b", b="on_completed: a"))
    assert (problem.line, problem.path) == (4, "tasks[1].on_completed")


def test_a_task_that_leads_to_itself_is_told_of_the_special_targets(only_problem: OnlyProblem) -> None:
    problem = only_problem(job(a="on_exit_code: {3: a}"))
    assert (problem.message, problem.path) == ('the task "a" leads to itself', "tasks[0].on_exit_code.3")
    assert "RESTART_TASK" in problem.hint


def test_a_diamond_is_no_cycle() -> None:
    text = job(a="on_completed: [b, c]", b="on_completed: d", c="", d="dependencies: [c, a]")
    assert len(parse_definition(text).tasks) == 4


def test_a_long_cycle_is_shortened(only_problem: OnlyProblem) -> None:
    tasks = {f"t{no}": f"on_completed: t{(no + 1) % 5000}" for no in range(5000)}
    assert only_problem(job(**tasks)).message.startswith("the tasks form a cycle: t0 -> t1 -> t2")


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        ("on_completed: [b, nothing]", "tasks[0].on_completed[1]"),
        ("on_failed: nothing", "tasks[0].on_failed"),
        ("on_exit_code: {7: nothing}", "tasks[0].on_exit_code.7"),
        ("on_exit_code: {FAILED: nothing}", "tasks[0].on_exit_code.FAILED"),
        ("dependencies: [b, nothing]", "tasks[0].dependencies[1]"),
        ("dependencies: [FATAL]", "tasks[0].dependencies[0]"),
    ],
)
def test_an_unknown_target_is_shown_where_it_is_written(keys: str, path: str, only_problem: OnlyProblem) -> None:
    problem = only_problem(job(a=keys, b=""))
    assert problem.message.startswith("no task")
    assert problem.path == path


def test_a_misspelt_special_target_gets_the_right_word(only_problem: OnlyProblem) -> None:
    assert only_problem(job(a="on_exit_code: {1: RESTART_TASKS}")).hint == 'did you mean "RESTART_TASK"?'


@pytest.mark.parametrize(
    "word", ["FATAL", "FAILED", "COMPLETED", "RESTART_TASK", "RESTART_JOB", "PAUSE_JOB", "EXECUTING", "ERR_MINE"]
)
def test_every_special_target_is_taken_and_no_task_may_have_its_name(word: str, problems: Problems) -> None:
    assert parse_definition(job(a=f"on_exit_code: {{9: {word}}}")).tasks[0].on_exit_code == {"9": word}
    assert "special target" in problems(job(**{word: ""}))[0].message


def test_two_tasks_of_one_name_are_refused(only_problem: OnlyProblem) -> None:
    text = "job_type: a\ntasks:\n- {task_type: t, method: DUMMY}\n- {task_type: t, method: DUMMY}\n"
    problem = only_problem(text)
    assert (problem.line, problem.message, problem.hint) == (4, 'a second task "t"', "the first is in line 3")


@pytest.mark.parametrize("keys", ["on_completed: last", "on_exit_code: {1: last}", "dependencies: [last]"])
def test_no_task_can_lead_to_an_always_run_task_or_wait_for_it(keys: str, only_problem: OnlyProblem) -> None:
    assert "always_run" in only_problem(job(a=keys, last="always_run: true")).message


@pytest.mark.parametrize(
    "keys", ["dependencies: [a]", "on_completed: a", "on_exit_code: {1: RESTART_JOB}", "on_failed: FATAL"]
)
def test_an_always_run_task_has_no_edges(keys: str, only_problem: OnlyProblem) -> None:
    assert "always_run task has no edges" in only_problem(job(a="", last=f"always_run: true, {keys}")).message


def test_an_always_run_task_may_map_its_own_exit_codes() -> None:
    text = job(a="", last="always_run: true, retry: 1, on_exit_code: {1: COMPLETED, 2: RESTART_TASK, 3: ERR_X}")
    assert len(parse_definition(text).tasks[1].on_exit_code) == 3
