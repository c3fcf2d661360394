import asyncio
import inspect
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

import kourou
from kourou import Message, Producer, PushConsumer, ReceivedMessage, SimpleConsumer, portal
from tests.unit.client.fake import cluster, received, until
from tests.unit.client.fake_stream import StreamBroker, stream_cluster


async def test_producer_from_many_threads():
    async with cluster() as c:

        def work() -> list[kourou.SendResult]:
            with Producer(c.namesrv) as producer, ThreadPoolExecutor(8) as threads:
                results = list(threads.map(lambda i: producer.send(Message("t", b"%d" % i)), range(100)))
                return [*results, *producer.send_many([Message("t", b"x")] * 10)]

        results = await asyncio.to_thread(work)
        assert len({result.message_id for result in results}) == 110
        assert len(c.brokers[0].stored["t"]) == 110


async def test_futures_and_a_bound_on_what_waits():
    async with stream_cluster() as c:
        broker = c.brokers[0]
        assert isinstance(broker, StreamBroker)
        broker.publish_gate.clear()

        def work(producer: Producer) -> list[Future[kourou.SendResult]]:
            return [producer.send_soon(Message("t", b"%d" % n)) for n in range(100)]

        with Producer(c.namesrv, max_waiting_bytes=20 * 1024) as producer:
            working = asyncio.create_task(asyncio.to_thread(work, producer))
            await until(lambda: broker.requests)
            await asyncio.sleep(0.05)
            assert not working.done()
            broker.publish_gate.set()
            futures = await working
            results = await asyncio.to_thread(lambda: [future.result() for future in futures])
            assert [result.offset for result in results] == list(range(100))
            lost = await asyncio.to_thread(lambda: producer.send_soon(Message("nope", b"x")).exception())
            assert isinstance(lost, kourou.TopicNotFound)
            doomed = await asyncio.to_thread(lambda: producer.send_soon(Message("t", b"doomed")))
            doomed.cancel()
            await asyncio.to_thread(lambda: producer.send(Message("t", b"last")))
        assert len(broker.bodies["t"]) in (101, 102)
        late = await asyncio.to_thread(lambda: producer.send_soon(Message("t", b"x")).exception())
        assert isinstance(late, kourou.ClosedError)


async def test_simple_consumer():
    async with cluster() as c:
        c.brokers[0].ready["t"] += [received("t", b"1", "h1"), received("t", b"2", "h2")]

        def work() -> list[bytes]:
            with SimpleConsumer("g", {"t": "*"}, c.namesrv) as consumer:
                messages = consumer.receive(wait_s=2)
                consumer.change_invisible_duration(messages[0], 0)
                consumer.ack(messages)
                return [message.body for message in messages]

        assert await asyncio.to_thread(work) == [b"1", b"2"]
        assert [entry.receipt_handle for entry in c.brokers[0].acks[0].entries] == ["h1+", "h2"]


async def test_push_consumer_may_send_from_its_listener():
    async with cluster() as c:
        c.brokers[0].assign = lambda topic: [c.brokers[0].queue(topic, -1)]
        c.brokers[0].ready["t"].append(received("t", b"in", "h"))
        c.topics["out"] = 1
        done = threading.Event()

        def work() -> None:
            with Producer(c.namesrv) as producer:

                def listener(message: ReceivedMessage) -> None:
                    producer.send(Message("out", message.body))
                    done.set()

                with PushConsumer("g", {"t": "*"}, listener, c.namesrv):
                    assert done.wait(10)

        await asyncio.to_thread(work)
        assert [m.body for m in c.brokers[0].stored["out"]] == [b"in"]


async def test_errors_come_through():
    async with cluster() as c:

        def work() -> None:
            with Producer(c.namesrv) as producer:
                producer.send(Message("nope", b"x"))

        with pytest.raises(kourou.TopicNotFound):
            await asyncio.to_thread(work)


def test_not_on_the_loop_of_the_clients():
    async def misuse() -> None:
        portal.run(asyncio.sleep(0))

    with pytest.raises(RuntimeError, match="wait for itself"):
        portal.run(misuse())


@pytest.mark.parametrize(
    "name", ["Producer", "SimpleConsumer", "PushConsumer", "LiteSimpleConsumer", "LitePushConsumer", "Transaction"]
)
def test_the_same_methods_with_the_same_signatures(name: str):
    blocking, asynchronous = getattr(kourou, name), getattr(kourou, f"Async{name}")
    public = {key for key in dir(asynchronous) if not key.startswith("_")}
    assert public == {key for key in dir(blocking) if not key.startswith("_")}
    for key in [*public, "__init__"] if name != "Transaction" else public:
        if callable(getattr(blocking, key)):
            of_sibling = str(inspect.signature(getattr(asynchronous, key))).replace("AsyncTransaction", "Transaction")
            # What is awaited there is waited for here.
            awaited = "asyncio.Future[SendResult]" if key == "send" else "asyncio."
            of_sibling = of_sibling.replace(awaited, "SendResult" if key == "send" else "")
            assert str(inspect.signature(getattr(blocking, key))) == of_sibling


def test_a_program_that_forgets_to_close_still_ends():
    script = (
        "from kourou import Producer, Message, KourouError\n"
        "p = Producer('127.0.0.1:1', send_timeout_s=0.2)\n"
        "try: p.send(Message('t', b'x'))\nexcept KourouError as error: print(type(error).__name__)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert (run.stdout.strip(), run.stderr, run.returncode) == ("ConnectionFailed", "", 0)
