import asyncio
import json
from pathlib import Path
from typing import Literal

import pytest

from kourou import AsyncPushConsumer, Broadcasting, InvalidArgument, ReceivedMessage, Sql, broadcasting
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from tests.unit.client.fake import Broker, Cluster, cluster, received, until


class Member:
    """A broadcasting consumer and what it heard."""

    def __init__(
        self, c: Cluster, path: Path, start: Literal["end", "first"] = "first", gate: asyncio.Event | None = None
    ) -> None:
        self.heard: list[bytes] = []
        self.gate = gate
        options = Broadcasting(path, start)
        self.consumer = AsyncPushConsumer(
            "g", {"t": "*"}, self.listen, c.namesrv, broadcasting=options, close_grace_s=0.05, concurrency=1
        )

    async def listen(self, message: ReceivedMessage) -> None:
        if self.gate is not None and len(self.heard) == 3:
            await self.gate.wait()
        self.heard.append(message.body)
        if message.body == b"bad":
            raise ValueError("not repeated")

    async def __aenter__(self):
        await self.consumer.__aenter__()
        return self

    async def __aexit__(self, *error):
        await self.consumer.__aexit__(*error)


def store(broker: Broker, *bodies: bytes) -> None:
    broker.stored["t"] += [received("t", body, "") for body in bodies]


@pytest.fixture
async def c():
    async with cluster() as made:
        made.topics["t"] = 1
        yield made


async def test_every_member_hears_every_message_and_a_failure_is_not_repeated(c, tmp_path):
    store(c.brokers[0], b"1", b"bad", b"3")
    async with Member(c, tmp_path / "a.json") as one, Member(c, tmp_path / "b.json") as two:
        await until(lambda: one.heard == two.heard == [b"1", b"bad", b"3"])
        store(c.brokers[0], b"4")
        await until(lambda: one.heard[3:] == two.heard[3:] == [b"4"])
    assert c.brokers[0].acks == c.brokers[0].changes == []
    assert c.brokers[0].settings[0].client_type == v2.PULL_CONSUMER


async def test_pulls_are_filtered(c, tmp_path):
    options = Broadcasting(tmp_path / "a.json")
    async with AsyncPushConsumer("g", {"t": Sql("a > 5")}, lambda _: None, c.namesrv, broadcasting=options):
        await until(lambda: c.brokers[0].pulls)
    asked = c.brokers[0].pulls[0].filter_expression
    assert (asked.type, asked.expression) == (v2.SQL, "a > 5")


async def test_a_member_goes_on_where_it_stopped(c, tmp_path):
    store(c.brokers[0], b"1", b"2")
    async with Member(c, tmp_path / "a.json") as member:
        await until(lambda: len(member.heard) == 2)
    assert json.loads((tmp_path / "a.json").read_text()) == {"t": {"broker-a": {"0": 2}}}
    store(c.brokers[0], b"3")
    async with Member(c, tmp_path / "a.json") as member:
        await until(lambda: member.heard == [b"3"])


async def test_a_new_member_may_begin_at_the_end(c, tmp_path):
    store(c.brokers[0], b"1", b"2")
    async with Member(c, tmp_path / "a.json", "end") as member:
        await until(lambda: c.brokers[0].pulls)
        store(c.brokers[0], b"3")
        await until(lambda: member.heard)
        assert member.heard == [b"3"]


async def test_a_queue_that_comes_later_is_heard_from_its_first_message(c, tmp_path, monkeypatch):
    monkeypatch.setattr(broadcasting, "ROUTE_CHECK_INTERVAL_S", 0.02)
    async with Member(c, tmp_path / "a.json", "end") as member:
        added = Broker("broker-b")
        await added.start()
        store(added, b"early")
        c.brokers.append(added)
        await member.consumer._client.routes.pull("t")
        await until(lambda: member.heard == [b"early"])
        await added.stop()


