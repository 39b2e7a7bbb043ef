"""What a step costs, counted in steps of Python: nothing but the task's own edges matters."""

from formicary.model.definition import JobDefinition
from formicary.testing.drill import Drill, job, task
from tests.steps import steps_of


def chain(length: int) -> JobDefinition:
    return job([task(f"t{no}", after=[f"t{no - 1}"] if no else []) for no in range(length)])


def fan(width: int) -> JobDefinition:
    return job([task("a"), *(task(f"t{no}", after=["a"]) for no in range(width))])


def costs_in_the_middle(definition: JobDefinition, names: list[str]) -> tuple[int, int]:
    drill = Drill(definition)
    drill.begin()
    for name in names[:-1]:
        drill.end(name)
    name = names[-1]
    dispatched = steps_of(lambda: drill.dispatch(name))
    return dispatched, steps_of(lambda: drill.finish(name))


def test_a_task_of_a_long_chain_costs_what_one_of_a_short_chain_costs() -> None:
    names = [f"t{no}" for no in range(5)]
    assert costs_in_the_middle(chain(10), names) == costs_in_the_middle(chain(2000), names)


def test_a_leaf_of_a_wide_job_costs_what_one_of_a_narrow_job_costs() -> None:
    assert costs_in_the_middle(fan(10), ["a", "t3"]) == costs_in_the_middle(fan(2000), ["a", "t3"])


def test_a_retry_in_a_wide_job_costs_what_one_in_a_narrow_job_costs() -> None:
    def costs(width: int) -> int:
        drill = Drill(job([task(f"t{no}", retry=1) for no in range(width)]))
        drill.begin()
        drill.dispatch("t1")
        return steps_of(lambda: drill.finish("t1", 1))

    assert costs(10) == costs(2000)


def test_a_fan_out_costs_its_edges() -> None:
    narrow, wide = (costs_in_the_middle(fan(width), ["a"])[1] for width in (100, 1000))
    assert 8 * narrow < wide < 11 * narrow


def test_an_early_end_costs_each_task_once() -> None:
    def costs(length: int) -> int:
        drill = Drill(chain(length))
        drill.begin()
        drill.dispatch("t0")
        return steps_of(lambda: drill.finish("t0", 1))

    assert costs(1000) < 11 * costs(100)
