"""One participant's turn in a round: its servers start on an empty folder, do all the work, and end."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import load_program
from benchmarks.rivals.applications.work import Order
from benchmarks.rivals.calibration import calibrate
from benchmarks.rivals.results import BODY_BYTES, Sample
from benchmarks.rivals.running import Host, RunningApplication
from benchmarks.rivals.system import GROUP, Memory, Participant, Servers

RATE_PER_S = 100
IN_FLIGHT = 64
COMPILED_BATCH = 32
_RECEIVERS = 16
_SETTLED_S = 2.0
_WARMUP_S = 1.0
"""Of all but the first piece of work, which has the participant's own."""
_SLACK_S = 60.0
"""What a piece of work may take beyond its planned time."""
_MIB = 1024 * 1024
_LEAST_BACKLOG = 2000
_SHARE_OF_BACKLOG = 0.95
"""The end of a backlog is another matter: fewer messages an answer, receivers with nothing to do."""
_DRAINED_PER_S = 8000
_WARMUP_DRAINED = 100 * COMPILED_BATCH


@dataclass(frozen=True)
class Plan:
    round: int
    seconds: float
    sizes: Sequence[int]


class Turn:
    def __init__(self, plan: Plan, participant: Participant, servers: Servers, host: Host) -> None:
        self._plan = plan
        self._participant = participant
        self._servers = servers
        self._host = host
        self._most = Memory(0, 0)

    def samples(self) -> Iterator[Sample]:
        """Raises ProcessError as soon as a server or an application has ended, TimeoutError."""
        self._servers.prepare()
        yield self._start()
        time.sleep(_SETTLED_S)
        idle = self._servers.memory_bytes()
        if self._participant.compiled:
            yield from self._compiled()
        published: dict[int, Sample] = {}
        for size in self._plan.sizes:
            yield (sample := self._publish(size))
            published[size] = sample
        yield self._one_at_a_time()
        consumed: dict[int, Sample] = {}
        for size in self._plan.sizes:
            yield (sample := self._consume(size, int(published[size].values["all"])))
            consumed[size] = sample
        yield self._latency("latency", RATE_PER_S)
        publish_per_s, consume_per_s = (each[self._main_size].values["per_s"] for each in (published, consumed))
        yield self._latency("latency_half", half_of_maximum(publish_per_s, consume_per_s))
        yield self._sample("memory", self._memory(idle))

    @property
    def _main_size(self) -> int:
        return BODY_BYTES if BODY_BYTES in self._plan.sizes else self._plan.sizes[0]

    def _start(self) -> Sample:
        """From the start of the servers to the first message at an application that was loaded before."""
        beside = self._calibrate()
        with RunningApplication(self._host, self._servers) as application:
            began = time.monotonic()
            self._servers.start()
            self._servers.create_topics(["first"])
            ready_s = time.monotonic() - began
            application.begin(self._order("first", "first"))
            at_s = application.result(_SLACK_S)["at_s"]
        self._servers.create_topics(self._topics())
        self._work(self._order("create_topics", *self._topics()), 0)
        return self._sample("start", {"start_s": at_s - began, "ready_s": ready_s}, beside)

    def _publish(self, size: int) -> Sample:
        warmup_s = self._participant.warmup_s if size == self._plan.sizes[0] else _WARMUP_S
        changes = {"body_bytes": size, "seconds": self._plan.seconds, "warmup_s": warmup_s}
        return self._measured("publish", self._order("publish", f"publish-{size}", **changes), size)

    def _one_at_a_time(self) -> Sample:
        return self._measured("one", self._order("one", "one", seconds=self._plan.seconds, warmup_s=_WARMUP_S))

    def _consume(self, size: int, backlog: int) -> Sample:
        if (missing := _LEAST_BACKLOG - backlog) > 0:
            self._work(self._order("fill", f"publish-{size}", body_bytes=size, messages=missing), self._plan.seconds)
            backlog += missing
        order = self._order(
            "consume",
            f"publish-{size}",
            body_bytes=size,
            seconds=self._plan.seconds,
            messages=int(backlog * _SHARE_OF_BACKLOG),
        )
        return self._measured("consume", order, size)

    def _latency(self, measure: str, rate_per_s: float) -> Sample:
        """Sender and receiver are two applications, on the one core that is the load's."""
        messages = int(rate_per_s * (_WARMUP_S + self._plan.seconds))
        changes = {"rate_per_s": rate_per_s, "messages": messages, "warmup_s": _WARMUP_S}
        timeout_s = self._plan.seconds + _SLACK_S
        beside = self._calibrate()
        with (
            RunningApplication(self._host, self._servers) as receiver,
            RunningApplication(self._host, self._servers) as sender,
        ):
            receiver.begin(self._order("receive_on_time", measure, **changes))
            receiver.wait_connected(_SLACK_S)
            sender.begin(self._order("send_on_time", measure, **changes))
            sent = sender.result(timeout_s)
            values = receiver.result(timeout_s)
        values["client_busy"] += sent["client_busy"]
        return self._sample(measure, {**values, "rate_per_s": rate_per_s}, beside)

    def _compiled(self) -> Iterator[Sample]:
        window = {"seconds": self._plan.seconds, "warmup_seconds": self._participant.warmup_s}
        yield self._compiled_send("unary", 1, window)
        yield self._compiled_send("batched", COMPILED_BATCH, {**window, "warmup_seconds": _WARMUP_S})
        yield self._compiled_drain(int(self._plan.seconds * _DRAINED_PER_S) // COMPILED_BATCH * COMPILED_BATCH)
        beside = self._calibrate()
        rate = {"rate": RATE_PER_S, "seconds": self._plan.seconds, "warmup_seconds": _WARMUP_S}
        result = self._load("latency", topic="compiled-latency", **rate)
        times = result["end_to_end_ms"]
        values = {"p50_ms": times["p50"], "p99_ms": times["p99"], "client_busy": result["cpu_share"]}
        yield self._sample("compiled_latency", values, beside)

    def _compiled_send(self, measure: str, batch: int, window: dict[str, Any]) -> Sample:
        beside = self._calibrate()
        meter = _ServerMeter(self._servers)
        result = self._load("send", topic="compiled-send", batch=batch, in_flight=IN_FLIGHT, **window)
        return self._sample(measure, _compiled_values(result) | meter.values(result["sent_with_warmup"]), beside)

    def _compiled_drain(self, backlog: int) -> Sample:
        for messages in (_WARMUP_DRAINED, backlog):
            self._load("send", topic="compiled-receive", batch=COMPILED_BATCH, in_flight=IN_FLIGHT, messages=messages)
            beside = self._calibrate()
            meter = _ServerMeter(self._servers)
            result = self._load(
                "receive", topic="compiled-receive", batch=COMPILED_BATCH, in_flight=_RECEIVERS, messages=messages
            )
        return self._sample("receive", _compiled_values(result) | meter.values(messages), beside)

    def _load(self, mode: str, **flags: object) -> Any:
        """The compiled load program's result. Raises ProcessError, of the servers if it was they that ended."""
        address, folder = self._servers.compiled_address, self._servers.folder
        one_entry = self._host.system == "rocketmq"
        try:
            return load_program.run(mode, address, folder, group=GROUP, settings=True, one_entry=one_entry, **flags)
        finally:
            self._servers.check_alive()
            self._look_at_memory()

    def _measured(self, measure: str, order: Order, size: int = BODY_BYTES) -> Sample:
        beside = self._calibrate()
        meter = _ServerMeter(self._servers)
        values = self._work(order, order.seconds + order.warmup_s)
        return self._sample(measure, values | meter.values(values["all"]), beside, size)

    def _work(self, order: Order, planned_s: float) -> dict[str, float]:
        with RunningApplication(self._host, self._servers) as application:
            application.begin(order)
            values = application.result(planned_s + _SLACK_S)
            self._look_at_memory()
            return values

    def _look_at_memory(self) -> None:
        now = self._servers.memory_bytes()
        self._most = Memory(max(self._most.resident, now.resident), max(self._most.own, now.own))

    def _memory(self, idle: Memory) -> dict[str, float]:
        self._look_at_memory()
        sizes = {"idle": idle.resident, "idle_own": idle.own, "most": self._most.resident, "most_own": self._most.own}
        return {f"{name}_mib": size / _MIB for name, size in sizes.items()}

    def _order(self, work: str, *topics: str, **changes: Any) -> Order:
        return Order(work, self._servers.address, self._participant.door, topics, GROUP, **changes)

    def _topics(self) -> list[str]:
        """Each piece of work has one of its own, beside the first message's."""
        names = [*(f"publish-{size}" for size in self._plan.sizes), "one", "latency", "latency_half"]
        compiled = ["compiled-send", "compiled-receive", "compiled-latency"] if self._participant.compiled else []
        return names + compiled

    def _calibrate(self) -> dict[str, float]:
        return calibrate(self._servers.folder)

    def _sample(
        self, measure: str, values: dict[str, float], beside: dict[str, float] | None = None, size: int = BODY_BYTES
    ) -> Sample:
        return Sample(self._plan.round, self._participant.name, measure, values, beside or {}, size)


class _ServerMeter:
    """CPU time of the servers, from when it is made."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._cpu_s = servers.cpu_s()
        self._began = time.monotonic()

    def values(self, messages: float) -> dict[str, float]:
        cpu_s = self._servers.cpu_s() - self._cpu_s
        return {
            "server_cpu_s_per_million": cpu_s / messages * 1e6,
            "server_busy": cpu_s / (time.monotonic() - self._began),
        }


def half_of_maximum(publish_per_s: float, consume_per_s: float) -> float:
    """Half of what could be published and consumed at the same time, by the same cores."""
    return 1 / (1 / publish_per_s + 1 / consume_per_s) / 2


def _compiled_values(result: Any) -> dict[str, float]:
    return {"per_s": result["messages_per_s"], "client_busy": result["cpu_share"]}


def run_turn(
    plan: Plan, participant: Participant, host: Host, make_servers: Callable[[Path], Servers]
) -> Iterator[Sample]:
    with make_servers(host.folder / "servers") as servers:
        yield from Turn(plan, participant, servers, host).samples()
