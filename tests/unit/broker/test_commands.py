"""Commands to single clients: what they are sent, and what becomes of their answers."""

import asyncio
from typing import Any

import pytest

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.apache.rocketmq.v2.service_pb2 import TelemetryCommand, ThreadStackTrace, VerifyMessageResult
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou_broker.operations.search import Found
from tests.simulation.direct import DirectCall
from tests.unit.broker.alone import Broker, message, resource, simulated, until

Code = definition_pb2.Code
OK = definition_pb2.Status(code=Code.OK)


async def _connected(broker: Broker, client: str = "a") -> DirectCall:
    stream = broker.connect(client)
    await until(lambda: len(stream.answers) == 1)
    return stream


async def _next_command(stream: DirectCall) -> TelemetryCommand:
    """The one after the settings."""
    await until(lambda: len(stream.answers) == 2)
    return TelemetryCommand.FromString(stream.answers.pop())


def _say(stream: DirectCall, answer: TelemetryCommand) -> None:
    stream.requests.put_nowait(answer.SerializeToString())


def _ask_for_stack(broker: Broker, client: str = "a") -> asyncio.Future[broker_pb2.PrintThreadStackTraceResponse]:
    request = broker_pb2.PrintThreadStackTraceRequest(client_id=client)
    return asyncio.ensure_future(broker.doors.call(broker_rpc.PRINT_THREAD_STACK_TRACE, request, {}))


async def _verify(broker: Broker, message_id: str, topic: str = "orders") -> definition_pb2.Status:
    request = broker_pb2.VerifyMessageRequest(client_id="a", topic=resource(topic), message_id=message_id)
    return (await broker.doors.call(broker_rpc.VERIFY_MESSAGE, request, {})).status


