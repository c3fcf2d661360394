"""Every door answers what is wrong with the API's own codes, and stores nothing of it."""

from collections.abc import Callable
from typing import Any

import pytest
from grpc import StatusCode

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2, service_rpc
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from tests.simulation.direct import CallFailed
from tests.unit.broker.alone import (
    MIB,
    Broker,
    Message,
    expression,
    handle,
    message,
    receive_request,
    resource,
    simulated,
)

Code = definition_pb2.Code
HEADERS = {"x-mq-client-id": "client"}
Change = Callable[[Message], Any]


def _topic(name: str, namespace: str = "") -> Change:
    return lambda message: message.topic.CopyFrom(definition_pb2.Resource(name=name, resource_namespace=namespace))


def _property(name: str, value: str = "value") -> Change:
    return lambda message: message.user_properties.update({name: value})


def _many_properties(message: Message) -> None:
    for number in range(129):
        message.user_properties[f"name-{number}"] = "value"


def _system(**fields: Any) -> Change:
    def change(message: Message) -> None:
        for name, value in fields.items():
            setattr(message.system_properties, name, value)

    return change


BAD_MESSAGES: list[tuple[str, Change, int]] = [
    ("unknown topic", _topic("nobody-made-it"), Code.TOPIC_NOT_FOUND),
    ("unknown namespace", _topic("orders", "elsewhere"), Code.TOPIC_NOT_FOUND),
    ("empty topic", _topic(""), Code.ILLEGAL_TOPIC),
    ("illegal topic", _topic("or/ders"), Code.ILLEGAL_TOPIC),
    ("topic that is too long", _topic("o" * 128), Code.ILLEGAL_TOPIC),
    ("illegal namespace", _topic("orders", "n*"), Code.ILLEGAL_TOPIC),
    ("empty body", lambda message: message.ClearField("body"), Code.MESSAGE_BODY_EMPTY),
    ("large body", lambda message: setattr(message, "body", bytes(4 * MIB + 1)), Code.MESSAGE_BODY_TOO_LARGE),
    ("no system properties", lambda message: message.ClearField("system_properties"), Code.ILLEGAL_MESSAGE_ID),
    ("no id", _system(message_id=""), Code.ILLEGAL_MESSAGE_ID),
    ("blank id", _system(message_id="  "), Code.ILLEGAL_MESSAGE_ID),
    ("long id", _system(message_id="i" * 2000), Code.ILLEGAL_MESSAGE_ID),
    ("blank tag", _system(tag=" "), Code.ILLEGAL_MESSAGE_TAG),
    ("empty tag", _system(tag=""), Code.ILLEGAL_MESSAGE_TAG),
    ("tag that is an expression", _system(tag="a||b"), Code.ILLEGAL_MESSAGE_TAG),
    ("long tag", _system(tag="t" * 2000), Code.ILLEGAL_MESSAGE_TAG),
    ("blank key", lambda message: message.system_properties.keys.append(" "), Code.ILLEGAL_MESSAGE_KEY),
    ("long key", lambda message: message.system_properties.keys.append("k" * 2000), Code.ILLEGAL_MESSAGE_KEY),
    ("reserved property", _property("UNIQ_KEY"), Code.ILLEGAL_MESSAGE_PROPERTY_KEY),
    ("reserved prefix", _property("__MINE"), Code.ILLEGAL_MESSAGE_PROPERTY_KEY),
    ("blank property", _property(" "), Code.ILLEGAL_MESSAGE_PROPERTY_KEY),
    ("long property name", _property("n" * 2000), Code.ILLEGAL_MESSAGE_PROPERTY_KEY),
    ("large properties", _property("name", "v" * 65536), Code.MESSAGE_PROPERTIES_TOO_LARGE),
    ("many properties", _many_properties, Code.MESSAGE_PROPERTIES_TOO_LARGE),
    ("FIFO", _system(message_type=definition_pb2.FIFO), Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE),
    ("DELAY", _system(message_type=definition_pb2.DELAY), Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE),
    ("TRANSACTION", _system(message_type=definition_pb2.TRANSACTION), Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE),
    ("LITE", _system(message_type=definition_pb2.LITE), Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE),
    ("PRIORITY", _system(message_type=definition_pb2.PRIORITY), Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE),
    ("message group", _system(message_group="a"), Code.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE),
    ("unknown type", _system(message_type=77), Code.BAD_REQUEST),
    ("unknown encoding", _system(body_encoding=77), Code.BAD_REQUEST),
]


