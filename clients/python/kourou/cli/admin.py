"""Calls to the admin service."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.message import Message

from kourou.cli.errors import CommandError
from kourou.cli.root import warn
from kourou.errors import ConnectionFailed
from kourou.protocol.apache.rocketmq.v2.definition_pb2 import Code
from kourou.protocol.kourou.admin.v1.admin_pb2 import Outcome
from kourou.protocol.method import UnaryMethod
from kourou.transport import GrpcTransport
from kourou.wire import Wire, new_client_id

# Longer than the admin service gives the brokers.
CALL_TIMEOUT_S = 20.0
SEARCH_TIMEOUT_S = 70.0


Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)


def call(address: str, method: UnaryMethod[Q, A], request: Q, timeout_s: float = CALL_TIMEOUT_S) -> A:
    """The answer when all or some brokers did it. Raises KourouError or CommandError."""
    return asyncio.run(_call(address, method, request, timeout_s))


async def _call(address: str, method: UnaryMethod[Q, A], request: Q, timeout_s: float) -> A:
    transport = GrpcTransport()
    try:
        return (await Wire(transport, new_client_id()).call(address, method, request, timeout_s)).message
    except ConnectionFailed:
        raise CommandError(
            f"no admin service answers at {address}; `kourou dev` starts a local cluster, --admin names another"
        ) from None
    finally:
        await transport.close()


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
