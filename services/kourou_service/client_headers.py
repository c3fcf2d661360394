"""What of a client's metadata goes along when its call is passed on to another process."""

from collections.abc import Mapping


def client_headers(metadata: Mapping[str, str | bytes]) -> list[tuple[str, str]]:
    """Who the client is, and what it said of itself; the rest is between neighbours."""
    return [(key, value) for key, value in metadata.items() if _is_clients(key) and isinstance(value, str)]


def _is_clients(key: str) -> bool:
    return key.startswith("x-") or key == "authorization"