@pytest.mark.parametrize(
    ("change", "code"), [pytest.param(change, code, id=what) for what, change, code in BAD_MESSAGES]
)
def test_a_bad_message_is_refused_and_nothing_of_its_batch_is_stored(change: Change, code: int) -> None:
    @simulated
    async def test() -> None:
        broker = await Broker.started()
        bad = message(id_="bad")
        change(bad)
        alone = await broker.send(bad)
        assert alone.status.code == code, alone.status
        assert not alone.entries
        same_topic = bad.topic == resource("orders")
        for batch in ([message(id_="good"), bad], [message(id_="good"), bad, message(id_="good, too")]):
            refused = await broker.send(*batch)
            assert refused.status.code == (code if same_topic else Code.BAD_REQUEST), refused.status
        assert not await broker.receive()
        await broker.send_ids("next")
        assert (await broker.pull())[1] == 1, "the offset of what was refused was used"

    test()


@simulated
async def test_a_refusal_says_what_to_do() -> None:
    broker = await Broker.started()
    answer = await broker.send(message(topic="nobody-made-it"))
    assert "kourou topic create nobody-made-it" in answer.status.message


@simulated
async def test_requests_of_no_or_too_many_messages_are_refused() -> None:
    broker = await Broker.started()
    assert (await broker.send()).status.code == Code.BAD_REQUEST
    assert (await broker.send(*[message()] * 4097)).status.code == Code.PAYLOAD_TOO_LARGE
    assert (await broker.send(*[message()] * 4096)).status.code == Code.OK


@simulated
async def test_a_body_of_4_mib_is_taken() -> None:
    broker = await Broker.started(segment_bytes=64 * MIB)
    body = bytes(4 * MIB)
    assert (await broker.send(message(body))).status.code == Code.OK
    (received,) = await broker.receive()
    assert received.body == body


ANY_MESSAGE = service_pb2.SendMessageRequest(messages=[message()])
CLIENT_CALLS: list[tuple[Any, Any]] = [
    (service_rpc.SEND_MESSAGE, ANY_MESSAGE),
    (service_rpc.ACK_MESSAGE, service_pb2.AckMessageRequest()),
    (service_rpc.CHANGE_INVISIBLE_DURATION, service_pb2.ChangeInvisibleDurationRequest()),
    (service_rpc.FORWARD_MESSAGE_TO_DEAD_LETTER_QUEUE, service_pb2.ForwardMessageToDeadLetterQueueRequest()),
    (service_rpc.UPDATE_OFFSET, service_pb2.UpdateOffsetRequest()),
    (service_rpc.GET_OFFSET, service_pb2.GetOffsetRequest()),
    (service_rpc.QUERY_OFFSET, service_pb2.QueryOffsetRequest()),
    (service_rpc.QUERY_ROUTE, service_pb2.QueryRouteRequest()),
    (service_rpc.QUERY_ASSIGNMENT, service_pb2.QueryAssignmentRequest()),
    (service_rpc.HEARTBEAT, service_pb2.HeartbeatRequest()),
    (service_rpc.NOTIFY_CLIENT_TERMINATION, service_pb2.NotifyClientTerminationRequest()),
]
CLIENT_STREAMS: list[tuple[Any, Any]] = [
    (service_rpc.RECEIVE_MESSAGE, receive_request()),
    (service_rpc.PULL_MESSAGE, service_pb2.PullMessageRequest()),
]


@pytest.mark.parametrize("headers", [{}, {"x-mq-client-id": ""}, {"x-mq-client-id": "c" * 256}])
@simulated
async def test_every_call_of_the_api_wants_a_client_id(headers: dict[str, str]) -> None:
    broker = await Broker.started()
    for method, request in CLIENT_CALLS:
        answer = await broker.doors.call(method, request, headers)
        assert answer.status.code == Code.CLIENT_ID_REQUIRED, method.path
    for method, request in CLIENT_STREAMS:
        (answer,) = await broker.doors.stream_call(method, request, headers)
        assert answer.status.code == Code.CLIENT_ID_REQUIRED, method.path
    stream = broker.doors.open(service_rpc.TELEMETRY, headers)
    await stream.ended
    command = service_pb2.TelemetryCommand.FromString(stream.answers[0])
    assert command.status.code == Code.CLIENT_ID_REQUIRED


