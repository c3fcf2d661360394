"""Lines of a file or of standard input, byte for byte, in blocks as they come."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from kourou.cli.errors import CommandError
from kourou.limits import MAX_BODY_BYTES

_BLOCK_BYTES = 256 * 1024
_BLOCKS_AHEAD = 4


class Lines:
    """`source` is a file's name, or "-" for standard input. Raises OSError when it cannot be opened."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._fd = _stdin_fd() if source == "-" else os.open(Path(source), os.O_RDONLY)
        self.empty = 0
        """Empty lines so far: they are left out."""
        self.read_bytes = 0
        status = os.fstat(self._fd)
        self.total_bytes = status.st_size if stat.S_ISREG(status.st_mode) else None
        """None: not known, as of a pipe."""

    async def blocks(self) -> AsyncIterator[list[bytes]]:
        """The lines without their newline. Raises CommandError at a line that no message can hold."""
        rest = b""
        async for block in self._raw_blocks():
            self.read_bytes += len(block)
            *complete, rest = (rest + block).split(b"\n")
            yield self._fit(complete)
            if len(rest) > MAX_BODY_BYTES:
                self._fit([rest])
        if rest:
            yield self._fit([rest])

    def _fit(self, lines: list[bytes]) -> list[bytes]:
        full = [line for line in lines if line]
        self.empty += len(lines) - len(full)
        if any(len(line) > MAX_BODY_BYTES for line in full):
            raise CommandError(f"a line is longer than {MAX_BODY_BYTES} bytes, the most that a message can hold")
        return full

    async def _raw_blocks(self) -> AsyncIterator[bytes]:
        # A thread, since a pipe or terminal may keep it waiting, and a daemon, so that Ctrl-C need not wait with it.
        blocks: asyncio.Queue[bytes | OSError] = asyncio.Queue()
        room = threading.Semaphore(_BLOCKS_AHEAD)
        loop = asyncio.get_running_loop()

        def read() -> None:
            # The loop may be gone when the user has stopped the command.
            with suppress(RuntimeError):
                block: bytes | OSError = b"begin"
                while block and isinstance(block, bytes):
                    room.acquire()
                    try:
                        block = os.read(self._fd, _BLOCK_BYTES)
                    except OSError as error:
                        error.filename = self._source
                        block = error
                    loop.call_soon_threadsafe(blocks.put_nowait, block)

        threading.Thread(target=read, name="kourou lines", daemon=True).start()
        while block := await blocks.get():
            if isinstance(block, OSError):
                raise block
            yield block
            room.release()


def _stdin_fd() -> int:
    if sys.__stdin__ is None:
        raise CommandError("standard input is closed; --lines FILE reads a file")
    return sys.__stdin__.fileno()
