"""SQL filters in the doors of a broker: who gets what, what becomes of the rest, and how faults are told."""

import asyncio
from typing import Any

import pytest

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2, service_rpc
from kourou_broker.operations.matching import MatchingReader
from kourou_broker.operations.section_reader import SectionReader
from kourou_broker.operations.sql_filter import compile_sql
from kourou_broker.operations.tag_filter import compile_tags
from tests.simulation.direct import CallFailed, DirectCall
from tests.unit.broker.alone import Broker, Message, ids, message, resource, settings_command, simulated, until

Code = definition_pb2.Code
HEADERS = {"x-mq-client-id": "consumer"}


def priced(number: int, tag: str = "", **properties: str) -> Message:
    """Costs its number."""
    made = message(id_=f"m{number}", tag=tag)
    made.user_properties.update({"price": str(number), **properties})
    return made


async def _with_prices(count: int, **properties: str) -> Broker:
    broker = await Broker.started()
    for start in range(0, count, 500):
        messages = [priced(number, **properties) for number in range(start, min(start + 500, count))]
        assert (await broker.send(*messages)).status.code == Code.OK
    return broker


@simulated
async def test_a_consumer_gets_what_its_expression_is_true_of() -> None:
    broker = await _with_prices(10)
    await broker.send(message(id_="no price"))
    await broker.send(priced(100, tag="sale", region="eu"), priced(101, tag="sale"), priced(102, region="eu"))
    received = await broker.receive(sql="price BETWEEN 3 AND 4 OR (TAGS = 'sale' AND region IS NOT NULL)")
    assert ids(received) == ["m3", "m4", "m100"]
    assert received[2].user_properties == {"price": "100", "region": "eu"}
    assert await broker.ack(*received) == Code.OK


@simulated
async def test_what_an_expression_leaves_out_is_settled_once_and_for_all() -> None:
    broker = await _with_prices(40)
    assert ids(await broker.receive(sql="price >= 10 AND price < 30", batch_size=5)) == [f"m{n}" for n in range(10, 15)]
    await broker.restart()
    rest = await broker.receive(sql="price >= 10 AND price < 30", batch_size=100, wait_s=1)
    assert ids(rest) == [f"m{number}" for number in range(15, 30)]
    assert not await broker.receive(tags="*"), "what was left out is settled"
    (progress,) = broker.core.state.progress.values()
    assert progress.high == 40
    await asyncio.sleep(11)
    again = await broker.receive(sql="price > 1000", batch_size=100, wait_s=1)
    assert len(again) == 20, "what was lent comes again, whatever the filter is now"


@simulated
async def test_groups_have_their_own_filters() -> None:
    broker = await _with_prices(10)
    for group, expression, wanted in (("low", "price < 3", ["m0", "m1", "m2"]), ("high", "price > 8", ["m9"])):
        await broker.put_group(group)
        assert ids(await broker.receive(group=group, sql=expression, wait_s=1)) == wanted
    assert len(await broker.receive()) == 10


@simulated
async def test_a_waiting_consumer_wakes_for_what_it_wants_only() -> None:
    broker = await Broker.started()
    polls = [asyncio.ensure_future(broker.receive(sql=f"price = {number}", wait_s=20)) for number in (1, 2)]
    await asyncio.sleep(1)
    await broker.send(priced(2))
    await asyncio.sleep(1)
    assert [poll.done() for poll in polls] == [False, False], "the first of the group left it out for all"
    await broker.send(priced(1))
    assert ids(await polls[0]) == ["m1"]
    polls[1].cancel()


@simulated
async def test_pulling_goes_on_behind_what_an_expression_left_out() -> None:
    broker = await _with_prices(40)
    offset, found = 0, []
    for _ in range(5):
        pulled, offset = await broker.pull(offset=offset, batch_size=1, sql="price IN ('0', '10', '20', '30')")
        found += ids(pulled)
    assert (found, offset) == (["m0", "m10", "m20", "m30"], 40)
    waiting = asyncio.ensure_future(broker.pull(offset=40, wait_s=20, sql="price > 50"))
    await asyncio.sleep(1)
    await broker.send(priced(41))
    await asyncio.sleep(1)
    assert not waiting.done()
    await broker.send(priced(51))
    pulled, offset = await waiting
    assert (ids(pulled), offset) == (["m51"], 42)


@simulated
async def test_dead_letters_can_be_chosen_by_their_origin() -> None:
    broker = await Broker.started(group={"max_attempts": 1})
    await broker.send(priced(1))
    (received,) = await broker.receive(sql="price = 1")
    assert await broker.forward(received.system_properties.receipt_handle) == Code.OK
    for expression, found in (("DLQ_ORIGIN_TOPIC = 'orders' AND price = 1", ["m1"]), ("DLQ_ORIGIN_TOPIC = 'x'", [])):
        assert ids((await broker.pull(topic="%DLQ%team", sql=expression))[0]) == found


