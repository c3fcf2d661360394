"""The admin API from within a test: quicker than the `kourou` command, which has tests of its own."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self, TypeVar

from google.protobuf.message import Message as ProtobufMessage

from kourou.errors import TopicNotFound
from kourou.message_id import new_message_id
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2, service_rpc
from kourou.protocol.google.protobuf.duration_pb2 import Duration
from kourou.protocol.kourou.admin.v1 import admin_pb2, admin_rpc
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou.protocol.kourou.log.v1 import record_pb2
from kourou.protocol.method import UnaryMethod
from kourou.transport import GrpcTransport
from kourou.wire import Wire, new_client_id
from tests.cluster.cluster import System
from tests.cluster.waiting import eventually

Q = TypeVar("Q", bound=ProtobufMessage)
A = TypeVar("A", bound=ProtobufMessage)


class Operator:
    def __init__(self, system: System) -> None:
        self._system = system
        self._transport = GrpcTransport()
        self._wire = Wire(self._transport, new_client_id())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.close()

    async def ask(self, address: str, method: UnaryMethod[Q, A], request: Q) -> A:
        """Raises KourouError."""
        return (await self._wire.call(address, method, request, 15.0)).message

    async def ask_admin(self, method: UnaryMethod[Q, A], request: Q) -> A:
        return await self.ask(self._system.admin_address, method, request)

    @property
    def broker_addresses(self) -> Sequence[str]:
        return self._system.broker_addresses

    async def create_topic(
        self, name: str, queues: int = 4, message_type: v2.MessageType = v2.NORMAL, brokers: Sequence[str] = ()
    ) -> str:
        """Returns when every NameServer tells of it."""
        resource = v2.Resource(name=name)
        request = admin_pb2.CreateTopicRequest(name=resource, type=message_type, queues=queues, brokers=brokers)
        created = await self.ask_admin(admin_rpc.CREATE_TOPIC, request)
        holders = len(created.topic.brokers)

        async def known() -> bool:
            routes = [await self.route(name, namesrv) for namesrv in self._system.namesrv.split(",")]
            return all(len(route) == queues * holders for route in routes)

        await eventually(known, what=f"the route of {name} at every NameServer")
        return name

    async def route(self, topic: str, namesrv: str) -> list[v2.MessageQueue]:
        """Empty when that NameServer does not know the topic."""
        host, _, port = namesrv.partition(":")
        endpoints = v2.Endpoints(scheme=v2.IPv4, addresses=[v2.Address(host=host, port=int(port))])
        request = service_pb2.QueryRouteRequest(topic=v2.Resource(name=topic), endpoints=endpoints)
        try:
            return list((await self.ask(namesrv, service_rpc.QUERY_ROUTE, request)).message_queues)
        except TopicNotFound:
            return []

    async def create_group(
        self,
        name: str,
        *,
        max_attempts: int = 16,
        shared: bool = False,
        backoff_s: Sequence[int] = (1,),
        order: record_pb2.Order = record_pb2.ORDER_CONCURRENT,
        start: record_pb2.Start = record_pb2.START_FIRST,
    ) -> str:
        """Straight at the brokers, with a short backoff."""
        now_ms = time.time_ns() // 1_000_000
        steps = [Duration(seconds=step) for step in backoff_s]
        group = record_pb2.Group(
            name=v2.Resource(name=name),
            order=order,
            start=start,
            assignment=record_pb2.ASSIGNMENT_SHARED if shared else record_pb2.ASSIGNMENT_EXCLUSIVE,
            retry=v2.RetryPolicy(max_attempts=max_attempts, customized_backoff=v2.CustomizedBackoff(next=steps)),
            version=now_ms,
            changed_ms=now_ms,
        )
        for address in self._system.broker_addresses:
            await self.ask(address, broker_rpc.PUT_GROUP, broker_pb2.PutGroupRequest(group=group))
        return name

    async def delete_everything(self) -> None:
        """All topics and groups, with what is in them."""
        for topic in (await self.ask_admin(admin_rpc.LIST_TOPICS, admin_pb2.ListTopicsRequest())).topics:
            await self.ask_admin(admin_rpc.DELETE_TOPIC, admin_pb2.DeleteTopicRequest(name=topic.name))
        for group in (await self.ask_admin(admin_rpc.LIST_GROUPS, admin_pb2.ListGroupsRequest())).groups:
            await self.ask_admin(admin_rpc.DELETE_GROUP, admin_pb2.DeleteGroupRequest(name=group.name))

    async def progress(self, group: str, topic: str) -> dict[tuple[str, int], broker_pb2.Progress]:
        """By broker and queue."""
        request = admin_pb2.DescribeProgressRequest(group=v2.Resource(name=group), topic=v2.Resource(name=topic))
        answer = await self.ask_admin(admin_rpc.DESCRIBE_PROGRESS, request)
        assert not answer.failures, answer.failures
        return {
            (entry.broker, entry.queue.id): entry.queue.progress[0] for entry in answer.queues if entry.queue.progress
        }

    async def lag(self, group: str, topic: str) -> int:
        return sum(progress.lag for progress in (await self.progress(group, topic)).values())

    async def owners(self, group: str, topic: str) -> dict[tuple[str, int], str]:
        """Who owns which queue, by broker and queue."""
        return {queue: progress.owner_client_id for queue, progress in (await self.progress(group, topic)).items()}

    async def set_permission(self, broker: str, permission: v2.Permission) -> None:
        request = admin_pb2.SetBrokerPermissionRequest(broker=broker, permission=permission)
        await self.ask_admin(admin_rpc.SET_BROKER_PERMISSION, request)

    async def describe(self, broker: str) -> broker_pb2.DescribeBrokerResponse:
        return await self.ask(broker, broker_rpc.DESCRIBE_BROKER, broker_pb2.DescribeBrokerRequest())

    async def send_straight(self, broker: str, topic: str) -> None:
        """One message to this broker, whatever the route says; the topic is made there. Raises KourouError."""
        definition = record_pb2.Topic(
            name=v2.Resource(name=topic), type=v2.NORMAL, queues=1, permission=v2.READ_WRITE, version=1, changed_ms=1
        )
        await self.ask(broker, broker_rpc.PUT_TOPIC, broker_pb2.PutTopicRequest(topic=definition))
        message = v2.Message(
            topic=v2.Resource(name=topic),
            system_properties=v2.SystemProperties(message_id=new_message_id(), message_type=v2.NORMAL),
            body=b"x",
        )
        await self.ask(broker, service_rpc.SEND_MESSAGE, service_pb2.SendMessageRequest(messages=[message]))
