"""NameServers and brokers in memory, behind the clients' seam to the network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message
from grpc import StatusCode

from kourou.name_servers import NameServers
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou.protocol.kourou.log.v1 import record_pb2
from kourou.protocol.kourou.routing.v1 import routing_pb2, routing_rpc
from kourou.protocol.method import UnaryMethod
from kourou.route import endpoints_of
from kourou.transport import Reply, RpcError
from kourou.wire import Wire
from kourou_admin.cluster import Cluster

OK = v2.Status(code=v2.OK)


class FakeClock:
    def __init__(self, now_ms: int = 1_000_000) -> None:
        self.now = now_ms

    def now_ms(self) -> int:
        return self.now


class FakeBroker:
    """Keeps definitions as a broker does; other answers are put into `answers` by path."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.address = f"127.0.0.1:{port}"
        self.down = False
        self.topics: dict[str, record_pb2.Topic] = {}
        self.groups: dict[str, record_pb2.Group] = {}
        self.letters: list[str] = []
        """The message ids of dead letters of the group `readers`, by offset; see keep_letters."""
        self.asked: list[tuple[str, Message]] = []
        self.answers: dict[str, Callable[[Any], Message]] = {
            broker_rpc.LIST_TOPICS.path: lambda _: broker_pb2.ListTopicsResponse(
                status=OK, topics=list(self.topics.values())
            ),
            broker_rpc.LIST_GROUPS.path: lambda _: broker_pb2.ListGroupsResponse(
                status=OK, groups=list(self.groups.values())
            ),
            broker_rpc.LIST_CLIENTS.path: lambda _: broker_pb2.ListClientsResponse(status=OK),
            broker_rpc.PUT_TOPIC.path: self._put_topic,
            broker_rpc.PUT_GROUP.path: self._put_group,
            broker_rpc.DESCRIBE_BROKER.path: lambda _: broker_pb2.DescribeBrokerResponse(
                status=OK, name=self.name, permission=v2.READ_WRITE
            ),
        }

    def _put_topic(self, request: broker_pb2.PutTopicRequest) -> Message:
        held = self.topics.get(request.topic.name.name)
        if held is None or held.version < request.topic.version:
            self.topics[request.topic.name.name] = request.topic
        return broker_pb2.PutTopicResponse(status=OK, topic=self.topics[request.topic.name.name])

    def _put_group(self, request: broker_pb2.PutGroupRequest) -> Message:
        held = self.groups.get(request.group.name.name)
        if held is None or held.version < request.group.version:
            self.groups[request.group.name.name] = request.group
        return broker_pb2.PutGroupResponse(status=OK, group=self.groups[request.group.name.name])


def keep_letters(broker: FakeBroker, ids: list[str]) -> None:
    """From now on it keeps dead letters as a broker does."""
    broker.letters = ids
    resent = set[int]()

    def list_letters(request: broker_pb2.ListDeadLettersRequest) -> Message:
        if request.group.name != "readers":
            gone = v2.Status(code=v2.CONSUMER_GROUP_NOT_FOUND, message="no such group")
            return broker_pb2.ListDeadLettersResponse(status=gone)
        there = [offset for offset in range(request.from_offset, len(broker.letters)) if offset not in resent]
        return broker_pb2.ListDeadLettersResponse(
            status=OK,
            letters=[_letter(offset, broker.letters[offset]) for offset in there[: request.limit]],
            next_offset=there[request.limit] if len(there) > request.limit else None,
        )

    def resend(request: broker_pb2.ResendDeadLettersRequest) -> Message:
        resent.update(request.offsets)
        return broker_pb2.ResendDeadLettersResponse(status=OK, results=[OK] * len(request.offsets))

    broker.answers[broker_rpc.LIST_DEAD_LETTERS.path] = list_letters
    broker.answers[broker_rpc.RESEND_DEAD_LETTERS.path] = resend
    broker.answers[broker_rpc.DESCRIBE_QUEUES.path] = lambda _: broker_pb2.DescribeQueuesResponse(
        status=OK, queues=[broker_pb2.Queue(next_offset=len(broker.letters))]
    )


def _letter(offset: int, message_id: str) -> broker_pb2.DeadLetter:
    system = v2.SystemProperties(message_id=message_id, queue_offset=offset, body_encoding=v2.IDENTITY)
    return broker_pb2.DeadLetter(
        message=v2.Message(body=message_id.encode(), system_properties=system),
        offset=offset,
        origin_topic=v2.Resource(name="flights"),
        origin_queue=1,
        origin_offset=7 + offset,
    )


class FakeNetwork:
    """A Transport and its Channels in one."""

    NAME_SERVER = "127.0.0.1:8081"

    def __init__(self, *brokers: str) -> None:
        self.brokers = {name: FakeBroker(name, 10911 + 10 * place) for place, name in enumerate(brokers)}
        self.routes: dict[str, list[v2.MessageQueue]] = {}

    def cluster(self) -> Cluster:
        wire = Wire(self, "admin")
        return Cluster(wire, NameServers([self.NAME_SERVER], wire), timeout_s=1.0)

    def channel(self, address: str) -> FakeChannel:
        return FakeChannel(self, address)

    def reconnect(self, address: str) -> None: ...

    async def close(self) -> None: ...

    def answer(self, address: str, path: str, request: Any) -> Message:
        if address == self.NAME_SERVER:
            return self._name_server(path, request)
        broker = next(broker for broker in self.brokers.values() if broker.address == address)
        if broker.down:
            raise RpcError(StatusCode.UNAVAILABLE, "connection refused", sent=False)
        broker.asked.append((path, request))
        return broker.answers[path](request)

    def _name_server(self, path: str, request: Any) -> Message:
        if path == routing_rpc.LIST_BROKERS.path:
            infos = [
                routing_pb2.BrokerInfo(
                    name=broker.name,
                    endpoints=endpoints_of(broker.address),
                    permission=v2.READ_WRITE,
                    connected=True,
                )
                for broker in self.brokers.values()
            ]
            return routing_pb2.ListBrokersResponse(status=OK, brokers=infos)
        held = [
            v2.MessageQueue(topic=request.topic, broker=v2.Broker(name=broker.name))
            for broker in self.brokers.values()
            if request.topic.name in broker.topics
        ]
        queues = self.routes.get(request.topic.name, held)
        if not queues:
            status = v2.Status(code=v2.TOPIC_NOT_FOUND, message="no such topic")
            return routing_pb2.WatchRouteResponse(status=status)
        return routing_pb2.WatchRouteResponse(status=OK, version=1, message_queues=queues)


class FakeChannel:
    def __init__(self, network: FakeNetwork, address: str) -> None:
        self._network, self._address = network, address

    async def unary(
        self, method: UnaryMethod[Any, Any], request: Any, *, timeout_s: float, metadata: object = ()
    ) -> Reply[Any]:
        kept = type(request)()
        kept.CopyFrom(request)
        return Reply(self._network.answer(self._address, method.path, kept), {})

    def server_stream(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    def bidi(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    async def close(self) -> None: ...
