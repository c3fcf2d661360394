"""`kourou broker backup`: a broker's data folder, copied while it works."""

from __future__ import annotations

import asyncio
import io
import os
import shlex
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, redirect_stdout
from pathlib import Path, PurePosixPath
from typing import IO, Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, SpinnerColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from kourou.cli.errors import CommandError
from kourou.cli.interrupt import INTERRUPTED, interruptible
from kourou.cli.meter import progress_bar
from kourou.cli.options import Namesrv
from kourou.cli.root import plugin_command
from kourou.client import DEFAULT_NAMESRV, name_server_targets
from kourou.errors import KourouError, check_status
from kourou.name_servers import NameServers
from kourou.protocol.kourou.broker.v1 import broker_rpc
from kourou.protocol.kourou.broker.v1.broker_pb2 import BackUpRequest, BackUpResponse
from kourou.protocol.kourou.routing.v1 import routing_rpc
from kourou.protocol.kourou.routing.v1.routing_pb2 import ListBrokersRequest
from kourou.route import address_of
from kourou.transport import GrpcTransport
from kourou.wire import Wire, new_client_id

DEFAULT_RATE_MIB_S = 100.0
_LONGEST_S = 7 * 24 * 3600.0
"""A broker that is dead or cut off is noticed by its connection, long before."""
_MIB = 1024 * 1024
_ZEROS = bytes(_MIB)


