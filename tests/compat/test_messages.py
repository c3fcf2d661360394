"""What official clients send is what is received, whoever receives it; and what cannot be sent is refused."""

import asyncio
import time
from collections.abc import Callable

import pytest

from kourou import AsyncProducer, AsyncSimpleConsumer, Message
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.admin.v1 import admin_pb2, admin_rpc
from tests.cluster.cluster import Cluster, Dev
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually
from tests.compat.conftest import NewHost
from tests.compat.official import GO, JAVA, PYTHON, Client, Program, Told, messages

BODIES = [bytes(range(256)), "Zürich ✈".encode(), b"\x00", b"x" * 1_000_000]
MESSAGES: list[Told] = [
    {"body": body.hex(), "tag": "t-1", "keys": [f"key-{number}"], "properties": {"ünï": "✓", "n": str(number)}}
    for number, body in enumerate(BODIES)
]
TYPES: dict[v2.MessageType, Told] = {
    v2.NORMAL: {},
    v2.FIFO: {"group": "g"},
    v2.DELAY: {"deliver_at_ms": int(time.time() + 3600) * 1000},
    v2.PRIORITY: {"priority": 1},
    v2.LITE: {"lite_topic": "l"},
}
"""What makes a message one of that type. A transactional one is so by how it is sent."""


@pytest.mark.parametrize("asynchronously", [False, True], ids=["", "async"])
@pytest.mark.parametrize(
    ("program", "tls"),
    [(PYTHON, None), (PYTHON, True), (JAVA, None), (JAVA, False), (GO, None)],
    ids=["python", "python-tls", "java", "java-plain", "go"],
)
async def test_messages_arrive_as_they_were_sent(
    program: Program,
    tls: bool | None,
    asynchronously: bool,
    host_of: NewHost,
    cluster: Cluster,
    operator: Operator,
    name: str,
) -> None:
    if program is GO and asynchronously:
        pytest.skip("its program has one way only")
    client = Client(host_of(program), cluster, name)
    await operator.create_topic(name)
    for group in (name, f"{name}-ours"):
        await operator.create_group(group)
    how = {"asynchronously": True} if asynchronously else {}
    sent = await client.send(MESSAGES, tls=tls, **how)
    async with AsyncProducer(cluster.namesrv) as producer:
        ours = await producer.send(Message(name, BODIES[0], tag="t", keys=["k"], properties={"p": "✓"}))
    received = {
        each["id"]: each for each in await client.receive(len(BODIES) + 1, tls=tls, asynchronously=asynchronously)
    }
    assert len(received) == len(BODIES) + 1
    for told, message in zip(sent, MESSAGES, strict=True):
        got = received[told["id"]]
        assert {field: got[field] for field in message} == message
        assert got["attempt"] == 1
        assert not got.get("corrupted")
    got = received[ours.message_id]
    assert (got["body"], got["tag"], got["keys"]) == (BODIES[0].hex(), "t", ["k"])
    assert got["properties"] == {"p": "✓"}
    await eventually(lambda: _no_lag(operator, name))
    seen: dict[str, bytes] = {}
    async with AsyncSimpleConsumer(f"{name}-ours", {name: "*"}, cluster.namesrv) as consumer:
        while len(seen) < len(received):
            more = await consumer.receive(wait_s=5)
            seen |= {message.message_id: message.body for message in more}
            await consumer.ack(more)
    assert seen == {id_: bytes.fromhex(each["body"]) for id_, each in received.items()}


async def test_each_topic_takes_its_own_type(client: Client, operator: Operator, name: str) -> None:
    """The client looks at the types of the route by itself."""

    async def send_all(type_: v2.MessageType) -> None:
        topic = f"{name}-{v2.MessageType.Name(type_).lower()}"
        await operator.create_topic(topic, message_type=type_)
        tried = [(other, messages(topic, **fields)) for other, fields in TYPES.items()]
        async with client.producing(topic=topic, answer="UNKNOWN") as producer:
            for other, made in tried:
                await _expect(producer.answer("id", messages=made), other == type_)
            half = producer.answer("id", messages=messages(topic), end="commit")
            await _expect(half, type_ == v2.TRANSACTION)

    async def _expect(answer, taken: bool) -> None:
        told = await answer
        assert ("id" in told) == taken, told
        assert taken or "not match" in told["refused"], told

    await asyncio.gather(*map(send_all, (*TYPES, v2.TRANSACTION)))


async def test_a_topic_made_anew_with_another_type(client: Client, operator: Operator, name: str) -> None:
    """The client has an old route, and the broker refuses what it sends."""
    await operator.create_topic(name, brokers=["broker-a"])
    async with client.producing() as producer:
        assert "id" in await producer.answer("id", messages=messages("taken"))
        await operator.ask_admin(admin_rpc.DELETE_TOPIC, admin_pb2.DeleteTopicRequest(name=v2.Resource(name=name)))
        await operator.create_topic(name, message_type=v2.FIFO, brokers=["broker-a"])
        told = await producer.answer("id", messages=messages("refused"))
        assert any(code in told["refused"] for code in ("40014", "MESSAGE_PROPERTY_CONFLICT_WITH_TYPE")), told
        assert "takes FIFO messages" in told["refused"]


async def test_what_cannot_be_sent(client: Client, operator: Operator, name: str) -> None:
    await operator.create_topic(name)
    too_large = {"body": bytes(4 * 1024 * 1024 + 1).hex()}
    assert "xceeds" in await client.refusal(too_large)
    assert await client.refusal(messages("x")[0], topic=f"{name}-unknown")
    assert await client.send(messages("y"))


async def test_the_local_cluster(new_dev: Callable[..., Dev], host_of: NewHost) -> None:
    """As the README has it: one endpoint, and the group is made when it is first used."""
    dev = new_dev()
    await asyncio.to_thread(dev.kourou, "topic", "create", "hello")
    client = Client(host_of(PYTHON), dev, "hello")
    async with client.listening() as listener:
        sent = await client.send(messages(*map(str, range(20))))
        heard = await listener.until_heard(20)
    assert {each["id"] for each in heard} == {each["id"] for each in sent}


async def _no_lag(operator: Operator, name: str) -> bool:
    return await operator.lag(name, name) == 0
