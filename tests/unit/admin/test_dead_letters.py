"""Dead letters on all brokers, as the admin service lists and resends them."""

from __future__ import annotations

import pytest

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.admin.v1.admin_pb2 import (
    ListDeadLettersRequest,
    ResendDeadLettersRequest,
    ResendDeadLettersResponse,
)
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou_admin.dead_letters import DeadLetters
from kourou_service.refusal import Refused
from tests.unit.admin.fake_cluster import OK, FakeNetwork, keep_letters

READERS = v2.Resource(name="readers")


@pytest.fixture
def network() -> FakeNetwork:
    network = FakeNetwork("broker-a", "broker-b")
    keep_letters(network.brokers["broker-a"], [f"a{number}" for number in range(600)])
    keep_letters(network.brokers["broker-b"], ["b0", "b1"])
    return network


async def resend(network: FakeNetwork, *ids: str) -> list[ResendDeadLettersResponse]:
    request = ResendDeadLettersRequest(group=READERS, message_ids=ids)
    return [report async for report in DeadLetters(network.cluster()).resend(request)]


async def test_the_list_has_all_brokers_and_says_where_there_is_more(network: FakeNetwork) -> None:
    response = await DeadLetters(network.cluster()).list(ListDeadLettersRequest(group=READERS, limit=2))
    listed = [(entry.broker, entry.letter.message.system_properties.message_id) for entry in response.letters]
    assert listed == [("broker-a", "a0"), ("broker-a", "a1"), ("broker-b", "b0"), ("broker-b", "b1")]
    assert list(response.more_on) == ["broker-a"]
    network.brokers["broker-a"].down = True
    response = await DeadLetters(network.cluster()).list(ListDeadLettersRequest(group=READERS))
    assert [failure.broker for failure in response.failures] == ["broker-a"]
    assert len(response.letters) == 2


async def test_all_are_resent_broker_by_broker_in_batches(network: FakeNetwork) -> None:
    *reports, last = await resend(network)
    assert [(report.broker, report.resent) for report in reports] == [
        ("broker-a", 256),
        ("broker-a", 256),
        ("broker-a", 88),
        ("broker-b", 2),
    ]
    assert (last.status.code, last.broker, list(last.failures)) == (v2.OK, "", [])
    [nothing] = await resend(network)
    assert (nothing.status.code, nothing.resent) == (v2.OK, 0)


async def test_some_are_resent_by_their_ids(network: FakeNetwork) -> None:
    *reports, last = await resend(network, "a599", "b1", "a0")
    assert [(report.broker, report.resent) for report in reports] == [("broker-a", 1), ("broker-a", 1), ("broker-b", 1)]
    assert last.status.code == v2.OK
    *reports, last = await resend(network, "b0", "b1", "nonsense")
    assert sum(report.resent for report in reports) == 1
    assert last.status.code == v2.MULTIPLE_RESULTS
    assert [failure.status.message for failure in last.failures] == ["no such dead letter: b1, nonsense"]
    *reports, last = await resend(network, "nonsense")
    assert (reports, last.status.code) == ([], v2.MESSAGE_NOT_FOUND)


async def test_what_fails_again_meanwhile_is_left_for_the_next_time(network: FakeNetwork) -> None:
    """The list grows while it is worked on: that must not go on for ever."""
    broker = network.brokers["broker-b"]
    resend_there = broker.answers[broker_rpc.RESEND_DEAD_LETTERS.path]

    def fails_again(request: broker_pb2.ResendDeadLettersRequest) -> broker_pb2.ResendDeadLettersResponse:
        answer = resend_there(request)
        broker.letters.extend(f"again {offset}" for offset in request.offsets)
        assert isinstance(answer, broker_pb2.ResendDeadLettersResponse)
        return answer

    broker.answers[broker_rpc.RESEND_DEAD_LETTERS.path] = fails_again
    reports = await resend(network)
    assert sum(report.resent for report in reports if report.broker == "broker-b") == 2


async def test_each_letter_that_could_not_be_resent_is_named(network: FakeNetwork) -> None:
    gone = v2.Status(code=v2.TOPIC_NOT_FOUND, message="topic flights was deleted")
    network.brokers["broker-b"].answers[broker_rpc.RESEND_DEAD_LETTERS.path] = lambda _: (
        broker_pb2.ResendDeadLettersResponse(status=v2.Status(code=v2.MULTIPLE_RESULTS), results=[OK, gone])
    )
    network.brokers["broker-a"].down = True
    *reports, last = await resend(network)
    assert [(report.broker, report.resent) for report in reports] == [("broker-b", 1)]
    assert last.status.code == v2.MULTIPLE_RESULTS
    assert [(failure.broker, failure.status.message) for failure in last.failures][1] == (
        "broker-b",
        "b1: topic flights was deleted",
    )
    assert last.failures[0].broker == "broker-a"


async def test_bad_requests(network: FakeNetwork) -> None:
    letters = DeadLetters(network.cluster())
    for limit in (-1, 257):
        with pytest.raises(Refused, match="limit"):
            await letters.list(ListDeadLettersRequest(group=READERS, limit=limit))
    for name, code in (("a b", v2.ILLEGAL_CONSUMER_GROUP), ("nobody", v2.CONSUMER_GROUP_NOT_FOUND)):
        group = v2.Resource(name=name)
        with pytest.raises(Refused) as refused:
            await letters.list(ListDeadLettersRequest(group=group))
        assert refused.value.code == code
        with pytest.raises(Refused) as refused:
            await anext(letters.resend(ResendDeadLettersRequest(group=group)))
        assert refused.value.code == code
