"""A message sent again to the broker that has it stays one message, also when the broker was killed in between."""

import asyncio
import json
from collections.abc import Callable

from kourou.message_id import new_message_id
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2, service_rpc
from tests.cluster.cluster import Cluster
from tests.cluster.operator_client import Operator


async def test_sent_again_after_a_kill(new_cluster: Callable[..., Cluster]) -> None:
    cluster = new_cluster(namesrvs=1, brokers=1)
    broker = cluster.broker("broker-a")
    messages = [
        v2.Message(
            topic=v2.Resource(name="orders"),
            system_properties=v2.SystemProperties(message_id=new_message_id(), message_type=v2.NORMAL),
            body=b"x",
        )
        for _ in range(3)
    ]
    async with Operator(cluster) as operator:
        await operator.create_topic("orders", queues=4)
        request = service_pb2.SendMessageRequest(messages=messages)
        # At the same time, and one after the other.
        first, joined = await asyncio.gather(
            operator.ask(broker.address, service_rpc.SEND_MESSAGE, request),
            operator.ask(broker.address, service_rpc.SEND_MESSAGE, request),
        )
        assert await operator.ask(broker.address, service_rpc.SEND_MESSAGE, request) == first == joined
        await asyncio.to_thread(broker.kill)
        await asyncio.to_thread(broker.start)
        request.messages.add().CopyFrom(messages[0])
        request.messages[-1].system_properties.message_id = new_message_id()
        after = await operator.ask(broker.address, service_rpc.SEND_MESSAGE, request)
        assert after.entries[:3] == first.entries[:]
        assert (await operator.describe(broker.address)).stored_messages == 1
        for message in request.messages:
            id_ = message.system_properties.message_id
            found = cluster.kourou("message", "find", "--topic", "orders", "--id", id_, "--json").stdout
            assert len(json.loads(found)) == 1
