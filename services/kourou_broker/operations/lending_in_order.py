"""Lending to a group that keeps order: of each message group one message at a time, the oldest that is not settled.

A fresh message that has to wait is held back: it becomes pending under a lease that nobody has. So the reader comes to
those behind it, and what is held back is bounded as all that is pending.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice

from kourou_broker.operations.due_leases import DueLeases
from kourou_broker.operations.lending import Context, Lending
from kourou_broker.operations.message_order import MessageOrder, message_group
from kourou_broker.operations.poll import Batch, Poll
from kourou_broker.operations.section_reader import StoredMessage
from kourou_broker.state import Fate, records
from kourou_broker.state.definitions import Group, Queue, Topic
from kourou_broker.state.records import Lease

_MOST_AT_ONCE = 128
"""Messages that are parsed before the loop gets its turn."""


class LendingInOrder(Lending):
    def __init__(
        self, context: Context, group: Group, topic: Topic, due: DueLeases, look_again: Callable[[], None]
    ) -> None:
        super().__init__(context, group, topic, due, look_again)
        self._orders: dict[int, MessageOrder] = {}
        """By queue; a queue whose offset was set begins with a new one."""

    async def take(self, queue: Queue, poll: Poll, batch: Batch) -> None:
        order = self._order(queue)
        if not order.durable:
            return
        if order.unread:
            await self._read_pending(queue, order)
        for take in (self._take_due, self._take_turns, self._take_fresh):
            if not batch.full and not poll.answer.done():
                await take(queue, poll, batch)

    def settled(self, queue: int, offsets: Sequence[int]) -> None:
        order = self._orders.get(queue)
        if order is not None:
            order.settled(offsets)
            if order.turn:
                self._look_again()

    def offsets_set(self) -> None:
        self._orders.clear()

    def holds_back(self, queue: int, offset: int, lease: Lease) -> bool:
        order = self._orders.get(queue)
        return lease.holds_back and not (order is not None and offset in order.turn)

    def oldest_of_message_group(self, queue: int, offset: int) -> int | None:
        order = self._orders.get(queue)
        return None if order is None else order.oldest(offset)

    def _order(self, queue: Queue) -> MessageOrder:
        order = self._orders.get(queue.id)
        if order is None:
            progress = self.progress(queue)
            order = self._orders[queue.id] = MessageOrder(progress.pending if progress is not None else ())
            if self._context.journal.all_durable:
                order.durable = True
            else:
                self._context.journal.when_durable(partial(self._known, order))
        return order

    def _known(self, order: MessageOrder) -> None:
        """The disk knows what was settled before this order began."""
        order.durable = True
        self._look_again()

    async def _read_pending(self, queue: Queue, order: MessageOrder) -> None:
        """Learns the message groups of what is pending since before."""
        progress = self.progress(queue)
        number = 0
        async for offset, message in self._context.reader.messages(queue, list(order.unread)):
            number += 1
            if number % _MOST_AT_ONCE == 0:
                await asyncio.sleep(0)
            if progress is None or offset not in order.unread:
                continue  # it was settled meanwhile
            del order.unread[offset]
            if message is None:
                self._context.journal.settle(progress, [offset], Fate.EXPIRED)
            else:
                lease = progress.pending.get(offset)
                order.enter(offset, message_group(message), held_back=lease is not None and lease.holds_back)

    def _lendable(self, queue: Queue, offsets: list[int]) -> list[int]:
        order = self._orders.get(queue.id)
        return [offset for offset in offsets if order.may_be_lent(offset)] if order is not None else []

    async def _take_turns(self, queue: Queue, poll: Poll, batch: Batch) -> None:
        """Messages that were held back and whose turn has come."""
        order, progress = self._orders.get(queue.id), self.progress(queue)
        while order is not None and progress is not None and order.turn and not batch.full and not poll.answer.done():
            found, gone = await self._read_turns(queue, order, batch)
            if self._orders.get(queue.id) is not order:
                return  # the offset was set
            if gone:
                self._context.journal.settle(progress, gone, Fate.EXPIRED)
                order.lent(gone)
            if found and not poll.answer.done():
                order.lent(message.offset for message in found)
                batch.add(self._lend(queue, poll, found, 1, progress.high))

    async def _read_turns(
        self, queue: Queue, order: MessageOrder, batch: Batch
    ) -> tuple[list[StoredMessage], list[int]]:
        """-> as many messages as the batch has room for, and the offsets of those that are not there any more."""
        found: list[StoredMessage] = []
        gone: list[int] = []
        room_bytes = batch.room_bytes
        async for offset, message in self._context.reader.messages(queue, sorted(islice(order.turn, batch.room))):
            if message is None:
                gone.append(offset)
                continue
            found.append(message)
            room_bytes -= len(message.head)
            if room_bytes <= 0:
                break
        return found, gone

    async def _take_fresh(self, queue: Queue, poll: Poll, batch: Batch) -> None:
        """Looks ahead until the batch is full: messages of few message groups may stand before all others."""
        most, looked = batch.room, 0
        while True:
            order, progress = self._orders.get(queue.id), self.progress(queue)
            start = progress.high if progress is not None else queue.first_offset
            room = self._context.max_pending - (len(progress.pending) if progress is not None else 0)
            if order is None or start >= queue.next_offset or room <= 0:
                return
            taken, offset = await self._fresh.read(
                queue, start, poll.filter, min(most, room), batch.room_bytes, lambda: poll.in_haste
            )
            progress = self.progress(queue)
            if poll.answer.done() and taken:
                taken, offset = [], taken[0].offset  # what the filter left out need not be read again
            if self._orders.get(queue.id) is not order or start != (
                progress.high if progress is not None else queue.first_offset
            ):
                self._look_again()
                return
            if offset == start:
                return
            self._lend_or_hold_back(queue, order, poll, batch, taken, start, offset)
            if batch.full or poll.in_haste:
                return
            looked += most
            most = min(2 * most, _MOST_AT_ONCE)
            if looked >= _MOST_AT_ONCE:
                if batch.deliveries:
                    return  # some now are better than more later
                looked = 0
                await asyncio.sleep(0)

    def _lend_or_hold_back(
        self,
        queue: Queue,
        order: MessageOrder,
        poll: Poll,
        batch: Batch,
        taken: list[StoredMessage],
        start: int,
        high: int,
    ) -> None:
        """Takes in the fresh messages from start on; there is none other below high."""
        free: list[StoredMessage] = []
        waiting: list[int] = []
        for message in taken:
            group = message_group(message)
            blocked = order.blocks(group)
            if blocked:
                waiting.append(message.offset)
            elif len(free) < batch.room:
                free.append(message)
            else:
                high = message.offset
                break
            order.enter(message.offset, group, held_back=blocked)
        lease = self._lease(poll, free, 1)
        if not waiting:
            batch.add(self.grant(queue, lease, free, high))
            return
        key = (self._group.id, self._topic.id, queue.id)
        # One frame has both: of two, the second may be lost, and with it messages. The first leaves high where it is.
        lent = (records.lease(*key, start, lease),) if free else ()
        self._context.journal.note(*lent, records.lease(*key, high, records.holding_back(waiting)))
        batch.add(self._granted(queue, lease, free))
