"""How far groups have read, and moving them."""

from __future__ import annotations

from kourou.protocol.apache.rocketmq.v2.definition_pb2 import Code
from kourou.protocol.kourou.admin.v1.admin_pb2 import (
    BrokerQueue,
    BrokerQueueOffset,
    DescribeProgressRequest,
    DescribeProgressResponse,
    ResetOffsetRequest,
    ResetOffsetResponse,
)
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou_admin.cluster import Cluster, pick
from kourou_admin.definitions import check_group_name, check_topic_name, key
from kourou_admin.outcomes import merge, overall, reading
from kourou_service.refusal import Refused


class Progress:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def describe(self, request: DescribeProgressRequest) -> DescribeProgressResponse:
        question = broker_pb2.DescribeQueuesRequest()
        if request.HasField("topic"):
            check_topic_name(request.topic)
            question.topic.CopyFrom(request.topic)
        if request.HasField("group"):
            check_group_name(request.group)
            question.group.CopyFrom(request.group)
        leaders = await self._cluster.leaders()
        answers = await self._cluster.ask_all(leaders.values(), broker_rpc.DESCRIBE_QUEUES, question)
        responses, failures = merge(answers)
        queues = [
            BrokerQueue(broker=broker, queue=queue) for broker, response in responses for queue in response.queues
        ]
        queues.sort(key=lambda entry: (key(entry.queue.topic), entry.broker, entry.queue.id))
        return DescribeProgressResponse(status=reading(failures), queues=queues, failures=failures)

    async def reset(self, request: ResetOffsetRequest) -> ResetOffsetResponse:
        check_topic_name(request.topic)
        check_group_name(request.group)
        chosen = pick(await self._cluster.leaders(), [request.broker] if request.HasField("broker") else [])
        answers = await self._cluster.ask_all(chosen.values(), broker_rpc.RESET_OFFSET, _order(request))
        # Brokers that do not hold the topic have nothing to move.
        responses, failures = merge(answers)
        outcomes = [answer.outcome for answer in answers if answer.response is not None] + failures
        offsets = [
            BrokerQueueOffset(broker=broker, queue=moved.queue, offset=moved.offset)
            for broker, response in responses
            for moved in response.offsets
        ]
        return ResetOffsetResponse(status=overall(outcomes), outcomes=outcomes, offsets=offsets)


def _order(request: ResetOffsetRequest) -> broker_pb2.ResetOffsetRequest:
    """What each broker is told. Raises Refused when the target is missing or makes no sense."""
    order = broker_pb2.ResetOffsetRequest(group=request.group, topic=request.topic)
    if request.HasField("queue"):
        order.queue = request.queue
    target = request.WhichOneof("to")
    if target == "time":
        order.time.CopyFrom(request.time)
    elif target == "offset" and request.offset >= 0:
        order.offset = request.offset
    elif target == "offset":
        raise Refused(Code.ILLEGAL_OFFSET, f"the offset {request.offset} is below 0")
    elif target == "first" and request.first:
        order.first = True
    elif target == "last" and request.last:
        order.last = True
    else:
        raise Refused(Code.BAD_REQUEST, "where to move to is missing: a time, an offset, the first or the last")
    return order
