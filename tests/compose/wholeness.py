"""Whether everything is there, from where a user on the host stands."""

from kourou.errors import KourouError
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.admin.v1 import admin_pb2, admin_rpc
from kourou.protocol.kourou.routing.v1 import routing_pb2, routing_rpc
from tests.cluster.operator_client import Operator
from tests.compose.stack import BROKERS, Stack


async def is_whole(stack: Stack, operator: Operator) -> bool:
    """Each NameServer has every broker and lets writers go to it, and the admin service reaches all of them."""
    try:
        for namesrv in stack.namesrv.split(","):
            if await writable_brokers(operator, namesrv) != set(BROKERS):
                return False
        listed = await operator.ask_admin(admin_rpc.LIST_BROKERS, admin_pb2.ListBrokersRequest())
    except KourouError:
        return False
    return {row.info.name for row in listed.brokers if row.HasField("description")} == set(BROKERS)


async def writable_brokers(operator: Operator, namesrv: str) -> set[str]:
    """The brokers that are connected to this NameServer and open to writers. Raises KourouError."""
    answer = await operator.ask(namesrv, routing_rpc.LIST_BROKERS, routing_pb2.ListBrokersRequest())
    return {broker.name for broker in answer.brokers if broker.connected and broker.permission == v2.READ_WRITE}
