import asyncio
from collections import Counter

import pytest
from grpc import StatusCode

from kourou import (
    AsyncProducer,
    ClosedError,
    ConnectionFailed,
    Forbidden,
    InvalidRequest,
    Message,
    PartialFailure,
    TimeoutExceeded,
    TooManyRequests,
    TopicNotFound,
)
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from tests.unit.client.fake import abort, cluster, hang, refuse, until


def message(body: str = "x", topic: str = "t") -> Message:
    return Message(topic, body.encode(), tag="tag", keys=["k1", "k2"], properties={"p": "v"})


async def test_a_sent_message_and_its_result():
    async with cluster() as c, AsyncProducer(c.namesrv, group="makers", client_id="me") as producer:
        result = await producer.send(message("hello"))
        [request] = c.brokers[0].sends
        [sent] = request.messages
        assert (sent.topic.name, sent.body, dict(sent.user_properties)) == ("t", b"hello", {"p": "v"})
        system = sent.system_properties
        assert (system.tag, list(system.keys), system.message_type) == ("tag", ["k1", "k2"], v2.NORMAL)
        assert system.body_digest.checksum == "5D41402ABC4B2A76B9719D911017C592"
        assert system.born_timestamp.seconds > 1_700_000_000
        assert result.message_id == system.message_id
        assert len(result.message_id) == 34
        assert result.offset_message_id == "broker-a@1f40.0"
        assert (result.broker, result.queue_id, result.offset) == ("broker-a", 3, 0)
        headers = c.brokers[0].headers[0]
        assert headers["x-mq-client-id"] == "me"
        assert headers["x-kourou-producer-group"] == "makers"


async def test_round_robin_over_the_writable_queues_of_all_brokers():
    async with cluster(brokers=2) as c, AsyncProducer(c.namesrv) as producer:
        for _ in range(8):
            await producer.send(message())
        asked = Counter(
            (broker.name, request.messages[0].system_properties.queue_id)
            for broker in c.brokers
            for request in broker.sends
        )
        assert asked == {(name, q): 2 for name in ("broker-a", "broker-b") for q in (0, 1)}


async def test_unknown_topic_says_what_the_server_says():
    async with cluster() as c, AsyncProducer(c.namesrv) as producer:
        with pytest.raises(TopicNotFound, match="kourou topic create nope"):
            await producer.send(message(topic="nope"))


@pytest.mark.parametrize("lost", [abort(StatusCode.UNAVAILABLE), hang], ids=["broken", "hangs"])
async def test_outcome_unknown_asks_the_same_broker_again_with_the_same_id(lost):
    async with cluster(brokers=2) as c, AsyncProducer(c.namesrv, send_timeout_s=1.5) as producer:
        for broker in c.brokers:
            broker.send_scripts.append(lost)
        result = await producer.send(message())
        [asked] = [broker for broker in c.brokers if broker.sends]
        first, second = asked.sends
        ids = [request.messages[0].system_properties.message_id for request in (first, second)]
        assert ids == [result.message_id] * 2


async def test_outcome_unknown_twice_goes_elsewhere():
    async with cluster(brokers=2) as c, AsyncProducer(c.namesrv) as producer:
        for broker in c.brokers:
            broker.send_scripts += [abort(StatusCode.UNAVAILABLE)] * 2
        c.brokers[1].send_scripts.clear()
        results = [await producer.send(message()) for _ in range(4)]
        assert {result.broker for result in results} <= {"broker-a", "broker-b"}
        assert len(c.brokers[0].sends) - len(c.brokers[0].stored["t"]) in (0, 2)
        assert sum(len(broker.stored["t"]) for broker in c.brokers) == 4


async def test_forbidden_goes_to_another_broker_and_the_route_is_pulled():
    async with cluster(brokers=2) as c, AsyncProducer(c.namesrv) as producer:
        await producer.send(message())
        c.brokers[0].send_scripts += [refuse(v2.FORBIDDEN)] * 100
        await asyncio.sleep(0.11)  # the route was just pulled; errors right after that share the pull
        pulled = len(c.name_servers[0].queries)
        before = len(c.brokers[0].stored["t"])
        results = [await producer.send(message()) for _ in range(8)]
        assert {result.broker for result in results} == {"broker-b"}
        assert len(c.brokers[0].stored["t"]) == before
        await until(lambda: len(c.name_servers[0].queries) > pulled)


async def test_forbidden_on_one_broker_tries_another_queue():
    async with cluster() as c, AsyncProducer(c.namesrv) as producer:
        c.brokers[0].send_scripts.append(refuse(v2.FORBIDDEN))
        await producer.send(message())
        first, second = (r.messages[0].system_properties.queue_id for r in c.brokers[0].sends)
        assert first != second


