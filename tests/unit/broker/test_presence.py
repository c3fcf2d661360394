"""Who is there, who is gone, and what that means for queues and leases."""

import asyncio
from collections.abc import Sequence

import pytest

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2, service_rpc
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou.protocol.kourou.log.v1 import record_pb2
from kourou_broker.operations.assignment import QueueId
from kourou_broker.state.definitions import Topic
from tests.simulation.direct import DirectCall
from tests.unit.broker.alone import Broker, attempt, ids, resource, settings_command, simulated, until

Code = definition_pb2.Code
QUEUES = 4


async def _with_members(*members: str) -> Broker:
    broker = await Broker.started(queues=QUEUES)
    for member in members:
        broker.connect(member)
    await asyncio.sleep(0.01)
    return broker


async def _owned(broker: Broker, *members: str) -> list[list[int]]:
    return [await broker.assigned(member) for member in members]


async def _heartbeat(broker: Broker, client: str, type_: int = definition_pb2.PUSH_CONSUMER) -> int:
    request = service_pb2.HeartbeatRequest(group=resource("team"), client_type=type_)  # type: ignore[arg-type]
    return (await broker.doors.call(service_rpc.HEARTBEAT, request, {"x-mq-client-id": client})).status.code


@simulated
async def test_queues_are_spread_over_members_and_surplus_members_idle() -> None:
    broker = await _with_members("a", "b", "c")
    assert await _owned(broker, "a", "b", "c") == [[0, 1], [2], [3]]
    for more in ("d", "e", "f"):
        broker.connect(more)
    await asyncio.sleep(0.01)
    assert await _owned(broker, "a", "b", "c", "d", "e", "f") == [[0], [1], [2], [3], [], []]


@simulated
async def test_a_simple_consumer_makes_the_group_shared_while_it_is_there() -> None:
    broker = await _with_members("a", "b")
    simple = broker.connect("s", definition_pb2.SIMPLE_CONSUMER)
    await asyncio.sleep(0.01)
    assert await _owned(broker, "a", "b") == [[-1], [-1]], "whichever queue has messages"
    await broker.leave("s")
    simple.cancel()
    assert await _owned(broker, "a", "b") == [[0, 1], [2, 3]]


@simulated
async def test_a_group_may_be_shared_by_its_setting() -> None:
    broker = await _with_members("a", "b")
    assert await broker.receive(client="a", auto_renew=True, queue=0) == []
    await broker.put_group("team", version=2, assignment=record_pb2.ASSIGNMENT_SHARED)
    assert await _owned(broker, "a", "b") == [[-1], [-1]]
    await broker.send_ids("m")
    assert ids(await broker.receive(client="a", auto_renew=True)) == ["m"]


@simulated
async def test_who_does_not_own_a_queue_gets_nothing_from_it() -> None:
    broker = await _with_members("a", "b")
    await broker.send_ids("0")
    await broker.send_ids("1")
    await broker.send_ids("2")
    await broker.send_ids("3")
    for queue in range(QUEUES):
        owner, other = ("a", "b") if queue < 2 else ("b", "a")
        assert not await broker.receive(queue=queue, client=other, auto_renew=True)
        assert len(await broker.receive(queue=queue, client=owner, auto_renew=True)) == 1


@simulated
async def test_who_asks_for_a_foreign_queue_does_not_ask_again_at_once() -> None:
    broker = await _with_members("a", "b")
    began_s = asyncio.get_running_loop().time()
    assert not await broker.receive(queue=3, client="a", auto_renew=True, wait_s=20)
    assert 0.5 <= asyncio.get_running_loop().time() - began_s <= 5


@pytest.mark.parametrize("how", ["word", "broken stream"])
@simulated
async def test_the_queues_of_a_member_that_goes_move_to_the_others(how: str) -> None:
    broker = await Broker.started(queues=QUEUES)
    streams = {member: broker.connect(member) for member in ("a", "b")}
    await asyncio.sleep(0.01)
    assert await _owned(broker, "a", "b") == [[0, 1], [2, 3]]
    streams["b"].cancel()
    if how == "word":
        await broker.leave("b")
    took_s = await until(lambda: broker.members() == ["a"])
    assert took_s < 0.1 if how == "word" else 4.9 < took_s < 6.1
    assert await _owned(broker, "a") == [[0, 1, 2, 3]]


@simulated
async def test_a_poll_ends_at_once_when_its_queue_moves() -> None:
    broker = await _with_members("a")
    waiting = asyncio.ensure_future(broker.receive(queue=3, client="a", auto_renew=True, wait_s=20))
    await asyncio.sleep(1)
    broker.connect("b")
    await asyncio.sleep(0.01)
    assert waiting.done()
    assert not waiting.result()


