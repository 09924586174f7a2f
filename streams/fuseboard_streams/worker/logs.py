"""Structured logs: one line per thing that happened, nothing per batch."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, TextIO

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger


def make_logger(form: str = "auto", level: str = "info", stream: TextIO | None = None) -> FilteringBoundLogger:
    """A logger of its own: structlog's global configuration stays as it is.

    Args:
        form: ``json``, ``console``, or ``auto`` for console on a terminal.
        level: Least level that is written.
        stream: Standard error by default.
    """
    stream = sys.stderr if stream is None else stream
    console = form == "console" or (form == "auto" and stream.isatty())
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(colors=stream.isatty())
        if console
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    logger: FilteringBoundLogger = structlog.wrap_logger(
        structlog.PrintLogger(stream),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _plain,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        cache_logger_on_first_use=True,
    )
    return logger


def _plain(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Names come from outside: lone surrogates and the like must not break the line."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = value.encode("utf-8", "replace").decode()
    return event
