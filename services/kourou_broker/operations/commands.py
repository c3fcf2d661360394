"""Commands to single clients by their telemetry streams. A nonce tells which command an answer is to."""

import asyncio
import secrets
from typing import NamedTuple

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2
from kourou.protocol.apache.rocketmq.v2.service_pb2 import (
    PrintThreadStackTraceCommand,
    ReconnectEndpointsCommand,
    TelemetryCommand,
    VerifyMessageCommand,
)
from kourou_broker.operations.clients import Client, Clients
from kourou_service.metrics.calls import name_of
from kourou_service.refusal import Refused

ANSWER_WITHIN_S = 5.0


class _Asked(NamedTuple):
    client: Client
    answer: asyncio.Future[TelemetryCommand]


class Commands:
    """Each raises Refused for a client that is unknown, has no stream, does not answer, or says that it cannot."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._asked: dict[str, _Asked] = {}
        """By nonce."""

    async def stack_trace(self, client_id: str) -> str:
        """What all threads of the client are doing, in the words of its language."""
        nonce = _new_nonce()
        command = TelemetryCommand(print_thread_stack_trace_command=PrintThreadStackTraceCommand(nonce=nonce))
        answer = await self._ask(client_id, nonce, command)
        return answer.thread_stack_trace.thread_stack_trace

    async def verify(self, client_id: str, message: definition_pb2.Message) -> None:
        """Gives the message to the listener of a push consumer. Returns when it took it; nobody's progress changes."""
        nonce = _new_nonce()
        command = TelemetryCommand(verify_message_command=VerifyMessageCommand(nonce=nonce, message=message))
        await self._ask(client_id, nonce, command)

    def reconnect(self, client_id: str) -> None:
        """Tells the client to open its connections anew; it does not answer that."""
        command = ReconnectEndpointsCommand(nonce=_new_nonce())
        _send(self._client(client_id), TelemetryCommand(reconnect_endpoints_command=command))

    def answered(self, client: Client, answer: TelemetryCommand) -> None:
        """A client sent what may be an answer; to what was not asked of it, or long ago, it is none."""
        asked = self._asked.get(_nonce_of(answer))
        if asked is not None and asked.client is client and not asked.answer.done():
            asked.answer.set_result(answer)

    async def _ask(self, client_id: str, nonce: str, command: TelemetryCommand) -> TelemetryCommand:
        client = self._client(client_id)
        asked = self._asked[nonce] = _Asked(client, asyncio.get_running_loop().create_future())
        try:
            _send(client, command)
            async with asyncio.timeout(ANSWER_WITHIN_S):
                answer = await asked.answer
        except TimeoutError:
            raise Refused(
                definition_pb2.REQUEST_TIMEOUT,
                f"client {client_id} gave no answer within {ANSWER_WITHIN_S:g} s; not all clients answer this command",
            ) from None
        finally:
            del self._asked[nonce]
        if answer.HasField("status") and answer.status.code != definition_pb2.OK:
            raise Refused(
                answer.status.code,
                f"client {client_id} answered: {answer.status.message or name_of(answer.status.code)}",
            )
        return answer

    def _client(self, client_id: str) -> Client:
        client = self._clients.get(client_id)
        if client is None:
            raise Refused(definition_pb2.NOT_FOUND, f"no client {client_id!r} is connected to this broker")
        return client


def _send(client: Client, command: TelemetryCommand) -> None:
    if not client.command(command):
        raise Refused(
            definition_pb2.PRECONDITION_FAILED,
            f"client {client.id} has no telemetry stream to this broker, or does not read what it is sent",
        )


def _nonce_of(answer: service_pb2.TelemetryCommand) -> str:
    """The nonce is all that both kinds of answers must have."""
    return answer.thread_stack_trace.nonce or answer.verify_message_result.nonce


def _new_nonce() -> str:
    return secrets.token_hex(16)
