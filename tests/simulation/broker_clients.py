"""Clients of one simulated broker, as rude as real ones: chance says what they do, the ledger hears what they saw."""

import asyncio
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2, service_rpc
from kourou_broker.rpc.sending import STORED_HEADER
from tests.simulation.cluster import Shard
from tests.simulation.direct import BrokerDown, DirectCall, DirectEngine
from tests.simulation.ledger import Claim, GroupView, Ledger, Place, Sent

A = TypeVar("A")
Code = definition_pb2.Code
TAGS = ("", "a", "b", "c")


@dataclass(slots=True)
class Received:
    place: Place
    handle: str
    client: str
    renewed: bool


@dataclass(slots=True)
class World:
    """One broker and those around it."""

    shard: Shard
    rng: random.Random
    topics: dict[str, int]
    """With their numbers of queues."""
    groups: list[GroupView]
    max_body_bytes: int
    ledger: Ledger = field(init=False)
    over: bool = False
    next_id: int = 0
    version: int = 1

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.shard.name)
        self.ledger.groups = {group.name: group for group in self.groups}

    @property
    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    @property
    def doors(self) -> DirectEngine:
        if self.shard.doors is None:
            raise BrokerDown
        return self.shard.doors

    async def pause(self, most_s: float) -> None:
        await asyncio.sleep(self.rng.random() * most_s)

    async def live(self, step: Callable[[], Awaitable[None]], most_s: float) -> None:
        """Goes on and on, also when the broker is down."""
        while not self.over:
            try:
                self.ledger.counts["steps"] += 1
                await step()
            except (BrokerDown, DiskFull):
                await self.pause(1.0)
            await self.pause(most_s)

    def topics_of(self, group: GroupView) -> list[str]:
        """What the group reads."""
        return list(self.topics)

    def queue_by_chance(self, topic: str) -> int:
        return self.rng.randrange(self.topics[topic])

    def type_of(self, topic: str) -> int:
        return definition_pb2.NORMAL

    def group_fields(self, group: GroupView) -> dict[str, Any]:
        """What else than attempts and backoff its definition says."""
        return {}

    def drainer(self, group: GroupView, name: str) -> "Consumer":
        """Who consumes what is left in the end."""
        return Consumer(self, group, name)

    def new_version(self) -> int:
        self.version += 1
        return self.version


class DiskFull(Exception):
    """The broker refused, and did nothing, because even the space kept for such records is used up."""


def check_status(status: definition_pb2.Status, *others: int) -> None:
    """It is OK or one of the others. Raises DiskFull."""
    if status.code == Code.INTERNAL_SERVER_ERROR and "disk is full" in status.message:
        raise DiskFull
    assert status.code in (Code.OK, *others), status


def resource(name: str) -> definition_pb2.Resource:
    return definition_pb2.Resource(name=name)


class Producer:
    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._headers = {"x-mq-client-id": name, STORED_HEADER: ""}
        self._sent: deque[tuple[int, list[Sent]]] = deque(maxlen=8)
        """When (ms), and what: whether it is known or not what came of it."""

    async def step(self) -> None:
        world, rng = self._world, self._world.rng
        if self._sent and rng.random() < 0.2:
            await self._send_again(*rng.choice(self._sent))
            return
        topic = rng.choice(list(world.topics))
        count = rng.choice((1, 1, 1, 2, 5))
        ids = [f"m{world.next_id + number}" for number in range(count)]
        world.next_id += count
        messages = [
            Sent(id_, topic, rng.randbytes(rng.randint(1, world.max_body_bytes)), rng.choice(TAGS), ids) for id_ in ids
        ]
        sends = [messages]
        self._sent.append((world.shard.clock.now_ms(), messages))
        if rng.random() < 0.1:  # impatiently
            sends.append(messages)
        if rng.random() < 0.3:  # several calls in one turn
            more = [Sent(f"n{world.next_id}", topic, b"alone", "a", [f"n{world.next_id}"])]
            world.next_id += 1
            sends.append(more)
        await asyncio.gather(*map(self._send, sends))

    async def _send_again(self, sent_ms: int, messages: list[Sent]) -> None:
        """With the same ids, which the broker knows: the ledger sees to it that no message has two places."""
        core, now_ms = self._world.shard.core, self._world.shard.clock.now_ms()
        if core is None or core.recent_sends is None:
            raise BrokerDown
        if now_ms - sent_ms < core.recent_sends.window_ms(now_ms):
            self._world.ledger.counts["sent again"] += 1
            await self._send(messages)

    async def _send(self, messages: list[Sent]) -> None:
        ledger = self._world.ledger
        request = service_pb2.SendMessageRequest(
            messages=[
                definition_pb2.Message(
                    topic=resource(message.topic),
                    body=message.body,
                    user_properties={"number": message.id},
                    system_properties=definition_pb2.SystemProperties(
                        message_id=message.id, tag=message.tag or None, keys=[message.id]
                    ),
                )
                for message in messages
            ]
        )
        moment, ends = ledger.tick(), ledger.sending(messages)
        try:
            reply = await self._world.doors.reply(service_rpc.SEND_MESSAGE, request, self._headers)
        except BrokerDown:
            ledger.not_stored(messages, "unknown")
            raise
        answer = reply.message
        if answer.status.code == Code.OK:
            ledger.durable(moment)
            assert [entry.message_id for entry in answer.entries] == [message.id for message in messages]
            queue = int(str(reply.trailing[STORED_HEADER]).split(".")[0])
            ledger.stored(messages, [entry.offset for entry in answer.entries], queue, ends)
        else:
            ledger.not_stored(messages, "refused")
            check_status(answer.status, Code.FORBIDDEN, Code.PAYLOAD_TOO_LARGE)
            ledger.counts["sends refused"] += 1