@simulated
async def test_bytes_that_are_no_message_end_the_call() -> None:
    broker = await Broker.started()
    methods = [method for method, _ in CLIENT_CALLS]
    methods += [broker_rpc.PUT_TOPIC, broker_rpc.FIND_MESSAGES, broker_rpc.RESET_OFFSET]
    for method in methods:
        for garbage in (b"\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x00" * 3):
            with pytest.raises(CallFailed) as failed:
                await broker.doors.raw(method.path, garbage, HEADERS)
            assert failed.value.code == StatusCode.INVALID_ARGUMENT, method.path
    assert (await broker.send(message())).status.code == Code.OK


@pytest.mark.parametrize("name", ["", "te am", "%DLQ%team", "g" * 121, "TBW102"])
@simulated
async def test_an_illegal_group_is_refused_everywhere(name: str) -> None:
    broker = await Broker.started(auto_create_groups=True)
    group, topic = resource(name), resource("orders")
    queue = definition_pb2.MessageQueue(topic=topic)
    calls = [
        (service_rpc.ACK_MESSAGE, service_pb2.AckMessageRequest(group=group, topic=topic)),
        (
            service_rpc.CHANGE_INVISIBLE_DURATION,
            service_pb2.ChangeInvisibleDurationRequest(group=group, topic=topic, receipt_handle="x"),
        ),
        (
            service_rpc.FORWARD_MESSAGE_TO_DEAD_LETTER_QUEUE,
            service_pb2.ForwardMessageToDeadLetterQueueRequest(group=group, topic=topic, receipt_handle="x"),
        ),
        (service_rpc.UPDATE_OFFSET, service_pb2.UpdateOffsetRequest(group=group, message_queue=queue)),
        (service_rpc.GET_OFFSET, service_pb2.GetOffsetRequest(group=group, message_queue=queue)),
        (service_rpc.QUERY_ASSIGNMENT, service_pb2.QueryAssignmentRequest(group=group, topic=topic)),
        (
            service_rpc.HEARTBEAT,
            service_pb2.HeartbeatRequest(group=group, client_type=definition_pb2.SIMPLE_CONSUMER),
        ),
    ]
    for method, request in calls:
        answer = await broker.doors.call(method, request, HEADERS)
        assert answer.status.code == Code.ILLEGAL_CONSUMER_GROUP, method.path
    (received,) = await broker.receive_all(group=name)
    assert received.status.code == Code.ILLEGAL_CONSUMER_GROUP
    (pulled,) = await broker.pull_all(group=name)
    assert pulled.status.code == Code.ILLEGAL_CONSUMER_GROUP


@simulated
async def test_an_unknown_group_is_made_only_where_that_is_the_setting() -> None:
    for made, code in ((False, Code.CONSUMER_GROUP_NOT_FOUND), (True, Code.MESSAGE_NOT_FOUND)):
        broker = await Broker.started(auto_create_groups=made)
        (answer,) = await broker.receive_all(group="strangers")
        assert answer.status.code == code
        assert made or "kourou group create strangers" in answer.status.message


