"""`kourou receive`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from json import dumps
from typing import IO, Annotated

import typer

from kourou.cli.digest import LinesDigest
from kourou.cli.errors import CommandError
from kourou.cli.interrupt import INTERRUPTED, interruptible
from kourou.cli.message_rows import message_row
from kourou.cli.meter import Meter, say_digest
from kourou.cli.options import Namesrv, TopicName, resource
from kourou.cli.root import warn
from kourou.client import DEFAULT_NAMESRV
from kourou.errors import (
    AccessDenied,
    CorruptMessage,
    InvalidArgument,
    InvalidRequest,
    KourouError,
    NotFound,
    PartialFailure,
    Unsupported,
)
from kourou.filters import Sql
from kourou.received import ReceivedMessage
from kourou.simple_consumer import AsyncSimpleConsumer

_BATCH_COUNT = 32
# Several, so that the broker can answer and settle many batches in one write to its disk.
_RECEIVERS = 16
# Long enough for writing a batch; what a killed command had in its hands comes again after it.
_INVISIBLE_S = 60.0
_RETRY_S = 1.0
# For one poll: so long may the end be late.
_WAIT_S = 1.0
_HOPELESS = (NotFound, InvalidRequest, InvalidArgument, AccessDenied, Unsupported)


def receive(
    topic: TopicName,
    group: Annotated[
        str, typer.Option(help="The consumer group: it gets each message once. It is of the topic's namespace.")
    ],
    count: Annotated[int | None, typer.Option(min=1, help="Stop after so many messages.")] = None,
    idle_s: Annotated[float | None, typer.Option(min=0.1, help="Stop after so many seconds without one.")] = None,
    output: Annotated[str, typer.Option(metavar="FILE|-", help="Where the bodies go, one a line; -: stdout.")] = "-",
    tag: Annotated[str, typer.Option(metavar="EXPR", help="Only these tags: 'a || b', * for all.")] = "*",
    sql: Annotated[
        str | None,
        typer.Option(metavar="EXPR", help="Only messages with such properties: \"price > 5 AND TAGS = 'a'\"."),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Write each message as a line of JSON, with all that is known of it.")
    ] = False,
    namesrv: Namesrv = DEFAULT_NAMESRV,
) -> None:
    """Receive and acknowledge messages, and write each body as one line, byte for byte; with --json the whole message.

    Stops at --count, after --idle-s, or with Ctrl-C. A message is acknowledged once it is written.
    """
    if sql is not None and tag != "*":
        raise typer.BadParameter("give either --tag or --sql: in SQL the tag is the property TAGS")
    wanted = tag if sql is None else Sql(sql)
    named, group_named = resource(topic), resource(group)
    if group_named.resource_namespace not in ("", named.resource_namespace):
        raise typer.BadParameter("the group and the topic have to be of one namespace")
    with ExitStack() as stack:
        if output == "-" and sys.__stdout__ is None:
            raise CommandError("standard output is closed; --output FILE writes a file")
        sink = sys.stdout.buffer if output == "-" else stack.enter_context(open(output, "wb"))
        collection = Collection(sink, count, idle_s, _as_json if json else _as_body)
        new_consumer = partial(
            AsyncSimpleConsumer,
            group_named.name,
            {named.name: wanted},
            namesrv,
            namespace=named.resource_namespace,
        )
        raise typer.Exit(asyncio.run(collection.run(new_consumer)))


class Collection:
    """What is received: several receivers fill one sink until the end, which a count, silence or Ctrl-C brings."""

    def __init__(
        self, sink: IO[bytes], count: int | None, idle_s: float | None, line_of: Callable[[ReceivedMessage], bytes]
    ) -> None:
        self._sink, self._count, self._idle_s, self._line_of = sink, count, idle_s, line_of
        # Asked for or here already: so that none is taken away from others that is not wanted.
        self._claimed = 0
        self._digest = LinesDigest()
        self._last_s = 0.0
        self._connected = False
        self._unacked = self._with_newline = 0

    async def run(self, new_consumer: Callable[[], AsyncSimpleConsumer]) -> int:
        """The exit code. Raises KourouError, after the summary, when receiving failed."""
        loop, end = asyncio.get_running_loop(), asyncio.Event()
        with interruptible() as stop, Meter("received", self._count) as meter:
            async with new_consumer() as consumer:
                self._last_s = loop.time()
                watch = asyncio.create_task(self._watch(stop, end))
                receivers = [asyncio.create_task(self._receive(consumer, meter, end)) for _ in range(_RECEIVERS)]
                await asyncio.wait(receivers, return_when=asyncio.FIRST_EXCEPTION)
                end.set()
                watch.cancel()
                results = await asyncio.gather(*receivers, return_exceptions=True)
            silence_s = loop.time() - self._last_s if self._idle_s is not None else 0.0
        failure = next((result for result in results if result is not None), None)
        if meter.count or failure is None:
            self._summarize(meter, silence_s)
        if failure is not None:
            raise failure
        return INTERRUPTED if stop.is_set() else 0

    async def _watch(self, stop: asyncio.Event, end: asyncio.Event) -> None:
        """Sets `end` when the user stops it, or nothing came for the idle time."""
        loop = asyncio.get_running_loop()
        while not stop.is_set():
            left_s = None if self._idle_s is None else self._last_s + self._idle_s - loop.time()
            if left_s is not None and left_s <= 0:
                break
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await stop.wait()
        end.set()

    async def _receive(self, consumer: AsyncSimpleConsumer, meter: Meter, end: asyncio.Event) -> None:
        while not end.is_set() and (wanted := self._claim()):
            messages: list[ReceivedMessage] = []
            try:
                # Never cancelled, since what such a poll was just given would be away for its invisible time.
                messages = await consumer.receive(wanted, invisible_duration_s=_INVISIBLE_S, wait_s=_WAIT_S)
                self._connected = True
            except KourouError as error:
                # A broker that restarts must not end a long transfer; what cannot get better does.
                if isinstance(error, _HOPELESS) or not self._connected:
                    raise
                await asyncio.sleep(_RETRY_S)
            finally:
                self._claimed -= wanted - len(messages)
            unpacked = [message for message in messages if _is_whole(message)]
            self._claimed -= len(messages) - len(unpacked)
            if unpacked:
                await self._take(consumer, meter, unpacked)

    def _claim(self) -> int:
        wanted = _BATCH_COUNT if self._count is None else min(_BATCH_COUNT, self._count - self._claimed)
        self._claimed += wanted
        return wanted

    async def _take(self, consumer: AsyncSimpleConsumer, meter: Meter, messages: list[ReceivedMessage]) -> None:
        """Write first, then acknowledge: what is lost in between comes again."""
        lines = [self._line_of(message) for message in messages]
        self._sink.write(b"".join(line + b"\n" for line in lines))
        self._sink.flush()
        for message in messages:
            self._digest.add(message.body)
        self._with_newline += sum(b"\n" in line for line in lines)
        self._last_s = asyncio.get_running_loop().time()
        meter.moved(len(lines), meter.count + len(lines))
        try:
            await consumer.ack(messages)
        except PartialFailure as error:
            self._unacked += sum(isinstance(outcome, KourouError) for outcome in error.outcomes)
        except KourouError:
            self._unacked += len(messages)

    def _summarize(self, meter: Meter, silence_s: float) -> None:
        moving_s, rate = meter.elapsed_s() - silence_s, meter.rate(silence_s)
        print(f"received {meter.count:,} messages in {moving_s:.1f} s ({rate:,.0f}/s)", file=sys.stderr)
        if self._with_newline:
            warn(f"{self._with_newline:,} bodies contain a newline: the output has more lines than there are messages")
        if self._unacked:
            warn(f"{self._unacked:,} messages could not be acknowledged and will come again")
        say_digest(self._digest.hexdigest())


def _as_body(message: ReceivedMessage) -> bytes:
    return message.body


def _as_json(message: ReceivedMessage) -> bytes:
    return dumps({**message_row(message), "attempt": message.attempt}, ensure_ascii=False).encode()


def _is_whole(message: ReceivedMessage) -> bool:
    """One that cannot be unpacked is not acknowledged, and so ends in the dead-letter topic of the group."""
    try:
        _ = message.body
    except CorruptMessage as error:
        warn(f"{error}; it is left out, and goes to the dead-letter topic after its last attempt")
        return False
    return True
