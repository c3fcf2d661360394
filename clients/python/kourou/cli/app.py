"""The `kourou` command: every command and group of commands, in one place."""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import Annotated

import typer

from kourou.cli import brokers, clients, groups, messages, progress, receive, send, topics
from kourou.cli.options import ADMIN_VARIABLE
from kourou.cli.root import RootGroup
from kourou.client import NAMESRV_VARIABLE
from kourou.tls import TLS_VARIABLE

app = typer.Typer(
    name="kourou",
    cls=RootGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("send")(send.send)
app.command("receive")(receive.receive)
app.add_typer(topics.app, name="topic")
app.add_typer(groups.app, name="group")
app.add_typer(brokers.app, name="broker")
app.command("route")(brokers.route)
app.command("progress")(progress.progress)
app.add_typer(progress.offset_app, name="offset")
app.add_typer(messages.app, name="message")
app.add_typer(clients.app, name="client")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"kourou {version('kourou')}")
        raise typer.Exit


@app.callback()
def kourou(
    admin: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="As with each command.")] = None,
    namesrv: Annotated[str | None, typer.Option(metavar="HOST:PORT,...", help="As with each command.")] = None,
    tls: Annotated[bool | None, typer.Option(help="Reach NameServers and brokers over TLS, or in plaintext.")] = None,
    tls_ca: Annotated[
        str | None, typer.Option(metavar="FILE", help="Over TLS, believing the CAs in this PEM file.")
    ] = None,
    _: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Send, receive and look after messages. Without flags it talks to the local cluster that `kourou dev` starts."""
    # The commands, which come after this, read their own option from there when it is not given.
    if admin is not None:
        os.environ[ADMIN_VARIABLE] = admin
    if namesrv is not None:
        os.environ[NAMESRV_VARIABLE] = namesrv
    if tls is not None or tls_ca is not None:
        if tls is False and tls_ca is not None:
            raise typer.BadParameter("--no-tls and --tls-ca exclude each other")
        os.environ[TLS_VARIABLE] = tls_ca or str(tls).lower()


def main() -> None:
    app()
