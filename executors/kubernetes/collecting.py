"""What a container left, brought to the attempt's folder (``Executor.collect``)."""

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

from executors.errors import CollectFailedError
from executors.kubernetes.run import PodRun
from executors.kubernetes.volumes import HOME_PATH


async def collect(run: PodRun, paths: Sequence[str], *, with_results: bool) -> None:
    """Brings outputs, results and what globs select.

    Raises:
        CollectFailedError: it cannot be had any more.
    """
    mark = run.mark
    has_outputs = mark is not None and mark.has_outputs
    has_results = mark is not None and mark.has_results and with_results
    if not paths and not has_outputs and not has_results:
        return
    if not run.can_be_collected:
        raise CollectFailedError("the task's container is gone, and what the task left in it too")
    folder = run.plan.attempt.folder
    work = await asyncio.to_thread(folder.path)
    if has_outputs:
        await _get_outputs(run, folder.output_file)
    if has_results:
        await asyncio.to_thread(folder.result_dir.mkdir, parents=True, exist_ok=True)
        await run.transfer.get(f"{HOME_PATH}/result", ["."], folder.result_dir)
    if paths:
        await run.transfer.get_selected(run.plan.work_path, paths, work)


async def _get_outputs(run: PodRun, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        await run.transfer.get(HOME_PATH, ["output"], Path(folder))
        await asyncio.to_thread(_place, Path(folder, "output"), target)


def _place(brought: Path, target: Path) -> None:
    if brought.is_file():
        brought.replace(target)
