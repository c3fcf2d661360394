"""Lite topics by official clients. The Java client has a push consumer for them, the Python client a simple one, too;
and that one tells its access point alone what it reads."""

from collections.abc import Sequence
from typing import Any

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.admin.v1 import admin_pb2, admin_rpc
from kourou.protocol.kourou.log.v1 import record_pb2
from tests.cluster.cluster import Cluster
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually
from tests.compat.conftest import NewHost
from tests.compat.official import PYTHON, Client, Told, bodies, messages

# These clients spread a lite topic over the brokers, so its messages have an order on one of them only.
ONE_BROKER = ["broker-a"]
EACH = 4


async def make(operator: Operator, name: str, brokers: Sequence[str] = (), **lite: Any) -> None:
    await operator.create_topic(name, message_type=v2.LITE, brokers=brokers)
    settings = admin_pb2.GroupSettings(lite=record_pb2.LiteGroup(topic=v2.Resource(name=name), **lite))
    settings.backoff.customized_backoff.next.add(seconds=1)
    request = admin_pb2.CreateGroupRequest(name=v2.Resource(name=name), settings=settings)
    await operator.ask_admin(admin_rpc.CREATE_GROUP, request)


def made(lite_topics: str, kind: str = "ok") -> list[Told]:
    return [
        message
        for number in range(EACH)
        for lite_topic in lite_topics
        for message in messages(f"{kind} {lite_topic}{number}", lite_topic=lite_topic)
    ]


async def test_a_listener_hears_what_it_subscribes_to(client: Client, operator: Operator, name: str) -> None:
    await make(operator, name, ONE_BROKER)
    async with client.producing() as producer, client.listening(lite_topics=["a", "b"]) as listener:
        producer.tell(messages=[*made("abc"), *made("b", "bad")])
        await listener.until_heard(4 * EACH)
        await eventually(lambda: _all_settled(operator, name))
        for lite_topic in "ab":
            came = bodies([each for each in listener.heard if each["lite_topic"] == lite_topic])
            good = [body for body in came if body.startswith("ok")]
            assert good == [f"ok {lite_topic}{number}" for number in range(EACH)], "in order"
            bad = [body for body in came if body.startswith("bad")]
            assert bad == ([f"bad b{number}" for number in range(EACH) for _ in range(2)] if lite_topic == "b" else [])
        assert await listener.answer("unsubscribed", unsubscribe="a") == {"unsubscribed": "a"}
        assert await listener.answer("subscribed", subscribe="c") == {"subscribed": "c"}
        producer.tell(messages=made("ab", "then"))
        await listener.until_heard(4 * EACH + EACH + EACH)
        await eventually(lambda: _all_settled(operator, name, but=EACH))
        after = listener.heard[4 * EACH :]
        wanted = [f"ok c{number}" for number in range(EACH)] + [f"then b{number}" for number in range(EACH)]
        assert sorted(bodies(after)) == wanted, "of what it unsubscribed nothing more comes"


async def test_a_client_reads_no_more_than_its_quota(client: Client, operator: Operator, name: str) -> None:
    await make(operator, name, ONE_BROKER, subscription_quota=2)
    async with client.listening(lite_topics=["a"]) as listener:
        assert "subscribed" in await listener.answer("subscribed", subscribe="b")
        refused = await listener.answer("subscribed", subscribe="c")
        assert "quota" in refused["refused"].lower()
        assert "unsubscribed" in await listener.answer("unsubscribed", unsubscribe="a")
        assert "subscribed" in await listener.answer("subscribed", subscribe="c")
        await client.send(made("abc"))
        await listener.until_heard(2 * EACH)
        await eventually(lambda: _all_settled(operator, name))
    assert {each["lite_topic"] for each in listener.heard} == {"b", "c"}


async def test_the_last_to_subscribe_has_it_alone(client: Client, operator: Operator, name: str) -> None:
    await make(operator, name, ONE_BROKER, exclusive=True)
    async with client.producing() as producer, client.listening(lite_topics=["a", "b"]) as first:
        producer.tell(messages=made("ab"))
        await first.until_heard(2 * EACH)
        await eventually(lambda: _all_settled(operator, name))
        async with client.listening(lite_topics=["a"]) as second:
            producer.tell(messages=made("ab", "then"))
            await second.until_heard(EACH)
            await first.until_heard(3 * EACH)
            await eventually(lambda: _all_settled(operator, name))
            assert bodies(second.heard) == [f"then a{number}" for number in range(EACH)]
            assert {each["lite_topic"] for each in first.heard[2 * EACH :]} == {"b"}


async def test_a_simple_consumer(host_of: NewHost, cluster: Cluster, operator: Operator, name: str) -> None:
    """It asks one broker only: that of the first queue of the route."""
    client = Client(host_of(PYTHON), cluster, name)
    await make(operator, name, ONE_BROKER, subscription_quota=2)
    await client.send(made("abc"))
    async with client.running("simple", lite=True) as consumer:
        for lite_topic in "ab":
            assert "subscribed" in await consumer.answer("subscribed", subscribe=lite_topic)
        assert "quota" in (await consumer.answer("subscribed", subscribe="c"))["refused"]

        async def received(count: int) -> list[Told]:
            before = len(consumer.heard)
            for _ in range(2 * count):
                if len(consumer.heard) < before + count:
                    await consumer.answer("received", receive=32, invisible_s=30, ack=True)
            return consumer.heard[before:]

        assert {each["lite_topic"] for each in await received(2 * EACH)} == {"a", "b"}
        assert await operator.lag(name, name) == 0
        assert "unsubscribed" in await consumer.answer("unsubscribed", unsubscribe="a")
        await client.send(made("ab", "then"))
        assert bodies(await received(EACH)) == [f"then b{number}" for number in range(EACH)]
        assert await received(1) == []


async def _all_settled(operator: Operator, name: str, but: int = 0) -> bool:
    """Of the lite topics that were ever read, except so many messages."""
    return await operator.lag(name, name) == but
