"""Clients that send messages of all types, and what must hold of these beyond what the ledger knows of all messages."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2, service_rpc
from kourou.protocol.kourou.log.v1 import record_pb2
from kourou_broker.rpc.sending import STORED_HEADER
from tests.simulation.broker_clients import TAGS, Code, Consumer, World, check_status, resource
from tests.simulation.direct import BrokerDown, DirectCall
from tests.simulation.ledger import GroupView, Place, Sent

HELD_TOPICS = ("delay", "transaction")
LITE = "lite"
LITE_TOPICS = ("north", "south", "west")
MESSAGE_GROUPS = ("red", "green", "blue")
MANY_ATTEMPTS = 16
_EARLY_MS = 1
"""Of a time that is rounded on its way."""


@dataclass(slots=True)
class Held:
    """A message that nobody may see yet: whether it may, must or must not be seen in the end."""

    sent: Sent
    due_ms: int = 0
    recall_handle: str = ""
    transaction_id: str = ""
    plan: int = definition_pb2.TRANSACTION_RESOLUTION_UNSPECIFIED
    """What its producer says of it when it is asked."""
    withdrawn: str = ""
    """Recalled or rolled back: `surely`, or `perhaps`."""
    committed: bool = False


@dataclass(slots=True)
class TypedWorld(World):
    """Each topic is named for the type of its messages."""

    held: dict[str, Held] = field(default_factory=dict[str, Held])
    last_of: dict[tuple[str, str, int, str, int], int] = field(
        default_factory=dict[tuple[str, str, int, str, int], int]
    )
    """The newest offset that a group was given of a message group in a queue, since the queue's offset was set."""

    all_sent: bool = False
    """Nobody sends any more; what was sent takes its time to come."""

    ordered: tuple[str, ...] = ()
    """The groups that keep the order."""

    def type_of(self, topic: str) -> int:
        return definition_pb2.MessageType.Value(topic.upper())

    def topics_of(self, group: GroupView) -> list[str]:
        return [topic for topic in self.topics if (topic == LITE) == group.lite]

    def queue_by_chance(self, topic: str) -> int:
        if topic != LITE:
            return self.rng.randrange(self.topics[topic])
        return self.rng.choice([0, *(queue for known, queue in self.ledger.ends if known == LITE)])

    def group_fields(self, group: GroupView) -> dict[str, Any]:
        if group.lite:
            return {"lite": record_pb2.LiteGroup(topic=resource(LITE))}
        return {"order": record_pb2.ORDER_FIFO if group.name in self.ordered else record_pb2.ORDER_CONCURRENT}

    def drainer(self, group: GroupView, name: str) -> Consumer:
        return LiteConsumer(self, group, name, reads=LITE_TOPICS) if group.lite else Consumer(self, group, name)

    @property
    def now_ms(self) -> int:
        return self.shard.clock.now_ms()

    def check_delivery(
        self, group: GroupView, message: definition_pb2.Message, *, asked_at: int, ordered: bool
    ) -> None:
        """asked_at: the version of the queue's offset when it was asked for."""
        system = message.system_properties
        held = self.held.get(system.message_id)
        if held is not None:
            assert held.withdrawn != "surely", f"{system.message_id} was {held.withdrawn} withdrawn, and came"
            assert self.now_ms >= held.due_ms - _EARLY_MS, f"{system.message_id} came before its time"
            if message.topic.name == "transaction":
                rolled_back = held.plan == definition_pb2.ROLLBACK
                assert not rolled_back, f"{system.message_id} was never committed, and came"
        is_of_now = asked_at == group.resets[message.topic.name, system.queue_id] and asked_at % 2 == 0
        given_back = Place(message.topic.name, system.queue_id, system.queue_offset) in group.resent
        if ordered and system.message_group and is_of_now and not given_back:
            key = (group.name, message.topic.name, system.queue_id, system.message_group, asked_at)
            newest = self.last_of.get(key, -1)
            assert system.queue_offset >= newest, f"{key}: {system.queue_offset} came after {newest}"
            self.last_of[key] = system.queue_offset

    def check_held(self, first_offsets: dict[tuple[str, int], int]) -> None:
        """After all was drained: what was held has come, unless it was withdrawn."""
        expired = {topic for (topic, _queue), first in first_offsets.items() if first}
        for held in self.held.values():
            sent = held.sent
            if held.withdrawn == "surely":
                assert sent.place is None, f"{sent.id} was withdrawn, and is at {sent.place}"
                self.ledger.counts["withdrawn"] += 1
            elif sent.outcome == "stored" and not held.withdrawn and sent.topic not in expired:
                wanted = sent.topic == "delay" or held.committed or held.plan == definition_pb2.COMMIT
                assert not wanted or sent.place is not None, (
                    f"{sent.id} of {sent.topic} was lost: {held.due_ms=} {held.plan=}"
                )
                self.ledger.counts["came when it was time"] += sent.place is not None


