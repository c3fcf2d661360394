"""What official clients ask of their access point, answered by a real NameServer on the simulated network."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest
from grpc import StatusCode

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2, service_rpc
from kourou.protocol.google.protobuf import duration_pb2
from kourou.protocol.kourou.routing.v1 import routing_pb2, routing_rpc
from kourou.protocol.method import BidiMethod, ServerStreamMethod, UnaryMethod
from kourou.transport import RpcError
from kourou_service.door import OK, serve_unary
from kourou_service.engine import Call, Engine
from kourou_service.recall_handle import RecallHandle
from tests.simulation.client_side import SimulatedChannel
from tests.simulation.namesrv_cluster import BROKER_PORT, HEADERS, SimulatedBroker, SimulatedNamesrv
from tests.simulation.network import Network, Node
from tests.simulation.time import simulate

TOPIC = v2.Resource(name="orders")


def on_a_namesrv(test: Callable[[Network, SimulatedChannel], Awaitable[None]]) -> None:
    """Runs the test beside a NameServer that knows one broker with one topic."""

    async def main() -> None:
        network = Network(seed=3)
        await SimulatedNamesrv(network, "namesrv-1").start()
        broker = SimulatedBroker(network, "broker-a", ["namesrv-1"])
        await broker.start({"orders": 2})
        await asyncio.sleep(1)
        await test(network, network.node("client").transport().channel("namesrv-1:8081"))

    simulate(main())


async def ask(channel: SimulatedChannel, method: Any, request: Any, headers: Any = HEADERS) -> Any:
    """The answer, of a stream the first one."""
    if isinstance(method, UnaryMethod):
        return (await channel.unary(method, request, timeout_s=3, metadata=headers)).message
    async with aclosing(channel.server_stream(method, request, timeout_s=3, metadata=headers)) as answers:
        return await anext(answers)


def test_query_route():
    async def test(network: Network, channel: SimulatedChannel) -> None:
        response = await ask(channel, service_rpc.QUERY_ROUTE, service_pb2.QueryRouteRequest(topic=TOPIC))
        assert response.status.code == v2.OK
        assert [queue.id for queue in response.message_queues] == [0, 1]

        async def refused(name: str, namespace: str = "") -> v2.Status:
            topic = v2.Resource(resource_namespace=namespace, name=name)
            return (await ask(channel, service_rpc.QUERY_ROUTE, service_pb2.QueryRouteRequest(topic=topic))).status

        missing = await refused("missing")
        assert missing.code == v2.TOPIC_NOT_FOUND
        assert "kourou topic create missing" in missing.message
        for name in ("", "no good", "x" * 128, "orders\n", "\N{SNOWMAN}"):
            assert (await refused(name)).code == v2.ILLEGAL_TOPIC
        assert (await refused("orders", "no good")).code == v2.ILLEGAL_TOPIC
        assert (await refused("orders", "elsewhere")).code == v2.TOPIC_NOT_FOUND

    on_a_namesrv(test)


def test_settings_are_answered_on_a_stream_that_stays_open():
    async def test(network: Network, channel: SimulatedChannel) -> None:
        stream = channel.bidi(service_rpc.TELEMETRY, metadata=HEADERS)
        for _ in range(2):
            settings = v2.Settings(client_type=v2.PRODUCER, publishing=v2.Publishing(topics=[TOPIC]))
            await stream.write(service_pb2.TelemetryCommand(settings=settings))
            answer = await stream.read()
            assert answer is not None
            assert answer.status.code == v2.OK
            assert answer.settings.publishing.max_body_size == 4 * 1024 * 1024
        await stream.write(service_pb2.TelemetryCommand(thread_stack_trace=service_pb2.ThreadStackTrace()))
        await stream.done_writing()
        assert await stream.read() is None

    on_a_namesrv(test)


METHODS = [method for method in service_rpc.METHODS if not isinstance(method, BidiMethod)]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.path.rpartition("/")[2])
def test_every_method_wants_a_client_id_and_answers_with_a_status(method: Any):
    async def test(network: Network, channel: SimulatedChannel) -> None:
        response = await ask(channel, method, method.request(), headers=[])
        assert response.status.code == v2.CLIENT_ID_REQUIRED
        response = await ask(channel, method, method.request())
        assert response.status.code != v2.CODE_UNSPECIFIED
        if isinstance(method, ServerStreamMethod):
            assert response.status.code == v2.UNSUPPORTED

    on_a_namesrv(test)


def test_telemetry_wants_a_client_id():
    async def test(network: Network, channel: SimulatedChannel) -> None:
        stream = channel.bidi(service_rpc.TELEMETRY)
        answer = await stream.read()
        assert answer is not None
        assert answer.status.code == v2.CLIENT_ID_REQUIRED
        assert await stream.read() is None

    on_a_namesrv(test)


def test_messages_are_sent_elsewhere_and_the_answer_says_where():
    async def test(network: Network, channel: SimulatedChannel) -> None:
        request = service_pb2.SendMessageRequest(messages=[v2.Message(topic=TOPIC, body=b"x")])
        response = await ask(channel, service_rpc.SEND_MESSAGE, request)
        assert response.status.code == v2.UNSUPPORTED
        assert "broker-a:10911" in response.status.message

    on_a_namesrv(test)


def _serve_assignments(engine: Engine, seen: list[tuple[service_pb2.QueryAssignmentRequest, str]]) -> None:
    async def query_assignment(
        request: service_pb2.QueryAssignmentRequest, call: Call
    ) -> service_pb2.QueryAssignmentResponse:
        seen.append((request, str(call.metadata["x-mq-client-id"])))
        return service_pb2.QueryAssignmentResponse(status=OK, assignments=[v2.Assignment()])

    serve_unary(engine, service_rpc.QUERY_ASSIGNMENT, query_assignment)


async def _start_broker_door(node: Node, seen: list[tuple[service_pb2.QueryAssignmentRequest, str]]) -> None:
    engine = node.engine()
    _serve_assignments(engine, seen)
    engine.listen(f"{node.name}:{BROKER_PORT}")
    await engine.start()


def test_query_assignment_is_passed_on_to_a_broker():
    async def test(network: Network, channel: SimulatedChannel) -> None:
        request = service_pb2.QueryAssignmentRequest(
            topic=TOPIC, group=v2.Resource(name="group"), endpoints=v2.Endpoints()
        )
        down = await ask(channel, service_rpc.QUERY_ASSIGNMENT, request)
        assert down.status.code == v2.PROXY_TIMEOUT

        seen: list[tuple[service_pb2.QueryAssignmentRequest, str]] = []
        node = network.node("broker-a")
        await node.process.start(_start_broker_door(node, seen))
        response = await ask(channel, service_rpc.QUERY_ASSIGNMENT, request)
        assert len(response.assignments) == 1
        (passed_on, client_id), *_ = seen
        assert client_id == "a-client"
        assert passed_on.group.name == "group"
        assert passed_on.endpoints.addresses[0].host == "broker-a"

        request.topic.name = "missing"
        response = await ask(channel, service_rpc.QUERY_ASSIGNMENT, request)
        assert response.status.code == v2.TOPIC_NOT_FOUND

    on_a_namesrv(test)


def test_a_recall_is_passed_on_to_the_broker_that_has_the_message():
    async def test(network: Network, channel: SimulatedChannel) -> None:
        handle = RecallHandle("orders", "broker-a", 1_700_000_000_000, "an-id", 4096, 3)

        async def recall(text: str) -> service_pb2.RecallMessageResponse:
            request = service_pb2.RecallMessageRequest(topic=TOPIC, recall_handle=text)
            return await ask(channel, service_rpc.RECALL_MESSAGE, request)

        assert (await recall("no handle")).status.code == v2.BAD_REQUEST
        elsewhere = await recall(str(handle._replace(broker="broker-z")))
        assert elsewhere.status.code == v2.PROXY_TIMEOUT
        assert "broker-z" in elsewhere.status.message
        assert (await recall(str(handle))).status.code == v2.PROXY_TIMEOUT, "its broker does not answer"

        async def recall_message(
            request: service_pb2.RecallMessageRequest, call: Call
        ) -> service_pb2.RecallMessageResponse:
            assert request.topic == TOPIC
            assert call.metadata["x-mq-client-id"] == "a-client"
            return service_pb2.RecallMessageResponse(
                status=OK, message_id=RecallHandle.parse(request.recall_handle).message_id
            )

        async def open_door() -> None:
            engine = network.node("broker-a").engine()
            serve_unary(engine, service_rpc.RECALL_MESSAGE, recall_message)
            engine.listen(f"broker-a:{BROKER_PORT}")
            await engine.start()

        await network.node("broker-a").process.start(open_door())
        answer = await recall(str(handle))
        assert (answer.status.code, answer.message_id) == (v2.OK, "an-id")

    on_a_namesrv(test)


def test_a_lite_subscription_is_passed_on_to_all_brokers_of_the_topic():
    async def test(network: Network, channel: SimulatedChannel) -> None:
        await SimulatedBroker(network, "broker-b", ["namesrv-1"]).start({"orders": 1})
        await asyncio.sleep(1)
        seen: list[str] = []
        answers = {"broker-a": v2.OK, "broker-b": v2.OK}

        async def sync(topic: str = "orders") -> int:
            request = service_pb2.SyncLiteSubscriptionRequest(topic=v2.Resource(name=topic), lite_topic_set=["a"])
            return (await ask(channel, service_rpc.SYNC_LITE_SUBSCRIPTION, request)).status.code

        async def open_door(name: str) -> None:
            async def sync_lite_subscription(
                request: service_pb2.SyncLiteSubscriptionRequest, call: Call
            ) -> service_pb2.SyncLiteSubscriptionResponse:
                assert list(request.lite_topic_set) == ["a"]
                assert call.metadata["x-mq-client-id"] == "a-client"
                seen.append(name)
                return service_pb2.SyncLiteSubscriptionResponse(status=v2.Status(code=answers[name]))

            engine = network.node(name).engine()
            serve_unary(engine, service_rpc.SYNC_LITE_SUBSCRIPTION, sync_lite_subscription)
            engine.listen(f"{name}:{BROKER_PORT}")
            await engine.start()

        assert await sync("missing") == v2.TOPIC_NOT_FOUND
        assert await sync() == v2.PROXY_TIMEOUT, "no broker answers"
        await network.node("broker-b").process.start(open_door("broker-b"))
        assert await sync() == v2.OK, "one that is away hears of it later"
        await network.node("broker-a").process.start(open_door("broker-a"))
        seen.clear()
        assert await sync() == v2.OK
        assert sorted(seen) == ["broker-a", "broker-b"]
        answers["broker-b"] = v2.LITE_SUBSCRIPTION_QUOTA_EXCEEDED
        assert await sync() == v2.LITE_SUBSCRIPTION_QUOTA_EXCEEDED

    on_a_namesrv(test)


def test_a_route_is_watched_until_it_changes():
    async def test(network: Network, channel: SimulatedChannel) -> None:
        loop = asyncio.get_running_loop()

        async def watch(name: str, known_version: int, wait_s: int) -> routing_pb2.WatchRouteResponse:
            request = routing_pb2.WatchRouteRequest(
                topic=v2.Resource(name=name),
                known_version=known_version,
                max_wait=duration_pb2.Duration(seconds=wait_s),
            )
            return (await channel.unary(routing_rpc.WATCH_ROUTE, request, timeout_s=100)).message

        first = await watch("orders", 0, 30)
        assert len(first.message_queues) == 2
        began_s = loop.time()
        again = await watch("orders", first.version, 30)
        assert again == first
        assert loop.time() - began_s == pytest.approx(30, abs=0.1)

        began_s = loop.time()
        await watch("orders", first.version, 3600)
        assert loop.time() - began_s == pytest.approx(60, abs=0.1)

        missing = await watch("missing", 0, 0)
        assert missing.status.code == v2.TOPIC_NOT_FOUND
        waiting = asyncio.ensure_future(watch("missing", missing.version, 30))
        await asyncio.sleep(5)
        newcomer = SimulatedBroker(network, "broker-b", ["namesrv-1"])
        await newcomer.start({"missing": 1})
        assert len((await waiting).message_queues) == 1

    on_a_namesrv(test)


def test_garbage_is_refused():
    async def test(network: Network, channel: SimulatedChannel) -> None:
        garbage = UnaryMethod(service_rpc.QUERY_ROUTE.path, v2.Status, service_pb2.QueryRouteResponse)
        with pytest.raises(RpcError) as refused:
            await channel.unary(garbage, v2.Status(message="garbage"), timeout_s=3, metadata=HEADERS)
        assert refused.value.code is StatusCode.INVALID_ARGUMENT

    on_a_namesrv(test)
