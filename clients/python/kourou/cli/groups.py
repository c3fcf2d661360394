"""`kourou group`."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from kourou.cli import admin as admin_service
from kourou.cli.backoffs import BACKOFF_HELP, backoff, backoff_text
from kourou.cli.dead_letters import dead_letters, resend
from kourou.cli.errors import CommandError
from kourou.cli.options import DEFAULT_ADMIN, Admin, GroupName, Json, Yes, resource, shown
from kourou.cli.output import show_fields, show_rows
from kourou.cli.root import warn
from kourou.cli.times import TIME_HELP, milliseconds, timestamp
from kourou.limits import DEFAULT_LITE_QUOTA, MAX_LITE_QUOTA
from kourou.protocol.apache.rocketmq.v2.definition_pb2 import FilterType
from kourou.protocol.kourou.admin.v1 import admin_rpc
from kourou.protocol.kourou.admin.v1.admin_pb2 import (
    ChangeGroupRequest,
    CreateGroupRequest,
    DeleteGroupRequest,
    Group,
    GroupSettings,
    ListGroupsRequest,
)
from kourou.protocol.kourou.log.v1 import record_pb2

app = typer.Typer(help="Consumer groups: create, list, show, change, delete; dead letters.", no_args_is_help=True)


class Order(StrEnum):
    CONCURRENT = "concurrent"
    FIFO = "fifo"


class Assignment(StrEnum):
    EXCLUSIVE = "exclusive"
    SHARED = "shared"


_ORDERS = {Order.CONCURRENT: record_pb2.ORDER_CONCURRENT, Order.FIFO: record_pb2.ORDER_FIFO}
_ASSIGNMENTS = {
    Assignment.EXCLUSIVE: record_pb2.ASSIGNMENT_EXCLUSIVE,
    Assignment.SHARED: record_pb2.ASSIGNMENT_SHARED,
}

_STARTS = {"first": record_pb2.START_FIRST, "last": record_pb2.START_LAST}

MaxAttempts = Annotated[
    int | None, typer.Option(min=1, max=1000, help="Deliveries of a message before it goes to the dead-letter topic.")
]
OrderOption = Annotated[
    Order | None, typer.Option("--order", help="fifo: of each message group one message at a time.")
]
AssignmentOption = Annotated[
    Assignment | None, typer.Option("--assignment", help="Each queue to one member, or all members share all queues.")
]
BackoffOption = Annotated[str | None, typer.Option("--backoff", metavar="BACKOFF", help=BACKOFF_HELP)]
StartOption = Annotated[
    str | None,
    typer.Option(
        "--from", metavar="first|last|TIME", help=f"Where it begins in a queue that it has never read. {TIME_HELP}"
    ),
]


LiteOption = Annotated[
    str | None,
    typer.Option("--lite", metavar="TOPIC", help="For consumers of the lite topics of this topic."),
]
ExclusiveLite = Annotated[
    bool | None,
    typer.Option("--exclusive-lite/--shared-lite", help="A lite topic belongs to who subscribed last, or is shared."),
]
LiteQuota = Annotated[
    int | None,
    typer.Option(
        min=1, max=MAX_LITE_QUOTA, help=f"Lite topics that one client may read; absent: {DEFAULT_LITE_QUOTA}."
    ),
]


@app.command()
def create(
    name: GroupName,
    max_attempts: MaxAttempts = None,
    order: OrderOption = None,
    assignment: AssignmentOption = None,
    backoff_given: BackoffOption = None,
    start: StartOption = None,
    lite: LiteOption = None,
    exclusive_lite: ExclusiveLite = None,
    lite_quota: LiteQuota = None,
    admin: Admin = DEFAULT_ADMIN,
) -> None:
    """Create a consumer group, on all brokers (16 attempts over hours, concurrent, exclusive, from the first message,
    unless told otherwise)."""
    settings = _settings(max_attempts, order, assignment, backoff_given, start)
    if lite is not None:
        settings.lite.topic.CopyFrom(resource(lite))
        _set_lite(settings.lite, exclusive_lite, lite_quota)
    elif exclusive_lite is not None or lite_quota is not None:
        raise CommandError("--exclusive-lite and --lite-quota are of groups with --lite TOPIC")
    request = CreateGroupRequest(name=resource(name), settings=settings)
    response = admin_service.call(admin, admin_rpc.CREATE_GROUP, request)
    print(f"group {shown(response.group.name)} created on {admin_service.done_by(response.outcomes)}")
    admin_service.refuse_partial(response.outcomes)


@app.command("list")
def list_groups(json: Json = False, admin: Admin = DEFAULT_ADMIN) -> None:
    """List all consumer groups."""
    response = admin_service.call(admin, admin_rpc.LIST_GROUPS, ListGroupsRequest())
    rows = [_row(group) for group in response.groups]
    columns = ["name", "max_attempts", "order", "assignment", "backoff", "from", "brokers", "differing_brokers"]
    show_rows(rows, json, columns, "no groups; `kourou group create NAME` makes one")
    admin_service.warn_missing(response.failures)


@app.command()
def show(name: GroupName, json: Json = False, admin: Admin = DEFAULT_ADMIN) -> None:
    """Show one consumer group; `kourou progress GROUP` shows how far it has read."""
    response = admin_service.call(admin, admin_rpc.LIST_GROUPS, ListGroupsRequest(name=resource(name)))
    group = response.groups[0]
    row = _row(group)
    show_fields({**row, "differing_subscriptions": _differing(group)} if json else row, json)
    for differing in () if json else _differing(group):
        wants = differing["filter"] if differing["subscribed"] else "nothing of it"
        clients = ", ".join(differing["clients"])
        print(f"members differ in {differing['topic']}: {clients} wants {wants}")
    if group.differing_subscriptions:
        warn("the members subscribe differently: what one of them filters out, no other one gets")
    if group.differing_brokers:
        warn(f"{', '.join(group.differing_brokers)}: another version; it is brought up to date when it answers")
    admin_service.warn_missing(response.failures)


@app.command()
def change(
    name: GroupName,
    max_attempts: MaxAttempts = None,
    order: OrderOption = None,
    assignment: AssignmentOption = None,
    backoff_given: BackoffOption = None,
    start: StartOption = None,
    exclusive_lite: ExclusiveLite = None,
    lite_quota: LiteQuota = None,
    admin: Admin = DEFAULT_ADMIN,
) -> None:
    """Change what is given; the rest stays."""
    settings = _settings(max_attempts, order, assignment, backoff_given, start)
    if exclusive_lite is not None or lite_quota is not None:
        known = admin_service.call(admin, admin_rpc.LIST_GROUPS, ListGroupsRequest(name=resource(name)))
        settings.lite.CopyFrom(known.groups[0].settings.lite)
        _set_lite(settings.lite, exclusive_lite, lite_quota)
    request = ChangeGroupRequest(name=resource(name), settings=settings)
    response = admin_service.call(admin, admin_rpc.CHANGE_GROUP, request)
    print(f"group {name} changed on {admin_service.done_by(response.outcomes)}")
    admin_service.refuse_partial(response.outcomes)


@app.command()
def delete(name: GroupName, yes: Yes = False, admin: Admin = DEFAULT_ADMIN) -> None:
    """Delete a consumer group with its progress, on all brokers."""
    if not yes:
        typer.confirm(f"Delete group {name} with its progress?", abort=True)
    response = admin_service.call(admin, admin_rpc.DELETE_GROUP, DeleteGroupRequest(name=resource(name)))
    print(f"group {name} deleted on {admin_service.done_by(response.outcomes)}")
    admin_service.refuse_partial(response.outcomes)


app.command("dead-letters")(dead_letters)
app.command()(resend)


def _settings(
    max_attempts: int | None,
    order: Order | None,
    assignment: Assignment | None,
    backoff_given: str | None,
    start: str | None,
) -> GroupSettings:
    settings = GroupSettings(max_attempts=max_attempts)
    if backoff_given is not None:
        settings.backoff.CopyFrom(backoff(backoff_given))
    if start is not None:
        _set_start(settings, start)
    if order is not None:
        settings.order = _ORDERS[order]
    if assignment is not None:
        settings.assignment = _ASSIGNMENTS[assignment]
    return settings


def _set_lite(lite: record_pb2.LiteGroup, exclusive: bool | None, quota: int | None) -> None:
    if exclusive is not None:
        lite.exclusive = exclusive
    if quota is not None:
        lite.subscription_quota = quota


def _set_start(settings: GroupSettings, text: str) -> None:
    settings.start = _STARTS.get(text, record_pb2.START_TIME)
    if text not in _STARTS:
        try:
            settings.start_time.CopyFrom(timestamp(text))
        except CommandError as fault:
            raise CommandError(f"a group starts from first, last or a time; {fault}") from None


def _start_text(settings: GroupSettings) -> str:
    """As --from takes it."""
    if settings.start == record_pb2.START_TIME:
        return datetime.fromtimestamp(milliseconds(settings.start_time) / 1000, UTC).astimezone().isoformat()
    return record_pb2.Start.Name(settings.start).removeprefix("START_").lower()


def _differing(group: Group) -> list[dict[str, Any]]:
    """Each way to subscribe to a topic of which the members do not all want the same."""
    return [
        {
            "topic": shown(entry.topic),
            "subscribed": entry.HasField("expression"),
            "filter_type": FilterType.Name(entry.expression.type).lower() if entry.HasField("expression") else None,
            "filter": entry.expression.expression if entry.HasField("expression") else None,
            "clients": list(entry.client_ids),
        }
        for entry in group.differing_subscriptions
    ]


def _row(group: Group) -> dict[str, Any]:
    settings = group.settings
    return {
        "name": shown(group.name),
        "max_attempts": settings.max_attempts,
        "order": record_pb2.Order.Name(settings.order).removeprefix("ORDER_").lower(),
        "assignment": record_pb2.Assignment.Name(settings.assignment).removeprefix("ASSIGNMENT_").lower(),
        "backoff": backoff_text(settings.backoff),
        "from": _start_text(settings),
        "version": group.version,
        "brokers": list(group.brokers),
        "differing_brokers": list(group.differing_brokers),
        **_lite(group.settings),
    }


def _lite(settings: GroupSettings) -> dict[str, Any]:
    if not settings.HasField("lite"):
        return {}
    lite = settings.lite
    return {
        "lite": shown(lite.topic),
        "lite_assignment": "exclusive" if lite.exclusive else "shared",
        "lite_quota": lite.subscription_quota or DEFAULT_LITE_QUOTA,
    }
