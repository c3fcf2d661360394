"""`python -m benchmarks.echo [VARIANT]...`: unary sends of 1 KiB to a bare echo on each engine in turn."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks import load_program
from benchmarks.process import SERVER_CORE, Process

VARIANTS = ("floor", "queue", "queue-asyncio", "aio", "aio-asyncio")
COMPARED_WITH = "queue"
WARMUP_S = 1.0


@dataclass
class Measured:
    calls_per_s: list[float] = field(default_factory=list)
    cpu_us_per_call: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)


def main(
    variants: Annotated[list[str] | None, typer.Argument(metavar="[VARIANT]...", help=f"of {VARIANTS}")] = None,
    seconds: Annotated[float, typer.Option(min=0.5, help="Length of one measurement.")] = 3.0,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is taken, in turn; medians are shown.")] = 3,
    in_flight: Annotated[int, typer.Option(min=1, help="Calls under way at any time.")] = 64,
) -> None:
    """Measures calls/s, and the server's CPU time a call, which says more on a machine that is busy otherwise."""
    load_program.build()
    measured = {variant: Measured() for variant in variants or VARIANTS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            for variant, into in measured.items():
                measure(variant, into, Path(folder), seconds, in_flight)
    show(measured)


def measure(variant: str, into: Measured, folder: Path, seconds: float, in_flight: int) -> None:
    log = folder / f"{variant}.log"
    with Process("echo", [sys.executable, "-m", "benchmarks.echo.server", variant], log, core=SERVER_CORE) as server:
        address = server.next_line()
        before = server.cpu_s()
        result = load_program.run(
            "send", address, folder, seconds=seconds, warmup_seconds=WARMUP_S, in_flight=in_flight
        )
        into.cpu_us_per_call.append((server.cpu_s() - before) / result["sent_with_warmup"] * 1e6)
    into.calls_per_s.append(result["calls_per_s"])
    into.p50_ms.append(result["latency_ms"]["p50"])
    into.p99_ms.append(result["latency_ms"]["p99"])


def show(measured: dict[str, Measured]) -> None:
    table = Table("engine", "calls/s", f"ratio to {COMPARED_WITH}", "CPU us a call", "p50 ms", "p99 ms")
    beside = median(measured[COMPARED_WITH].calls_per_s) if COMPARED_WITH in measured else None
    for variant, figures in measured.items():
        calls_per_s = median(figures.calls_per_s)
        table.add_row(
            variant,
            f"{calls_per_s:,.0f}",
            "" if beside is None else f"{calls_per_s / beside:.2f}",
            f"{median(figures.cpu_us_per_call):.0f}",
            f"{median(figures.p50_ms):.2f}",
            f"{median(figures.p99_ms):.2f}",
        )
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
