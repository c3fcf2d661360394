"""Reading by offset, progress as numbers, and definitions that change."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2, service_rpc
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou_service.refusal import Refused
from tests.simulation.cluster import topic_definition
from tests.unit.broker.alone import Broker, ids, message, resource, simulated

Code = definition_pb2.Code
NUMBERS = [f"m{number}" for number in range(10)]


@simulated
async def test_pulling_reads_from_any_offset_and_says_where_to_go_on() -> None:
    broker = await Broker.started()
    await broker.send_ids(*NUMBERS)
    for offset in range(11):
        pulled, next_offset = await broker.pull(offset=offset, batch_size=4)
        assert ids(pulled) == NUMBERS[offset : offset + 4]
        assert next_offset == offset + len(pulled)
    (message, *_), _ = await broker.pull(offset=3)
    assert (message.system_properties.queue_id, message.system_properties.queue_offset) == (0, 3)
    assert not message.system_properties.receipt_handle


@simulated
async def test_pulling_leaves_no_trace_in_a_group_s_progress() -> None:
    broker = await Broker.started()
    await broker.send_ids(*NUMBERS)
    await broker.pull()
    assert not broker.core.state.progress


@simulated
async def test_a_pull_waits_for_what_it_wants() -> None:
    broker = await Broker.started()
    began_s = asyncio.get_running_loop().time()
    assert await broker.pull(wait_s=5) == ([], 0)
    assert 4.9 < asyncio.get_running_loop().time() - began_s < 5.1
    waiting = asyncio.ensure_future(broker.pull(wait_s=20, tags="red"))
    await asyncio.sleep(1)
    await broker.send_ids("blue", tag="blue")
    await asyncio.sleep(1)
    assert not waiting.done()
    await broker.send_ids("red", tag="red")
    pulled, next_offset = await waiting
    assert (ids(pulled), next_offset) == (["red"], 2)


@simulated
async def test_a_filtered_pull_goes_on_behind_what_it_left_out() -> None:
    broker = await Broker.started()
    for number in range(40):
        await broker.send_ids(f"{number}", tag="red" if number % 10 == 0 else "blue")
    offset, found = 0, []
    for _ in range(6):
        pulled, offset = await broker.pull(offset=offset, batch_size=1, tags="red")
        found += ids(pulled)
    assert (found, offset) == (["0", "10", "20", "30"], 40)


@simulated
async def test_offsets_are_the_lowest_not_acknowledged() -> None:
    broker = await Broker.started()
    await broker.send_ids(*NUMBERS)
    assert (await broker.offset()).status.code == Code.OFFSET_NOT_FOUND
    received = await broker.receive(batch_size=6)
    assert (await broker.offset()).offset == 0
    await broker.ack(*received[1:4])
    assert (await broker.offset()).offset == 0
    await broker.ack(received[0])
    assert (await broker.offset()).offset == 4
    await broker.ack(*received[4:])
    assert (await broker.offset()).offset == 6
    await broker.set_offset(3)
    assert (await broker.offset()).offset == 3
    await broker.crash()
    assert (await broker.offset()).offset == 3


@simulated
async def test_an_offset_can_be_set_before_anything_was_received() -> None:
    broker = await Broker.started()
    await broker.send_ids(*NUMBERS)
    assert await broker.set_offset(7) == Code.OK
    assert ids(await broker.receive()) == NUMBERS[7:]


@simulated
async def test_offsets_by_policy_and_time() -> None:
    broker = await Broker.started()
    times: list[int] = []
    for id_ in NUMBERS:
        times.append(broker.now_ms())
        await broker.send_ids(id_)
        await asyncio.sleep(10)
    assert (await broker.query_offset(definition_pb2.BEGINNING)).offset == 0
    assert (await broker.query_offset(definition_pb2.END)).offset == 10
    for number, time_ms in enumerate(times):
        assert (await broker.query_offset(definition_pb2.TIMESTAMP, time_ms)).offset == number
        assert (await broker.query_offset(definition_pb2.TIMESTAMP, time_ms + 5000)).offset == number + 1
    assert (await broker.query_offset(definition_pb2.TIMESTAMP, -5)).offset == 0
    assert (await broker.query_offset(definition_pb2.TIMESTAMP, broker.now_ms() + 1)).offset == 10


@simulated
async def test_operators_reset_offsets_by_time_place_and_end() -> None:
    broker = await Broker.started(queues=2)
    for id_ in NUMBERS:
        await broker.send_ids(id_)
        await asyncio.sleep(10)
    first = broker.now_ms() - 55_000

    async def reset(**to: object) -> dict[int, int]:
        request = broker_pb2.ResetOffsetRequest(group=resource("team"), topic=resource("orders"), **to)  # type: ignore[arg-type]
        answer = await broker.doors.call(broker_rpc.RESET_OFFSET, request, {})
        assert answer.status.code == Code.OK, answer.status
        return {entry.queue: entry.offset for entry in answer.offsets}

    assert await reset(last=True) == {0: 5, 1: 5}
    assert not await broker.receive()
    assert await reset(first=True, queue=1) == {1: 0}
    assert len(await broker.receive()) == 5
    request = broker_pb2.ResetOffsetRequest(group=resource("team"), topic=resource("orders"))
    request.time.FromMilliseconds(first)
    answer = await broker.doors.call(broker_rpc.RESET_OFFSET, request, {})
    assert answer.status.code == Code.OK
    assert sorted(ids(await broker.receive())) == NUMBERS[5:]


@simulated
async def test_sends_of_one_turn_share_a_queue_and_batches_stay_together() -> None:
    broker = await Broker.started(queues=3)
    for _ in range(5):
        answers = await asyncio.gather(
            broker.send(message(), message()),
            broker.send(message()),
            broker.send(message()),
        )
        offsets = [entry.offset for answer in answers for entry in answer.entries]
        assert offsets == list(range(offsets[0], offsets[0] + 4))
    ends = [(await broker.query_offset(definition_pb2.END, queue=queue)).offset for queue in range(3)]
    assert sorted(ends) == [4, 8, 8]


# Definitions


@simulated
async def test_the_highest_version_of_a_topic_holds() -> None:
    broker = await Broker.started()
    for version, queues, holds in ((5, 4, 4), (5, 6, 4), (3, 8, 4), (6, 5, 5)):
        answer = await broker.put_topic("events", queues, version)
        assert answer.status.code == Code.OK
        assert answer.topic.queues == holds
    assert (await broker.put_topic("events", 4, 7)).status.code == Code.BAD_REQUEST, "queues are never taken away"
    await broker.crash()
    request = broker_pb2.ListTopicsRequest()
    topics = (await broker.doors.call(broker_rpc.LIST_TOPICS, request, {})).topics
    assert {topic.name.name: topic.version for topic in topics} == {"orders": 1, "events": 6}


@simulated
async def test_a_deleted_topic_stays_deleted_until_a_higher_version_makes_it_anew() -> None:
    broker = await Broker.started()
    await broker.send_ids(*NUMBERS)
    await broker.receive()
    await broker.put_topic("orders", version=5, deleted=True)
    for _ in range(2):
        assert (await broker.send(message())).status.code == Code.TOPIC_NOT_FOUND
        assert (await broker.put_topic("orders", version=4)).topic.deleted
        assert (await broker.receive_all())[0].status.code == Code.TOPIC_NOT_FOUND
        assert not broker.core.state.progress
        await broker.crash()
    await broker.put_topic("orders", version=6)
    await broker.send_ids("new")
    assert ids(await broker.receive()) == ["new"]
    assert (await broker.pull())[1] == 1


@simulated
async def test_messages_on_their_way_when_their_topic_is_deleted_are_refused() -> None:
    broker = await Broker.started()
    outcomes: list[object] = []
    broker.core.sending.send([message()], outcomes.append)
    broker.core.definitions.put_topic(topic_definition("orders", version=2, deleted=True))
    await broker.core.journal.durable()
    (refused,) = outcomes
    assert isinstance(refused, Refused)
    assert refused.code == Code.TOPIC_NOT_FOUND
    await broker.crash()
    assert (await broker.send(message())).status.code == Code.TOPIC_NOT_FOUND


@simulated
async def test_topics_of_one_name_in_two_namespaces_are_two() -> None:
    broker = await Broker.started()
    request = broker_pb2.PutTopicRequest()
    request.topic.name.name, request.topic.name.resource_namespace = "orders", "shop"
    request.topic.type, request.topic.permission = definition_pb2.NORMAL, definition_pb2.READ_WRITE
    request.topic.queues = request.topic.version = 1
    assert (await broker.doors.call(broker_rpc.PUT_TOPIC, request, {})).status.code == Code.OK
    other = message(id_="shop's")
    other.topic.resource_namespace = "shop"
    assert (await broker.send(other)).status.code == Code.OK
    mixed = await broker.send(message(), other)
    assert mixed.status.code == Code.BAD_REQUEST
    assert not await broker.receive()


@simulated
async def test_the_write_permission_of_broker_and_topic() -> None:
    broker = await Broker.started()

    async def permit(permission: int) -> None:
        request = broker_pb2.SetPermissionRequest(permission=permission)  # type: ignore[arg-type]
        assert (await broker.doors.call(broker_rpc.SET_PERMISSION, request, {})).status.code == Code.OK

    await permit(definition_pb2.READ)
    for _ in range(2):
        assert (await broker.send(message())).status.code == Code.FORBIDDEN
        await broker.crash()
    await permit(definition_pb2.READ_WRITE)
    assert (await broker.send(message())).status.code == Code.OK
    await broker.put_topic("orders", version=2, permission=definition_pb2.READ)
    assert (await broker.send(message())).status.code == Code.FORBIDDEN
    assert len(await broker.receive()) == 1


@simulated
async def test_an_auto_created_group_survives_its_own_tombstone() -> None:
    broker = await Broker.started(auto_create_groups=True)
    await broker.put_group("team", version=1 << 60, deleted=True)
    await broker.send_ids("m")
    assert ids(await broker.receive()) == ["m"]


@simulated
async def test_what_was_deleted_and_made_again_meanwhile_is_empty() -> None:
    """The broker was away for both: it learns of the delete by what came after it."""
    broker = await Broker.started(queues=2)
    await broker.put_topic("kept", version=1)
    await broker.send_ids("old")
    await broker.send_ids("kept", topic="kept")
    assert ids(await broker.receive()) == ["old"]
    assert ids(await broker.receive(topic="kept", invisible_s=600)) == ["kept"]
    # Changes without a delete between them leave everything.
    await broker.put_topic("kept", queues=2, version=20, deleted_version=1)
    await broker.put_group("team", version=20, deleted_version=1)
    assert await broker.receive(topic="kept") == []
    answer = await broker.put_topic("orders", queues=1, version=22, deleted_version=21)
    assert (answer.status.code, answer.topic.queues) == (Code.OK, 1)
    await broker.send_ids("new")
    assert ids(await broker.receive()) == ["new"]
    # A group of the same name is another one, too.
    await broker.put_group("team", version=24, deleted_version=23)
    assert ids(await broker.receive(topic="kept")) == ["kept"]
    await broker.crash()
    assert [len(topic.queues) for topic in broker.core.state.topics.values() if topic.name.name == "orders"] == [1]
    assert ids((await broker.pull())[0]) == ["new"]
    assert not broker.core.state.topic_tombstones


@simulated
async def test_a_producer_s_route_names_the_queues() -> None:
    broker = await Broker.started(queues=3)
    request = service_pb2.QueryRouteRequest(topic=resource("orders"))
    answer = await broker.doors.call(service_rpc.QUERY_ROUTE, request, {"x-mq-client-id": "c"})
    assert [queue.id for queue in answer.message_queues] == [0, 1, 2]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(("put", "delete")), st.integers(0, 5), st.integers(1, 3), st.sampled_from(("a", "b"))
        ),
        max_size=12,
    )
)
def test_definitions_follow_versions_and_nothing_else(changes: list[tuple[str, int, int, str]]) -> None:
    @simulated
    async def test() -> None:
        broker = await Broker.started()
        model: dict[str, tuple[int, bool, int]] = {}
        for what, version, queues, name in changes:
            known = model.get(name)
            answer = await broker.put_topic(name, queues, version, deleted=what == "delete")
            if known is not None and known[0] >= version:
                assert answer.topic.version == known[0]
            elif what == "put" and known is not None and not known[1] and queues < known[2]:
                assert answer.status.code == Code.BAD_REQUEST
            else:
                assert answer.status.code == Code.OK
                model[name] = (version, what == "delete", queues)
        await broker.crash()
        state = broker.core.state
        assert {topic.name.name for topic in state.topics.values()} - {"orders"} == {
            name for name, (_, deleted, _) in model.items() if not deleted
        }
        assert {name.name for name in state.topic_tombstones} == {n for n, (_, deleted, _) in model.items() if deleted}

    test()
