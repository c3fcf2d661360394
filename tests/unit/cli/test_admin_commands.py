from __future__ import annotations

import json

import pytest

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.google.protobuf.timestamp_pb2 import Timestamp
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from tests.unit.admin.fake_cluster import OK, keep_letters
from tests.unit.cli.conftest import Command

TOPIC, GROUP = v2.Resource(name="flights"), v2.Resource(name="readers")


def test_more_queues_of_a_fifo_topic_are_warned_of(kourou: Command) -> None:
    kourou.ok("topic", "create", "orders", "--type", "fifo", "--queues", "8")
    changed = kourou("topic", "change", "orders", "--queues", "9")
    assert (changed.exit_code, "not kept in order" in changed.stderr) == (0, True)
    changed = kourou("topic", "change", "orders", "--permission", "read")
    assert (changed.exit_code, changed.stderr) == (0, "")


def test_the_life_of_a_topic(kourou: Command) -> None:
    out = kourou.ok("topic", "create", "flights", "--type", "normal", "--queues", "8")
    assert out == "topic flights created: 8 queues on broker-a, broker-b\n"
    assert "flights" in kourou.ok("topic", "list")
    kourou.ok("topic", "change", "flights", "--queues", "9", "--permission", "read")
    topic = json.loads(kourou.ok("topic", "show", "flights", "--json"))
    assert topic == {
        "name": "flights",
        "type": "normal",
        "queues": 9,
        "permission": "read",
        "version": 1_000_002,
        "brokers": ["broker-a", "broker-b"],
        "differing_brokers": [],
    }
    assert json.loads(kourou.ok("topic", "list", "--json")) == [topic]
    assert kourou("topic", "delete", "flights", input="n\n").exit_code == 1
    kourou.ok("topic", "delete", "flights", input="y\n")
    assert json.loads(kourou.ok("topic", "list", "--json")) == []


def test_the_life_of_a_group(kourou: Command) -> None:
    kourou.ok("group", "create", "readers", "--max-attempts", "3", "--order", "fifo", "--assignment", "shared")
    kourou.ok("group", "change", "readers", "--max-attempts", "4")
    group = json.loads(kourou.ok("group", "show", "readers", "--json"))
    assert (group["max_attempts"], group["order"], group["assignment"]) == (4, "fifo", "shared")
    assert (group["backoff"][:14], group["from"]) == ("10s,30s,1m,2m,", "first")
    assert "readers" in kourou.ok("group", "list")
    kourou.ok("group", "delete", "readers", "--yes")
    assert "no groups" in kourou("group", "list").stderr


def test_a_topic_of_lite_topics(kourou: Command) -> None:
    kourou.ok("topic", "create", "sessions", "--type", "lite", "--lite-expiration", "1h")
    assert json.loads(kourou.ok("topic", "show", "sessions", "--json"))["lite_expiration"] == "1h"
    kourou.ok("topic", "change", "sessions", "--lite-expiration", "30d")
    assert "30d" in kourou.ok("topic", "show", "sessions")
    assert "15 to 43200" in kourou("topic", "change", "sessions", "--lite-expiration", "14m").stderr
    kourou.ok("topic", "change", "sessions", "--lite-expiration", "never")
    assert json.loads(kourou.ok("topic", "show", "sessions", "--json"))["lite_expiration"] == "never"
    refused = kourou("topic", "create", "flights", "--lite-expiration", "1h")
    assert "only a topic of type LITE" in refused.stderr
    assert "no span of time" in kourou("topic", "change", "sessions", "--lite-expiration", "soon").stderr


