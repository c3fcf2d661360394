"""How late delayed messages come, and what a million of them cost: memory, a restart with them, and what others notice
when all of them fire."""

import time

from benchmarks.bench import Bench
from benchmarks.figure import Figure
from benchmarks.lateness import lateness
from benchmarks.servers import Broker, Cluster, call, calls, check, send_one, wait_serving
from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2, service_rpc
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc

TOPIC, OTHER = "bench-delayed", "bench"
MESSAGES = 1_000_000
BATCH = 4000
PENDING_S = 240
"""From the first send until all fall due, in the same second."""
FIRED_WITHIN_S = 600
MIB = 1024 * 1024


def delayed(bench: Bench) -> list[Figure]:
    with Cluster(bench.folder / "cluster") as cluster:
        cluster.wait_ready()
        late = lateness(cluster)
        broker = cluster.broker
        broker.put_topics([OTHER])
        broker.put_topics([TOPIC], definition_pb2.DELAY)
        send_one(broker.address, OTHER)
        before = broker.process.rss_bytes()
        due_ms = int((time.time() + PENDING_S) * 1000)
        _send(broker, due_ms)
        _check_pending(broker)
        grown = (broker.process.rss_bytes() - before) / MIB
        broker.process.kill()
        began = time.monotonic()
        broker.start()
        wait_serving(broker.address, broker.process)
        restart_s = time.monotonic() - began
        _check_pending(broker)
        restarted = (broker.process.rss_bytes() - before) / MIB
        time.sleep(max(0.0, due_ms / 1000 - time.time()))
        fired_s, worst_ms = _fire(broker, due_ms)
    return [
        *late,
        Figure.at_most(
            "a million pending", "MiB more", grown, 200, details={"after kill -9 and a restart": f"{restarted:.0f} MiB"}
        ),
        Figure("a restart with them", "s", restart_s),
        Figure("all of them fire", "messages/s", MESSAGES / fired_s),
        Figure("slowest send to another topic meanwhile", "ms", worst_ms),
    ]


def _send(broker: Broker, due_ms: int) -> None:
    requests = [_request(start, due_ms) for start in range(0, MESSAGES, BATCH)]
    for response in calls(broker.address, service_rpc.SEND_MESSAGE, requests, at_a_time=2):
        check(response.status)


def _request(start: int, due_ms: int) -> service_pb2.SendMessageRequest:
    request = service_pb2.SendMessageRequest()
    for number in range(start, start + BATCH):
        message = request.messages.add(topic={"name": TOPIC}, body=b"x" * 100)
        message.system_properties.message_id = f"01{number:032X}"
        message.system_properties.message_type = definition_pb2.DELAY
        message.system_properties.delivery_timestamp.FromMilliseconds(due_ms + number * 7919 % 1000)
    return request


def _pending(broker: Broker) -> int:
    described = call(broker.address, broker_rpc.DESCRIBE_BROKER, broker_pb2.DescribeBrokerRequest())
    return sum(held.delayed for held in described.held_messages)


def _check_pending(broker: Broker) -> None:
    if _pending(broker) != MESSAGES:
        raise RuntimeError(f"{_pending(broker):,} messages are pending, not {MESSAGES:,}")


def _fire(broker: Broker, due_ms: int) -> tuple[float, float]:
    """-> how long after the due time the last one was in its queue (s), the slowest of the sends meanwhile (ms)."""
    worst_ms = 0.0
    until = time.monotonic() + FIRED_WITHIN_S
    while _pending(broker):
        began = time.monotonic()
        send_one(broker.address, OTHER)
        worst_ms = max(worst_ms, (time.monotonic() - began) * 1000)
        if began > until:
            raise TimeoutError(f"{_pending(broker):,} messages have not fired")
    took_s = time.time() - due_ms / 1000
    if broker.stored_messages(TOPIC) != MESSAGES:
        raise RuntimeError(f"{broker.stored_messages(TOPIC):,} messages are in the queues, not {MESSAGES:,}")
    return took_s, worst_ms
