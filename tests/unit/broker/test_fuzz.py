"""Whatever comes in at a broker's doors is answered, with a code that says what is wrong, and harms nobody."""

import asyncio
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2, service_rpc
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou.protocol.method import ServerStreamMethod, UnaryMethod
from tests.simulation.direct import BrokerDown, CallFailed
from tests.simulation.time import simulate
from tests.unit.broker.alone import Broker, ids, message, resource
from tests.unit.requests_by_chance import requests

METHODS = [
    method
    for module in (service_rpc, broker_rpc)
    for method in vars(module).values()
    if isinstance(method, UnaryMethod | ServerStreamMethod) and method is not broker_rpc.STOP_BROKER
]
_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
CLIENT = {"x-mq-client-id": "by chance"}
_TOPICS = ("orders", "fifo", "delay", "transaction", "priority", "lite", "%DLQ%team")
_WORDS = {
    "topic.name": _TOPICS,
    "group.name": ("team", "ordered", "new"),
    "name.name": (*_TOPICS, "team"),
    "topic.resource_namespace": ("",),
    "group.resource_namespace": ("",),
    "name.resource_namespace": ("",),
    "system_properties.message_id": ("id-1", "id-2", "id-3"),
    "system_properties.message_group": ("a", "b"),
    "system_properties.lite_topic": ("a", "b"),
    "system_properties.tag": ("a", "b"),
    "expression.expression": ("*", "a || b", "a = 1 AND", "a BETWEEN 1 AND 2"),
    "filter_expression.expression": ("*", "a || b", "a = 1 AND", "a BETWEEN 1 AND 2"),
    ".message_id": ("id-1", "id-2"),
    ".client_id": (CLIENT["x-mq-client-id"],),
    ".lite_topic_set": ("a", "b"),
}
_OF_A_TYPE = {
    "fifo": "message_group",
    "delay": "delivery_timestamp",
    "lite": "lite_topic",
    "priority": "priority",
}
_OF_OUR_FAULT = {definition_pb2.INTERNAL_ERROR, definition_pb2.INTERNAL_SERVER_ERROR}


async def _broker() -> Broker:
    broker = await Broker.started(queues=2)
    for type_ in ("fifo", "delay", "transaction", "priority", "lite"):
        await broker.put_topic(type_, 2, type=definition_pb2.MessageType.Value(type_.upper()))
    await broker.put_group("ordered", order=2)
    return broker


async def _call(broker: Broker, method: Any, data: bytes) -> None:
    """The call is answered with a code of its own, or ended as one that is no call."""
    if not broker.doors.serves(method.path):
        return
    try:
        if isinstance(method, UnaryMethod):
            answers = [(await broker.doors.raw(method.path, data, CLIENT))[0]]
        else:
            answers = await broker.doors.raw_stream(method.path, data, CLIENT)
    except CallFailed as problem:
        if problem.code.name != "INVALID_ARGUMENT":
            raise
        return
    for answer in answers:
        response: Any = method.response.FromString(answer)
        if "status" in response.DESCRIPTOR.fields_by_name and response.HasField("status"):
            assert response.status.code not in _OF_OUR_FAULT, (method.path, response.status)


def _run(calls: list[tuple[Any, bytes]]) -> None:
    """Makes the calls at the same time; a broker that has seen them still does its work, also after a restart."""

    async def test() -> None:
        broker = await _broker()
        try:
            await asyncio.gather(*(_call(broker, method, data) for method, data in calls))
        except BrokerDown:
            pytest.fail("the broker went down")
        permit = broker_pb2.SetPermissionRequest(permission=definition_pb2.READ_WRITE)
        assert (await broker.doors.call(broker_rpc.SET_PERMISSION, permit, CLIENT)).status.code == definition_pb2.OK
        for attempt in ("at once", "after a restart"):
            topic, group = f"after {attempt}".replace(" ", "-"), f"group {attempt}".replace(" ", "-")
            await broker.put_topic(topic)
            await broker.put_group(group)
            sent = await broker.send(message(id_=attempt, topic=topic))
            assert sent.status.code == definition_pb2.OK, sent.status
            assert ids(await broker.receive(topic=topic, group=group, wait_s=5)) == [attempt]
            await broker.restart()

    with structlog.testing.capture_logs() as logs:
        simulate(test())
    assert not [entry for entry in logs if entry["log_level"] in ("error", "critical")]


@st.composite
def _calls(draw: st.DrawFn) -> tuple[Any, bytes]:
    method = draw(st.sampled_from(METHODS))
    request = draw(requests(method.request, lambda field: _WORDS.get(field, ())))
    return method, request.SerializeToString()


