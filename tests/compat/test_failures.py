"""What listeners of official clients fail on: tried again by the group's policy, then among the dead letters."""

import asyncio
from itertools import pairwise

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.admin.v1 import admin_pb2, admin_rpc
from tests.cluster.cluster import Cluster
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually
from tests.compat.official import Client, Told, bodies, messages

OTHERS = [f"ok {number}" for number in range(20)]


async def buried(operator: Operator, group: str) -> list[str]:
    """The bodies of the group's dead letters, sorted; all of them are of the topic with the group's name."""
    request = admin_pb2.ListDeadLettersRequest(group=v2.Resource(name=group))
    answer = await operator.ask_admin(admin_rpc.LIST_DEAD_LETTERS, request)
    assert {entry.letter.origin_topic.name for entry in answer.letters} <= {group}
    return sorted(entry.letter.message.body.decode() for entry in answer.letters)


def waits_ms(tried: list[Told]) -> list[int]:
    return [later["at_ms"] - earlier["at_ms"] for earlier, later in pairwise(tried)]


async def test_what_fails_is_tried_again_and_buried_and_resent(
    client: Client, cluster: Cluster, operator: Operator, name: str
) -> None:
    await operator.create_topic(name)
    await operator.create_group(name, max_attempts=3, backoff_s=(1, 2))
    async with client.listening() as listener:
        sent = await client.send([*messages("dead", properties={"p": "v"}), *messages("bad", *OTHERS)])

        def dead() -> list[Told]:
            return [result for result in listener.heard if result["id"] == sent[0]["id"]]

        # While somebody listens: what has no attempts left is buried when a member asks for more.
        await eventually(lambda: _is_buried(operator, name), 30)
        await eventually(lambda: _all_settled(operator, name))
        assert [result["attempt"] for result in dead()] == [1, 2, 3]
        assert waits_ms(dead())[0] >= 900
        assert waits_ms(dead())[1] >= 1900
        rest = [result for result in listener.heard if result not in dead()]
        assert sorted(bodies(rest)) == sorted(["bad", "bad", *OTHERS])
        assert sorted(result["attempt"] for result in rest if bodies([result]) == ["bad"]) == [1, 2]

        readers = await operator.create_group(f"{name}-readers")
        [letter] = await client.receive(1, topic=f"%DLQ%{name}", group=readers)
        assert (letter["topic"], bodies([letter])) == (f"%DLQ%{name}", ["dead"])
        origin = {field for field in letter["properties"] if field.startswith("DLQ_ORIGIN_")}
        assert origin == {"DLQ_ORIGIN_TOPIC_ID", "DLQ_ORIGIN_QUEUE_ID", "DLQ_ORIGIN_QUEUE_OFFSET"}
        assert {field: value for field, value in letter["properties"].items() if field not in origin} == {"p": "v"}

        listener.tell(mended=True)
        await asyncio.to_thread(cluster.kourou, "group", "resend", name, "--all")
        await eventually(lambda: len(dead()) == 4, 20)
        again = dead()[3]
        assert (again["attempt"], again["topic"], again["properties"]) == (1, name, {"p": "v"})
        await eventually(lambda: _all_settled(operator, name))
    assert await buried(operator, name) == []


async def test_a_backoff_that_grows(client: Client, cluster: Cluster, operator: Operator, name: str) -> None:
    """The Python client knows steps only: the broker spells them out for it."""
    await operator.create_topic(name)
    backoff = ("--backoff", "exponential:1s,2,3s", "--max-attempts", "4")
    await asyncio.to_thread(cluster.kourou, "group", "create", name, *backoff)
    async with client.listening() as listener:
        await client.send(messages("dead"))
        await eventually(lambda: _is_buried(operator, name), 30)
    assert [result["attempt"] for result in listener.heard] == [1, 2, 3, 4]
    assert all(wait >= least for wait, least in zip(waits_ms(listener.heard), (900, 1900, 2900), strict=True))


async def _is_buried(operator: Operator, name: str) -> bool:
    return await buried(operator, name) == ["dead"]


async def _all_settled(operator: Operator, name: str) -> bool:
    return await operator.lag(name, name) == 0
