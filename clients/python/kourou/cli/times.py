"""Points in time, as a user writes them."""

from __future__ import annotations

from datetime import datetime

from kourou.cli.errors import CommandError
from kourou.protocol.google.protobuf.timestamp_pb2 import Timestamp

TIME_HELP = "ISO 8601 (2026-01-31T12:00, local time unless it says otherwise) or milliseconds since 1970."


def timestamp(text: str) -> Timestamp:
    """Raises CommandError when it is no time."""
    if text.isascii() and text.isdigit() and len(text) > 8:
        time_ms = int(text)
    else:
        try:
            # A date-time without a zone counts as local time.
            time_ms = round(datetime.fromisoformat(text).timestamp() * 1000)
        except (ValueError, OverflowError, OSError):
            raise CommandError(f"{text!r} is no time: {TIME_HELP}") from None
    # The range of a Timestamp ends with the year 9999.
    if not 0 <= time_ms < 253_402_300_800_000:
        raise CommandError(f"{text!r} is out of range")
    return Timestamp(seconds=time_ms // 1000, nanos=time_ms % 1000 * 1_000_000)


def milliseconds(time: Timestamp) -> int:
    return time.seconds * 1000 + time.nanos // 1_000_000
