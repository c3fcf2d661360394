"""A message that is sent again is not stored again."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2, service_rpc
from kourou.protocol.google.protobuf.timestamp_pb2 import Timestamp
from kourou.transport import Reply
from kourou_broker.metrics.messages import MessageMetrics
from kourou_broker.operations.gathered_places import place_of
from kourou_broker.operations.journal import Stored
from kourou_broker.operations.recent_sends import Known, RecentSends, SendUnderWay
from kourou_broker.rpc.sending import STORED_HEADER
from kourou_service.refusal import Refused
from tests.simulation.cluster import topic_definition
from tests.unit.broker.alone import Broker, ids, message, simulated

Code = definition_pb2.Code


async def send(broker: Broker, *sent: str, topic: str = "orders") -> Reply[service_pb2.SendMessageResponse]:
    request = service_pb2.SendMessageRequest(messages=[message(id_.encode(), id_, topic) for id_ in sent])
    return await broker.doors.reply(
        service_rpc.SEND_MESSAGE, request, {"x-mq-client-id": "producer", STORED_HEADER: ""}
    )


def places(reply: Reply[service_pb2.SendMessageResponse]) -> list[tuple[int, str]]:
    """Of each message its offset and where the trailer says that it lies."""
    entries = reply.message.entries
    parts = str(reply.trailing[STORED_HEADER]).split(",")
    if len(parts) == 1:
        queue, position, place = map(int, parts[0].split("."))
        parts = [f"{queue}.{position}.{place + number}" for number in range(len(entries))]
    return [(entry.offset, part) for entry, part in zip(entries, parts, strict=True)]


async def stored(broker: Broker, topic: str = "orders") -> list[str]:
    return ids((await broker.pull(topic=topic))[0])


async def figures(broker: Broker) -> tuple[float, float]:
    """Duplicates, and the window in seconds."""
    core = broker.core
    families = await MessageMetrics(core.state, core.traffic, core.recent_sends, broker.shard.clock).collect()
    values: dict[str, Any] = {family.name: family.rows for family in families}
    return values["kourou_duplicate_sends_total"][0][1], values["kourou_dedup_window_seconds"][0][1]


@simulated
async def test_sent_again_it_gets_the_first_result() -> None:
    broker = await Broker.started()
    first = await send(broker, "a")
    await send(broker, "b")
    again = await send(broker, "a")
    assert again.message == first.message
    assert again.trailing == first.trailing
    assert await stored(broker) == ["a", "b"]
    assert await figures(broker) == (1, 120)


@simulated
async def test_a_batch_sent_again_and_parts_of_it() -> None:
    broker = await Broker.started(queues=3)
    first = await send(broker, "a", "b", "c")
    assert places(await send(broker, "a", "b", "c")) == places(first)
    assert places(await send(broker, "b", "c")) == places(first)[1:]
    [a, _b, c] = places(first)
    assert places(await send(broker, "c", "a")) == [c, a]
    mixed = await send(broker, "new", "b", "newer", "new")
    assert [entry.message_id for entry in mixed.message.entries] == ["new", "b", "newer", "new"]
    new, b, newer, twice = places(mixed)
    assert (b, twice) == (places(first)[1], new)
    assert int(newer[0]) == int(new[0]) + 1
    assert places(await send(broker, "new", "newer")) == [new, newer]
    messages = [message for queue in range(3) for message in (await broker.pull(queue=queue))[0]]
    assert sorted(ids(messages)) == ["a", "b", "c", "new", "newer"]
    assert (await figures(broker))[0] == 3 + 2 + 2 + 2 + 2


@simulated
async def test_the_same_id_twice_in_a_request_is_one_message() -> None:
    broker = await Broker.started()
    assert [offset for offset, _place in places(await send(broker, "a", "a", "b"))] == [0, 0, 1]
    assert await stored(broker) == ["a", "b"]


@simulated
async def test_it_joins_the_send_under_way() -> None:
    broker = await Broker.started()
    replies = await asyncio.gather(send(broker, "a", "b"), send(broker, "b"), send(broker, "c", "a"), send(broker, "a"))
    [a, b], [b_again], [c, a_again], [a_once_more] = map(places, replies)
    assert (a, b) == (a_again, b_again) == (a_once_more, b)
    assert c[0] == 2
    assert await stored(broker) == ["a", "b", "c"]


@simulated
async def test_who_joins_a_send_that_is_refused_is_refused_alike_and_the_id_is_free_again() -> None:
    broker = await Broker.started()
    await broker.put_topic("short-lived")
    outcomes: list[Stored | Refused] = []
    for sent in (("a", "b"), ("b",), ("c", "a")):
        broker.core.sending.send([message(id_=id_, topic="short-lived") for id_ in sent], outcomes.append)
    broker.core.definitions.put_topic(topic_definition("short-lived", 1, 2, deleted=True))
    await broker.core.journal.durable()
    assert [outcome.code for outcome in outcomes if isinstance(outcome, Refused)] == [Code.TOPIC_NOT_FOUND] * 3
    await broker.put_topic("short-lived", version=3)
    await send(broker, "a", "b", topic="short-lived")
    assert await stored(broker, "short-lived") == ["a", "b"]


@simulated
async def test_what_was_refused_at_once_is_no_message() -> None:
    broker = await Broker.started()
    empty = message(b"", "a")
    assert (await broker.send(empty)).status.code == Code.MESSAGE_BODY_EMPTY
    assert (await broker.send(message(id_="b"), empty)).status.code == Code.MESSAGE_BODY_EMPTY
    assert [offset for offset, _ in places(await send(broker, "b", "a"))] == [0, 1]
    assert await stored(broker) == ["b", "a"]


@simulated
async def test_a_refused_rest_of_a_request_leaves_the_known_ones_known() -> None:
    broker = await Broker.started()
    first = await send(broker, "a")
    assert (await broker.send(message(id_="a"), message(b"", "b"))).status.code == Code.MESSAGE_BODY_EMPTY
    assert places(await send(broker, "a")) == places(first)


@simulated
async def test_a_broker_that_takes_nothing_new_still_tells_of_what_it_has() -> None:
    broker = await Broker.started()
    first = await send(broker, "a")
    broker.core.definitions.set_permission(definition_pb2.READ)
    assert places(await send(broker, "a")) == places(first)
    assert (await send(broker, "b")).message.status.code == Code.FORBIDDEN


@simulated
async def test_topics_have_ids_of_their_own() -> None:
    broker = await Broker.started()
    await broker.put_topic("others")
    await send(broker, "a")
    await send(broker, "a", topic="others")
    assert await stored(broker) == await stored(broker, "others") == ["a"]


@simulated
async def test_after_the_window_it_is_a_new_message() -> None:
    broker = await Broker.started(dedup_window_s=10)
    first = await send(broker, "a")
    await asyncio.sleep(9.9)
    assert places(await send(broker, "a")) == places(first)
    await asyncio.sleep(0.2)
    second = await send(broker, "a")
    assert second.message.entries[0].offset == 1
    assert places(await send(broker, "a")) == places(second)


@simulated
async def test_too_many_ids_shorten_the_window_and_that_is_told() -> None:
    broker = await Broker.started(dedup_max_ids=10)
    for number in range(10):
        await asyncio.sleep(1)
        await send(broker, f"{number}")
    assert (await figures(broker))[1] == 120
    await asyncio.sleep(1)
    await send(broker, "10")
    _duplicates, window_s = await figures(broker)
    assert 5 <= window_s < 6.1
    for known in range(5, 11):
        assert (await send(broker, f"{known}")).message.entries[0].offset == known
    assert (await send(broker, "4")).message.entries[0].offset == 11


@pytest.mark.parametrize("off", [{"dedup_window_s": 0}, {"dedup_max_ids": 0}])
def test_it_can_be_switched_off(off: dict[str, Any]) -> None:
    @simulated
    async def run() -> None:
        broker = await Broker.started(**off)
        await send(broker, "a")
        await send(broker, "a")
        assert await stored(broker) == ["a", "a"]
        assert await figures(broker) == (0, 0)

    run()


@simulated
async def test_after_a_crash_it_is_known() -> None:
    broker = await Broker.started(queues=2)
    await broker.put_topic("others")
    first = await asyncio.gather(send(broker, "a", "b"), send(broker, "c"), send(broker, "a", topic="others"))
    for come_back in (broker.crash, broker.restart):
        await come_back()
        assert (await figures(broker))[1] == 120
        assert places(await send(broker, "a", "b")) == places(first[0])
        assert places(await send(broker, "c")) == places(first[1])
        assert places(await send(broker, "a", topic="others")) == places(first[2])
        assert (await figures(broker))[0] == 4


@simulated
async def test_who_was_not_answered_before_the_crash_finds_the_message() -> None:
    broker = await Broker.started()
    unanswered = asyncio.ensure_future(send(broker, "a"))
    await asyncio.sleep(0)
    await broker.core.journal.durable()
    await broker.crash()
    assert (await asyncio.gather(unanswered, return_exceptions=True))[0] is not None
    await send(broker, "a")
    assert await stored(broker) == ["a"]


@simulated
async def test_a_restart_knows_the_newest_ids_only() -> None:
    broker = await Broker.started(dedup_max_ids=10, dedup_window_s=60)
    await send(broker, "long ago")
    await asyncio.sleep(60)
    for number in range(30):
        await asyncio.sleep(0.1)
        await send(broker, f"{number}")
    await broker.crash()
    known_since_s = (await figures(broker))[1]
    assert 0.4 < known_since_s < 1.1
    assert (await send(broker, "29")).message.entries[0].offset == 30
    assert (await send(broker, "0")).message.entries[0].offset == 31
    assert (await send(broker, "long ago")).message.entries[0].offset == 32


@simulated
async def test_a_restart_from_a_snapshot_says_how_far_back_it_knows() -> None:
    broker = await Broker.started(snapshot_every_bytes=1 << 20)
    await send(broker, "old")
    while broker.core.snapshots.droppable < 1 << 20:
        await asyncio.sleep(0.01)
        await broker.send(message(bytes(1 << 16)))
        await broker.core.check_retention()
    newest = await send(broker, "new")
    await broker.crash()
    assert places(await send(broker, "new")) == places(newest)
    assert 0 < (await figures(broker))[1] < 60


_CALLS = st.lists(
    st.tuples(
        st.integers(0, 30),  # ms that pass before
        st.integers(1, 2),  # the topic
        st.lists(st.integers(0, 40).map(str), min_size=1, max_size=5, unique=True),
        st.sampled_from(["stored", "refused", "later"]),
    ),
    max_size=60,
)


@given(_CALLS, st.integers(1, 20), st.integers(1, 200))
def test_ids_against_a_model(calls: Sequence[Any], max_ids: int, window_ms: int) -> None:
    """All within the window that it tells is known, and with its own place; nothing older than the set one is."""
    recent = RecentSends(window_ms=window_ms, max_ids=max_ids)
    sent: dict[tuple[int, str], tuple[int, Stored]] = {}
    later: list[tuple[SendUnderWay, Stored]] = []
    now_ms, position = 1000, 0
    for wait_ms, topic, wanted, outcome in calls:
        now_ms += wait_ms
        for message_id in wanted:
            known = recent.find(topic, message_id, now_ms)
            before = sent.get((topic, message_id))
            if before is not None and now_ms - before[0] < recent.window_ms(now_ms):
                assert known is not None
            if known is not None:
                assert recent.knows_any(topic, [message_id])
                assert before is not None
                if isinstance(known.outcome, Stored):
                    assert now_ms - before[0] < window_ms
                    assert place_of(known.outcome, known.which) == before[1]
        if recent.knows_any(topic, wanted):
            wanted = [id_ for id_ in wanted if recent.find(topic, id_, now_ms) is None]
        if not wanted:
            continue
        position += 1
        where = Stored(topic, 100 * position, position, 0)
        under_way = recent.begin(topic, wanted, now_ms, lambda _where: None)
        if outcome == "refused":
            under_way.stored(Refused(Code.TOPIC_NOT_FOUND, "gone"))
            for message_id in wanted:
                sent.pop((topic, message_id), None)
            continue
        for which, message_id in enumerate(wanted):
            sent[topic, message_id] = now_ms, place_of(where, which)
        if outcome == "stored":
            under_way.stored(where)
        else:
            later.append((under_way, where))
        if len(later) > 3:
            slow, there = later.pop(0)
            slow.stored(there)


def test_known_says_which_message_of_its_call() -> None:
    recent = RecentSends(window_ms=1000, max_ids=100)
    heard: list[Stored | Refused] = []
    under_way = recent.begin(1, ["a", "b"], 5, heard.append)
    assert recent.find(1, "b", 6) == Known(1, under_way)
    held = Stored(-1, -1, 77, 4, ("handle-a", "handle-b"))
    under_way.stored(held)
    known = recent.find(1, "b", 6)
    assert known is not None
    assert known.outcome == held
    assert place_of(held, known.which) == Stored(-1, -1, 77, 5, ("handle-b",))
    assert heard == [held]


TYPED: dict[int, dict[str, Any]] = {
    definition_pb2.FIFO: {"message_group": "g"},
    definition_pb2.PRIORITY: {"priority": 1},
    definition_pb2.TRANSACTION: {},
    definition_pb2.DELAY: {"delivery_timestamp": Timestamp(seconds=1_700_086_400)},
}


@pytest.mark.parametrize("how", ["", "restart", "crash"])
@pytest.mark.parametrize("type_", TYPED)
def test_messages_of_every_type(type_: int, how: str) -> None:
    """The same place, recall handle and transaction id, and one message."""

    @simulated
    async def run() -> None:
        broker = Broker()
        await broker.shard.start()
        await broker.put_topic("orders", 2, type=type_)

        async def send_it() -> Reply[service_pb2.SendMessageResponse]:
            sent = message(id_="a", message_type=type_, **TYPED[type_])
            request = service_pb2.SendMessageRequest(messages=[sent])
            return await broker.doors.reply(service_rpc.SEND_MESSAGE, request, {"x-mq-client-id": "producer"})

        first = await send_it()
        assert first.message.status.code == Code.OK, first.message.status
        if how:
            await getattr(broker, how)()
        again = await send_it()
        assert again.message == first.message
        assert again.trailing == first.trailing
        [entry] = first.message.entries
        assert bool(entry.recall_handle) == (type_ == definition_pb2.DELAY)
        assert bool(entry.transaction_id) == (type_ == definition_pb2.TRANSACTION)
        state = broker.core.state
        held = sum(len(timers) for timers in state.timers.values()) + len(state.half_messages)
        in_queues = sum(queue.next_offset for topic in state.topics.values() for queue in topic.queues)
        assert held + in_queues == 1

    run()
