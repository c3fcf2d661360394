"""Commands to clients go by a broker that can pass them on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import Message

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.admin.v1.admin_pb2 import (
    PrintThreadStackTraceRequest,
    ReconnectClientRequest,
    VerifyMessageRequest,
)
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou_admin.commands import Commands
from kourou_service.refusal import Refused
from tests.unit.admin.fake_cluster import OK, FakeNetwork

TOPIC = v2.Resource(name="flights")
STACK = broker_rpc.PRINT_THREAD_STACK_TRACE.path


def _no(code: int, text: str = "no") -> v2.Status:
    return v2.Status(code=code, message=text)  # type: ignore[arg-type]


@pytest.fixture
def network() -> FakeNetwork:
    """Client c is connected to b and c, not to a."""
    network = FakeNetwork("broker-a", "broker-b", "broker-c")
    for broker in network.brokers.values():
        clients = [broker_pb2.Client(client_id="other"), broker_pb2.Client(client_id="c")]
        broker.answers[broker_rpc.LIST_CLIENTS.path] = _always(
            broker_pb2.ListClientsResponse(status=OK, clients=clients[: 1 if broker.name == "broker-a" else 2])
        )
    return network


def _always(answer: Message) -> Callable[[Any], Message]:
    return lambda _request: answer


def _stack(status: v2.Status = OK, text: str = "") -> Callable[[Any], Message]:
    return _always(broker_pb2.PrintThreadStackTraceResponse(status=status, stack_trace=text))


async def test_the_next_broker_is_asked_when_the_first_has_no_stream(network: FakeNetwork) -> None:
    network.brokers["broker-b"].answers[STACK] = _stack(_no(v2.PRECONDITION_FAILED))
    network.brokers["broker-c"].answers[STACK] = _stack(text="main: x")
    commands = Commands(network.cluster(), 1.0)
    response = await commands.print_thread_stack_trace(PrintThreadStackTraceRequest(client_id="c"))
    assert (response.status.code, response.broker, response.stack_trace) == (v2.OK, "broker-c", "main: x")
    assert STACK not in dict(network.brokers["broker-a"].asked)


async def test_what_the_client_itself_says_is_final(network: FakeNetwork) -> None:
    network.brokers["broker-b"].answers[STACK] = _stack(_no(v2.REQUEST_TIMEOUT, "it does not answer"))
    with pytest.raises(Refused, match="does not answer") as refused:
        await Commands(network.cluster(), 1.0).print_thread_stack_trace(PrintThreadStackTraceRequest(client_id="c"))
    assert refused.value.code == v2.REQUEST_TIMEOUT
    assert STACK not in dict(network.brokers["broker-c"].asked)


async def test_a_message_is_where_it_is_found(network: FakeNetwork) -> None:
    path = broker_rpc.VERIFY_MESSAGE.path
    first, second = network.brokers["broker-b"], network.brokers["broker-c"]
    first.answers[path] = _always(broker_pb2.VerifyMessageResponse(status=_no(v2.MESSAGE_NOT_FOUND)))
    second.answers[path] = _always(broker_pb2.VerifyMessageResponse(status=OK))
    commands = Commands(network.cluster(), 1.0)
    request = VerifyMessageRequest(client_id="c", topic=TOPIC, message_id="m")
    assert (await commands.verify_message(request)).broker == "broker-c"
    assert dict(second.asked)[path] == broker_pb2.VerifyMessageRequest(client_id="c", topic=TOPIC, message_id="m")
    second.answers[path] = first.answers[path]
    with pytest.raises(Refused) as refused:
        await commands.verify_message(request)
    assert refused.value.code == v2.MESSAGE_NOT_FOUND
    for wrong in (
        VerifyMessageRequest(client_id="c", topic=TOPIC),
        VerifyMessageRequest(client_id="c", message_id="m"),
        VerifyMessageRequest(topic=TOPIC, message_id="m"),
    ):
        with pytest.raises(Refused):
            await commands.verify_message(wrong)


async def test_all_brokers_that_know_a_client_tell_it_to_reconnect(network: FakeNetwork) -> None:
    path = broker_rpc.RECONNECT_CLIENT.path
    for broker in network.brokers.values():
        broker.answers[path] = _always(broker_pb2.ReconnectClientResponse(status=OK))
    response = await Commands(network.cluster(), 1.0).reconnect_client(ReconnectClientRequest(client_id="c"))
    assert [outcome.broker for outcome in response.outcomes] == ["broker-b", "broker-c"]
    assert response.status.code == v2.OK


async def test_a_client_that_nobody_knows(network: FakeNetwork) -> None:
    network.brokers["broker-b"].down = True
    commands = Commands(network.cluster(), 1.0)
    for client, code in (("nobody", v2.NOT_FOUND), ("", v2.BAD_REQUEST)):
        with pytest.raises(Refused) as refused:
            await commands.reconnect_client(ReconnectClientRequest(client_id=client))
        assert refused.value.code == code
    with pytest.raises(Refused, match="no answer from broker-b"):
        await commands.print_thread_stack_trace(PrintThreadStackTraceRequest(client_id="nobody"))
