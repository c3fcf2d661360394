"""What can be set about a log."""

from dataclasses import dataclass
from typing import Literal

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class LogOptions:
    """The settings of a log, with their defaults."""

    segment_bytes: int = 64 * MIB
    flush: Literal["sync", "async"] = "sync"
    # With flush = "async": how long what was written may wait for its sync.
    flush_interval_ms: int = 500
    cache_bytes: int = 16 * MIB
    # Below so much free space, new messages are refused.
    disk_watermark_bytes: int = 512 * MIB
    space_check_interval_s: float = 1.0
    # So long after the last commit, an empty frame records that it is durable.
    idle_mark_after_s: float = 0.2
    # Open queue indexes of sealed segments.
    open_indexes: int = 32
    epoch: int = 0
