import asyncio
import threading

import pytest

from kourou import (
    AsyncPushConsumer,
    Broadcasting,
    InvalidRequest,
    ReceivedMessage,
    Sql,
    TopicNotFound,
    assigned,
    settlement,
)
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from tests.unit.client.fake import Broker, Cluster, cluster, received, until


def assign_whole_brokers(c: Cluster) -> None:
    for broker in c.brokers:
        broker.assign = lambda topic: [other.queue(topic, -1) for other in c.brokers]


def acked(broker: Broker) -> list[str]:
    return [entry.receipt_handle for ack in broker.acks for entry in ack.entries]


async def test_each_message_is_heard_and_acknowledged():
    heard: list[ReceivedMessage] = []

    async def listener(message: ReceivedMessage) -> None:
        heard.append(message)

    async with cluster(brokers=2) as c:
        assign_whole_brokers(c)
        async with AsyncPushConsumer("g", {"t": "red"}, listener, c.namesrv):
            for broker in c.brokers:
                broker.ready["t"] += [received("t", b"x", f"{broker.name}-{i}") for i in range(50)]
            await until(lambda: all(len(acked(broker)) == 50 for broker in c.brokers))
            asked = c.brokers[0].receives[0]
            assert asked.auto_renew
            assert not asked.HasField("invisible_duration")
            assert asked.message_queue.id == -1
            assert asked.filter_expression.expression == "red"
            assert (asked.batch_size, asked.long_polling_timeout.seconds) == (32, 20)
        assert len(heard) == 100
        assert all(broker.goodbyes[0].group.name == "g" for broker in c.brokers)


async def test_a_filter_that_is_not_valid_keeps_it_from_starting(tmp_path):
    async with cluster() as c:
        assign_whole_brokers(c)
        refusal = v2.Status(code=v2.ILLEGAL_FILTER_EXPRESSION, message="line 1, column 4")
        c.brokers[0].settings_refusal = refusal
        for broadcasting in (None, Broadcasting(tmp_path / "offsets.json")):
            consumer = AsyncPushConsumer("g", {"t": Sql("a >")}, _heed, c.namesrv, broadcasting=broadcasting)
            with pytest.raises(InvalidRequest, match="line 1, column 4"):
                await consumer.start()
            await consumer.close()
        assert c.brokers[0].pulls == []


async def test_acknowledgements_under_way_at_the_same_time_share_requests():
    async with cluster() as c:
        assign_whole_brokers(c)
        broker = c.brokers[0]
        broker.ack_gate.clear()
        async with AsyncPushConsumer("g", {"t": "*"}, _heed, c.namesrv, concurrency=1):
            broker.ready["t"] += [received("t", b"x", f"{i}") for i in range(90)]
            await until(lambda: len(broker.acks) == 2 and len(broker.receives) > 3)
            broker.ack_gate.set()
            await until(lambda: len(acked(broker)) == 90)
            assert len(broker.acks) <= 4


async def _heed(message: ReceivedMessage) -> None:
    pass


async def test_what_the_listener_fails_on_comes_again_after_the_groups_backoff():
    async def listener(message: ReceivedMessage) -> bool:
        if message.body == b"raise":
            raise ValueError("listener")
        return message.body != b"refuse"

    async with cluster() as c:
        assign_whole_brokers(c)
        broker = c.brokers[0]
        policy = broker.settings_answer.backoff_policy
        for seconds in (1, 5, 10):
            policy.customized_backoff.next.add(seconds=seconds)
        broker.settings_answer.subscription.receive_batch_size = 7
        async with AsyncPushConsumer("g", {"t": "*"}, listener, c.namesrv):
            broker.ready["t"] += [
                received("t", b"raise", "h1"),
                received("t", b"refuse", "h2", attempt=2),
                received("t", b"refuse", "h3", attempt=9),
                received("t", b"fine", "h4"),
            ]
            await until(lambda: len(broker.changes) == 3 and acked(broker) == ["h4"])
            delays = {change.receipt_handle: change.invisible_duration.seconds for change in broker.changes}
            assert delays == {"h1": 1, "h2": 5, "h3": 10}
            assert broker.receives[0].batch_size == 7