class TypedProducer:
    """Sends to topics of all types, recalls what is delayed, ends its transactions or lets itself be asked."""

    def __init__(self, world: TypedWorld, name: str) -> None:
        self._world = world
        self._headers = {"x-mq-client-id": name, STORED_HEADER: ""}
        self._stream: DirectCall | None = None
        self._answered = 0

    async def live(self, most_s: float) -> None:
        world = self._world
        await asyncio.gather(world.live(self.step, most_s), world.live(self._listen, 0.5))
        if self._stream is not None:
            self._stream.cancel()

    async def step(self) -> None:
        world, rng = self._world, self._world.rng
        if world.all_sent:
            return
        topic = rng.choice(list(world.topics))
        count = 1 if topic == "transaction" else rng.choice((1, 1, 2, 5))
        ids = [f"m{world.next_id + number}" for number in range(count)]
        world.next_id += count
        size = rng.randint(1, world.max_body_bytes)
        alone = topic in HELD_TOPICS  # they are asked for together, and come each in its own time
        tag = rng.choice(TAGS)
        await self._send([Sent(id_, topic, rng.randbytes(size), tag, [id_] if alone else ids) for id_ in ids])

    async def _send(self, messages: Sequence[Sent]) -> None:
        world, ledger = self._world, self._world.ledger
        topic = messages[0].topic
        request = service_pb2.SendMessageRequest(messages=self._requested(messages))
        for message in request.messages:
            if topic in HELD_TOPICS:
                system = message.system_properties
                due_ms = system.delivery_timestamp.ToMilliseconds() if system.HasField("delivery_timestamp") else 0
                id_ = system.message_id
                sent = next(sent for sent in messages if sent.id == id_)
                plan = world.rng.choice(
                    (definition_pb2.COMMIT, definition_pb2.ROLLBACK, definition_pb2.TRANSACTION_RESOLUTION_UNSPECIFIED)
                )
                world.held[id_] = Held(sent, due_ms, plan=plan)
        moment, ends = ledger.tick(), ledger.sending(list(messages))
        try:
            reply = await world.doors.reply(service_rpc.SEND_MESSAGE, request, self._headers)
        except BrokerDown:
            ledger.not_stored(list(messages), "unknown")
            raise
        answer = reply.message
        if answer.status.code != Code.OK:
            ledger.not_stored(list(messages), "refused")
            check_status(answer.status, Code.FORBIDDEN, Code.PAYLOAD_TOO_LARGE)
            return
        ledger.durable(moment)
        if topic in HELD_TOPICS:
            await self._held(messages, answer)
        else:
            offsets = [entry.offset for entry in answer.entries]
            queue = int(str(reply.trailing[STORED_HEADER]).split(".")[0])
            ledger.stored(list(messages), offsets, queue, ends)

    def _requested(self, messages: Sequence[Sent]) -> list[definition_pb2.Message]:
        world, rng = self._world, self._world.rng
        topic = messages[0].topic
        group, priority, lite_topic = rng.choice(MESSAGE_GROUPS), rng.randint(0, 5), rng.choice(LITE_TOPICS)
        requested: list[definition_pb2.Message] = []
        for message in messages:
            system = definition_pb2.SystemProperties(message_id=message.id, tag=message.tag or None)
            system.message_type = world.type_of(topic)  # type: ignore[assignment]
            if topic == "fifo":
                system.message_group = group
            elif topic == "priority":
                system.priority = priority
            elif topic == LITE:
                system.lite_topic = lite_topic
            elif topic == "delay":
                system.delivery_timestamp.FromMilliseconds(world.now_ms + rng.choice((-1000, 0, 500, 3000, 20_000)))
            elif topic == "transaction":
                system.orphaned_transaction_recovery_duration.seconds = rng.choice((1, 3))
            requested.append(definition_pb2.Message(topic=resource(topic), body=message.body, system_properties=system))
        return requested

    async def _held(self, messages: Sequence[Sent], answer: service_pb2.SendMessageResponse) -> None:
        world = self._world
        for sent, entry in zip(messages, answer.entries, strict=True):
            sent.outcome = "stored"
            world.ledger.counts["held"] += 1
            held = world.held[sent.id]
            held.recall_handle, held.transaction_id = entry.recall_handle, entry.transaction_id
        for sent in messages:
            held = world.held[sent.id]
            if held.transaction_id and world.rng.random() < 0.6:
                await world.pause(1.0)
                await self._end(held)
            elif held.recall_handle and world.rng.random() < 0.3:
                await world.pause(4.0)
                await self._recall(held)

    async def _recall(self, held: Held) -> None:
        world = self._world
        request = service_pb2.RecallMessageRequest(topic=resource(held.sent.topic), recall_handle=held.recall_handle)
        before = held.withdrawn
        held.withdrawn = before or "perhaps"
        answer = await world.doors.call(service_rpc.RECALL_MESSAGE, request, self._headers)
        if answer.status.code == Code.OK:
            held.withdrawn = "surely"
            world.ledger.counts["recalled"] += 1
            assert held.sent.place is None, f"{held.sent.id} was recalled after it had come"
        else:
            held.withdrawn = before
            check_status(answer.status, Code.NOT_FOUND)
            assert world.now_ms >= held.due_ms - _EARLY_MS or before, f"{held.sent.id} could not be recalled: {answer}"

    async def _end(self, held: Held) -> None:
        """Says what became of the transaction, as planned; the same whenever it is asked."""
        world = self._world
        if held.plan == definition_pb2.ROLLBACK and held.withdrawn != "surely":
            held.withdrawn = "perhaps"
        request = service_pb2.EndTransactionRequest(
            topic=resource(held.sent.topic),
            message_id=held.sent.id,
            transaction_id=held.transaction_id,
            resolution=held.plan,  # type: ignore[arg-type]
        )
        answer = await world.doors.call(service_rpc.END_TRANSACTION, request, self._headers)
        check_status(answer.status, Code.INVALID_TRANSACTION_ID, Code.FORBIDDEN)
        if answer.status.code == Code.OK:
            if held.plan == definition_pb2.COMMIT:
                held.committed = True
                world.ledger.counts["committed"] += 1
            elif held.plan == definition_pb2.ROLLBACK:
                held.withdrawn = "surely"

    async def _listen(self) -> None:
        """Keeps a telemetry stream open, and answers what the broker asks of its transactions."""
        world = self._world
        if self._stream is None or self._stream.ended.done() or self._stream.cancelled:
            settings = definition_pb2.Settings(
                client_type=definition_pb2.PRODUCER,
                publishing=definition_pb2.Publishing(topics=[resource("transaction")]),
            )
            self._stream = world.doors.open(service_rpc.TELEMETRY, self._headers)
            self._answered = 0
            self._stream.requests.put_nowait(service_pb2.TelemetryCommand(settings=settings).SerializeToString())
        for data in self._stream.answers[self._answered :]:
            self._answered += 1
            command = service_pb2.TelemetryCommand.FromString(data)
            if not command.HasField("recover_orphaned_transaction_command"):
                continue
            asked = command.recover_orphaned_transaction_command
            held = world.held[asked.message.system_properties.message_id]
            assert asked.message.body == held.sent.body
            assert held.transaction_id in ("", asked.transaction_id), "two ids for one transaction"
            held.transaction_id = asked.transaction_id
            world.ledger.counts["asked"] += 1
            await self._end(held)


