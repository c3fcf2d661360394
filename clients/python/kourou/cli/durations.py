"""Spans of time, as a user writes them."""

from __future__ import annotations

import re

from kourou.cli.errors import CommandError
from kourou.protocol.google.protobuf.duration_pb2 import Duration

DURATION_HELP = "a number and ms, s, m, h or d, as in 500ms, 10s or 1h"
_UNITS_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_FORM = re.compile(r"(\d{1,12}(?:\.\d{1,3})?)(ms|s|m|h|d)")


def duration(text: str) -> Duration:
    """Raises CommandError when it is none."""
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise CommandError(f"{text!r} is no span of time: {DURATION_HELP}")
    span_ms = round(float(found[1]) * _UNITS_MS[found[2]])
    return Duration(seconds=span_ms // 1000, nanos=span_ms % 1000 * 1_000_000)


def duration_text(span: Duration) -> str:
    """In the largest unit that needs no fraction; `duration` reads it back."""
    span_ms = span.seconds * 1000 + span.nanos // 1_000_000
    unit = next((unit for unit, size_ms in _UNITS_MS.items() if span_ms % size_ms == 0 and span_ms), "s")
    return f"{span_ms // _UNITS_MS[unit]}{unit}"
