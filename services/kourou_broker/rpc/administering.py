"""BrokerAdmin: what the admin service asks of this broker."""

import asyncio
from collections import Counter

from kourou.names import is_system_name
from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou_broker.operations.clients import Client, Clients
from kourou_broker.operations.creation_times import CreationTimes
from kourou_broker.operations.definitions import Definitions
from kourou_broker.operations.delivery import Deliveries
from kourou_broker.operations.journal import Journal
from kourou_broker.operations.offsets import Offsets
from kourou_broker.operations.search import Search
from kourou_broker.operations.slices import in_slices
from kourou_broker.rpc.delivered import Deliverer
from kourou_broker.rpc.receiving import queue_of
from kourou_broker.rpc.status import BrokerStatus
from kourou_broker.state import State
from kourou_broker.state.definitions import Group, Name, Queue, Topic
from kourou_broker.state.lite import LiteTopics
from kourou_broker.state.progress import Progress
from kourou_service.clock import Clock
from kourou_service.door import OK, serve_unary
from kourou_service.engine import Call, Engine
from kourou_service.refusal import Refused
from kourou_service.wire_times import milliseconds

_DEFAULT_FOUND = 64
_MAX_FOUND = 256


class AdministeringDoor:
    def __init__(
        self,
        *,
        state: State,
        definitions: Definitions,
        creation_times: CreationTimes,
        journal: Journal,
        clients: Clients,
        deliveries: Deliveries,
        offsets: Offsets,
        search: Search,
        status: BrokerStatus,
        deliverer: Deliverer,
        clock: Clock,
    ) -> None:
        self._state = state
        self._definitions = definitions
        self._creation_times = creation_times
        self._journal = journal
        self._clients = clients
        self._deliveries = deliveries
        self._offsets = offsets
        self._search = search
        self._status = status
        self._deliverer = deliverer
        self._clock = clock

    def open(self, engine: Engine) -> None:
        serve_unary(engine, broker_rpc.DESCRIBE_BROKER, self._describe_broker)
        serve_unary(engine, broker_rpc.SET_PERMISSION, self._set_permission)
        serve_unary(engine, broker_rpc.PUT_TOPIC, self._put_topic)
        serve_unary(engine, broker_rpc.LIST_TOPICS, self._list_topics)
        serve_unary(engine, broker_rpc.PUT_GROUP, self._put_group)
        serve_unary(engine, broker_rpc.LIST_GROUPS, self._list_groups)
        serve_unary(engine, broker_rpc.LIST_CLIENTS, self._list_clients)
        serve_unary(engine, broker_rpc.DESCRIBE_QUEUES, self._describe_queues)
        serve_unary(engine, broker_rpc.RESET_OFFSET, self._reset_offset)
        serve_unary(engine, broker_rpc.FIND_MESSAGES, self._find_messages)

    async def _describe_broker(
        self, request: broker_pb2.DescribeBrokerRequest, call: Call
    ) -> broker_pb2.DescribeBrokerResponse:
        return self._status.describe()

    async def _set_permission(
        self, request: broker_pb2.SetPermissionRequest, call: Call
    ) -> broker_pb2.SetPermissionResponse:
        self._definitions.set_permission(request.permission)
        await self._journal.durable()
        return broker_pb2.SetPermissionResponse(status=OK)

    async def _put_topic(self, request: broker_pb2.PutTopicRequest, call: Call) -> broker_pb2.PutTopicResponse:
        times = self._creation_times
        with (times.system_topics if is_system_name(request.topic.name.name) else times.topics).timed():
            stored = self._definitions.put_topic(request.topic)
            await self._journal.durable()
        return broker_pb2.PutTopicResponse(status=OK, topic=stored)

    async def _list_topics(self, request: broker_pb2.ListTopicsRequest, call: Call) -> broker_pb2.ListTopicsResponse:
        live = (topic.definition for topic in self._state.topics.values())
        return broker_pb2.ListTopicsResponse(status=OK, topics=[*live, *self._state.topic_tombstones.values()])

    async def _put_group(self, request: broker_pb2.PutGroupRequest, call: Call) -> broker_pb2.PutGroupResponse:
        with self._creation_times.groups.timed():
            stored = self._definitions.put_group(request.group)
            await self._journal.durable()
        return broker_pb2.PutGroupResponse(status=OK, group=stored)

    async def _list_groups(self, request: broker_pb2.ListGroupsRequest, call: Call) -> broker_pb2.ListGroupsResponse:
        live = (group.definition for group in self._state.groups.values())
        return broker_pb2.ListGroupsResponse(status=OK, groups=[*live, *self._state.group_tombstones.values()])

    async def _list_clients(self, request: broker_pb2.ListClientsRequest, call: Call) -> broker_pb2.ListClientsResponse:
        return broker_pb2.ListClientsResponse(status=OK, clients=[self._client(client) for client in self._clients])

    def _client(self, client: Client) -> broker_pb2.Client:
        silent_ms = int((asyncio.get_running_loop().time() - client.last_seen) * 1000)
        group = client.group or (Name("", client.producer_group) if client.producer_group else None)
        return broker_pb2.Client(
            client_id=client.id,
            type=client.type,  # type: ignore[arg-type]
            group=group.resource() if group is not None else None,
            user_agent=client.user_agent,
            peer=client.peer,
            last_seen_ms=self._clock.now_ms() - silent_ms,
            subscriptions=[
                definition_pb2.SubscriptionEntry(topic=topic.resource(), expression=expression)
                for topic, expression in client.subscriptions.items()
            ],
        )

    async def _describe_queues(
        self, request: broker_pb2.DescribeQueuesRequest, call: Call
    ) -> broker_pb2.DescribeQueuesResponse:
        topics = (
            [self._definitions.topic(request.topic)] if request.HasField("topic") else [*self._state.topics.values()]
        )
        group = self._definitions.existing_group(request.group) if request.HasField("group") else None
        readers = self._readers()
        response = broker_pb2.DescribeQueuesResponse(status=OK)
        for topic in topics:
            groups = [reader for reader in readers.get(topic.id, ()) if group is None or reader is group]
            if group is not None and not groups:
                continue
            if topic.lite is not None:
                response.queues.append(await self._lite_topics(topic, topic.lite, groups))
            else:
                response.queues.extend(self._queue(queue, groups) for queue in topic.queues)
                await asyncio.sleep(0)  # of thousands of topics, one a turn
        return response

    def _readers(self) -> dict[int, list[Group]]:
        """The groups that have progress in any queue of a topic, by the topic's id."""
        pairs = sorted({(topic, group) for group, topic, _queue in self._state.progress})
        readers: dict[int, list[Group]] = {}
        for topic, group in pairs:
            readers.setdefault(topic, []).append(self._state.groups_by_id[group])
        return readers

    def _queue(self, queue: Queue, groups: list[Group]) -> broker_pb2.Queue:
        read_by = [(group, self._progress(group, queue)) for group in groups]
        return broker_pb2.Queue(
            topic=queue.topic.name.resource(),
            id=queue.id,
            first_offset=queue.first_offset,
            next_offset=queue.next_offset,
            progress=[
                broker_pb2.Progress(
                    group=group.name.resource(),
                    committed_offset=progress.low,
                    lag=len(progress.pending) + queue.next_offset - progress.high,
                    inflight=_inflight(progress, queue.topic),
                    owner_client_id=self._deliveries.owner(group, queue.topic, queue.id),
                )
                for group, progress in read_by
            ],
        )

    async def _lite_topics(self, topic: Topic, lite: LiteTopics, groups: list[Group]) -> broker_pb2.Queue:
        """All lite topics as one queue: there may be thousands. A group has those that it has ever read."""
        held = 0
        lag, inflight = Counter[int](), Counter[int]()
        async for queue in in_slices(list(lite.queues)):
            held += queue.next_offset - queue.first_offset
            for group in groups:
                progress = self._state.progress.get((group.id, topic.id, queue.id))
                if progress is not None:
                    lag[group.id] += len(progress.pending) + queue.next_offset - progress.high
                    inflight[group.id] += len(progress.pending)
        return broker_pb2.Queue(
            topic=topic.name.resource(),
            id=-1,
            next_offset=held,
            progress=[
                broker_pb2.Progress(
                    group=group.name.resource(),
                    committed_offset=max(held - lag[group.id], 0),
                    lag=lag[group.id],
                    inflight=inflight[group.id],
                )
                for group in groups
            ],
        )

    def _progress(self, group: Group, queue: Queue) -> Progress:
        """Of a queue that the group has not read yet it is that of the start."""
        key = (group.id, queue.topic.id, queue.id)
        return self._state.progress.get(key) or Progress(*key, queue.first_offset)

    async def _reset_offset(self, request: broker_pb2.ResetOffsetRequest, call: Call) -> broker_pb2.ResetOffsetResponse:
        group = self._definitions.existing_group(request.group)
        topic = self._definitions.topic(request.topic)
        queues = [queue_of(topic, request.queue)] if request.HasField("queue") else _queues_that_are_read(topic)
        await self._offsets.begin(group, topic)  # what is set here must not count as a start of the other queues
        targets = [(queue, self._target(request, queue)) async for queue in in_slices(list(queues))]
        if request.WhichOneof("to") != "offset":  # old messages may have gone meanwhile
            targets = [(queue, max(offset, queue.first_offset)) for queue, offset in targets]
        self._offsets.set(group, targets)
        self._deliveries.offsets_set(group, topic)
        await self._journal.durable()
        return broker_pb2.ResetOffsetResponse(
            status=OK, offsets=[broker_pb2.QueueOffset(queue=queue.id, offset=offset) for queue, offset in targets]
        )

    def _target(self, request: broker_pb2.ResetOffsetRequest, queue: Queue) -> int:
        match request.WhichOneof("to"):
            case "time":
                return self._offsets.at_time(queue, milliseconds(request.time))
            case "offset":
                return request.offset
            case "first":
                return queue.first_offset
            case "last":
                return queue.next_offset
            case _:
                raise Refused(definition_pb2.BAD_REQUEST, "the request does not say where to set the offset")

    async def _find_messages(
        self, request: broker_pb2.FindMessagesRequest, call: Call
    ) -> broker_pb2.FindMessagesResponse:
        limit = min(request.limit, _MAX_FOUND) or _DEFAULT_FOUND
        if limit < 0:
            raise Refused(definition_pb2.BAD_REQUEST, f"the limit must not be negative: {limit}")
        match request.WhichOneof("by"):
            case "message_id":
                found = await self._search.by_message_id(self._topic(request), request.message_id, limit)
            case "key":
                found = await self._search.by_key(self._topic(request), request.key, limit)
            case "log_position":
                found = await self._search.at_position(request.log_position.position, request.log_position.index)
            case "queue_position":
                queue = queue_of(self._topic(request), request.queue_position.queue)
                found = await self._search.at_offset(queue, request.queue_position.offset)
            case "time":
                span = request.time
                found = await self._search.by_time(
                    self._topic(request), milliseconds(span.begin), milliseconds(span.end), limit
                )
            case _:
                raise Refused(definition_pb2.BAD_REQUEST, "the request does not say what to look for")
        return broker_pb2.FindMessagesResponse(
            status=OK,
            messages=[
                broker_pb2.FoundMessage(
                    message=self._deliverer.found(queue.id if queue is not None else None, message),
                    position=broker_pb2.LogPosition(position=message.position, index=message.place),
                    offset_message_id=self._status.offset_message_id(message.position, message.place),
                )
                for queue, message in found
            ],
        )

    def _topic(self, request: broker_pb2.FindMessagesRequest) -> Topic:
        return self._definitions.topic(request.topic)


def _queues_that_are_read(topic: Topic) -> list[Queue]:
    if topic.lite is None:
        return topic.queues
    return [lite_topic.queue for lite_topic in topic.lite.by_name.values()]


def _inflight(progress: Progress, topic: Topic) -> int:
    """What is with consumers or due again. Of FIFO topics alone messages are held back."""
    if topic.type != definition_pb2.FIFO:
        return len(progress.pending)
    return sum(not lease.holds_back for lease in progress.pending.values())
