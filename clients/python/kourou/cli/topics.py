"""`kourou topic`."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated, Any

import typer

from kourou.cli import admin as admin_service
from kourou.cli.bar import Bar
from kourou.cli.durations import duration, duration_text
from kourou.cli.options import DEFAULT_ADMIN, Admin, Json, TopicName, Yes, resource, shown
from kourou.cli.output import show_fields, show_rows
from kourou.cli.permissions import Permission
from kourou.cli.root import warn
from kourou.limits import MAX_QUEUES
from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.apache.rocketmq.v2.definition_pb2 import Code
from kourou.protocol.google.protobuf.duration_pb2 import Duration
from kourou.protocol.kourou.admin.v1 import admin_rpc
from kourou.protocol.kourou.admin.v1.admin_pb2 import (
    ChangeTopicRequest,
    CreateTopicRequest,
    DeleteTopicRequest,
    ListTopicsRequest,
    Outcome,
    SpreadTopicsRequest,
    SpreadTopicsResponse,
    Topic,
)

app = typer.Typer(help="Topics: create, list, show, change, delete.", no_args_is_help=True)


class TopicType(StrEnum):
    NORMAL = "normal"
    FIFO = "fifo"
    DELAY = "delay"
    TRANSACTION = "transaction"
    PRIORITY = "priority"
    LITE = "lite"


LiteExpiration = Annotated[
    str | None,
    typer.Option(
        help="Of type lite: a lite topic without new messages for so long goes (15m to 30d, as in 1h; never)."
    ),
]


@app.command()
def create(
    name: TopicName,
    message_type: Annotated[TopicType, typer.Option("--type", help="What it holds.")] = TopicType.NORMAL,
    queues: Annotated[int | None, typer.Option(min=1, max=MAX_QUEUES, help="Queues on each broker; absent: 8.")] = None,
    broker: Annotated[list[str] | None, typer.Option(help="Only on this broker (repeatable); else on all.")] = None,
    lite_expiration: LiteExpiration = None,
    admin: Admin = DEFAULT_ADMIN,
) -> None:
    """Create a topic, on all brokers."""
    request = CreateTopicRequest(
        name=resource(name),
        type=message_type.name,
        queues=queues,
        brokers=broker or [],
        lite_expiration_minutes=_minutes(lite_expiration),
    )
    response = admin_service.call(admin, admin_rpc.CREATE_TOPIC, request)
    topic = response.topic
    print(f"topic {shown(topic.name)} created: {topic.queues} queues on {admin_service.done_by(response.outcomes)}")
    admin_service.refuse_partial(response.outcomes, f"kourou topic create {name}")


@app.command("list")
def list_topics(json: Json = False, admin: Admin = DEFAULT_ADMIN) -> None:
    """List all topics."""
    response = admin_service.call(admin, admin_rpc.LIST_TOPICS, ListTopicsRequest())
    rows = [_row(topic) for topic in response.topics]
    columns = ["name", "type", "queues", "permission", "brokers", "differing_brokers"]
    show_rows(rows, json, columns, "no topics; `kourou topic create NAME` makes one")
    admin_service.warn_missing(response.failures)


@app.command()
def show(name: TopicName, json: Json = False, admin: Admin = DEFAULT_ADMIN) -> None:
    """Show one topic."""
    response = admin_service.call(admin, admin_rpc.LIST_TOPICS, ListTopicsRequest(name=resource(name)))
    topic = response.topics[0]
    show_fields(_row(topic), json)
    if topic.differing_brokers:
        warn(f"{', '.join(topic.differing_brokers)}: another version; it is brought up to date when it answers")
    admin_service.warn_missing(response.failures)


@app.command()
def change(
    name: TopicName,
    queues: Annotated[int | None, typer.Option(min=1, max=MAX_QUEUES, help="Queues on each broker; only more.")] = None,
    permission: Annotated[Permission | None, typer.Option(help="What clients may do.")] = None,
    lite_expiration: LiteExpiration = None,
    admin: Admin = DEFAULT_ADMIN,
) -> None:
    """Change the number of queues, the permission, or when lite topics expire."""
    request = ChangeTopicRequest(name=resource(name), queues=queues, lite_expiration_minutes=_minutes(lite_expiration))
    if permission is not None:
        request.permission = permission.value_of_api
    response = admin_service.call(admin, admin_rpc.CHANGE_TOPIC, request)
    print(f"topic {name} changed on {admin_service.done_by(response.outcomes)}")
    if queues is not None and response.topic.type == definition_pb2.FIFO:
        warn("message groups may lie in other queues from now on: what was sent before and after is not kept in order")
    admin_service.refuse_partial(response.outcomes)


@app.command()
def spread(
    topic: Annotated[list[str] | None, typer.Option(help="Only this topic (repeatable); else all.")] = None,
    broker: Annotated[list[str] | None, typer.Option(help="Only to this broker (repeatable); else to all.")] = None,
    admin: Admin = DEFAULT_ADMIN,
) -> None:
    """Put topics on brokers that do not have them, as after a shard was added. Ctrl-C and again does no harm."""
    request = SpreadTopicsRequest(topics=[resource(name) for name in topic or []], brokers=broker or [])
    failed: dict[str, Outcome] = {}
    added = 0
    with Bar("topics") as bar:

        def on_report(report: SpreadTopicsResponse) -> None:
            nonlocal added
            added += any(outcome.status.code == Code.OK for outcome in report.outcomes)
            failed.update({outcome.broker: outcome for outcome in report.outcomes if outcome.status.code != Code.OK})
            bar.show(report.done, report.total, shown(report.topic))

        admin_service.follow(admin, admin_rpc.SPREAD_TOPICS, request, on_report)
    print(f"{added} of {bar.total} topics came to more brokers" if added else "every topic is there already")
    admin_service.refuse_partial(failed.values(), "kourou topic spread")


@app.command()
def delete(name: TopicName, yes: Yes = False, admin: Admin = DEFAULT_ADMIN) -> None:
    """Delete a topic with its messages, on all brokers."""
    if not yes:
        typer.confirm(f"Delete topic {name} with all its messages?", abort=True)
    response = admin_service.call(admin, admin_rpc.DELETE_TOPIC, DeleteTopicRequest(name=resource(name)))
    print(f"topic {name} deleted on {admin_service.done_by(response.outcomes)}")
    admin_service.refuse_partial(response.outcomes)


def _row(topic: Topic) -> dict[str, Any]:
    return {
        "name": shown(topic.name),
        "type": definition_pb2.MessageType.Name(topic.type).lower(),
        "queues": topic.queues,
        "permission": Permission.of_api(topic.permission),
        "version": topic.version,
        "brokers": list(topic.brokers),
        "differing_brokers": list(topic.differing_brokers),
        **_lite(topic),
    }


def _lite(topic: Topic) -> dict[str, Any]:
    if topic.type != definition_pb2.LITE:
        return {}
    minutes = topic.lite_expiration_minutes
    return {"lite_expiration": duration_text(Duration(seconds=minutes * 60)) if minutes else "never"}


def _minutes(text: str | None) -> int | None:
    """Whole ones, at least the time that is given."""
    if text is None:
        return None
    return 0 if text in ("never", "0") else math.ceil(duration(text).seconds / 60)
