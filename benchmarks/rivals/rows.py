"""The figures that are shown, in their order: what each is called, its unit, and which way is better."""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.rivals.results import BODY_BYTES, Results


@dataclass(frozen=True)
class Row:
    title: str
    measure: str
    value: str
    unit: str
    more_is_better: bool = False
    per_size: bool = False
    """It is measured for every size of a body."""


ROWS = (
    Row("publish, many under way", "publish", "per_s", "messages/s", more_is_better=True, per_size=True),
    Row("server CPU of a million published", "publish", "server_cpu_s_per_million", "s", per_size=True),
    Row("publish, one at a time: 50 %", "one", "p50_ms", "ms"),
    Row("publish, one at a time: 99 %", "one", "p99_ms", "ms"),
    Row("consume and acknowledge", "consume", "per_s", "messages/s", more_is_better=True, per_size=True),
    Row("server CPU of a million consumed", "consume", "server_cpu_s_per_million", "s", per_size=True),
    Row("end to end at 100/s: 50 %", "latency", "p50_ms", "ms"),
    Row("end to end at 100/s: 99 %", "latency", "p99_ms", "ms"),
    Row("end to end at half the maximum: 50 %", "latency_half", "p50_ms", "ms"),
    Row("end to end at half the maximum: 99 %", "latency_half", "p99_ms", "ms"),
    Row("half the maximum was", "latency_half", "rate_per_s", "messages/s", more_is_better=True),
    Row("memory of the servers, idle", "memory", "idle_mib", "MiB"),
    Row("memory of the servers, most", "memory", "most_mib", "MiB"),
    Row("the same without mapped files", "memory", "most_own_mib", "MiB"),
    Row("start to first message", "start", "start_s", "s"),
    Row("load program, compatible door: one a call", "unary", "per_s", "messages/s", more_is_better=True),
    Row("load program, compatible door: 32 a call", "batched", "per_s", "messages/s", more_is_better=True),
    Row("load program, compatible door: receive + ack", "receive", "per_s", "messages/s", more_is_better=True),
    Row("load program, end to end at 100/s: 50 %", "compiled_latency", "p50_ms", "ms"),
    Row("load program, end to end at 100/s: 99 %", "compiled_latency", "p99_ms", "ms"),
)


def rows_with_sizes(results: Results) -> Iterator[tuple[Row, int, str]]:
    """-> the row, the size of its bodies, its title with that size. Only those of which there is a figure."""
    for row in ROWS:
        for size in results.sizes(row.measure, row.value):
            size_named = f" ({size_name(size)})" if row.per_size or size != BODY_BYTES else ""
            yield row, size, row.title + size_named


def size_name(size: int) -> str:
    return f"{size // 1024} KiB" if size % 1024 == 0 else f"{size} B"


def number(value: float) -> str:
    """With as many digits as mean something."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
