"""`kourou group dead-letters` and `kourou group resend`: what a group could not consume."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kourou.cli import admin as admin_service
from kourou.cli.bar import Bar
from kourou.cli.errors import CommandError
from kourou.cli.message_rows import message_row, preview
from kourou.cli.options import DEFAULT_ADMIN, Admin, GroupName, Json, resource, shown
from kourou.cli.output import show_rows
from kourou.cli.root import warn
from kourou.protocol.kourou.admin.v1 import admin_rpc
from kourou.protocol.kourou.admin.v1.admin_pb2 import (
    BrokerDeadLetter,
    ListDeadLettersRequest,
    Outcome,
    ResendDeadLettersRequest,
    ResendDeadLettersResponse,
)
from kourou.received import ReceivedMessage

_TOLD_FAILURES = 10


def dead_letters(
    group: GroupName,
    limit: Annotated[int, typer.Option(min=1, max=256, help="At most so many of each broker.")] = 64,
    json: Json = False,
    admin: Admin = DEFAULT_ADMIN,
) -> None:
    """List a group's dead letters that were not resent, the oldest of each broker first."""
    request = ListDeadLettersRequest(group=resource(group), limit=limit)
    response = admin_service.call(admin, admin_rpc.LIST_DEAD_LETTERS, request)
    rows = [_row(entry) for entry in response.letters]
    if not json:
        rows = [{**row, "body": preview(row)} for row in rows]
    columns = ["stored_ms", "message_id", "origin_topic", "broker", "origin_queue", "origin_offset", "tag", "keys"]
    show_rows(rows, json, [*columns, "body"], f"group {group} has no dead letters")
    if response.more_on:
        warn(f"there are more on {', '.join(response.more_on)}; --limit shows up to 256 of each broker")
    admin_service.warn_missing(response.failures)


def resend(
    group: GroupName,
    message_id: Annotated[
        list[str] | None, typer.Option("--id", metavar="ID", help="The message id of a letter; can be repeated.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that are there now.")] = False,
    admin: Admin = DEFAULT_ADMIN,
) -> None:
    """Give dead letters back to the group, and to no other one, as if they had never been tried."""
    if bool(message_id) == everything:
        raise typer.BadParameter("give either --id, once or several times, or --all")
    request = ResendDeadLettersRequest(group=resource(group), message_ids=message_id or [])
    resent = 0
    failures: list[Outcome] = []
    with Bar("letters") as bar:

        def on_report(report: ResendDeadLettersResponse) -> None:
            nonlocal resent, failures
            if report.broker:
                resent += report.resent
                bar.show(resent, None, report.broker)
            else:
                failures = list(report.failures)

        admin_service.follow(admin, admin_rpc.RESEND_DEAD_LETTERS, request, on_report)
    print(f"{resent:,} dead letters were given back to group {group}" if resent else "nothing was resent")
    _refuse(failures)


def _refuse(failures: list[Outcome]) -> None:
    """Raises CommandError that says what went wrong."""
    if not failures:
        return
    told = [f"{outcome.broker}: {outcome.status.message}".removeprefix(": ") for outcome in failures]
    rest = f"; and {len(told) - _TOLD_FAILURES} more" if len(told) > _TOLD_FAILURES else ""
    raise CommandError(f"not resent: {'; '.join(told[:_TOLD_FAILURES])}{rest}")


def _row(entry: BrokerDeadLetter) -> dict[str, Any]:
    letter = entry.letter
    return {
        **message_row(ReceivedMessage(letter.message, entry.broker, "")),
        "origin_topic": shown(letter.origin_topic),
        "origin_queue": letter.origin_queue if letter.origin_queue >= 0 else None,
        "origin_offset": letter.origin_offset if letter.origin_offset >= 0 else None,
    }
