"""CRC-32C, with types."""

from collections.abc import Callable
from mmap import mmap
from typing import cast

import google_crc32c

# The checksum of some bytes, and that of bytes which follow others whose checksum is known.
value = cast("Callable[[bytes], int]", google_crc32c.value)  # pyright: ignore[reportUnknownMemberType]
extend = cast("Callable[[int, bytes], int]", google_crc32c.extend)  # pyright: ignore[reportUnknownMemberType]

PIECE_BYTES = 64 * 1024
"""What is longer is copied out in pieces: the memory of a long copy is new, which costs more than the copying."""


def value_of_part(data: bytes | mmap | memoryview, start: int = 0, end: int | None = None) -> int:
    """The checksum of what lies from start up to end, or to the end of all."""
    end = len(data) if end is None else end
    crc = 0
    for at in range(start, end, PIECE_BYTES):
        crc = extend(crc, bytes(data[at : min(at + PIECE_BYTES, end)]))
    return crc
