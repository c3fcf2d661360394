"""`kourou client`: the live producers and consumers."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kourou.cli import admin as admin_service
from kourou.cli.options import DEFAULT_ADMIN, Admin, Json, resource, shown
from kourou.cli.output import show_fields, show_rows
from kourou.protocol.apache.rocketmq.v2.definition_pb2 import (
    ClientType,
    Code,
    FilterType,
    Language,
    SubscriptionEntry,
)
from kourou.protocol.kourou.admin.v1 import admin_rpc
from kourou.protocol.kourou.admin.v1.admin_pb2 import (
    BrokerClient,
    ListClientsRequest,
    PrintThreadStackTraceRequest,
    ReconnectClientRequest,
    VerifyMessageRequest,
)

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


ClientId = Annotated[str, typer.Argument(help="As `kourou client list` shows it.", metavar="ID", show_default=False)]


@app.command()
def stack(client_id: ClientId, json: Json = False, admin: Admin = DEFAULT_ADMIN) -> None:
    """Show what all threads of a client are doing now. Not all clients answer this."""
    response = admin_service.call(
        admin, admin_rpc.PRINT_THREAD_STACK_TRACE, PrintThreadStackTraceRequest(client_id=client_id)
    )
    if json:
        show_fields({"client_id": client_id, "broker": response.broker, "stack_trace": response.stack_trace}, json)
    else:
        print(response.stack_trace.rstrip("\n"))


@app.command()
def verify(
    client_id: ClientId,
    topic: Annotated[str, typer.Argument(help="Where the message is.", show_default=False)],
    message_id: Annotated[str, typer.Argument(show_default=False)],
    json: Json = False,
    admin: Admin = DEFAULT_ADMIN,
) -> None:
    """Give a stored message to the listener of one push consumer, and see what it makes of it.

    It is a trial: no group's progress changes. If the listener fails, so does this command. Not all clients answer.
    """
    request = VerifyMessageRequest(client_id=client_id, topic=resource(topic), message_id=message_id)
    response = admin_service.call(admin, admin_rpc.VERIFY_MESSAGE, request, admin_service.SEARCH_TIMEOUT_S)
    if json:
        row = {"client_id": client_id, "broker": response.broker, "topic": topic, "message_id": message_id}
        show_fields({**row, "consumed": True}, json)
    else:
        print(f"the listener of {client_id} took message {message_id} (sent by {response.broker})")


@app.command()
def reconnect(client_id: ClientId, json: Json = False, admin: Admin = DEFAULT_ADMIN) -> None:
    """Tell a client to open its connections anew. It does not say whether it does."""
    response = admin_service.call(admin, admin_rpc.RECONNECT_CLIENT, ReconnectClientRequest(client_id=client_id))
    told_by = [outcome.broker for outcome in response.outcomes if outcome.status.code == Code.OK]
    if json:
        show_fields({"client_id": client_id, "told_by": told_by}, json)
    else:
        print(f"client {client_id} was told by {', '.join(told_by)}")
    admin_service.refuse_partial(response.outcomes)


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
