"""A push consumer whose group keeps the order, and what brokers may tell a consumer."""

import asyncio
from collections import defaultdict

import pytest

from kourou import AsyncProducer, AsyncPushConsumer, AsyncSimpleConsumer, Message, ReceivedMessage
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2
from tests.unit.client.fake import Broker, Cluster, cluster, received, until


def fifo(c: Cluster, *, max_attempts: int = 3, backoff_ms: int = 1) -> Broker:
    broker = c.brokers[0]
    broker.assign = lambda topic: [broker.queue(topic, -1)]
    broker.settings_answer.subscription.fifo = True
    broker.settings_answer.backoff_policy.max_attempts = max_attempts
    broker.settings_answer.backoff_policy.customized_backoff.next.add().FromMilliseconds(backoff_ms)
    return broker


def acked(broker: Broker) -> list[str]:
    return [entry.receipt_handle for ack in broker.acks for entry in ack.entries]


async def test_of_a_message_group_one_after_the_other_and_groups_in_parallel():
    running: set[str] = set()
    most = 0
    heard: defaultdict[str, list[str]] = defaultdict(list)

    async def listen(message: ReceivedMessage) -> None:
        nonlocal most
        group = message.message_group
        assert group is not None
        assert group not in running, "two of one group at a time"
        running.add(group)
        most = max(most, len(running))
        await asyncio.sleep(0.002)
        heard[group].append(message.body.decode())
        running.discard(group)

    async with cluster() as c:
        broker = fifo(c)
        handles = [(f"g{n % 5}", f"{n}") for n in range(50)]
        async with AsyncPushConsumer("g", {"t": "*"}, listen, c.namesrv, concurrency=16):
            broker.ready["t"] += [received("t", h.encode(), h, message_group=g) for g, h in handles]
            await until(lambda: len(acked(broker)) == 50)
        for group in range(5):
            assert heard[f"g{group}"] == [h for g, h in handles if g == f"g{group}"]
        assert most == 5


async def test_the_next_one_waits_until_the_one_before_is_acknowledged():
    heard: list[bytes] = []

    async def listen(message: ReceivedMessage) -> None:
        heard.append(message.body)

    async with cluster() as c:
        broker = fifo(c)
        broker.ack_gate.clear()
        async with AsyncPushConsumer("g", {"t": "*"}, listen, c.namesrv):
            broker.ready["t"] += [received("t", h.encode(), h, message_group="x") for h in "ab"]
            broker.ready["t"].append(received("t", b"other", "o", message_group="y"))
            await until(lambda: sorted(acked(broker)) == ["a", "o"])
            assert sorted(heard) == [b"a", b"other"]
            broker.ack_gate.set()
            await until(lambda: sorted(acked(broker)) == ["a", "b", "o"])


async def test_a_failing_listener_repeats_then_gives_up_and_goes_on():
    heard: list[tuple[bytes, int]] = []

    async def listen(message: ReceivedMessage) -> bool:
        heard.append((message.body, message.attempt))
        return message.body != b"bad"

    async with cluster() as c:
        broker = fifo(c, max_attempts=3)
        async with AsyncPushConsumer("g", {"t": "*"}, listen, c.namesrv):
            broker.ready["t"] += [received("t", body, body.decode(), message_group="x") for body in (b"bad", b"next")]
            await until(lambda: acked(broker) == ["next"])
        assert heard == [(b"bad", 1), (b"bad", 2), (b"bad", 3), (b"next", 1)]
        [dead] = broker.dead_letters
        assert (dead.receipt_handle, dead.message_id) == ("bad", "id-bad")
        assert (dead.delivery_attempt, dead.max_delivery_attempts, dead.group.name) == (3, 3, "g")
        assert broker.changes == [], "none was given back"


async def test_closing_settles_what_was_heard_and_begins_nothing_else():
    begun = asyncio.Event()
    heard: list[bytes] = []

    async def listen(message: ReceivedMessage) -> bool:
        heard.append(message.body)
        begun.set()
        await asyncio.sleep(0.05)
        return message.body != b"fails"

    async with cluster() as c:
        broker = fifo(c, backoff_ms=60_000)
        async with AsyncPushConsumer("g", {"t": "*"}, listen, c.namesrv):
            for group, body in (("x", b"fails"), ("y", b"1"), ("y", b"2")):
                broker.ready["t"].append(received("t", body, body.decode(), message_group=group))
            await begun.wait()
            closing_s = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - closing_s < 3
        assert set(heard) <= {b"fails", b"1"}
        assert acked(broker) == [h for h in ("1",) if h.encode() in heard]
        assert broker.dead_letters == broker.changes == []


