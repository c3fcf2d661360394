"""Who else has to do with a simulated broker: operators who change it, and an auditor of what became of it."""

import asyncio
from collections.abc import Awaitable
from typing import Any

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2, service_rpc
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from tests.simulation.broker_clients import Code, DiskFull, World, check_status, resource
from tests.simulation.cluster import group_definition, topic_definition
from tests.simulation.direct import BrokerDown
from tests.simulation.ledger import GroupView, Place
from tests.simulation.stories import Stories

_QUIET_S = 70.0
"""No lease of a client that is gone lives longer: 60 s of silence, and some for the sweep."""


class Operator:
    """Changes topics, groups, permissions and offsets under the clients' feet."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._headers = {"x-mq-client-id": "operator"}

    async def create_all(self) -> None:
        world = self._world
        for topic, queues in world.topics.items():
            await self._put_topic(topic, queues)
        for group in world.groups:
            definition = group_definition(
                group.name,
                group.max_attempts,
                [world.rng.choice((0.5, 2, 5)) for _ in range(world.rng.randint(1, 3))],
                version=world.new_version(),
                **world.group_fields(group),
            )
            answer = await world.doors.call(
                broker_rpc.PUT_GROUP, broker_pb2.PutGroupRequest(group=definition), self._headers
            )
            check_status(answer.status)

    async def step(self) -> None:
        roll = self._world.rng.random()
        if roll < 0.25:
            await self._reset()
        elif roll < 0.35:
            await self._resend()
        elif roll < 0.5:
            await self._more_queues()
        elif roll < 0.6:
            await self._forbid_a_while()
        elif roll < 0.8:
            await self._come_and_go()
        else:
            await self._describe()

    async def _put_topic(self, topic: str, queues: int, *, deleted: bool = False) -> None:
        world = self._world
        type_ = world.type_of(topic) if topic in world.topics else definition_pb2.NORMAL
        definition = topic_definition(topic, queues, version=world.new_version(), deleted=deleted, type=type_)
        answer = await self._world.doors.call(
            broker_rpc.PUT_TOPIC, broker_pb2.PutTopicRequest(topic=definition), self._headers
        )
        check_status(answer.status)
        assert answer.topic.version == definition.version

    async def _reset(self) -> None:
        world = self._world
        group = world.rng.choice(world.groups)
        topic = world.rng.choice(world.topics_of(group))
        queue = world.queue_by_chance(topic)
        key = (topic, queue)
        if group.resets[key] % 2:
            return
        offset = world.rng.randint(0, world.ledger.ends[key])
        request = service_pb2.UpdateOffsetRequest(
            group=resource(group.name),
            message_queue=definition_pb2.MessageQueue(topic=resource(topic), id=queue),
            offset=offset,
        )
        world.ledger.reset_begins(group, topic, queue, offset)
        surely = False
        try:
            answer = await world.doors.call(service_rpc.UPDATE_OFFSET, request, self._headers)
            check_status(answer.status, Code.ILLEGAL_OFFSET)
            surely = answer.status.code == Code.OK
        finally:
            world.ledger.reset_ends(group, topic, queue, offset, surely=surely)

    async def _resend(self) -> None:
        """Gives some dead letters back."""
        world, doors = self._world, self._world.doors
        group = world.rng.choice(world.groups)
        listing = broker_pb2.ListDeadLettersRequest(group=resource(group.name), limit=world.rng.randint(1, 8))
        answer = await doors.call(broker_rpc.LIST_DEAD_LETTERS, listing, self._headers)
        check_status(answer.status)
        places = {
            letter.offset: Place(letter.origin_topic.name, letter.origin_queue, letter.origin_offset)
            for letter in answer.letters
        }
        queues = [place[:2] for place in places.values()]
        if not places or len(set(queues)) < len(queues) or any(group.resets[queue] % 2 for queue in queues):
            return
        world.ledger.resend_begins(group, list(places.values()))
        try:
            request = broker_pb2.ResendDeadLettersRequest(group=resource(group.name), offsets=list(places))
            answer = await doors.call(broker_rpc.RESEND_DEAD_LETTERS, request, self._headers)
            check_status(answer.status)
            for result in answer.results:
                check_status(result, Code.PRECONDITION_FAILED, Code.MESSAGE_NOT_FOUND)
                world.ledger.counts["resent"] += result.code == Code.OK
        finally:
            world.ledger.resend_ends(group, list(places.values()))

    async def _more_queues(self) -> None:
        world = self._world
        topic = world.rng.choice([topic for topic in world.topics if world.type_of(topic) != definition_pb2.LITE])
        if world.topics[topic] < 5:
            await self._put_topic(topic, world.topics[topic] + 1)
            world.topics[topic] += 1

    async def _forbid_a_while(self) -> None:
        world = self._world
        for permission in (definition_pb2.READ, definition_pb2.READ_WRITE):
            request = broker_pb2.SetPermissionRequest(permission=permission)
            while True:
                try:
                    answer = await world.doors.call(broker_rpc.SET_PERMISSION, request, self._headers)
                    check_status(answer.status)
                    break
                except (BrokerDown, DiskFull):
                    await world.pause(1.0)
            await world.pause(0.3)

    async def _come_and_go(self) -> None:
        """A topic and a group that others use while they come and go."""
        world, doors = self._world, self._world.doors
        await self._put_topic("fleeting", 2)
        message = definition_pb2.Message(
            topic=resource("fleeting"), body=b"x", system_properties=definition_pb2.SystemProperties(message_id="f")
        )
        request = service_pb2.ReceiveMessageRequest(
            group=resource("passing"),
            message_queue=definition_pb2.MessageQueue(topic=resource("fleeting"), id=-1),
            batch_size=4,
        )
        request.long_polling_timeout.seconds = 1
        send = service_pb2.SendMessageRequest(messages=[message] * 3)
        calls: list[Awaitable[Any]] = [
            doors.call(service_rpc.SEND_MESSAGE, send, self._headers),
            doors.stream_call(service_rpc.RECEIVE_MESSAGE, request, self._headers),
        ]
        if world.rng.random() < 0.5:
            calls.append(self._put_topic("fleeting", 2, deleted=True))
        if world.rng.random() < 0.5:
            calls.append(self._drop_group("passing"))
        world.rng.shuffle(calls)
        results = await asyncio.gather(*calls, return_exceptions=True)
        for result in results:
            if isinstance(result, BrokerDown):
                raise result
            if isinstance(result, BaseException):
                raise result

    async def _drop_group(self, name: str) -> None:
        definition = group_definition(name, version=self._world.shard.clock.now_ms() + 1, deleted=True)
        answer = await self._world.doors.call(
            broker_rpc.PUT_GROUP, broker_pb2.PutGroupRequest(group=definition), self._headers
        )
        check_status(answer.status)

    async def _describe(self) -> None:
        answer = await self._world.doors.call(
            broker_rpc.DESCRIBE_QUEUES, broker_pb2.DescribeQueuesRequest(), self._headers
        )
        check_status(answer.status)
        for queue in answer.queues:
            for progress in queue.progress:
                assert 0 <= progress.inflight <= progress.lag
                assert progress.committed_offset <= queue.next_offset


class Auditor:
    """Checks, once everybody else has gone home, what is there and what became of it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._headers = {"x-mq-client-id": "auditor"}

    async def run(self) -> None:
        world = self._world
        await asyncio.sleep(_QUIET_S)
        await asyncio.gather(
            *(
                world.drainer(group, f"drain-{group.name}-{topic}").drain(topic)
                for group in world.groups
                for topic in world.topics_of(group)
            )
        )
        first_offsets = await self.first_offsets()
        for (topic, queue), first in first_offsets.items():
            messages = await self._pull(topic, queue, first)
            if topic.startswith("%DLQ%"):
                group = world.ledger.groups.get(topic.removeprefix("%DLQ%"))
                for message in messages:
                    if group is not None:
                        world.ledger.letter(group, topic, message)
            elif topic in world.topics:
                world.ledger.check_stored(topic, queue, first, messages)
        world.ledger.check_batches(first_offsets)
        for group in world.groups:
            world.ledger.check_fates(group, first_offsets, world.topics_of(group))
            await self._check_nothing_waits(group)
        await Stories(world, first_offsets).check()

    async def first_offsets(self) -> dict[tuple[str, int], int]:
        answer = await self._world.doors.call(
            broker_rpc.DESCRIBE_QUEUES, broker_pb2.DescribeQueuesRequest(), self._headers
        )
        offsets = {(queue.topic.name, queue.id): queue.first_offset for queue in answer.queues if queue.id >= 0}
        assert self._world.shard.core is not None
        for topic in self._world.shard.core.state.topics.values():  # lite topics are described as one
            if topic.lite is not None:
                offsets |= {(topic.name.name, queue.id): queue.first_offset for queue in topic.lite.queues}
        return offsets

    async def _pull(self, topic: str, queue: int, first_offset: int) -> list[definition_pb2.Message]:
        messages: list[definition_pb2.Message] = []
        offset = first_offset
        while True:
            request = service_pb2.PullMessageRequest(
                group=resource(self._world.groups[0].name),
                message_queue=definition_pb2.MessageQueue(topic=resource(topic), id=queue),
                offset=offset,
                batch_size=32,
            )
            request.long_polling_timeout.FromMilliseconds(0)
            answers = await self._world.doors.stream_call(service_rpc.PULL_MESSAGE, request, self._headers)
            found = [answer.message for answer in answers if answer.HasField("message")]
            if not found:
                assert answers[0].status.code == Code.MESSAGE_NOT_FOUND, answers[0].status
                return messages
            messages += found
            offset = answers[-1].next_offset

    async def _check_nothing_waits(self, group: GroupView) -> None:
        for topic in self._world.topics_of(group):
            request = broker_pb2.DescribeQueuesRequest(topic=resource(topic), group=resource(group.name))
            answer = await self._world.doors.call(broker_rpc.DESCRIBE_QUEUES, request, self._headers)
            for queue in answer.queues:
                (progress,) = queue.progress
                assert (progress.lag, progress.inflight) == (0, 0), f"{group.name}: {topic}/{queue.id} is {progress}"
                assert group.lite or progress.committed_offset == queue.next_offset
