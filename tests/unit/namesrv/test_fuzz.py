"""Whatever comes in at a NameServer's doors is answered or refused, and its routes stay as they are."""

import asyncio
import contextlib
from typing import Any

import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2, service_rpc
from kourou.protocol.kourou.registry.v1 import registry_pb2, registry_rpc
from kourou.protocol.kourou.routing.v1 import routing_rpc
from kourou.protocol.method import ServerStreamMethod, UnaryMethod
from kourou.transport import RpcError
from tests.simulation.client_side import SimulatedChannel
from tests.simulation.network import Network
from tests.unit.namesrv.test_access_point import TOPIC, ask, on_a_namesrv
from tests.unit.requests_by_chance import requests

METHODS = [
    method
    for module in (service_rpc, routing_rpc)
    for method in vars(module).values()
    if isinstance(method, UnaryMethod | ServerStreamMethod)
]
_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
_WORDS = {"topic.name": ("orders",), "group.name": ("team",), "topic.resource_namespace": ("",)}
_OF_OUR_FAULT = {v2.INTERNAL_ERROR, v2.INTERNAL_SERVER_ERROR}


@st.composite
def _calls(draw: st.DrawFn) -> tuple[Any, Any]:
    method = draw(st.sampled_from(METHODS))
    return method, draw(requests(method.request, lambda field: _WORDS.get(field, ())))


@given(calls=st.lists(_calls(), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None, suppress_health_check=_SLOW)
def test_any_request_is_answered(calls: list[tuple[Any, Any]]) -> None:
    async def test(network: Network, channel: SimulatedChannel) -> None:
        for method, request in calls:
            try:
                response = await ask(channel, method, request)
            except RpcError as problem:
                if problem.code.name not in ("INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "UNIMPLEMENTED"):
                    raise
            else:
                assert response.status.code not in _OF_OUR_FAULT, (method.path, response.status)
        route = await ask(channel, service_rpc.QUERY_ROUTE, service_pb2.QueryRouteRequest(topic=TOPIC))
        assert [queue.id for queue in route.message_queues] == [0, 1]

    with structlog.testing.capture_logs() as logs:
        on_a_namesrv(test)
    assert not [entry for entry in logs if entry["log_level"] in ("error", "critical")]


@given(
    frames=st.lists(requests(service_pb2.TelemetryCommand, lambda field: _WORDS.get(field, ())), max_size=6),
    client_id=st.sampled_from(("client", "", "x" * 300)),
)
@settings(max_examples=60, deadline=None, suppress_health_check=_SLOW)
def test_anything_on_a_telemetry_stream_is_taken(frames: list[service_pb2.TelemetryCommand], client_id: str) -> None:
    """Each time that a client tells its settings it is answered with settings, whatever else it says."""

    async def test(network: Network, channel: SimulatedChannel) -> None:
        stream = channel.bidi(service_rpc.TELEMETRY, metadata=[("x-mq-client-id", client_id)])
        for frame in frames:
            await stream.write(frame)
        await stream.done_writing()
        answers = list[service_pb2.TelemetryCommand]()
        while (answer := await stream.read()) is not None:
            answers.append(answer)
        if client_id == "client":
            assert [answer.HasField("settings") for answer in answers] == [
                True for frame in frames if frame.HasField("settings")
            ]
        else:
            assert [answer.status.code for answer in answers] == [v2.CLIENT_ID_REQUIRED]
        route = await ask(channel, service_rpc.QUERY_ROUTE, service_pb2.QueryRouteRequest(topic=TOPIC))
        assert [queue.id for queue in route.message_queues] == [0, 1]

    with structlog.testing.capture_logs() as logs:
        on_a_namesrv(test)
    assert not [entry for entry in logs if entry["log_level"] in ("error", "critical")]


@given(frames=st.lists(requests(registry_pb2.RegisterRequest, lambda _field: ("broker-z", "orders")), max_size=5))
@settings(max_examples=60, deadline=None, suppress_health_check=_SLOW)
def test_a_broker_that_says_anything_harms_no_other(frames: list[registry_pb2.RegisterRequest]) -> None:
    async def test(network: Network, channel: SimulatedChannel) -> None:
        stream = network.node("stranger").transport().channel("namesrv-1:9876").bidi(registry_rpc.REGISTER)
        with contextlib.suppress(RpcError):
            for frame in frames:
                await stream.write(frame)
        await asyncio.sleep(1)
        route = await ask(channel, service_rpc.QUERY_ROUTE, service_pb2.QueryRouteRequest(topic=TOPIC))
        assert {queue.id for queue in route.message_queues if queue.broker.name == "broker-a"} == {0, 1}

    with structlog.testing.capture_logs() as logs:
        on_a_namesrv(test)
    assert not [entry for entry in logs if entry["log_level"] in ("error", "critical")]