@simulated
async def test_unknown_and_illegal_topics_are_told_apart_everywhere() -> None:
    broker = await Broker.started()
    for name, code in (("unknown", Code.TOPIC_NOT_FOUND), ("il legal", Code.ILLEGAL_TOPIC), ("", Code.ILLEGAL_TOPIC)):
        topic, group = resource(name), resource("team")
        queue = definition_pb2.MessageQueue(topic=topic)
        calls = [
            (service_rpc.ACK_MESSAGE, service_pb2.AckMessageRequest(group=group, topic=topic)),
            (
                service_rpc.CHANGE_INVISIBLE_DURATION,
                service_pb2.ChangeInvisibleDurationRequest(group=group, topic=topic, receipt_handle="x"),
            ),
            (service_rpc.UPDATE_OFFSET, service_pb2.UpdateOffsetRequest(group=group, message_queue=queue)),
            (service_rpc.GET_OFFSET, service_pb2.GetOffsetRequest(group=group, message_queue=queue)),
            (service_rpc.QUERY_OFFSET, service_pb2.QueryOffsetRequest(message_queue=queue)),
            (service_rpc.QUERY_ROUTE, service_pb2.QueryRouteRequest(topic=topic)),
            (service_rpc.QUERY_ASSIGNMENT, service_pb2.QueryAssignmentRequest(group=group, topic=topic)),
        ]
        for method, request in calls:
            answer = await broker.doors.call(method, request, HEADERS)
            assert answer.status.code == code, (method.path, answer.status)
        (received,) = await broker.receive_all(topic=name)
        assert received.status.code == code
        (pulled,) = await broker.pull_all(topic=name)
        assert pulled.status.code == code


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"tags": "a | b"}, Code.ILLEGAL_FILTER_EXPRESSION),
        ({"tags": "a || "}, Code.ILLEGAL_FILTER_EXPRESSION),
        ({"tags": "* || a"}, Code.ILLEGAL_FILTER_EXPRESSION),
        ({"tags": "t" * 5000}, Code.ILLEGAL_FILTER_EXPRESSION),
        ({"batch_size": 0}, Code.BAD_REQUEST),
        ({"batch_size": -1}, Code.BAD_REQUEST),
        ({"batch_size": -(2**31)}, Code.BAD_REQUEST),
        ({"invisible_s": 0}, Code.ILLEGAL_INVISIBLE_TIME),
        ({"invisible_s": -1}, Code.ILLEGAL_INVISIBLE_TIME),
        ({"invisible_s": 12 * 3600 + 1}, Code.ILLEGAL_INVISIBLE_TIME),
        ({"invisible_s": 300_000_000_000}, Code.ILLEGAL_INVISIBLE_TIME),
        ({"wait_s": -1}, Code.ILLEGAL_POLLING_TIME),
        ({"queue": 1}, Code.BAD_REQUEST),
        ({"queue": 2**31 - 1}, Code.BAD_REQUEST),
        ({"attempt_id": "a" * 5000}, Code.BAD_REQUEST),
    ],
)
@simulated
async def test_a_bad_receive_is_refused_and_makes_nobody_a_member(fields: dict[str, Any], code: int) -> None:
    broker = await Broker.started()
    await broker.send_ids("m")
    (answer,) = await broker.receive_all(**fields)
    assert answer.status.code == code, answer.status
    assert not broker.members()
    assert len(await broker.receive()) == 1


@simulated
async def test_an_unknown_filter_type_is_refused() -> None:
    broker = await Broker.started()
    request = receive_request()
    request.filter_expression.type = 77  # type: ignore[assignment]
    request.filter_expression.expression = "a"
    (answer,) = await broker.doors.stream_call(service_rpc.RECEIVE_MESSAGE, request, HEADERS)
    assert answer.status.code == Code.ILLEGAL_FILTER_EXPRESSION


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"offset": -1}, Code.ILLEGAL_OFFSET),
        ({"offset": 4}, Code.ILLEGAL_OFFSET),
        ({"offset": 2**63 - 1}, Code.ILLEGAL_OFFSET),
        ({"batch_size": 0}, Code.BAD_REQUEST),
        ({"queue": -1}, Code.BAD_REQUEST),
        ({"queue": 1}, Code.BAD_REQUEST),
        ({"tags": "|"}, Code.ILLEGAL_FILTER_EXPRESSION),
        ({"wait_s": -0.5}, Code.ILLEGAL_POLLING_TIME),
    ],
)
@simulated
async def test_a_bad_pull_is_refused(fields: dict[str, Any], code: int) -> None:
    broker = await Broker.started()
    await broker.send_ids("1", "2", "3")
    (answer,) = await broker.pull_all(**fields)
    assert answer.status.code == code, answer.status


@simulated
async def test_bad_offsets_are_refused() -> None:
    broker = await Broker.started()
    await broker.send_ids("1", "2", "3")
    for offset in (-1, 4, 2**63 - 1, -(2**63)):
        assert await broker.set_offset(offset) == Code.ILLEGAL_OFFSET
    for queue in (-1, 1):
        assert await broker.set_offset(0, queue=queue) == Code.BAD_REQUEST
        assert (await broker.query_offset(definition_pb2.BEGINNING, queue=queue)).status.code == Code.BAD_REQUEST
    assert (await broker.query_offset(definition_pb2.TIMESTAMP)).status.code == Code.BAD_REQUEST
    assert (await broker.query_offset(77, time_ms=0)).status.code == Code.BAD_REQUEST
    assert (await broker.offset()).status.code == Code.OFFSET_NOT_FOUND


BAD_HANDLES = ["", "no handle", "AAAA", "é", "A" * 48, "=" * 48, "A" * 100_000, "AQAAAAEAAAAAAAAA"]


