"""Whether a client speaks TLS, and which servers it believes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import grpc

from kourou.errors import InvalidArgument

TLS_VARIABLE = "KOUROU_TLS"

Tls = bool | str | os.PathLike[str] | grpc.ChannelCredentials
"""True: TLS, believing the CAs that gRPC knows. A path: TLS, believing the CAs in that PEM file. False: plaintext.
gRPC's own credentials: for what is beyond that, such as a certificate of the client."""

_NO = ("", "0", "false", "no", "off")
_YES = ("1", "true", "yes", "on")

# grpcio has no types.
_credentials: Callable[[bytes | None], grpc.ChannelCredentials] = grpc.ssl_channel_credentials


def credentials_of(tls: Tls | None) -> grpc.ChannelCredentials | None:
    """None: plaintext. What is left out (None) is taken from KOUROU_TLS: a word for yes or no, or a path. Raises
    InvalidArgument for a file that cannot be read."""
    if tls is None:
        tls = _from_environment(os.environ.get(TLS_VARIABLE, ""))
    if isinstance(tls, grpc.ChannelCredentials):
        return tls
    if isinstance(tls, bool):
        return _credentials(None) if tls else None
    return _credentials(_read(Path(tls)))


def _from_environment(value: str) -> bool | str:
    word = value.strip().lower()
    return word in _YES if word in (*_YES, *_NO) else value


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidArgument(f"cannot read the CAs in {path}: {error.strerror}") from None
    if b"-----BEGIN CERTIFICATE-----" not in content:
        raise InvalidArgument(f"{path} has no PEM certificate")
    return content
