"""`python -m benchmarks [NAME]`: measures and shows; every process that it starts is ended."""

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import (
    backlog,
    cold,
    delayed,
    disk,
    explain,
    groups,
    idle,
    latency,
    load_program,
    many_topics,
    polls,
    receives,
    restart,
    retention,
    sends,
    shards,
    streams,
)
from benchmarks.bench import Bench
from benchmarks.figure import Figure, Result, show
from benchmarks.process import LOAD_CORE, SERVER_CORE

BENCHMARKS: dict[str, Callable[[Bench], list[Figure]]] = {
    "unary": sends.unary,
    "batched": sends.batched,
    "receive": receives.receive_and_ack,
    "streams": streams.stream_door,
    "latency": latency.end_to_end,
    "memory": idle.memory,
    "start": idle.first_message,
    "topics": many_topics.many_topics,
    "polls": polls.polls,
    "groups": groups.groups,
    "backlog": backlog.backlog,
    "cold": cold.cold,
    "retention": retention.retention,
    "shards": shards.shards,
    "restart": restart.restart,
    "delayed": delayed.delayed,
    "explain": explain.explain,
}
_ON_DEMAND = frozenset(("explain",))
"""Needs 12 GB of disk."""


def main(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help=f"{', '.join(BENCHMARKS)}; none: all but explain"),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.5, help="Length of one measurement.")] = 5.0,
    rounds: Annotated[int, typer.Option(min=1, help="How often compared figures are taken in turn.")] = 3,
    data: Annotated[
        Path, typer.Option(help="A folder on the disk to measure; a new one in it is used and removed.")
    ] = Path("build"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON for each benchmark.")] = False,
) -> None:
    """Measures Kourou, each figure beside a bare echo on the same engine and a raw fdatasync in the same run."""
    chosen = names or [name for name in BENCHMARKS if name not in _ON_DEMAND]
    if unknown := [name for name in chosen if name not in BENCHMARKS]:
        raise typer.BadParameter(f"no benchmark {unknown[0]!r}: there are {', '.join(BENCHMARKS)}")
    data.mkdir(parents=True, exist_ok=True)
    try:
        disk.require(data)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    console = Console(stderr=as_json, width=None if sys.stdout.isatty() else 120)
    if SERVER_CORE == LOAD_CORE:
        console.print("There is one core only: the load takes from the servers, and no figure means much.", style="red")
    load_program.build()
    missed = False
    for name in chosen:
        result = _run(name, data, seconds, rounds)
        missed |= any(figure.met is False for figure in result.figures)
        if as_json:
            print(json.dumps(result.as_json()), flush=True)
        else:
            show(console, result)
    sys.exit(1 if missed else 0)


def _run(name: str, data: Path, seconds: float, rounds: int) -> Result:
    folder = Path(tempfile.mkdtemp(prefix=f"bench-{name}-", dir=data.resolve()))
    try:
        fdatasync = disk.fdatasync_ms(folder)
        return Result(name, BENCHMARKS[name](Bench(folder, seconds, rounds)), fdatasync)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    typer.run(main)