async def test_settings_that_are_pushed_take_effect_at_once():
    async def listen(message: ReceivedMessage) -> bool:
        return False

    async with cluster() as c:
        broker = fifo(c)
        broker.settings_answer.subscription.fifo = False
        broker.settings_answer.subscription.long_polling_timeout.FromMilliseconds(20)
        async with AsyncPushConsumer("g", {"t": "*"}, listen, c.namesrv):
            broker.ready["t"].append(received("t", b"x", "h1", message_group="x"))
            await until(lambda: broker.changes)
            pushed = v2.Settings()
            pushed.CopyFrom(broker.settings_answer)
            pushed.subscription.fifo = True
            pushed.subscription.receive_batch_size = 5
            pushed.backoff_policy.max_attempts = 2
            curve = pushed.backoff_policy.exponential_backoff
            curve.initial.FromMilliseconds(5)
            curve.max.FromMilliseconds(50)
            curve.multiplier = 3
            await broker.tell(service_pb2.TelemetryCommand(settings=pushed))
            await until(lambda: broker.receives[-1].batch_size == 5)
            broker.ready["t"].append(received("t", b"x", "h2", message_group="x"))
            await until(lambda: broker.dead_letters)
            assert broker.dead_letters[0].delivery_attempt == 2
            pushed.subscription.fifo = False
            await broker.tell(service_pb2.TelemetryCommand(settings=pushed))
            asked = len(broker.receives)
            await until(lambda: len(broker.receives) > asked + 1)
            broker.ready["t"].append(received("t", b"x", "h3", attempt=2))
            await until(lambda: len(broker.changes) == 2)
            assert broker.changes[1].invisible_duration.ToMilliseconds() == 15


async def test_an_operator_tries_the_listener_with_a_message():
    heard: list[tuple[str, bytes]] = []

    def listen(message: ReceivedMessage) -> None:
        heard.append((message.message_id, message.body))
        if message.body == b"bad":
            raise ValueError("as in a handler with a bug")

    async with cluster() as c:
        broker = fifo(c)
        async with AsyncPushConsumer("g", {"t": "*"}, listen, c.namesrv):
            for nonce, body in (("n1", b"good"), ("n2", b"bad")):
                command = service_pb2.VerifyMessageCommand(nonce=nonce, message=received("t", body, nonce))
                await broker.tell(service_pb2.TelemetryCommand(verify_message_command=command))
            await until(lambda: len(broker.replies) == 2)
        codes = {reply.verify_message_result.nonce: reply.status.code for reply in broker.replies}
        assert codes == {"n1": v2.OK, "n2": v2.FAILED_TO_CONSUME_MESSAGE}
        assert sorted(heard) == [("id-n1", b"good"), ("id-n2", b"bad")]
        assert broker.acks == [], "it settles nothing"


@pytest.mark.parametrize("kind", ["producer", "simple consumer"])
async def test_clients_without_a_listener_say_so(kind: str):
    async with cluster() as c:
        broker = c.brokers[0]
        if kind == "producer":
            client = AsyncProducer(c.namesrv)
            await client.send(Message("t", b"x"))
        else:
            client = AsyncSimpleConsumer("g", {"t": "*"}, c.namesrv)
            await client.receive(wait_s=0)
        async with client:
            await until(lambda: broker.settings)
            command = service_pb2.VerifyMessageCommand(nonce="n", message=received("t", b"x", "h"))
            await broker.tell(service_pb2.TelemetryCommand(verify_message_command=command))
            await until(lambda: broker.replies)
            assert broker.replies[0].status.code == v2.NOT_IMPLEMENTED
            assert broker.replies[0].verify_message_result.nonce == "n"


async def test_stacks_are_told():
    async def a_task_that_is_seen() -> None:
        await asyncio.Event().wait()

    async with cluster() as c, AsyncProducer(c.namesrv, topics=["t"]):
        broker = c.brokers[0]
        task = asyncio.create_task(a_task_that_is_seen())
        command = service_pb2.PrintThreadStackTraceCommand(nonce="n")
        await broker.tell(service_pb2.TelemetryCommand(print_thread_stack_trace_command=command))
        await until(lambda: broker.replies)
        task.cancel()
        told = broker.replies[0].thread_stack_trace
        assert (told.nonce, broker.replies[0].status.code) == ("n", v2.OK)
        assert "thread MainThread" in told.thread_stack_trace
        assert "a_task_that_is_seen" in told.thread_stack_trace


async def test_a_client_that_is_told_to_reconnect_does_and_loses_no_call():
    async with cluster() as c, AsyncProducer(c.namesrv, topics=["t"]) as producer:
        broker = c.brokers[0]
        broker.send_gate.clear()
        sending = asyncio.ensure_future(producer.send(Message("t", b"under way")))
        await until(lambda: broker.sends)
        peers = {context.peer() for context in broker.telemetry_contexts}
        command = service_pb2.ReconnectEndpointsCommand(nonce="n")
        await broker.tell(service_pb2.TelemetryCommand(reconnect_endpoints_command=command))
        await until(lambda: len(broker.telemetry_contexts) == 2 and len(broker.settings) == 2)
        assert broker.telemetry_contexts[1].peer() not in peers, "over a connection of its own"
        broker.send_gate.set()
        await sending
        await producer.send(Message("t", b"after"))
        assert len(broker.sends) == 2
