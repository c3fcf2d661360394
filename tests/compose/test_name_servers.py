"""NameServers stop, restart and are added: clients and brokers need no help, and nobody is given half a route."""

import asyncio
import json
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from kourou import AsyncProducer, Message, TopicNotFound
from kourou.errors import KourouError
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.routing.v1 import routing_pb2, routing_rpc
from kourou.route import endpoints_of
from tests.cluster.load import Load
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually
from tests.compose.container import Container
from tests.compose.stack import BROKERS, NAMESRVS, Stack

PROGRAMS = Path(__file__).with_name("programs")
QUEUES = 4
WHOLE = QUEUES * len(BROKERS)
POLL_S = 0.02


async def test_clients_do_not_notice_that_one_stops(stack: Stack, operator: Operator, name: str) -> None:
    load = await _load(operator, stack, name)
    async with load.running():
        await load.progressed(300)
        await asyncio.to_thread(stack.container("namesrv-a").stop)
        await load.progressed(500)
        # Who begins now finds the other one.
        async with AsyncProducer(stack.namesrv) as late:
            await late.send(Message(name, b"late"))
        await asyncio.to_thread(stack.container("namesrv-a").start)
        await load.progressed(100)
        await load.finish(operator)
    load.check()
    assert not load.errors


async def test_all_restart_under_load_and_give_no_half_route(stack: Stack, operator: Operator, name: str) -> None:
    """They come back while one of the brokers hangs: they wait for it, since its peer names it."""
    load = await _load(operator, stack, name)
    await eventually(lambda: _know_each_other(stack, operator), 45, what="brokers that know each other")
    broker = stack.container("broker-b")
    async with _watched(operator, stack, name) as seen, load.running():
        await load.progressed(300)
        await asyncio.gather(
            asyncio.to_thread(broker.pause),
            *(asyncio.to_thread(stack.container(namesrv).stop) for namesrv in NAMESRVS),
        )
        await asyncio.gather(*(asyncio.to_thread(stack.container(namesrv).start) for namesrv in NAMESRVS))
        # They listen, and have nothing to say yet.
        for namesrv in stack.namesrv.split(","):
            await eventually(lambda namesrv=namesrv: _waits_for(operator, namesrv, name, "broker-b"), 30)
        await asyncio.to_thread(broker.unpause)
        for namesrv in stack.namesrv.split(","):
            await eventually(lambda namesrv=namesrv: _has_all(operator, namesrv, name), 30, what="the whole route")
        await load.progressed(300)
        await load.finish(operator)
    load.check()
    assert not [error for error in load.errors if error.startswith("send")], load.errors
    assert set(seen) == {WHOLE}, f"routes of so many queues were given: {seen}"
    assert seen[WHOLE] > 100


async def test_more_are_found_without_a_restart(stack: Stack, operator: Operator, name: str) -> None:
    """By the brokers, by a client in the network that runs on, and by one that starts; then they go again."""
    before, after = f"{name}-before", f"{name}-after"
    await operator.create_topic(before)
    await operator.create_group(name)
    started = _starts(stack)
    sender = await asyncio.to_thread(stack.start_inside, PROGRAMS / "sender.py")
    try:
        await _send(sender, before)
        await asyncio.to_thread(stack.scale, "namesrv", 2)
        added = [container for container in stack.containers() if container.service == "namesrv"]
        assert len(added) == 2
        for container in added:
            await eventually(partial(_has_brokers, container), 20, what="the brokers at the new NameServer")
        await operator.create_topic(after)
        first = [stack.container(namesrv) for namesrv in NAMESRVS]
        for container in first:
            await asyncio.to_thread(container.stop)
        # Only the new ones can tell where that topic is.
        await _send(sender, after)
        exchange = PROGRAMS / "exchange.py"
        received = await asyncio.to_thread(stack.run_inside, exchange, after, name, "newcomer", "1", "2")
        assert json.loads(received.splitlines()[-1]) == ["found", "newcomer 0"]
        for container in first:
            await asyncio.to_thread(container.start)
    finally:
        await asyncio.to_thread(_end, sender)
    await asyncio.to_thread(stack.scale, "namesrv", 0)
    restarted = {service for service, start in _starts(stack).items() if start != started[service]}
    assert restarted == set(NAMESRVS)


