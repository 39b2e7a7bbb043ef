"""What a colony costs that does nothing, and how long the command line takes for a one-line job."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import cpu_seconds, family, rss_bytes
from benchmarks.report import Figure

_ONE_LINE = "job_type: one-line\ntasks:\n  - {task_type: hello, method: SHELL, script: [echo hello]}\n"


async def idle(settle_s: float = 5.0, watch_s: float = 20.0) -> list[Figure]:
    """``formicary up`` with nothing to do: memory and CPU of the process and all its children."""
    with tempfile.TemporaryDirectory(prefix="formicary-idle-") as folder:
        ready = Path(folder) / "ready"
        command = [*_formicary(), "up", "--listen", "127.0.0.1:27778", "--ready-file", str(ready)]
        process = subprocess.Popen(command, env={**os.environ, "FORMICARY_HOME": folder}, stderr=subprocess.DEVNULL)
        try:
            while not ready.exists():
                await asyncio.sleep(0.05)
            await asyncio.sleep(settle_s)
            before = _cpu(process.pid)
            await asyncio.sleep(watch_s)
            share = (_cpu(process.pid) - before) / watch_s
            memory = sum(rss_bytes(pid) for pid in family(process.pid))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
    return [
        Figure("idle memory", memory / 2**20, "MiB", goal=200, is_ceiling=True, note="queen, ant, warden, Postgres"),
        Figure("idle CPU", share * 100, "% of a core", goal=1, is_ceiling=True, note=f"over {watch_s:g} s"),
    ]


async def run_one_line(rounds: int = 5) -> list[Figure]:
    """``formicary run`` of a one-line job on a warm data directory."""
    with tempfile.TemporaryDirectory(prefix="formicary-run-") as folder:
        job = Path(folder) / "job.yaml"
        job.write_text(_ONE_LINE)
        times = []
        for _ in range(rounds + 1):
            start = time.perf_counter()
            subprocess.run(
                [*_formicary(), "run", str(job)],
                env={**os.environ, "FORMICARY_HOME": f"{folder}/home"},
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            times.append(time.perf_counter() - start)
    return [
        Figure("run of a one-line job, warm", min(times[1:]), "s", goal=1.5, is_ceiling=True),
        Figure("run of a one-line job, first", times[0], "s", note="creates the database"),
    ]


def _formicary() -> list[str]:
    return [sys.executable, "-m", "formicary.cli.main"]


def _cpu(pid: int) -> float:
    return sum(cpu_seconds(one) for one in family(pid))
