"""What a real broker shows at /metrics and /health while clients send, receive, acknowledge and fail."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from kourou import AsyncProducer, AsyncSimpleConsumer, Message, TopicNotFound
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2, service_rpc
from kourou_service.listener import HostPort
from tests.cluster.cluster import BrokerNode, Cluster
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually
from tests.unit.service.scraping import fetch

NODE = {"cluster": "kourou", "node_type": "broker", "node_id": "broker-a"}
INCOMING = {"topic", "message_type", "is_system"}
OWN = {"topic", "consumer_group"}
DEAD = OWN | {"is_system"}
KIND = DEAD | {"is_retry"}
CONNECTION = {"language", "version", "protocol_type"}
STORAGE = {"storage_type", "storage_medium"}
CREATION = {"invocation_status"}
CALL = {"protocol_type", "request_code", "response_code", "is_long_polling", "result"}

COUNTERS = {
    "rocketmq_messages_in_total": INCOMING,
    "rocketmq_throughput_in_total": INCOMING,
    "rocketmq_messages_out_total": KIND,
    "rocketmq_throughput_out_total": KIND,
    "rocketmq_send_to_dlq_messages_total": DEAD,
    "rocketmq_commit_messages_total": {"topic"},
    "rocketmq_rollback_messages_total": {"topic"},
    "rocketmq_timer_enqueue_total": {"topic"} | STORAGE,
    "rocketmq_timer_dequeue_total": {"topic"} | STORAGE,
    "kourou_transactions_given_up_total": {"topic"},
    "kourou_acknowledged_messages_total": OWN,
    "kourou_redelivered_messages_total": OWN,
    "kourou_refused_sends_total": {"reason"},
    "kourou_duplicate_sends_total": set[str](),
    "kourou_log_appended_bytes_total": set[str](),
    "kourou_log_frames_total": set[str](),
    "kourou_log_groups_total": set[str](),
    "kourou_heartbeats_sent_total": {"namesrv"},
    "kourou_scrub_faults_total": set[str](),
    "kourou_log_messages_total": {"level"},
}
GAUGES = {
    "kourou_dedup_window_seconds": set[str](),
    "kourou_group_differing_subscriptions": {"consumer_group"},
    "rocketmq_consumer_lag_messages": KIND,
    "rocketmq_consumer_ready_messages": KIND,
    "rocketmq_consumer_inflight_messages": KIND,
    "rocketmq_consumer_lag_latency_milliseconds": KIND,
    "rocketmq_consumer_queueing_latency_milliseconds": KIND,
    "kourou_oldest_waiting_message_seconds": OWN,
    "rocketmq_producer_connections": CONNECTION,
    "rocketmq_consumer_connections": CONNECTION | {"consumer_group", "consume_mode", "is_system"},
    "rocketmq_broker_permission": set[str](),
    "rocketmq_topic_number": set[str](),
    "rocketmq_lmq_number": set[str](),
    "rocketmq_consumer_group_number": set[str](),
    "rocketmq_storage_size_bytes": STORAGE,
    "rocketmq_storage_flush_behind_bytes": STORAGE,
    "rocketmq_storage_dispatch_behind_bytes": STORAGE,
    "rocketmq_storage_message_reserve_time_milliseconds": STORAGE,
    "rocketmq_processor_watermark": {"processor"},
    "kourou_log_next_position_bytes": set[str](),
    "kourou_log_durable_position_bytes": set[str](),
    "kourou_log_segments": set[str](),
    "kourou_log_waiting_bytes": set[str](),
    "kourou_disk_free_bytes": set[str](),
    "kourou_disk_size_bytes": set[str](),
    "kourou_disk_watermark_bytes": set[str](),
    "kourou_disk_writable": set[str](),
    "kourou_clients": {"type"},
    "kourou_parked_polls": set[str](),
    "kourou_queues_at_pending_limit": set[str](),
    "kourou_snapshot_age_seconds": set[str](),
    "rocketmq_half_messages": {"topic"},
    "rocketmq_timing_messages": {"topic"} | STORAGE,
    "rocketmq_timer_message_snapshot": {"timer_bound_s"} | STORAGE,
    "rocketmq_timer_dequeue_lag": STORAGE,
    "rocketmq_timer_dequeue_latency_milliseconds": STORAGE,
    "kourou_recovery_seconds": set[str](),
    "kourou_namesrv_connected": {"namesrv"},
    "kourou_known_broker": {"broker"},
    "kourou_metrics_folded_series": set[str](),
    "kourou_build_info": {"version", "engine", "python"},
}
HISTOGRAMS = {
    "rocketmq_message_size": INCOMING,
    "rocketmq_finish_message_latency_milliseconds": {"topic"},
    "rocketmq_delay_message_latency_seconds": {"topic"} | STORAGE,
    "rocketmq_topic_create_execution_time_milliseconds": CREATION | {"is_system"},
    "rocketmq_consumer_group_create_execution_time_milliseconds": CREATION,
    "rocketmq_rpc_latency_milliseconds": CALL,
    "kourou_log_sync_seconds": set[str](),
    "kourou_event_loop_lag_seconds": set[str](),
}


UNKNOWN = v2.Message(
    topic=v2.Resource(name="nobody-knows-it"), body=b"x", system_properties=v2.SystemProperties(message_id="0" * 32)
)


class Page:
    """What the broker shows, as Prometheus understands it."""

    def __init__(self, text: str) -> None:
        self.families: dict[str, Metric] = {}
        self._samples: dict[str, list[tuple[Mapping[str, str], float]]] = {}
        for family in text_string_to_metric_families(text):
            self.families[family.name] = family
            for sample in family.samples:
                assert sample.labels.items() >= NODE.items(), sample
                own = {name: value for name, value in sample.labels.items() if name not in NODE}
                self._samples.setdefault(sample.name, []).append((own, sample.value))

    def labels(self, name: str) -> list[set[str]]:
        """Of each sample, without those of the node."""
        return [set(labels) for labels, _value in self._samples.get(name, ())]

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of all samples with these labels, of which there is one at least."""
        found = [value for own, value in self._samples.get(name, ()) if own.items() >= labels.items()]
        assert found, f"{name} {labels} is not there: {self._samples.get(name)}"
        return sum(found)


