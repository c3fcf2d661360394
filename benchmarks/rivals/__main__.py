"""`python -m benchmarks.rivals [NAME]`: Kourou beside its rivals; every process that it starts is ended."""

import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console
from rich.markup import escape

from benchmarks import disk, load_program
from benchmarks.process import LOAD_CORE, SERVER_CORE
from benchmarks.rivals import install, table
from benchmarks.rivals.results import BODY_BYTES, Results, Sample, to_line
from benchmarks.rivals.rows import number
from benchmarks.rivals.running import Host
from benchmarks.rivals.system import NotInstalled
from benchmarks.rivals.systems import PARTICIPANTS, choose, in_turn
from benchmarks.rivals.turn import Plan, run_turn

_LOAD_PROGRAM = "the compiled load program"
_OWN_PYTHON = ("kourou",)
"""Needs nothing that this checkout does not have."""


class Run:
    """The results so far, which are written to a file as they come."""

    def __init__(self, console: Console, output: TextIO) -> None:
        self.console = console
        self.results = Results()
        self._output = output

    def describe(self, **run: Any) -> None:
        self.results.run = run
        self._write("run", run)

    def leave_out(self, name: str, why: str) -> None:
        self.console.print(f"[red]left out[/] {name}: {escape(why)}", highlight=False, soft_wrap=True)
        self.results.left_out[name] = why
        self._write("left_out", {"participant": name, "why": why})

    def add(self, sample: Sample) -> None:
        figures = {
            name: value for name, value in sample.values.items() if not name.endswith(("all", "counted", "at_s"))
        }
        text = ", ".join(f"{name} {number(value)}" for name, value in figures.items())
        size = "" if sample.body_bytes == BODY_BYTES else f" {sample.body_bytes} B"
        self.console.print(f"  {sample.measure}{size}: {text}", style="dim", highlight=False, soft_wrap=True)
        self.results.samples.append(sample)
        self._write("sample", asdict(sample))

    def _write(self, kind: str, content: dict[str, Any]) -> None:
        print(to_line(kind, content), file=self._output, flush=True)


def main(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help=f"Of {', '.join(PARTICIPANTS)}, or what they begin with"),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.5, help="Length of one measurement.")] = 4.0,
    rounds: Annotated[int, typer.Option(min=1, help="How often each takes its turn.")] = 3,
    sizes: Annotated[str, typer.Option(help="Bytes of a body, several with commas, for publish and consume.")] = "1024",
    data: Annotated[
        Path, typer.Option(help="A folder on the disk to measure; new ones in it are used and removed.")
    ] = Path("build"),
    output: Annotated[Path | None, typer.Option(help="Where the samples go, in lines of JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Where the plot goes; else beside the samples.")] = None,
) -> None:
    """Measures Kourou beside RocketMQ, Kafka, NATS and RabbitMQ, in turn, and installs below build/ what is missing."""
    try:
        chosen = choose(names or [])
        body_sizes = parse_sizes(sizes)
        data.mkdir(parents=True, exist_ok=True)
        disk.require(data)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    # Ended from outside, too, it leaves no server behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = datetime.now(UTC)
    output = output or data / f"rivals-{began:%Y%m%d-%H%M%S}.jsonl"
    output.parent.mkdir(parents=True, exist_ok=True)
    console = Console(width=None if sys.stdout.isatty() else 140)
    with output.open("w") as lines:
        run = Run(console, lines)
        run.describe(date=f"{began:%Y-%m-%d}", machine=_machine(data), seconds=seconds, rounds=rounds, sizes=body_sizes)
        if SERVER_CORE == LOAD_CORE:
            console.print("There is one core only: servers and load share it, and no figure means much.", style="red")
        hosts = _installed(run, chosen, data)
        failed = _measure(run, hosts, seconds, rounds, body_sizes, data)
    console.print()
    table.show(console, run.results, {name: participant for name, (_, participant) in PARTICIPANTS.items()})
    console.print(f"Samples: {output}")
    _plot(run, output, plot or output.with_suffix(".svg"))
    sys.exit(1 if failed else 0)


def parse_sizes(text: str) -> list[int]:
    """Raises ValueError."""
    sizes = [int(part) for part in text.split(",")]
    if any(not 8 <= size <= 4 * 1024 * 1024 for size in sizes) or len(set(sizes)) < len(sizes):
        raise ValueError(f"sizes are numbers from 8 to 4194304, each once, not {text!r}")
    return sizes


def _installed(run: Run, chosen: list[str], data: Path) -> dict[str, Path]:
    """Where each is who can take part; the others are left out by name."""
    found: dict[str, Path] = {}
    for name in chosen:
        system, participant = PARTICIPANTS[name]
        run.console.print(f"installing {system.name} if it is not there ...", style="dim")
        try:
            if why := system.missing(participant):
                raise NotInstalled(why)
            if system.name not in _OWN_PYTHON:
                install.python_environment(install.CACHE)
            found[name] = system.install(install.CACHE)
        except NotInstalled as error:
            run.leave_out(name, str(error))
    return found


def _measure(run: Run, installed: dict[str, Path], seconds: float, rounds: int, sizes: list[int], data: Path) -> bool:
    """-> whether anybody failed."""
    if not installed:
        return True
    has_load_program = _build_load_program(run)
    failed = False
    for round_ in range(rounds):
        for at, name in enumerate(in_turn(list(installed), round_), 1):
            system, participant = PARTICIPANTS[name]
            title = f"round {round_ + 1} of {rounds}, {at} of {len(installed)}: {name}"
            run.console.print(title, style="bold", highlight=False)
            participant = replace(participant, compiled=participant.compiled and has_load_program)
            make_servers = partial(system.servers, participant=participant, installed=installed[name])
            try:
                with _folder(data, name) as folder:
                    host = Host(system.name, _python(system.name), folder)
                    for sample in run_turn(Plan(round_, seconds, sizes), participant, host, make_servers):
                        run.add(sample)
            except Exception as error:
                failed = True
                run.leave_out(name, f"failed in round {round_ + 1}: {type(error).__name__}: {error}")
    return failed


def _build_load_program(run: Run) -> bool:
    try:
        load_program.build()
    except (OSError, subprocess.CalledProcessError) as error:
        run.leave_out(_LOAD_PROGRAM, f"it cannot be built: {error}")
        return False
    return True


def _python(system: str) -> Path:
    return Path(sys.executable) if system in _OWN_PYTHON else install.python_environment(install.CACHE)


@contextmanager
def _folder(data: Path, name: str) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=f"rivals-{name}-", dir=data.resolve()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _plot(run: Run, output: Path, path: Path) -> None:
    try:
        python = install.python_environment(install.CACHE)
    except NotInstalled as error:
        run.console.print(f"No plot: {escape(str(error))}", style="red")
        return
    done = subprocess.run([python, "-m", "benchmarks.rivals.plot", output, path], cwd=install.ROOT, check=False)
    run.console.print(f"Plot: {path}" if done.returncode == 0 else "[red]The plot failed.[/]")


def _machine(data: Path) -> str:
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = models[0].partition(": ")[2] if models else platform.machine()
    return f"{os.cpu_count()} cores of {model}, Linux {platform.release()}, {disk.filesystem(data)}"


command = typer.Typer(add_completion=False)
command.command()(main)

if __name__ == "__main__":
    command()
