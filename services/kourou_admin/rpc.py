"""The door of the Admin service: which method is which operation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from google.protobuf.message import Message

from kourou.protocol.kourou.admin.v1 import admin_rpc
from kourou.protocol.method import ServerStreamMethod, UnaryMethod
from kourou_admin.brokers import Brokers
from kourou_admin.commands import Commands
from kourou_admin.dead_letters import DeadLetters
from kourou_admin.draining import Draining
from kourou_admin.groups import Groups
from kourou_admin.messages import Messages
from kourou_admin.progress import Progress
from kourou_admin.spreading import Spreading
from kourou_admin.topics import Topics
from kourou_service.door import send_in_time, serve_stream, serve_unary
from kourou_service.engine import Call, Engine, StreamCall

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)


def open_door(
    engine: Engine,
    topics: Topics,
    spreading: Spreading,
    groups: Groups,
    brokers: Brokers,
    draining: Draining,
    progress: Progress,
    messages: Messages,
    commands: Commands,
    dead_letters: DeadLetters,
) -> None:
    """Register every method of the service."""
    _serve(engine, admin_rpc.CREATE_TOPIC, topics.create)
    _serve(engine, admin_rpc.CHANGE_TOPIC, topics.change)
    _serve(engine, admin_rpc.DELETE_TOPIC, topics.delete)
    _serve(engine, admin_rpc.LIST_TOPICS, topics.list)
    _serve_reports(engine, admin_rpc.SPREAD_TOPICS, spreading.spread)
    _serve(engine, admin_rpc.CREATE_GROUP, groups.create)
    _serve(engine, admin_rpc.CHANGE_GROUP, groups.change)
    _serve(engine, admin_rpc.DELETE_GROUP, groups.delete)
    _serve(engine, admin_rpc.LIST_GROUPS, groups.list)
    _serve(engine, admin_rpc.LIST_BROKERS, brokers.list)
    _serve(engine, admin_rpc.SET_BROKER_PERMISSION, brokers.set_permission)
    _serve_reports(engine, admin_rpc.DRAIN_BROKER, draining.drain)
    _serve(engine, admin_rpc.FORGET_BROKER, brokers.forget)
    _serve(engine, admin_rpc.GET_ROUTE, brokers.route)
    _serve(engine, admin_rpc.LIST_CLIENTS, brokers.clients)
    _serve(engine, admin_rpc.DESCRIBE_PROGRESS, progress.describe)
    _serve(engine, admin_rpc.RESET_OFFSET, progress.reset)
    _serve(engine, admin_rpc.FIND_MESSAGES, messages.find)
    _serve(engine, admin_rpc.LIST_DEAD_LETTERS, dead_letters.list)
    _serve_reports(engine, admin_rpc.RESEND_DEAD_LETTERS, dead_letters.resend)
    _serve(engine, admin_rpc.PRINT_THREAD_STACK_TRACE, commands.print_thread_stack_trace)
    _serve(engine, admin_rpc.VERIFY_MESSAGE, commands.verify_message)
    _serve(engine, admin_rpc.RECONNECT_CLIENT, commands.reconnect_client)
    _serve(engine, admin_rpc.EXPLAIN_MESSAGE, messages.explain)


_operations: set[asyncio.Task[Any]] = set()  # the loop itself keeps only weak references


def _serve(engine: Engine, method: UnaryMethod[Q, A], operation: Callable[[Q], Coroutine[Any, Any, A]]) -> None:
    async def handle(request: Q, _: Call) -> A:
        # A caller who leaves must not leave a change half done, on some brokers only.
        task = asyncio.create_task(operation(request))
        _operations.add(task)
        task.add_done_callback(_operations.discard)
        return await asyncio.shield(task)

    serve_unary(engine, method, handle)


def _serve_reports(
    engine: Engine, method: ServerStreamMethod[Q, A], operation: Callable[[Q], AsyncGenerator[A, None]]
) -> None:
    """For what takes long: it can be broken off between two reports, and taken up by the same request."""

    async def handle(request: Q, call: StreamCall) -> None:
        async with aclosing(operation(request)) as reports:
            async for report in reports:
                await send_in_time(call, report)

    serve_stream(engine, method, handle)
