"""The figures of the domain on simulated time: heartbeats, scan, eviction, grace, readiness, resolution of names."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou_broker.state.definitions import Name
from tests.simulation.namesrv_cluster import BROKERS_PORT, SimulatedBroker, SimulatedClient, SimulatedNamesrv
from tests.simulation.network import Network
from tests.simulation.time import simulate

Scenario = Callable[[Network, SimulatedClient], Awaitable[None]]

NAMESRVS = ("namesrv-1", "namesrv-2")
TOPIC = "orders"


def simulated(scenario: Scenario) -> Callable[[], None]:
    """Makes a test of a scenario; it runs on simulated time, with a network and a client."""

    def test() -> None:
        async def main() -> None:
            network = Network(seed=7)
            await scenario(network, SimulatedClient(network))

        simulate(main())

    test.__name__, test.__doc__ = scenario.__name__, scenario.__doc__
    return test


async def cluster(
    network: Network, *, namesrvs: tuple[str, ...] = ("namesrv-1",), brokers: tuple[str, ...] = ("broker-a",)
) -> tuple[list[SimulatedNamesrv], list[SimulatedBroker]]:
    """Started, with TOPIC in 4 queues on every broker, and every broker known to the others."""
    started_namesrvs = [SimulatedNamesrv(network, name) for name in namesrvs]
    for namesrv in started_namesrvs:
        await namesrv.start()
    started = [SimulatedBroker(network, name, namesrvs) for name in brokers]
    for broker in started:
        await broker.start({TOPIC: 4})
    client = SimulatedClient(network)
    for namesrv in namesrvs:
        await client.becomes(namesrv, TOPIC, dict.fromkeys(brokers, 4), within_s=5)
    await asyncio.sleep(31)
    return started_namesrvs, started


@simulated
async def test_a_broker_heartbeats_every_30_s(network: Network, client: SimulatedClient):
    await cluster(network)
    heard_ms: set[int] = set()
    for _ in range(3000):
        heard_ms.add((await client.brokers("namesrv-1"))["broker-a"].last_heartbeat_ms // 100)
        await asyncio.sleep(0.1)
    times = sorted(heard_ms)
    gaps_s = [(later - earlier) / 10 for earlier, later in pairwise(times) if later - earlier > 5]
    assert 9 <= len(gaps_s) <= 11
    assert all(gap_s == pytest.approx(30, abs=0.3) for gap_s in gaps_s)


@simulated
async def test_a_change_is_there_at_once(network: Network, client: SimulatedClient):
    _, (broker,) = await cluster(network)
    broker.put_topic("new-topic", 3)
    assert await client.becomes("namesrv-1", "new-topic", {"broker-a": 3}, within_s=1) < 0.2
    broker.report.remove_topic(Name("", "new-topic"))
    await client.becomes("namesrv-1", "new-topic", {}, within_s=1)
    broker.report.set_permission(v2.READ)
    await client.becomes("namesrv-1", TOPIC, {"broker-a": 0}, within_s=1)


@simulated
async def test_a_broken_stream_hides_from_writers_after_15_s_and_evicts_after_120_s(
    network: Network, client: SimulatedClient
):
    _, (broker,) = await cluster(network)
    broker.node.kill()
    await asyncio.sleep(14)
    assert await client.queues("namesrv-1", TOPIC) == {"broker-a": 4}
    assert not (await client.brokers("namesrv-1"))["broker-a"].connected
    await client.becomes("namesrv-1", TOPIC, {"broker-a": 0}, within_s=2)
    response = await client.query_route("namesrv-1", TOPIC)
    assert {queue.permission for queue in response.message_queues} == {v2.READ}

    # Heard of at most 30 s before the kill, and looked for every 10 s.
    elapsed_s = await client.becomes("namesrv-1", TOPIC, {}, within_s=130) + 15
    assert 120 - 30 <= elapsed_s <= 120 + 10 + 1
    assert (await client.query_route("namesrv-1", TOPIC)).status.code == v2.TOPIC_NOT_FOUND
    assert "kourou topic create orders" in (await client.query_route("namesrv-1", TOPIC)).status.message


@simulated
async def test_silence_on_a_standing_stream_evicts_after_120_s(network: Network, client: SimulatedClient):
    await cluster(network)
    network.options.keepalive_s = 10_000  # nobody notices that the stream is dead
    network.cut("broker-a", "namesrv-1")
    await asyncio.sleep(120 - 30 - 1)
    assert await client.queues("namesrv-1", TOPIC) == {"broker-a": 4}
    await client.becomes("namesrv-1", TOPIC, {}, within_s=30 + 10 + 2)
    network.heal("broker-a", "namesrv-1")
    await client.becomes("namesrv-1", TOPIC, {"broker-a": 4}, within_s=35)


@simulated
async def test_a_broker_that_comes_back_within_the_grace_is_never_hidden(network: Network, client: SimulatedClient):
    _, (broker,) = await cluster(network)
    broker.node.kill()
    await asyncio.sleep(10)
    await broker.start({TOPIC: 4})
    for _ in range(300):
        assert await client.queues("namesrv-1", TOPIC) == {"broker-a": 4}
        await asyncio.sleep(0.1)


@simulated
async def test_a_goodbye_removes_at_once(network: Network, client: SimulatedClient):
    _, (broker, _) = await cluster(network, brokers=("broker-a", "broker-b"))
    await broker.stop()
    assert await client.queues("namesrv-1", TOPIC) == {"broker-b": 4}


@simulated
async def test_every_namesrv_gives_the_same_route(network: Network, client: SimulatedClient):
    await cluster(network, namesrvs=NAMESRVS, brokers=("broker-b", "broker-a", "broker-c"))
    answers = [await client.query_route(name, TOPIC) for name in NAMESRVS]
    assert answers[0] == answers[1]
    queues = [(queue.broker.name, queue.id) for queue in answers[0].message_queues]
    assert queues == [(name, number) for name in ("broker-a", "broker-b", "broker-c") for number in range(4)]


@simulated
async def test_one_namesrv_cut_off_does_not_disturb_the_other(network: Network, client: SimulatedClient):
    _, (broker,) = await cluster(network, namesrvs=NAMESRVS)
    network.cut("broker-a", "namesrv-1")
    broker.put_topic("new-topic", 2)
    await client.becomes("namesrv-2", "new-topic", {"broker-a": 2}, within_s=1)
    assert await client.queues("namesrv-1", "new-topic") == {}
    # The stream is found dead after the keep-alive, then comes the grace.
    await client.becomes("namesrv-1", TOPIC, {"broker-a": 0}, within_s=network.options.keepalive_s + 16)
    network.heal("broker-a", "namesrv-1")
    await client.becomes("namesrv-1", "new-topic", {"broker-a": 2}, within_s=10)
    assert broker.refusals == []


@simulated
async def test_all_namesrvs_down_then_back_empty_and_whole_within_seconds(network: Network, client: SimulatedClient):
    namesrvs, _ = await cluster(network, namesrvs=NAMESRVS, brokers=("broker-a", "broker-b"))
    for namesrv in namesrvs:
        namesrv.node.kill()
    await asyncio.sleep(600)
    for namesrv in namesrvs:
        await namesrv.start()
        # Never half a route: None (not open yet), then all of it.
        while (seen := await client.queues(namesrv.node.name, TOPIC)) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert seen == {"broker-a": 4, "broker-b": 4}
        assert namesrv.namesrv is not None
        assert asyncio.get_running_loop().time() < 700


@simulated
async def test_a_restarted_namesrv_waits_35_s_for_a_missing_broker(network: Network, client: SimulatedClient):
    (namesrv,), (broker, _) = await cluster(network, brokers=("broker-a", "broker-b"))
    broker.node.kill()
    namesrv.node.kill()
    await namesrv.start()
    await asyncio.sleep(34)
    assert await client.queues("namesrv-1", TOPIC) is None
    await asyncio.sleep(1.5)
    assert await client.queues("namesrv-1", TOPIC) == {"broker-b": 4}


@simulated
async def test_a_namesrv_nobody_registers_with_opens_after_35_s(network: Network, client: SimulatedClient):
    await SimulatedNamesrv(network, "namesrv-1").start()
    await asyncio.sleep(34)
    assert await client.queues("namesrv-1", TOPIC) is None
    await asyncio.sleep(1.5)
    assert await client.queues("namesrv-1", TOPIC) == {}


@simulated
async def test_a_namesrv_added_behind_a_name_is_found_within_30_s(network: Network, client: SimulatedClient):
    network.names["namesrv"] = ["namesrv-1"]
    await SimulatedNamesrv(network, "namesrv-1").start()
    broker = SimulatedBroker(network, "broker-a", ["namesrv"])
    await broker.start({TOPIC: 4})
    await client.becomes("namesrv-1", TOPIC, {"broker-a": 4}, within_s=5)

    await SimulatedNamesrv(network, "namesrv-2").start()
    network.names["namesrv"].append("namesrv-2")
    await client.becomes("namesrv-2", TOPIC, {"broker-a": 4}, within_s=31)
    del network.names["namesrv"]  # resolution fails: what was found stays
    await asyncio.sleep(300)
    assert sorted(broker.registration.accepted_by) == [f"{name}:{BROKERS_PORT}" for name in NAMESRVS]


@simulated
async def test_another_broker_with_the_name_is_refused_until_the_first_is_gone(
    network: Network, client: SimulatedClient
):
    _, (broker,) = await cluster(network)
    impostor = SimulatedBroker(network, "broker-a", ["namesrv-1"], node="elsewhere")
    await impostor.start({"stolen": 1})
    await asyncio.sleep(60)
    assert len(impostor.refusals) == 1
    assert "another broker with the name broker-a" in impostor.refusals[0]
    assert await client.queues("namesrv-1", "stolen") == {}
    assert await client.queues("namesrv-1", TOPIC) == {"broker-a": 4}

    await broker.stop()
    await client.becomes("namesrv-1", "stolen", {"broker-a": 1}, within_s=20)
    assert impostor.refusals[-1] == ""


@simulated
async def test_a_restart_of_the_same_broker_replaces_it_at_once(network: Network, client: SimulatedClient):
    _, (broker,) = await cluster(network)
    network.options.keepalive_s = 10_000
    network.cut("broker-a", "namesrv-1")  # so that the old stream stands
    broker.node.kill()
    await asyncio.sleep(5)
    network.heal("broker-a", "namesrv-1")
    await broker.start({TOPIC: 2})
    await client.becomes("namesrv-1", TOPIC, {"broker-a": 2}, within_s=1)
    assert broker.refusals == []


@simulated
async def test_brokers_follow_routes_and_keep_the_last_one_known(network: Network, client: SimulatedClient):
    (namesrv,), (first, second) = await cluster(network, brokers=("broker-a", "broker-b"))
    topic = Name("", TOPIC)
    assert [queue.broker.name for queue in first.routes.queues(topic, "local")] == ["broker-a"] * 4
    first.node.process.context.run(first.routes.follow, [topic], ["local"])
    await asyncio.sleep(1)
    whole = first.routes.queues(topic, "local")
    assert [queue.broker.name for queue in whole] == ["broker-a"] * 4 + ["broker-b"] * 4

    second.put_topic(TOPIC, 6)
    await asyncio.sleep(0.5)
    assert len(first.routes.queues(topic, "local")) == 10
    assert first.route_changes == [topic, topic]
    # By another listener, once somebody has come by it.
    await first.node.process.context.run(asyncio.ensure_future, first.routes.ask(topic, "other"))
    await asyncio.sleep(0.5)
    assert first.route_changes == [topic, topic, topic]
    namesrv.node.kill()
    await asyncio.sleep(600)
    for listener in ("local", "other"):
        assert len(first.routes.queues(topic, listener)) == 10