async def test_a_plain_function_runs_in_threads_and_concurrency_is_kept():
    running = most = 0
    lock, threads = threading.Lock(), set[str]()

    def listener(message: ReceivedMessage) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            threads.add(threading.current_thread().name)
        threading.Event().wait(0.01)
        with lock:
            running -= 1

    async with cluster() as c:
        assign_whole_brokers(c)
        async with AsyncPushConsumer("g", {"t": "*"}, listener, c.namesrv, concurrency=3):
            c.brokers[0].ready["t"] += [received("t", b"x", f"{i}") for i in range(20)]
            await until(lambda: len(acked(c.brokers[0])) == 20)
    assert most == 3
    assert threading.main_thread().name not in threads


async def test_a_plain_function_that_returns_a_coroutine_is_awaited():
    async def fail(message: ReceivedMessage) -> None:
        raise ValueError("listener")

    async with cluster() as c:
        assign_whole_brokers(c)
        async with AsyncPushConsumer("g", {"t": "*"}, lambda message: fail(message), c.namesrv):
            c.brokers[0].ready["t"].append(received("t", b"x", "h"))
            await until(lambda: c.brokers[0].changes)
        assert acked(c.brokers[0]) == []


@pytest.mark.parametrize("limits", [{"max_cached_count": 5}, {"max_cached_bytes": 50}])
async def test_a_full_cache_polls_no_more(limits):
    gate = asyncio.Event()

    async def listener(message: ReceivedMessage) -> None:
        await gate.wait()

    async with cluster() as c:
        assign_whole_brokers(c)
        broker = c.brokers[0]
        async with AsyncPushConsumer("g", {"t": "*"}, listener, c.namesrv, **limits):
            broker.ready["t"] += [received("t", b"ten bytes.", f"{i}") for i in range(40)]
            await until(lambda: len(broker.ready["t"]) == 8)
            await asyncio.sleep(0.1)
            assert len(broker.receives) == 1
            gate.set()
            await until(lambda: len(acked(broker)) == 40)


async def test_a_broker_that_takes_no_acknowledgements_does_not_stall_the_others():
    async with cluster(brokers=2) as c:
        assign_whole_brokers(c)
        stuck, healthy = c.brokers
        stuck.ack_gate.clear()
        async with AsyncPushConsumer("g", {"t": "*"}, _heed, c.namesrv, max_cached_count=5):
            stuck.ready["t"] += [received("t", b"x", f"{i}") for i in range(5)]
            await until(lambda: stuck.acks)
            healthy.ready["t"] += [received("t", b"x", f"{i}") for i in range(10)]
            await until(lambda: len(acked(healthy)) == 10)
            stuck.ack_gate.set()


async def test_what_is_still_to_be_settled_at_a_broker_is_bounded(monkeypatch):
    monkeypatch.setattr(settlement, "MAX_UNSETTLED_COUNT", 5)
    async with cluster() as c:
        assign_whole_brokers(c)
        broker = c.brokers[0]
        broker.ack_gate.clear()
        async with AsyncPushConsumer("g", {"t": "*"}, _heed, c.namesrv):
            broker.ready["t"] += [received("t", b"x", f"{i}") for i in range(90)]
            await until(lambda: broker.acks)
            await asyncio.sleep(0.1)
            assert len(broker.ready["t"]) >= 90 - 2 * 32, "one poll, and at most another that was asked for already"
            broker.ack_gate.set()
            await until(lambda: len(set(acked(broker))) == 90)


async def test_the_assignment_is_the_whole_truth(monkeypatch):
    monkeypatch.setattr(assigned, "ASSIGNMENT_INTERVAL_S", 0.02)
    async with cluster() as c:
        broker = c.brokers[0]
        mine = {0}
        broker.assign = lambda topic: [broker.queue(topic, q) for q in sorted(mine)]
        broker.settings_answer.subscription.long_polling_timeout.FromMilliseconds(20)
        async with AsyncPushConsumer("g", {"t": "*"}, _heed, c.namesrv):
            await until(lambda: len(broker.receives) > 2)
            assert {asked.message_queue.id for asked in broker.receives} == {0}
            mine.symmetric_difference_update({0, 1})
            await until(lambda: broker.receives[-1].message_queue.id == 1)
            await asyncio.sleep(0.1)
            broker.receives.clear()
            await until(lambda: len(broker.receives) > 2)
            assert {asked.message_queue.id for asked in broker.receives} == {1}


