"""Functions that the tests' PYTHON tasks call."""

import asyncio
import threading
from collections import defaultdict

#: The longest that tasks wait for each other, in seconds; only where something is wrong.
PATIENCE_S = 50.0


class Meeting:
    """Tasks that wait for each other, in threads: asynchronous functions of two ants share no loop."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.begun_count = 0
        self.anybody_came = threading.Event()
        self.everybody_came = threading.Event()


meetings: defaultdict[str, Meeting] = defaultdict(Meeting)


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return number * 2


def meet(name: str, count: int) -> None:
    """Returns when ``count`` tasks have come to the meeting: so many run at once."""
    meeting = meetings[name]
    with meeting.lock:
        meeting.begun_count += 1
        if meeting.begun_count == count:
            meeting.everybody_came.set()
    meeting.anybody_came.set()
    assert meeting.everybody_came.wait(PATIENCE_S), f"{meeting.begun_count} of {count} came"


def explode() -> None:
    raise ValueError("as asked")
