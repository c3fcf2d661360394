"""`kourou progress` and `kourou offset`: how far groups have read."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kourou.cli import admin as admin_service
from kourou.cli.options import DEFAULT_ADMIN, Admin, GroupName, Json, TopicName, resource, shown
from kourou.cli.output import show_rows
from kourou.cli.times import TIME_HELP, timestamp
from kourou.protocol.kourou.admin.v1 import admin_rpc
from kourou.protocol.kourou.admin.v1.admin_pb2 import BrokerQueue, DescribeProgressRequest, ResetOffsetRequest
from kourou.protocol.kourou.broker.v1.broker_pb2 import Progress

offset_app = typer.Typer(help="Move the progress of a group.", no_args_is_help=True)


def progress(
    group: Annotated[str | None, typer.Argument(metavar="[GROUP]", help="Absent: all groups.")] = None,
    topic: Annotated[str | None, typer.Option(help="Only this topic.")] = None,
    json: Json = False,
    admin: Admin = DEFAULT_ADMIN,
) -> None:
    """Show how far groups have read, queue by queue, and what is left (lag)."""
    request = DescribeProgressRequest()
    if group is not None:
        request.group.CopyFrom(resource(group))
    if topic is not None:
        request.topic.CopyFrom(resource(topic))
    response = admin_service.call(admin, admin_rpc.DESCRIBE_PROGRESS, request)
    rows = [_row(entry, reader) for entry in response.queues for reader in entry.queue.progress]
    columns = ["group", "topic", "broker", "queue", "first_offset", "committed_offset", "next_offset", "lag"]
    show_rows(rows, json, [*columns, "inflight", "owner"], "no group has read anything here")
    if rows and not json:
        print(f"lag in all: {sum(row['lag'] for row in rows)}")
    admin_service.warn_missing(response.failures)


@offset_app.callback()
def offset() -> None:
    """Move the progress of a group."""


@offset_app.command()
def reset(
    group: GroupName,
    topic: TopicName,
    to_time: Annotated[
        str | None, typer.Option("--to-time", metavar="TIME", help=f"The first one stored then or later. {TIME_HELP}")
    ] = None,
    to_offset: Annotated[int | None, typer.Option("--to-offset", min=0, help="This offset in each queue.")] = None,
    first: Annotated[bool, typer.Option("--first", help="The first message there is.")] = False,
    last: Annotated[bool, typer.Option("--last", help="After the last message: only new ones.")] = False,
    broker: Annotated[str | None, typer.Option(help="Only on this broker.")] = None,
    queue: Annotated[int | None, typer.Option(min=0, help="Only this queue, on each broker.")] = None,
    json: Json = False,
    admin: Admin = DEFAULT_ADMIN,
) -> None:
    """Move the progress of a group in a topic; exactly one target is needed."""
    if [to_time is not None, to_offset is not None, first, last].count(True) != 1:
        raise typer.BadParameter("give exactly one of --to-time, --to-offset, --first, --last")
    request = ResetOffsetRequest(group=resource(group), topic=resource(topic), broker=broker, queue=queue)
    if to_time is not None:
        request.time.CopyFrom(timestamp(to_time))
    elif to_offset is not None:
        request.offset = to_offset
    elif first:
        request.first = True
    else:
        request.last = True
    response = admin_service.call(admin, admin_rpc.RESET_OFFSET, request)
    rows = [{"broker": moved.broker, "queue": moved.queue, "offset": moved.offset} for moved in response.offsets]
    show_rows(rows, json, ["broker", "queue", "offset"], "no queue was moved")
    admin_service.refuse_partial(response.outcomes)


def _row(entry: BrokerQueue, reader: Progress) -> dict[str, Any]:
    return {
        "group": shown(reader.group),
        "topic": shown(entry.queue.topic),
        "broker": entry.broker,
        "queue": entry.queue.id,
        "first_offset": entry.queue.first_offset,
        "committed_offset": reader.committed_offset,
        "next_offset": entry.queue.next_offset,
        "lag": reader.lag,
        "inflight": reader.inflight,
        "owner": reader.owner_client_id or None,
    }
