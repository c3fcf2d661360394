"""Ctrl-C as an event, so that a command can end what it has begun."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Generator
from contextlib import contextmanager, suppress

INTERRUPTED = 130
"""The exit code, as shells have it."""


@contextmanager
def interruptible() -> Generator[asyncio.Event]:
    """The event is set by the first SIGINT or SIGTERM; a second one ends the command at once."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    signals = (signal.SIGINT, signal.SIGTERM)

    def first_signal() -> None:
        stop.set()
        restore()

    def restore() -> None:
        for number in signals:
            loop.remove_signal_handler(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    # Not on the main thread, or not on this platform: then Python's own way stays.
    with suppress(NotImplementedError, RuntimeError, ValueError):
        for number in signals:
            loop.add_signal_handler(number, first_signal)
    try:
        yield stop
    finally:
        if not stop.is_set():
            with suppress(NotImplementedError, RuntimeError, ValueError):
                restore()
