"""Clients that send messages of all types, and what must hold of these beyond what the ledger knows of all messages."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2, service_rpc
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from tests.simulation.broker_clients import Code, Consumer, World, check_status, resource
from tests.simulation.cluster import group_definition, topic_definition
from tests.simulation.direct import BrokerDown, DirectCall
from tests.simulation.ledger import GroupView, Sent

HELD_TOPICS = ("delay", "transaction")
MESSAGE_GROUPS = ("red", "green", "blue")
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
    last_of: dict[tuple[str, str, int, str], int] = field(default_factory=dict[tuple[str, str, int, str], int])
    """The newest offset that a group was given of a message group in a queue."""

    all_sent: bool = False
    """Nobody sends any more; what was sent takes its time to come."""

    def type_of(self, topic: str) -> int:
        return definition_pb2.MessageType.Value(topic.upper())

    @property
    def now_ms(self) -> int:
        return self.shard.clock.now_ms()

    def check_delivery(self, group: GroupView, message: definition_pb2.Message, *, ordered: bool) -> None:
        system = message.system_properties
        held = self.held.get(system.message_id)
        if held is not None:
            assert held.withdrawn != "surely", f"{system.message_id} was {held.withdrawn} withdrawn, and came"
            assert self.now_ms >= held.due_ms - _EARLY_MS, f"{system.message_id} came before its time"
            if message.topic.name == "transaction":
                rolled_back = held.plan == definition_pb2.ROLLBACK
                assert not rolled_back, f"{system.message_id} was never committed, and came"
        if ordered and system.message_group:
            key = (group.name, message.topic.name, system.queue_id, system.message_group)
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
        self._headers = {"x-mq-client-id": name}
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
        await self._send([Sent(id_, topic, rng.randbytes(size), "", [id_] if alone else ids) for id_ in ids])

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
            queue = int(str(reply.trailing["x-kourou-stored"]).split(".")[0])
            ledger.stored(list(messages), offsets, queue, ends)

    def _requested(self, messages: Sequence[Sent]) -> list[definition_pb2.Message]:
        world, rng = self._world, self._world.rng
        topic = messages[0].topic
        group, priority = rng.choice(MESSAGE_GROUPS), rng.randint(0, 5)
        requested: list[definition_pb2.Message] = []
        for message in messages:
            system = definition_pb2.SystemProperties(message_id=message.id)
            system.message_type = world.type_of(topic)  # type: ignore[assignment]
            if topic == "fifo":
                system.message_group = group
            elif topic == "priority":
                system.priority = priority
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
        self._typed.check_delivery(self._group, message, ordered=self._ordered)


class TypedOperator:
    def __init__(self, world: TypedWorld) -> None:
        self._world = world
        self._headers = {"x-mq-client-id": "operator"}

    async def create_all(self, ordered: Sequence[str]) -> None:
        world = self._world
        for topic, queues in world.topics.items():
            definition = topic_definition(topic, queues, version=world.new_version(), type=world.type_of(topic))
            request = broker_pb2.PutTopicRequest(topic=definition)
            check_status((await world.doors.call(broker_rpc.PUT_TOPIC, request, self._headers)).status)
        for group in world.groups:
            order = 2 if group.name in ordered else 1
            definition = group_definition(
                group.name, group.max_attempts, [0.5, 2], version=world.new_version(), order=order
            )
            request = broker_pb2.PutGroupRequest(group=definition)
            check_status((await world.doors.call(broker_rpc.PUT_GROUP, request, self._headers)).status)


def offsets_by_queue(answer: broker_pb2.DescribeQueuesResponse) -> dict[tuple[str, int], int]:
    first: defaultdict[tuple[str, int], int] = defaultdict(int)
    for queue in answer.queues:
        first[queue.topic.name, queue.id] = queue.first_offset
    return first
