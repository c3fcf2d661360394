"""The examples of the Python library, as they are written: the commands in their first lines, on `kourou dev`."""

import ast
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import Dev

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "clients/python/examples"
TIMEOUT_S = 90.0
OUTPUT = {
    "fifo": [f"order-{number} created paid packed shipped" for number in (1, 2, 3)],
    "delay": ["the bill is recalled", "'call back' came in time"],
    "transaction": ["delivered: order-1 order-3"],
    "priority": [
        "job 2, priority 3",
        "job 1, priority 2",
        "job 4, priority 2",
        "job 3, priority 1",
        "job 0, priority 0",
        "job 5, priority 0",
    ],
    "lite": ["session-1: Once upon a time", "session-2: Once upon a time"],
    "filter_sql": ["auditors: eu 120, eu 250", "refunds: nothing"],
    "broadcasting": ["a member heard 10 11 12"] * 2,
    "simple": ["vase, attempt 2", "left: 0"],
    "push": ["40 calls, 40 pictures"],
    "offset_reset": ["the ticker: new", "the archive: new 2 times, old 2 times, older 2 times"],
    "pull": ["all: 45", "since noon: 30", "not reported yet: 100"],
    "retries_and_dead_letters": [
        "payment of 12, payment of 250",
        "attempts with the other one: 1 2 3",
        "dead letter: not a number from topic payments",
    ],
}


def commands(example: Path) -> Iterator[list[str]]:
    """The indented lines of its docstring."""
    text = ast.get_docstring(ast.parse(example.read_text()), clean=False)
    assert text is not None
    yield from (shlex.split(line) for line in text.splitlines() if line.startswith("    "))


@pytest.mark.parametrize("name", OUTPUT)
def test_an_example_does_what_it_says(new_dev: Callable[..., Dev], name: str) -> None:
    dev = new_dev()
    *preparations, run = commands(EXAMPLES / f"{name}.py")
    for program, *arguments in preparations:
        assert program == "kourou"
        dev.kourou(*arguments)
    assert run[0] == "python"
    ran = subprocess.run(
        [sys.executable, *run[1:]], cwd=ROOT, env=dev.environment(), timeout=TIMEOUT_S, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stdout.splitlines()) == (0, OUTPUT[name]), ran.stderr
