"""`kourou broker backup`: what becomes of the stream that a broker sends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from kourou.cli import root
from kourou.cli.backup import Copy
from kourou.cli.errors import CommandError
from kourou.errors import TooManyRequests
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.broker.v1.broker_pb2 import BackUpResponse
from kourou_broker import log_command

OK = v2.Status(code=v2.OK)
SEGMENT = "segments/0000000000000000.segment"


def piece(file: str, offset: int, data: bytes, size_bytes: int) -> BackUpResponse:
    return BackUpResponse(status=OK, file=file, offset=offset, data=data, size_bytes=size_bytes)


def totals(total_bytes: int) -> BackUpResponse:
    return BackUpResponse(status=OK, total_bytes=total_bytes)


def end(position: int = 7) -> BackUpResponse:
    return BackUpResponse(status=OK, log_position=position)


def take(copy: Copy, *answers: BackUpResponse) -> Copy:
    async def stream() -> AsyncGenerator[BackUpResponse]:
        for answer in answers:
            yield answer

    try:
        asyncio.run(copy.take_all(stream()))
    finally:
        copy.close()
    return copy


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path / "below" / "backup", rate_mib_s=1000)


def test_the_files_are_there_with_zeros_where_nothing_came(copy: Copy) -> None:
    take(
        copy,
        totals(16 + 4),
        piece("identity", 0, bytes(range(16)), 16),
        piece(SEGMENT, 0, b"ab", 3_000_000),
        piece(SEGMENT, 1000, b"cd", 3_000_000),
        piece("segments/0000000000000007.segment", 0, b"", 500),
        end(),
    )
    assert copy.log_position == 7
    assert not copy.folder.exists()
    copy.complete()
    assert not copy.partial.exists()
    assert (copy.folder / "identity").read_bytes() == bytes(range(16))
    assert (copy.folder / SEGMENT).read_bytes() == (b"ab" + bytes(998) + b"cd").ljust(3_000_000, b"\0")
    assert (copy.folder / SEGMENT).stat().st_blocks * 512 >= 3_000_000, "a hole is no room that was written before"
    assert (copy.folder / "segments/0000000000000007.segment").read_bytes() == bytes(500)


@pytest.mark.parametrize("name", ["/etc/passwd", "../up", "segments/../../up", "..", "a\\b", "segments/.."])
def test_no_broker_writes_outside_of_the_folder(copy: Copy, tmp_path: Path, name: str) -> None:
    with pytest.raises(CommandError, match="a file with the name"):
        take(copy, totals(1), piece(name, 0, b"x", 1), end())
    assert [path.name for path in tmp_path.rglob("*")] == ["below", "backup.partial"]


def test_what_is_not_complete_is_told(copy: Copy) -> None:
    with pytest.raises(CommandError, match="ended the copy after 3 of 10 bytes"):
        take(copy, totals(10), piece("identity", 0, b"abc", 16))
    assert f"NOT complete: {copy.partial} holds 3 of 10 bytes" in copy.what_is_left()
    with pytest.raises(CommandError, match="delete it first"):
        Copy(copy.folder, rate_mib_s=1000)


def test_bytes_that_are_missing_are_noticed(copy: Copy) -> None:
    with pytest.raises(CommandError, match="ended the copy after 3 of 10 bytes"):
        take(copy, totals(10), piece("identity", 0, b"abc", 16), end())


def test_parts_out_of_order(copy: Copy) -> None:
    with pytest.raises(CommandError, match="out of order"):
        take(copy, totals(10), piece(SEGMENT, 5, b"abc", 16), piece(SEGMENT, 0, b"abc", 16), end())


def test_a_file_that_comes_twice(copy: Copy) -> None:
    pieces = (piece(SEGMENT, 0, b"abc", 3), piece("identity", 0, b"abc", 3), piece(SEGMENT, 0, b"abc", 3))
    with pytest.raises(FileExistsError):
        take(copy, totals(9), *pieces, end())


def test_a_refusal_leaves_nothing(copy: Copy, tmp_path: Path) -> None:
    with pytest.raises(TooManyRequests):
        take(copy, BackUpResponse(status=v2.Status(code=v2.TOO_MANY_REQUESTS, message="one at a time")))
    assert copy.what_is_left() == "nothing was copied"
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    for taken in (tmp_path, tmp_path / "x"):
        with pytest.raises(CommandError, match="not empty"):
            Copy(taken, rate_mib_s=1000)


def test_a_mount_cannot_be_given_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_mount", lambda path: path == tmp_path)
    with pytest.raises(CommandError, match="mounted"):
        Copy(tmp_path, rate_mib_s=1000)
    Copy(tmp_path / "x", rate_mib_s=1000)


def test_a_damaged_log_is_told(copy: Copy) -> None:
    take(copy, totals(16 + 100), piece("identity", 0, bytes(16), 16), piece(SEGMENT, 0, b"x" * 100, 4096), end())
    with pytest.raises(CommandError, match=r"the log is damaged.*the copy stays in"):
        copy.verify()


def test_a_verification_that_is_broken_off_tells_of_no_damage(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(log_command, "inspect", interrupted)
    take(copy, totals(16), piece("identity", 0, bytes(16), 16), end())
    with pytest.raises(KeyboardInterrupt):
        copy.verify()
    assert "were not verified" in copy.what_is_left()


def test_without_the_server_s_distribution_the_totals_must_do(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(root, "_plugins", dict)
    take(copy, totals(16), piece("identity", 0, bytes(16), 16), end())
    assert "kourou-server" in copy.verify()
