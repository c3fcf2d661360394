"""The broker's metrics after known actions: names, labels and numbers."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2, service_rpc
from kourou_broker.metrics import collectors
from kourou_service.metrics.family import Family
from kourou_service.metrics.histogram import Histogram
from tests.simulation.direct import CallFailed
from tests.unit.broker.alone import MIB, Broker, handle, message, settings_command, simulated

Labels = Mapping[str, str]


@dataclass
class Link:
    """kourou_broker.registration.NamesrvLink."""

    address: str
    accepted: bool
    heartbeats: int


class Shown:
    def __init__(self, families: list[Family]) -> None:
        self._families = {family.name: family for family in families}
        assert len(self._families) == len(families), "a name twice"

    def all(self, name: str) -> Iterator[tuple[Labels, Any]]:
        """Each series: its labels and its value."""
        family = self._families[name]
        for values, value in family.rows:
            yield dict(zip(family.labels, values, strict=True)), value

    def __call__(self, name: str, **labels: str) -> Any:
        """The value of the one series whose labels are exactly these."""
        [value] = [value for found, value in self.all(name) if found == labels]
        return value


async def shown(broker: Broker, *links: Link) -> Shown:
    collects = collectors(broker.core, broker.shard.settings, broker.shard.clock, lambda: links)  # type: ignore[arg-type, return-value]
    return Shown([family for collect in collects for family in await collect()])


TOPIC = {"topic": "orders", "message_type": "normal", "is_system": "false"}
GROUP = {"topic": "orders", "consumer_group": "team"}
KIND = {"is_system": "false", "is_retry": "false"}
DISK = {"storage_type": "local", "storage_medium": "disk"}


@simulated
async def test_messages() -> None:
    broker = await Broker.started(group={"max_attempts": 2})
    await broker.put_topic("quiet")
    await broker.send(message(b"x" * 100, "a"), message(b"x" * 2000, "b"))
    await broker.ack((await broker.receive(batch_size=1))[0])
    (again,) = await broker.receive(invisible_s=1)
    (again,) = await broker.receive(wait_s=5)
    await broker.forward(handle(again))
    await broker.send(message(b""))
    figures = await shown(broker)

    assert figures("rocketmq_messages_in_total", **TOPIC) == 2
    assert 2100 < figures("rocketmq_throughput_in_total", **TOPIC) < 2300
    sizes: Histogram = figures("rocketmq_message_size", **TOPIC)
    assert (sizes.counts, sizes.sum) == ([1, 1, 0, 0, 0, 0, 0], figures("rocketmq_throughput_in_total", **TOPIC))
    assert figures("rocketmq_messages_in_total", **{**TOPIC, "topic": "quiet"}) == 0
    assert figures("rocketmq_messages_in_total", **{**TOPIC, "topic": "%DLQ%team"}) == 1
    assert figures("rocketmq_messages_out_total", **GROUP, **KIND) == 3
    assert 4100 < figures("rocketmq_throughput_out_total", **GROUP, **KIND) < 4500
    assert figures("rocketmq_send_to_dlq_messages_total", **GROUP, is_system="false") == 1
    assert figures("kourou_acknowledged_messages_total", **GROUP) == 1
    assert figures("kourou_redelivered_messages_total", **GROUP) == 1
    assert figures("kourou_refused_sends_total", reason="MESSAGE_BODY_EMPTY") == 1


@simulated
async def test_backlog() -> None:
    broker = await Broker.started(max_pending_messages=2)
    await broker.send_ids("a", "b", "c")
    await asyncio.sleep(5)
    await broker.receive(batch_size=2, invisible_s=3)
    await broker.receive(batch_size=2, wait_s=0)
    await asyncio.sleep(5)
    (held,) = await broker.receive(batch_size=1, invisible_s=100)
    assert held.system_properties.queue_offset == 0
    figures = await shown(broker)

    assert figures("rocketmq_consumer_lag_messages", **GROUP, **KIND) == 3
    assert figures("rocketmq_consumer_inflight_messages", **GROUP, **KIND) == 1
    assert figures("rocketmq_consumer_ready_messages", **GROUP, **KIND) == 2
    for latency in ("lag", "queueing"):
        age_ms = figures(f"rocketmq_consumer_{latency}_latency_milliseconds", **GROUP, **KIND)
        assert 10_000 <= age_ms < 10_200
    assert 10 <= figures("kourou_oldest_waiting_message_seconds", **GROUP) < 10.2
    assert figures("kourou_queues_at_pending_limit") == 1


@simulated
async def test_nothing_waits_for_a_group_that_is_done() -> None:
    broker = await Broker.started()
    await broker.send_ids("a")
    await broker.ack(*await broker.receive())
    figures = await shown(broker)
    for name in ("lag_messages", "ready_messages", "lag_latency_milliseconds", "queueing_latency_milliseconds"):
        assert figures(f"rocketmq_consumer_{name}", **GROUP, **KIND) == 0


@simulated
async def test_dead_letters_and_system_topics_are_told_apart() -> None:
    broker = await Broker.started(group={"max_attempts": 1})
    await broker.put_topic("rmq_sys_trace")
    await broker.send_ids("a")
    await broker.send_ids("b", topic="rmq_sys_trace")
    (received,) = await broker.receive()
    await broker.forward(handle(received))
    await broker.receive(topic="%DLQ%team")
    await broker.receive(topic="rmq_sys_trace")
    figures = await shown(broker)

    name = "rocketmq_consumer_lag_messages"
    dead = {"topic": "%DLQ%team", "consumer_group": "team", "is_system": "false", "is_retry": "true"}
    system = {"topic": "rmq_sys_trace", "consumer_group": "team", "is_system": "true", "is_retry": "false"}
    assert figures(name, **dead) == figures(name, **system) == 1
    assert figures("rocketmq_messages_in_total", **{**TOPIC, "topic": "rmq_sys_trace", "is_system": "true"}) == 1


@simulated
async def test_the_log() -> None:
    broker = await Broker.started(disk_watermark_bytes=12345)
    log = broker.core.log
    before = await shown(broker)
    await broker.send_ids("a")
    await asyncio.sleep(10)
    broker.core.scrubbing.damaged.update((0, 4096))
    figures = await shown(broker)

    grown = log.next_position - before("kourou_log_next_position_bytes")
    assert grown > 100
    assert figures("kourou_log_appended_bytes_total") - before("kourou_log_appended_bytes_total") == grown
    assert figures("kourou_log_frames_total") - before("kourou_log_frames_total") == 2, "the message, and the idle mark"
    assert figures("kourou_log_groups_total") - before("kourou_log_groups_total") == 2
    syncs: Histogram = figures("kourou_log_sync_seconds")
    assert syncs.count == figures("kourou_log_groups_total")
    assert syncs.sum >= 0
    assert figures("kourou_log_next_position_bytes") == figures("kourou_log_durable_position_bytes")
    assert figures("rocketmq_storage_size_bytes", **DISK) == log.next_position
    assert figures("rocketmq_storage_flush_behind_bytes", **DISK) == figures("kourou_log_waiting_bytes") == 0
    age_ms = figures("rocketmq_storage_message_reserve_time_milliseconds", **DISK)
    assert 10_000 <= age_ms < 11_000
    assert figures("kourou_snapshot_age_seconds") == age_ms / 1000, "there is none yet"
    assert figures("kourou_log_segments") == 1
    assert figures("kourou_recovery_seconds") >= 0
    assert figures("kourou_scrub_faults_total") == 2


@simulated
async def test_what_waits_for_the_disk() -> None:
    broker = await Broker.started()
    broker.shard.max_sync_s = 60.0
    sending = asyncio.ensure_future(broker.send(message(bytes(5000))))
    await asyncio.sleep(0.1)
    figures = await shown(broker)
    behind = figures("rocketmq_storage_flush_behind_bytes", **DISK)
    assert 5000 < behind < 6000
    assert figures("kourou_log_waiting_bytes") == behind
    assert figures("kourou_log_next_position_bytes") - figures("kourou_log_durable_position_bytes") == behind
    await sending


@simulated
async def test_the_disk() -> None:
    broker = await Broker.started(disk_watermark_bytes=MIB)
    disk = broker.shard.disk
    disk.capacity_bytes = disk.used_bytes() + 10 * MIB
    await asyncio.sleep(2)
    figures = await shown(broker)
    assert 8 * MIB < figures("kourou_disk_free_bytes") <= 10 * MIB
    assert figures("kourou_disk_size_bytes") == disk.capacity_bytes
    assert figures("kourou_disk_watermark_bytes") == MIB
    assert figures("kourou_disk_writable") == 1
    disk.capacity_bytes = disk.used_bytes() + 500
    await asyncio.sleep(2)
    figures = await shown(broker)
    assert figures("kourou_disk_free_bytes") == 500
    assert figures("kourou_disk_writable") == 0


@simulated
async def test_a_snapshot_is_as_old_as_what_came_after_it() -> None:
    broker = await Broker.started(segment_bytes=16 * 1024, snapshot_every_bytes=16 * 1024, retention_interval_s=1e6)
    for number in range(40):
        await broker.send(message(bytes(1000), f"m{number}"))
        await asyncio.sleep(1)
    assert 40 <= (await shown(broker))("kourou_snapshot_age_seconds") < 42
    await broker.shard.process.start(broker.core.check_retention())
    assert 2 < (await shown(broker))("kourou_snapshot_age_seconds") < 15


@simulated
async def test_clients() -> None:
    broker = await Broker.started()
    await broker.put_group("other")
    broker.connect("push")
    broker.connect("simple", definition_pb2.SIMPLE_CONSUMER, group="other")
    stream = broker.connect("producer", definition_pb2.PRODUCER)
    command = settings_command(definition_pb2.PRODUCER, "", ("orders",))
    command.settings.user_agent.CopyFrom(definition_pb2.UA(language=definition_pb2.GOLANG, version="5.1.0"))
    stream.requests.put_nowait(command.SerializeToString())
    await asyncio.sleep(0.1)
    await broker.send(message(), client="shy")
    figures = await shown(broker)

    golang = {"language": "golang", "version": "5.1.0", "protocol_type": "grpc"}
    assert figures("rocketmq_producer_connections", **golang) == 1
    unknown = {"language": "language_unspecified", "version": "", "protocol_type": "grpc"}
    consumption = {"is_system": "false", "consumer_group": "team", "consume_mode": "push"}
    assert figures("rocketmq_consumer_connections", **unknown, **consumption) == 1
    consumption = {"is_system": "false", "consumer_group": "other", "consume_mode": "pull"}
    assert figures("rocketmq_consumer_connections", **unknown, **consumption) == 1
    types = {labels["type"]: value for labels, value in figures.all("kourou_clients")}
    assert types == {"producer": 1, "push_consumer": 1, "simple_consumer": 1, "pull_consumer": 0, "unspecified": 1}


@simulated
async def test_who_waits() -> None:
    broker = await Broker.started()
    polls = [
        asyncio.ensure_future(broker.receive(wait_s=10, client="one")),
        asyncio.ensure_future(broker.receive(wait_s=10, client="two")),
        asyncio.ensure_future(broker.pull(wait_s=10)),
    ]
    await asyncio.sleep(1)
    assert (await shown(broker))("kourou_parked_polls") == 3
    await asyncio.gather(*polls)
    assert (await shown(broker))("kourou_parked_polls") == 0


@simulated
async def test_the_broker_itself() -> None:
    broker = await Broker.started()
    broker.core.state.broker.known_brokers.extend(("broker-a", "broker-b"))
    await broker.put_topic("bad name!")
    figures = await shown(broker, Link("one:9876", True, 3), Link("two:9876", False, 0))

    assert figures("rocketmq_broker_permission") == 6
    assert figures("rocketmq_topic_number") == figures("rocketmq_consumer_group_number") == 1
    created = "rocketmq_topic_create_execution_time_milliseconds"
    assert figures(created, invocation_status="success", is_system="false").count == 1
    assert figures(created, invocation_status="failure", is_system="false").count == 1
    assert figures(created, invocation_status="success", is_system="true").count == 0
    grouped = "rocketmq_consumer_group_create_execution_time_milliseconds"
    assert figures(grouped, invocation_status="success").count == 1
    assert figures("kourou_namesrv_connected", namesrv="one:9876") == 1
    assert figures("kourou_namesrv_connected", namesrv="two:9876") == 0
    assert figures("kourou_heartbeats_sent_total", namesrv="one:9876") == 3
    assert figures("kourou_known_broker", broker="broker-b") == 1


@simulated
async def test_permissions_are_rocketmq_s_numbers() -> None:
    broker = await Broker.started()
    for permission, number in (("NONE", 0), ("WRITE", 2), ("READ", 4), ("READ_WRITE", 6)):
        broker.core.definitions.set_permission(definition_pb2.Permission.Value(permission))
        assert (await shown(broker))("rocketmq_broker_permission") == number


def calls(broker: Broker) -> dict[tuple[str, str, str], int]:
    """How many, by method, code and whether they waited."""
    family = broker.doors.meters.family()
    rows = [(dict(zip(family.labels, values, strict=True)), value) for values, value in family.rows]
    return {
        (labels["request_code"], labels["response_code"], labels["is_long_polling"]): value.count
        for labels, value in rows
        if isinstance(value, Histogram)
    }


@simulated
async def test_calls_are_timed_until_their_answer() -> None:
    broker = await Broker.started()
    broker.shard.max_sync_s = 1.0
    await broker.send_ids("a")
    await broker.send(message(b""))
    await broker.ack(*await broker.receive())
    await broker.ack_all("no handle")
    with pytest.raises(CallFailed):
        await broker.doors.raw(service_rpc.SEND_MESSAGE.path, b"\xff", {})
    with pytest.raises(CallFailed):
        await broker.doors.raw(service_rpc.ACK_MESSAGE.path, b"\xff", {})
    await broker.doors.call(service_rpc.END_TRANSACTION, service_pb2.EndTransactionRequest(), {})
    counted = calls(broker)
    for method in ("SendMessage", "AckMessage"):
        assert counted[method, "OK", "false"] == counted[method, "INVALID_ARGUMENT", "false"] == 1
    assert counted["SendMessage", "MESSAGE_BODY_EMPTY", "false"] == 1
    assert counted["AckMessage", "INVALID_RECEIPT_HANDLE", "false"] == 1
    assert counted["EndTransaction", "CLIENT_ID_REQUIRED", "false"] == 1


@simulated
async def test_polls_that_waited_are_told_apart() -> None:
    broker = await Broker.started()
    await broker.receive(wait_s=0)
    await broker.receive(wait_s=1)
    await broker.pull(wait_s=1)
    waiting = [asyncio.ensure_future(broker.receive(wait_s=10, batch_size=1)) for _ in range(2)]
    await asyncio.sleep(1)
    await broker.send_ids("a", "b", "c")
    await asyncio.gather(*waiting)
    await broker.receive(wait_s=10, batch_size=1)
    await broker.pull(wait_s=10)
    counted = calls(broker)
    assert counted["ReceiveMessage", "MESSAGE_NOT_FOUND", "false"] == 1
    assert counted["ReceiveMessage", "MESSAGE_NOT_FOUND", "true"] == 1
    assert counted["ReceiveMessage", "OK", "true"] == 2
    assert counted["ReceiveMessage", "OK", "false"] == 1
    assert counted["PullMessage", "MESSAGE_NOT_FOUND", "true"] == counted["PullMessage", "OK", "false"] == 1
