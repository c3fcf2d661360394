"""Commands of operators to single clients, by way of the admin service and a broker."""

import asyncio
import json
import subprocess

from kourou import AsyncProducer, AsyncPushConsumer, Message, ReceivedMessage
from tests.cluster.cluster import Cluster
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually


async def kourou(cluster: Cluster, *args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """The client that is meant answers meanwhile, on this loop."""
    return await asyncio.to_thread(cluster.kourou, *args, code=code)


async def test_commands_to_a_consumer(cluster: Cluster, operator: Operator, name: str) -> None:
    await operator.create_topic(name)
    await operator.create_group(name)
    heard: list[bytes] = []

    def listen(message: ReceivedMessage) -> bool:
        heard.append(message.body)
        return len(heard) < 3

    async with AsyncProducer(cluster.namesrv) as producer:
        sent = await producer.send(Message(name, b"try me"))
    async with AsyncPushConsumer(name, {name: "*"}, listen, cluster.namesrv) as consumer:
        await eventually(lambda: heard == [b"try me"])
        me = consumer.client_id
        stack = await kourou(cluster, "client", "stack", me, "--json")
        assert json.loads(stack.stdout)["stack_trace"].count("test_client_commands.py")
        await kourou(cluster, "client", "verify", me, name, sent.message_id)
        assert heard == [b"try me"] * 2
        failed = await kourou(cluster, "client", "verify", me, name, sent.message_id, code=1)
        assert "FAILED_TO_CONSUME_MESSAGE" in failed.stderr
        await kourou(cluster, "client", "reconnect", me)
        await kourou(cluster, "client", "stack", "nobody", code=1)
    assert await operator.lag(name, name) == 0
