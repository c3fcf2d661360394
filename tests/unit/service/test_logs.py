"""Lines of the log: one format for us and for libraries, counted by level."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

BODY = """
import asyncio, logging, sys
from types import SimpleNamespace
import structlog
from kourou_service.logs import configure_logging, current_call, lines_by_level

level, look = sys.argv[1:]
configure_logging(level, look)
ours, library = structlog.stdlib.get_logger("ours"), logging.getLogger("a.library")
ours.debug("of no use")
ours.info("all is well", brokers=2)
library.info("chatter")
library.warning("tried %s times", 3)
current_call.set(SimpleNamespace(method="/s/M", peer="ipv4:10.0.0.1:1", metadata={"x-mq-client-id": "a-client"}))
ours.warning("a handler says", peer="another")
try:
    secret = "a message"
    1 / 0
except ZeroDivisionError:
    ours.exception("ours failed")
    library.exception("theirs failed")
print(lines_by_level)
"""


def run(level: str, look: str) -> tuple[list[str], str]:
    """Lines of the log, and what was counted."""
    command = [sys.executable, "-c", textwrap.dedent(BODY), level, look]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    return done.stderr.splitlines(), done.stdout


def test_every_line_is_json_in_a_container() -> None:
    lines, counted = run("info", "auto")
    read: list[dict[str, Any]] = [json.loads(line) for line in lines]
    assert [(line["event"], line["level"]) for line in read] == [
        ("all is well", "info"),
        ("tried 3 times", "warning"),
        ("a handler says", "warning"),
        ("ours failed", "error"),
        ("theirs failed", "error"),
    ]
    assert read[0]["brokers"] == 2
    assert read[1]["logger"] == "a.library"
    assert "client_id" not in read[1]
    assert len({line["request_id"] for line in read[2:]}) == 1
    assert [(line["method"], line["client_id"], line["peer"]) for line in read[2:]] == [
        ("/s/M", "a-client", "another"),
        ("/s/M", "a-client", "ipv4:10.0.0.1:1"),
        ("/s/M", "a-client", "ipv4:10.0.0.1:1"),
    ]
    for line in read[3:]:
        assert line["exception"][0]["exc_type"] == "ZeroDivisionError"
    assert all(line["timestamp"].endswith("Z") for line in read)
    assert "a message" not in "".join(lines)
    assert counted == "{'debug': 0, 'info': 1, 'warning': 2, 'error': 2, 'critical': 0}\n"


def test_lines_for_people() -> None:
    lines, _ = run("debug", "terminal")
    assert "of no use" in lines[0]
    assert "tried 3 times" in lines[2]
    assert "a.library" in lines[2]
    assert not lines[0].startswith("{")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a file that is always full")
def test_where_nothing_can_be_logged_all_else_goes_on() -> None:
    command = [sys.executable, "-c", textwrap.dedent(BODY), "info", "json"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, text=True, timeout=30, check=False)
    assert done.stdout == "{'debug': 0, 'info': 1, 'warning': 2, 'error': 2, 'critical': 0}\n"
