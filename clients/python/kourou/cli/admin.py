"""Calls to the admin service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import aclosing
from typing import TypeVar, cast

from google.protobuf.message import Message

from kourou.cli.errors import CommandError
from kourou.cli.root import warn
from kourou.errors import ConnectionFailed, check_status
from kourou.protocol.apache.rocketmq.v2.definition_pb2 import Code, Status
from kourou.protocol.kourou.admin.v1.admin_pb2 import Outcome
from kourou.protocol.method import ServerStreamMethod, UnaryMethod
from kourou.transport import GrpcTransport
from kourou.wire import Wire, new_client_id

# Longer than the admin service gives the brokers.
CALL_TIMEOUT_S = 20.0
SEARCH_TIMEOUT_S = 70.0
# For what goes on until it is done: a drain may wait for consumers.
REPORTS_TIMEOUT_S = 30 * 24 * 3600.0


Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)


def call(address: str, method: UnaryMethod[Q, A], request: Q, timeout_s: float = CALL_TIMEOUT_S) -> A:
    """The answer when all or some brokers did it. Raises KourouError or CommandError."""
    return asyncio.run(_call(address, method, request, timeout_s))


def follow(address: str, method: ServerStreamMethod[Q, A], request: Q, on_report: Callable[[A], None]) -> None:
    """Hands on each report of what takes long, up to the last. Raises KourouError or CommandError."""
    asyncio.run(_follow(address, method, request, on_report))


async def _follow(address: str, method: ServerStreamMethod[Q, A], request: Q, on_report: Callable[[A], None]) -> None:
    transport = GrpcTransport()
    try:
        reports = Wire(transport, new_client_id()).stream(address, method, request, REPORTS_TIMEOUT_S)
        async with aclosing(reports):
            async for report in reports:
                status = cast("Status", getattr(report, "status"))  # noqa: B009  (all reports have it)
                if status.code != Code.MULTIPLE_RESULTS:
                    check_status(status)
                on_report(report)
    except ConnectionFailed:
        raise _nobody_at(address) from None
    finally:
        await transport.close()


async def _call(address: str, method: UnaryMethod[Q, A], request: Q, timeout_s: float) -> A:
    transport = GrpcTransport()
    try:
        return (await Wire(transport, new_client_id()).call(address, method, request, timeout_s)).message
    except ConnectionFailed:
        raise _nobody_at(address) from None
    finally:
        await transport.close()


def _nobody_at(address: str) -> CommandError:
    return CommandError(
        f"no admin service answers at {address}; `kourou dev` starts a local cluster, --admin names another"
    )


def done_by(outcomes: Iterable[Outcome]) -> str:
    """The brokers that did it, for the message of success."""
    done = [outcome.broker for outcome in outcomes if outcome.status.code == Code.OK]
    return ", ".join(done)


def refuse_partial(outcomes: Iterable[Outcome], way_out: str = "") -> None:
    """Raises CommandError that names the brokers that did not do it. `way_out`: the command that finishes it once the
    brokers that are named with --broker are back."""
    failed = [outcome for outcome in outcomes if outcome.status.code != Code.OK]
    if not failed:
        return
    text = "; ".join(f"{outcome.broker}: {outcome.status.message}" for outcome in failed)
    if way_out:
        back = "it is" if len(failed) == 1 else "they are"
        text += f"; when {back} back: {way_out}{''.join(f' --broker {outcome.broker}' for outcome in failed)}"
    raise CommandError(f"not done on {text}")


def warn_missing(failures: Iterable[Outcome]) -> None:
    """A listing without the brokers that did not answer."""
    for failure in failures:
        warn(f"{failure.broker} is missing here: {failure.status.message}")