async def _load(operator: Operator, stack: Stack, name: str) -> Load:
    await operator.create_topic(name, queues=QUEUES)
    await operator.create_group(name)
    return Load(stack.namesrv, name, name)


async def _know_each_other(stack: Stack, operator: Operator) -> bool:
    described = [await operator.describe(address) for address in stack.broker_addresses]
    return all(set(each.known_brokers) == set(BROKERS) for each in described)


async def _waits_for(operator: Operator, namesrv: str, topic: str, broker: str) -> bool:
    """Whether the NameServer answers, and says that it cannot tell of routes before that broker is there."""
    try:
        await operator.route(topic, namesrv)
    except KourouError as error:
        return f"waits for brokers: {broker}" in str(error)
    return False


async def _has_all(operator: Operator, namesrv: str, topic: str) -> bool:
    try:
        return len(await operator.route(topic, namesrv)) == WHOLE
    except KourouError:
        return False


@asynccontextmanager
async def _watched(operator: Operator, stack: Stack, topic: str) -> AsyncIterator[Counter[int]]:
    """Counts how many queues the NameServers answer, asked all the time in both ways; an error is no answer."""
    seen = Counter[int]()
    watches = [
        asyncio.create_task(_keep_asking(ask(operator, namesrv, topic), seen))
        for namesrv in stack.namesrv.split(",")
        for ask in (_Querying, _Watching)
    ]
    try:
        yield seen
    finally:
        for watch in watches:
            watch.cancel()
        ended = await asyncio.gather(*watches, return_exceptions=True)
    assert all(isinstance(each, asyncio.CancelledError) for each in ended), ended


class _Querying:
    def __init__(self, operator: Operator, namesrv: str, topic: str) -> None:
        self._operator, self._namesrv, self._topic = operator, namesrv, topic

    async def queues(self) -> int:
        """Raises KourouError."""
        return len(await self._operator.route(self._topic, self._namesrv))


class _Watching:
    def __init__(self, operator: Operator, namesrv: str, topic: str) -> None:
        self._operator, self._namesrv = operator, namesrv
        self._request = routing_pb2.WatchRouteRequest(topic=v2.Resource(name=topic), endpoints=endpoints_of(namesrv))
        self._request.max_wait.FromSeconds(1)

    async def queues(self) -> int:
        """When it has changed, or after a second. Raises KourouError."""
        answer = await self._operator.ask(self._namesrv, routing_rpc.WATCH_ROUTE, self._request)
        self._request.known_version = answer.version
        return len(answer.message_queues)


async def _keep_asking(asking: _Querying | _Watching, seen: Counter[int]) -> None:
    while True:
        try:
            seen[await asking.queues()] += 1
        except TopicNotFound:
            seen[0] += 1
        except KourouError:
            pass
        await asyncio.sleep(POLL_S)


async def _send(sender: subprocess.Popen[str], topic: str) -> None:
    """Returns when the program in the container has sent a message to the topic."""
    assert sender.stdin is not None
    assert sender.stdout is not None
    sender.stdin.write(f"{topic}\n")
    sender.stdin.flush()
    written = ""
    while f"sent {topic}\n" not in written:
        line = await asyncio.to_thread(sender.stdout.readline)
        assert line, f"the sender ended:\n{written}"
        written += line


def _has_brokers(container: Container) -> bool:
    registered = [line for line in container.log().splitlines() if "a broker registered" in line]
    return all(any(broker in line for line in registered) for broker in BROKERS)


def _starts(stack: Stack) -> dict[str, str]:
    """When each container was started, by its service."""
    return {container.service: container.inspect()["State"]["StartedAt"] for container in stack.containers()}


def _end(program: subprocess.Popen[str]) -> None:
    program.communicate(timeout=30)
