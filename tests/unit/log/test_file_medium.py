"""The medium on real files, and the log on it with its threads."""

import asyncio
import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kourou_broker.log.errors import DataLocked
from kourou_broker.log.file_medium import FileMedium
from kourou_broker.log.frame import Frame
from kourou_broker.log.log import Log
from kourou_broker.log.options import LogOptions
from kourou_broker.log.worker import ThreadWorker
from tests.unit.log.logs import messages, record


def test_a_second_opener_is_refused_until_the_first_lets_go(tmp_path: Path) -> None:
    medium = FileMedium(tmp_path / "data")
    identity = medium.identity
    with pytest.raises(DataLocked, match=f"in use by another process .pid {os.getpid()}"):
        FileMedium(tmp_path / "data")
    medium.close()
    again = FileMedium(tmp_path / "data")
    assert again.identity == identity
    assert len(identity) == 16
    again.close()


def test_segments_are_made_of_spares_and_become_spares_again(tmp_path: Path) -> None:
    medium = FileMedium(tmp_path)
    with pytest.raises(FileNotFoundError):
        medium.create(0, 4096)
    medium.prepare(4096)
    medium.prepare(4096)
    assert medium.spares() == [4096, 4096]
    medium.create(0, 4096)
    medium.create(5000, 4096)
    medium.write(0, 10, [b"abc", b"", b"def"])
    medium.sync(0)
    assert medium.read(0, 8, 10) == b"\0\0abcdef\0\0"
    assert medium.read(0, 4090, 100) == bytes(6)
    assert [tuple(segment) for segment in medium.segments()] == [(0, 4096), (5000, 4096)]
    medium.recycle(0)
    medium.close()
    medium = FileMedium(tmp_path)
    assert medium.spares() == [4096]
    medium.create(9000, 4096)
    assert medium.read(9000, 0, 4096) == bytes(4096)
    medium.drop(5000)
    assert [segment.base for segment in medium.segments()] == [9000]
    medium.close()


def test_what_the_page_cache_has_is_read_at_once(tmp_path: Path) -> None:
    medium = FileMedium(tmp_path)
    try:
        medium.prepare(4096)
        medium.create(0, 4096)
        medium.write(0, 0, [b"hello"])
        assert medium.read_now(0, 1, 3) == b"ell"
        assert medium.read_now(0, 4096 - 2, 3) is None
        assert medium.read_now(4096, 0, 3) is None
        medium.sync(0)
        with (tmp_path / "segments" / f"{0:016x}.segment").open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert medium.read_now(0, 1, 3) in (None, b"ell")
        assert medium.read(0, 1, 3) == b"ell"
        medium.drop(0)
        assert medium.read_now(0, 1, 3) is None
        assert _open_files(tmp_path) == {"lock"}
    finally:
        medium.close()


