"""`kourou log`: look at the log of a broker that does not run, and repair it."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Literal, TypeVar

import typer

from kourou_broker.log.errors import LogError
from kourou_broker.log.file_medium import FileMedium
from kourou_broker.log.repair import Report, inspect, repair
from kourou_broker.state import fold

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, help="Look at the log of a stopped broker, and repair it.")

_DATA = typer.Option(..., "--data", exists=True, file_okay=False, help="The broker's data folder.")
_UP_TO = typer.Option(None, "--up-to", metavar="POSITION", help="Also fail when the log ends before this position.")
_MODE = typer.Option(
    "skip",
    help="skip: lose the damaged frames and no others. cut: end the log at the first damage, and lose all behind.",
)


@app.command("inspect")
def inspect_log(data: Path = _DATA, up_to: int | None = _UP_TO) -> None:
    """Verify the whole log and say what is damaged; nothing is changed."""
    report = _run(data, inspect)
    _show(report)
    too_short = up_to is not None and report.end < up_to
    if too_short:
        typer.echo(f"The log ends before position {up_to}.")
    raise typer.Exit(0 if report.healthy and not too_short else 1)


@app.command("repair")
def repair_log(
    data: Path = _DATA,
    mode: Literal["skip", "cut"] = _MODE,
    yes: bool = typer.Option(False, "--yes", help="Do not ask."),
) -> None:
    """Make a damaged log start again. What is overwritten is kept in DATA/blobs/damaged-*."""
    report = _run(data, inspect)
    _show(report)
    if report.healthy:
        return
    if not yes:
        typer.confirm(f"Repair it ({mode})?", abort=True)
    _run(data, lambda medium: repair(medium, mode))
    for name in _run(data, _drop_snapshots_beyond_the_end):
        typer.echo(f"Dropped {name}: it stood beyond what is left of the log.")
    typer.echo("Repaired. What was overwritten is kept in " + str(data / "blobs"))


def _drop_snapshots_beyond_the_end(medium: FileMedium) -> list[str]:
    """A log that ends before its snapshot would be refused at the start."""
    end = inspect(medium).end
    names = [fold.snapshot_name(position) for position in fold.snapshots(medium) if position > end]
    for name in names:
        medium.drop_blob(name)
    return names


def _run(data: Path, work: Callable[[FileMedium], T]) -> T:
    try:
        if not (data / "identity").exists():
            raise LogError(f"{data} is not the data folder of a broker")
        with closing(FileMedium(data)) as medium:
            return work(medium)
    except (LogError, OSError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from None


def _show(report: Report) -> None:
    typer.echo(
        f"{report.frames} whole frames in {report.segments} segments, from position {report.first} to {report.end}"
    )
    for damage in report.damages:
        lost = damage.end - damage.position
        typer.echo(f"DAMAGED: segment {damage.segment}, position {damage.position}, {lost} bytes: {damage.what}")
    if report.tail:
        torn = "it had been durable" if report.end < report.durable else "a torn tail, which the next start cuts"
        typer.echo(f"Behind the end: {report.tail} ({torn})")
    if report.healthy:
        typer.echo("The log is healthy.")
