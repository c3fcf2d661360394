"""The compiled load program in load/: built when needed, run on the other core."""

import json
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.process import LOAD_CORE, Process

_FOLDER = Path(__file__).parent / "load"


def build() -> None:
    """Costs nothing when it is built. Raises CalledProcessError, after make said why."""
    subprocess.run(["make", "--silent", "--directory", str(_FOLDER)], check=True, stdout=subprocess.DEVNULL)


def start(mode: str, address: str, folder: Path, **flags: object) -> Process:
    """Starts the load program; `in_flight=64` becomes the flag `-in-flight=64`."""
    command = [str(_FOLDER / "bin/load"), mode, f"-address={address}"]
    for name, value in flags.items():
        command.append(f"-{name.replace('_', '-')}={str(value).lower() if isinstance(value, bool) else value}")
    return Process(f"load {mode}", command, folder / "load.log", core=LOAD_CORE)


def run(mode: str, address: str, folder: Path, **flags: object) -> Any:
    """The load program's result. Raises ProcessError if any answer was not OK."""
    with start(mode, address, folder, **flags) as process:
        return json.loads(process.output())