async def page(broker: BrokerNode) -> Page:
    status, text = await fetch(metrics_address(broker), "/metrics")
    assert status == 200, text
    return Page(text)


def metrics_address(broker: BrokerNode) -> HostPort:
    [said] = [json.loads(line)["metrics"] for line in broker.output.splitlines() if '"broker serves"' in line]
    return HostPort.parse(said)


@pytest.fixture
async def busy(cluster: Cluster, operator: Operator, name: str) -> AsyncIterator[BrokerNode]:
    """broker-a, where of three messages one is acknowledged, one is lent, and one has become a dead letter."""
    broker = cluster.broker("broker-a")
    await operator.create_topic(name, queues=1, brokers=["broker-a"])
    for held, type_ in (("later", v2.DELAY), ("payments", v2.TRANSACTION)):
        await operator.create_topic(f"{name}-{held}", queues=1, message_type=type_, brokers=["broker-a"])
    await operator.create_group(name, max_attempts=2)
    async with AsyncExitStack() as stack:
        producer = await stack.enter_async_context(AsyncProducer(cluster.namesrv))
        await producer.send_many([Message(name, body) for body in (b"x" * 100, b"x" * 2000, b"x" * 5000)])
        consumer = await stack.enter_async_context(AsyncSimpleConsumer(name, {name: "*"}, cluster.namesrv))
        first, second, _third = await consumer.receive(wait_s=5, invisible_duration_s=600)
        await consumer.ack(first)
        await consumer.change_invisible_duration(second, 0)
        [second] = await consumer.receive(wait_s=5, invisible_duration_s=600)
        await consumer.change_invisible_duration(second, 0)
        assert await consumer.receive(wait_s=1) == []
        yield broker


