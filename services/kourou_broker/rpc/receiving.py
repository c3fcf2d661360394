"""ReceiveMessage and PullMessage: long polls that end in a stream of messages."""

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2, service_rpc
from kourou.protocol.google.protobuf import duration_pb2, timestamp_pb2
from kourou.protocol.kourou.stream.v1 import stream_pb2
from kourou_broker.operations.clients import Client, Clients
from kourou_broker.operations.definitions import Definitions
from kourou_broker.operations.delivery import Deliveries
from kourou_broker.operations.filters import compile_filter
from kourou_broker.operations.lite_groups import check_lite_consumer
from kourou_broker.operations.poll import Poll
from kourou_broker.operations.pull import Pulling
from kourou_broker.rpc.delivered import Deliverer
from kourou_broker.state.definitions import Group, Queue, Topic
from kourou_service.clock import Clock
from kourou_service.door import OK, Ended, client_id, serve_stream, status
from kourou_service.engine import Call, Engine, StreamCall
from kourou_service.refusal import Refused
from kourou_service.wire_times import milliseconds

MAX_BATCH = 1024
MAX_POLL_S = 60.0
MAX_ATTEMPT_ID_LENGTH = 255
_DEFAULT_POLL_S = 20.0
_ANSWER_MARGIN_S = 0.5
"""An answer leaves so long before the client's deadline, or after nine tenths of a short one."""

_RECEIVED = service_pb2.ReceiveMessageResponse(status=OK).SerializeToString()
_PULLED = service_pb2.PullMessageResponse(status=OK).SerializeToString()
_NOTHING = status(definition_pb2.MESSAGE_NOT_FOUND, "no new message")
_RECEIVED_NOTHING = service_pb2.ReceiveMessageResponse(status=_NOTHING).SerializeToString()