@simulated
async def test_many_who_come_at_once_are_dealt_with_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """5,000 consumers of one group whose broker restarts would else keep it busy for a minute."""
    broker = await _with_members("a")
    waiting = asyncio.ensure_future(broker.receive(queue=3, client="a", auto_renew=True, wait_s=20))
    await asyncio.sleep(1)
    asked = 0
    route = broker.core.assignments.route

    def counted(topic: Topic) -> Sequence[QueueId]:
        nonlocal asked
        asked += 1
        return route(topic)

    monkeypatch.setattr(broker.core.assignments, "route", counted)
    for number in range(300):
        broker.connect(f"b-{number}")
    await asyncio.sleep(0.01)
    assert waiting.done()
    assert len(broker.members()) == 301
    assert 0 < asked < 10
    assert await _owned(broker, "a", "b-0", "b-1", "b-10", "b-2") == [[0], [1], [2], [3], []], "in the order of ids"


@simulated
async def test_a_stream_that_comes_back_in_time_changes_nothing() -> None:
    broker = await _with_members("a")
    stream = broker.connect("b")
    await asyncio.sleep(0.01)
    for _ in range(5):
        stream.cancel()
        await asyncio.sleep(4)
        assert broker.members() == ["a", "b"]
        stream = broker.connect("b")
        await asyncio.sleep(0.01)
    await asyncio.sleep(200)
    assert broker.members() == ["a", "b"], "an open stream is a sign of life"


@simulated
async def test_a_client_without_a_stream_is_gone_after_a_minute_of_silence() -> None:
    broker = await Broker.started()
    for _ in range(5):
        assert await _heartbeat(broker, "quiet") == Code.OK
        await asyncio.sleep(50)
        assert broker.members() == ["quiet"]
    assert 9 < await until(lambda: not broker.members(), 20) < 12


@simulated
async def test_settings_after_the_goodbye_make_nobody_a_member() -> None:
    broker = await _with_members("a")
    stream = broker.connect("b", topics=())
    await asyncio.sleep(0.01)
    await broker.leave("b")
    stream.requests.put_nowait(settings_command(definition_pb2.PUSH_CONSUMER, "team", ["orders"]).SerializeToString())
    await asyncio.sleep(0.01)
    assert broker.members() == ["a"]


@simulated
async def test_who_left_may_come_again() -> None:
    broker = await _with_members("a")
    await broker.leave("a")
    assert not broker.members()
    broker.connect("a")
    await asyncio.sleep(0.01)
    assert await _owned(broker, "a") == [[0, 1, 2, 3]]
    await broker.leave("unknown")


@simulated
async def test_a_lease_is_renewed_while_its_client_lives() -> None:
    broker = await _with_members("a")
    await broker.send_ids("m")
    queue = next(queue.id for topic in broker.core.state.topics.values() for queue in topic.queues if queue.next_offset)
    (received,) = await broker.receive(queue=queue, client="a", auto_renew=True, invisible_s=2)
    for _ in range(20):
        assert not await broker.receive(queue=queue, client="a", auto_renew=True, wait_s=10)
    assert await broker.ack(received, client="a") == Code.OK


@pytest.mark.parametrize(("how", "within_s"), [("word", 0.1), ("broken stream", 6.1)])
@pytest.mark.parametrize("age_s", [1, 100])
@simulated
async def test_the_renewed_leases_of_a_client_that_goes_return(how: str, within_s: float, age_s: float) -> None:
    broker = await Broker.started()
    await asyncio.sleep(age_s)
    stream = broker.connect("a")
    await asyncio.sleep(0.01)
    await broker.send_ids("m")
    assert len(await broker.receive(queue=0, client="a", auto_renew=True)) == 1
    broker.connect("b")
    await asyncio.sleep(0.01)
    stream.cancel()
    if how == "word":
        await broker.leave("a")
    began_s = asyncio.get_running_loop().time()
    received = []
    while not received:
        received = await broker.receive(queue=0, client="b", auto_renew=True, wait_s=20)
    assert asyncio.get_running_loop().time() - began_s < within_s + 1.1
    assert attempt(received[0]) == 2


@simulated
async def test_an_explicit_invisible_time_runs_out_whether_its_client_lives_or_not() -> None:
    broker = await Broker.started()
    await broker.send_ids("m")
    await broker.receive(client="a", invisible_s=20)
    await broker.leave("a")
    assert not await broker.receive(client="b", wait_s=19)
    assert len(await broker.receive(client="b", wait_s=2)) == 1


@simulated
async def test_renewed_leases_get_one_grace_after_a_restart() -> None:
    broker = await _with_members("a")
    await broker.send_ids("m")
    queue = next(queue.id for topic in broker.core.state.topics.values() for queue in topic.queues if queue.next_offset)
    await broker.receive(queue=queue, client="a", auto_renew=True, invisible_s=2)
    await broker.crash()
    broker.connect("b")
    await asyncio.sleep(0.01)
    received = []
    began_s = asyncio.get_running_loop().time()
    while not received:
        received = await broker.receive(queue=queue, client="b", auto_renew=True, wait_s=20)
    assert asyncio.get_running_loop().time() - began_s < 125
    assert ids(received) == ["m"]


