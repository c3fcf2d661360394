"""`kourou client`: the live producers and consumers."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kourou.cli import admin as admin_service
from kourou.cli.options import DEFAULT_ADMIN, Admin, Json, resource, shown
from kourou.cli.output import show_rows
from kourou.protocol.apache.rocketmq.v2.definition_pb2 import ClientType, FilterType, Language, SubscriptionEntry
from kourou.protocol.kourou.admin.v1 import admin_rpc
from kourou.protocol.kourou.admin.v1.admin_pb2 import BrokerClient, ListClientsRequest

app = typer.Typer(help="Live producers and consumers.", no_args_is_help=True)


@app.callback()
def client() -> None:
    """Live producers and consumers."""


@app.command("list")
def list_clients(
    group: Annotated[str | None, typer.Option(help="Only this consumer or producer group.")] = None,
    json: Json = False,
    admin: Admin = DEFAULT_ADMIN,
) -> None:
    """List the clients of every broker: one that talks to two brokers stands here twice."""
    request = ListClientsRequest(group=resource(group)) if group is not None else ListClientsRequest()
    response = admin_service.call(admin, admin_rpc.LIST_CLIENTS, request)
    rows = [_row(entry) for entry in response.clients]
    columns = ["group", "client_id", "type", "broker", "peer", "language", "subscriptions", "last_seen_ms"]
    show_rows(rows, json, columns, "no clients")
    admin_service.warn_missing(response.failures)


def _row(entry: BrokerClient) -> dict[str, Any]:
    client = entry.client
    return {
        "group": shown(client.group),
        "client_id": client.client_id,
        "type": ClientType.Name(client.type).lower().replace("_", "-"),
        "broker": entry.broker,
        "peer": client.peer,
        "language": Language.Name(client.user_agent.language).lower(),
        "version": client.user_agent.version,
        "hostname": client.user_agent.hostname,
        "subscriptions": [_subscription(subscription) for subscription in client.subscriptions],
        "last_seen_ms": client.last_seen_ms,
    }


def _subscription(entry: SubscriptionEntry) -> str:
    topic, expression = shown(entry.topic), entry.expression
    if not expression.expression:
        return topic
    between = " where " if expression.type == FilterType.SQL else ":"
    return topic + between + expression.expression
