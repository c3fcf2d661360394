"""What a service shows, fetched as Prometheus fetches it."""

import asyncio
import http.client
from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families

from kourou_service.listener import HostPort

TIMEOUT_S = 10


async def fetch(address: HostPort | None, path: str, method: str = "GET") -> tuple[int, str]:
    """Status and body."""
    assert address is not None
    where = address

    def get() -> tuple[int, str]:
        connection = http.client.HTTPConnection(where.host, where.port, timeout=TIMEOUT_S)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    return await asyncio.to_thread(get)


class Shown:
    """The samples of /metrics."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        kept = [(sample.name, tuple(sorted(sample.labels.items()))) for sample in self._samples]
        assert len(set(kept)) == len(kept), "a series is shown twice"

    def labels(self, name: str) -> list[dict[str, str]]:
        return [sample.labels for sample in self._samples if sample.name == name]

    def sum(self, name: str, **labels: str) -> float:
        """Of all series with these labels; at least one."""
        found = [
            sample.value for sample in self._samples if sample.name == name and labels.items() <= sample.labels.items()
        ]
        assert found, f"{name} {labels} is not shown:\n{self.text}"
        return sum(found)


async def scrape(address: HostPort | None) -> Shown:
    status, text = await fetch(address, "/metrics")
    assert status == 200, text
    return Shown(text)


async def scrape_until(address: HostPort | None, condition: Callable[[Shown], bool]) -> Shown:
    """What is shown once the condition holds; TimeoutError if it never does."""
    async with asyncio.timeout(TIMEOUT_S):
        while not condition(page := await scrape(address)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return page
