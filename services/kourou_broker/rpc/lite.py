"""SyncLiteSubscription: lite consumers say which lite topics they read."""

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2, service_rpc
from kourou_broker.operations.clients import Clients
from kourou_broker.operations.definitions import Definitions
from kourou_broker.operations.journal import Journal
from kourou_broker.operations.lite_groups import check_lite_consumer
from kourou_broker.operations.lite_subscriptions import LiteSubscriptions
from kourou_service.door import OK, client_id, serve_unary
from kourou_service.engine import Call, Engine


class LiteDoor:
    def __init__(
        self, definitions: Definitions, clients: Clients, subscriptions: LiteSubscriptions, journal: Journal
    ) -> None:
        self._definitions = definitions
        self._clients = clients
        self._subscriptions = subscriptions
        self._journal = journal

    def open(self, engine: Engine) -> None:
        serve_unary(engine, service_rpc.SYNC_LITE_SUBSCRIPTION, self._sync)

    async def _sync(
        self, request: service_pb2.SyncLiteSubscriptionRequest, call: Call
    ) -> service_pb2.SyncLiteSubscriptionResponse:
        client = self._clients.touch(client_id(call), call)
        topic = self._definitions.topic(request.topic)
        group = self._definitions.lite_group(request.group, request.topic)
        check_lite_consumer(group, topic, client)
        self._clients.join(client, client.type or definition_pb2.LITE_PUSH_CONSUMER, group.name, topic.name)
        self._subscriptions.sync(group, client, request)
        await self._journal.durable()
        return service_pb2.SyncLiteSubscriptionResponse(status=OK)
