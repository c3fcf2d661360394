"""`kourou send --lines` and `kourou receive` on clients in memory."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kourou.cli import messages, receive, send
from kourou.cli.digest import LinesDigest
from kourou.errors import ConnectionFailed, KourouError, NotFound, PartialFailure, TopicNotFound
from kourou.filters import Filter, Sql
from kourou.message import Message
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.google.protobuf.timestamp_pb2 import Timestamp
from kourou.received import ReceivedMessage
from kourou.results import SendResult
from tests.unit.cli.conftest import Command


class Queue:
    """What the fake clients share."""

    def __init__(self) -> None:
        self.subscriptions: dict[str, Filter] = {}
        self.group = ""
        self.namespaces: list[str] = []
        self.bodies: list[bytes] = []
        self.messages: list[Message] = []
        self.acked = 0
        self.sends = 0
        self.sends_now = self.most_sends_at_a_time = 0
        self.receives = 0
        self.send_error: KourouError | None = None
        self.fail_after_sends: int | None = None
        self.interrupt_after_receives: int | None = None
        self.fail_at_receives: set[int] = set()
        self.receive_error: KourouError = ConnectionFailed("gone")
        self.lose_acks = False

    @staticmethod
    def wire(body: bytes) -> v2.Message:
        encoding = v2.GZIP if body.startswith(b"gzip:") else v2.IDENTITY
        system = v2.SystemProperties(
            message_id="id-1",
            body_encoding=encoding,
            message_type=v2.FIFO,
            message_group="order-1",
            delivery_timestamp=Timestamp(seconds=1_700_000_000, nanos=500_000_000),
        )
        return v2.Message(body=body, system_properties=system)


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    queue = Queue()

    class Producer:
        def __init__(self, namesrv: str, *, namespace: str, **_: Any) -> None:
            queue.namespaces.append(namespace)

        async def __aenter__(self) -> Producer:
            return self

        async def __aexit__(self, *_: object) -> None: ...

        async def send(self, message: Message) -> SendResult:
            return (await self.send_many([message]))[0]

        async def send_many(self, messages: Sequence[Message], timeout_s: float | None = None) -> list[SendResult]:
            queue.sends += 1
            queue.sends_now += 1
            queue.most_sends_at_a_time = max(queue.most_sends_at_a_time, queue.sends_now)
            await asyncio.sleep(0)
            queue.sends_now -= 1
            if queue.send_error is not None:
                raise queue.send_error
            results = [SendResult("id", "broker-a@0.0", m.topic, "broker-a", 0, 0) for m in messages]
            if queue.fail_after_sends is not None and queue.sends > queue.fail_after_sends:
                queue.bodies.append(messages[0].body)
                raise PartialFailure("sending", [results[0], *[ConnectionFailed("gone")] * (len(messages) - 1)])
            queue.messages += messages
            queue.bodies += [message.body for message in messages]
            return results

    class Consumer:
        def __init__(self, group: str, subscriptions: dict[str, Filter], namesrv: str, *, namespace: str) -> None:
            queue.group, queue.subscriptions = group, subscriptions
            queue.namespaces.append(namespace)

        async def __aenter__(self) -> Consumer:
            return self

        async def __aexit__(self, *_: object) -> None: ...

        async def receive(self, max_messages: int, **_: Any) -> list[ReceivedMessage]:
            queue.receives += 1
            if queue.receives == queue.interrupt_after_receives:
                os.kill(os.getpid(), signal.SIGINT)
            if queue.receives in queue.fail_at_receives:
                raise queue.receive_error
            taken, queue.bodies = queue.bodies[:max_messages], queue.bodies[max_messages:]
            await asyncio.sleep(0.001)
            return [ReceivedMessage(queue.wire(body), "broker-a", "") for body in taken]

        async def ack(self, messages: Sequence[ReceivedMessage]) -> None:
            if queue.lose_acks:
                raise ConnectionFailed("gone")
            queue.acked += len(messages)

    monkeypatch.setattr(send, "AsyncProducer", Producer)
    monkeypatch.setattr(receive, "AsyncSimpleConsumer", Consumer)
    return queue


def sorted_digest(lines: Sequence[bytes]) -> str:
    return hashlib.sha256(b"".join(line + b"\n" for line in sorted(lines))).hexdigest()


def test_one_message_with_its_properties(kourou: Command, queue: Queue) -> None:
    out = kourou.ok("send", "t", "grüße", "--tag", "x", "--key", "k", "--key", "l", "--property", "a=b=c")
    assert "sent to broker-a, queue 0, offset 0: id id, offset id broker-a@0.0" in out
    assert queue.messages == [Message("t", "grüße".encode(), tag="x", keys=("k", "l"), properties={"a": "b=c"})]


def test_namespaces_are_written_with_a_slash(kourou: Command, queue: Queue) -> None:
    kourou.ok("send", "team/t", "x")
    kourou.ok("send", "t", "x")
    for group in ("g", "team/g"):
        kourou.ok("receive", "team/t", "--group", group, "--count", "1")
        assert (queue.group, queue.subscriptions) == ("g", {"t": "*"})
    assert queue.namespaces == ["team", "", "team", "team"]
    assert {message.topic for message in queue.messages} == {"t"}
    other = kourou("receive", "team/t", "--group", "other/g")
    assert other.exit_code == 2
    assert "of one namespace" in other.stderr


def test_types_of_messages(kourou: Command, queue: Queue, tmp_path: Path) -> None:
    kourou.ok("send", "t", "x", "--message-group", "order-1", "--group", "billing")
    kourou.ok("send", "t", "x", "--priority", "3")
    kourou.ok("send", "t", "x", "--lite-topic", "session-1")
    assert queue.messages == [
        Message("t", b"x", message_group="order-1"),
        Message("t", b"x", priority=3),
        Message("t", b"x", lite_topic="session-1"),
    ]
    both = kourou("send", "t", "x", "--message-group", "g", "--priority", "3")
    assert (both.exit_code, both.stderr) == (
        1,
        "error: a message has one type, and cannot have message_group and priority\n",
    )
    assert kourou("send", "t", "x", "--priority", "-1").exit_code == 2


def test_delivery_times(kourou: Command, queue: Queue, tmp_path: Path) -> None:
    began = datetime.now(UTC)
    kourou.ok("send", "t", "x", "--delay", "10s")
    kourou.ok("send", "t", "x", "--at", "2026-12-01T12:00+01:00")
    delayed, fixed = (message.delivery_time for message in queue.messages)
    assert delayed is not None
    assert timedelta(seconds=10) <= delayed - began < timedelta(seconds=40)
    assert fixed == datetime(2026, 12, 1, 11, tzinfo=UTC)
    source = tmp_path / "lines"
    source.write_text("a\nb\n")
    kourou.ok("send", "t", "--lines", str(source), "--delay", "1h")
    assert all(message.delivery_time for message in queue.messages)
    assert kourou("send", "t", "x", "--delay", "10s", "--at", "2026-12-01").exit_code == 2
    for no_delay in ("soon", "999999999999d"):
        assert kourou("send", "t", "x", "--delay", no_delay).exit_code == 1
    assert kourou("send", "t", "x", "--at", "noon").exit_code == 1


def test_recall(kourou: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    class Producer:
        def __init__(self, namesrv: str, *, namespace: str) -> None: ...

        async def __aenter__(self) -> Producer:
            return self

        async def __aexit__(self, *_: object) -> None: ...

        async def recall(self, topic: str, handle: str) -> str:
            if (topic, handle) != ("later", "a-handle"):
                raise NotFound(v2.NOT_FOUND, "it is not pending")
            return "an-id"

    monkeypatch.setattr(messages, "AsyncProducer", Producer)
    assert kourou.ok("message", "recall", "later", "a-handle") == "recalled: id an-id\n"
    assert kourou("message", "recall", "other", "a-handle").exit_code == 1


def test_lines_of_a_message_group_are_sent_one_batch_after_the_other(
    kourou: Command, queue: Queue, tmp_path: Path
) -> None:
    source = tmp_path / "lines"
    source.write_text("".join(f"{number}\n" for number in range(2000)))
    kourou.ok("send", "t", "--lines", str(source), "--message-group", "g")
    assert [int(message.body) for message in queue.messages] == list(range(2000))
    assert queue.most_sends_at_a_time == 1
    kourou.ok("send", "t", "--lines", str(source))
    assert queue.most_sends_at_a_time > 1


def test_receive_as_json(kourou: Command, queue: Queue) -> None:
    queue.bodies = ["grüße".encode(), b"\xff"]
    first, second = map(json.loads, kourou.ok("receive", "t", "--group", "g", "--count", "2", "--json").splitlines())
    assert (first["body"], first["body_encoding"], first["message_id"]) == ("grüße", "utf-8", "id-1")
    assert (first["type"], first["message_group"], first["delivery_ms"], first["attempt"]) == (
        "fifo",
        "order-1",
        1_700_000_000_500,
        1,
    )
    assert (first["priority"], first["lite_topic"]) == (None, None)
    assert (second["body"], second["body_encoding"]) == ("/w==", "base64")


def test_lines_go_and_come_byte_for_byte(kourou: Command, queue: Queue, tmp_path: Path) -> None:
    lines = [f"flight {number}".encode() for number in range(5000)] + [b"\xff\x00 caf\xe9\r", b" ", b"last"]
    source = tmp_path / "lines"
    source.write_bytes(b"\n".join([*lines[:10], b"", *lines[10:4000], b"", b"", *lines[4000:]]))
    sent = kourou("send", "t", "--lines", str(source))
    assert sent.exit_code == 0
    assert "sent 5,003 messages" in sent.stderr
    assert "left out 3 empty lines" in sent.stderr
    assert f"digest {sorted_digest(lines)} (SHA-256 over the sorted lines" in sent.stderr
    target = tmp_path / "copy"
    received = kourou("receive", "t", "--group", "g", "--count", "5003", "--output", str(target))
    assert received.exit_code == 0
    assert "received 5,003 messages" in received.stderr
    assert f"digest {sorted_digest(lines)}" in received.stderr
    assert sorted(target.read_bytes().removesuffix(b"\n").split(b"\n")) == sorted(lines)
    assert queue.acked == 5003


def test_receive_takes_no_more_than_wanted(kourou: Command, queue: Queue) -> None:
    queue.bodies = [b"x"] * 100
    assert kourou.ok("receive", "t", "--group", "g", "--count", "37") == "x\n" * 37
    assert (len(queue.bodies), queue.acked) == (63, 37)


def test_receive_filters_by_tag_or_sql(kourou: Command, queue: Queue) -> None:
    for options, wanted in (
        ((), "*"),
        (("--tag", "a || b"), "a || b"),
        (("--sql", "price > 5"), Sql("price > 5")),
    ):
        queue.bodies = [b"x"]
        kourou.ok("receive", "t", "--group", "g", "--count", "1", *options)
        assert queue.subscriptions == {"t": wanted}
    result = kourou("receive", "t", "--group", "g", "--tag", "a", "--sql", "price > 5")
    assert result.exit_code == 2
    assert "either --tag or --sql" in result.output


def test_receive_stops_when_nothing_comes(kourou: Command, queue: Queue) -> None:
    queue.bodies = [b"a\nb", b"c"]
    result = kourou("receive", "t", "--group", "g", "--idle-s", "0.2")
    assert result.exit_code == 0
    assert result.stdout == "a\nb\nc\n"
    assert "1 bodies contain a newline" in result.stderr


def test_a_body_that_cannot_be_unpacked_is_left_out(kourou: Command, queue: Queue) -> None:
    queue.bodies = [b"a", b"gzip: not at all", b"c"]
    result = kourou("receive", "t", "--group", "g", "--count", "2")
    assert result.exit_code == 0
    assert sorted(result.stdout.split()) == ["a", "c"]
    assert "the body of message id-1 is no gzip" in result.stderr
    assert queue.acked == 2


def test_ctrl_c_ends_a_receive_after_writing_and_acknowledging(kourou: Command, queue: Queue) -> None:
    queue.bodies = [b"x"] * 1000
    queue.interrupt_after_receives = 3
    result = kourou("receive", "t", "--group", "g")
    assert result.exit_code == 130
    written = result.stdout.count("x")
    assert 0 < written == queue.acked < 1000
    assert written + len(queue.bodies) == 1000
    assert f"received {written}" in result.stderr


def test_a_receive_survives_a_broker_that_restarts(
    kourou: Command, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receive, "_RETRY_S", 0.01)
    queue.bodies = [b"x"] * 300
    queue.fail_at_receives = {20, 21, 22}
    assert kourou.ok("receive", "t", "--group", "g", "--count", "300") == "x\n" * 300


def test_a_cluster_that_is_not_there_is_told_at_once(kourou: Command, queue: Queue) -> None:
    queue.fail_at_receives = set(range(1, 17))
    result = kourou("receive", "t", "--group", "g")
    assert result.exit_code == 1
    assert "error: gone" in result.stderr


def test_an_unknown_topic_ends_a_receive(kourou: Command, queue: Queue) -> None:
    queue.fail_at_receives = {20}
    queue.receive_error = TopicNotFound(40402, "no topic t; `kourou topic create t` makes it")
    result = kourou("receive", "t", "--group", "g")
    assert result.exit_code == 1
    assert "kourou topic create t" in result.stderr


def test_lost_acknowledgements_are_told(kourou: Command, queue: Queue) -> None:
    queue.bodies, queue.lose_acks = [b"x"], True
    result = kourou("receive", "t", "--group", "g", "--count", "1")
    assert "1 messages could not be acknowledged and will come again" in result.stderr


def test_a_failed_send_says_how_many_were_sent(kourou: Command, queue: Queue, tmp_path: Path) -> None:
    source = tmp_path / "lines"
    source.write_bytes(b"line\n" * 2000)
    queue.fail_after_sends = 2
    result = kourou("send", "t", "--lines", str(source))
    assert result.exit_code == 1
    assert f"sent {len(queue.bodies):,} messages" in result.stderr
    assert "gone" in result.stderr
    assert queue.sends < 8 + 3


@pytest.mark.parametrize("args", [["--lines", "/nowhere/lines"], ["--lines", "/"], [""]])
def test_what_cannot_be_sent_is_told(kourou: Command, queue: Queue, args: list[str]) -> None:
    result = kourou("send", "t", *args)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("error: ")


def test_a_line_that_no_message_can_hold(kourou: Command, queue: Queue, tmp_path: Path) -> None:
    source = tmp_path / "lines"
    source.write_bytes(b"short\n" + b"x" * (4 * 1024 * 1024 + 1) + b"\nmore\n")
    result = kourou("send", "t", "--lines", str(source))
    assert result.exit_code == 1
    assert "a line is longer than 4194304 bytes" in result.stderr
    assert "sent 1 messages" in result.stderr


@given(st.lists(st.binary(max_size=12)), st.integers(1, 1000))
def test_the_digest_is_that_of_the_sorted_lines(lines: list[bytes], memory_bytes: int) -> None:
    digest = LinesDigest(memory_bytes)
    for line in lines:
        digest.add(line)
    assert digest.hexdigest() == sorted_digest(lines)
