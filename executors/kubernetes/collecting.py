"""What a container left, brought to the attempt's folder (``Executor.collect``)."""

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from executors.errors import CollectFailedError
from executors.foreign_tar import MOST_NAMES
from executors.kubernetes.run import PodRun
from executors.kubernetes.volumes import HOME_PATH

#: How many names the log tells of what was left out.
_NAMED: Final = 10


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
    if not run.plan.has_script:
        raise CollectFailedError(
            "without a script nothing can be had of a pod's container when it has ended; give the task a script"
        )
    if not run.can_be_collected:
        raise CollectFailedError("the task's container is gone, and what the task left in it too")
    try:
        await _bring(run, paths, has_outputs=has_outputs, has_results=has_results)
    except OSError as exc:
        raise CollectFailedError(f"what the task left cannot be stored on the ant: {exc}") from exc
    except CollectFailedError as exc:
        if run.is_going:
            raise CollectFailedError("the task's pod was taken away while its files were collected") from exc
        raise


async def _bring(run: PodRun, paths: Sequence[str], *, has_outputs: bool, has_results: bool) -> None:
    folder = run.plan.attempt.folder
    work = await asyncio.to_thread(folder.path)
    if has_outputs:
        await _get_outputs(run, folder.output_file)
    if has_results:
        await asyncio.to_thread(folder.result_dir.mkdir, parents=True, exist_ok=True)
        await _say_left_out(
            run, await run.transfer.get(f"{HOME_PATH}/result", ["."], folder.result_dir, is_emptied=True)
        )
    if paths:
        sent = await _send(run, paths)
        await _say_left_out(run, await run.transfer.get_selected(run.plan.work_path, paths, work, sent))


async def _send(run: PodRun, paths: Sequence[str]) -> list[str]:
    """Has big files stored by the container itself; returns their names."""
    shortcut, mark = run.plan.attempt.shortcut, run.mark
    if shortcut is None or mark is None or not mark.has_curl or run.direct.trouble:
        return []
    sent = await run.direct.send(run.plan.work_path, paths, shortcut)
    await run.say_trouble()
    return sent


async def _say_left_out(run: PodRun, names: list[str]) -> None:
    for name in names[:_NAMED]:
        await run.note(f"{name} of the container was left out: it is no file or folder, or leads out of the folder")
    if len(names) > _NAMED:
        least = "at least " if len(names) >= MOST_NAMES else ""
        await run.note(f"and {least}{len(names) - _NAMED} more were left out")


async def _get_outputs(run: PodRun, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        await run.transfer.get(HOME_PATH, ["output"], Path(folder))
        await asyncio.to_thread(_place, Path(folder, "output"), target)


def _place(brought: Path, target: Path) -> None:
    if brought.is_file() and not brought.is_symlink():
        brought.replace(target)
