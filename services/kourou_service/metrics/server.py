"""/metrics and /health over HTTP, for all services of this process.

Requests are answered by threads of the standard library's server. They ask the event loop for figures and for health,
and wait no longer than `LOOP_TIMEOUT_S` for it; text is made in the thread.
"""

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector, exposition
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from kourou_service.listener import HostPort
from kourou_service.logs import lines_by_level
from kourou_service.metrics.exposition import NodeExposition, merged
from kourou_service.metrics.family import Family
from kourou_service.metrics.http import HttpServer
from kourou_service.metrics.node import NodeMetrics
from kourou_service.metrics.runtime import LoopLag, log_messages

LOOP_TIMEOUT_S = 5.0

Environ = Mapping[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], Any]
A = TypeVar("A")

typed_exposition: Any = exposition  # its types say too little

_logger = structlog.stdlib.get_logger(__name__)


class Unanswered(Exception):
    """The event loop did not answer in time, or has ended."""


class MetricsServer:
    """Built inside the running loop."""

    def __init__(
        self, nodes: Sequence[NodeMetrics], *, max_series: int, log_counts: Mapping[str, int] | None = None
    ) -> None:
        """`max_series`: label sets shown of each metric; `log_counts`: lines logged so far, by level."""
        self._nodes = nodes
        self._log_counts = log_counts or {}
        self._loop = asyncio.get_running_loop()
        self._lag = LoopLag()
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Scrape(nodes, max_series, lambda: self._ask(self._collect)))
        self._metrics_app: Callable[[Environ, StartResponse], Iterable[bytes]] = typed_exposition.make_wsgi_app(
            registry
        )
        self._http: HttpServer | None = None
        self.address: HostPort | None = None
        """Where it listens, after `start`."""

    def start(self, address: HostPort) -> None:
        """Listens when it returns; port 0 takes a free one. Raises OSError when the address cannot be bound."""
        self._http = HttpServer(address, self._answer)
        self._http.start()
        self.address = self._http.address
        self._lag.start()

    def stop(self) -> None:
        """Can be repeated."""
        self._lag.stop()
        http, self._http = self._http, None
        if http is not None:
            http.stop()

    # On the loop.

    async def _collect(self) -> list[list[Family]]:
        """The families of each node."""
        of_process = [self._lag.family(), log_messages(self._log_counts)]
        return [[*of_process, *(await node.collect())] for node in self._nodes]

    async def _illness(self) -> str | None:
        return next((illness for node in self._nodes if (illness := node.illness()) is not None), None)

    # In the threads of the HTTP server.

    def _answer(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            match environ["PATH_INFO"]:
                case "/metrics":
                    return self._metrics_app(environ, start_response)
                case "/health":
                    illness = self._ask(self._illness)
                    return _text(start_response, "503 Service Unavailable" if illness else "200 OK", illness or "ok")
                case _:
                    return _text(start_response, "404 Not Found", "there are /metrics and /health")
        except Unanswered as problem:
            return _text(start_response, "503 Service Unavailable", str(problem))
        except Exception:
            _logger.exception("a request for metrics failed")
            return _text(start_response, "500 Internal Server Error", "it failed; the log says more")

    def _ask(self, question: Callable[[], Coroutine[Any, Any, A]]) -> A:
        """The answer of a coroutine on the loop. Raises Unanswered."""
        asking = question()
        try:
            answer = asyncio.run_coroutine_threadsafe(asking, self._loop)
        except RuntimeError:  # the loop is closed
            asking.close()
            raise Unanswered("the service has stopped") from None
        try:
            return answer.result(LOOP_TIMEOUT_S)
        except TimeoutError:
            answer.cancel()
            raise Unanswered(f"the event loop did not answer within {LOOP_TIMEOUT_S:.0f} s") from None
        except concurrent.futures.CancelledError:
            raise Unanswered("the service is stopping") from None


@asynccontextmanager
async def serving_metrics(
    nodes: Sequence[NodeMetrics], address: HostPort | None, max_series: int
) -> AsyncGenerator[HostPort | None]:
    """Serves them meanwhile, and tells where; nowhere without an address. Raises OSError as `start` does."""
    if address is None:
        yield None
        return
    server = MetricsServer(nodes, max_series=max_series, log_counts=lines_by_level)
    server.start(address)
    try:
        yield server.address
    finally:
        server.stop()


class _Scrape(Collector):
    """What prometheus-client renders; one scrape at a time."""

    def __init__(
        self, nodes: Sequence[NodeMetrics], max_series: int, collect: Callable[[], list[list[Family]]]
    ) -> None:
        self._nodes = [NodeExposition(node.node, max_series) for node in nodes]
        self._process = ProcessCollector(registry=None)
        self._collect = collect
        self._one_at_a_time = threading.Lock()

    @override
    def collect(self) -> Iterable[Metric]:
        """Raises Unanswered."""
        if not self._one_at_a_time.acquire(timeout=LOOP_TIMEOUT_S):
            raise Unanswered("others collect metrics all the time")
        try:
            metrics: list[Metric] = []
            for node, families in zip(self._nodes, self._collect(), strict=True):
                metrics += node.labelled(self._process.collect())
                metrics += node.metrics(families)
        finally:
            self._one_at_a_time.release()
        return merged(metrics)


def _text(start_response: StartResponse, status: str, line: str) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{line}\n".encode()]
