"""What the machine itself can do just now: on shared ones that changes within minutes, and explains many a figure."""

import hashlib
import os
import time
from pathlib import Path

from benchmarks import disk
from benchmarks.process import LOAD_CORE, SERVER_CORE

_WRITE_KIB = 4
_SECONDS = 0.2
_HASH_ROUNDS = 60_000


def calibrate(folder: Path) -> dict[str, float]:
    """A raw fdatasync of 4 KiB, median and 99 %, and a fixed piece of work on the servers' core and on the load's."""
    (times,) = disk.fdatasync_ms(folder, (_WRITE_KIB,), _SECONDS).values()
    return {
        "fdatasync_p50_ms": times["p50_ms"],
        "fdatasync_p99_ms": times["p99_ms"],
        "work_on_server_core_ms": _work_ms(SERVER_CORE),
        "work_on_load_core_ms": _work_ms(LOAD_CORE),
    }


def _work_ms(core: int) -> float:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, [core])
    try:
        began = time.monotonic()
        hashlib.pbkdf2_hmac("sha256", b"a fixed piece of", b"work", _HASH_ROUNDS)
        return round((time.monotonic() - began) * 1000, 2)
    finally:
        os.sched_setaffinity(0, cores)
