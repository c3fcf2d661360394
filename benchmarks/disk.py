"""What the disk itself can do: a write into a file that is there already, then fdatasync, again and again."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

SIZES_KIB = (4, 16, 64)
_FILE_BYTES = 16 * 1024 * 1024
_SECONDS = 0.5


def fdatasync_ms(
    folder: Path, sizes_kib: Sequence[int] = SIZES_KIB, seconds: float = _SECONDS
) -> dict[str, dict[str, float]]:
    """For each size of a write: median, 99th percentile (ms) and how many a second; `seconds` for each of them."""
    path = folder / "fdatasync"
    file = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        os.pwrite(file, bytes(_FILE_BYTES), 0)
        os.fsync(file)
        return {f"{size} KiB": _measure(file, size * 1024, seconds) for size in sizes_kib}
    finally:
        os.close(file)
        path.unlink()


def _measure(file: int, size: int, seconds: float) -> dict[str, float]:
    data = os.urandom(size)
    took_s: list[float] = []
    at, ends = 0, time.monotonic() + seconds
    while (began := time.monotonic()) < ends:
        os.pwrite(file, data, at)
        os.fdatasync(file)
        took_s.append(time.monotonic() - began)
        at = (at + size) % (_FILE_BYTES - size)
    took_s.sort()
    return {
        "p50_ms": round(median(took_s) * 1000, 3),
        "p99_ms": round(took_s[int(len(took_s) * 0.99)] * 1000, 3),
        "per_s": round(len(took_s) / sum(took_s)),
    }


def forget_cached(folder: Path) -> None:
    """Lets the kernel drop what it caches of the files, so that the next reader finds them on the disk only."""
    for path in folder.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            try:
                os.fsync(file)
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(file)


def require(folder: Path) -> None:
    """Raises ValueError when the folder is in memory."""
    if filesystem(folder) in ("tmpfs", "ramfs"):
        raise ValueError(f"{folder} is in memory, not on a disk: choose another folder with --data")


def filesystem(folder: Path) -> str:
    """The kind of filesystem the folder is on, such as ext4."""
    best, kind = "", "unknown"
    resolved = str(folder.resolve())
    for line in Path("/proc/mounts").read_text().splitlines():
        _device, mount, type_, *_ = line.split()
        if (resolved + "/").startswith(mount.rstrip("/") + "/") and len(mount) >= len(best):
            best, kind = mount, type_
    return kind
