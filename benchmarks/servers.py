"""Real brokers for the measurements, started by ``scripts/servers`` in a folder that is removed afterwards."""

import asyncio
import shlex
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

_SCRIPT = Path(__file__).parents[1] / "scripts" / "servers"


@asynccontextmanager
async def server(name: str) -> AsyncIterator[str]:
    """Yields the URL of a fresh server: ``redis``, ``kafka`` or ``pulsar``."""
    async with served(name) as urls:
        yield urls[f"{name.upper()}_URL"]


@asynccontextmanager
async def served(name: str) -> AsyncIterator[dict[str, str]]:
    """Yields what a fresh server is reached by."""
    with tempfile.TemporaryDirectory(prefix="formicary-bench-") as folder:
        try:
            yield _urls(await _run("start", name, folder))
        finally:
            await _run("stop", name, folder)


async def _run(action: str, name: str, folder: str) -> str:
    arguments = [str(_SCRIPT), action, name, "--dir", folder]
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{name} does not {action}")
    return output.decode()


def _urls(lines: str) -> dict[str, str]:
    pairs = [line.removeprefix("export ").partition("=") for line in lines.splitlines()]
    return {name.removeprefix("FORMICARY_TEST_"): shlex.split(value)[0] for name, _, value in pairs}