def backup(
    name: Annotated[str, typer.Argument(metavar="BROKER")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="New or empty.")],
    rate: Annotated[
        float, typer.Option(min=1, metavar="MIB", help="MiB a second: a slower copy slows clients less.")
    ] = (DEFAULT_RATE_MIB_S),
    namesrv: Namesrv = DEFAULT_NAMESRV,
) -> None:
    """Copy a broker's data folder while it works, and verify the copy.

    It holds every message and acknowledgement up to the moment when the copy began, and is a data folder that a broker
    can be started on.
    """
    copy = Copy(output, rate)
    bar = progress_bar(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    began_s = time.monotonic()
    with bar:
        task = bar.add_task(f"copying {name}", total=None)
        copy.on_progress = lambda: bar.update(task, completed=copy.bytes, total=copy.total_bytes)
        try:
            asyncio.run(_until_interrupted(copy, name, namesrv))
            took_s = max(time.monotonic() - began_s, 1e-3)
            bar.update(task, description="verifying each frame", total=None)
            verified = copy.verify()
        except KeyboardInterrupt:
            typer.echo(f"interrupted: {copy.what_is_left()}", err=True)
            raise typer.Exit(INTERRUPTED) from None
    copy.complete()
    mib = copy.bytes / _MIB
    print(f"copied {mib:,.1f} MiB in {took_s:,.1f} s ({mib / took_s:,.0f} MiB/s)")
    print(verified)
    _say_how_to_restore(copy, name)


def _say_how_to_restore(copy: Copy, name: str) -> None:
    print(f"{copy.folder} holds all messages and acknowledgements of {name} up to log position {copy.log_position}")
    print(f"to restore, stop {name} and start it on the copy, with its other settings as they were:")
    print(f"  kourou broker --name {name} --data {shlex.quote(str(copy.folder))}")
    print(f"never run the copy beside {name}: it would take over its name")


async def _until_interrupted(copy: Copy, broker: str, namesrv: str) -> None:
    """Raises KourouError or CommandError, and KeyboardInterrupt when the user stopped it."""
    with interruptible() as stop:
        copying = asyncio.create_task(_copy(copy, broker, namesrv))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((copying, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not copying.done():
                copying.cancel()
                await asyncio.wait((copying,))
            if stop.is_set():
                raise KeyboardInterrupt
            await copying
        finally:
            stopping.cancel()


async def _copy(copy: Copy, broker: str, namesrv: str) -> None:
    transport = GrpcTransport()
    wire = Wire(transport, new_client_id())
    try:
        address = await _find(broker, name_server_targets(namesrv), wire)
        answers = wire.stream(address, broker_rpc.BACK_UP, BackUpRequest(), _LONGEST_S)
        async with aclosing(answers):
            await copy.take_all(answers)
    except (KourouError, CommandError, OSError) as error:
        if not copy.begun:
            raise
        raise CommandError(f"{error}; {copy.what_is_left()}") from None
    finally:
        copy.close()
        await transport.close()


async def _find(broker: str, targets: Sequence[str], wire: Wire) -> str:
    """Where it is reached by who comes by this access point."""
    name_servers = NameServers(targets, wire)
    try:
        answer = await name_servers.call(
            routing_rpc.LIST_BROKERS, lambda endpoints: ListBrokersRequest(endpoints=endpoints)
        )
    finally:
        await name_servers.close()
    for info in answer.brokers:
        if info.name == broker:
            return address_of(info.endpoints)
    names = ", ".join(info.name for info in answer.brokers) or "none"
    raise CommandError(f"there is no broker {broker!r}; registered are: {names}")


class Copy:
    """The folder that is filled: FOLDER.partial, until all has come and was verified."""

    def __init__(self, folder: Path, rate_mib_s: float) -> None:
        """Raises CommandError when the folder holds something."""
        self._rate_mib_s = rate_mib_s
        self.folder = folder = folder.absolute()
        self.partial = folder.with_name(folder.name + ".partial")
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise CommandError(f"{folder} is there already and not empty: choose another --output")
        if folder.is_mount():
            raise CommandError(f"{folder} is where something is mounted: choose a folder in it")
        if self.partial.exists():
            raise CommandError(f"{self.partial} is there, of a copy that was not completed: delete it first")
        self.begun = False
        self.bytes = 0
        self.total_bytes = 0
        self.log_position: int | None = None
        self.on_progress = lambda: None
        self._name = ""
        self._file: IO[bytes] | None = None
        self._size_bytes = 0

    async def take_all(self, answers: AsyncGenerator[BackUpResponse]) -> None:
        """All that the broker sends, durable. Raises KourouError, CommandError, OSError."""
        began_s = time.monotonic()
        async for answer in answers:
            check_status(answer.status)
            if not self.begun:
                self.partial.mkdir(parents=True)
                self.begun = True
                self.total_bytes = answer.total_bytes
            if answer.file and answer.file != self._name:
                await asyncio.to_thread(self._end_file)
                self._begin_file(answer.file)
            if answer.file:
                self._take(answer)
            # What is not read yet makes the broker wait.
            await asyncio.sleep(began_s + self.bytes / _MIB / self._rate_mib_s - time.monotonic())
            if answer.HasField("log_position"):
                self.log_position = answer.log_position
        await asyncio.to_thread(self._end_file)
        if self.log_position is None or self.bytes != self.total_bytes:
            raise CommandError(f"the broker ended the copy after {self.bytes} of {self.total_bytes} bytes")
        for folder in (*(path for path in self.partial.iterdir() if path.is_dir()), self.partial):
            _sync_folder(folder)

    def verify(self) -> str:
        """What was verified. Raises CommandError when the log is damaged, and KeyboardInterrupt."""
        log = plugin_command("log")
        if log is None:
            return "all bytes came; each frame is verified where the distribution kourou-server is installed"
        said = io.StringIO()
        with redirect_stdout(said):
            args = ["inspect", "--data", str(self.partial), "--up-to", str(self.log_position)]
            code = log.main(args, standalone_mode=False)
        if code == INTERRUPTED:  # what it makes of Ctrl-C, which says nothing of the log
            raise KeyboardInterrupt
        if code:
            raise CommandError(
                f"all bytes came, but the log is damaged, as it is at the broker: {' '.join(said.getvalue().split())}; "
                f"the copy stays in {self.partial}"
            )
        return f"verified {said.getvalue().splitlines()[0]}"

    def complete(self) -> None:
        """Give it its name."""
        self.partial.rename(self.folder)
        _sync_folder(self.folder.absolute().parent)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def what_is_left(self) -> str:
        if not self.begun:
            return "nothing was copied"
        if self.log_position is not None:
            return f"all bytes came, but were not verified: they are in {self.partial}"
        return f"the copy is NOT complete: {self.partial} holds {self.bytes} of {self.total_bytes} bytes"

    def _begin_file(self, name: str) -> None:
        parts = PurePosixPath(name).parts
        if not parts or PurePosixPath(name).is_absolute() or ".." in parts or "\\" in name:
            raise CommandError(f"the broker sent a file with the name {name!r}")
        path = self.partial.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._name = name
        self._file = path.open("xb")

    def _take(self, piece: BackUpResponse) -> None:
        assert self._file is not None
        if piece.offset < self._file.tell():
            raise CommandError(f"the broker sent a part of {self._name} out of order")
        self._fill(piece.offset)
        self._file.write(piece.data)
        self._size_bytes = piece.size_bytes
        self.bytes += len(piece.data)
        self.on_progress()

    def _end_file(self) -> None:
        if self._file is not None:
            self._fill(self._size_bytes)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def _fill(self, end: int) -> None:
        """Real zeros, no holes: a broker counts on the room in its segments, also on a full disk."""
        assert self._file is not None
        while (missing := end - self._file.tell()) > 0:
            self._file.write(_ZEROS[:missing])


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