async def test_forbidden_everywhere_fails_without_using_up_the_time_out():
    async with cluster(brokers=2) as c, AsyncProducer(c.namesrv, send_timeout_s=30) as producer:
        for broker in c.brokers:
            broker.send_scripts += [refuse(v2.FORBIDDEN, "writes are off")] * 100
        with pytest.raises(Forbidden, match="writes are off"):
            await asyncio.wait_for(producer.send(message()), 5)


async def test_no_writable_queue():
    async with cluster() as c, AsyncProducer(c.namesrv, send_timeout_s=30) as producer:
        c.brokers[0].permission = v2.READ
        with pytest.raises(Forbidden, match="no queue that takes messages"):
            await asyncio.wait_for(producer.send(message()), 5)


async def test_a_broker_that_cannot_be_reached_is_left_for_another():
    async with cluster(brokers=2) as c, AsyncProducer(c.namesrv) as producer:
        await c.brokers[0].stop()
        results = [await producer.send(message()) for _ in range(4)]
        assert {result.broker for result in results} == {"broker-b"}


async def test_too_many_requests_backs_off_and_ends_with_the_time_out():
    async with cluster() as c, AsyncProducer(c.namesrv, send_timeout_s=0.5) as producer:
        c.brokers[0].send_scripts += [refuse(v2.TOO_MANY_REQUESTS, "full")] * 2
        await producer.send(message())
        assert len(c.brokers[0].sends) == 3
        c.brokers[0].send_scripts += [refuse(v2.TOO_MANY_REQUESTS, "full")] * 1000
        started = asyncio.get_running_loop().time()
        with pytest.raises(TooManyRequests, match="full"):
            await producer.send(message())
        assert asyncio.get_running_loop().time() - started < 1.5
        assert len(c.brokers[0].sends) < 20


async def test_fails_within_its_time_out_when_nobody_answers():
    async with cluster() as c, AsyncProducer(c.namesrv, send_timeout_s=0.6) as producer:
        c.brokers[0].send_scripts += [hang] * 10
        started = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutExceeded, match="broker-a"):
            await producer.send(message())
        assert asyncio.get_running_loop().time() - started < 1.5


async def test_no_name_server():
    async with AsyncProducer("127.0.0.1:1", send_timeout_s=0.5) as producer:
        with pytest.raises(ConnectionFailed, match=r"127\.0\.0\.1:1 .*refused"):
            await producer.send(message())


async def test_a_maybe_stored_message_is_never_reported_as_not_sent():
    async with cluster() as c, AsyncProducer(c.namesrv, send_timeout_s=1.0) as producer:
        c.brokers[0].send_scripts.append(abort(StatusCode.UNAVAILABLE))
        c.brokers[0].send_scripts += [refuse(v2.TOO_MANY_REQUESTS)] * 1000
        # The other text: the time is over in the middle of a try.
        with pytest.raises(TimeoutExceeded, match=r"may be stored or not|did not answer in time"):
            await producer.send(message())


async def test_the_second_name_server_is_asked_when_the_first_is_gone():
    async with cluster(name_servers=3) as c:
        await c.name_servers[0].stop()
        await c.name_servers[1].stop()
        async with AsyncProducer(c.namesrv) as producer:
            await producer.send(message())


async def test_sends_under_way_at_the_same_time_share_requests():
    async with cluster() as c, AsyncProducer(c.namesrv, send_timeout_s=60) as producer:
        await producer.send(message("warm"))
        c.brokers[0].send_gate.clear()
        sends = [asyncio.ensure_future(producer.send(message(f"{i}"))) for i in range(1000)]
        # Four requests are let out; the rest gathers meanwhile.
        await until(lambda: len(c.brokers[0].sends) == 1 + 4)
        c.brokers[0].send_gate.set()
        results = await asyncio.gather(*sends)
        sizes = [len(request.messages) for request in c.brokers[0].sends]
        assert max(sizes) == 128
        assert len(sizes) == 1 + 8
        assert [int(m.body) for m in c.brokers[0].stored["t"][1:]] == list(range(1000))
        assert len({result.message_id for result in results}) == 1000
        assert len({result.offset_message_id for result in results}) == 1000


async def test_a_lone_message_leaves_at_once():
    async with cluster() as c, AsyncProducer(c.namesrv) as producer:
        await producer.send(message())
        c.brokers[0].send_scripts.append(hang)
        stuck = asyncio.ensure_future(producer.send(message()))
        await until(lambda: len(c.brokers[0].sends) == 2)
        await asyncio.wait_for(producer.send(message()), 0.5)
        stuck.cancel()


