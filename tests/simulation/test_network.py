"""The simulated network itself: order, cuts, time-outs, and processes that vanish."""

import asyncio

import pytest
from grpc import StatusCode

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.apache.rocketmq.v2 import service_pb2, service_rpc
from kourou.transport import RpcError
from kourou_service.engine import StreamCall, UnaryCall
from tests.simulation.network import Network, Node
from tests.simulation.time import simulate

ADDRESS = "server:8081"


async def _serve(node: Node) -> None:
    engine = node.engine()

    def heartbeat(request: bytes, call: UnaryCall) -> None:
        assert call.metadata["x-mq-client-id"] == "me"
        answer = service_pb2.HeartbeatResponse(status=v2.Status(code=v2.OK, message=call.listener))
        call.reply(answer.SerializeToString(), [("seen", "yes")])

    async def telemetry(call: StreamCall) -> None:
        while (message := await call.receive()) is not None:
            await call.send(message)

    engine.unary(service_rpc.HEARTBEAT.path, heartbeat)
    engine.stream(service_rpc.TELEMETRY.path, telemetry)
    engine.listen(ADDRESS, name="local")
    await engine.start()


async def _heartbeat(network: Network, timeout_s: float = 3) -> str:
    channel = network.node("client").transport().channel(ADDRESS)
    reply = await channel.unary(
        service_rpc.HEARTBEAT, service_pb2.HeartbeatRequest(), timeout_s=timeout_s, metadata=[("x-mq-client-id", "me")]
    )
    assert reply.trailing == {"seen": "yes"}
    return reply.message.status.message


def _command(nonce: int) -> service_pb2.TelemetryCommand:
    return service_pb2.TelemetryCommand(status=v2.Status(message=str(nonce)))


def test_calls_streams_and_cuts():
    async def main() -> None:
        network = Network(seed=1)
        server = network.node("server")
        await server.process.start(_serve(server))
        assert await _heartbeat(network) == "local"

        stream = network.node("client").transport().channel(ADDRESS).bidi(service_rpc.TELEMETRY)
        for nonce in range(20):
            await stream.write(_command(nonce))
        echoed = [await stream.read() for _ in range(20)]
        assert [int(each.status.message) for each in echoed if each] == list(range(20))

        network.cut("client", "server")
        await stream.write(_command(20))
        with pytest.raises(RpcError) as timed_out:
            await _heartbeat(network)
        assert timed_out.value.code is StatusCode.DEADLINE_EXCEEDED
        with pytest.raises(RpcError) as unreachable:
            await _heartbeat(network, timeout_s=10)
        assert unreachable.value.code is StatusCode.UNAVAILABLE
        assert not unreachable.value.sent
        network.heal("client", "server")
        assert (await stream.read()) == _command(20)  # held, not lost
        await stream.done_writing()
        assert await stream.read() is None

    simulate(main())


def test_a_cut_that_lasts_breaks_the_stream():
    async def main() -> None:
        network = Network()
        server = network.node("server")
        await server.process.start(_serve(server))
        stream = network.node("client").transport().channel(ADDRESS).bidi(service_rpc.TELEMETRY)
        network.isolate("server")
        started_s = asyncio.get_running_loop().time()
        with pytest.raises(RpcError):
            await stream.read()
        assert asyncio.get_running_loop().time() - started_s == pytest.approx(network.options.keepalive_s, abs=0.1)

    simulate(main())


def test_a_killed_process_does_nothing_more_and_its_peers_see_it():
    async def main() -> None:
        network = Network()
        server = network.node("server")
        cleaned_up: list[str] = []

        async def work() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                cleaned_up.append("worked")

        await server.process.start(_serve(server))
        server.process.start(work())
        stream = network.node("client").transport().channel(ADDRESS).bidi(service_rpc.TELEMETRY)
        await stream.write(_command(1))
        await stream.read()
        server.kill()
        with pytest.raises(RpcError) as reset:
            await stream.read()
        assert reset.value.sent
        with pytest.raises(RpcError) as refused:
            await _heartbeat(network)
        assert not refused.value.sent
        await asyncio.sleep(100)
        assert cleaned_up == []

        await server.restart().start(_serve(server))
        assert await _heartbeat(network) == "local"

    simulate(main())
