"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from kourou.client import NAMESRV_VARIABLE
from kourou.protocol.apache.rocketmq.v2.definition_pb2 import Resource

DEFAULT_ADMIN = "127.0.0.1:9080"
ADMIN_VARIABLE = "KOUROU_ADMIN"

Admin = Annotated[str, typer.Option("--admin", envvar=ADMIN_VARIABLE, metavar="HOST:PORT", help="The admin service.")]
Namesrv = Annotated[
    str,
    typer.Option(
        "--namesrv", envvar=NAMESRV_VARIABLE, metavar="HOST:PORT,...", help="The NameServers, separated by commas."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON; the names of the fields stay the same.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
TopicName = Annotated[str, typer.Argument(metavar="TOPIC", help="The topic; NAMESPACE/TOPIC for one in a namespace.")]
GroupName = Annotated[str, typer.Argument(metavar="GROUP", help="The group; NAMESPACE/GROUP for one in a namespace.")]


def resource(text: str) -> Resource:
    """NAME or NAMESPACE/NAME: a slash is legal in neither."""
    namespace, _, name = text.rpartition("/")
    return Resource(resource_namespace=namespace, name=name)


def shown(name: Resource) -> str:
    return f"{name.resource_namespace}/{name.name}" if name.resource_namespace else name.name
