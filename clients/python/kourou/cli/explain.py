"""`kourou message explain`: what became of a message."""

from __future__ import annotations

from typing import Annotated

import typer

from kourou.cli import admin as admin_service
from kourou.cli.errors import CommandError
from kourou.cli.options import DEFAULT_ADMIN, Admin, Json, resource
from kourou.cli.output import show_json
from kourou.cli.stories import show_stories, stories_as_json, unknown
from kourou.protocol.kourou.admin.v1 import admin_rpc
from kourou.protocol.kourou.admin.v1.admin_pb2 import ExplainMessageRequest


def explain(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[TOPIC] ID",
            help="The message's id with its topic, or the broker's own id alone, such as broker-a@1f40.3.",
        ),
    ],
    json: Json = False,
    admin: Admin = DEFAULT_ADMIN,
) -> None:
    """Tell what became of a message: where it was stored, what each group did with it, or why it still waits."""
    if len(words) > 2:
        raise typer.BadParameter("give a topic and a message id, or an offset message id alone")
    *topics, message_id = words
    if not topics and "@" not in message_id:
        raise typer.BadParameter("the topic is missing: only an offset message id, such as broker-a@1f40.3, needs none")
    request = ExplainMessageRequest(message_id=message_id, topic=resource(topics[0]) if topics else None)
    response = admin_service.call(admin, admin_rpc.EXPLAIN_MESSAGE, request, admin_service.SEARCH_TIMEOUT_S)
    if json:
        show_json(stories_as_json(response))
    else:
        show_stories(response)
    admin_service.warn_missing(response.failures)
    if not any(broker.explanation.stories for broker in response.brokers):
        raise CommandError(unknown(message_id, response))