def test_a_lite_group(kourou: Command) -> None:
    kourou.ok("group", "create", "readers", "--lite", "sessions", "--lite-quota", "9")
    group = json.loads(kourou.ok("group", "show", "readers", "--json"))
    assert (group["lite"], group["lite_assignment"], group["lite_quota"]) == ("sessions", "shared", 9)
    kourou.ok("group", "change", "readers", "--exclusive-lite")
    kourou.ok("group", "change", "readers", "--max-attempts", "3")
    group = json.loads(kourou.ok("group", "show", "readers", "--json"))
    assert (group["lite"], group["lite_assignment"], group["lite_quota"]) == ("sessions", "exclusive", 9)
    kourou.ok("group", "create", "others")
    assert "lite" not in json.loads(kourou.ok("group", "show", "others", "--json"))
    assert "cannot change" in kourou("group", "change", "others", "--lite-quota", "5").stderr
    assert "--lite TOPIC" in kourou("group", "create", "more", "--lite-quota", "5").stderr
    assert "starts at the first message" in kourou("group", "create", "m", "--lite", "s", "--from", "last").stderr


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("10s,30s,1m", "10s,30s,1m"),
        ("60s, 1.5s,0s,500ms,2h", "1m,1500ms,0s,500ms,2h"),
        ("exponential:1s,2,10m", "exponential:1s,2,10m"),
        ("exponential:1s,1.5,90s", "exponential:1s,1.5,90s"),
    ],
)
def test_a_groups_backoff(kourou: Command, given: str, shown: str) -> None:
    kourou.ok("group", "create", "readers", "--backoff", "5s")
    kourou.ok("group", "change", "readers", "--backoff", given)
    assert json.loads(kourou.ok("group", "show", "readers", "--json"))["backoff"] == shown
    assert shown in kourou.ok("group", "list")
    kourou.ok("group", "create", "others", "--backoff", shown)
    assert kourou.brokers["broker-a"].groups["others"].retry == kourou.brokers["broker-a"].groups["readers"].retry


def test_where_a_group_starts(kourou: Command) -> None:
    kourou.ok("group", "create", "readers", "--from", "last")
    assert json.loads(kourou.ok("group", "show", "readers", "--json"))["from"] == "last"
    kourou.ok("group", "change", "readers", "--from", "2026-11-01T12:00:00.250+00:00")
    assert kourou.brokers["broker-a"].groups["readers"].start_ms == 1_793_534_400_250
    shown = json.loads(kourou.ok("group", "show", "readers", "--json"))["from"]
    kourou.ok("group", "create", "others", "--from", shown)
    assert kourou.brokers["broker-a"].groups["others"].start_ms == 1_793_534_400_250


def test_a_group_whose_members_subscribe_differently(kourou: Command) -> None:
    kourou.ok("group", "create", "readers")
    assert json.loads(kourou.ok("group", "show", "readers", "--json"))["differing_subscriptions"] == []
    wants = v2.SubscriptionEntry(topic=TOPIC, expression=v2.FilterExpression(type=v2.TAG, expression="late"))
    other = v2.SubscriptionEntry(topic=v2.Resource(name="trains"), expression=v2.FilterExpression(expression="*"))
    kourou.brokers["broker-a"].answers[broker_rpc.LIST_CLIENTS.path] = lambda _: broker_pb2.ListClientsResponse(
        status=OK,
        clients=[
            broker_pb2.Client(client_id="one", group=GROUP, subscriptions=[wants, other]),
            broker_pb2.Client(client_id="two", group=GROUP, subscriptions=[other]),
        ],
    )
    assert json.loads(kourou.ok("group", "show", "readers", "--json"))["differing_subscriptions"] == [
        {"topic": "flights", "subscribed": True, "filter_type": "tag", "filter": "late", "clients": ["one"]},
        {"topic": "flights", "subscribed": False, "filter_type": None, "filter": None, "clients": ["two"]},
    ]
    result = kourou("group", "show", "readers")
    assert "members differ in flights: one wants late\n" in result.stdout
    assert "members differ in flights: two wants nothing of it\n" in result.stdout
    assert "the members subscribe differently" in result.stderr


def test_dead_letters(kourou: Command) -> None:
    for name, broker in kourou.brokers.items():
        keep_letters(broker, [f"{name}-{number}" for number in range(3)])
    rows = json.loads(kourou.ok("group", "dead-letters", "readers", "--json"))
    assert [row["message_id"] for row in rows] == [
        f"{name}-{number}" for name in ("broker-a", "broker-b") for number in range(3)
    ]
    assert (rows[1]["origin_topic"], rows[1]["origin_queue"], rows[1]["origin_offset"]) == ("flights", 1, 8)
    assert rows[1]["body"] == "broker-a-1"
    assert "there are more on broker-a, broker-b" in kourou("group", "dead-letters", "readers", "--limit", "2").stderr
    out = kourou.ok("group", "resend", "readers", "--id", "broker-a-1", "--id", "broker-b-0")
    assert out == "2 dead letters were given back to group readers\n"
    assert "broker-a-1" not in kourou.ok("group", "dead-letters", "readers")
    result = kourou("group", "resend", "readers", "--id", "broker-a-1", "--id", "broker-a-2")
    assert result.exit_code == 1
    assert "1 dead letters were given back" in result.stdout
    assert "not resent: no such dead letter: broker-a-1" in result.stderr
    assert kourou.ok("group", "resend", "readers", "--all").startswith("3 dead letters")
    assert kourou.ok("group", "resend", "readers", "--all") == "nothing was resent\n"
    assert "group readers has no dead letters" in kourou("group", "dead-letters", "readers").stderr
    assert "no such group" in kourou("group", "resend", "nobody", "--all").stderr


