"""BrokerAdmin.ExplainMessage: what became of a message."""

from kourou.protocol.google.protobuf.timestamp_pb2 import Timestamp
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou_broker.operations.definitions import Definitions
from kourou_broker.operations.explaining import Explaining
from kourou_broker.operations.story import GroupStory, Story, Told
from kourou_broker.rpc.delivered import Deliverer
from kourou_broker.rpc.status import BrokerStatus
from kourou_service.door import OK, serve_unary
from kourou_service.engine import Call, Engine


class ExplainingDoor:
    def __init__(
        self, definitions: Definitions, explaining: Explaining, status: BrokerStatus, deliverer: Deliverer
    ) -> None:
        self._definitions = definitions
        self._explaining = explaining
        self._status = status
        self._deliverer = deliverer

    def open(self, engine: Engine) -> None:
        serve_unary(engine, broker_rpc.EXPLAIN_MESSAGE, self._explain)

    async def _explain(
        self, request: broker_pb2.ExplainMessageRequest, call: Call
    ) -> broker_pb2.ExplainMessageResponse:
        topic = self._definitions.topic(request.topic) if request.HasField("topic") else None
        explanation = await self._explaining.explain(topic, request.message_id)
        return broker_pb2.ExplainMessageResponse(
            status=OK,
            stories=[self._story(story) for story in explanation.stories],
            known_since=_timestamp(explanation.known_since_ms) if explanation.known_since_ms else None,
        )

    def _story(self, story: Story) -> broker_pb2.MessageStory:
        queue, stored = story.message.queue, story.message.message
        message = self._deliverer.found(queue.id if queue is not None else None, stored)
        message.ClearField("body")
        return broker_pb2.MessageStory(
            message=message,
            events=[_event(told) for told in story.events],
            groups=[_group(group) for group in story.groups],
            waits_for=story.waits_for,
            offset_message_id=self._status.offset_message_id(stored.position, stored.place),
        )


def _group(group: GroupStory) -> broker_pb2.GroupStory:
    return broker_pb2.GroupStory(
        group=group.group.resource(),
        fate=f"FATE_{group.ending.name}" if group.ending is not None else None,
        events=[_event(told) for told in group.events],
        waits_for=group.waits_for,
    )


def _event(told: Told) -> broker_pb2.StoryEvent:
    event = told.event
    return broker_pb2.StoryEvent(
        time=_timestamp(event.stored_ms),
        kind=f"STORY_KIND_{event.what.name}",
        client_id=event.client_id,
        attempt=event.attempt,
        until=_timestamp(event.until_ms) if event.until_ms else None,
        log_position=event.position,
        note=told.note,
    )


def _timestamp(ms: int) -> Timestamp:
    return Timestamp(seconds=ms // 1000, nanos=ms % 1000 * 1_000_000)
