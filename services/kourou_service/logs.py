"""One line for each event, on stderr: for people on a terminal, as JSON for machines. Libraries' lines look alike.

What is logged while a call is handled says whose call it is; who hands a call over to a handler sets `current_call`.
"""

import logging
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from typing import Any, Literal, TextIO

import structlog

from kourou_service.client_headers import request_id
from kourou_service.engine.interface import Call

current_call: ContextVar[Call | None] = ContextVar("current_call", default=None)
lines_by_level: dict[Any, int] = dict.fromkeys(("debug", "info", "warning", "error", "critical"), 0)
"""Logged since the start of the process."""

MAX_ID_CHARS = 255

Event = MutableMapping[str, Any]


def configure_logging(level: str, log_format: Literal["auto", "terminal", "json"]) -> None:
    """Once in a process, before anything is logged."""
    terminal = log_format == "terminal" or (log_format == "auto" and sys.stderr.isatty())
    facts: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_call,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=not terminal),
        _count,
    ]
    look = _for_people() if terminal else _for_machines()
    structlog.configure(
        processors=[*facts, *look],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(_Unfailing(sys.stderr)),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*facts, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *look],
        )
    )
    # Libraries log by the standard module; theirs are warnings at most.
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def apart_from_calls() -> Context:
    """For a task that a call happens to begin and that is no part of it."""
    context = copy_context()
    context.run(current_call.set, None)
    return context


def identity(call: Call) -> dict[str, str]:
    """Whose call it is, as far as it says so, and the id by which all that is told of it is found."""
    told = {"method": call.method, "peer": call.peer, "request_id": request_id(call.metadata)[:MAX_ID_CHARS]}
    client_id = call.metadata.get("x-mq-client-id")
    if isinstance(client_id, str):
        told["client_id"] = client_id[:MAX_ID_CHARS]
    return {name: value for name, value in told.items() if value}


class _Unfailing:
    """Stderr may be a file on a full disk, or a pipe that nobody reads any more: that must not stop who logs."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError):  # the latter once it is closed
            self._file.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._file.flush()


def _for_people() -> list[structlog.typing.Processor]:
    return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]


def _for_machines() -> list[structlog.typing.Processor]:
    # Without the values of variables: they may hold messages, which are nobody's business.
    tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [structlog.processors.ExceptionRenderer(tracebacks), structlog.processors.JSONRenderer()]


def _add_call(_logger: object, _method: str, event: Event) -> Event:
    call = current_call.get()
    if call is not None:
        for name, value in identity(call).items():
            event.setdefault(name, value)
    return event


def _count(_logger: object, _method: str, event: Event) -> Event:
    level = event.get("level")
    if level in lines_by_level:
        lines_by_level[level] += 1
    return event
