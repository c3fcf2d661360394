"""What the broker tells of each message, from its log, is what its clients saw become of it."""

from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from tests.simulation.broker_clients import World, check_status, resource
from tests.simulation.ledger import Place, Sent

FATES = {
    broker_pb2.FATE_CONSUMED: "consumed",
    broker_pb2.FATE_FILTERED: "filtered",
    broker_pb2.FATE_DEAD_LETTERED: "dead-lettered",
    broker_pb2.FATE_EXPIRED: "expired",
    broker_pb2.FATE_SKIPPED: "skipped",
}
"""After all was drained none waits."""
_ENDS_OF_HOLDING = {
    broker_pb2.STORY_KIND_RECALLED: "recalled",
    broker_pb2.STORY_KIND_ROLLED_BACK: "rolled back",
    broker_pb2.STORY_KIND_STORED: "stored",
}


class Stories:
    """Asks for the story of every message that was sent: each has one, with one end for each group."""

    def __init__(self, world: World, first_offsets: dict[tuple[str, int], int]) -> None:
        self._world = world
        self._first_offsets = first_offsets
        assert world.shard.core is not None
        self._is_whole = world.shard.core.log.first_position == 0

    async def check(self) -> None:
        for message in self._world.ledger.sent.values():
            if message.topic in self._world.topics:
                await self._check(message)

    async def _check(self, message: Sent) -> None:
        request = broker_pb2.ExplainMessageRequest(topic=resource(message.topic), message_id=message.id)
        answer = await self._world.doors.call(broker_rpc.EXPLAIN_MESSAGE, request, {"x-mq-client-id": "auditor"})
        check_status(answer.status)
        place = message.place
        assert len(answer.stories) <= 1, f"{message.id} at {place} has {len(answer.stories)} stories: {answer}"
        for story in answer.stories:
            moments = [event.time.ToMilliseconds() for event in story.events]
            assert moments == sorted(moments), f"{message.id} at {place}: {story}"
            end = self.end_of_holding(message, story)
            self._world.ledger.counts[f"told: {end}"] += 1
            if end == "stored":
                self._check_fates(message, story)
        is_there = place is not None and place.offset >= self._first_offsets[place.topic, place.queue]
        assert answer.stories or not is_there, f"{message.id} is at {place}, and nothing is told of it"

    def end_of_holding(self, message: Sent, story: broker_pb2.MessageStory) -> str:
        """How the message came into its queue, or did not: `stored` where it did."""
        end = _ENDS_OF_HOLDING[story.events[-1].kind]
        assert end == "stored" or not story.groups, f"{message.id} is {end}: {story}"
        if self._is_whole:
            assert (end == "stored") == (message.place is not None), f"{message.id} at {message.place}: {story}"
        return end

    def _check_fates(self, message: Sent, story: broker_pb2.MessageStory) -> None:
        system = story.message.system_properties
        place = Place(message.topic, system.queue_id, system.queue_offset)
        assert message.place in (None, place), f"{message.id} is at {message.place}: {story}"
        told = {group.group.name: group for group in story.groups}
        assert len(told) == len(story.groups), f"{message.id} has two fates in one group: {story}"
        for group in self._world.groups:
            if message.topic not in self._world.topics_of(group):
                assert group.name not in told, f"{group.name} cannot read {message.topic}: {story}"
                continue
            possible = self._world.ledger.fates(group, message, place, self._first_offsets)
            fate = FATES.get(told[group.name].fate, "")
            assert fate in possible or self._is_forgotten(place, told[group.name]), (
                f"{group.name}: {message.id} at {place} is told to be {fate}, not {possible}: {told[group.name]}"
            )
            self._world.ledger.counts[f"told: {fate}"] += 1

    def _is_forgotten(self, place: Place, told: broker_pb2.GroupStory) -> bool:
        """Of a message whose segment is gone there may be a copy, for another group that held it then."""
        return told.fate == broker_pb2.FATE_UNSPECIFIED and place.offset < self._first_offsets[place.topic, place.queue]
