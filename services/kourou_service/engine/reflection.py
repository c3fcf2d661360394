"""gRPC server reflection (v1 and v1alpha) on any engine, so that `grpcurl` and its like know our services.

Both versions have the same messages on the wire, so one handler serves both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection_pb2

from kourou.protocol.pool import POOL
from kourou_service.engine.health import SERVICE as HEALTH_SERVICE
from kourou_service.engine.interface import AbortCall, Engine, StatusCode, StreamCall

SERVICES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")

Request = reflection_pb2.ServerReflectionRequest
Response = reflection_pb2.ServerReflectionResponse


class Reflection:
    """Answers from `pools`, in this order."""

    def __init__(self, services: Iterable[str], pools: Sequence[DescriptorPool]) -> None:
        self._services = sorted(services)
        self._pools = pools

    async def serve(self, call: StreamCall) -> None:
        while (data := await call.receive()) is not None:
            try:
                request = Request.FromString(data)
            except DecodeError:
                raise AbortCall(StatusCode.INVALID_ARGUMENT, "not a ServerReflectionRequest") from None
            await call.send(self._answer(request).SerializeToString())

    def _answer(self, request: Request) -> Response:
        response = Response(valid_host=request.host, original_request=request)
        try:
            self._fill(request, response)
        except KeyError as missing:
            response.error_response.error_code = StatusCode.NOT_FOUND.value[0]
            response.error_response.error_message = f"not found: {missing.args[0]}"
        return response

    def _fill(self, request: Request, response: Response) -> None:
        match request.WhichOneof("message_request"):
            case "list_services":
                for name in self._services:
                    response.list_services_response.service.add(name=name)
            case "file_by_filename":
                _add_files(response, self._file(request.file_by_filename))
            case "file_containing_symbol":
                _add_files(response, self._file_of_symbol(request.file_containing_symbol))
            case "file_containing_extension":
                extension = request.file_containing_extension
                _add_files(response, self._file_of_extension(extension.containing_type, extension.extension_number))
            case "all_extension_numbers_of_type":
                name = request.all_extension_numbers_of_type
                response.all_extension_numbers_response.base_type_name = name
                response.all_extension_numbers_response.extension_number.extend(self._extension_numbers(name))
            case _:
                response.error_response.error_code = StatusCode.INVALID_ARGUMENT.value[0]
                response.error_response.error_message = "the request asks for nothing"

    def _file(self, name: str) -> FileDescriptor:
        for pool in self._pools:
            try:
                return pool.FindFileByName(name)
            except KeyError:
                continue
        raise KeyError(name)

    def _file_of_symbol(self, symbol: str) -> FileDescriptor:
        # Pools find no methods and fields, but what holds them.
        for name in (symbol, symbol.rpartition(".")[0]):
            for pool in self._pools:
                try:
                    return pool.FindFileContainingSymbol(name)
                except KeyError:
                    continue
        raise KeyError(symbol)

    def _file_of_extension(self, type_name: str, number: int) -> FileDescriptor:
        for pool in self._pools:
            try:
                extension: Any = pool.FindExtensionByNumber(pool.FindMessageTypeByName(type_name), number)
            except KeyError:
                continue
            return extension.file
        raise KeyError(f"extension {number} of {type_name}")

    def _extension_numbers(self, type_name: str) -> list[int]:
        for pool in self._pools:
            try:
                extended = pool.FindMessageTypeByName(type_name)
            except KeyError:
                continue
            return sorted(extension.number for extension in pool.FindAllExtensions(extended))
        raise KeyError(type_name)


def serve_reflection(engine: Engine, services: Iterable[str], pool: DescriptorPool = POOL) -> Reflection:
    """Registers both versions of the reflection service; `services` are the full names of ours, found in `pool`.

    Health checking and reflection itself are listed too; their descriptors come from protobuf's default pool.
    """
    reflection = Reflection((*services, HEALTH_SERVICE, *SERVICES), (pool, descriptor_pool.Default()))
    for service in SERVICES:
        engine.stream(f"/{service}/ServerReflectionInfo", reflection.serve)
    return reflection


def _add_files(response: Response, file: FileDescriptor) -> None:
    """The file and all it imports, each once, as descriptors."""
    seen: dict[str, FileDescriptor] = {}
    pending = [file]
    while pending:
        each = pending.pop()
        if each.name not in seen:
            seen[each.name] = each
            pending.extend(each.dependencies)
    for each in seen.values():
        response.file_descriptor_response.file_descriptor_proto.append(each.serialized_pb)