@st.composite
def _sends(draw: st.DrawFn) -> tuple[Any, bytes]:
    """Messages that are nearly right: those by chance rarely get past the first check."""
    topic = draw(st.sampled_from(_TOPICS))
    request = service_pb2.SendMessageRequest()
    for _ in range(draw(st.integers(1, 3))):
        system = draw(
            requests(definition_pb2.SystemProperties, lambda field: _WORDS.get(f"system_properties{field}", ()))
        )
        own = draw(st.sampled_from((_OF_A_TYPE.get(topic), _OF_A_TYPE.get(topic), *_OF_A_TYPE.values())))
        for name in set(_OF_A_TYPE.values()) - {own}:
            system.ClearField(name)  # type: ignore[arg-type]
        system.message_type = draw(st.sampled_from((0, 0, 0, 1, 2)))  # type: ignore[assignment]
        if draw(st.booleans()):
            system.ClearField("tag")
            system.ClearField("keys")
        system.message_id = draw(st.sampled_from(("id-1", "id-2", "id-3")))
        system.body_encoding = draw(st.sampled_from((0, 1, 2)))  # type: ignore[assignment]
        request.messages.add(
            topic={"name": topic}, body=draw(st.binary(min_size=1, max_size=9)), system_properties=system
        )
    return service_rpc.SEND_MESSAGE, request.SerializeToString()


@st.composite
def _receives(draw: st.DrawFn) -> tuple[Any, bytes]:
    request = draw(requests(service_pb2.ReceiveMessageRequest, lambda field: _WORDS.get(field, ())))
    request.group.name = draw(st.sampled_from(("team", "ordered")))
    request.message_queue.topic.name = draw(st.sampled_from(_TOPICS))
    request.message_queue.id = draw(st.sampled_from((-1, 0, 1)))
    request.batch_size = draw(st.integers(1, 3))
    request.long_polling_timeout.nanos = 0
    request.long_polling_timeout.seconds = draw(st.sampled_from((0, 1)))
    request.invisible_duration.seconds, request.invisible_duration.nanos = 30, 0
    request.filter_expression.Clear()
    return service_rpc.RECEIVE_MESSAGE, request.SerializeToString()


@st.composite
def _damaged(draw: st.DrawFn) -> tuple[Any, bytes]:
    method, data = draw(_calls())
    at = draw(st.integers(0, len(data)))
    cut = draw(st.integers(0, 4))
    return method, data[:at] + draw(st.binary(max_size=6)) + data[at + cut :]


@given(calls=st.lists(_calls() | _sends() | _receives(), min_size=1, max_size=12))
@settings(max_examples=120, deadline=None, suppress_health_check=_SLOW)
def test_any_request_is_answered(calls: list[tuple[Any, bytes]]) -> None:
    _run(calls)


@given(calls=st.lists(_damaged(), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None, suppress_health_check=_SLOW)
def test_any_bytes_are_answered(calls: list[tuple[Any, bytes]]) -> None:
    _run(calls)


@st.composite
def _commands(draw: st.DrawFn) -> bytes:
    """What a client says on its telemetry stream: settings that are nearly right more often than not."""
    command = draw(requests(service_pb2.TelemetryCommand, lambda field: _WORDS.get(field, ())))
    settings = command.settings
    if draw(st.booleans()):
        settings.SetInParent()
        settings.client_type = draw(st.sampled_from((1, 2, 3, 4, 5, 6)))  # type: ignore[assignment]
        settings.subscription.group.CopyFrom(resource(draw(st.sampled_from(("team", "ordered", "readers")))))
        del settings.subscription.subscriptions[2:]
        for entry in settings.subscription.subscriptions:
            entry.topic.CopyFrom(resource(draw(st.sampled_from(_TOPICS))))
            entry.expression.Clear()
    if draw(st.booleans()):
        command.status.Clear()
    return command.SerializeToString()


@given(data=st.lists(_commands() | st.binary(max_size=60), max_size=6))
@settings(max_examples=100, deadline=None, suppress_health_check=_SLOW)
def test_anything_on_a_telemetry_stream_is_taken_or_refused(data: list[bytes]) -> None:
    async def test() -> None:
        broker = await _broker()
        stream = broker.doors.open(service_rpc.TELEMETRY, CLIENT)
        for piece in data:
            stream.requests.put_nowait(piece)
        asked = broker_pb2.PrintThreadStackTraceRequest(client_id=CLIENT["x-mq-client-id"])
        await _call(broker, broker_rpc.PRINT_THREAD_STACK_TRACE, asked.SerializeToString())
        stream.requests.put_nowait(None)
        await asyncio.wait((stream.ended,))
        problem = stream.ended.exception()
        assert problem is None or (isinstance(problem, CallFailed) and problem.code.name == "INVALID_ARGUMENT")
        for answer in map(service_pb2.TelemetryCommand.FromString, stream.answers):
            assert answer.status.code not in _OF_OUR_FAULT, answer.status
        await broker.put_group("after")
        await broker.send_ids("after")
        assert ids(await broker.receive(group="after", wait_s=5)) == ["after"]

    with structlog.testing.capture_logs() as logs:
        simulate(test())
    assert not [entry for entry in logs if entry["log_level"] in ("error", "critical")]
