"""Compiled plans: numbers, counts and routes."""

import pytest

from formicary.model.definition import TaskDefinition
from formicary.model.states import TaskState
from formicary.states.cells import TaskCell
from formicary.states.graph import Plan, Route
from formicary.testing.drill import job, task


def route(plan: Plan, state: TaskState, code: int | None = None, *, error: str | None = None) -> Route:
    cell = TaskCell(0)
    cell.state = state
    cell.exit_code = code
    cell.error_code = error
    return plan.route(cell)


@pytest.fixture(name="plan")
def plan_of_everything() -> Plan:
    definition: list[TaskDefinition] = [
        task("a", on_completed=["ok"], on_failed=["bad"], codes={"0": "zero", "3": "three", "9": "FATAL"}),
        task("ok"),
        task("bad", after=["a"]),
        task("zero"),
        task("three", after=["a"]),
        task("data", after=["a"]),
        task("last", after=["a"], always_run=True),
    ]
    return Plan.compile(job(definition))


def test_tasks_are_numbered_in_definition_order(plan: Plan) -> None:
    assert plan.numbers == {"a": 0, "ok": 1, "bad": 2, "zero": 3, "three": 4, "data": 5, "last": 6}
    assert (plan.size, plan.roots, plan.always_run) == (7, (0,), (6,))


def test_there_is_one_edge_per_pair_and_none_to_always_run(plan: Plan) -> None:
    assert list(plan.in_counts) == [0, 1, 1, 1, 1, 1, 0]
    assert sorted(plan.targets[0]) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("state", "code", "error", "fired", "refused"),
    [
        (TaskState.COMPLETED, 1, None, {1, 5}, set()),
        (TaskState.COMPLETED, 0, None, {3, 5}, set()),
        (TaskState.COMPLETED, 3, None, {4}, {2, 5}),
        (TaskState.FAILED, 7, "ERR_EXIT_CODE", {2}, {4, 5}),
        (TaskState.FAILED, 9, "ERR_FATAL", set(), {2, 4, 5}),
        (TaskState.FAILED, 3, "ERR_SIGNAL", {2}, {4, 5}),
        (TaskState.SKIPPED, None, None, set(), set()),
        (TaskState.CANCELLED, None, None, set(), {2, 4, 5}),
    ],
)
def test_a_route_fires_refuses_and_lets_die(
    plan: Plan, state: TaskState, code: int | None, error: str | None, fired: set[int], refused: set[int]
) -> None:
    found = route(plan, state, code, error=error)
    assert set(found.fired) == fired
    assert set(found.refused) == refused
    assert sorted((*found.fired, *found.dead, *found.refused)) == [1, 2, 3, 4, 5]


def test_a_plain_chain_shares_its_tuples() -> None:
    plan = Plan.compile(job([task("a"), task("b", after=["a"])]))
    assert plan.completed[0].fired is plan.targets[0]