@simulated
async def test_garbage_is_no_receipt_handle() -> None:
    broker = await Broker.started()
    await broker.send_ids("m")
    await broker.receive()
    for bad in BAD_HANDLES:
        answer = await broker.ack_all(bad)
        assert answer.status.code == Code.INVALID_RECEIPT_HANDLE
        assert answer.entries[0].status.code == Code.INVALID_RECEIPT_HANDLE
        assert (await broker.change(bad, 1)).status.code == Code.INVALID_RECEIPT_HANDLE
        assert await broker.forward(bad) == Code.INVALID_RECEIPT_HANDLE


@simulated
async def test_an_ack_answers_for_each_of_its_entries() -> None:
    broker = await Broker.started()
    await broker.send_ids("1", "2")
    first, second = await broker.receive()
    answer = await broker.ack_all(handle(first), "garbage", handle(second))
    assert answer.status.code == Code.MULTIPLE_RESULTS
    assert [entry.status.code for entry in answer.entries] == [Code.OK, Code.INVALID_RECEIPT_HANDLE, Code.OK]
    assert (await broker.ack_all()).status.code == Code.BAD_REQUEST
    assert (await broker.ack_all(*["x"] * 4097)).status.code == Code.BAD_REQUEST


@simulated
async def test_a_handle_is_good_for_its_group_and_topic_only() -> None:
    broker = await Broker.started()
    await broker.put_group("others")
    await broker.put_topic("events")
    await broker.send_ids("m")
    (received,) = await broker.receive()
    for fields in ({"group": "others"}, {"topic": "events"}):
        answer = await broker.ack_all(handle(received), **fields)
        assert answer.status.code == Code.INVALID_RECEIPT_HANDLE
    assert await broker.ack(received) == Code.OK


@simulated
async def test_bad_invisible_times_are_refused_and_leave_the_lease_as_it_was() -> None:
    broker = await Broker.started()
    await broker.send_ids("m")
    (received,) = await broker.receive()
    for seconds in (-1, 12 * 3600 + 1, 300_000_000_000):
        answer = await broker.change(handle(received), seconds)
        assert answer.status.code == Code.ILLEGAL_INVISIBLE_TIME
    assert await broker.ack(received) == Code.OK


@simulated
async def test_unknown_and_unsupported_client_types_are_refused() -> None:
    broker = await Broker.started()
    for type_, code in (
        (definition_pb2.CLIENT_TYPE_UNSPECIFIED, Code.UNRECOGNIZED_CLIENT_TYPE),
        (77, Code.UNRECOGNIZED_CLIENT_TYPE),
        (definition_pb2.LITE_PUSH_CONSUMER, Code.ILLEGAL_CONSUMER_GROUP),
    ):
        request = service_pb2.HeartbeatRequest(group=resource("team"), client_type=type_)  # type: ignore[arg-type]
        answer = await broker.doors.call(service_rpc.HEARTBEAT, request, HEADERS)
        assert answer.status.code == code
        stream = broker.connect("client", type_)
        while not stream.answers:
            await broker.send(message())
        command = service_pb2.TelemetryCommand.FromString(stream.answers[0])
        assert command.status.code == code
        stream.cancel()
    assert not broker.members()


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"name": ""}, Code.ILLEGAL_TOPIC),
        ({"name": "a b"}, Code.ILLEGAL_TOPIC),
        ({"queues": 0}, Code.BAD_REQUEST),
        ({"queues": 1025}, Code.BAD_REQUEST),
        ({"type": definition_pb2.MESSAGE_TYPE_UNSPECIFIED}, Code.BAD_REQUEST),
        ({"type": 77}, Code.BAD_REQUEST),
        ({"permission": 77}, Code.BAD_REQUEST),
        ({"permission": 0}, Code.BAD_REQUEST),
        ({"name": "a b", "deleted": True}, Code.ILLEGAL_TOPIC),
    ],
)
@simulated
async def test_a_bad_topic_is_not_made(fields: dict[str, Any], code: int) -> None:
    broker = await Broker.started()
    answer = await broker.put_topic(**{"name": "new", **fields})
    assert answer.status.code == code, answer.status
    assert len(broker.core.state.topics) == 1
    assert not broker.core.state.topic_tombstones


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"name": "a b"}, Code.ILLEGAL_CONSUMER_GROUP),
        ({"max_attempts": -1}, Code.BAD_REQUEST),
        ({"max_attempts": 1001}, Code.BAD_REQUEST),
        ({"order": 77}, Code.BAD_REQUEST),
        ({"assignment": 77}, Code.BAD_REQUEST),
        ({"backoff_s": [-1]}, Code.BAD_REQUEST),
        ({"backoff_s": [1] * 2000}, Code.BAD_REQUEST),
        ({"name": "a b", "deleted": True}, Code.ILLEGAL_CONSUMER_GROUP),
    ],
)
@simulated
async def test_a_bad_group_is_not_made(fields: dict[str, Any], code: int) -> None:
    broker = await Broker.started()
    answer = await broker.put_group(**{"name": "new", **fields})
    assert answer.status.code == code, answer.status
    assert len(broker.core.state.groups) == 1
    assert not broker.core.state.group_tombstones


