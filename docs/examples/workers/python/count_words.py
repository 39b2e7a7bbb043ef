"""A worker that counts words.

    FORMICARY_WORKERS_TOKEN=secret python count_words.py ws://127.0.0.1:7788/v1/workers [TAG ...]

The token is that of the ant, where it has one. SIGTERM and SIGINT finish what runs; a second one ends it.
"""

import asyncio
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from worker import Task, TaskFailedError, Worker, WorkerRefusedError


async def count_words(task: Task) -> dict[str, Any]:
    """Counts the words of ``payload.text`` and finds the longest."""
    words = str(task.payload["text"]).split()
    if not words:
        raise TaskFailedError("there are no words", exit_code=3)
    longest = max(words, key=len)
    await task.log(f"{len(words)} words, the longest is {longest}")
    return {"count": len(words), "longest": longest}


async def count_down(task: Task) -> dict[str, Any]:
    """Counts down from ``payload.from``, one a second: something to cancel."""
    for number in range(int(task.payload["from"]), 0, -1):
        await task.log(str(number))
        await asyncio.sleep(1)
    return {}


async def sort_lines(task: Task) -> dict[str, Any]:
    """Sorts the lines of the artifact ``payload.file``, and leaves them as the artifact ``payload.to``."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "lines")
        await task.fetch(task.payload["file"], path)
        count = await asyncio.to_thread(sort_file, path)
        await task.deliver(path, task.payload["to"])
    return {"count": count}


def sort_file(path: Path) -> int:
    """Sorts the lines of a file and returns how many there are."""
    lines = sorted(path.read_text(encoding="utf-8").splitlines())
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return len(lines)


async def main(url: str, *tags: str) -> None:
    """Works until a signal comes."""
    worker = Worker(
        url,
        {"count-words": count_words, "count-down": count_down, "sort-lines": sort_lines},
        name="python",
        token=os.environ.get("FORMICARY_WORKERS_TOKEN"),
        tags=("python", *tags),
        slots=4,
    )
    loop, draining = asyncio.get_running_loop(), set()

    def drain() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        draining.add(asyncio.create_task(worker.drain()))

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, drain)
    await worker.run()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    try:
        asyncio.run(main(*sys.argv[1:]))
    except WorkerRefusedError as error:
        sys.exit(str(error))