class ReceivingDoor:
    def __init__(
        self,
        definitions: Definitions,
        clients: Clients,
        deliveries: Deliveries,
        pulling: Pulling,
        deliverer: Deliverer,
        clock: Clock,
    ) -> None:
        self._definitions = definitions
        self._clients = clients
        self._deliveries = deliveries
        self._pulling = pulling
        self._deliverer = deliverer
        self._clock = clock

    def open(self, engine: Engine) -> None:
        serve_stream(engine, service_rpc.RECEIVE_MESSAGE, self._receive, long_polling=True)
        serve_stream(engine, service_rpc.PULL_MESSAGE, self._pull, long_polling=True)

    async def _receive(self, request: service_pb2.ReceiveMessageRequest, call: StreamCall) -> Ended:
        client = self._clients.touch(client_id(call), call)
        topic = self._definitions.readable_topic(request.message_queue.topic)
        queues = (queue_of(topic, request.message_queue.id).id,) if request.message_queue.id >= 0 else None
        invisible_ms = self._deliveries.invisible_ms(asked_invisible_ms(request))
        poll = Poll(
            client.id,
            compile_filter(request.filter_expression),
            batch_size(request.batch_size),
            invisible_ms,
            request.auto_renew,
            _attempt_id(client.id, request.attempt_id),
            queues,
        )
        wait_s = _wait_s(request.long_polling_timeout if request.HasField("long_polling_timeout") else None, call)
        # a member is only who asks for what can be had: members move the others' queues
        group = self._definitions.group_reading(topic, request.group)
        if group.lite_topic is not None or topic.lite is not None:
            check_lite_consumer(group, topic, client)
        self._clients.join(client, consumer_type(client, group, request.auto_renew), group.name, topic.name)
        deliveries = await self._deliveries.receive(group, topic, client, poll, wait_s)
        waited = poll.waited and wait_s > 0
        if not deliveries:
            await call.send_last(_RECEIVED_NOTHING)
            return Ended(definition_pb2.MESSAGE_NOT_FOUND, waited)
        invisible = duration_pb2.Duration(seconds=invisible_ms // 1000, nanos=invisible_ms % 1000 * 1_000_000)
        now = timestamp_pb2.Timestamp()
        now.FromMilliseconds(self._clock.now_ms())
        try:
            await call.send(_RECEIVED)
            for delivery in deliveries:
                for message in delivery.messages:
                    await call.send(self._deliverer.lent(delivery, message, group.id, invisible))
            await call.flush()
            await call.send_last(service_pb2.ReceiveMessageResponse(delivery_timestamp=now).SerializeToString())
        except BaseException:  # the client went away in the middle: what it has it will not use
            self._deliveries.give_back(group, topic, poll)
            raise
        return Ended(definition_pb2.OK, waited)

    async def _pull(self, request: service_pb2.PullMessageRequest, call: StreamCall) -> Ended:
        self._clients.touch(client_id(call), call)
        group = self._definitions.group(request.group)
        topic = self._definitions.readable_topic(request.message_queue.topic)
        queue = queue_of(topic, request.message_queue.id)
        wait_s = _wait_s(request.long_polling_timeout if request.HasField("long_polling_timeout") else None, call)
        wanted = compile_filter(request.filter_expression)
        pulled = await self._pulling.pull(group, queue, request.offset, batch_size(request.batch_size), wanted, wait_s)
        await call.send(
            _PULLED if pulled.messages else service_pb2.PullMessageResponse(status=_NOTHING).SerializeToString()
        )
        for message in pulled.messages:
            await call.send(self._deliverer.pulled(queue.id, message))
        await call.send_last(service_pb2.PullMessageResponse(next_offset=pulled.next_offset).SerializeToString())
        code = definition_pb2.OK if pulled.messages else definition_pb2.MESSAGE_NOT_FOUND
        return Ended(code, pulled.waited)


def asked_invisible_ms(
    request: service_pb2.ReceiveMessageRequest | service_pb2.ChangeInvisibleDurationRequest | stream_pb2.Open,
) -> int | None:
    """None if it leaves that to the broker. Raises Refused."""
    if not request.HasField("invisible_duration"):
        return None
    return milliseconds(request.invisible_duration, definition_pb2.ILLEGAL_INVISIBLE_TIME)


def consumer_type(client: Client, group: Group, auto_renew: bool) -> int:
    """What its settings said; before they came, only push consumers let leases be renewed."""
    if client.type != definition_pb2.CLIENT_TYPE_UNSPECIFIED:
        return client.type
    if group.lite_topic is not None:
        return definition_pb2.LITE_PUSH_CONSUMER if auto_renew else definition_pb2.LITE_SIMPLE_CONSUMER
    return definition_pb2.PUSH_CONSUMER if auto_renew else definition_pb2.SIMPLE_CONSUMER


def queue_of(topic: Topic, queue: int) -> Queue:
    found = topic.find_queue(queue) if queue >= 0 else None
    if found is None:
        raise Refused(definition_pb2.BAD_REQUEST, f"topic {topic.name} has no queue {queue} on this broker")
    return found


def batch_size(asked: int) -> int:
    if asked < 1:
        raise Refused(definition_pb2.BAD_REQUEST, f"the batch size must be at least 1, not {asked}")
    return min(asked, MAX_BATCH)


def _attempt_id(client: str, asked: str) -> str:
    """An attempt is the client's own: nobody else gets its messages by the same id."""
    if len(asked) > MAX_ATTEMPT_ID_LENGTH:
        raise Refused(definition_pb2.BAD_REQUEST, f"the attempt id is over {MAX_ATTEMPT_ID_LENGTH} characters long")
    return f"{client} {asked}" if asked else ""


def _wait_s(asked: duration_pb2.Duration | None, call: Call) -> float:
    """How long to hold a poll: as asked, but always answered before the client's deadline."""
    asked_s = milliseconds(asked, definition_pb2.ILLEGAL_POLLING_TIME) / 1000 if asked is not None else None
    if asked_s is not None and asked_s < 0:
        raise Refused(definition_pb2.ILLEGAL_POLLING_TIME, f"the polling time must not be negative: {asked_s} s")
    left_s = call.deadline_s
    if left_s is None:
        return min(_DEFAULT_POLL_S if asked_s is None else asked_s, MAX_POLL_S)
    latest_s = max(left_s - _ANSWER_MARGIN_S, left_s * 0.9 - 0.05, 0.0)
    return min(latest_s if asked_s is None else min(asked_s, latest_s), MAX_POLL_S)
