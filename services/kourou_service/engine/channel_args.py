"""The options of an engine as gRPC's channel arguments, and the check of an address before gRPC binds it."""

from __future__ import annotations

import socket

from kourou_service.engine.interface import EngineOptions

ChannelArgs = tuple[tuple[str, int], ...]


def channel_args(options: EngineOptions) -> ChannelArgs:
    return (
        ("grpc.so_reuseport", 0),  # else a second process would share the port unseen
        ("grpc.max_receive_message_length", options.max_message_bytes),
        ("grpc.max_send_message_length", options.max_message_bytes),
        # Between the soft and the hard limit gRPC refuses at random; equal ones make it predictable.
        ("grpc.max_metadata_size", options.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", options.max_metadata_bytes),
        ("grpc.keepalive_time_ms", int(options.keepalive_interval_s * 1000)),
        ("grpc.keepalive_timeout_ms", int(options.keepalive_timeout_s * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", int(options.min_client_ping_interval_s * 1000)),
    )


def bound_address(address: str, port: int) -> str:
    """The address as bound: its port 0 replaced by the one gRPC picked."""
    return f"{address.rpartition(':')[0]}:{port}"


def require_free(address: str) -> None:
    """Raises OSError with the reason if `address` cannot be bound; gRPC itself would only say that it failed."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise OSError(f"cannot listen on {address!r}: not host:port")
    try:
        family, kind, _, _, target = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(target)
            probe.listen(1)  # bind alone succeeds beside a listener on the wildcard address
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {address}: {error.strerror}") from None
