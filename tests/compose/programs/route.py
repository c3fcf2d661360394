"""The brokers that one NameServer's route of a topic leads to: route.py ADDRESS TOPIC."""

import asyncio
import json
import sys

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2, service_rpc
from kourou.route import endpoints_of
from kourou.transport import GrpcTransport
from kourou.wire import Wire, new_client_id


async def main(address: str, topic: str) -> None:
    transport = GrpcTransport()
    request = service_pb2.QueryRouteRequest(topic=v2.Resource(name=topic), endpoints=endpoints_of(address))
    answer = (await Wire(transport, new_client_id()).call(address, service_rpc.QUERY_ROUTE, request)).message
    print(json.dumps(sorted({queue.broker.name for queue in answer.message_queues})))
    await transport.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
