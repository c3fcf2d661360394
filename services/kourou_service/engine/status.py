"""What may stand in a call's final status, on both engines alike."""

from __future__ import annotations

import re

from kourou_service.engine.interface import Metadata

MAX_DETAILS_CHARS = 1024
"""Longer details are cut: they travel in a header, and clients bound these."""

_LEGAL_KEY = re.compile(r"(?!grpc-)[0-9a-z_.-]+")
_LEGAL_VALUE = re.compile(r"[\x20-\x7e]*")


def require_legal(metadata: Metadata) -> None:
    """Raises ValueError for metadata that gRPC would refuse; it would leave the call without an answer."""
    for key, value in metadata:
        if not _LEGAL_KEY.fullmatch(key):
            raise ValueError(f"illegal metadata key {key!r}")
        if key.endswith("-bin"):
            if not isinstance(value, bytes):
                raise ValueError(f"the value of metadata {key!r} must be bytes")
        elif not isinstance(value, str) or not _LEGAL_VALUE.fullmatch(value):
            raise ValueError(f"the value of metadata {key!r} must be a string of printable ASCII")
