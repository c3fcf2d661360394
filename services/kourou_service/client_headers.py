"""What a client's metadata says of its call, and what of that goes along when it is passed on to another process."""

import secrets
from collections.abc import Mapping, MutableMapping
from itertools import count

_REQUEST_ID = "x-mq-request-id"
_TRACE = ("traceparent", "tracestate")
_process = secrets.token_hex(8)
_numbers = count(1)


def request_id(metadata: MutableMapping[str, str | bytes]) -> str:
    """What the client calls its request; else what we call it from now on, as if the client had said so."""
    value = metadata.get(_REQUEST_ID)
    if not value or not isinstance(value, str):
        value = metadata[_REQUEST_ID] = f"{_process}-{next(_numbers)}"
    return value


def client_headers(metadata: Mapping[str, str | bytes]) -> list[tuple[str, str]]:
    """Who the client is, and what it said of itself and its request; the rest is between neighbours."""
    return [(key, value) for key, value in metadata.items() if _is_clients(key) and isinstance(value, str)]


def _is_clients(key: str) -> bool:
    return key.startswith("x-") or key == "authorization" or key in _TRACE