async def _reconnect(broker: Broker, client: str) -> definition_pb2.Status:
    request = broker_pb2.ReconnectClientRequest(client_id=client)
    return (await broker.doors.call(broker_rpc.RECONNECT_CLIENT, request, {})).status


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Looking for a message by its id reads files in a helper process, which has tests of its own."""

    def make(broker: Broker) -> None:
        async def by_message_id(topic: Any, message_id: str, limit: int) -> list[Found]:
            found = await broker.core.search.at_offset(topic.queues[0], 0)
            held: list[Found] = [(None, message) for _queue, message in found]
            return held if message_id == "held" else [*held, *found] if message_id == "m" else []

        monkeypatch.setattr(broker.core.search, "by_message_id", by_message_id)

    return make


@simulated
async def test_a_stack_trace_is_what_the_client_answers() -> None:
    broker = await Broker.started()
    stream, other = await _connected(broker), await _connected(broker, "b")
    asked = _ask_for_stack(broker)
    nonce = (await _next_command(stream)).print_thread_stack_trace_command.nonce
    assert nonce
    for foreign in (stream, other):  # nothing of this is the answer
        _say(foreign, TelemetryCommand(thread_stack_trace=ThreadStackTrace(nonce="wrong", thread_stack_trace="x")))
        _say(foreign, TelemetryCommand(verify_message_result=VerifyMessageResult()))
        _say(foreign, TelemetryCommand())
    _say(other, TelemetryCommand(thread_stack_trace=ThreadStackTrace(nonce=nonce, thread_stack_trace="not mine")))
    await asyncio.sleep(1)
    assert not asked.done()
    for _ in range(2):
        _say(stream, TelemetryCommand(thread_stack_trace=ThreadStackTrace(nonce=nonce, thread_stack_trace="main: x")))
    response = await asked
    assert (response.status.code, response.stack_trace) == (Code.OK, "main: x")
    await asyncio.sleep(1)
    assert len(stream.answers) == 1


@simulated
async def test_two_commands_at_once_have_their_own_answers() -> None:
    broker = await Broker.started()
    stream = await _connected(broker)
    asked = [_ask_for_stack(broker), _ask_for_stack(broker)]
    await until(lambda: len(stream.answers) == 3)
    commands = map(TelemetryCommand.FromString, stream.answers[1:])
    nonces = [command.print_thread_stack_trace_command.nonce for command in commands]
    for nonce, text in reversed(list(zip(nonces, ("first", "second"), strict=True))):
        _say(stream, TelemetryCommand(thread_stack_trace=ThreadStackTrace(nonce=nonce, thread_stack_trace=text)))
    assert [response.stack_trace for response in await asyncio.gather(*asked)] == ["first", "second"]


@simulated
async def test_who_cannot_be_asked_and_who_does_not_answer() -> None:
    broker = await Broker.started()
    unknown = await _ask_for_stack(broker, "nobody")
    assert (unknown.status.code, "nobody" in unknown.status.message) == (Code.NOT_FOUND, True)
    assert (await _ask_for_stack(broker, "")).status.code == Code.NOT_FOUND
    await broker.receive(client="streamless")
    assert (await _ask_for_stack(broker, "streamless")).status.code == Code.PRECONDITION_FAILED
    stream = await _connected(broker)
    began_s = asyncio.get_running_loop().time()
    silent = await _ask_for_stack(broker)
    assert 5 <= asyncio.get_running_loop().time() - began_s < 6
    assert (silent.status.code, "not all clients answer" in silent.status.message) == (Code.REQUEST_TIMEOUT, True)
    nonce = (await _next_command(stream)).print_thread_stack_trace_command.nonce
    _say(stream, TelemetryCommand(thread_stack_trace=ThreadStackTrace(nonce=nonce)))  # too late: nothing happens
    asked = _ask_for_stack(broker)
    nonce = (await _next_command(stream)).print_thread_stack_trace_command.nonce
    cannot = definition_pb2.Status(code=Code.NOT_IMPLEMENTED, message="not in this language")
    _say(stream, TelemetryCommand(status=cannot, thread_stack_trace=ThreadStackTrace(nonce=nonce)))
    status = (await asked).status
    assert (status.code, status.message) == (Code.NOT_IMPLEMENTED, "client a answered: not in this language")


@simulated
async def test_a_message_is_tried_with_a_listener(found: Any) -> None:
    broker = await Broker.started()
    found(broker)
    await broker.send(message(b"poison", "m", keys=["k"]))
    stream = await _connected(broker)
    for unknown in ("unknown", "held"):
        assert (await _verify(broker, unknown)).code == Code.MESSAGE_NOT_FOUND
    assert (await _verify(broker, "m", "nowhere")).code == Code.TOPIC_NOT_FOUND
    failed = definition_pb2.Status(code=Code.FAILED_TO_CONSUME_MESSAGE)
    for status, says in ((OK, "OK"), (failed, "answered: FAILED_TO_CONSUME_MESSAGE")):
        asked = asyncio.ensure_future(_verify(broker, "m"))
        command = (await _next_command(stream)).verify_message_command
        assert (command.message.body, list(command.message.system_properties.keys)) == (b"poison", ["k"])
        assert command.message.system_properties.body_digest.checksum
        _say(stream, TelemetryCommand(status=status, verify_message_result=VerifyMessageResult(nonce=command.nonce)))
        answer = await asked
        assert (answer.code, says in answer.message) == (status.code, True)
    assert len(await broker.receive(client="a", auto_renew=True, queue=0)) == 1, "no progress has changed"


@simulated
async def test_a_client_is_told_to_connect_anew() -> None:
    broker = await Broker.started()
    stream = await _connected(broker)
    assert (await _reconnect(broker, "a")).code == Code.OK
    assert (await _next_command(stream)).HasField("reconnect_endpoints_command")
    assert (await _reconnect(broker, "nobody")).code == Code.NOT_FOUND
    stream.cancel()
    await asyncio.sleep(0)
    assert (await _reconnect(broker, "a")).code == Code.PRECONDITION_FAILED