def test_namespaces_are_written_with_a_slash(kourou: Command) -> None:
    kourou.ok("topic", "create", "team/flights")
    assert json.loads(kourou.ok("topic", "list", "--json"))[0]["name"] == "team/flights"


def test_refusals_are_one_line_on_stderr(kourou: Command) -> None:
    kourou.ok("topic", "create", "flights")
    for args, reason in (
        (("topic", "create", "flights"), "exists on broker-a, broker-b already"),
        (("topic", "create", "a b"), "has a character other than"),
        (("topic", "change", "flights", "--queues", "7"), "fewer would cut off"),
        (("topic", "show", "other"), "there is no topic other"),
        (("group", "create", "g", "--backoff", ""), "the backoff is empty"),
        (("group", "create", "g", "--backoff", "10s,soon"), "'soon' is no span of time: a number and ms, s, m, h or d"),
        (("group", "create", "g", "--backoff", "-1s"), "'-1s' is no span of time"),
        (("group", "create", "g", "--backoff", "exponential:1s,2"), "is no backoff: exponential:FIRST,FACTOR,MAX"),
        (("group", "create", "g", "--backoff", "exponential:1s,2,500ms"), "cannot begin with 1000 ms and have at most"),
        (("group", "create", "g", "--backoff", "1d"), "a backoff of 86400000 ms; 0 to 43200000 ms can be"),
        (("group", "create", "g", "--from", "yesterday"), "a group starts from first, last or a time; 'yesterday'"),
        (("group", "change", "other", "--max-attempts", "2"), "there is no group other"),
        (("broker", "show", "broker-z"), "there is no broker"),
        (("broker", "off", "broker-z"), "there is no broker"),
        (("message", "find", "--offset-id", "nonsense"), "is no offset message id"),
        (("message", "find", "--topic", "t", "--from", "yesterday"), "is no time"),
    ):
        result = kourou(*args)
        assert result.exit_code == 1, args
        assert result.stdout == ""
        assert reason in result.stderr
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "args",
    [
        ("topic", "create"),
        ("topic", "create", "x", "--queues", "0"),
        ("topic", "create", "x", "--type", "wrong"),
        ("offset", "reset", "g", "t"),
        ("offset", "reset", "g", "t", "--first", "--last"),
        ("message", "find", "--topic", "t"),
        ("message", "find", "--key", "k"),
        ("group", "resend", "g"),
        ("group", "resend", "g", "--all", "--id", "x"),
        ("group", "dead-letters", "g", "--limit", "257"),
        ("send", "t"),
        ("send", "t", "x", "--lines", "-"),
        ("send", "t", "x", "--property", "x"),
        ("nonsense",),
    ],
)
def test_wrong_use_has_exit_code_2(kourou: Command, args: tuple[str, ...]) -> None:
    assert kourou(*args).exit_code == 2


def test_partial_success_fails_and_says_where(kourou: Command) -> None:
    kourou.brokers["broker-b"].down = True
    result = kourou("topic", "create", "flights")
    assert result.exit_code == 1
    assert "8 queues on broker-a" in result.stdout
    assert "not done on broker-b" in result.stderr
    assert "; when it is back: kourou topic create flights --broker broker-b\n" in result.stderr
    listing = kourou("topic", "list")
    assert listing.exit_code == 0
    assert "broker-b is missing here" in listing.stderr
    brokers = kourou("broker", "list", "--json")
    assert "broker-b does not answer" in brokers.stderr
    assert [(row["name"], row["answers"]) for row in json.loads(brokers.stdout)] == [
        ("broker-a", True),
        ("broker-b", False),
    ]


def test_without_an_admin_service_the_way_out_is_told(tmp_path: object) -> None:
    result = Command.__call__(object.__new__(Command), "topic", "list", "--admin", "127.0.0.1:1")
    assert result.exit_code == 1
    assert "no admin service answers at 127.0.0.1:1; `kourou dev` starts" in result.stderr


