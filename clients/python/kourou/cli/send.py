"""`kourou send`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated

import typer

from kourou.cli.digest import LinesDigest
from kourou.cli.durations import DURATION_HELP, duration
from kourou.cli.errors import CommandError
from kourou.cli.interrupt import INTERRUPTED, interruptible
from kourou.cli.lines import Lines
from kourou.cli.meter import Meter, say_digest
from kourou.cli.options import Namesrv, TopicName, resource
from kourou.cli.times import TIME_HELP, timestamp
from kourou.client import DEFAULT_NAMESRV
from kourou.errors import KourouError, PartialFailure
from kourou.message import Message
from kourou.producer import AsyncProducer

# Enough at one time to keep every broker busy; the producer packs them into requests.
_BATCH_COUNT = 256
_BATCH_BYTES = 1024 * 1024
_BATCHES_IN_FLIGHT = 8
# Over all tries, once something was sent. Longer than a program would wait: a broker that restarts should not end a
# long transfer.
_SEND_TIMEOUT_S = 30.0

_FURTHEST_S = 100 * 366 * 86_400
"""No broker holds a message for so long, and datetime can still add it."""
Due = Callable[[], datetime]


def send(
    topic: TopicName,
    text: Annotated[str | None, typer.Argument(metavar="[TEXT]", help="The body of one message.")] = None,
    lines: Annotated[
        str | None, typer.Option("--lines", metavar="FILE|-", help="Send each line of FILE (-: stdin) as a message.")
    ] = None,
    tag: Annotated[str | None, typer.Option(help="By which consumers may filter.")] = None,
    key: Annotated[list[str] | None, typer.Option(help="By which it can be found (repeatable).")] = None,
    prop: Annotated[list[str] | None, typer.Option("--property", metavar="K=V", help="Repeatable.")] = None,
    group: Annotated[str | None, typer.Option(help="The producer group to send as.")] = None,
    message_group: Annotated[
        str | None, typer.Option(metavar="NAME", help="To a fifo topic: delivered in order with the others of NAME.")
    ] = None,
    priority: Annotated[int | None, typer.Option(min=0, help="To a priority topic: higher ones come first.")] = None,
    lite_topic: Annotated[
        str | None, typer.Option(metavar="NAME", help="To a lite topic inside a topic of type lite.")
    ] = None,
    delay: Annotated[
        str | None, typer.Option(metavar="TIME", help=f"To a delay topic: delivered after so long; {DURATION_HELP}.")
    ] = None,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help=f"To a delay topic: delivered at that time. {TIME_HELP}")
    ] = None,
    namesrv: Namesrv = DEFAULT_NAMESRV,
) -> None:
    """Send one message, or every line of a file.

    Lines are sent as they are, without their newline; empty ones are no legal messages and are left out.
    """
    if (text is None) == (lines is None):
        raise typer.BadParameter("give either TEXT or --lines")
    named = resource(topic)
    template = Template(named.name, tag, key or [], prop or [], message_group, priority, lite_topic, _due(delay, at))
    new_producer = partial(AsyncProducer, namesrv, group=group, namespace=named.resource_namespace)
    if text is not None:
        asyncio.run(_send_one(new_producer, template.message(text.encode(errors="surrogateescape"))))
    elif lines is not None:
        raise typer.Exit(asyncio.run(Transfer(new_producer, template, Lines(lines)).run()))


def _due(delay: str | None, at: str | None) -> Due | None:
    """When each message is to be delivered, from the moment it is sent."""
    if delay is not None and at is not None:
        raise typer.BadParameter("give at most one of --delay and --at")
    if at is not None:
        time = timestamp(at).ToDatetime(UTC)
        return lambda: time
    if delay is not None:
        seconds = duration(delay).ToMilliseconds() / 1000
        if seconds > _FURTHEST_S:
            raise CommandError(f"a delay of {delay} is out of range")
        return lambda: datetime.now(UTC) + timedelta(seconds=seconds)
    return None


class Template:
    """What all messages of one command have in common."""

    def __init__(
        self,
        topic: str,
        tag: str | None,
        keys: Sequence[str],
        properties: Sequence[str],
        message_group: str | None = None,
        priority: int | None = None,
        lite_topic: str | None = None,
        due: Due | None = None,
    ) -> None:
        self._topic, self._tag, self._keys = topic, tag, tuple(keys)
        self._due = due
        self._message_group, self._priority, self._lite_topic = message_group, priority, lite_topic
        pairs = [pair.partition("=") for pair in properties]
        if any(not separator or not name for name, separator, _ in pairs):
            raise typer.BadParameter("a property is given as name=value")
        self._properties = {name: value for name, _, value in pairs}

    def message(self, body: bytes) -> Message:
        """Raises KourouError when no broker would take it."""
        return Message(
            self._topic,
            body,
            tag=self._tag,
            keys=self._keys,
            properties=self._properties,
            message_group=self._message_group,
            priority=self._priority,
            lite_topic=self._lite_topic,
            delivery_time=self._due() if self._due is not None else None,
        )

    @property
    def keeps_order(self) -> bool:
        """One batch has to be stored before the next one is sent."""
        return self._message_group is not None or self._lite_topic is not None


async def _send_one(new_producer: Callable[[], AsyncProducer], message: Message) -> None:
    async with new_producer() as producer:
        result = await producer.send(message)
    place = f", queue {result.queue_id}, offset {result.offset}" if result.queue_id >= 0 else ""
    offset_id = f", offset id {result.offset_message_id}" if result.offset_message_id else ""
    recall = f", recall handle {result.recall_handle}" if result.recall_handle else ""
    print(f"sent to {result.broker}{place}: id {result.message_id}{offset_id}{recall}")


class Transfer:
    """All lines of a source, in batches, several of them under way at one time."""

    def __init__(self, new_producer: Callable[[], AsyncProducer], template: Template, lines: Lines) -> None:
        self._new_producer, self._template, self._lines = new_producer, template, lines
        self._digest = LinesDigest()
        self._failure: KourouError | None = None
        self._failed = 0
        self._under_way: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        """The exit code. Raises, after the summary, what kept it from sending all."""
        with interruptible() as stop, Meter("sent", self._lines.total_bytes) as meter:
            async with self._new_producer() as producer:
                failure = await self._send_all(producer, meter, stop)
        if meter.count or failure is None:
            self._summarize(meter)
        if failure is not None:
            raise failure
        return INTERRUPTED if stop.is_set() else 0

    async def _send_all(self, producer: AsyncProducer, meter: Meter, stop: asyncio.Event) -> BaseException | None:
        """What ended it before the end of the source, if not the user."""
        reading = asyncio.create_task(self._read(producer, meter))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait((reading, stopping), return_when=asyncio.FIRST_COMPLETED)
        for task in (reading, stopping):
            task.cancel()
        await asyncio.wait((reading, stopping))
        # What is under way ends, also after Ctrl-C: the summary says exactly what was sent.
        await asyncio.gather(*self._under_way)
        if self._failure is not None:
            return CommandError(f"{self._failed:,} messages of those begun were not sent: {self._failure}")
        return None if reading.cancelled() else reading.exception()

    async def _read(self, producer: AsyncProducer, meter: Meter) -> None:
        room = asyncio.Semaphore(1 if self._template.keeps_order else _BATCHES_IN_FLIGHT)
        async for block in self._lines.blocks():
            for batch in _batches(block):
                await room.acquire()
                if self._failure is not None:
                    return
                task = asyncio.create_task(self._send_batch(producer, meter, batch))
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)
                task.add_done_callback(lambda _: room.release())

    async def _send_batch(self, producer: AsyncProducer, meter: Meter, batch: list[bytes]) -> None:
        failed = 0
        try:
            messages = [self._template.message(line) for line in batch]
            await producer.send_many(messages, timeout_s=_SEND_TIMEOUT_S if meter.count else None)
            sent = batch
        except PartialFailure as error:
            pairs = zip(batch, error.outcomes, strict=True)
            sent = [line for line, outcome in pairs if not isinstance(outcome, KourouError)]
            failed, self._failure = len(batch) - len(sent), error
        except KourouError as error:
            sent, failed, self._failure = [], len(batch), error
        self._failed += failed
        for line in sent:
            self._digest.add(line)
        meter.moved(len(sent), self._lines.read_bytes)

    def _summarize(self, meter: Meter) -> None:
        print(f"sent {meter.count:,} messages in {meter.elapsed_s():.1f} s ({meter.rate():,.0f}/s)", file=sys.stderr)
        if self._lines.empty:
            print(f"left out {self._lines.empty:,} empty lines: no legal messages", file=sys.stderr)
        say_digest(self._digest.hexdigest())


def _batches(lines: list[bytes]) -> list[list[bytes]]:
    batches: list[list[bytes]] = []
    size_bytes = 0
    for line in lines:
        if not batches or len(batches[-1]) == _BATCH_COUNT or size_bytes + len(line) > _BATCH_BYTES:
            batches.append([])
            size_bytes = 0
        batches[-1].append(line)
        size_bytes += len(line)
    return batches
