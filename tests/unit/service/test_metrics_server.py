"""/metrics and /health by real HTTP; the loop that has the figures, and clients that are slow, rude or many."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress

import pytest

from kourou_service.engine import create_engine
from kourou_service.listener import HostPort
from kourou_service.metrics import http, runtime, server
from kourou_service.metrics.exposition import Node
from kourou_service.metrics.family import Collect, Family, counter, gauge
from kourou_service.metrics.node import NodeMetrics, node_id
from kourou_service.metrics.server import MetricsServer, serving_metrics
from tests.unit.service.scraping import fetch, scrape, scrape_until

ANY = HostPort("127.0.0.1", 0)


class Service:
    """With figures and a health of its own."""

    def __init__(self, kind: str = "broker") -> None:
        self.illness: str | None = None
        self.families: list[Family] = []
        self.collect: Collect = self._collect
        self.engine = create_engine()
        self.metrics = NodeMetrics(Node("kourou", kind, "a"), (self.engine,), [self._call], lambda: self.illness)

    async def _call(self) -> Iterable[Family]:
        return await self.collect()

    async def _collect(self) -> Iterable[Family]:
        return self.families


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    service = Service()
    yield service
    await service.engine.stop(0)


@pytest.fixture
async def start(service: Service) -> AsyncIterator[Callable[..., MetricsServer]]:
    started: list[MetricsServer] = []

    def start(**settings: int) -> MetricsServer:
        server = MetricsServer([service.metrics], max_series=settings.get("max_series", 100), log_counts={"error": 3})
        started.append(server)
        server.start(ANY)
        return server

    yield start
    for each in started:
        each.stop()


Start = Callable[..., MetricsServer]


async def test_the_figures_of_a_service_and_of_its_process(service: Service, start: Start) -> None:
    service.families = [counter("orders_total", "Orders.", {("a",): 1, ("b",): 2, ("c",): 3}, ("topic",))]
    page = await scrape(start(max_series=2).address)
    assert page.sum("orders_total", cluster="kourou", node_type="broker", node_id="a", topic="b") == 2
    assert page.sum("orders_total", topic="*") == 3
    assert page.sum("kourou_metrics_folded_series") == 1
    assert page.sum("process_resident_memory_bytes", node_id="a") > 1e6
    assert page.sum("process_start_time_seconds") <= time.time() + 1
    assert page.sum("kourou_build_info", engine="queue") == 1
    assert page.sum("kourou_log_messages_total", level="error") == 3
    assert page.sum("rocketmq_processor_watermark", processor="unary") == 0
    assert page.sum("kourou_event_loop_lag_seconds_count") == 0


async def test_a_late_timer_is_seen(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "LAG_INTERVAL_S", 0.05)
    server = start()
    time.sleep(0.3)  # noqa: ASYNC251 - what a long turn does
    page = await scrape_until(server.address, lambda page: page.sum("kourou_event_loop_lag_seconds_count") > 0)
    assert page.sum("kourou_event_loop_lag_seconds_sum") > 0.2


async def test_health(service: Service, start: Start) -> None:
    server = start()
    assert await fetch(server.address, "/health") == (200, "ok\n")
    service.illness = "it waits for brokers: broker-a"
    assert await fetch(server.address, "/health") == (503, "it waits for brokers: broker-a\n")


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/", 404), ("GET", "/metrics/", 404), ("PUT", "/metrics", 405)]
)
async def test_there_is_nothing_else(start: Start, method: str, path: str, status: int) -> None:
    assert (await fetch(start().address, path, method))[0] == status


async def test_figures_are_taken_on_the_loop_and_made_text_outside_of_it(service: Service, start: Start) -> None:
    threads: list[int] = []

    async def collect() -> Iterable[Family]:
        threads.append(threading.get_ident())
        await asyncio.sleep(0)
        return [gauge("depth", "Now.", 1)]

    service.collect = collect
    page = await scrape(start().address)
    assert threads == [threading.get_ident()]
    assert page.sum("depth") == 1


async def test_a_fault_while_collecting_is_told(service: Service, start: Start) -> None:
    async def fail() -> Iterable[Family]:
        raise ZeroDivisionError("a secret")

    service.collect = fail
    status, text = await fetch(start().address, "/metrics")
    assert status == 500
    assert "secret" not in text


async def test_a_loop_that_is_held_up_is_not_healthy(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LOOP_TIMEOUT_S", 0.2)
    address = start().address
    answers: list[tuple[int, str]] = []
    asking = threading.Thread(target=lambda: answers.append(asyncio.run(fetch(address, "/health"))))
    asking.start()
    asking.join(5)  # the loop stands still meanwhile
    assert answers == [(503, "the event loop did not answer within 0 s\n")]
    assert await fetch(address, "/health") == (200, "ok\n")


async def test_scrapes_at_one_time_follow_one_another(service: Service, start: Start) -> None:
    running = most = 0

    async def collect() -> Iterable[Family]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return []

    service.collect = collect
    address = start().address
    assert [status for status, _ in await asyncio.gather(*(fetch(address, "/metrics") for _ in range(8)))] == [200] * 8
    assert most == 1


async def test_a_taken_port_is_told_at_the_start(service: Service) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = HostPort("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(OSError, match=f"cannot serve metrics on {address}: .*in use"):
            MetricsServer([service.metrics], max_series=1).start(address)


async def test_no_address_no_server(service: Service) -> None:
    async with serving_metrics([service.metrics], None, 1) as address:
        assert address is None


async def test_the_port_is_free_after_the_stop(service: Service) -> None:
    async with serving_metrics([service.metrics], ANY, 1) as address:
        assert address is not None
        assert (await fetch(address, "/health"))[0] == 200
    async with serving_metrics([service.metrics], address, 1):
        assert (await fetch(address, "/health"))[0] == 200


def connect(server: MetricsServer) -> socket.socket:
    assert server.address is not None
    return socket.create_connection((server.address.host, server.address.port), timeout=10)


async def closed(connection: socket.socket) -> None:
    """Returns when the server has closed it."""
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(10):
        try:
            while await loop.sock_recv(connection, 4096):
                pass
        except ConnectionResetError:
            pass


RUBBISH = {
    "nothing": b"",
    "no HTTP": b"\x00\xff\r\n\r\n",
    "a long header": b"GET /metrics HTTP/1.1\r\nA: " + b"b" * 100_000,
    "all bytes": bytes(range(256)) * 20,
}


@pytest.mark.parametrize("rubbish", RUBBISH)
async def test_rubbish_does_no_harm(start: Start, rubbish: str, capfd: pytest.CaptureFixture[str]) -> None:
    server = start()
    with connect(server) as connection:
        with suppress(OSError):  # it may close before it has read all
            connection.sendall(RUBBISH[rubbish])
            connection.shutdown(socket.SHUT_WR)
        await closed(connection)
    assert await fetch(server.address, "/health") == (200, "ok\n")
    assert "Traceback" not in capfd.readouterr().err


async def test_who_says_nothing_is_sent_away(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http._Handler, "timeout", 0.1)  # pyright: ignore[reportPrivateUsage]
    with connect(start()) as connection:
        await closed(connection)


async def test_who_talks_too_slowly_is_sent_away(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "CONNECTION_TIMEOUT_S", 0.3)
    server = start()
    with connect(server) as connection:
        closing = asyncio.create_task(closed(connection))
        with suppress(BrokenPipeError, ConnectionResetError):
            while not closing.done():
                await asyncio.sleep(0.05)
                connection.send(b"A")
        await closing
    assert await fetch(server.address, "/health") == (200, "ok\n")


async def test_there_is_a_limit_to_connections(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_CONNECTIONS", 4)
    monkeypatch.setattr(http, "CONNECTION_TIMEOUT_S", 1.0)
    server = start()
    silent = [connect(server) for _ in range(4)]
    with connect(server) as too_many:
        await closed(too_many)
    for each in silent:
        await closed(each)
        each.close()
    assert await fetch(server.address, "/health") == (200, "ok\n")


async def test_a_request_under_way_does_not_hold_up_the_stop(service: Service, start: Start) -> None:
    forever = asyncio.Event()
    asked = asyncio.Event()

    async def collect() -> Iterable[Family]:
        asked.set()
        await forever.wait()
        return []

    service.collect = collect
    server = start()
    with connect(server) as connection:
        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        await asyncio.wait_for(asked.wait(), 5)
        server.stop()
        forever.set()
        await closed(connection)


def test_the_name_of_a_node() -> None:
    assert node_id(HostPort("127.0.0.1", 8081)) == "127.0.0.1:8081"
    assert node_id(HostPort("0.0.0.0", 8081)) == f"{socket.gethostname()}:8081"
