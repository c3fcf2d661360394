"""Health checking and reflection, on both engines."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc import StatusCode
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from kourou_service.engine import Engine
from kourou_service.engine.health import serve_health
from kourou_service.engine.reflection import serve_reflection
from tests.unit.engine.conftest import EOF

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class HealthClient:
    def __init__(self, channel: Any) -> None:
        coding = {
            "request_serializer": health_pb2.HealthCheckRequest.SerializeToString,
            "response_deserializer": health_pb2.HealthCheckResponse.FromString,
        }
        self._check = channel.unary_unary("/grpc.health.v1.Health/Check", **coding)
        self._watch = channel.unary_stream("/grpc.health.v1.Health/Watch", **coding)

    async def check(self, service: str) -> int:
        return (await self._check(health_pb2.HealthCheckRequest(service=service))).status

    def watch(self, service: str) -> Any:
        return self._watch(health_pb2.HealthCheckRequest(service=service))


async def test_check(engine: Engine, serve: Any) -> None:
    health = serve_health(engine, ["a.Service", "b.Service"])
    client = HealthClient(await serve(engine))
    for service in ("", "a.Service", "b.Service", "grpc.health.v1.Health"):
        assert await client.check(service) == SERVING
    health.set_serving(False, "a.Service")
    assert [await client.check(service) for service in ("", "a.Service")] == [SERVING, NOT_SERVING]
    health.set_serving(False)
    assert [await client.check(service) for service in ("", "b.Service")] == [NOT_SERVING] * 2
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.check("c.Service")
    assert caught.value.code() is StatusCode.NOT_FOUND


async def test_garbage_is_no_health_request(engine: Engine, serve: Any) -> None:
    serve_health(engine, [])
    channel = await serve(engine)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary("/grpc.health.v1.Health/Check")(b"\xff\xff")
    assert caught.value.code() is StatusCode.INVALID_ARGUMENT


async def test_watch_tells_each_change_and_ends_with_the_service(engine: Engine, serve: Any) -> None:
    health = serve_health(engine, ["a.Service"], serving=False)
    client = HealthClient(await serve(engine))
    known, unknown = client.watch("a.Service"), client.watch("b.Service")
    assert (await known.read()).status == NOT_SERVING
    assert (await unknown.read()).status == SERVICE_UNKNOWN
    health.set_serving(True)
    assert (await known.read()).status == SERVING
    health.set_serving(True)
    health.set_serving(True, "b.Service")
    assert (await unknown.read()).status == SERVING
    health.close()
    health.set_serving(True)
    for watch in (known, unknown):
        assert (await watch.read()).status == NOT_SERVING
        assert await watch.read() is EOF
    async with asyncio.timeout(5):
        await engine.stop(20)


OURS = "apache.rocketmq.v2.MessagingService"


class ReflectionClient:
    def __init__(self, channel: Any, version: str) -> None:
        self._call = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )()

    async def ask(self, **request: Any) -> Any:
        await self._call.write(reflection_pb2.ServerReflectionRequest(**request))
        return await self._call.read()

    async def files(self, **request: Any) -> dict[str, descriptor_pb2.FileDescriptorProto]:
        response = await self.ask(**request)
        files = map(
            descriptor_pb2.FileDescriptorProto.FromString, response.file_descriptor_response.file_descriptor_proto
        )
        return {file.name: file for file in files}


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection(engine: Engine, serve: Any, version: str) -> None:
    serve_reflection(engine, [OURS])
    client = ReflectionClient(await serve(engine), version)
    listed = await client.ask(list_services="*")
    names = [service.name for service in listed.list_services_response.service]
    assert OURS in names
    assert "grpc.health.v1.Health" in names

    by_symbol = await client.files(file_containing_symbol=OURS)
    assert set(by_symbol) >= {
        "apache/rocketmq/v2/service.proto",
        "apache/rocketmq/v2/definition.proto",
        "google/protobuf/timestamp.proto",
    }
    assert await client.files(file_by_filename="apache/rocketmq/v2/service.proto") == by_symbol
    assert await client.files(file_containing_symbol=f"{OURS}.SendMessage") == by_symbol
    (health,) = (await client.files(file_containing_symbol="grpc.health.v1.Health")).values()
    assert [service.name for service in health.service] == ["Health"]


@pytest.mark.parametrize(
    "request_",
    [
        {"file_by_filename": "none.proto"},
        {"file_containing_symbol": "no.Symbol"},
        {"file_containing_extension": {"containing_type": "no.Type", "extension_number": 1}},
        {"file_containing_extension": {"containing_type": OURS, "extension_number": 1}},
        {"all_extension_numbers_of_type": "no.Type"},
        {},
    ],
)
async def test_what_reflection_does_not_know(engine: Engine, serve: Any, request_: dict[str, Any]) -> None:
    serve_reflection(engine, [OURS])
    client = ReflectionClient(await serve(engine), "v1")
    assert (await client.ask(**request_)).error_response.error_code in (
        StatusCode.NOT_FOUND.value[0],
        StatusCode.INVALID_ARGUMENT.value[0],
    )
    extensions = await client.ask(all_extension_numbers_of_type="apache.rocketmq.v2.Message")
    assert list(extensions.all_extension_numbers_response.extension_number) == []
