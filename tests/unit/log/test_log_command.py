"""`kourou log`."""

from pathlib import Path

from typer.testing import CliRunner

from kourou_broker.log.file_medium import FileMedium
from kourou_broker.log.log import Log
from kourou_broker.log.options import LogOptions
from kourou_broker.log.worker import ThreadWorker
from kourou_broker.log_command import app
from tests.unit.log.logs import messages


async def _make_log(folder: Path) -> None:
    medium, worker = FileMedium(folder), ThreadWorker("worker")
    log = Log.recover(medium, worker, LogOptions(segment_bytes=4096, disk_watermark_bytes=0), 0, lambda frame: None)
    for number in range(30):
        log.append([messages(0, number, 1, bytes(300))], number)
    await log.close()
    worker.close()
    medium.close()


async def test_inspect_and_repair(tmp_path: Path) -> None:
    await _make_log(tmp_path)
    cli = CliRunner()
    assert "healthy" in cli.invoke(app, ["inspect", "--data", str(tmp_path)]).output
    with_end = [cli.invoke(app, ["inspect", "--data", str(tmp_path), "--up-to", end]) for end in ("9000", "99000")]
    assert [result.exit_code for result in with_end] == [0, 1]
    assert "ends before position 99000" in with_end[1].output
    segment = sorted((tmp_path / "segments").glob("*.segment"))[1]
    data = bytearray(segment.read_bytes())
    data[200] ^= 1
    segment.write_bytes(data)
    result = cli.invoke(app, ["inspect", "--data", str(tmp_path)])
    assert result.exit_code == 1
    assert f"DAMAGED: segment {segment.stem}" in result.output
    assert cli.invoke(app, ["repair", "--data", str(tmp_path)], input="n\n").exit_code == 1
    assert cli.invoke(app, ["repair", "--data", str(tmp_path), "--yes"]).exit_code == 0
    assert "healthy" in cli.invoke(app, ["inspect", "--data", str(tmp_path)]).output


async def test_a_cut_takes_the_snapshots_behind_it_along(tmp_path: Path) -> None:
    await _make_log(tmp_path)
    (tmp_path / "blobs" / f"snapshot-{100:016x}").write_bytes(b"")
    (tmp_path / "blobs" / f"snapshot-{9000:016x}").write_bytes(b"")
    segment = sorted((tmp_path / "segments").glob("*.segment"))[1]
    segment.write_bytes(b"?" + segment.read_bytes()[1:])
    result = CliRunner().invoke(app, ["repair", "--data", str(tmp_path), "--mode", "cut", "--yes"])
    assert f"Dropped snapshot-{9000:016x}" in result.output
    assert [path.name for path in (tmp_path / "blobs").glob("snapshot-*")] == [f"snapshot-{100:016x}"]


async def test_a_folder_in_use_or_of_something_else(tmp_path: Path) -> None:
    cli = CliRunner()
    result = cli.invoke(app, ["inspect", "--data", str(tmp_path)])
    assert result.exit_code == 1
    assert "not the data folder" in result.output
    medium = FileMedium(tmp_path)
    result = cli.invoke(app, ["inspect", "--data", str(tmp_path)])
    assert result.exit_code == 1
    assert "in use by another process" in result.output
    medium.close()
