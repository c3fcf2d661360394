"""What a sender is answered."""

import pytest

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2, service_rpc
from kourou_broker.rpc.sending import STORED_HEADER
from tests.unit.broker.alone import Broker, message, simulated


@pytest.mark.parametrize("count", [1, 2, 64, 65, 100])
def test_each_message_has_its_own_id_and_offset(count: int) -> None:
    """Responses of one size share what is the same in them."""

    @simulated
    async def twice() -> None:
        broker = await Broker.started()
        for number in range(2):
            ids = [f"{number}-{place}" for place in range(count)]
            answer = await broker.send(*(message(id_=id_) for id_ in ids))
            assert answer.status.code == definition_pb2.OK
            assert [entry.message_id for entry in answer.entries] == ids
            assert [entry.offset for entry in answer.entries] == list(range(number * count, (number + 1) * count))
            assert {entry.status.code for entry in answer.entries} == {definition_pb2.OK}

    twice()


@simulated
async def test_where_messages_were_put_is_told_to_those_who_ask() -> None:
    broker = await Broker.started()
    request = service_pb2.SendMessageRequest(messages=[message()])
    plain = await broker.doors.reply(service_rpc.SEND_MESSAGE, request, {"x-mq-client-id": "producer"})
    assert not plain.trailing
    asking = {"x-mq-client-id": "other", STORED_HEADER: ""}
    told = await broker.doors.reply(service_rpc.SEND_MESSAGE, request, asking)
    assert STORED_HEADER in told.trailing