@simulated
async def test_the_settings_of_a_client_are_answered_with_the_group_s() -> None:
    broker = await Broker.started(group={"max_attempts": 7, "backoff_s": [1, 2]})
    stream = broker.connect("a")
    await until(lambda: bool(stream.answers))
    command = service_pb2.TelemetryCommand.FromString(stream.answers[0])
    assert command.status.code == Code.OK
    assert command.settings.backoff_policy.max_attempts == 7
    assert [step.seconds for step in command.settings.backoff_policy.customized_backoff.next] == [1, 2]


@simulated
async def test_operators_see_clients_and_owners() -> None:
    broker = await _with_members("a", "b")
    await broker.doors.call(
        service_rpc.HEARTBEAT,
        service_pb2.HeartbeatRequest(client_type=definition_pb2.PRODUCER),
        {"x-mq-client-id": "p", "x-kourou-producer-group": "makers"},
    )
    answer = await broker.doors.call(broker_rpc.LIST_CLIENTS, broker_pb2.ListClientsRequest(), {})
    clients = {client.client_id: client for client in answer.clients}
    assert {name: client.group.name for name, client in clients.items()} == {"a": "team", "b": "team", "p": "makers"}
    assert clients["p"].type == definition_pb2.PRODUCER
    assert clients["a"].subscriptions[0].topic.name == "orders"
    await broker.send_ids("m")
    for queue in range(QUEUES):
        await broker.receive(queue=queue, client="a" if queue < 2 else "b", auto_renew=True)
    request = broker_pb2.DescribeQueuesRequest(topic=resource("orders"), group=resource("team"))
    described = await broker.doors.call(broker_rpc.DESCRIBE_QUEUES, request, {})
    owners = {queue.id: queue.progress[0].owner_client_id for queue in described.queues if queue.progress}
    assert owners == {queue: "a" if queue < 2 else "b" for queue in owners}
    assert owners


@simulated
async def test_too_many_clients_are_refused() -> None:
    broker = await Broker.started(max_clients=3)
    for number in range(3):
        assert await _heartbeat(broker, f"c{number}") == Code.OK
    assert await _heartbeat(broker, "one more") == Code.TOO_MANY_REQUESTS
    assert await _heartbeat(broker, "c1") == Code.OK


def _told(stream: DirectCall) -> list[definition_pb2.Settings]:
    commands = map(service_pb2.TelemetryCommand.FromString, stream.answers)
    return [command.settings for command in commands if command.HasField("settings")]


@simulated
async def test_when_a_group_changes_its_members_are_told_at_once() -> None:
    broker = await Broker.started(group={"max_attempts": 3})
    await broker.put_group("other")
    member, simple = broker.connect("a"), broker.connect("s", definition_pb2.SIMPLE_CONSUMER)
    others = [broker.connect("o", group="other"), broker.connect("p", definition_pb2.PRODUCER)]
    await until(lambda: all(len(_told(stream)) == 1 for stream in (member, simple, *others)))
    [first] = _told(member)
    assert (first.backoff_policy.max_attempts, first.subscription.fifo) == (3, False)
    await broker.put_group("team", max_attempts=7, backoff_s=[2], version=2, order=record_pb2.ORDER_FIFO)
    assert await until(lambda: len(_told(member)) == len(_told(simple)) == 2) < 0.2
    for stream in (member, simple):
        told = _told(stream)[1]
        assert told.backoff_policy.max_attempts == 7
        assert [step.seconds for step in told.backoff_policy.customized_backoff.next] == [2]
        assert told.subscription.fifo
        assert [entry.topic.name for entry in told.subscription.subscriptions] == ["orders"], "as the client said"
    command = service_pb2.TelemetryCommand.FromString(member.answers[1])
    assert command.status.code == Code.OK, "Python's client wants it with settings"
    await broker.put_group("team", version=2)  # an old version changes nothing
    await asyncio.sleep(1)
    assert [len(_told(stream)) for stream in (member, simple, *others)] == [2, 2, 1, 1]


@simulated
async def test_who_has_no_stream_or_left_the_group_is_told_nothing() -> None:
    broker = await Broker.started()
    await broker.put_group("other")
    gone, moved, huge = broker.connect("gone"), broker.connect("moved"), broker.connect("huge")
    await until(lambda: all(_told(stream) for stream in (gone, moved, huge)))
    moved.requests.put_nowait(settings_command(definition_pb2.PUSH_CONSUMER, "other", ["orders"]).SerializeToString())
    large = settings_command(definition_pb2.PUSH_CONSUMER, "team", ["orders"])
    large.settings.user_agent.platform = "x" * 100_000
    huge.requests.put_nowait(large.SerializeToString())
    await until(lambda: len(_told(moved)) == len(_told(huge)) == 2)
    gone.cancel()
    await broker.put_group("team", version=2)
    await broker.put_group("team", version=3, deleted=True)
    await asyncio.sleep(1)
    assert [len(_told(stream)) for stream in (gone, moved, huge)] == [1, 2, 2]


@simulated
async def test_a_group_made_by_its_first_member_is_told_once() -> None:
    broker = await Broker.started(auto_create_groups=True)
    member = broker.connect("a", group="fresh")
    await asyncio.sleep(1)
    assert len(_told(member)) == 1
