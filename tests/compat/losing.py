"""A way to a broker on which answers get lost."""

import socket
import threading
from contextlib import suppress


class LosingProxy:
    """Forwards connections to `target`. While it loses, what the broker says goes nowhere; `cut` then breaks the
    connections off, and later ones are whole again."""

    def __init__(self, target: str) -> None:
        host, _, port = target.partition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.losing = False
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self.losing = False  # first: clients connect again at once
        connections, self._open = self._open, []
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):  # it is closed
            while True:
                client, _address = self._listener.accept()
                broker = socket.create_connection(self._target)
                self._open += [client, broker]
                threading.Thread(target=self._forward, args=(client, broker, False), daemon=True).start()
                threading.Thread(target=self._forward, args=(broker, client, True), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        lost = False
        with suppress(OSError), source:
            while data := source.recv(65536):
                lost = lost or (answers and self.losing)  # what has a gap makes no sense any more
                if not lost:
                    sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