def test_progress_and_reset(kourou: Command) -> None:
    progress = broker_pb2.Progress(group=GROUP, committed_offset=4, lag=6, inflight=1)
    queue = broker_pb2.Queue(topic=TOPIC, id=2, first_offset=0, next_offset=10, progress=[progress])
    for broker in kourou.brokers.values():
        broker.answers[broker_rpc.DESCRIBE_QUEUES.path] = lambda _: broker_pb2.DescribeQueuesResponse(
            status=OK, queues=[queue]
        )
        broker.answers[broker_rpc.RESET_OFFSET.path] = lambda _: broker_pb2.ResetOffsetResponse(
            status=OK, offsets=[broker_pb2.QueueOffset(queue=2, offset=0)]
        )
    assert "lag in all: 12" in kourou.ok("progress", "readers")
    rows = json.loads(kourou.ok("progress", "--topic", "flights", "--json"))
    assert rows[0] == {
        "group": "readers",
        "topic": "flights",
        "broker": "broker-a",
        "queue": 2,
        "first_offset": 0,
        "committed_offset": 4,
        "next_offset": 10,
        "lag": 6,
        "inflight": 1,
        "owner": None,
    }
    for target in (["--first"], ["--last"], ["--to-offset", "3"], ["--to-time", "2026-01-01T00:00:00+00:00"]):
        rows = json.loads(kourou.ok("offset", "reset", "readers", "flights", "--broker", "broker-b", "--json", *target))
        assert rows == [{"broker": "broker-b", "queue": 2, "offset": 0}]
    _, order = kourou.brokers["broker-b"].asked[-1]
    assert isinstance(order, broker_pb2.ResetOffsetRequest)
    assert order.time.ToJsonString() == "2026-01-01T00:00:00Z"


def test_messages(kourou: Command) -> None:
    system = v2.SystemProperties(
        message_id="01", tag="late", keys=["k"], queue_id=3, queue_offset=5, store_timestamp=Timestamp(seconds=1)
    )
    for name, body in (("broker-a", "grüße".encode()), ("broker-b", b"\xff\x00")):
        message = v2.Message(topic=TOPIC, body=body, system_properties=system, user_properties={"a": "b"})
        answer = broker_pb2.FindMessagesResponse(
            status=OK, messages=[broker_pb2.FoundMessage(message=message, offset_message_id=f"{name}@1f40.3")]
        )
        kourou.brokers[name].answers[broker_rpc.FIND_MESSAGES.path] = lambda _, answer=answer: answer
    text, binary = json.loads(kourou.ok("message", "find", "--topic", "flights", "--id", "01", "--json"))
    assert (text["body"], text["body_encoding"]) == ("grüße", "utf-8")
    assert (binary["body"], binary["body_encoding"]) == ("/wA=", "base64")
    assert text["stored_ms"] == 1000
    assert "2 bytes that are no text" in kourou.ok("message", "find", "--topic", "flights", "--key", "k")
    (only,) = json.loads(kourou.ok("message", "find", "--offset-id", "broker-b@1f40.3", "--json"))
    assert only["offset_message_id"] == "broker-b@1f40.3"


def test_routes_clients_and_permissions(kourou: Command) -> None:
    broker = v2.Broker(name="broker-a", endpoints=v2.Endpoints(addresses=[v2.Address(host="h", port=1)]))
    kourou.network.routes["flights"] = [
        v2.MessageQueue(topic=TOPIC, id=0, permission=v2.READ_WRITE, broker=broker, accept_message_types=[v2.NORMAL])
    ]
    assert json.loads(kourou.ok("route", "flights", "--json")) == [
        {
            "broker": "broker-a",
            "broker_id": 0,
            "queue": 0,
            "permission": "read-write",
            "address": "h:1",
            "types": ["normal"],
        }
    ]
    subscription = v2.SubscriptionEntry(topic=TOPIC, expression=v2.FilterExpression(type=v2.TAG, expression="a||b"))
    client = broker_pb2.Client(client_id="c1", type=v2.PUSH_CONSUMER, group=GROUP, subscriptions=[subscription])
    for each in kourou.brokers.values():
        each.answers[broker_rpc.LIST_CLIENTS.path] = lambda _: broker_pb2.ListClientsResponse(
            status=OK, clients=[client]
        )
        each.answers[broker_rpc.SET_PERMISSION.path] = lambda _: broker_pb2.SetPermissionResponse(status=OK)
    (row, _) = json.loads(kourou.ok("client", "list", "--group", "readers", "--json"))
    assert (row["client_id"], row["type"], row["subscriptions"]) == ("c1", "push-consumer", ["flights:a||b"])
    assert kourou.ok("broker", "off", "broker-a") == "broker broker-a is read now\n"
    assert kourou.ok("broker", "off", "broker-a", "--reads") == "broker broker-a is none now\n"
    assert kourou.ok("broker", "on", "broker-a") == "broker broker-a is read-write now\n"


