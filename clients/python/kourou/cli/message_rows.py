"""A message as a row: what JSON and tables show of it."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any

from kourou.errors import CorruptMessage
from kourou.received import ReceivedMessage

_PREVIEW_CHARS = 60


def message_row(message: ReceivedMessage) -> dict[str, Any]:
    """Times in milliseconds since 1970; None for what the message does not have."""
    body, encoding = _body(message)
    return {
        "topic": message.topic,
        "type": message.type.value,
        "broker": message.broker,
        "queue": message.queue_id,
        "offset": message.offset,
        "message_id": message.message_id,
        "tag": message.tag,
        "keys": list(message.keys),
        "properties": message.properties,
        "message_group": message.message_group,
        "delivery_ms": _milliseconds(message.delivery_time),
        "priority": message.priority,
        "lite_topic": message.lite_topic,
        "born_ms": _milliseconds(message.born_at),
        "born_host": message.born_host,
        "stored_ms": _milliseconds(message.stored_at),
        "size_bytes": message.size_bytes,
        "body": body,
        "body_encoding": encoding,
    }


def preview(row: dict[str, Any]) -> str:
    """The beginning of a message's body, for a table."""
    body = row["body"]
    if body is None:
        return "(cannot be unpacked)"
    if row["body_encoding"] == "base64":
        return f"({row['size_bytes']} bytes that are no text)"
    return body if len(body) <= _PREVIEW_CHARS else body[: _PREVIEW_CHARS - 1] + "…"


def _milliseconds(time: datetime | None) -> int | None:
    return None if time is None else round(time.timestamp() * 1000)


def _body(message: ReceivedMessage) -> tuple[str | None, str | None]:
    """The body as JSON can hold it: text ("utf-8"), or "base64" for bytes that are none."""
    try:
        body = message.body
    except CorruptMessage:
        return None, None
    try:
        return body.decode(), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(body).decode(), "base64"