async def test_every_metric_is_there_with_its_type_and_labels(busy: BrokerNode, operator: Operator) -> None:
    with pytest.raises(TopicNotFound):
        await operator.ask(busy.address, service_rpc.SEND_MESSAGE, service_pb2.SendMessageRequest(messages=[UNKNOWN]))
    shown = await page(busy)
    for kind, metrics in (("counter", COUNTERS), ("gauge", GAUGES), ("histogram", HISTOGRAMS)):
        for name, labels in metrics.items():
            assert shown.families[name.removesuffix("_total") if kind == "counter" else name].type == kind, name
            of_samples = shown.labels(f"{name}_count" if kind == "histogram" else name)
            assert of_samples, f"{name} has no sample"
            assert all(each == labels for each in of_samples), (name, of_samples)
    for name in ("process_cpu_seconds", "process_resident_memory_bytes", "process_open_fds"):
        assert name in shown.families
    assert shown("kourou_refused_sends_total", reason="TOPIC_NOT_FOUND") >= 1


async def test_messages_are_counted_where_they_went(busy: BrokerNode, name: str) -> None:
    shown = await page(busy)
    group = {"topic": name, "consumer_group": name}
    kind = {**group, "is_system": "false", "is_retry": "false"}
    assert shown("rocketmq_messages_in_total", topic=name, message_type="normal", is_system="false") == 3
    assert 7100 < shown("rocketmq_throughput_in_total", topic=name) < 7700
    assert shown("rocketmq_message_size_count", topic=name) == 3
    assert shown("rocketmq_message_size_bucket", topic=name, le="1024.0") == 1
    assert shown("rocketmq_message_size_bucket", topic=name, le="4096.0") == 2
    assert shown("rocketmq_messages_in_total", topic=f"%DLQ%{name}") == 1
    assert shown("rocketmq_messages_out_total", **kind) == 4
    assert shown("kourou_redelivered_messages_total", **group) == 1
    assert shown("kourou_acknowledged_messages_total", **group) == 1
    assert shown("rocketmq_send_to_dlq_messages_total", **group) == 1
    assert shown("rocketmq_consumer_lag_messages", **kind) == shown("rocketmq_consumer_inflight_messages", **kind) == 1
    assert shown("rocketmq_consumer_ready_messages", **kind) == 0
    assert shown("rocketmq_consumer_lag_latency_milliseconds", **kind) > 0
    assert shown("rocketmq_consumer_queueing_latency_milliseconds", **kind) == 0
    assert shown("kourou_oldest_waiting_message_seconds", **group) > 0


async def test_clients_calls_and_syncs_are_counted(busy: BrokerNode, name: str) -> None:
    shown = await page(busy)
    consumer = {"language": "python", "protocol_type": "grpc", "consumer_group": name, "consume_mode": "pull"}
    assert shown("rocketmq_consumer_connections", **consumer, is_system="false") == 1
    assert shown("rocketmq_producer_connections", language="python") >= 1
    assert shown("kourou_clients", type="simple_consumer") >= 1
    assert shown("kourou_log_sync_seconds_count") > 0
    assert shown("kourou_log_sync_seconds_sum") > 0
    calls = "rocketmq_rpc_latency_milliseconds_count"
    for method in ("Publish", "Consume", "PutTopic"):
        assert shown(calls, request_code=method, response_code="OK", is_long_polling="false", result="success") >= 1
    nothing = {"request_code": "Consume", "response_code": "MESSAGE_NOT_FOUND", "result": "success"}
    assert shown(calls, **nothing, is_long_polling="true") >= 1
    took_ms = shown("rocketmq_rpc_latency_milliseconds_sum", request_code="Publish", response_code="OK")
    assert took_ms > 0, "a send takes as long as the disk does"


async def test_the_broker_knows_its_neighbours(cluster: Cluster) -> None:
    broker = cluster.broker("broker-a")

    async def met() -> bool:
        return len((await page(broker)).labels("kourou_known_broker")) == len(cluster.brokers)

    await eventually(met, 30, what="the brokers know each other")
    shown = await page(broker)
    for node in cluster.brokers:
        assert shown("kourou_known_broker", broker=node.name) == 1
    for namesrv in cluster.namesrvs:
        assert shown("kourou_namesrv_connected", namesrv=namesrv.for_brokers) == 1
    assert shown("rocketmq_broker_permission") == 6
    assert shown("kourou_disk_writable") == 1
    assert 0 < shown("kourou_disk_free_bytes") < shown("kourou_disk_size_bytes")
    assert await fetch(metrics_address(broker), "/health") == (200, "ok\n")
