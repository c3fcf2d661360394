"""What brokers may ask of any client over its telemetry stream."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable
from io import StringIO

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2.service_pb2 import TelemetryCommand, ThreadStackTrace, VerifyMessageResult

_log = logging.getLogger(__name__)

Handler = Callable[[TelemetryCommand, str], Awaitable[TelemetryCommand | None]]
"""Takes the command and the "host:port" of the broker; returns the answer, if there is one."""

MAX_STACKS_CHARS = 256 * 1024

PRINT_STACKS = "print_thread_stack_trace_command"
VERIFY_MESSAGE = "verify_message_command"
RECONNECT = "reconnect_endpoints_command"
CHECK_TRANSACTION = "recover_orphaned_transaction_command"


async def print_stacks(command: TelemetryCommand, address: str) -> TelemetryCommand:
    nonce = command.print_thread_stack_trace_command.nonce
    return TelemetryCommand(
        status=v2.Status(code=v2.OK),
        thread_stack_trace=ThreadStackTrace(nonce=nonce, thread_stack_trace=stacks()[:MAX_STACKS_CHARS]),
    )


async def cannot_verify(command: TelemetryCommand, address: str) -> TelemetryCommand:
    """Of a client that has no listener."""
    text = "only push consumers have a listener that a message could be tried with"
    return verified(command, v2.Status(code=v2.NOT_IMPLEMENTED, message=text))


async def cannot_check(command: TelemetryCommand, address: str) -> None:
    """Of a client that has no transaction checker: the broker asks again, and may find another one."""
    message_id = command.recover_orphaned_transaction_command.message.system_properties.message_id
    text = "%s asks what became of the transaction of message %s, and this producer has no transaction_checker"
    _log.warning(text, address, message_id)


def verified(command: TelemetryCommand, status: v2.Status) -> TelemetryCommand:
    result = VerifyMessageResult(nonce=command.verify_message_command.nonce)
    return TelemetryCommand(status=status, verify_message_result=result)


def stacks() -> str:
    """Of all threads of this process, and all tasks of the running event loop."""
    text = StringIO()
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for thread_id, frame in sys._current_frames().items():  # pyright: ignore[reportPrivateUsage]
        text.write(f"thread {names.get(thread_id, '?')} ({thread_id})\n")
        text.writelines(traceback.format_stack(frame))
        text.write("\n")
    for task in asyncio.all_tasks():
        text.write(f"task {task.get_name()}\n")
        for frame in task.get_stack():
            text.write(f'  File "{frame.f_code.co_filename}", line {frame.f_lineno}, in {frame.f_code.co_qualname}\n')
        text.write("\n")
    return text.getvalue()
