"""What the end of a function means: results checked to be JSON, exceptions with a short traceback."""

import traceback
from pathlib import Path
from typing import Any

import msgspec

from executors.base import Outcome, Reason
from executors.excerpts import without_last_line

_OWN_FOLDER = str(Path(__file__).parent)
#: Frames of a traceback that are shown, the innermost ones.
_FRAMES = 20
#: A longer message is cut behind one of its lines.
_MESSAGE_CHARACTERS = 16 * 1024


def outcome_of_result(result: Any) -> Outcome:
    """Returns success with ``outputs.result``, or a failure that names what is no JSON."""
    if result is None:
        return Outcome(Reason.EXITED, 0, True, {"result": None})
    try:
        # The round trip also turns tuples, dataclasses and dates into what a reader of the output will get.
        plain = msgspec.json.decode(msgspec.json.encode(result))
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as exc:
        return Outcome(Reason.EXITED, 1, False, message=_no_json(result, exc))
    return Outcome(Reason.EXITED, 0, True, {"result": plain})


def outcome_of_exit(exc: SystemExit) -> tuple[Outcome, str]:
    """Returns the outcome of ``sys.exit(…)`` and what it wants to be printed."""
    if exc.code is None or isinstance(exc.code, int):
        code = exc.code or 0
        return Outcome(Reason.EXITED, code, code == 0, {}, None if code == 0 else f"exit code {code}"), ""
    return Outcome(Reason.EXITED, 1, False, message=_cut(str(exc.code))), f"{exc.code}\n"


def outcome_of_exception(exc: BaseException) -> tuple[Outcome, str]:
    """Returns the failure and the traceback without the frames of formicary."""
    outer = traceback.TracebackException.from_exception(exc, limit=-_FRAMES)
    _drop_own_frames(outer)
    text = "".join(outer.format())
    message = "".join(outer.format_exception_only()).strip()
    return Outcome(Reason.EXITED, 1, False, message=_cut(message)), text


def _drop_own_frames(part: traceback.TracebackException | None) -> None:
    while part is not None:
        part.stack = traceback.StackSummary.from_list([frame for frame in part.stack if not _is_own(frame)])
        part = part.__cause__ or part.__context__


def _is_own(frame: traceback.FrameSummary) -> bool:
    return frame.filename.startswith(_OWN_FOLDER)


def _no_json(result: Any, exc: Exception) -> str:
    path, value = _guilty(result, "result")
    return _cut(f"{path} is {type(value).__name__}, which is no JSON ({exc}); return numbers, texts, lists and dicts")


def _guilty(value: Any, path: str) -> tuple[str, Any]:
    """Returns the innermost part that cannot be encoded, and where it is."""
    parts: list[tuple[str, Any]] = []
    if isinstance(value, dict):
        parts = [(f"{path}[{key!r}]", part) for key, part in value.items()]
    elif isinstance(value, list | tuple):
        parts = [(f"{path}[{number}]", part) for number, part in enumerate(value)]
    for part_path, part in parts:
        if not _is_json(part):
            return _guilty(part, part_path)
    return path, value


def _is_json(value: Any) -> bool:
    try:
        msgspec.json.encode(value)
    except RecursionError:
        return True  # it is the whole that is too deep, not this part
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError):
        return False
    return True


def _cut(message: str) -> str:
    if len(message) <= _MESSAGE_CHARACTERS:
        return message
    return without_last_line(message[:_MESSAGE_CHARACTERS]) + f"… ({len(message)} characters)"
