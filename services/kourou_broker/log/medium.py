"""The narrow medium under the log: nothing above it knows files."""

from collections.abc import Sequence
from mmap import mmap
from typing import NamedTuple, Protocol

Bytes = bytes | memoryview


class SegmentFile(NamedTuple):
    """A segment as the medium has it: the log position of its first byte, and the room in it."""

    base: int
    size_bytes: int


class DiskSpace(NamedTuple):
    """Of the disk below a medium, bytes: what can still be written beyond what is prepared, and its size."""

    free_bytes: int
    size_bytes: int


class Medium(Protocol):
    """Pre-written segments, and small named blobs. All calls block; all raise OSError when the medium fails.

    What `write` wrote may be lost, torn or reordered by a crash until `sync` returned; everything else is durable when
    it returns. A failed write or sync leaves the segment unknown: the caller stops.
    """

    @property
    def name(self) -> str:
        """What a user calls this medium: the data folder."""
        ...

    @property
    def identity(self) -> bytes:
        """16 random bytes, made once, when the medium was first used."""
        ...

    def segments(self) -> list[SegmentFile]:
        """All segments, in the order of their bases."""
        ...

    def spares(self) -> list[int]:
        """The sizes, in bytes, of the prepared segments that wait for use."""
        ...

    def prepare(self, size_bytes: int) -> None:
        """Make one more spare, full of zeros. ENOSPC leaves nothing behind."""
        ...

    def drop_spares(self) -> None:
        """Delete all spares."""
        ...

    def create(self, base: int, size_bytes: int) -> None:
        """Turn a spare of that size into the segment at `base`; FileNotFoundError if there is none."""
        ...

    def write(self, base: int, offset: int, buffers: Sequence[Bytes]) -> None:
        """Write the buffers one after the other from `offset` of the segment on; not yet durable."""
        ...

    def append(self, base: int, offset: int, buffers: Sequence[Bytes]) -> None:
        """The same, where only zeros follow: more of these may be written, to an end that suits the medium."""
        ...

    def sync(self, base: int) -> None:
        """Make durable what was written to the segment."""
        ...

    def read(self, base: int, offset: int, size_bytes: int) -> bytes:
        """As much of that range as lies within the segment, with what was written and not yet synced."""
        ...

    def view(self, base: int) -> bytes | mmap:
        """The whole segment, mapped where that can be done. For helper processes: who looks at a page that cannot be
        read is ended."""
        ...

    def read_now(self, base: int, offset: int, size_bytes: int) -> bytes | None:
        """That range, if it takes no time and all of it lies within the segment. Called by the log's loop only."""
        ...

    def recycle(self, base: int) -> None:
        """Turn a segment into a spare: it is full of zeros before it can become a segment again."""
        ...

    def drop(self, base: int) -> None:
        """Delete a segment."""
        ...

    def list_blobs(self) -> list[str]:
        """The names of all blobs."""
        ...

    def read_blob(self, name: str) -> bytes:
        """The whole blob; FileNotFoundError if there is none."""
        ...

    def view_blob(self, name: str) -> memoryview:
        """A view of the blob, mapped where that can be done; it stays valid when the blob is replaced or dropped."""
        ...

    def write_blob(self, name: str, data: bytes) -> None:
        """Make or replace a blob, at once and whole."""
        ...

    def drop_blob(self, name: str) -> None:
        """Delete a blob; no error if there is none."""
        ...

    def disk(self) -> DiskSpace:
        """The space on the disk, looked up now."""
        ...

    def close(self) -> None:
        """Let go of everything, the lock last."""
        ...


def segment_name(base: int) -> str:
    """How a segment is called, in folders and in messages."""
    return f"{base:016x}"
