"""What brokers say to running official clients, which they know by their telemetry streams."""

import asyncio

import pytest

from kourou import KourouError
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.admin.v1 import admin_pb2, admin_rpc
from tests.cluster.cluster import Cluster
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually
from tests.compat.official import JAVA, Client, Run, Told, bodies, messages
from tests.compat.test_failures import waits_ms


async def test_settings_reach_a_running_member(client: Client, cluster: Cluster, operator: Operator, name: str) -> None:
    """The backoff is the client's own to keep: it says for how long it gives a message back."""
    await operator.create_topic(name)
    await operator.create_group(name, backoff_s=[1])

    async def stays_away_ms(listener: Run, body: str) -> int:
        await client.send(messages(body))

        def tried() -> list[Told]:
            return [result for result in listener.heard if bodies([result]) == [body]]

        await eventually(lambda: len(tried()) == 2, 30)
        return waits_ms(tried())[0]

    async def change_backoff(text: str) -> None:
        await asyncio.to_thread(cluster.kourou, "group", "change", name, "--backoff", text)

    async with client.listening() as listener:
        assert 900 <= await stays_away_ms(listener, "bad 1") < 3900
        await change_backoff("4s")
        if client.program is JAVA:
            assert await stays_away_ms(listener, "bad 2") >= 3900
            await change_backoff("1s")
            assert 900 <= await stays_away_ms(listener, "bad 3") < 3900
        else:
            # The first settings that it reads break the loop that reads them: it goes on with what it knows.
            assert 900 <= await stays_away_ms(listener, "bad 2") < 3900
    if client.program is not JAVA:
        async with client.listening() as listener:
            assert await stays_away_ms(listener, "bad 3") >= 3900


async def test_commands_of_operators(client: Client, operator: Operator, name: str) -> None:
    """The Java client does what it is told; the Python client knows none of them, and goes on."""
    await operator.create_topic(name, brokers=["broker-a"])
    await operator.create_group(name)
    async with client.listening() as listener, client.producing() as producer:
        good = await producer.answer("id", messages=messages("good"))
        dead = await producer.answer("id", messages=messages("dead"))
        await listener.until_heard(2)
        request = admin_pb2.ListClientsRequest(group=v2.Resource(name=name))
        members = await operator.ask_admin(admin_rpc.LIST_CLIENTS, request)
        (client_id,) = {each.client.client_id for each in members.clients}
        trace = admin_pb2.PrintThreadStackTraceRequest(client_id=client_id)
        tries = [
            admin_pb2.VerifyMessageRequest(client_id=client_id, topic=v2.Resource(name=name), message_id=message["id"])
            for message in (good, dead)
        ]
        stack = operator.ask_admin(admin_rpc.PRINT_THREAD_STACK_TRACE, trace)
        verified, failed = (operator.ask_admin(admin_rpc.VERIFY_MESSAGE, each) for each in tries)
        if client.program is JAVA:
            assert "org.apache.rocketmq" in (await stack).stack_trace
            heard = bodies(listener.heard).count("good")
            await verified
            assert bodies(listener.heard).count("good") == heard + 1
            with pytest.raises(KourouError, match="FAILED_TO_CONSUME_MESSAGE"):
                await failed
        else:
            for answer in await asyncio.gather(stack, verified, failed, return_exceptions=True):
                assert "no answer within" in str(answer)
        await operator.ask_admin(admin_rpc.RECONNECT_CLIENT, admin_pb2.ReconnectClientRequest(client_id=client_id))
        after = await producer.answer("id", messages=messages("after"))
        await eventually(lambda: after["id"] in {each["id"] for each in listener.heard}, 20)