class Consumer:
    """Receives and settles; what it does with a message is up to chance."""

    def __init__(self, world: World, group: GroupView, name: str, *, push: bool = False) -> None:
        self._world = world
        self._group = group
        self._push = push
        self.name = name
        self._headers = {"x-mq-client-id": name}
        self._kept: list[Received] = []
        self._attempt = ""
        self._stream: DirectCall | None = None
        self._asked_at: dict[tuple[str, int], int] = {}
        """The versions of the queues' offsets when it last asked for messages."""

    async def step(self) -> None:
        world, rng = self._world, self._world.rng
        topic = rng.choice(world.topics_of(self._group))
        received = await self._push_receive(topic) if self._push else await self._receive(topic, -1, rng.randint(1, 8))
        if received and rng.random() < 0.2:
            await world.pause(6.0)
        await self._settle(topic, received)
        if self._kept and rng.random() < 0.3:
            await self._try_old(rng.choice(self._kept))

    async def live(self, most_s: float) -> None:
        await self._world.live(self.step, most_s)
        if self._stream is not None:
            self._stream.cancel()

    async def _push_receive(self, topic: str) -> list[Received]:
        world, rng = self._world, self._world.rng
        if rng.random() < 0.05:
            await self._leave()
        if self._stream is None or self._stream.ended.done():
            self._stream = self._connect()
            await asyncio.sleep(0)
        request = service_pb2.QueryAssignmentRequest(topic=resource(topic), group=resource(self._group.name))
        answer = await world.doors.call(service_rpc.QUERY_ASSIGNMENT, request, self._headers)
        check_status(answer.status)
        queues = [assignment.message_queue.id for assignment in answer.assignments]
        if not queues:
            await world.pause(1.0)
            return []
        return await self._receive(topic, rng.choice(queues), 8)

    def _connect(self) -> DirectCall:
        settings = definition_pb2.Settings(
            client_type=definition_pb2.PUSH_CONSUMER,
            subscription=definition_pb2.Subscription(
                group=resource(self._group.name),
                subscriptions=[
                    definition_pb2.SubscriptionEntry(topic=resource(topic), expression=self._filter())
                    for topic in self._world.topics_of(self._group)
                ],
            ),
        )
        stream = self._world.doors.open(service_rpc.TELEMETRY, self._headers)
        stream.requests.put_nowait(service_pb2.TelemetryCommand(settings=settings).SerializeToString())
        return stream

    async def _leave(self) -> None:
        """By its word, or by a broken stream, or in silence with the stream open for ever."""
        world = self._world
        for hold in self._group.holds.values():
            if hold.client == self.name:
                hold.until_s = world.now_s
        if self._stream is not None and world.rng.random() < 0.7:
            self._stream.cancel()
            self._stream = None
        if world.rng.random() < 0.5:
            request = service_pb2.NotifyClientTerminationRequest(group=resource(self._group.name))
            answer = await world.doors.call(service_rpc.NOTIFY_CLIENT_TERMINATION, request, self._headers)
            check_status(answer.status)
        await world.pause(8.0)

    def _filter(self) -> definition_pb2.FilterExpression:
        """In one of two languages that say the same."""
        tags = self._group.tags
        if tags is not None and self._world.rng.random() < 0.5:
            values = ", ".join(f"'{tag}'" for tag in sorted(tags))
            return definition_pb2.FilterExpression(type=definition_pb2.SQL, expression=f"TAGS IN ({values})")
        return definition_pb2.FilterExpression(
            type=definition_pb2.TAG, expression="*" if tags is None else " || ".join(sorted(tags))
        )

    async def _receive(
        self, topic: str, queue: int, batch_size: int, invisible_s: float | None = None, wait_s: float | None = None
    ) -> list[Received]:
        world, rng = self._world, self._world.rng
        invisible_s = rng.choice((1.0, 2.0, 5.0)) if invisible_s is None else invisible_s
        again = bool(self._attempt) and rng.random() < 0.5
        if not again:
            self._attempt = f"{self.name}-{world.ledger.tick()}" if rng.random() < 0.3 else ""
        request = service_pb2.ReceiveMessageRequest(
            group=resource(self._group.name),
            message_queue=definition_pb2.MessageQueue(topic=resource(topic), id=queue),
            filter_expression=self._filter(),
            batch_size=batch_size,
            auto_renew=self._push,
            attempt_id=self._attempt or None,
        )
        if not self._push:
            request.invisible_duration.FromMilliseconds(int(invisible_s * 1000))
        request.long_polling_timeout.FromMilliseconds(
            int((rng.choice((0, 0.2, 2)) if wait_s is None else wait_s) * 1000)
        )
        asked_s, resets = world.now_s, dict(self._group.resets)
        self._asked_at = resets
        answers = await self._call_receive(request)
        status = answers[0].status
        messages = [answer.message for answer in answers if answer.HasField("message")]
        check_status(status, Code.MESSAGE_NOT_FOUND)
        assert (status.code == Code.OK) == bool(messages)
        received: list[Received] = []
        for message in messages:
            if topic.startswith("%"):
                continue
            until_s = math.inf if self._push else asked_s + invisible_s
            self.look_at(message)
            place = world.ledger.delivered(self._group, topic, message, until_s, self.name, again=again)
            if self._group.version(place) != resets.get((place.topic, place.queue), 0):
                self._group.holds[place].void = True  # it may have been lent before the offset was set
            received.append(Received(place, message.system_properties.receipt_handle, self.name, self._push))
        return received

    def look_at(self, message: definition_pb2.Message) -> None:
        """For those who know more of their messages."""

    async def _call_receive(self, request: service_pb2.ReceiveMessageRequest) -> list[Any]:
        """Now and then the client gives up in the middle."""
        world = self._world
        call = world.doors.stream_call(service_rpc.RECEIVE_MESSAGE, request, self._headers)
        if world.over or world.rng.random() > 0.1:
            return await call
        task = asyncio.ensure_future(call)
        done, _ = await asyncio.wait((task,), timeout=world.rng.random() * 0.5)
        if not done:
            task.cancel()
            await asyncio.wait((task,))
            if request.attempt_id:  # what it got before may have been lent to it once more
                for hold in self._group.holds.values():
                    hold.void = hold.void or hold.client == self.name
            return [service_pb2.ReceiveMessageResponse(status=definition_pb2.Status(code=Code.MESSAGE_NOT_FOUND))]
        return task.result()

    # Settling

    async def _settle(self, topic: str, received: list[Received]) -> None:
        rng = self._world.rng
        plan: dict[str, list[Received]] = {}
        for one in received:
            what = rng.choices(("ack", "single", "later", "change", "forward", "keep"), (60, 10, 8, 10, 3, 9))[0]
            plan.setdefault(what, []).append(one)
        if acks := plan.get("ack"):
            await self.acknowledge(topic, acks)
        for one in plan.get("single", ()):
            await asyncio.gather(self.acknowledge(topic, [one]), self.acknowledge(topic, [one]))
        for one in plan.get("change", ()):
            await self._change(one)
        for one in plan.get("forward", ()):
            await self._forward(one)
        self._kept += [*plan.get("later", ()), *plan.get("keep", ()), *received[:1]]
        del self._kept[:-16]

    async def _try_old(self, old: Received) -> None:
        rng = self._world.rng
        roll = rng.random()
        if roll < 0.6:
            await self.acknowledge(old.place.topic, [old])
        elif roll < 0.8:
            await self._change(old)
        else:
            await self._foreign(old)

    async def acknowledge(self, topic: str, acks: list[Received]) -> None:
        ledger, group = self._world.ledger, self._group
        request = service_pb2.AckMessageRequest(
            group=resource(group.name),
            topic=resource(topic),
            entries=[definition_entry(ack) for ack in acks],
        )
        claims = [self._claim(ack) for ack in acks]
        try:
            answer = await self._world.doors.call(service_rpc.ACK_MESSAGE, request, self._headers)
        except BrokerDown:
            for claim in claims:
                ledger.unknown(group, claim)
            raise
        finally:
            for claim in claims:
                ledger.claim_ends(group, claim)
        check_status(answer.status, Code.MULTIPLE_RESULTS, Code.INVALID_RECEIPT_HANDLE)
        assert len(answer.entries) == len(acks), answer
        for claim, entry in zip(claims, answer.entries, strict=True):
            if entry.status.code == Code.OK:
                ledger.settled(group, claim, "consumed")
            else:
                assert entry.status.code == Code.INVALID_RECEIPT_HANDLE, entry.status
                ledger.refused(group, claim, "acknowledged")

    async def _foreign(self, old: Received) -> None:
        """The handle of one group is nothing to another, nor on another topic."""
        world = self._world
        group = world.rng.choice(world.groups).name
        topic = world.rng.choice(list(world.topics))
        if (group, topic) == (self._group.name, old.place.topic):
            return
        request = service_pb2.AckMessageRequest(
            group=resource(group), topic=resource(topic), entries=[definition_entry(old)]
        )
        answer = await world.doors.call(service_rpc.ACK_MESSAGE, request, self._headers)
        check_status(answer.status, Code.INVALID_RECEIPT_HANDLE)
        assert answer.status.code != Code.OK, "a foreign handle was honoured"

    async def _change(self, one: Received) -> None:
        world, ledger, group = self._world, self._world.ledger, self._group
        invisible_s = world.rng.choice((None, 0.0, 1.0, 3.0))
        request = service_pb2.ChangeInvisibleDurationRequest(
            group=resource(group.name),
            topic=resource(one.place.topic),
            receipt_handle=one.handle,
            suspend=world.rng.random() < 0.2,
        )
        if invisible_s is not None:
            request.invisible_duration.FromMilliseconds(int(invisible_s * 1000))
        asked_s, claim = world.now_s, self._claim(one)
        try:
            answer = await world.doors.call(service_rpc.CHANGE_INVISIBLE_DURATION, request, self._headers)
        finally:
            ledger.claim_ends(group, claim)
        if answer.status.code == Code.OK:
            ledger.renewed(group, claim, answer.receipt_handle, asked_s + (invisible_s or 0.0))
            self._kept.append(Received(one.place, answer.receipt_handle, self.name, False))
        else:
            check_status(answer.status, Code.INVALID_RECEIPT_HANDLE)
            ledger.refused(group, claim, "renewed")

    async def _forward(self, one: Received) -> None:
        world, ledger, group = self._world, self._world.ledger, self._group
        request = service_pb2.ForwardMessageToDeadLetterQueueRequest(
            group=resource(group.name), topic=resource(one.place.topic), receipt_handle=one.handle
        )
        claim = self._claim(one)
        try:
            answer = await world.doors.call(service_rpc.FORWARD_MESSAGE_TO_DEAD_LETTER_QUEUE, request, self._headers)
        except BrokerDown:
            ledger.unknown(group, claim)
            raise
        finally:
            ledger.claim_ends(group, claim)
        if answer.status.code == Code.OK:
            ledger.settled(group, claim, "dead-lettered")
        else:
            check_status(answer.status, Code.INVALID_RECEIPT_HANDLE, Code.FORBIDDEN)
            if answer.status.code == Code.INVALID_RECEIPT_HANDLE:
                ledger.refused(group, claim, "forwarded")

    def _claim(self, one: Received) -> Claim:
        return self._world.ledger.claim(self._group, one.place, one.handle, self._world.now_s, renewed=False)

    async def drain(self, topic: str) -> None:
        """Receives and acknowledges until nothing is left."""
        while received := await self._receive(topic, -1, 64, invisible_s=60.0, wait_s=8.0):
            await self.acknowledge(topic, received)


def definition_entry(one: Received) -> service_pb2.AckMessageEntry:
    return service_pb2.AckMessageEntry(message_id="any", receipt_handle=one.handle)
