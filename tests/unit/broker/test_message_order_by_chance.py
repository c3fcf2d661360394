"""FIFO under anything at any moment: calls that overlap, crashes, restarts, resets and members that come and go.

Two things must hold: what a group is delivered of a message group never goes back, save by a reset, and never goes on
while an older message is neither settled nor a dead letter; and nothing is lost.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.kourou.log.v1 import record_pb2
from tests.simulation.direct import BrokerDown
from tests.simulation.time import simulate
from tests.unit.broker.alone import Broker, Message, attempt, handle, ids, message

A = TypeVar("A")
Code = definition_pb2.Code
MAX_ATTEMPTS = 3
INVISIBLE_S = 2
MEMBERS = ("member-1", "member-2")
QUEUES = 2

CALLS = ("send", "receive", "ack", "nack", "suspend", "forward", "repeat", "hang_up", "reset", "leave")
WEIGHED = (*CALLS, "crash", "cut", "restart", *("send", "receive", "ack") * 4)
Step = tuple[str, int, float]


class Seen:
    """What clients saw of one message group."""

    def __init__(self) -> None:
        self.stored: dict[int, str] = {}
        """Ids by offset."""
        self.asked: set[int] = set()
        """Of these a client asked that they be settled."""
        self.settled: set[int] = set()
        """The broker said that they are."""
        self.last = -1
        self.resets = 0


class Play:
    def __init__(self, broker: Broker, *, push: bool) -> None:
        self.broker = broker
        self.push = push
        self.seen: dict[str, Seen] = {}
        self.held: dict[tuple[str, int], str] = {}
        """The newest handle of each message, by message group and offset."""
        self.number = 0
        self.sending: dict[str, asyncio.Lock] = {}

    async def step(self, what: str, which: int) -> None:
        with contextlib.suppress(BrokerDown):  # what became of the call is not known then
            if self.broker.shard.doors is not None:
                await getattr(self, what)(which)

    async def send(self, which: int) -> None:
        group = "abc"[which % 3]
        async with self.sending.setdefault(group, asyncio.Lock()):
            self.number += 1
            id_ = f"{group}{self.number}"
            answer = await self.broker.send(
                message(id_=id_, message_group=group, message_type=definition_pb2.FIFO, body=bytes(2048))
            )
            if answer.status.code == Code.OK:
                self._of(group).stored[answer.entries[0].offset] = id_

    async def receive(self, which: int, attempt_id: str = "") -> None:
        resets = {group: seen.resets for group, seen in self.seen.items()}
        received = await self.broker.receive(attempt_id=attempt_id, **self._fields(which))
        groups = [one.system_properties.message_group for one in received]
        assert len(groups) == len(set(groups)), f"two of one message group in {ids(received)}"
        for one in received:
            group = one.system_properties.message_group
            if resets.get(group, 0) == self._of(group).resets:
                await self._delivered(one)

    def _fields(self, which: int) -> dict[str, Any]:
        fields = {
            "client": MEMBERS[which % 2],
            "batch_size": which % 4 + 1,
            "wait_s": which % 3,
            "invisible_s": INVISIBLE_S,
        }
        return {**fields, "queue": which % QUEUES, "auto_renew": True} if self.push else fields

    async def hang_up(self, which: int) -> None:
        """A client that goes away in the middle: it has seen nothing, whatever it was lent."""

        async def receive() -> None:
            if self.broker.shard.doors is not None:  # a turn later the broker may be gone
                await self.broker.receive(**self._fields(which))

        call = asyncio.ensure_future(receive())
        for _ in range(which):
            await asyncio.sleep(0)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call

    async def repeat(self, which: int) -> None:
        await self.receive(which, f"attempt-{which % 2}")

    async def _delivered(self, one: Message) -> None:
        system = one.system_properties
        group, offset = system.message_group, system.queue_offset
        seen = self._of(group)
        said = f"{system.message_id} at {offset} in attempt {attempt(one)}"
        assert offset >= seen.last, f"{said} came after {seen.last}"
        assert offset not in seen.settled, f"{said} came after it was settled"
        seen.last = offset
        self.held[group, offset] = handle(one)
        known = seen.stored.setdefault(offset, system.message_id)
        assert known == system.message_id
        open_ = [id_ for at, id_ in seen.stored.items() if at < offset and at not in seen.asked]
        if open_:
            resets, letters = seen.resets, await self._letters()
            assert resets != seen.resets or letters.issuperset(open_), f"{said} came before {open_} were settled"

    async def _letters(self) -> set[str]:
        return set(ids(await self._surely(self.broker.dead_letters)))

    async def _surely(self, call: Callable[[], Awaitable[A]]) -> A:
        """The broker is started again soon."""
        while True:
            if self.broker.shard.doors is not None:
                with contextlib.suppress(BrokerDown):
                    return await call()
            await asyncio.sleep(0.05)

    def _pick(self, which: int) -> tuple[str, int, str] | None:
        if not self.held:
            return None
        (group, offset), held = list(self.held.items())[which % len(self.held)]
        return group, offset, held

    async def ack(self, which: int) -> None:
        await self._settle(which, self._ack)

    async def _ack(self, held: str) -> int:
        return (await self.broker.ack_all(held)).status.code

    async def forward(self, which: int) -> None:
        await self._settle(which, self.broker.forward)

    async def _settle(self, which: int, settle: Callable[[str], Awaitable[int]]) -> None:
        picked = self._pick(which)
        if picked is None:
            return
        group, offset, held = picked
        seen = self._of(group)
        resets = seen.resets
        seen.asked.add(offset)
        code = await settle(held)
        assert code in (Code.OK, Code.INVALID_RECEIPT_HANDLE)
        if code == Code.OK and resets == seen.resets:
            seen.settled.add(offset)
        if self.held.get((group, offset)) == held:
            del self.held[group, offset]

    async def nack(self, which: int, *, suspend: bool = False) -> None:
        picked = self._pick(which)
        if picked is None:
            return
        group, offset, held = picked
        answer = await self.broker.change(held, which % 3, suspend=suspend)
        if answer.status.code == Code.OK and self.held.get((group, offset)) == held:
            self.held[group, offset] = answer.receipt_handle

    async def suspend(self, which: int) -> None:
        await self.nack(which, suspend=True)

    async def leave(self, which: int) -> None:
        await self.broker.leave(MEMBERS[which % 2])
        if self.push:
            await asyncio.sleep(0.1)
            self.connect()

    def connect(self) -> None:
        for member in MEMBERS:
            self.broker.connect(member)

    async def reset(self, which: int) -> None:
        """To the first message of a queue. What was held is not any more; what is settled may be."""
        queue = which % QUEUES
        self._forget()
        try:
            assert await self.broker.set_offset(0, queue) == Code.OK
        finally:
            self._forget()

    def _forget(self) -> None:
        for seen in self.seen.values():
            seen.resets += 1
            seen.last = -1
            seen.settled.clear()

    async def again(self, what: str) -> None:
        """The broker goes, in the middle of everything, and comes back."""
        if what == "restart":
            await self.broker.shard.stop()
        elif what == "crash":
            self.broker.shard.kill()
        else:
            self.broker.shard.cut_power()
        await self.broker.shard.start()
        if self.push:
            self.connect()

    def _of(self, group: str) -> Seen:
        return self.seen.setdefault(group, Seen())

    async def drain(self) -> None:
        """Everything that is there is settled, and then there is nothing any more."""
        quiet = 0
        while quiet < 3 * QUEUES:
            fields: dict[str, Any] = {"batch_size": 32, "wait_s": INVISIBLE_S * 4, "invisible_s": INVISIBLE_S * 10}
            if self.push:
                fields.update(queue=quiet % QUEUES, auto_renew=True)
            member = MEMBERS[0]
            received = await self.broker.receive(client=member, **fields)
            for one in received:
                await self._delivered(one)
                self._of(one.system_properties.message_group).asked.add(one.system_properties.queue_offset)
            if received:
                assert await self.broker.ack(*received) == Code.OK
            quiet = 0 if received else quiet + 1

    async def check_nothing_is_lost(self) -> None:
        letters = await self._letters()
        for seen in self.seen.values():
            lost = [id_ for at, id_ in seen.stored.items() if at not in seen.asked and id_ not in letters]
            assert not lost, f"nobody was asked to settle {lost}, and they are not there any more"
        for progress in self.broker.core.state.progress.values():
            assert not progress.pending


async def play(steps: list[Step], *, push: bool, max_pending: int) -> None:
    broker = Broker(max_pending_messages=max_pending, client_stream_grace_s=1, segment_bytes=64 * 1024)
    broker.shard.max_sync_s = 0.03
    await broker.shard.start()
    await broker.put_topic("orders", QUEUES, type=definition_pb2.FIFO)
    await broker.put_group("team", order=record_pb2.ORDER_FIFO, max_attempts=MAX_ATTEMPTS)
    game = Play(broker, push=push)
    if push:
        game.connect()
    tasks: list[asyncio.Task[None]] = []
    for what, which, wait_s in steps:
        if what in ("crash", "cut", "restart"):
            await game.again(what)
        else:
            tasks.append(asyncio.ensure_future(game.step(what, which)))
        await asyncio.sleep(wait_s)
    await asyncio.gather(*tasks)
    if push:
        await broker.leave(MEMBERS[1])
    await asyncio.sleep(MAX_ATTEMPTS * INVISIBLE_S)
    await game.drain()
    await game.check_nothing_is_lost()


STEP = st.tuples(st.sampled_from(WEIGHED), st.integers(0, 11), st.sampled_from((0.0, 0.0, 0.005, 0.05, 0.5, 2.5)))


@pytest.mark.parametrize("push", [False, True])
@settings(max_examples=50, deadline=None)
@given(steps=st.lists(STEP, min_size=10, max_size=120), max_pending=st.sampled_from((2, 5, 65536)))
def test_message_groups_keep_their_order_and_lose_nothing(steps: list[Step], max_pending: int, *, push: bool) -> None:
    async def run() -> None:
        await play(steps, push=push, max_pending=max_pending)
        # Now: later, what is left of killed processes has no loop to run on, and says so.
        assert not [entry for entry in logs if entry["log_level"] in ("error", "critical")]

    with structlog.testing.capture_logs() as logs:
        simulate(run())
