"""Sending by the stream door."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from grpc import StatusCode

from kourou import (
    AsyncProducer,
    ClosedError,
    InvalidArgument,
    InvalidRequest,
    Message,
    MessageTooLarge,
    PartialFailure,
    TimeoutExceeded,
    TopicNotFound,
    TransactionResolution,
)
from kourou.batch import Columns
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.stream.v1 import stream_pb2
from tests.unit.client.fake import Cluster, cluster, until
from tests.unit.client.fake_stream import StreamBroker, refused, silence, stream_cluster


def message(body: str = "x", topic: str = "t") -> Message:
    return Message(topic, body.encode(), tag="tag", keys=["k1", "k2"], properties={"p": "v"})


def one(c: Cluster) -> StreamBroker:
    broker = c.brokers[0]
    assert isinstance(broker, StreamBroker)
    return broker


def counts(broker: StreamBroker) -> list[int]:
    """Of each request."""
    return [len(Columns(request.headers, request.bodies)) for request in broker.requests]


async def broken(request: stream_pb2.PublishRequest, context: Any) -> None:
    await context.abort(StatusCode.UNAVAILABLE, "as scripted")


async def test_a_sent_message_and_its_result():
    async with stream_cluster() as c, AsyncProducer(c.namesrv, group="makers", client_id="me") as producer:
        result = await producer.send(message("hello"))
        [request] = one(c).requests
        columns = Columns(request.headers, request.bodies)
        assert (request.topic.name, request.type, request.bodies) == ("t", v2.NORMAL, b"hello")
        assert (columns.tag(0), columns.keys(0), columns.properties(0)) == ("tag", ("k1", "k2"), {"p": "v"})
        assert columns.headers.born_ms > 1_700_000_000_000
        assert result.message_id == columns.headers.first_message_id
        assert result.offset_message_id == "broker-a@1f40.0"
        assert (result.broker, result.queue_id, result.offset) == ("broker-a", 3, 0)
        assert (result.recall_handle, result.transaction_id) == (None, None)
        headers = one(c).headers[0]
        assert headers["x-mq-client-id"] == "me"
        assert headers["x-kourou-producer-group"] == "makers"
        assert one(c).sends == []


async def test_what_meets_shares_frames_and_nothing_waits_for_company():
    async with stream_cluster() as c, AsyncProducer(c.namesrv, send_timeout_s=60) as producer:
        await producer.send(message("warm"))
        one(c).publish_gate.clear()
        sends = [producer.send(message(f"{n}")) for n in range(5)]
        await until(lambda: len(one(c).requests) == 2)
        for n in range(5, 8):  # each of them alone: there are fewer than four frames under way
            sends.append(producer.send(message(f"{n}")))
            await until(lambda n=n: len(one(c).requests) == n - 2)
        sends += [producer.send(message(f"{n}")) for n in range(8, 3000)]
        await asyncio.sleep(0.05)
        assert counts(one(c)) == [1, 5, 1, 1, 1]
        one(c).publish_gate.set()
        results = await asyncio.gather(*sends)
        assert counts(one(c)) == [1, 5, 1, 1, 1, 2992]
        assert one(c).bodies["t"][1:] == [b"%d" % n for n in range(3000)]
        assert len({result.message_id for result in results}) == 3000
        assert [result.offset for result in results] == list(range(1, 3001))


async def test_frames_have_256_kib_or_4096_messages_or_one_larger_message():
    async with stream_cluster() as c, AsyncProducer(c.namesrv, send_timeout_s=60) as producer:
        await producer.send_many([Message("t", b"x" * 1024)] * 1000)
        assert counts(one(c)) == [256, 256, 256, 232]
        one(c).requests.clear()
        await producer.send_many([Message("t", b"x")] * 5000)
        assert counts(one(c)) == [4096, 904]
        one(c).requests.clear()
        await producer.send_many([Message("t", b"x" * n) for n in (300_000, 10, 300_000, 10, 10)])
        assert counts(one(c)) == [1, 1, 1, 2]
        one(c).requests.clear()
        await producer.send_many([Message("t", b"x", properties={"p": "v" * 100_000})] * 3)
        assert counts(one(c)) == [2, 1], "properties have their weight too"


async def test_the_results_of_many_are_as_a_list():
    async with stream_cluster(brokers=2) as c, AsyncProducer(c.namesrv) as producer:
        results = await producer.send_many([Message("t", b"x" * 100_000) for _ in range(7)])
        assert len(results) == 7
        whole = list(results)
        assert results == whole
        assert results[-1] == whole[6] != whole[5]
        assert results[2:5] == whole[2:5]
        assert results[::-2] == whole[::-2]
        assert [whole.index(result) for result in reversed(results)] == [6, 5, 4, 3, 2, 1, 0]
        with pytest.raises(IndexError):
            results[7]
        assert {result.broker for result in whole} == {"broker-a", "broker-b"}
        assert await producer.send_many([]) == []


async def test_many_of_several_topics_and_types_come_back_in_their_order():
    async with stream_cluster() as c, AsyncProducer(c.namesrv) as producer:
        c.topics["u"] = 1
        due = datetime.now(UTC) + timedelta(hours=1)
        batch = [
            message("0"),
            Message("u", b"1"),
            Message("t", b"2", message_group="g"),
            Message("t", b"3", priority=1),
            Message("t", b"4", priority=2),
            Message("t", b"5", lite_topic="l"),
            Message("t", b"6", delivery_time=due),
            message("7"),
        ]
        results = await producer.send_many(batch)
        by_id: dict[str, bytes] = {}
        for request in one(c).requests:
            columns = Columns(request.headers, request.bodies)
            by_id.update({columns.message_id(n): columns.body(n) for n in range(len(columns))})
        assert [by_id[result.message_id] for result in results] == [m.body for m in batch]
        assert len(one(c).requests) == 7
        assert (results[6].recall_handle or "").startswith("recall-")
        assert (results[6].queue_id, results[6].offset) == (-1, -1)


async def test_a_request_without_an_answer_is_sent_again_with_the_same_ids_to_the_same_broker():
    async with stream_cluster(brokers=2) as c, AsyncProducer(c.namesrv, send_timeout_s=1.5) as producer:
        for lost in (silence, broken):
            for broker in c.brokers:
                assert isinstance(broker, StreamBroker)
                broker.publish_scripts.append(lost)
                broker.requests.clear()
            await producer.send_many([message("a"), message("b")])
            [asked] = [broker for broker in c.brokers if isinstance(broker, StreamBroker) and broker.requests]
            first, second = asked.requests
            assert (first.headers, first.bodies) == (second.headers, second.bodies)
            for broker in c.brokers:
                assert isinstance(broker, StreamBroker)
                broker.publish_scripts.clear()


async def test_a_broker_that_answers_nothing():
    async with stream_cluster() as c, AsyncProducer(c.namesrv, send_timeout_s=0.6) as producer:
        one(c).publish_scripts += [silence] * 10
        with pytest.raises(TimeoutExceeded, match=r"broker-a|did not answer"):
            await producer.send(message())
        one(c).publish_scripts.clear()
        await producer.send(message())


async def test_a_broker_that_restarts_is_reached_again():
    async with stream_cluster() as c, AsyncProducer(c.namesrv, send_timeout_s=20) as producer:
        await producer.send(message("1"))
        await one(c).stop()
        sending = producer.send(message("2"))
        await asyncio.sleep(0.2)
        await one(c).start()
        await sending
        assert one(c).bodies["t"] == [b"1", b"2"]


async def test_a_broker_that_cannot_be_reached_is_left_for_another():
    async with stream_cluster(brokers=2) as c, AsyncProducer(c.namesrv) as producer:
        await c.brokers[0].stop()
        results = await asyncio.gather(*(producer.send(message()) for _ in range(4)))
        assert {result.broker for result in results} == {"broker-b"}


async def test_the_window_is_kept():
    async with stream_cluster() as c, AsyncProducer(c.namesrv, send_timeout_s=60) as producer:
        one(c).window_bytes = 25_000
        one(c).publish_gate.clear()
        sends = [asyncio.create_task(producer.send_many([Message(topic, b"x" * 10_000)])) for topic in ("t",) * 4]
        await until(lambda: len(one(c).requests) == 1)
        sends += [asyncio.create_task(producer.send_many([Message("t", b"x" * 10_000)])) for _ in range(4)]
        await asyncio.sleep(0.1)
        assert sum(len(request.bodies) for request in one(c).requests) <= 40_000
        assert len(one(c).requests) == 1, "a request that is alone may pass it"
        one(c).publish_gate.set()
        await asyncio.gather(*sends)
        assert sum(counts(one(c))) == 8


async def test_a_bad_message_does_not_harm_those_it_travels_with():
    async def picky(request: stream_pb2.PublishRequest, context: Any) -> stream_pb2.PublishResponse | None:
        columns = Columns(request.headers, request.bodies)
        if any(columns.body(n) in (b"13", b"700") for n in range(len(columns))):
            return await refused(v2.MESSAGE_PROPERTIES_TOO_LARGE)(request, context)
        return None

    async with stream_cluster() as c, AsyncProducer(c.namesrv) as producer:
        one(c).publish_scripts += [picky] * 200
        with pytest.raises(PartialFailure) as failure:
            await producer.send_many([message(str(n)) for n in range(1000)])
        failed = [n for n, outcome in enumerate(failure.value.outcomes) if isinstance(outcome, InvalidRequest)]
        assert failed == [13, 700]
        stored = sorted(map(int, one(c).bodies["t"]))
        assert stored == [n for n in range(1000) if n not in failed]
        assert len(one(c).requests) < 60
        one(c).publish_scripts.clear()
        one(c).publish_scripts += [refused(v2.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE)] * 1000
        one(c).requests.clear()
        with pytest.raises(InvalidRequest):
            await producer.send_many([message(str(n)) for n in range(1000)])
        assert len(one(c).requests) <= 65, "it is not asked for each of them"


async def test_a_message_that_fits_into_no_request_does_not_break_the_stream():
    async with stream_cluster() as c, AsyncProducer(c.namesrv) as producer:
        sends = [producer.send(message("a")), producer.send(Message("t", b"x", properties={"p": "v" * (17 << 20)}))]
        outcomes = await asyncio.gather(*sends, return_exceptions=True)
        assert [isinstance(outcome, MessageTooLarge) for outcome in outcomes] == [False, True]
        assert len(one(c).publishing) == 1


async def test_in_a_message_group_one_frame_at_a_time_leaves():
    async with stream_cluster() as c, AsyncProducer(c.namesrv) as producer:
        one(c).publish_gate.clear()
        sends = [producer.send(Message("t", b"0", message_group="g"))]
        await until(lambda: one(c).requests)
        sends += [producer.send(Message("t", b"%d" % n, message_group="g")) for n in range(1, 10)]
        await asyncio.sleep(0.05)
        assert counts(one(c)) == [1]
        one(c).publish_gate.set()
        offsets = [result.offset for result in await asyncio.gather(*sends)]
        assert offsets == sorted(offsets)
        assert counts(one(c)) == [1, 9]
        assert one(c).requests[1].type == v2.FIFO


async def test_a_transaction():
    async with stream_cluster() as c, AsyncProducer(c.namesrv, transaction_checker=_unknown) as producer:
        async with producer.transaction(message()) as transaction:
            assert transaction.result.transaction_id == "tx-0"
            assert (transaction.result.queue_id, transaction.result.offset) == (-1, -1)
        [end] = one(c).ends
        assert (end.transaction_id, end.resolution) == ("tx-0", v2.COMMIT)
        assert one(c).requests[0].type == v2.TRANSACTION
        with pytest.raises(InvalidArgument, match="cannot be part of a transaction"):
            producer.transaction(Message("t", b"x", priority=1))


async def _unknown(message: object) -> TransactionResolution:
    return TransactionResolution.UNKNOWN


async def test_memory_is_bounded():
    limit = 20 * 1024
    async with stream_cluster() as c, AsyncProducer(c.namesrv, send_timeout_s=60, max_waiting_bytes=limit) as producer:
        one(c).publish_gate.clear()
        futures: list[asyncio.Future[Any]] = []

        async def begin() -> None:
            for n in range(100):
                futures.append(await producer.send_soon(Message("t", b"%d" % n)))

        beginning = asyncio.create_task(begin())
        await until(lambda: one(c).requests)
        await asyncio.sleep(0.05)
        assert len(futures) == limit // 512
        waiting = producer.send(message("waits too"))
        await asyncio.sleep(0.05)
        assert sum(counts(one(c))) <= len(futures)
        one(c).publish_gate.set()
        await beginning
        await asyncio.gather(waiting, *futures)
        assert len(one(c).bodies["t"]) == 101


async def test_closing_ends_what_waits_for_memory_or_an_answer():
    async with stream_cluster() as c:
        producer = AsyncProducer(c.namesrv, send_timeout_s=60, max_waiting_bytes=2000)
        one(c).publish_gate.clear()
        sends = [producer.send(message(str(n))) for n in range(20)]
        many = asyncio.create_task(producer.send_many([message()] * 10_000))
        await until(lambda: one(c).requests)
        await producer.close()
        everything: list[asyncio.Future[Any]] = [*sends, many]
        outcomes = await asyncio.wait_for(asyncio.gather(*everything, return_exceptions=True), 5)
        assert {type(outcome) for outcome in outcomes} == {ClosedError}


async def test_what_is_cancelled_before_it_has_left_never_does():
    async with stream_cluster() as c, AsyncProducer(c.namesrv) as producer:
        await producer.send(message("warm"))
        doomed, kept = producer.send(message("doomed")), producer.send(message("kept"))
        doomed.cancel()
        await kept
        assert one(c).bodies["t"] == [b"warm", b"kept"]


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
async def test_bodies_are_packed_if_that_makes_them_smaller(compression):
    async with stream_cluster() as c, AsyncProducer(c.namesrv, compression=compression) as producer:
        await producer.send_many([Message("t", b"hello " * 100)] * 10)
        await producer.send(Message("t", b"x"))
        packed, plain = one(c).requests
        assert len(packed.bodies) < 1000
        assert Columns(packed.headers, packed.bodies).headers.codec != stream_pb2.CODEC_UNSPECIFIED
        assert plain.bodies == b"x"
        assert one(c).bodies["t"] == [b"hello " * 100] * 10 + [b"x"]


async def test_a_compression_that_is_none():
    with pytest.raises(InvalidArgument, match="zstd, lz4"):
        AsyncProducer(compression="gzip")  # type: ignore[arg-type]


async def test_a_broker_without_the_door_is_spoken_to_by_the_other(caplog):
    caplog.set_level("INFO", "kourou")
    async with cluster() as c, AsyncProducer(c.namesrv) as producer:
        results = await producer.send_many([message(str(n)) for n in range(1000)])
        await producer.send(message("last"))
        stored = [m.body for m in c.brokers[0].stored["t"]]
        assert stored == [b"%d" % n for n in range(1000)] + [b"last"]
        assert len({result.message_id for result in results}) == 1000
        told = [record for record in caplog.records if "kourou.stream.v1" in record.getMessage()]
        assert len(told) == 1


async def test_by_the_other_door_when_asked_to():
    async with stream_cluster() as c, AsyncProducer(c.namesrv, door="rocketmq", compression="zstd") as producer:
        await producer.send(message())
        assert one(c).requests == []
        assert len(one(c).sends) == 1


async def test_an_unknown_topic():
    async with stream_cluster() as c, AsyncProducer(c.namesrv) as producer:
        with pytest.raises(TopicNotFound):
            await producer.send(message(topic="nope"))


async def test_namespaces():
    async with stream_cluster() as c, AsyncProducer(c.namesrv, namespace="team") as producer:
        result = await producer.send(message())
        assert result.topic == "t"
        assert one(c).requests[0].topic.resource_namespace == "team"