async def test_a_lost_answer_is_asked_for_again_by_its_attempt_id():
    async with cluster() as c:
        assign_whole_brokers(c)
        broker = c.brokers[0]
        broker.lose_receives = 2
        broker.ready["t"].append(received("t", b"x", "h"))
        async with AsyncPushConsumer("g", {"t": "*"}, _heed, c.namesrv):
            await until(lambda: acked(broker) == ["h"])
        assert len({asked.attempt_id for asked in broker.receives[:3]}) == 1


async def test_a_stale_handle_is_given_up():
    async with cluster() as c:
        assign_whole_brokers(c)
        broker = c.brokers[0]
        broker.stale_handles = {"old"}
        broker.ready["t"] += [received("t", b"x", "old"), received("t", b"x", "new")]
        async with AsyncPushConsumer("g", {"t": "*"}, _heed, c.namesrv):
            await until(lambda: sorted(acked(broker)) == ["new", "old"])
        assert sorted(acked(broker)) == ["new", "old"]


async def test_closing_waits_for_the_listener_and_gives_the_rest_back():
    begun, gate = asyncio.Event(), asyncio.Event()

    async def listener(message: ReceivedMessage) -> None:
        begun.set()
        await gate.wait()

    async with cluster() as c:
        assign_whole_brokers(c)
        broker = c.brokers[0]
        consumer = AsyncPushConsumer("g", {"t": "*"}, listener, c.namesrv, concurrency=1)
        await consumer.start()
        broker.ready["t"] += [received("t", b"x", f"{i}") for i in range(5)]
        await begun.wait()
        closing = asyncio.create_task(consumer.close())
        await asyncio.sleep(0.05)
        assert not closing.done()
        gate.set()
        await closing
        assert acked(broker) == ["0"], "the one under way is settled, the others return with the goodbye"
        assert len(broker.goodbyes) == 1


async def test_closing_does_not_wait_longer_than_the_grace():
    async def listener(message: ReceivedMessage) -> None:
        await asyncio.Event().wait()

    async with cluster() as c:
        assign_whole_brokers(c)
        consumer = AsyncPushConsumer("g", {"t": "*"}, listener, c.namesrv, close_grace_s=0.05)
        await consumer.start()
        c.brokers[0].ready["t"].append(received("t", b"x", "h"))
        await until(lambda: not c.brokers[0].ready["t"])
        await asyncio.wait_for(consumer.close(), 3)
        assert acked(c.brokers[0]) == []


async def test_starting_says_what_stands_in_the_way_and_can_be_tried_again():
    async with cluster() as c:
        assign_whole_brokers(c)
        consumer = AsyncPushConsumer("g", {"late": "*"}, _heed, c.namesrv)
        with pytest.raises(TopicNotFound):
            await consumer.start()
        c.topics["late"] = 1
        await consumer.start()
        c.brokers[0].ready["late"].append(received("late", b"x", "h"))
        await until(lambda: acked(c.brokers[0]) == ["h"])
        await consumer.close()


@pytest.mark.parametrize("error", [SystemExit, asyncio.CancelledError])
async def test_no_error_of_the_listener_ends_its_worker(error):
    def listener(message: ReceivedMessage) -> None:
        if message.body == b"bad":
            raise error

    async def async_listener(message: ReceivedMessage) -> None:
        listener(message)

    for each in (listener, async_listener):
        async with cluster() as c:
            assign_whole_brokers(c)
            async with AsyncPushConsumer("g", {"t": "*"}, each, c.namesrv, concurrency=1):
                c.brokers[0].ready["t"] += [received("t", b"bad", "h1"), received("t", b"fine", "h2")]
                await until(lambda: c.brokers[0].changes and acked(c.brokers[0]) == ["h2"])


async def test_settings_and_type():
    async with cluster() as c:
        assign_whole_brokers(c)
        async with AsyncPushConsumer("g", {"t": "red"}, _heed, c.namesrv):
            told = c.brokers[0].settings[0]
        assert told.client_type == v2.PUSH_CONSUMER
        assert told.subscription.group.name == "g"
        [entry] = told.subscription.subscriptions
        assert (entry.topic.name, entry.expression.expression) == ("t", "red")
