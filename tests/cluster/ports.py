"""Ports that stay ours over a restart: outside of the range from which the kernel gives ports to connections."""

import random
import socket

_FIRST, _LAST = 20_000, 30_000
_given: set[int] = set()


def free_port() -> int:
    while True:
        port = random.randrange(_FIRST, _LAST)
        if port in _given:
            continue
        with socket.socket() as probe:
            # As servers do: a connection of an earlier process that is still closing does not matter.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