class TypedConsumer(Consumer):
    """A consumer that looks at what the type of a message promises."""

    def __init__(self, world: TypedWorld, group: GroupView, name: str, *, ordered: bool, push: bool = False) -> None:
        super().__init__(world, group, name, push=push)
        self._typed = world
        self._ordered = ordered

    def look_at(self, message: definition_pb2.Message) -> None:
        queue = (message.topic.name, message.system_properties.queue_id)
        asked_at = self._asked_at.get(queue, 0)
        self._typed.check_delivery(self._group, message, asked_at=asked_at, ordered=self._ordered)


class LiteConsumer(Consumer):
    """Reads some lite topics at a time, and says so anew when the broker has forgotten it."""

    def __init__(self, world: TypedWorld, group: GroupView, name: str, *, reads: Sequence[str] = ()) -> None:
        super().__init__(world, group, name)
        self._reads = reads
        self._told_in_run = 0
        self._call: object = None
        self._lent: set[Place] = set()
        """By the answer that comes in."""

    async def step(self) -> None:
        if self._told_in_run != self._world.ledger.run or self._world.rng.random() < 0.2:
            self._reads = self._world.rng.sample(LITE_TOPICS, self._world.rng.randint(1, len(LITE_TOPICS)))
            await self._subscribe()
        await super().step()

    async def drain(self, topic: str) -> None:
        await self._subscribe()
        await super().drain(topic)

    def look_at(self, message: definition_pb2.Message) -> None:
        """Nothing newer comes before the older is settled; what was lent before is lent no longer."""
        group, system = self._group, message.system_properties
        queue = (LITE, system.queue_id)
        if self._call is not self._asked_at:  # the first one of an answer
            self._call, self._lent = self._asked_at, set()
        is_of_now = self._asked_at.get(queue, 0) == group.resets[queue]
        is_sure = not self._world.shard.settings.retention_bytes and group.max_attempts > MANY_ATTEMPTS
        for place in self._world.ledger.at if is_of_now and is_sure else ():
            if place[:2] == queue and place.offset < system.queue_offset and place not in self._lent:
                assert self._may_be_settled(place), f"{place} is not settled, and {system.queue_offset} came"
        for place, hold in group.holds.items():
            if place[:2] == queue and place not in self._lent:
                hold.void = True
        self._lent.add(Place(LITE, system.queue_id, system.queue_offset))
        self._world.ledger.counts["lite"] += 1

    def _may_be_settled(self, place: Place) -> bool:
        group, hold = self._group, self._group.holds.get(place)
        return (
            place in group.settled
            or place in group.maybe_settled
            or place.offset < group.skipped_below.get(place[:2], 0)
            or (hold is not None and hold.in_flight > 0)
        )

    async def _subscribe(self) -> None:
        world = self._world
        request = service_pb2.SyncLiteSubscriptionRequest(
            action=definition_pb2.COMPLETE_ADD,
            topic=resource(LITE),
            group=resource(self._group.name),
            lite_topic_set=self._reads,
        )
        answer = await world.doors.call(service_rpc.SYNC_LITE_SUBSCRIPTION, request, self._headers)
        check_status(answer.status)
        self._told_in_run = world.ledger.run
