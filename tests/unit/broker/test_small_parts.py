"""Filters, receipts and the spreading of queues, by themselves."""

import base64
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.operations import receipt
from kourou_broker.operations.assignment import QueueId, holder, share
from kourou_broker.operations.message import tag_hash
from kourou_broker.operations.section_reader import StoredMessage
from kourou_broker.operations.tag_filter import TagFilter, compile_tags
from kourou_broker.state import State, records
from kourou_broker.state.records import Lease
from kourou_service.refusal import Refused
from tests.simulation.cluster import group_definition, topic_definition

TAGS = st.text(st.characters(codec="utf-8", exclude_characters="|*"), min_size=1, max_size=8).filter(
    lambda tag: tag == tag.strip() and bool(tag)
)


def _stored(tag: str | None) -> StoredMessage:
    tail = definition_pb2.SystemProperties(message_id="m", tag=tag).SerializeToString()
    return StoredMessage(0, b"", tail, 0 if tag is None else tag_hash(tag), 0, 0, 0)


def _passes(tags: TagFilter, tag: str | None) -> bool:
    message = _stored(tag)
    return tags.may_match(message.tag_hash) and tags.matches(message)


@given(wanted=st.lists(TAGS, min_size=1, max_size=5), tag=st.none() | TAGS, spaces=st.sampled_from(("", " ", "  ")))
def test_a_filter_passes_its_tags_and_no_others(wanted: list[str], tag: str | None, spaces: str) -> None:
    tags = compile_tags(f"{spaces}||{spaces}".join(wanted))
    assert _passes(tags, tag) == (tag in wanted)
    for each in wanted:
        assert _passes(tags, each)


@pytest.mark.parametrize("expression", ["", "*", " * "])
def test_everything_passes_the_filter_of_all(expression: str) -> None:
    for tag in (None, "a"):
        assert _passes(compile_tags(expression), tag)


def test_tags_of_one_hash_are_told_apart() -> None:
    seen: dict[int, str] = {}
    rng = random.Random(0)
    while (tag := f"{rng.getrandbits(64):x}") and tag_hash(tag) not in seen:
        seen[tag_hash(tag)] = tag
        if len(seen) > 300_000:
            pytest.skip("no two tags of one hash were found")
    other = seen[tag_hash(tag)]
    assert not _passes(compile_tags(tag), other)
    assert _passes(compile_tags(tag), tag)


# Receipts


def _state(lease: Lease) -> State:
    state = State()
    for id_ in (1, 2):
        state.apply(records.topic(topic_definition(f"t{id_}", 2, id=id_)), 0)
        state.apply(records.group(group_definition(f"g{id_}", id=id_)), 0)
    state.apply(records.lease(1, 1, 0, 10, lease), 0)
    return state


LEASE = Lease(2**64 - 1, 7, 1000, 1, False, "client", [3, 4])
GOOD = receipt.encode((1, 1, 0), 3, LEASE)


def _refused(state: State, handle: str, group: int = 1, topic: int = 1) -> None:
    with pytest.raises(Refused) as refused:
        receipt.resolve(state, handle, group, topic)
    assert refused.value.code == definition_pb2.INVALID_RECEIPT_HANDLE


def test_a_handle_stands_for_its_lease_and_message() -> None:
    state = _state(LEASE)
    progress, offset, lease = receipt.resolve(state, GOOD, 1, 1)
    assert (offset, lease.number) == (3, 7)
    assert progress is state.progress[1, 1, 0]


def test_a_handle_is_no_good_for_another_group_topic_lease_or_message() -> None:
    state = _state(LEASE)
    _refused(state, GOOD, group=2)
    _refused(state, GOOD, topic=2)
    for other in (
        receipt.encode((1, 1, 0), 5, LEASE),
        receipt.encode((1, 1, 1), 3, LEASE),
        receipt.encode((1, 2, 0), 3, LEASE),
        receipt.encode((2, 1, 0), 3, LEASE),
        receipt.encode((1, 1, 0), 3, Lease(2**64 - 2, 7, 0, 1, False, "", [])),
        receipt.encode((1, 1, 0), 3, Lease(2**64 - 1, 8, 0, 1, False, "", [])),
    ):
        _refused(state, other)


def test_a_handle_is_no_good_after_its_lease() -> None:
    for end in (
        records.ack(1, 1, 0, [3], records.Fate.CONSUMED),
        records.offset(1, 1, 0, 0),
        records.lease(1, 1, 0, 10, Lease(1, 1, 0, 2, False, "", [3])),
        records.group(group_definition("g1", id=1, deleted=True)),
        records.topic(topic_definition("t1", id=1, deleted=True)),
    ):
        state = _state(LEASE)
        state.apply(end, 0)
        _refused(state, GOOD)


@given(st.text(max_size=80) | st.binary(max_size=60).map(lambda data: base64.urlsafe_b64encode(data).decode()))
def test_garbage_is_refused(handle: str) -> None:
    _refused(_state(LEASE), handle)


@given(data=st.data())
def test_a_handle_with_a_changed_character_is_refused(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(GOOD) - 1))
    character = data.draw(st.characters(codec="ascii", exclude_characters=GOOD[at]))
    changed = GOOD[:at] + character + GOOD[at + 1 :]
    try:
        _progress, offset, _lease = receipt.resolve(_state(LEASE), changed, 1, 1)
    except Refused:
        return
    assert offset in (3, 4), "it may name another message of the same lease, which is lent to the same client"


# Spreading queues

QUEUES = st.lists(st.builds(QueueId, st.sampled_from(("a", "b", "c")), st.integers(0, 20)), unique=True).map(sorted)
MEMBERS = st.lists(st.text("mno", min_size=1, max_size=4), unique=True).map(sorted)


def spread(members: list[str], queues: list[QueueId]) -> dict[str, list[QueueId]]:
    return {
        member: [queues[queue] for queue in share(number, len(members), len(queues))]
        for number, member in enumerate(members)
    }


@given(members=MEMBERS, queues=QUEUES)
def test_each_queue_belongs_to_one_member_and_shares_are_even(members: list[str], queues: list[QueueId]) -> None:
    owned = spread(members, queues)
    if not members:
        return
    assert [queue for share in owned.values() for queue in share] == queues, "neighbours, in order"
    sizes = [len(share) for share in owned.values()]
    assert sizes == sorted(sizes, reverse=True)
    assert max(sizes) - min(sizes) <= 1
    held = [members[holder(queue, len(members), len(queues))] for queue in range(len(queues))]
    assert held == [member for member, share in owned.items() for _ in share]


@given(members=st.lists(st.text("mno", min_size=1), unique=True, min_size=2).map(sorted), queues=QUEUES)
def test_every_broker_gives_the_same_answer_for_its_own_queues(members: list[str], queues: list[QueueId]) -> None:
    whole = spread(members, queues)
    for broker in ("a", "b", "c"):
        own = {queue: member for member, share in whole.items() for queue in share if queue.broker == broker}
        assert len(own) == sum(queue.broker == broker for queue in queues)
