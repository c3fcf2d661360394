"""`kourou broker drain`: what is shown while a broker is emptied, which may take hours."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType

import typer
from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table

from kourou.cli import admin as admin_service
from kourou.cli.interrupt import INTERRUPTED
from kourou.cli.options import shown
from kourou.cli.root import warn
from kourou.protocol.kourou.admin.v1 import admin_rpc
from kourou.protocol.kourou.admin.v1.admin_pb2 import DrainBacklog, DrainBrokerRequest, DrainBrokerResponse, DrainPhase

_LINE_INTERVAL_S = 10.0
_MAX_ROWS = 15
_PHASES = {
    DrainPhase.DRAIN_PHASE_WRITES_OFF: "writes are off: clients go elsewhere",
    DrainPhase.DRAIN_PHASE_CONSUMING: "waiting until consumers have what is left",
    DrainPhase.DRAIN_PHASE_QUIET: "all is consumed: waiting until no message moves",
    DrainPhase.DRAIN_PHASE_LEAVING: "reads are off, too: the others forget the broker",
}


def drain_broker(admin: str, name: str, force: bool, keep_running: bool) -> None:
    """Follows the drain to its end and says what was left. Raises KourouError with what holds it up."""
    request = DrainBrokerRequest(broker=name, force=force, keep_running=keep_running)
    last = DrainBrokerResponse()

    def on_report(report: DrainBrokerResponse) -> None:
        last.CopyFrom(report)
        view.show(report)

    try:
        with _View() as view:
            admin_service.follow(admin, admin_rpc.DRAIN_BROKER, request, on_report)
    except KeyboardInterrupt:
        warn(f"broken off: writes to {name} stay off; drain again to go on, or `kourou broker on {name}`")
        raise typer.Exit(INTERRUPTED) from None
    out = "has no permissions and is not in the way" if keep_running else "has stopped"
    print(f"broker {name} is out of the cluster and {out}; {_left(last.backlog)}")
    for entry in last.backlog:
        print(f"  {entry.messages:,} messages of {shown(entry.topic)} {_reader(entry)}")


class _View:
    """On a terminal a table that follows; else a line for each phase, and one now and then."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, transient=True) if self._console.is_terminal else None
        self._phase = DrainPhase.DRAIN_PHASE_UNSPECIFIED
        self._said_s = 0.0

    def __enter__(self) -> _View:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, report: DrainBrokerResponse) -> None:
        if report.phase not in _PHASES:
            return
        if self._live is not None:
            self._live.update(_table(report))
        elif report.phase != self._phase or time.monotonic() > self._said_s + _LINE_INTERVAL_S:
            self._console.print(_line(report), soft_wrap=True, highlight=False, markup=False)
            self._said_s = time.monotonic()
        self._phase = report.phase


def _line(report: DrainBrokerResponse) -> str:
    if report.phase != DrainPhase.DRAIN_PHASE_CONSUMING:
        return _PHASES[report.phase]
    left = "; ".join(f"{entry.messages:,} of {shown(entry.topic)} {_reader(entry)}" for entry in _largest(report)[:3])
    return f"{_PHASES[report.phase]}: {_left(report.backlog)} ({left})"


def _table(report: DrainBrokerResponse) -> RenderableType:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("topic", "group", "messages", "lent", "members"):
        table.add_column(column, justify="left" if column in ("topic", "group") else "right", overflow="fold")
    rows = _largest(report)
    for entry in rows[:_MAX_ROWS]:
        group = shown(entry.group) if entry.HasField("group") else _held(entry) or "-"
        style = "yellow" if not entry.members else None
        counts = (f"{entry.messages:,}", f"{entry.inflight:,}", str(entry.members))
        table.add_row(shown(entry.topic), group, *counts, style=style)
    rest = f" and {len(rows) - _MAX_ROWS} more" if len(rows) > _MAX_ROWS else ""
    title = Spinner("dots", f"{_PHASES[report.phase]} ({report.stored} stored, {report.delivered} delivered just now)")
    return Group(title, table, rest) if rows else title


def _largest(report: DrainBrokerResponse) -> list[DrainBacklog]:
    """What nobody consumes first, then by size."""
    return sorted(report.backlog, key=lambda entry: (entry.members > 0, -entry.messages))


def _left(backlog: Sequence[DrainBacklog]) -> str:
    messages = sum(entry.messages for entry in backlog)
    return f"{messages:,} messages are left" if messages else "nothing is left on it"


def _reader(entry: DrainBacklog) -> str:
    if held := _held(entry):
        return f"that are {held}"
    if not entry.HasField("group"):
        return "that no group ever read"
    return f"for {shown(entry.group)}" + ("" if entry.members else ", of which no member reads it")


def _held(entry: DrainBacklog) -> str:
    """Why no consumer can see these messages yet; empty if they can."""
    reasons = ("delayed" if entry.delayed else "", "in open transactions" if entry.half else "")
    return " or ".join(filter(None, reasons))
