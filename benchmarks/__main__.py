"""``python -m benchmarks [NAME …] [--json FILE]``."""

import argparse
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
import uvloop

from benchmarks import (
    artifacts,
    brokers,
    budget,
    caches,
    containers,
    elsewhere,
    idle,
    language,
    latency,
    recovery,
    scaling,
    throughput,
)
from benchmarks.report import Figure, table

BENCHMARKS: dict[str, Callable[[], Awaitable[list[Figure]]]] = {
    "tasks": throughput.tasks_per_second,
    "jobs": throughput.jobs_per_second,
    "shapes": throughput.shapes,
    "budget": budget.budget,
    "huge": throughput.huge,
    "latency": latency.submit_to_completed,
    "intake": latency.intake,
    "idle": idle.idle,
    "run": idle.run_one_line,
    "language": language.language,
    "redis": brokers.redis,
    "kafka": brokers.kafka,
    "pulsar": brokers.pulsar,
    "ants": scaling.ants,
    "crowd": scaling.crowd,
    "pending": scaling.pending,
    "recovery": recovery.recovery,
    "artifacts": artifacts.artifacts,
    "files": artifacts.files,
    "cache": caches.caches,
    "docker": containers.containers,
    "websocket": elsewhere.websocket,
    "messaging": elsewhere.messaging,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measures Formicary on this machine.")
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help="which; all by default")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    figures: list[Figure] = []
    for name in arguments.names or BENCHMARKS:
        figures += uvloop.run(_measure(BENCHMARKS[name]))
    print(table(figures))
    if arguments.json:
        documents = [{**figure._asdict(), "is_reached": figure.is_reached} for figure in figures]
        arguments.json.write_text(json.dumps(documents, indent=2) + "\n")


async def _measure(benchmark: Callable[[], Awaitable[list[Figure]]]) -> list[Figure]:
    return await benchmark()


if __name__ == "__main__":
    main()