def _open_files(folder: Path) -> set[str]:
    links = [Path(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    return {link.readlink().name for link in links if link.is_symlink() and folder in link.readlink().parents}


def test_blobs(tmp_path: Path) -> None:
    medium = FileMedium(tmp_path)
    medium.write_blob("a", b"one")
    view = medium.view_blob("a")
    medium.write_blob("a", b"two")
    assert (bytes(view), medium.read_blob("a")) == (b"one", b"two")
    (tmp_path / "blobs" / "b.tmp").write_bytes(b"unfinished")
    assert medium.list_blobs() == ["a"]
    medium.drop_blob("a")
    medium.drop_blob("a")
    with pytest.raises(FileNotFoundError):
        medium.read_blob("a")
    medium.close()
    FileMedium(tmp_path).close()
    assert not list(tmp_path.glob("**/*.tmp"))


def test_a_write_of_many_buffers(tmp_path: Path) -> None:
    medium = FileMedium(tmp_path)
    medium.prepare(1 << 20)
    medium.create(0, 1 << 20)
    buffers = [bytes([number % 251]) * (number % 7) for number in range(5000)]
    medium.write(0, 3, buffers)
    assert medium.read(0, 3, sum(map(len, buffers))) == b"".join(buffers)
    medium.close()


def test_a_write_that_the_disk_takes_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    medium = FileMedium(tmp_path)
    medium.prepare(4096)
    medium.create(0, 4096)
    monkeypatch.setattr(os, "pwritev", lambda file, buffers, offset: os.pwrite(file, b"".join(buffers)[:7], offset))
    medium.write(0, 0, [b"hello ", b"world"])
    assert medium.read(0, 0, 11) == b"hello world"
    medium.close()


def test_a_spare_that_does_not_fit_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    medium = FileMedium(tmp_path)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="no space"):
        medium.prepare(4096)
    assert list((tmp_path / "segments").iterdir()) == []
    medium.close()


def test_read_only_changes_nothing(tmp_path: Path) -> None:
    medium = FileMedium(tmp_path)
    medium.prepare(4096)
    medium.create(0, 4096)
    medium.write_blob("a", b"x")
    onlooker = FileMedium(tmp_path, read_only=True)
    assert onlooker.read(0, 0, 4) == bytes(4)
    assert onlooker.read_blob("a") == b"x"
    for change in (
        lambda: onlooker.write(0, 0, [b"x"]),
        lambda: onlooker.drop(0),
        lambda: onlooker.recycle(0),
        lambda: onlooker.prepare(10),
        lambda: onlooker.drop_blob("a"),
    ):
        with pytest.raises(OSError, match="reading only"):
            change()
    onlooker.close()
    medium.close()


async def test_a_log_with_threads(tmp_path: Path) -> None:
    frames: list[Frame] = []
    for start in range(3):
        medium = FileMedium(tmp_path)
        workers = [ThreadWorker(name) for name in ("commit", "read", "background")]
        frames.clear()
        log = Log.recover(
            medium,
            workers[0],
            LogOptions(segment_bytes=1 << 16, cache_bytes=0, disk_watermark_bytes=0),
            0,
            frames.append,
            reader=workers[1],
            background=workers[2],
        )
        assert sum(bool(frame.sections) for frame in frames) == 100 * start
        for number in range(100 * start, 100 * start + 100):
            log.append([messages(0, number, 1, number.to_bytes(4, "big") * 500)], number)
            await asyncio.sleep(0)
        async with asyncio.timeout(30):
            durable = asyncio.Event()
            log.on_durable = lambda _, log=log, durable=durable: None if log.pending_bytes else durable.set()
            if log.pending_bytes:
                await durable.wait()
            for number in range(100 * start + 100):
                entry = log.find(7, 0, number)
                assert entry is not None
                assert (await log.read(entry.position, entry.length)).endswith(number.to_bytes(4, "big") * 500)
            await log.close()
        for worker in workers:
            worker.close()
        medium.close()


_WRITER = """
import asyncio, sys
from pathlib import Path
from kourou_broker.log.file_medium import FileMedium
from kourou_broker.log.log import Log
from kourou_broker.log.options import LogOptions
from kourou_broker.log.section import Section
from kourou_broker.log.worker import ThreadWorker

async def main():
    options = LogOptions(segment_bytes=1 << 18, disk_watermark_bytes=0)
    log = Log.recover(FileMedium(Path(sys.argv[1])), ThreadWorker("commit"), options, 0, lambda frame: None,
                      background=ThreadWorker("background"))
    log.on_durable = lambda position: print(position, flush=True)
    for number in range(1 << 30):
        log.append([Section(1, 1, 7, 0, number, 1, bytes(number % 3000))], number)
        await asyncio.sleep(0)
        while log.pending_bytes > 1 << 20:
            await asyncio.sleep(0.001)

asyncio.run(main())
"""


async def test_what_a_process_reported_durable_survives_kill_9(tmp_path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE)  # noqa: ASYNC220
    assert writer.stdout is not None
    durable, enough = 0, time.monotonic() + 30
    while durable < 1 << 20 and time.monotonic() < enough:
        durable = int(writer.stdout.readline())
    writer.kill()
    for line in writer.stdout.read().splitlines(keepends=True):
        durable = int(line) if line.endswith(b"\n") else durable
    writer.wait()
    medium, worker = FileMedium(tmp_path), ThreadWorker("worker")
    frames: list[Frame] = []
    log = Log.recover(medium, worker, LogOptions(segment_bytes=1 << 18), 0, frames.append)
    assert log.next_position >= durable >= 1 << 20
    bases = [section.base for frame in frames for section in frame.sections]
    assert bases == list(range(len(bases)))
    log.append([record(b"goes on")], 1)
    await log.close()
    worker.close()
    medium.close()
