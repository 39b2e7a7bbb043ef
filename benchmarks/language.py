"""What it costs to read a definition and to render a template, in processor time of one thread."""

import gc
import time
from collections.abc import Callable

from benchmarks.report import Figure
from formicary.model.parse import parse_definition
from formicary.template.budget import Budget
from formicary.template.engine import ENGINE

_TASKS, _RENDERINGS = 1000, 2000


async def language(rounds: int = 5) -> list[Figure]:
    """A definition of a thousand tasks, each after the one before, and an expression amid text."""
    lines = [f"  - {{task_type: t{n}, method: DUMMY, dependencies: [t{n - 1}]}}\n" for n in range(1, _TASKS)]
    text = "job_type: chain\ntasks:\n  - {task_type: t0, method: DUMMY}\n" + "".join(lines)
    compiled, scope = ENGINE.compile("hello {{ name }}!", "key"), {"name": "ant"}

    def render() -> None:
        for _ in range(_RENDERINGS):
            compiled.render(scope, Budget(), "key")

    parsing_s = min(_processor_s(lambda: parse_definition(text)) for _ in range(rounds))
    rendering_s = min(_processor_s(render) for _ in range(rounds)) / _RENDERINGS
    return [
        Figure(f"reading {_TASKS:,} tasks", parsing_s, "s", goal=0.5, is_ceiling=True),
        Figure("rendering one expression", rendering_s * 1e6, "µs", goal=10, is_ceiling=True),
    ]


def _processor_s(call: Callable[[], object]) -> float:
    gc.collect()
    gc.disable()
    began = time.process_time()
    try:
        call()
        return time.process_time() - began
    finally:
        gc.enable()
