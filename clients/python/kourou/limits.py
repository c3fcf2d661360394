"""Limits on which services, clients and the command agree."""

from __future__ import annotations

MAX_BODY_BYTES = 4 * 1024 * 1024
"""Of a message, unpacked."""
MAX_QUEUES = 1024
"""Of a topic on one broker."""
MAX_LITE_TOPIC_CHARS = 64
"""Of a lite topic's name."""
DEFAULT_LITE_QUOTA = 2000
MAX_LITE_QUOTA = 20_000
"""Lite topics that one client may read."""