@simulated
async def test_other_work_goes_on_while_many_messages_are_filtered() -> None:
    broker = await _with_prices(5000)
    (topic,) = broker.core.state.topics.values()
    expression = "price > 10 AND price < 0 OR price = 4999"
    for filter_, found, most in ((compile_sql(expression), 1, 200), (compile_tags("none"), 0, 2000)):
        rests = 0

        def in_haste() -> bool:
            nonlocal rests
            rests += 1
            return False

        reader = MatchingReader(SectionReader(broker.core.log))
        matched = await reader.read(topic.queues[0], 0, filter_, 32, in_haste=in_haste)
        assert (len(matched.messages), matched.next_offset) == (found, 5000)
        assert rests >= 5000 // most, "so many messages take a millisecond"
        matched = await reader.read(topic.queues[0], 0, filter_, 32, in_haste=lambda: True)
        assert 0 < matched.next_offset <= most, "who is in haste gets how far it came"


@simulated
async def test_a_long_list_of_long_expressions_does_not_hold_up_the_loop() -> None:
    broker = await Broker.started()
    command = settings_command(definition_pb2.PUSH_CONSUMER, "team", [f"t{number}" for number in range(100)])
    for number, entry in enumerate(command.settings.subscription.subscriptions):
        entry.expression.type = definition_pb2.SQL
        entry.expression.expression = " OR ".join([f"a = {number}"] * 100)
    stream = broker.doors.open(service_rpc.TELEMETRY, HEADERS)
    stream.requests.put_nowait(command.SerializeToString())
    turns = 0
    while not stream.answers:
        await asyncio.sleep(0)
        turns += 1
    assert turns > 100
    assert broker.members() == ["consumer"]


# Faults

FAULT = "line 2, column 1 (position 10): 'between' cannot stand here; expected: a property, "
FAULTY = "price and\nbetween 3 and 4"


def _told(status: definition_pb2.Status) -> bool:
    return status.code == Code.ILLEGAL_FILTER_EXPRESSION and FAULT in status.message


async def _answer(stream: DirectCall, command: service_pb2.TelemetryCommand) -> service_pb2.TelemetryCommand:
    known = len(stream.answers)
    stream.requests.put_nowait(command.SerializeToString())
    await until(lambda: len(stream.answers) > known)
    return service_pb2.TelemetryCommand.FromString(stream.answers[-1])


@simulated
async def test_every_door_that_takes_a_filter_tells_its_faults_with_their_place() -> None:
    broker = await _with_prices(1)
    (received,) = await broker.receive_all(sql=FAULTY)
    assert _told(received.status), received.status
    (pulled,) = await broker.pull_all(sql=FAULTY)
    assert _told(pulled.status), pulled.status
    command = settings_command(definition_pb2.PUSH_CONSUMER, "team", ["orders"])
    command.settings.subscription.subscriptions[0].expression.CopyFrom(
        definition_pb2.FilterExpression(type=definition_pb2.SQL, expression=FAULTY)
    )
    stream = broker.doors.open(service_rpc.TELEMETRY, HEADERS)
    answer = await _answer(stream, command)
    assert _told(answer.status), answer.status
    assert not answer.HasField("settings")
    with pytest.raises(CallFailed, match="INVALID_ARGUMENT: the SQL filter is not valid: line 2"):
        await stream.ended
    assert not broker.members(), "who asks for what cannot be had is no member"
    stream = broker.doors.open(service_rpc.TELEMETRY, HEADERS)
    command.settings.subscription.subscriptions[0].expression.expression = "price BETWEEN 3 AND 4"
    answer = await _answer(stream, command)
    assert answer.settings.subscription.subscriptions[0].expression.expression == "price BETWEEN 3 AND 4"
    assert broker.members() == ["consumer"]
    request = service_pb2.QueryAssignmentRequest(topic=resource("orders"), group=resource("team"))
    assigned = await broker.doors.call(service_rpc.QUERY_ASSIGNMENT, request, HEADERS)
    assert assigned.status.code == Code.OK


@pytest.mark.parametrize(
    "fields",
    [{"sql": ""}, {"sql": "*"}, {"sql": "a || b"}, {"sql": "a = 1" * 1000}, {"sql": "NOT " * 500 + "a"}, {"sql": "1"}],
)
@simulated
async def test_what_is_no_condition_is_refused_and_makes_nobody_a_member(fields: dict[str, Any]) -> None:
    broker = await _with_prices(1)
    (answer,) = await broker.receive_all(**fields)
    assert answer.status.code == Code.ILLEGAL_FILTER_EXPRESSION, answer.status
    assert answer.status.message.startswith("the SQL filter is not valid: ")
    assert not broker.members()
    assert len(await broker.receive()) == 1
