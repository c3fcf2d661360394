"""A digest of many lines that does not depend on their order: SHA-256 over the sorted lines.

The same as `LC_ALL=C sort FILE | sha256sum` of a file without empty lines. Lines beyond a limit are sorted in parts
on disk, so that memory stays bounded.
"""

from __future__ import annotations

import hashlib
import heapq
import tempfile
from collections.abc import Iterator
from typing import IO

# What Python keeps for a line besides its bytes, about.
_LINE_OVERHEAD_BYTES = 64


class LinesDigest:
    def __init__(self, memory_bytes: int = 128 * 1024 * 1024) -> None:
        self._memory_bytes = memory_bytes
        self._lines: list[bytes] = []
        self._held_bytes = 0
        self._parts: list[IO[bytes]] = []

    def add(self, line: bytes) -> None:
        """`line` without its newline."""
        self._lines.append(line)
        self._held_bytes += len(line) + _LINE_OVERHEAD_BYTES
        if self._held_bytes > self._memory_bytes:
            self._spill()

    def hexdigest(self) -> str:
        """Ends it: nothing can be added afterwards."""
        self._lines.sort()
        digest = hashlib.sha256()
        for line in heapq.merge(self._lines, *(_lines_of(part) for part in self._parts)):
            digest.update(line)
            digest.update(b"\n")
        for part in self._parts:
            part.close()
        return digest.hexdigest()

    def _spill(self) -> None:
        self._lines.sort()
        part = tempfile.TemporaryFile()  # noqa: SIM115  (hexdigest reads and closes it)
        # The length first: a body may hold a newline.
        part.writelines(len(line).to_bytes(4, "big") + line for line in self._lines)
        part.seek(0)
        self._parts.append(part)
        self._lines, self._held_bytes = [], 0


def _lines_of(part: IO[bytes]) -> Iterator[bytes]:
    while header := part.read(4):
        yield part.read(int.from_bytes(header, "big"))
