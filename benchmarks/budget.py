"""Where the time of one no-op task goes, line by line, by a sampling profile of the whole process (py-spy)."""

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.colony import colony, must_complete, run_job, wide
from benchmarks.report import Figure
from formicary.metrics import COMMIT_ROWS

#: Lines of the budget, and the files whose topmost frame counts for each; the first that matches wins.
LINES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("rows and driver", ("formicary/store/", "asyncpg", "formicary/queen/supervisor/rows.py", "supervisor/batch.py")),
    ("bus, codec, broker", ("formicary/bus.py", "formicary/events/", "brokers/")),
    ("state machines", ("formicary/states/",)),
    ("queen's loop", ("formicary/queen/",)),
    ("executor", ("executors/", "benchmarks/tasks.py", "threading.py", "concurrent/")),
    ("ant", ("formicary/ant/",)),
    ("event loop and the rest", ("",)),
)
_SLOTS = 1000


async def budget(count: int = 20_000, rounds: int = 5) -> list[Figure]:
    """CPU microseconds a task by part of the system, and what a task writes and says."""
    async with colony(_SLOTS) as running:
        await running.manager.save_definition(wide(count))
        await run_job(running, f"wide-{count}")
        rows_before, cpu_before = _rows(), time.process_time()
        with tempfile.NamedTemporaryFile(suffix=".txt") as samples:
            profiler = await _profiler(samples.name)
            for _ in range(rounds):
                await run_job(running, f"wide-{count}")
            cpu_us = (time.process_time() - cpu_before) / (rounds * count) * 1e6
            profiler.send_signal(signal.SIGINT)
            await profiler.wait()
            shares = _shares(Path(samples.name).read_text())
        await must_complete(running, 1)
        rows = (_rows() - rows_before) / (rounds * count)
    figures = [Figure("CPU a task, this process", cpu_us, "µs", goal=100, is_ceiling=True, note="a core is 10,000/s")]
    figures += [Figure(f"  {line}", share * cpu_us, "µs", note=f"{share:.0%}") for line, share in shares.items()]
    return [*figures, Figure("rows written a task", rows, "", goal=3, is_ceiling=True)]


async def _profiler(target: str) -> asyncio.subprocess.Process:
    py_spy = str(Path(sys.executable).with_name("py-spy"))
    arguments = ["record", "--gil", "--rate", "200", "--format", "raw", "--duration", "3600", "--output", target]
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        py_spy, *arguments, "--pid", str(os.getpid()), stdout=quiet, stderr=quiet
    )
    await asyncio.sleep(1.0)
    return process


def _rows() -> float:
    return sum(
        sample.value
        for metric in COMMIT_ROWS.collect()
        for sample in metric.samples
        if sample.name.endswith("_total") and sample.labels.get("table") == "tasks"
    )


def _shares(raw: str) -> dict[str, float]:
    counts: Counter[str] = Counter()
    for entry in raw.splitlines():
        stack, _, number = entry.rpartition(" ")
        counts[_line(stack.split(";"))] += int(number)
    total = sum(counts.values()) or 1
    return {line: counts[line] / total for line, _ in LINES}


def _line(frames: list[str]) -> str:
    """Returns the line of the deepest frame that belongs to one by name."""
    for frame in reversed(frames):
        for line, places in LINES[:-1]:
            if any(place in frame for place in places):
                return line
    return LINES[-1][0]
