import asyncio
import threading
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from grpc import StatusCode

from kourou import (
    AsyncProducer,
    InvalidArgument,
    InvalidRequest,
    Message,
    Producer,
    ReceivedMessage,
    TopicNotFound,
    TransactionResolution,
)
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2
from tests.unit.client.fake import Broker, abort, cluster, refuse, until

COMMIT, ROLLBACK, UNKNOWN = TransactionResolution


async def never(message: ReceivedMessage) -> TransactionResolution:
    raise AssertionError("nobody asked")


def message(body: bytes = b"x") -> Message:
    return Message("t", body, keys=["order-1"])


def ended(broker: Broker) -> list[tuple[str, int, int]]:
    return [(end.transaction_id, end.resolution, end.source) for end in broker.ends]


async def test_a_block_that_ends_well_commits_at_the_broker_that_has_the_message():
    async with cluster(brokers=2) as c, AsyncProducer(c.namesrv, transaction_checker=never) as producer:
        for turn in range(4):
            async with producer.transaction(message()) as transaction:
                result = transaction.result
                assert (result.transaction_id, result.queue_id) == (f"tx-{turn // 2}", -1)
                assert [end for broker in c.brokers for end in broker.ends if end.message_id == result.message_id] == []
            [home] = [broker for broker in c.brokers if broker.name == result.broker]
            assert home.ends[-1].message_id == result.message_id
            assert home.ends[-1].topic.name == "t"
        for broker in c.brokers:
            assert ended(broker) == [(f"tx-{n}", v2.COMMIT, v2.SOURCE_CLIENT) for n in range(2)]
            for request in broker.sends:
                assert [m.system_properties.message_type for m in request.messages] == [v2.TRANSACTION]


async def test_half_messages_share_no_request():
    async with cluster() as c, AsyncProducer(c.namesrv, transaction_checker=never) as producer:

        async def one() -> None:
            async with producer.transaction(message()):
                pass

        await asyncio.gather(*(one() for _ in range(20)))
        assert [len(request.messages) for request in c.brokers[0].sends] == [1] * 20
        assert len(c.brokers[0].ends) == 20


async def test_rollback_drops_it():
    async with cluster() as c, AsyncProducer(c.namesrv, transaction_checker=never) as producer:
        async with producer.transaction(message()) as transaction:
            transaction.rollback()
        with suppress(KeyError):
            async with producer.transaction(message()) as transaction:
                transaction.rollback()
                raise KeyError("and an exception")
        assert ended(c.brokers[0]) == [(f"tx-{n}", v2.ROLLBACK, v2.SOURCE_CLIENT) for n in range(2)]


async def test_an_exception_leaves_it_to_the_checker():
    """It does not tell whether the other part has happened."""
    asked: list[ReceivedMessage] = []

    async def check(orphan: ReceivedMessage) -> TransactionResolution:
        asked.append(orphan)
        return COMMIT

    async with cluster() as c, AsyncProducer(c.namesrv, transaction_checker=check) as producer:
        broker = c.brokers[0]
        with pytest.raises(ValueError, match="lost its connection"):
            async with producer.transaction(message(b"body")):
                raise ValueError("the database lost its connection while it committed")
        assert broker.ends == []
        await _ask(broker, "tx-0")
        await until(lambda: broker.ends)
        assert ended(broker) == [("tx-0", v2.COMMIT, v2.SOURCE_SERVER_CHECK)]
        [orphan] = asked
        assert (orphan.topic, orphan.body, orphan.keys, orphan.broker) == ("t", b"body", ("order-1",), "broker-a")
        assert broker.ends[0].message_id == orphan.message_id


async def _ask(broker: Broker, transaction_id: str) -> None:
    orphan = broker.stored["t"][-1] if broker.stored["t"] else v2.Message(topic=v2.Resource(name="t"), body=b"x")
    command = service_pb2.RecoverOrphanedTransactionCommand(message=orphan, transaction_id=transaction_id)
    await broker.tell(service_pb2.TelemetryCommand(recover_orphaned_transaction_command=command))


async def test_a_producer_that_sent_nothing_answers_for_the_topics_it_names():
    threads: list[str] = []

    def check(orphan: ReceivedMessage) -> TransactionResolution:
        threads.append(threading.current_thread().name)
        return ROLLBACK

    async with cluster() as c, AsyncProducer(c.namesrv, transaction_checker=check, topics=["t"]) as producer:
        broker = c.brokers[0]
        assert [topic.name for topic in broker.settings[0].publishing.topics] == ["t"]
        await _ask(broker, "tx-9")
        await until(lambda: broker.ends)
        assert ended(broker) == [("tx-9", v2.ROLLBACK, v2.SOURCE_SERVER_CHECK)]
        assert threads[0].startswith("kourou transaction checker")
        assert producer.client_id


