"""What a group could not consume, listed and given back by the command."""

import json
from collections import Counter

from kourou import AsyncProducer, AsyncPushConsumer, Message, ReceivedMessage
from tests.cluster.cluster import Cluster
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually


async def test_resent_to_one_group(cluster: Cluster, operator: Operator, name: str) -> None:
    others = f"{name}-others"
    await operator.create_topic(name, 2)
    for group in (name, others):
        cluster.kourou("group", "create", group, "--max-attempts", "2", "--backoff", "0s")
    mended = False
    heard, heard_by_others = Counter[bytes](), Counter[bytes]()

    async def fail(message: ReceivedMessage) -> bool:
        if mended:
            heard[message.body] += 1
        return mended

    async def take(message: ReceivedMessage) -> None:
        heard_by_others[message.body] += 1

    def letters() -> list[dict[str, str]]:
        return json.loads(cluster.kourou("group", "dead-letters", name, "--json").stdout)

    bodies = [f"{number}".encode() for number in range(10)]
    async with (
        AsyncProducer(cluster.namesrv) as producer,
        AsyncPushConsumer(name, {name: "*"}, fail, cluster.namesrv),
        AsyncPushConsumer(others, {name: "*"}, take, cluster.namesrv),
    ):
        await producer.send_many([Message(name, body) for body in bodies])
        await eventually(lambda: len(letters()) == 10, 20, 0.5)
        assert {letter["origin_topic"] for letter in letters()} == {name}
        mended = True
        first = letters()[0]
        cluster.kourou("group", "resend", name, "--id", first["message_id"])
        await eventually(lambda: heard == {first["body"].encode(): 1}, 20)
        assert len(letters()) == 9
        out = cluster.kourou("group", "resend", name, "--all").stdout
        assert out == f"9 dead letters were given back to group {name}\n"
        await eventually(lambda: heard == dict.fromkeys(bodies, 1), 20)
        assert letters() == []
        assert heard_by_others == dict.fromkeys(bodies, 1)