async def test_progress_is_exact_when_closed_in_the_middle_of_a_batch(c, tmp_path):
    store(c.brokers[0], *(b"%d" % i for i in range(10)))
    async with Member(c, tmp_path / "a.json", gate=asyncio.Event()) as member:
        await until(lambda: len(member.heard) == 3)
    assert json.loads((tmp_path / "a.json").read_text()) == {"t": {"broker-a": {"0": 3}}}
    async with Member(c, tmp_path / "a.json") as member:
        await until(lambda: len(member.heard) == 7)


async def test_progress_is_written_while_running(c, tmp_path, monkeypatch):
    monkeypatch.setattr(broadcasting, "WRITE_INTERVAL_S", 0.02)
    store(c.brokers[0], b"1", b"2")
    path = tmp_path / "a.json"
    async with Member(c, path):
        await until(lambda: path.exists() and json.loads(path.read_text())["t"]["broker-a"]["0"] == 2)


async def test_progress_is_written_again_after_a_full_disk(c, tmp_path, monkeypatch):
    monkeypatch.setattr(broadcasting, "WRITE_INTERVAL_S", 0.02)
    path = tmp_path / "a.json"
    (tmp_path / "a.json.new").mkdir()  # what is written first
    store(c.brokers[0], b"1")
    async with Member(c, path) as member:
        await until(lambda: member.heard)
        await asyncio.sleep(0.1)
        assert not path.exists()
        (tmp_path / "a.json.new").rmdir()
        await until(lambda: path.exists() and json.loads(path.read_text())["t"]["broker-a"]["0"] == 1)


async def test_a_queue_that_goes_while_its_messages_are_heard_keeps_its_progress(c, tmp_path, monkeypatch):
    monkeypatch.setattr(broadcasting, "ROUTE_CHECK_INTERVAL_S", 0.02)
    store(c.brokers[0], *(b"%d" % i for i in range(10)))
    gate = asyncio.Event()
    async with Member(c, tmp_path / "a.json", gate=gate) as member:
        await until(lambda: len(member.heard) == 3)
        c.topics["t"] = 0
        await member.consumer._client.routes.pull("t")
        await asyncio.sleep(0.1)
        gate.set()
        await until(lambda: len(member.heard) == 10)
        intake = member.consumer._intake
        assert isinstance(intake, broadcasting.BroadcastQueues)
        await until(lambda: not intake._pulls)
        assert member.consumer._listening.cache.count == 0
    assert json.loads((tmp_path / "a.json").read_text()) == {"t": {"broker-a": {"0": 10}}}


async def test_an_offset_that_is_gone_goes_on_at_the_first(c, tmp_path):
    (tmp_path / "a.json").write_text('{"t": {"broker-a": {"0": 77}}}')
    store(c.brokers[0], b"1")
    async with Member(c, tmp_path / "a.json") as member:
        await until(lambda: member.heard == [b"1"])


async def test_no_error_ends_a_pull(c, tmp_path, monkeypatch):
    store(c.brokers[0], b"1")
    ask, errors = broadcasting.BroadcastQueues._ask, [ValueError("of our own")]

    async def fail_once(self, queue, offset):
        if errors:
            raise errors.pop()
        return await ask(self, queue, offset)

    monkeypatch.setattr(broadcasting.BroadcastQueues, "_ask", fail_once)
    async with Member(c, tmp_path / "a.json") as member:
        await until(lambda: member.heard == [b"1"])


async def test_two_members_need_two_files(c, tmp_path):
    async with Member(c, tmp_path / "a.json"):
        with pytest.raises(InvalidArgument, match=r"a\.json.*offsets_path"):
            async with Member(c, tmp_path / "a.json"):
                pass


@pytest.mark.parametrize("text", ["no json", "[1]", '{"t": 3}', '{"t": {"b": {"0": "x"}}}'])
async def test_a_file_that_is_none_of_ours(c, tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InvalidArgument, match="holds no offsets"):
        async with Member(c, tmp_path / "a.json"):
            pass


async def test_the_default_file(c, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    store(c.brokers[0], b"1")
    heard: list[bytes] = []
    options = Broadcasting(start="first")
    async with AsyncPushConsumer("g", {"t": "*"}, lambda m: heard.append(m.body), c.namesrv, broadcasting=options):
        await until(lambda: heard)
    assert (tmp_path / ".kourou/offsets/g.json").exists()
