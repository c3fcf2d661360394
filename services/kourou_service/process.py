"""A service as a process: one event loop until SIGINT or SIGTERM, exit codes, errors a user can read.

Exit codes: 0 a clean stop, 1 the service cannot run (a port is taken, the data folder is locked), 2 a setting is
wrong, 70 a fault of ours (with a traceback in the log).
"""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable

import structlog

INTERNAL_FAULT = 70


class UserError(Exception):
    """The service cannot run, for a reason the user can mend: shown as one line, without a traceback."""

    exit_code = 1


Service = Callable[[asyncio.Event], Awaitable[None]]
"""Starts the service, runs until the event is set, and stops it. Raises UserError or OSError when it cannot run."""


def run_process(name: str, service: Service) -> int:
    """Runs the service on an event loop of its own; the exit code is the answer. A second signal ends it at once."""
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_until_signalled(service))
    except UserError as problem:
        return _complain(name, str(problem), problem.exit_code)
    except OSError as problem:
        where = f"{problem.filename}: " if problem.filename else ""
        return _complain(name, where + (problem.strerror or str(problem)), UserError.exit_code)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception:
        structlog.get_logger(name).exception("stopped by a fault")
        return INTERNAL_FAULT
    return 0


async def _until_signalled(service: Service) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def first_signal(number: signal.Signals) -> None:
        stop.set()
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(each)
            signal.signal(each, signal.default_int_handler if each == signal.SIGINT else signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, first_signal, number)
    await service(stop)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # not on this platform
        return None
    return uvloop.new_event_loop


def _complain(name: str, message: str, code: int) -> int:
    print(f"{name}: {message}", file=sys.stderr)
    return code