async def test_batches_keep_to_four_mebibytes():
    async with cluster() as c, AsyncProducer(c.namesrv, send_timeout_s=30) as producer:
        body = b"x" * (1024 * 1024 + 1)
        await asyncio.gather(*(producer.send(Message("t", body)) for _ in range(8)))
        assert max(len(request.messages) for request in c.brokers[0].sends) == 3


async def test_one_request_holds_one_topic():
    async with cluster() as c, AsyncProducer(c.namesrv) as producer:
        c.topics["u"] = 1
        await asyncio.gather(*(producer.send(message(topic=topic)) for topic in "tu" * 20))
        for request in c.brokers[0].sends:
            assert len({m.topic.name for m in request.messages}) == 1


async def test_a_bad_message_does_not_harm_those_it_travels_with():
    async with cluster() as c, AsyncProducer(c.namesrv) as producer:
        await producer.send(message("warm"))

        async def picky(request, context):
            if any(m.body == b"bad" for m in request.messages):
                return await refuse(v2.ILLEGAL_MESSAGE_TAG, "bad tag")(request, context)
            return None

        c.brokers[0].send_scripts += [picky] * 100
        bodies = ["a", "bad", "b", "c"]
        results = await asyncio.gather(*(producer.send(message(b)) for b in bodies), return_exceptions=True)
        assert isinstance(results[1], InvalidRequest)
        assert [m.body for m in c.brokers[0].stored["t"][1:]] == [b"a", b"b", b"c"]


async def test_send_many_keeps_the_order_of_the_results():
    async with cluster(brokers=2) as c, AsyncProducer(c.namesrv) as producer:
        c.topics["u"] = 1
        batch = [message(str(i), "tu"[i % 2]) for i in range(300)]
        results = await producer.send_many(batch)
        stored = {m.system_properties.message_id: m.body for b in c.brokers for ms in b.stored.values() for m in ms}
        assert [stored[result.message_id] for result in results] == [m.body for m in batch]
        assert await producer.send_many([]) == []


async def test_send_many_says_which_failed():
    async with cluster() as c, AsyncProducer(c.namesrv) as producer:
        with pytest.raises(PartialFailure) as failure:
            await producer.send_many([message("a"), message("b", "nope"), message("c")])
        kinds = [type(outcome).__name__ for outcome in failure.value.outcomes]
        assert kinds == ["SendResult", "TopicNotFound", "SendResult"]
        with pytest.raises(TopicNotFound):
            await producer.send_many([message("b", "nope")])
        assert len(c.brokers[0].stored["t"]) == 2


async def test_closed():
    async with cluster() as c:
        producer = AsyncProducer(c.namesrv)
        await producer.send(message())
        await producer.close()
        await producer.close()
        with pytest.raises(ClosedError):
            await producer.send(message())
        assert len(c.brokers[0].goodbyes) == 1


async def test_closing_ends_what_is_being_sent():
    async with cluster() as c:
        producer = AsyncProducer(c.namesrv, send_timeout_s=30)
        await producer.send(message())
        c.brokers[0].send_gate.clear()
        sends = [asyncio.ensure_future(producer.send(message())) for _ in range(1000)]
        await until(lambda: len(c.brokers[0].sends) == 5)
        await producer.close()
        outcomes = await asyncio.wait_for(asyncio.gather(*sends, return_exceptions=True), 5)
        assert {type(outcome) for outcome in outcomes} == {ClosedError}


async def test_a_cancelled_send_is_cancelled():
    async with cluster() as c, AsyncProducer(c.namesrv) as producer:
        c.brokers[0].send_gate.clear()
        send = asyncio.ensure_future(producer.send(message()))
        await until(lambda: c.brokers[0].sends)
        send.cancel()
        with pytest.raises(asyncio.CancelledError):
            await send


async def test_a_new_topic_is_announced():
    async with cluster() as c, AsyncProducer(c.namesrv) as producer:
        c.topics["u"] = 1
        broker = c.brokers[0]
        await producer.send(message())
        await until(lambda: broker.settings)
        await producer.send(message(topic="u"))
        await until(lambda: {topic.name for topic in broker.settings[-1].publishing.topics} == {"t", "u"})


async def test_presence_settings_heartbeat_and_a_new_stream_after_a_broken_one():
    async with cluster() as c, AsyncProducer(c.namesrv) as producer:
        await producer.send(message())
        broker = c.brokers[0]
        await until(lambda: broker.settings and broker.heartbeats)
        assert broker.settings[0].client_type == v2.PRODUCER
        assert [topic.name for topic in broker.settings[0].publishing.topics] == ["t"]
        await broker.stop()
        await broker.start()
        await until(lambda: len(broker.settings) == 2)
