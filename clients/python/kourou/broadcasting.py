"""Every member of the group receives every message; how far it got is kept on its own side."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kourou.backoff import Exponential
from kourou.client import Client
from kourou.errors import KourouError, ServerError
from kourou.filters import Filter
from kourou.listening import Listening
from kourou.offsets import OFFSETS_FOLDER, OffsetFile
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.pulling import Pull, end_offset, first_offset, pull
from kourou.received import ReceivedMessage
from kourou.route import Queue

_log = logging.getLogger(__name__)

ROUTE_CHECK_INTERVAL_S = 5.0
WRITE_INTERVAL_S = 1.0
_AGAIN = Exponential(initial_s=0.1, max_s=5.0)


@dataclass(frozen=True, slots=True)
class Broadcasting:
    """How a broadcasting consumer keeps its progress."""

    offsets_path: Path | None = None
    """Of this member alone; ~/.kourou/offsets/<group>.json when left out, with a namespace in a folder of its own."""
    start: Literal["end", "first"] = "end"
    """Where a member without progress begins: with what is sent from now on, or with the oldest message kept."""


class BroadcastQueues:
    """All queues of the topics, each pulled on its own. A batch of a queue is heard before its next one is pulled; a
    message that the listener fails on is logged and not repeated, as there is no lease to give back."""

    def __init__(
        self,
        client: Client,
        group: str,
        subscriptions: Mapping[str, Filter],
        listening: Listening,
        options: Broadcasting,
    ) -> None:
        self._client = client
        self._group = group
        self._subscriptions = subscriptions
        self._listening = listening
        self._start_at = options.start
        path = options.offsets_path or OFFSETS_FOLDER / client.namespace / f"{group}.json"
        self._offsets = OffsetFile(path.expanduser())
        # One thread: what a cancelled keeper is still writing comes before the last write.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="kourou offsets")
        self._pulls: dict[Queue, asyncio.Task[None]] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._hearing: set[Queue] = set()
        self._stopping = False

    async def start(self) -> None:
        """Raises what stands in the way now, such as TopicNotFound; later troubles are logged and overcome."""
        for topic in self._subscriptions:
            await self._client.session.settled((await self._client.routes.get(topic)).addresses)
            self._client.session.check_accepted()
            if not self._offsets.knows_topic(topic):
                await self._set_start(topic)
            await self._follow(topic)
        self._keepers = [asyncio.create_task(self._keep(topic)) for topic in self._subscriptions]
        self._keepers.append(asyncio.create_task(self._keep_writing()))

    async def stop(self) -> None:
        """Ends the pulls, but for those whose messages are with the listener: they note how far it gets."""
        self._stopping = True
        idle = [pull for queue, pull in self._pulls.items() if queue not in self._hearing]
        for task in [*self._keepers, *idle]:
            task.cancel()
        await asyncio.gather(*self._keepers, *idle, return_exceptions=True)

    async def close(self) -> None:
        """When the listener has ended: the progress is written."""
        await asyncio.gather(*self._pulls.values(), return_exceptions=True)
        await asyncio.get_running_loop().run_in_executor(self._writer, self._offsets.close)
        self._writer.shutdown(wait=False)

    async def _set_start(self, topic: str) -> None:
        """Once for a topic: a queue that comes later is new, and begins with its first message."""
        find = end_offset if self._start_at == "end" else first_offset
        for queue in (await self._client.routes.get(topic)).readable:
            self._offsets.set(queue, await find(self._client.wire, queue))

    async def _keep(self, topic: str) -> None:
        while True:
            await asyncio.sleep(ROUTE_CHECK_INTERVAL_S)
            try:
                await self._follow(topic)
            except KourouError as error:
                _log.warning("the queues of %s stay as they were: %s", topic, error)
            except Exception:
                _log.exception("the queues of %s stay as they were", topic)

    async def _follow(self, topic: str) -> None:
        queues = set((await self._client.routes.get(topic)).readable)
        gone = [queue for queue in self._pulls if queue.topic == topic and queue not in queues]
        # Unlike a lease, a pull that is cancelled loses nothing. One whose messages are with the listener has to note
        # how far it gets; it ends another time.
        for queue in set(gone) - self._hearing:
            self._pulls.pop(queue).cancel()
        for queue in queues - self._pulls.keys():
            self._pulls[queue] = asyncio.create_task(self._pull(queue), name=f"kourou pull {queue}")

    async def _keep_writing(self) -> None:
        while True:
            await asyncio.sleep(WRITE_INTERVAL_S)
            text = self._offsets.take_changes()
            if text is not None:
                try:
                    await asyncio.get_running_loop().run_in_executor(self._writer, self._offsets.write, text)
                except OSError as error:
                    _log.warning("the progress is not written, and will be tried again: %s", error)

    async def _pull(self, queue: Queue) -> None:
        failures = 0
        while not self._stopping:
            await self._listening.cache.wait()
            try:
                await self._pull_once(queue)
                failures = 0
            except KourouError as error:
                failures += 1
                _log.log(logging.WARNING if failures == 3 else logging.DEBUG, "pulling %s failed: %s", queue, error)
                self._client.routes.pull_soon(queue.topic)
                await asyncio.sleep(_AGAIN.jittered_s(failures))
            except Exception:
                failures += 1
                _log.exception("pulling %s failed; it is tried again", queue)
                await asyncio.sleep(_AGAIN.jittered_s(failures))

    async def _pull_once(self, queue: Queue) -> None:
        offset = self._offsets.get(queue)
        if offset is None:
            offset = await first_offset(self._client.wire, queue)
        try:
            messages, next_offset = await self._ask(queue, offset)
        except ServerError as error:
            if error.code not in (v2.ILLEGAL_OFFSET, v2.OFFSET_NOT_FOUND):
                raise
            first = await first_offset(self._client.wire, queue)
            _log.warning("%s has no offset %d any more; going on at %d", queue, offset, first)
            self._offsets.set(queue, first)
            return
        unheard = await self._hear(queue, messages)
        self._offsets.set(queue, next_offset if unheard is None else unheard.offset)

    async def _hear(self, queue: Queue, messages: list[ReceivedMessage]) -> ReceivedMessage | None:
        """Returns when the listener is done with all, or is stopped: the first message that it did not get."""
        if not messages:
            return None
        self._hearing.add(queue)
        size_bytes = sum(message.size_bytes for message in messages)
        self._listening.cache.take(len(messages), size_bytes)
        portions = self._listening.portions(messages)
        heard = [self._listening.hear(portion) for portion in portions]
        try:
            await asyncio.wait(heard)
        finally:
            self._hearing.discard(queue)
            self._listening.cache.release(len(messages), size_bytes)
        return next((portion[0] for portion, done in zip(portions, heard, strict=True) if done.cancelled()), None)

    async def _ask(self, queue: Queue, offset: int) -> tuple[list[ReceivedMessage], int]:
        prescribed = self._client.session.broker_settings
        wanted = self._subscriptions[queue.topic]
        wait_s = prescribed.long_polling_timeout_s
        asked = Pull(self._group, queue, wanted, offset, prescribed.receive_batch_size, wait_s)
        return await pull(self._client.wire, asked)