async def test_what_the_checker_does_not_know_stays_open(caplog: pytest.LogCaptureFixture):
    answers = iter([UNKNOWN, ValueError("as in a checker with a bug"), True, SystemExit(1), COMMIT])

    def check(orphan: ReceivedMessage) -> TransactionResolution:
        answer = next(answers)
        if isinstance(answer, BaseException):
            raise answer
        return answer  # pyright: ignore[reportReturnType]

    async with cluster() as c, AsyncProducer(c.namesrv, transaction_checker=check, topics=["t"]):
        broker = c.brokers[0]
        for count in range(5):
            await _ask(broker, f"tx-{count}")
        await until(lambda: broker.ends)
        assert ended(broker) == [("tx-4", v2.COMMIT, v2.SOURCE_SERVER_CHECK)]
    assert caplog.text.count("the transaction checker failed") == 2
    assert caplog.text.count("returned True") == 1


async def test_a_producer_without_a_checker_says_that_it_was_asked(caplog: pytest.LogCaptureFixture):
    async with cluster() as c, AsyncProducer(c.namesrv, topics=["t"]):
        await _ask(c.brokers[0], "tx-1")
        await until(lambda: "has no transaction_checker" in caplog.text)
        assert c.brokers[0].ends == []


async def test_a_slow_checker_is_not_asked_twice_at_a_time():
    gate, calls = asyncio.Event(), 0

    async def check(orphan: ReceivedMessage) -> TransactionResolution:
        nonlocal calls
        calls += 1
        await gate.wait()
        return COMMIT

    async with cluster() as c, AsyncProducer(c.namesrv, transaction_checker=check, topics=["t"]):
        broker = c.brokers[0]
        for _ in range(3):
            await _ask(broker, "tx-1")
        await _ask(broker, "tx-2")
        await until(lambda: calls == 2)
        gate.set()
        await until(lambda: len(broker.ends) == 2)
        assert calls == 2
        await _ask(broker, "tx-1")
        await until(lambda: calls == 3)


async def test_a_commit_is_tried_again_and_then_left_to_the_broker(caplog: pytest.LogCaptureFixture):
    async with cluster() as c, AsyncProducer(c.namesrv, transaction_checker=never) as producer:
        broker = c.brokers[0]
        broker.end_statuses += [v2.Status(code=v2.TOO_MANY_REQUESTS), v2.Status(code=v2.INTERNAL_ERROR)]
        async with producer.transaction(message()):
            pass
        assert len(broker.ends) == 3
        async with producer.transaction(message(), timeout_s=0.5):
            await broker.stop()
    assert "which will ask the transaction checker" in caplog.text


async def test_a_transaction_that_the_broker_ended_otherwise_is_an_error():
    async with cluster() as c, AsyncProducer(c.namesrv, transaction_checker=never) as producer:
        c.brokers[0].end_statuses.append(v2.Status(code=v2.INVALID_TRANSACTION_ID, message="rolled back already"))
        with pytest.raises(InvalidRequest, match="rolled back already"):
            async with producer.transaction(message()):
                pass


async def test_the_block_does_not_begin_when_the_message_is_not_stored():
    begun = False
    async with cluster() as c, AsyncProducer(c.namesrv, transaction_checker=never) as producer:
        c.brokers[0].send_scripts.append(refuse(v2.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE, "the topic takes normal ones"))
        with pytest.raises(InvalidRequest, match="takes normal"):
            async with producer.transaction(message()):
                begun = True
        with pytest.raises(TopicNotFound):
            async with producer.transaction(Message("nope", b"x")):
                begun = True
        assert not begun
        c.brokers[0].send_scripts.append(abort(StatusCode.UNAVAILABLE))
        async with producer.transaction(message()):
            pass


async def test_misuse_is_refused():
    async with cluster() as c, AsyncProducer(c.namesrv, transaction_checker=never) as producer:
        transaction = producer.transaction(message())
        with pytest.raises(RuntimeError, match="begins with its block"):
            _ = transaction.result
        async with transaction:
            pass
        with pytest.raises(RuntimeError, match="one message and one block"):
            await transaction.__aenter__()
        with pytest.raises(InvalidArgument, match="a delay message"):
            producer.transaction(Message("t", b"x", delivery_time=datetime.now(UTC)))
    async with AsyncProducer(c.namesrv) as producer:
        with pytest.raises(InvalidArgument, match="without transaction_checker"):
            producer.transaction(message())
    with pytest.raises(InvalidArgument, match="topic name"):
        AsyncProducer(c.namesrv, topics=["no spaces"])


async def test_a_topic_that_is_named_has_to_exist():
    async with cluster() as c:
        with pytest.raises(TopicNotFound):
            async with AsyncProducer(c.namesrv, topics=["nope"]):
                pass


async def test_the_blocking_form():
    async with cluster() as c:

        def work() -> str:
            with Producer(c.namesrv, transaction_checker=lambda orphan: UNKNOWN, topics=["t"]) as producer:
                with producer.transaction(message()) as transaction:
                    pass
                with pytest.raises(KeyError), producer.transaction(message()):
                    raise KeyError
                with producer.transaction(message()) as rolled_back:
                    rolled_back.rollback()
                return transaction.result.message_id

        message_id = await asyncio.to_thread(work)
        assert [end.resolution for end in c.brokers[0].ends] == [v2.COMMIT, v2.ROLLBACK]
        assert c.brokers[0].ends[0].message_id == message_id
