"""Finding messages by id, offset message id, key, time or place; and what became of one."""

from __future__ import annotations

from collections.abc import Sequence

from kourou.errors import InvalidArgument
from kourou.message_id import OffsetMessageId
from kourou.protocol.apache.rocketmq.v2.definition_pb2 import Code
from kourou.protocol.kourou.admin.v1.admin_pb2 import (
    BrokerMessage,
    BrokerStories,
    ExplainMessageRequest,
    ExplainMessageResponse,
    FindMessagesRequest,
    FindMessagesResponse,
)
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou.protocol.kourou.broker.v1.broker_pb2 import LogPosition, QueuePosition, TimeSpan
from kourou_admin.cluster import Cluster, pick
from kourou_admin.definitions import check_topic_name
from kourou_admin.outcomes import merge, reading
from kourou_service.clock import Clock
from kourou_service.refusal import Refused
from kourou_service.wire_times import milliseconds

DEFAULT_LIMIT = 64
MAX_LIMIT = 256
SEARCH_TIMEOUT_S = 60.0

# These name one message: finding none is an error, not an empty list.
_SINGLE = frozenset({"message_id", "offset_message_id", "at"})


class Messages:
    def __init__(self, cluster: Cluster, clock: Clock, timeout_s: float = SEARCH_TIMEOUT_S) -> None:
        """`timeout_s`: a broker reads its log for this, or has to index it first."""
        self._cluster = cluster
        self._timeout_s = timeout_s
        self._clock = clock

    async def find(self, request: FindMessagesRequest) -> FindMessagesResponse:
        question, brokers = _question(request)
        if question.HasField("time"):
            self._bound(question.time)
        chosen = pick(await self._cluster.leaders(), brokers)
        answers = await self._cluster.ask_all(chosen.values(), broker_rpc.FIND_MESSAGES, question, self._timeout_s)
        responses, failures = merge(answers)
        found = [
            BrokerMessage(broker=broker, found=message)
            for broker, response in responses
            for message in response.messages
        ]
        if not found and not failures and request.WhichOneof("by") in _SINGLE:
            raise Refused(Code.MESSAGE_NOT_FOUND, "there is no such message, or it has expired")
        found.sort(key=_stored)
        return FindMessagesResponse(status=reading(failures), messages=found[: question.limit], failures=failures)

    async def explain(self, request: ExplainMessageRequest) -> ExplainMessageResponse:
        """What each broker knows of it; those that know nothing say how far back they remember."""
        question = broker_pb2.ExplainMessageRequest(message_id=request.message_id)
        if not request.message_id:
            raise Refused(Code.ILLEGAL_MESSAGE_ID, "the message id is empty")
        brokers: Sequence[str] = ()
        if request.HasField("topic"):
            check_topic_name(request.topic)
            question.topic.CopyFrom(request.topic)
        else:
            brokers = [_position(request.message_id)[0]]
        chosen = pick(await self._cluster.leaders(), brokers)
        answers = await self._cluster.ask_all(chosen.values(), broker_rpc.EXPLAIN_MESSAGE, question, self._timeout_s)
        responses, failures = merge(answers)
        stories = [BrokerStories(broker=broker, explanation=response) for broker, response in responses]
        return ExplainMessageResponse(status=reading(failures), brokers=stories, failures=failures)

    def _bound(self, span: TimeSpan) -> None:
        """An end that is absent is now."""
        if not span.HasField("end"):
            span.end.FromMilliseconds(self._clock.now_ms())
        if milliseconds(span.begin) > milliseconds(span.end):
            raise Refused(Code.BAD_REQUEST, "the time span ends before it begins")


def _question(request: FindMessagesRequest) -> tuple[broker_pb2.FindMessagesRequest, Sequence[str]]:
    """What to ask, and of which brokers; of all when none is named."""
    if not 0 <= request.limit <= MAX_LIMIT:
        raise Refused(Code.BAD_REQUEST, f"the limit {request.limit} is not in 1 to {MAX_LIMIT}")
    question = broker_pb2.FindMessagesRequest(limit=request.limit or DEFAULT_LIMIT)
    by = request.WhichOneof("by")
    if by == "offset_message_id":
        broker, question_position = _position(request.offset_message_id)
        question.log_position.CopyFrom(question_position)
        return question, [broker]
    check_topic_name(request.topic)
    question.topic.CopyFrom(request.topic)
    if by == "at":
        question.queue_position.CopyFrom(QueuePosition(queue=request.at.queue, offset=request.at.offset))
        return question, [request.at.broker]
    if by == "time":
        question.time.CopyFrom(request.time)
    elif by == "key" and request.key:
        question.key = request.key
    elif by == "message_id" and request.message_id:
        question.message_id = request.message_id
    else:
        raise Refused(Code.BAD_REQUEST, "what to look for is missing: an id, an offset message id, a key or a time")
    return question, []


def _position(offset_message_id: str) -> tuple[str, LogPosition]:
    try:
        stored = OffsetMessageId.parse(offset_message_id)
    except InvalidArgument as fault:
        raise Refused(Code.ILLEGAL_MESSAGE_ID, str(fault)) from None
    return stored.broker, LogPosition(position=stored.position, index=stored.index)


def _stored(entry: BrokerMessage) -> tuple[int, int, str, int]:
    time = entry.found.message.system_properties.store_timestamp
    return time.seconds, time.nanos, entry.broker, entry.found.position.position
