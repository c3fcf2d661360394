"""`kourou broker` and `kourou route`: where the cluster is."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kourou.cli import admin as admin_service
from kourou.cli import backup
from kourou.cli.drain import drain_broker
from kourou.cli.errors import CommandError
from kourou.cli.options import DEFAULT_ADMIN, Admin, Json, TopicName, resource
from kourou.cli.output import show_fields, show_rows
from kourou.cli.permissions import Permission
from kourou.cli.root import warn
from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.apache.rocketmq.v2.definition_pb2 import Code, Endpoints
from kourou.protocol.kourou.admin.v1 import admin_rpc
from kourou.protocol.kourou.admin.v1.admin_pb2 import (
    Broker,
    ForgetBrokerRequest,
    GetRouteRequest,
    ListBrokersRequest,
    SetBrokerPermissionRequest,
)
from kourou.resolver import join_host_port

app = typer.Typer(help="Brokers: list, show, take off and put on.", no_args_is_help=True)

BrokerName = Annotated[str, typer.Argument(metavar="BROKER")]


app.command("backup")(backup.backup)


@app.command("list")
def list_brokers(json: Json = False, admin: Admin = DEFAULT_ADMIN) -> None:
    """List the brokers that are registered."""
    rows = [_row(broker) for broker in _brokers(admin)]
    columns = ["name", "id", "cluster", "address", "permission", "connected", "answers", "topics", "queues", "clients"]
    show_rows(rows, json, columns, "no brokers")


@app.command()
def show(name: BrokerName, json: Json = False, admin: Admin = DEFAULT_ADMIN) -> None:
    """Show one broker."""
    found = [broker for broker in _brokers(admin) if broker.info.name == name]
    if not found:
        raise CommandError(f"there is no broker {name!r}; `kourou broker list` shows those that are registered")
    for broker in found:
        show_fields(_row(broker), json)


@app.command()
def off(
    name: BrokerName,
    reads: Annotated[bool, typer.Option("--reads", help="Also stop reads; else only writes.")] = False,
    admin: Admin = DEFAULT_ADMIN,
) -> None:
    """Take a broker's permissions away, before an upgrade: clients go elsewhere. Kept over restarts."""
    _set_permission(admin, name, Permission.NONE if reads else Permission.READ)


@app.command()
def on(name: BrokerName, admin: Admin = DEFAULT_ADMIN) -> None:
    """Give a broker its permissions back."""
    _set_permission(admin, name, Permission.READ_WRITE)


@app.command()
def drain(
    name: BrokerName,
    force: Annotated[
        bool, typer.Option("--force", help="Leave messages behind that nobody is there to consume.")
    ] = False,
    keep_running: Annotated[bool, typer.Option("--keep-running", help="Do not stop the process at the end.")] = False,
    admin: Admin = DEFAULT_ADMIN,
) -> None:
    """Take a broker out of the cluster: writes off, wait until all is consumed, reads off, stop. Shows what is left.

    Ctrl-C breaks off, the same command goes on. After a restart `kourou broker on` puts the broker back.
    """
    drain_broker(admin, name, force, keep_running)


@app.command()
def forget(name: BrokerName, admin: Admin = DEFAULT_ADMIN) -> None:
    """Make the brokers forget one that will not come back: a starting NameServer does not wait for it any more."""
    response = admin_service.call(admin, admin_rpc.FORGET_BROKER, ForgetBrokerRequest(broker=name))
    print(f"broker {name} is forgotten by {admin_service.done_by(response.outcomes)}")
    admin_service.refuse_partial(response.outcomes)


def route(topic: TopicName, json: Json = False, admin: Admin = DEFAULT_ADMIN) -> None:
    """Show where the queues of a topic are, as clients are told."""
    response = admin_service.call(admin, admin_rpc.GET_ROUTE, GetRouteRequest(topic=resource(topic)))
    rows = [
        {
            "broker": queue.broker.name,
            "broker_id": queue.broker.id,
            "queue": queue.id,
            "permission": Permission.of_api(queue.permission),
            "address": _address(queue.broker.endpoints),
            "types": [definition_pb2.MessageType.Name(kind).lower() for kind in queue.accept_message_types],
        }
        for queue in response.message_queues
    ]
    show_rows(rows, json, ["broker", "queue", "permission", "address", "types"], "no queues")


def _brokers(admin: str) -> list[Broker]:
    response = admin_service.call(admin, admin_rpc.LIST_BROKERS, ListBrokersRequest())
    for broker in response.brokers:
        if broker.reachable.code != Code.OK:
            warn(f"{broker.info.name} does not answer: {broker.reachable.message}")
    return list(response.brokers)


def _set_permission(admin: str, name: str, permission: Permission) -> None:
    request = SetBrokerPermissionRequest(broker=name, permission=permission.value_of_api)
    response = admin_service.call(admin, admin_rpc.SET_BROKER_PERMISSION, request)
    admin_service.refuse_partial(response.outcomes)
    print(f"broker {name} is {permission.value} now")


def _row(broker: Broker) -> dict[str, Any]:
    info, description = broker.info, broker.description
    answers = broker.reachable.code == Code.OK
    return {
        "name": info.name,
        "id": info.id,
        "cluster": info.cluster,
        "address": _address(info.endpoints),
        "version": info.version,
        "permission": Permission.of_api(description.permission if answers else info.permission),
        "connected": info.connected,
        "answers": answers,
        "topics": info.topics,
        "queues": info.queues,
        "clients": description.clients if answers else None,
        "started_ms": info.started_ms,
        "last_heartbeat_ms": info.last_heartbeat_ms,
        "log_first_position": description.log_first_position if answers else None,
        "log_durable_position": description.log_durable_position if answers else None,
        "log_next_position": description.log_next_position if answers else None,
        "disk_free_bytes": description.disk_free_bytes if answers else None,
        "disk_full": description.disk_full if answers else None,
        "refused_reason": (description.refused_reason or None) if answers else None,
    }


def _address(endpoints: Endpoints) -> str:
    return ",".join(join_host_port(address.host, address.port) for address in endpoints.addresses)
