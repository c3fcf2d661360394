"""What a sender is answered."""

import pytest

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
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
