"""Functions that the PYTHON tests call."""

# ruff: noqa: T201 - printing is what some of them are for

import asyncio
import contextvars
import dataclasses
import datetime
import os
import sys
import threading
from typing import Any, NoReturn

#: Lets go of the functions that hold their thread.
released = threading.Event()
begun = threading.Event()
calls: list[Any] = []
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="untouched")
not_callable = 3


async def succeed() -> None:
    return None


def succeed_sync() -> None:
    return None


async def leave(code: int) -> NoReturn:
    sys.exit(code)


def leave_sync(code: Any) -> NoReturn:
    sys.exit(code)


async def talk(text: str) -> None:
    print(text)
    await asyncio.sleep(0)


def talk_sync(text: str) -> None:
    print(text)


async def last() -> None:
    await asyncio.Event().wait()


def last_sync() -> None:
    released.wait(60)


async def ignore_cancel() -> None:
    while not released.is_set():
        try:
            await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            calls.append("ignored")


async def block_loop() -> None:
    begun.set()
    released.wait(60)


async def talk_big(lines: int) -> None:
    for _ in range(lines):
        print("x" * 65535)


def talk_big_sync(lines: int) -> None:
    for _ in range(lines):
        print("x" * 65535)


def echo(*args: Any, **kwargs: Any) -> dict[str, Any]:
    return {"args": args, "kwargs": kwargs}


def remember(value: Any) -> None:
    calls.append(value)


def inner() -> NoReturn:
    raise ValueError("what went wrong")


async def fail() -> None:
    inner()


async def cancel_itself() -> None:
    raise asyncio.CancelledError


async def leave_in_subtask() -> str:
    async def leave_now() -> None:
        sys.exit(5)

    task = asyncio.create_task(leave_now())
    await asyncio.wait([task])
    return "went on"


async def with_timeout() -> str:
    try:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()
    except TimeoutError:
        return "timed out inside"
    return "never"


async def touch_variable() -> str:
    before = variable.get()
    variable.set("touched")
    return before


def process_id() -> int:
    return os.getpid()


def thread_name() -> str:
    return threading.current_thread().name


def die(code: int) -> None:
    os._exit(code)


def crash() -> None:
    os.kill(os.getpid(), 11)


def unencodable() -> dict[str, Any]:
    return {"rows": [1, {"lock": threading.Lock()}]}


@dataclasses.dataclass
class Row:
    day: datetime.date
    pair: tuple[int, int]


def typed_row() -> Row:
    return Row(datetime.date(2024, 2, 29), (1, 2))


class Group:
    @staticmethod
    def member(value: int) -> int:
        return value + 1


async def talk_in_thread(text: str) -> None:
    await asyncio.to_thread(print, text)


def write_raw(data: str) -> None:
    sys.stdout.buffer.write(data.encode())
    sys.stderr.write("to stderr\n")
    sys.stdout.flush()
