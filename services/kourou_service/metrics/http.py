"""The standard library's HTTP server, made fit for strangers: bounded in threads and in time, and quiet."""

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler

import structlog
from prometheus_client.exposition import ThreadingWSGIServer
from typing_extensions import override

from kourou_service.listener import HostPort

App = Callable[..., Any]
"""Of WSGI; called in a thread for each request."""
MAX_CONNECTIONS = 32
"""At one time; the next one is closed at once."""
CONNECTION_TIMEOUT_S = 15.0
"""For a request and its answer; a connection serves one request."""
_IDLE_TIMEOUT_S = 5.0
_POLL_S = 0.25

_logger = structlog.stdlib.get_logger(__name__)


class HttpServer:
    def __init__(self, address: HostPort, app: App) -> None:
        """Binds; port 0 takes a free one. Raises OSError."""
        try:
            self._server = _server_class(address)((address.host, address.port), _Handler)
        except OSError as problem:
            raise OSError(problem.errno, f"cannot serve metrics on {address}: {problem.strerror}") from None
        self._server.set_app(app)
        self.address = HostPort(address.host, self._server.server_port)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_S,), name="kourou-metrics", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """The port is free when it returns; requests under way are left to their threads, which hold up no exit."""
        threading.Thread(target=self._server.shutdown, name="kourou-metrics-end", daemon=True).start()
        _shut(self._server.socket)  # wakes the server's thread, on Linux; elsewhere it looks up every _POLL_S
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingWSGIServer):
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        self._opened_s: dict[Any, float] = {}
        super().__init__(address, handler)

    @override
    def server_bind(self) -> None:
        # Not HTTPServer's, which asks the DNS for our own name.
        socketserver.TCPServer.server_bind(self)
        host, self.server_port = self.server_address[:2]
        self.server_name = str(host)
        self.setup_environ()

    @override
    def process_request(self, request: Any, client_address: Any) -> None:
        if len(self._opened_s) >= MAX_CONNECTIONS:
            self.shutdown_request(request)
            return
        self._opened_s[request] = time.monotonic()
        super().process_request(request, client_address)

    @override
    def shutdown_request(self, request: Any) -> None:
        self._opened_s.pop(request, None)
        super().shutdown_request(request)

    @override
    def service_actions(self) -> None:
        """Ends those that take too long, a byte at a time: a time-out of the socket begins anew with each."""
        overdue_s = time.monotonic() - CONNECTION_TIMEOUT_S
        for request, opened_s in list(self._opened_s.items()):
            if opened_s < overdue_s:
                _shut(request)

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client went away, or was too slow."""
        _logger.debug("a request for metrics failed", peer=str(client_address), exc_info=True)


class _Handler(WSGIRequestHandler):
    timeout = _IDLE_TIMEOUT_S

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: who scrapes does so every few seconds."""


def _server_class(address: HostPort) -> type[_Server]:
    family = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
    return type("_ServerOfFamily", (_Server,), {"address_family": family})


def _shut(request: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has ended meanwhile
        request.shutdown(socket.SHUT_RDWR)
