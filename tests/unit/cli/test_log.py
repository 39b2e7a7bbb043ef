"""One log: what libraries say comes in the same form, and without their tracebacks."""

import json
import subprocess
import sys
from typing import Any

_PREPARE = """
import asyncio, logging
from formicary import log
log.configure("info", "json")
"""

_LIBRARY = """
try:
    raise ConnectionRefusedError("nobody listens")
except ConnectionRefusedError:
    logging.getLogger("driver").warning("failed to connect %d times", 3, exc_info=True)
"""

_DEFECT = """
async def fail():
    raise ValueError("lost")

async def main():
    await asyncio.wait([asyncio.create_task(fail())])

asyncio.run(main())
"""


def logged(program: str) -> Any:
    command = [sys.executable, "-c", _PREPARE + program]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stderr)


def test_a_warning_of_a_library_is_a_line_of_the_log_without_its_traceback() -> None:
    line = logged(_LIBRARY)
    assert (line["event"], line["library"], line["level"]) == ("library_warns", "driver", "warning")
    assert line["message"] == "failed to connect 3 times"
    assert line["reason"] == "ConnectionRefusedError: nobody listens"
    assert "Traceback" not in str(line)


def test_a_defect_that_the_event_loop_finds_keeps_its_traceback() -> None:
    line = logged(_DEFECT)
    assert line["library"] == "asyncio"
    assert "ValueError: lost" in line["exception"]
