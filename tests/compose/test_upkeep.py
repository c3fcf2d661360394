"""What an operator does to brokers that work: replaced by newer ones, backed up, and restored. As the docs have it."""

import asyncio
from pathlib import Path

from kourou import AsyncProducer, AsyncSimpleConsumer, Message
from tests.cluster.load import Load
from tests.cluster.operator_client import Operator
from tests.cluster.waiting import eventually
from tests.compose.engine import docker
from tests.compose.stack import PROJECT, Stack

COUNT = 60
SETTLED = 20


async def test_all_services_are_replaced_under_load(stack: Stack, operator: Operator, name: str) -> None:
    """Whoever sends notices nothing. The image is the same, which the commands of the docs would see and do nothing."""
    groups = (f"{name}-simple", f"{name}-push")
    await operator.create_topic(name)
    for group in groups:
        await operator.create_group(group)
    before = {container.service: container.id for container in stack.containers()}
    load = Load(stack.namesrv, name, *groups)
    async with load.running():
        for services in (("namesrv-a",), ("namesrv-b", "admin")):
            await load.progressed(200)
            await asyncio.to_thread(stack.replace, *services)
        out = await asyncio.to_thread(stack.kourou_inside, "broker", "drain", "broker-a", "--keep-running")
        assert "broker broker-a is out of the cluster" in out
        await asyncio.to_thread(stack.replace, "broker-a")
        await asyncio.to_thread(stack.kourou_inside, "broker", "on", "broker-a")
        stored = _stored_on(load, "broker-a")
        await eventually(lambda: _stored_on(load, "broker-a") > stored + 100, 45, what="messages on the new broker-a")
        await load.finish(operator)
    load.check()
    assert not [error for error in load.errors if error.startswith("send")], load.errors
    replaced = {container.service for container in stack.containers() if container.id != before[container.service]}
    assert replaced == {"namesrv-a", "namesrv-b", "admin", "broker-a"}


async def test_a_broker_whose_disk_is_gone_is_restored_from_a_backup(
    stack: Stack, operator: Operator, name: str, tmp_path: Path
) -> None:
    await operator.create_topic(name, brokers=["broker-a"])
    await operator.create_group(name)
    bodies = {f"message {number}".encode() for number in range(COUNT)}
    async with AsyncProducer(stack.namesrv) as producer:
        await producer.send_many([Message(name, body) for body in sorted(bodies)])
    settled = await _receive(stack, name, SETTLED)
    backups = tmp_path / "backups"
    backups.mkdir()
    backups.chmod(0o777)  # the container's user is another one
    backup = ("broker", "backup", "broker-a", "--output", "/backups/broker-a")
    await asyncio.to_thread(_run, stack, "-v", f"{backups}:/backups", "admin", *backup)

    await asyncio.to_thread(stack.check_logs)
    await asyncio.to_thread(stack.compose, "rm", "--force", "--stop", "broker-a")
    await asyncio.to_thread(docker, "volume", "rm", f"{PROJECT}_broker-a")

    copy = ("-c", "rm -rf /data/* && cp -r /backup/. /data")
    volume = ("-v", f"{backups}/broker-a:/backup:ro")
    await asyncio.to_thread(_run, stack, "--entrypoint", "sh", *volume, "broker-a", *copy)
    await asyncio.to_thread(stack.up, "broker-a")
    rest = await _receive(stack, name, COUNT - SETTLED)
    assert settled | rest == bodies, "nothing is lost, and nothing that was settled comes again"


def _run(stack: Stack, *args: str) -> None:
    stack.compose("run", "--rm", "--no-deps", "-T", *args)


async def _receive(stack: Stack, name: str, count: int) -> set[bytes]:
    """So many messages, each once."""
    received: list[bytes] = []
    async with asyncio.timeout(60), AsyncSimpleConsumer(name, {name: "*"}, stack.namesrv) as consumer:
        while len(received) < count:
            messages = await consumer.receive(max_messages=count - len(received), wait_s=1)
            await consumer.ack(messages)
            received += [message.body for message in messages]
    assert len(set(received)) == count
    return set(received)


def _stored_on(load: Load, broker: str) -> int:
    return sum(place.broker == broker for place in load.acknowledged.values())
