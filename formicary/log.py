"""Set-up of structlog: the console on a terminal, JSON lines elsewhere."""

import logging
import sys
from typing import Any

import structlog


def configure(level: str, log_format: str | None) -> None:
    """Configures the process's log, on stderr.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        log_format: ``console`` or ``json``; None chooses by whether stderr is a terminal.
    """
    chosen = log_format or ("console" if sys.stderr.isatty() else "json")
    renderer: Any = structlog.dev.ConsoleRenderer() if chosen == "console" else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_Libraries()])


class _Libraries(logging.Handler):
    """Takes what libraries log into the one log: warnings and worse.

    Their errors are words without a traceback, for what fails around this process is told by whoever called the
    library. That of ``asyncio`` stays: it tells of a defect here.
    """

    def emit(self, record: logging.LogRecord) -> None:
        told = structlog.get_logger(record.name).bind(library=record.name, message=record.getMessage())
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and record.name == "asyncio":
            told.error("library_warns", exc_info=error)
        elif error is not None:
            told.log(record.levelno, "library_warns", reason=f"{type(error).__name__}: {error}")
        else:
            told.log(record.levelno, "library_warns")