def test_version(kourou: Command) -> None:
    assert kourou.ok("--version").startswith("kourou 0.")


def test_a_topic_is_spread(kourou: Command) -> None:
    kourou.ok("topic", "create", "flights", "--broker", "broker-a")
    kourou.ok("topic", "create", "everywhere")
    kourou.ok("group", "create", "readers")
    kourou.brokers["broker-b"].groups.clear()
    assert kourou.ok("topic", "spread", "--topic", "everywhere") == "every topic is there already\n"
    # The groups came along, before any queue did.
    assert "readers" in kourou.brokers["broker-b"].groups
    assert kourou.ok("topic", "spread") == "1 of 2 topics came to more brokers\n"
    topic = json.loads(kourou.ok("topic", "show", "flights", "--json"))
    assert (topic["brokers"], topic["differing_brokers"]) == (["broker-a", "broker-b"], [])


def test_spreading_says_what_cannot_be_done(kourou: Command) -> None:
    assert "no topic yet" in kourou("topic", "spread").stderr
    kourou.ok("topic", "create", "flights", "--broker", "broker-a")
    for args, reason in (
        (("--topic", "other"), "there is no topic other"),
        (("--topic", "a b"), "has a character other than"),
        (("--broker", "broker-x"), "there is no broker 'broker-x'"),
    ):
        result = kourou("topic", "spread", *args)
        assert (result.exit_code, reason in result.stderr) == (1, True), result.stderr
    kourou.brokers["broker-b"].down = True
    result = kourou("topic", "spread")
    assert result.exit_code == 1
    assert "cannot be reached" in result.stderr


def test_commands_to_a_client(kourou: Command) -> None:
    for broker in kourou.network.brokers.values():
        client = broker_pb2.Client(client_id="c-1")
        broker.answers[broker_rpc.LIST_CLIENTS.path] = lambda _, client=client: broker_pb2.ListClientsResponse(
            status=OK, clients=[client]
        )
        broker.answers[broker_rpc.PRINT_THREAD_STACK_TRACE.path] = lambda _: broker_pb2.PrintThreadStackTraceResponse(
            status=OK, stack_trace="thread main\n  at [x]\n"
        )
        broker.answers[broker_rpc.VERIFY_MESSAGE.path] = lambda _: broker_pb2.VerifyMessageResponse(status=OK)
        broker.answers[broker_rpc.RECONNECT_CLIENT.path] = lambda _: broker_pb2.ReconnectClientResponse(status=OK)
    assert kourou.ok("client", "stack", "c-1") == "thread main\n  at [x]\n"
    stack = json.loads(kourou.ok("client", "stack", "c-1", "--json"))
    assert stack == {"client_id": "c-1", "broker": "broker-a", "stack_trace": "thread main\n  at [x]\n"}
    assert "took message m-1" in kourou.ok("client", "verify", "c-1", "flights", "m-1")
    verified = json.loads(kourou.ok("client", "verify", "c-1", "flights", "m-1", "--json"))
    assert (verified["consumed"], verified["message_id"]) == (True, "m-1")
    assert kourou.ok("client", "reconnect", "c-1") == "client c-1 was told by broker-a, broker-b\n"
    assert json.loads(kourou.ok("client", "reconnect", "c-1", "--json"))["told_by"] == ["broker-a", "broker-b"]
    for command in (("stack", "c-2"), ("verify", "c-2", "flights", "m-1"), ("reconnect", "c-2")):
        failed = kourou("client", *command)
        assert failed.exit_code == 1
        assert "no client 'c-2' is connected" in failed.stderr


def test_a_listener_that_fails_on_a_message(kourou: Command) -> None:
    failed = v2.Status(code=v2.FAILED_TO_CONSUME_MESSAGE, message="the listener raised KeyError")
    for broker in kourou.network.brokers.values():
        broker.answers[broker_rpc.LIST_CLIENTS.path] = lambda _: broker_pb2.ListClientsResponse(
            status=OK, clients=[broker_pb2.Client(client_id="c-1")]
        )
        broker.answers[broker_rpc.VERIFY_MESSAGE.path] = lambda _: broker_pb2.VerifyMessageResponse(status=failed)
    result = kourou("client", "verify", "c-1", "flights", "m-1")
    assert result.exit_code == 1
    assert "the listener raised KeyError" in result.stderr
