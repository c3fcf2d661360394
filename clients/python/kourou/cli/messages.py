"""`kourou message`: finding messages, and taking delayed ones back."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from kourou.cli import admin as admin_service
from kourou.cli.explain import explain
from kourou.cli.message_rows import message_row, preview
from kourou.cli.options import DEFAULT_ADMIN, Admin, Json, Namesrv, TopicName, resource
from kourou.cli.output import show_rows
from kourou.cli.times import TIME_HELP, timestamp
from kourou.client import DEFAULT_NAMESRV
from kourou.producer import AsyncProducer
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.admin.v1 import admin_rpc
from kourou.protocol.kourou.admin.v1.admin_pb2 import BrokerMessage, FindMessagesRequest
from kourou.protocol.kourou.broker.v1.broker_pb2 import TimeSpan
from kourou.received import ReceivedMessage

app = typer.Typer(help="Find messages, take delayed ones back.", no_args_is_help=True)


@app.callback()
def message() -> None:
    """Find messages, take delayed ones back."""


@app.command()
def recall(
    topic: TopicName,
    handle: Annotated[str, typer.Argument(metavar="HANDLE", help="The recall handle that the sender got.")],
    namesrv: Namesrv = DEFAULT_NAMESRV,
) -> None:
    """Take a delayed message back before its time."""
    print(f"recalled: id {asyncio.run(_recall(namesrv, resource(topic), handle))}")


async def _recall(namesrv: str, topic: v2.Resource, handle: str) -> str:
    async with AsyncProducer(namesrv, namespace=topic.resource_namespace) as producer:
        return await producer.recall(topic.name, handle)


@app.command()
def find(
    topic: Annotated[str | None, typer.Option(help="Needed with all but --offset-id.")] = None,
    message_id: Annotated[str | None, typer.Option("--id", help="The message id.")] = None,
    offset_id: Annotated[
        str | None, typer.Option("--offset-id", help="The broker's own id, such as broker-a@1f40.3.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="One of the message's keys.")] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help=f"Stored then or later. {TIME_HELP}")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Stored before then; default: now.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=256, help="At most so many.")] = 64,
    json: Json = False,
    admin: Admin = DEFAULT_ADMIN,
) -> None:
    """Find messages by exactly one of: --id, --offset-id, --key, or --from with --to."""
    by_time = start is not None or end is not None
    if [message_id is not None, offset_id is not None, key is not None, by_time].count(True) != 1:
        raise typer.BadParameter("give exactly one of --id, --offset-id, --key, or --from with --to")
    if topic is None and offset_id is None:
        raise typer.BadParameter("--topic is needed")
    request = FindMessagesRequest(limit=limit)
    if topic is not None:
        request.topic.CopyFrom(resource(topic))
    if message_id is not None:
        request.message_id = message_id
    elif offset_id is not None:
        request.offset_message_id = offset_id
    elif key is not None:
        request.key = key
    else:
        request.time.CopyFrom(_span(start, end))
    response = admin_service.call(admin, admin_rpc.FIND_MESSAGES, request, admin_service.SEARCH_TIMEOUT_S)
    rows = [_row(entry) for entry in response.messages]
    if not json:
        rows = [{**row, "body": preview(row)} for row in rows]
    columns = ["stored_ms", "topic", "broker", "queue", "offset", "message_id", "offset_message_id", "tag", "keys"]
    show_rows(rows, json, [*columns, "body"], "no such messages")
    admin_service.warn_missing(response.failures)


app.command()(explain)


def _span(start: str | None, end: str | None) -> TimeSpan:
    """What is absent stays absent: from the first message, until now."""
    return TimeSpan(
        begin=None if start is None else timestamp(start),
        end=None if end is None else timestamp(end),
    )


def _row(entry: BrokerMessage) -> dict[str, Any]:
    row = message_row(ReceivedMessage(entry.found.message, entry.broker, ""))
    return {**row, "offset_message_id": entry.found.offset_message_id}
