"""One broker alone, on simulated time and disk, and the calls that tests of its doors make."""

import asyncio
import functools
import itertools
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, ParamSpec

import structlog

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2, service_rpc
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou_broker.core import BrokerCore
from tests.simulation.cluster import Shard, group_definition, small_settings, topic_definition
from tests.simulation.direct import DirectCall, DirectEngine
from tests.simulation.time import simulate

P = ParamSpec("P")
Message = definition_pb2.Message
MIB = 1024 * 1024


def simulated(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """The test runs on simulated time; whatever is logged as an error fails it."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with structlog.testing.capture_logs() as logs:
            simulate(test(*args, **kwargs))
        assert not [entry for entry in logs if entry["log_level"] in ("error", "critical")]

    return run


def resource(name: str) -> definition_pb2.Resource:
    return definition_pb2.Resource(name=name)


_numbers = itertools.count(1)


def message(
    body: bytes = b"body", id_: str | None = None, topic: str = "orders", tag: str = "", **system: Any
) -> Message:
    """With an id of its own unless told otherwise: a broker takes a second one with the same id for the first again."""
    id_ = f"id-{next(_numbers)}" if id_ is None else id_
    return Message(
        topic=resource(topic),
        body=body,
        system_properties=definition_pb2.SystemProperties(message_id=id_, tag=tag or None, **system),
    )


def ids(messages: Sequence[Message]) -> list[str]:
    return [message.system_properties.message_id for message in messages]


class Broker:
    """Has the topic `orders`, of one queue if not told otherwise, and the group `team`."""

    def __init__(self, **settings: Any) -> None:
        settings = {"segment_bytes": MIB, **settings}
        self.shard = Shard("broker-a", random.Random(1), small_settings(**settings))

    @classmethod
    async def started(cls, *, queues: int = 1, group: dict[str, Any] | None = None, **settings: Any) -> "Broker":
        broker = cls(**settings)
        await broker.shard.start()
        await broker.put_topic("orders", queues)
        await broker.put_group("team", **(group or {}))
        return broker

    @property
    def core(self) -> BrokerCore:
        assert self.shard.core is not None
        return self.shard.core

    @property
    def doors(self) -> DirectEngine:
        assert self.shard.doors is not None
        return self.shard.doors

    def now_ms(self) -> int:
        return self.shard.clock.now_ms()

    async def restart(self) -> None:
        await self.shard.stop()
        await self.shard.start()

    async def crash(self) -> None:
        self.shard.kill()
        await self.shard.start()

    async def put_topic(
        self, name: str, queues: int = 1, version: int = 1, **fields: Any
    ) -> broker_pb2.PutTopicResponse:
        request = broker_pb2.PutTopicRequest(topic=topic_definition(name, queues, version, **fields))
        return await self.doors.call(broker_rpc.PUT_TOPIC, request, {})

    async def put_group(self, name: str, **fields: Any) -> broker_pb2.PutGroupResponse:
        request = broker_pb2.PutGroupRequest(group=group_definition(name, **fields))
        return await self.doors.call(broker_rpc.PUT_GROUP, request, {})

    async def send(self, *messages: Message, client: str = "producer") -> service_pb2.SendMessageResponse:
        request = service_pb2.SendMessageRequest(messages=messages)
        return await self.doors.call(service_rpc.SEND_MESSAGE, request, {"x-mq-client-id": client})

    async def send_ids(self, *ids: str, topic: str = "orders", tag: str = "") -> None:
        """One message each, in one call."""
        answer = await self.send(*(message(id_=id_, topic=topic, tag=tag) for id_ in ids))
        assert answer.status.code == definition_pb2.OK, answer.status

    async def receive_all(self, **fields: Any) -> list[service_pb2.ReceiveMessageResponse]:
        """All answers to one ReceiveMessage."""
        client = fields.pop("client", "consumer")
        timeout_s = fields.pop("timeout_s", None)
        return await self.doors.stream_call(
            service_rpc.RECEIVE_MESSAGE, receive_request(**fields), {"x-mq-client-id": client}, timeout_s
        )

    async def receive(self, **fields: Any) -> list[Message]:
        answers = await self.receive_all(**fields)
        messages = [answer.message for answer in answers if answer.HasField("message")]
        code = definition_pb2.OK if messages else definition_pb2.MESSAGE_NOT_FOUND
        assert answers[0].status.code == code, answers[0].status
        return messages

    async def ack_all(
        self, *handles: str, group: str = "team", topic: str = "orders", client: str = "consumer"
    ) -> service_pb2.AckMessageResponse:
        request = service_pb2.AckMessageRequest(
            group=resource(group),
            topic=resource(topic),
            entries=[service_pb2.AckMessageEntry(receipt_handle=handle) for handle in handles],
        )
        return await self.doors.call(service_rpc.ACK_MESSAGE, request, {"x-mq-client-id": client})

    async def ack(self, *messages: Message, **fields: Any) -> int:
        """-> the overall code."""
        answer = await self.ack_all(*(handle(message) for message in messages), **fields)
        return answer.status.code

    async def change(
        self, handle: str, invisible_s: float | None, *, suspend: bool = False, group: str = "team"
    ) -> service_pb2.ChangeInvisibleDurationResponse:
        request = service_pb2.ChangeInvisibleDurationRequest(
            group=resource(group), topic=resource("orders"), receipt_handle=handle, suspend=suspend
        )
        if invisible_s is not None:
            request.invisible_duration.FromMilliseconds(int(invisible_s * 1000))
        return await self.doors.call(service_rpc.CHANGE_INVISIBLE_DURATION, request, {"x-mq-client-id": "consumer"})

    async def forward(self, handle: str) -> int:
        request = service_pb2.ForwardMessageToDeadLetterQueueRequest(
            group=resource("team"), topic=resource("orders"), receipt_handle=handle
        )
        answer = await self.doors.call(
            service_rpc.FORWARD_MESSAGE_TO_DEAD_LETTER_QUEUE, request, {"x-mq-client-id": "consumer"}
        )
        return answer.status.code

    async def pull_all(self, **fields: Any) -> list[service_pb2.PullMessageResponse]:
        request = service_pb2.PullMessageRequest(
            group=resource(fields.get("group", "team")),
            message_queue=definition_pb2.MessageQueue(
                topic=resource(fields.get("topic", "orders")), id=fields.get("queue", 0)
            ),
            offset=fields.get("offset", 0),
            batch_size=fields.get("batch_size", 32),
            filter_expression=expression(fields.get("tags"), fields.get("sql")),
        )
        request.long_polling_timeout.FromMilliseconds(int(fields.get("wait_s", 0) * 1000))
        return await self.doors.stream_call(service_rpc.PULL_MESSAGE, request, {"x-mq-client-id": "consumer"})

    async def pull(self, **fields: Any) -> tuple[list[Message], int]:
        """-> messages, the next offset."""
        answers = await self.pull_all(**fields)
        return [answer.message for answer in answers if answer.HasField("message")], answers[-1].next_offset

    async def dead_letters(self, group: str = "team") -> list[Message]:
        topic = f"%DLQ%{group}"
        if not any(name.name == topic for name in self.core.state.topics):
            return []
        return (await self.pull(topic=topic))[0]

    async def set_offset(self, offset: int, queue: int = 0, group: str = "team", topic: str = "orders") -> int:
        request = service_pb2.UpdateOffsetRequest(
            group=resource(group),
            message_queue=definition_pb2.MessageQueue(topic=resource(topic), id=queue),
            offset=offset,
        )
        answer = await self.doors.call(service_rpc.UPDATE_OFFSET, request, {"x-mq-client-id": "consumer"})
        return answer.status.code

    async def offset(self, queue: int = 0, group: str = "team") -> service_pb2.GetOffsetResponse:
        request = service_pb2.GetOffsetRequest(
            group=resource(group), message_queue=definition_pb2.MessageQueue(topic=resource("orders"), id=queue)
        )
        return await self.doors.call(service_rpc.GET_OFFSET, request, {"x-mq-client-id": "consumer"})

    async def query_offset(
        self, policy: int, time_ms: int | None = None, queue: int = 0, topic: str = "orders"
    ) -> service_pb2.QueryOffsetResponse:
        request = service_pb2.QueryOffsetRequest(
            message_queue=definition_pb2.MessageQueue(topic=resource(topic), id=queue),
            query_offset_policy=policy,  # type: ignore[arg-type]
        )
        if time_ms is not None:
            request.timestamp.FromMilliseconds(time_ms)
        return await self.doors.call(service_rpc.QUERY_OFFSET, request, {"x-mq-client-id": "consumer"})

    # Clients that come and go.

    def connect(
        self,
        client: str,
        type_: int = definition_pb2.PUSH_CONSUMER,
        group: str = "team",
        topics: Sequence[str] = ("orders",),
    ) -> DirectCall:
        """A telemetry stream with the client's settings; `cancel` breaks it."""
        stream = self.doors.open(service_rpc.TELEMETRY, {"x-mq-client-id": client})
        stream.requests.put_nowait(settings_command(type_, group, topics).SerializeToString())
        return stream

    async def leave(self, client: str) -> None:
        request = service_pb2.NotifyClientTerminationRequest()
        await self.doors.call(service_rpc.NOTIFY_CLIENT_TERMINATION, request, {"x-mq-client-id": client})

    async def assigned(self, client: str, group: str = "team", topic: str = "orders") -> list[int]:
        request = service_pb2.QueryAssignmentRequest(topic=resource(topic), group=resource(group))
        answer = await self.doors.call(service_rpc.QUERY_ASSIGNMENT, request, {"x-mq-client-id": client})
        assert answer.status.code == definition_pb2.OK, answer.status
        return [assignment.message_queue.id for assignment in answer.assignments]

    def members(self, group: str = "team") -> list[str]:
        return [client.id for client in self.core.clients.members(self.group(group).name)]

    def group(self, name: str = "team") -> Any:
        return next(group for group in self.core.state.groups.values() if group.name.name == name)


def settings_command(type_: int, group: str, topics: Sequence[str]) -> service_pb2.TelemetryCommand:
    settings = definition_pb2.Settings(client_type=type_)  # type: ignore[arg-type]
    if type_ == definition_pb2.PRODUCER:
        settings.publishing.topics.extend(map(resource, topics))
    else:
        settings.subscription.group.CopyFrom(resource(group))
        for topic in topics:
            settings.subscription.subscriptions.add(topic=resource(topic), expression=expression("*"))
    return service_pb2.TelemetryCommand(settings=settings)


def expression(tags: str | None, sql: str | None = None) -> definition_pb2.FilterExpression | None:
    if sql is not None:
        return definition_pb2.FilterExpression(type=definition_pb2.SQL, expression=sql)
    return None if tags is None else definition_pb2.FilterExpression(type=definition_pb2.TAG, expression=tags)


def receive_request(
    *,
    group: str = "team",
    topic: str = "orders",
    queue: int = -1,
    batch_size: int = 32,
    invisible_s: float | None = 10,
    wait_s: float | None = 0,
    tags: str | None = None,
    sql: str | None = None,
    auto_renew: bool = False,
    attempt_id: str = "",
    **fields: Any,
) -> service_pb2.ReceiveMessageRequest:
    request = service_pb2.ReceiveMessageRequest(
        group=resource(group),
        message_queue=definition_pb2.MessageQueue(topic=resource(topic), id=queue),
        batch_size=batch_size,
        auto_renew=auto_renew,
        attempt_id=attempt_id or None,
        filter_expression=expression(tags, sql),
        **fields,
    )
    if invisible_s is not None:
        request.invisible_duration.FromMilliseconds(int(invisible_s * 1000))
    if wait_s is not None:
        request.long_polling_timeout.FromMilliseconds(int(wait_s * 1000))
    return request


def handle(message: Message) -> str:
    return message.system_properties.receipt_handle


def attempt(message: Message) -> int:
    return message.system_properties.delivery_attempt


async def until(condition: Callable[[], bool | Awaitable[bool]], within_s: float = 10) -> float:
    """-> how long it took, in simulated seconds."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    while True:
        result = condition()
        if result if isinstance(result, bool) else await result:
            return loop.time() - began_s
        assert loop.time() - began_s < within_s, f"not within {within_s} s"
        await asyncio.sleep(0.05)
