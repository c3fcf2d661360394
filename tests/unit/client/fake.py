"""A NameServer and brokers on real gRPC, as simple as can be, whose answers a test can script."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import grpc
from grpc import StatusCode, aio

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2, service_rpc
from kourou.protocol.kourou.routing.v1 import routing_pb2, routing_rpc
from kourou.protocol.method import AnyMethod, BidiMethod, ServerStreamMethod
from kourou.route import endpoints_of

OK = v2.Status(code=v2.OK)
SendScript = Callable[[service_pb2.SendMessageRequest, Any], Awaitable[service_pb2.SendMessageResponse | None]]


async def until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Waits for a condition of the test."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


class Server:
    def __init__(self) -> None:
        self.address = ""
        self.headers: list[dict[str, str]] = []
        self._handlers: dict[str, dict[str, Any]] = defaultdict(dict)
        self._server: aio.Server | None = None

    def serve(self, method: AnyMethod, handler: Callable[..., Any]) -> None:
        if isinstance(method, BidiMethod):
            kind = grpc.stream_stream_rpc_method_handler
        elif isinstance(method, ServerStreamMethod):
            kind = grpc.unary_stream_rpc_method_handler
        else:
            kind = grpc.unary_unary_rpc_method_handler
        _, service, name = method.path.split("/")
        self._handlers[service][name] = kind(
            handler,
            request_deserializer=method.request.FromString,
            response_serializer=method.response.SerializeToString,
        )

    async def start(self) -> None:
        self._server = aio.server(options=[("grpc.so_reuseport", 0)])
        for service, handlers in self._handlers.items():
            self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])
        port = self._server.add_insecure_port(self.address or "127.0.0.1:0")
        self.address = f"127.0.0.1:{port}"
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    def note(self, context: Any) -> None:
        self.headers.append(dict(context.invocation_metadata()))


class NameServer(Server):
    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self.cluster = cluster
        self.queries: list[service_pb2.QueryRouteRequest] = []
        self.watches = 0
        self.recalls: list[service_pb2.RecallMessageRequest] = []
        self.recall_status = OK
        self.serve(service_rpc.QUERY_ROUTE, self._query_route)
        self.serve(service_rpc.RECALL_MESSAGE, self._recall)
        self.serve(routing_rpc.WATCH_ROUTE, self._watch_route)

    async def _query_route(self, request: service_pb2.QueryRouteRequest, context: Any):
        self.note(context)
        self.queries.append(request)
        if request.topic.name not in self.cluster.topics:
            text = f"create it with: kourou topic create {request.topic.name}"
            return service_pb2.QueryRouteResponse(status=v2.Status(code=v2.TOPIC_NOT_FOUND, message=text))
        return service_pb2.QueryRouteResponse(status=OK, message_queues=self.cluster.route(request.topic.name))

    async def _recall(self, request: service_pb2.RecallMessageRequest, context: Any):
        self.recalls.append(request)
        message_id = f"id-of-{request.recall_handle}"
        return service_pb2.RecallMessageResponse(status=self.recall_status, message_id=message_id)

    async def _watch_route(self, request: routing_pb2.WatchRouteRequest, context: Any):
        self.watches += 1
        await until(lambda: self.cluster.version != request.known_version, timeout_s=60)
        queues = self.cluster.route(request.topic.name)
        return routing_pb2.WatchRouteResponse(status=OK, version=self.cluster.version, message_queues=queues)


class Broker(Server):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.permission = v2.READ_WRITE
        self.sends: list[service_pb2.SendMessageRequest] = []
        self.send_scripts: deque[SendScript] = deque()
        self.send_gate = asyncio.Event()
        self.send_gate.set()
        self.recall_handle = ""
        """With one, what is sent is held back."""
        self.stored: dict[str, list[v2.Message]] = defaultdict(list)
        self.receives: list[service_pb2.ReceiveMessageRequest] = []
        self.lose_receives = 0
        self.given: dict[str, list[v2.Message]] = {}
        self.ready: dict[str, deque[v2.Message]] = defaultdict(deque)
        self.acks: list[service_pb2.AckMessageRequest] = []
        self.ack_gate = asyncio.Event()
        self.ack_gate.set()
        self.stale_handles: set[str] = set()
        self.changes: list[service_pb2.ChangeInvisibleDurationRequest] = []
        self.pulls: list[service_pb2.PullMessageRequest] = []
        self.settings: list[v2.Settings] = []
        self.settings_answer = v2.Settings()
        self.settings_refusal: v2.Status | None = None
        self.heartbeats: list[service_pb2.HeartbeatRequest] = []
        self.goodbyes: list[service_pb2.NotifyClientTerminationRequest] = []
        self.assign: Callable[[str], Iterable[v2.MessageQueue]] = lambda topic: []
        self.telemetry_contexts: list[Any] = []
        self._writing = asyncio.Lock()
        self.lite_syncs: list[service_pb2.SyncLiteSubscriptionRequest] = []
        self.lite_status = OK
        self.replies: list[service_pb2.TelemetryCommand] = []
        """What clients answered to what they were told."""
        self.ends: list[service_pb2.EndTransactionRequest] = []
        self.end_statuses: deque[v2.Status] = deque()
        self.dead_letters: list[service_pb2.ForwardMessageToDeadLetterQueueRequest] = []
        for method, handler in {
            service_rpc.SEND_MESSAGE: self._send,
            service_rpc.SYNC_LITE_SUBSCRIPTION: self._sync_lite,
            service_rpc.RECEIVE_MESSAGE: self._receive,
            service_rpc.ACK_MESSAGE: self._ack,
            service_rpc.CHANGE_INVISIBLE_DURATION: self._change,
            service_rpc.QUERY_ASSIGNMENT: self._query_assignment,
            service_rpc.PULL_MESSAGE: self._pull,
            service_rpc.QUERY_OFFSET: self._query_offset,
            service_rpc.TELEMETRY: self._telemetry,
            service_rpc.END_TRANSACTION: self._end_transaction,
            service_rpc.FORWARD_MESSAGE_TO_DEAD_LETTER_QUEUE: self._forward,
            service_rpc.HEARTBEAT: self._heartbeat,
            service_rpc.NOTIFY_CLIENT_TERMINATION: self._goodbye,
        }.items():
            self.serve(method, handler)

    def queue(self, topic: str, queue_id: int) -> v2.MessageQueue:
        broker = v2.Broker(name=self.name, endpoints=endpoints_of(self.address))
        return v2.MessageQueue(topic=v2.Resource(name=topic), id=queue_id, permission=self.permission, broker=broker)

    async def _send(self, request: service_pb2.SendMessageRequest, context: Any):
        self.note(context)
        self.sends.append(request)
        if self.send_scripts:
            answer = await self.send_scripts.popleft()(request, context)
            if answer is not None:
                return answer
        await self.send_gate.wait()
        return self.store(request, context)

    def store(self, request: service_pb2.SendMessageRequest, context: Any) -> service_pb2.SendMessageResponse:
        base = len(self.stored[request.messages[0].topic.name])
        self.stored[request.messages[0].topic.name] += request.messages
        half = request.messages[0].system_properties.message_type == v2.TRANSACTION
        queue_id = -1 if self.recall_handle or half else 3
        context.set_trailing_metadata((("x-kourou-stored", f"{queue_id}.{0x1F40 + base}.0"),))
        entries = [
            service_pb2.SendResultEntry(
                status=OK,
                message_id=m.system_properties.message_id,
                offset=base + i,
                recall_handle=self.recall_handle,
                transaction_id=f"tx-{base + i}" if half else "",
            )
            for i, m in enumerate(request.messages)
        ]
        return service_pb2.SendMessageResponse(status=OK, entries=entries)

    async def _receive(self, request: service_pb2.ReceiveMessageRequest, context: Any):
        self.receives.append(request)
        messages = self.given.get(request.attempt_id)
        if messages is None:
            ready = self.ready[request.message_queue.topic.name]
            deadline = asyncio.get_running_loop().time() + request.long_polling_timeout.ToTimedelta().total_seconds()
            while not ready and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            messages = [ready.popleft() for _ in range(min(len(ready), request.batch_size))]
            self.given[request.attempt_id] = messages
        if messages and self.lose_receives:
            self.lose_receives -= 1
            await context.abort(StatusCode.UNAVAILABLE, "the connection broke")
        code = v2.OK if messages else v2.MESSAGE_NOT_FOUND
        yield service_pb2.ReceiveMessageResponse(status=v2.Status(code=code))
        for message in messages:
            yield service_pb2.ReceiveMessageResponse(message=message)

    async def _ack(self, request: service_pb2.AckMessageRequest, context: Any):
        self.acks.append(request)
        await self.ack_gate.wait()
        statuses = [
            v2.Status(code=v2.INVALID_RECEIPT_HANDLE if e.receipt_handle in self.stale_handles else v2.OK)
            for e in request.entries
        ]
        entries = [
            service_pb2.AckMessageResultEntry(receipt_handle=e.receipt_handle, status=s)
            for e, s in zip(request.entries, statuses, strict=True)
        ]
        failed = [s for s in statuses if s.code != v2.OK]
        top = OK if not failed else failed[0] if len(failed) == len(statuses) else v2.Status(code=v2.MULTIPLE_RESULTS)
        return service_pb2.AckMessageResponse(status=top, entries=entries)

    async def _change(self, request: service_pb2.ChangeInvisibleDurationRequest, context: Any):
        self.changes.append(request)
        return service_pb2.ChangeInvisibleDurationResponse(status=OK, receipt_handle=request.receipt_handle + "+")

    async def _query_assignment(self, request: service_pb2.QueryAssignmentRequest, context: Any):
        assignments = [v2.Assignment(message_queue=queue) for queue in self.assign(request.topic.name)]
        return service_pb2.QueryAssignmentResponse(status=OK, assignments=assignments)

    async def _pull(self, request: service_pb2.PullMessageRequest, context: Any):
        self.pulls.append(request)
        all_messages = self.stored[request.message_queue.topic.name]
        if request.offset > len(all_messages):
            yield service_pb2.PullMessageResponse(status=v2.Status(code=v2.ILLEGAL_OFFSET))
            return
        while request.offset == len(all_messages) and context.time_remaining() > 1:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        messages = all_messages[request.offset : request.offset + request.batch_size]
        yield service_pb2.PullMessageResponse(status=OK)
        for place, message in enumerate(messages):
            message.system_properties.queue_offset = request.offset + place
            yield service_pb2.PullMessageResponse(message=message)
        yield service_pb2.PullMessageResponse(next_offset=request.offset + len(messages))

    async def _query_offset(self, request: service_pb2.QueryOffsetRequest, context: Any):
        end = len(self.stored[request.message_queue.topic.name])
        return service_pb2.QueryOffsetResponse(status=OK, offset=end if request.query_offset_policy == v2.END else 0)

    async def _telemetry(self, requests: AsyncIterator[service_pb2.TelemetryCommand], context: Any) -> None:
        self.telemetry_contexts.append(context)
        async for command in requests:
            if not command.HasField("settings"):
                self.replies.append(command)
                continue
            self.settings.append(command.settings)
            if self.settings_refusal is not None:
                await self._write(context, service_pb2.TelemetryCommand(status=self.settings_refusal))
                await context.abort(StatusCode.INVALID_ARGUMENT, self.settings_refusal.message)
            else:
                await self._write(context, service_pb2.TelemetryCommand(status=OK, settings=self.settings_answer))

    async def tell(self, command: service_pb2.TelemetryCommand) -> None:
        """To the client whose telemetry stream is the newest."""
        await self._write(self.telemetry_contexts[-1], command)

    async def _write(self, context: Any, command: service_pb2.TelemetryCommand) -> None:
        async with self._writing:
            await context.write(command)

    async def _end_transaction(self, request: service_pb2.EndTransactionRequest, context: Any):
        self.ends.append(request)
        return service_pb2.EndTransactionResponse(status=self.end_statuses.popleft() if self.end_statuses else OK)

    async def _forward(self, request: service_pb2.ForwardMessageToDeadLetterQueueRequest, context: Any):
        self.dead_letters.append(request)
        return service_pb2.ForwardMessageToDeadLetterQueueResponse(status=OK)

    async def _sync_lite(self, request: service_pb2.SyncLiteSubscriptionRequest, context: Any):
        self.lite_syncs.append(request)
        return service_pb2.SyncLiteSubscriptionResponse(status=self.lite_status)

    async def _heartbeat(self, request: service_pb2.HeartbeatRequest, context: Any):
        self.heartbeats.append(request)
        return service_pb2.HeartbeatResponse(status=OK)

    async def _goodbye(self, request: service_pb2.NotifyClientTerminationRequest, context: Any):
        self.goodbyes.append(request)
        return service_pb2.NotifyClientTerminationResponse(status=OK)


@dataclass
class Cluster:
    name_servers: list[NameServer] = field(default_factory=list)
    brokers: list[Broker] = field(default_factory=list)
    topics: dict[str, int] = field(default_factory=lambda: {"t": 2})
    """Queues on each broker."""
    version: int = 1

    def route(self, topic: str) -> list[v2.MessageQueue]:
        return [broker.queue(topic, q) for broker in self.brokers for q in range(self.topics[topic])]

    @property
    def namesrv(self) -> list[str]:
        return [server.address for server in self.name_servers]


@asynccontextmanager
async def cluster(brokers: int = 1, name_servers: int = 1) -> AsyncIterator[Cluster]:
    made = Cluster()
    made.name_servers = [NameServer(made) for _ in range(name_servers)]
    made.brokers = [Broker(f"broker-{letter}") for letter in "abcdef"[:brokers]]
    servers: list[Server] = [*made.name_servers, *made.brokers]
    try:
        for server in servers:
            await server.start()
        yield made
    finally:
        for server in servers:
            await server.stop()


def received(
    topic: str,
    body: bytes,
    handle: str,
    *,
    attempt: int = 1,
    encoding: v2.Encoding = v2.IDENTITY,
    message_group: str | None = None,
) -> v2.Message:
    """A message as a broker delivers it."""
    system = v2.SystemProperties(
        message_id=f"id-{handle}",
        receipt_handle=handle,
        delivery_attempt=attempt,
        body_encoding=encoding,
        message_group=message_group,
    )
    system.invisible_duration.FromTimedelta(timedelta(seconds=30))
    return v2.Message(topic=v2.Resource(name=topic), system_properties=system, body=body)


def refuse(code: v2.Code, message: str = "no") -> SendScript:
    async def script(request: service_pb2.SendMessageRequest, context: Any) -> service_pb2.SendMessageResponse:
        return service_pb2.SendMessageResponse(status=v2.Status(code=code, message=message))

    return script


def abort(code: StatusCode) -> SendScript:
    async def script(request: service_pb2.SendMessageRequest, context: Any) -> None:
        await context.abort(code, "as scripted")

    return script


async def hang(request: service_pb2.SendMessageRequest, context: Any) -> None:
    await asyncio.Event().wait()