@simulated
async def test_an_exponential_backoff_that_makes_no_sense_is_refused() -> None:
    broker = await Broker.started()
    for multiplier, initial_s in ((-1.0, 1), (float("nan"), 1), (float("inf"), 1), (2.0, -1)):
        request = broker_pb2.PutGroupRequest()
        request.group.name.name = "new"
        request.group.version = 1
        request.group.retry.max_attempts = 16
        backoff = request.group.retry.exponential_backoff
        backoff.multiplier = multiplier
        backoff.initial.seconds = initial_s
        backoff.max.seconds = 10
        answer = await broker.doors.call(broker_rpc.PUT_GROUP, request, {})
        assert answer.status.code == Code.BAD_REQUEST, multiplier


@simulated
async def test_bad_requests_of_operators_are_refused() -> None:
    broker = await Broker.started()
    find = broker_rpc.FIND_MESSAGES
    orders = resource("orders")
    requests: list[tuple[Any, int]] = [
        (broker_pb2.FindMessagesRequest(topic=orders), Code.BAD_REQUEST),
        (broker_pb2.FindMessagesRequest(topic=orders, key="k", limit=-1), Code.BAD_REQUEST),
        (broker_pb2.FindMessagesRequest(topic=orders, key=""), Code.ILLEGAL_MESSAGE_KEY),
        (broker_pb2.FindMessagesRequest(topic=orders, message_id=""), Code.ILLEGAL_MESSAGE_ID),
        (broker_pb2.FindMessagesRequest(topic=resource("unknown"), key="k"), Code.TOPIC_NOT_FOUND),
    ]
    for request, code in requests:
        answer = await broker.doors.call(find, request, {})
        assert answer.status.code == code, (request, answer.status)
    reset = broker_rpc.RESET_OFFSET
    for fields, code in (
        ({}, Code.BAD_REQUEST),
        ({"offset": 7}, Code.ILLEGAL_OFFSET),
        ({"offset": -7}, Code.ILLEGAL_OFFSET),
        ({"first": True, "queue": 9}, Code.BAD_REQUEST),
        ({"first": True, "topic": resource("unknown")}, Code.TOPIC_NOT_FOUND),
        ({"first": True, "group": resource("unknown")}, Code.CONSUMER_GROUP_NOT_FOUND),
    ):
        fields = {"group": resource("team"), "topic": orders, **fields}
        answer = await broker.doors.call(reset, broker_pb2.ResetOffsetRequest(**fields), {})
        assert answer.status.code == code, (fields, answer.status)
    forbid = broker_pb2.SetPermissionRequest(permission=77)  # type: ignore[arg-type]
    answer = await broker.doors.call(broker_rpc.SET_PERMISSION, forbid, {})
    assert answer.status.code == Code.BAD_REQUEST


@simulated
async def test_positions_where_no_message_is_find_none() -> None:
    broker = await Broker.started()
    await broker.send_ids("m")
    await broker.receive()
    end = broker.core.log.next_position
    for position in [*range(0, end + 64, 8), 2**62, 2**63]:
        request = broker_pb2.FindMessagesRequest()
        request.log_position.position = position
        answer = await broker.doors.call(broker_rpc.FIND_MESSAGES, request, {})
        assert answer.status.code == Code.OK, answer.status
        assert len(answer.messages) <= 1


@simulated
async def test_expression_none_is_everything() -> None:
    assert expression(None) is None
    broker = await Broker.started()
    await broker.send_ids("m", tag="a")
    assert len(await broker.receive(tags="")) == 1
