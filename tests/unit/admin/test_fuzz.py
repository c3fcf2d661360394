"""Whatever is asked of the admin service is answered, and the cluster behind it, of real brokers, goes on."""

import asyncio
import random
from typing import Any

import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kourou.name_servers import NameServers
from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.admin.v1 import admin_pb2, admin_rpc
from kourou.protocol.method import ServerStreamMethod, UnaryMethod
from kourou.wire import Wire
from kourou_admin.brokers import Brokers
from kourou_admin.cluster import Cluster
from kourou_admin.commands import Commands
from kourou_admin.copies import GroupCopies, TopicCopies
from kourou_admin.dead_letters import DeadLetters
from kourou_admin.draining import Draining
from kourou_admin.groups import Groups
from kourou_admin.messages import Messages
from kourou_admin.progress import Progress
from kourou_admin.rpc import open_door
from kourou_admin.spreading import Spreading
from kourou_admin.topics import Topics
from tests.simulation.broker_cluster import BrokerMachine
from tests.simulation.direct import CallFailed, DirectEngine
from tests.simulation.namesrv_cluster import CLIENTS_PORT, SimulatedNamesrv
from tests.simulation.network import Network, resolve_within
from tests.simulation.time import Process, SimulatedClock, simulate
from tests.unit.requests_by_chance import requests

METHODS = [method for method in vars(admin_rpc).values() if isinstance(method, UnaryMethod | ServerStreamMethod)]
BROKERS = ("broker-a", "broker-b")
_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
_NAMES = ("orders", "team", "new", "%DLQ%team")
_WORDS = {
    ".brokers": BROKERS,
    ".broker": BROKERS,
    "at.broker": BROKERS,
    **{f"{field}.name": _NAMES for field in ("name", "topic", "topics", "group")},
    **{f"{field}.resource_namespace": ("",) for field in ("name", "topic", "topics", "group")},
}
_OF_OUR_FAULT = {v2.INTERNAL_ERROR, v2.INTERNAL_SERVER_ERROR}
_PATIENCE_S = 20.0
"""A drain goes on for as long as something is left."""


class Admin:
    """The door of an admin service on a network with two brokers."""

    async def start(self) -> None:
        network = Network(seed=3)
        resolve_within(network)
        await SimulatedNamesrv(network, "namesrv-1").start()
        self.brokers = [BrokerMachine(network, name, random.Random(1), ["namesrv-1"]) for name in BROKERS]
        for broker in self.brokers:
            await broker.start()
        wire = Wire(network.node("admin").transport(), "admin")
        cluster = Cluster(wire, NameServers([f"namesrv-1:{CLIENTS_PORT}"], wire), timeout_s=1.0)
        topics, groups, clock = TopicCopies(cluster), GroupCopies(cluster), SimulatedClock()
        self.engine = DirectEngine(Process("admin"))
        open_door(
            self.engine,
            Topics(cluster, topics, clock),
            Spreading(cluster, topics, groups),
            Groups(groups, clock, cluster),
            Brokers(cluster),
            Draining(cluster, topics),
            Progress(cluster),
            Messages(cluster, clock, 1.0),
            Commands(cluster, 1.0),
            DeadLetters(cluster),
        )
        await asyncio.sleep(1)
        await self.must(admin_rpc.CREATE_TOPIC, admin_pb2.CreateTopicRequest(name=v2.Resource(name="orders"), queues=2))
        await self.must(admin_rpc.CREATE_GROUP, admin_pb2.CreateGroupRequest(name=v2.Resource(name="team")))

    async def must(self, method: UnaryMethod[Any, Any], request: Any) -> Any:
        answer = await self.engine.call(method, request, {})
        assert answer.status.code == v2.OK, answer.status
        return answer

    async def ask(self, method: Any, request: Any) -> None:
        """It is answered with a code of its own, or goes on until the caller has enough."""
        call: Any = self.engine.call if isinstance(method, UnaryMethod) else self.engine.stream_call
        try:
            async with asyncio.timeout(_PATIENCE_S):
                answers = await call(method, request, {})
        except TimeoutError:
            assert method is admin_rpc.DRAIN_BROKER, f"{method.path} takes over {_PATIENCE_S} s"
            return
        except CallFailed as problem:
            if problem.code.name != "INVALID_ARGUMENT":
                raise
            return
        for answer in answers if isinstance(answers, list) else [answers]:
            assert answer.status.code not in _OF_OUR_FAULT, (method.path, answer.status)


@st.composite
def _calls(draw: st.DrawFn) -> tuple[Any, Any]:
    method = draw(st.sampled_from(METHODS))
    return method, draw(requests(method.request, lambda field: _WORDS.get(field, ())))


@given(calls=st.lists(_calls(), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None, suppress_health_check=_SLOW)
def test_any_request_is_answered(calls: list[tuple[Any, Any]]) -> None:
    async def test() -> None:
        admin = Admin()
        await admin.start()
        await asyncio.gather(*(admin.ask(method, request) for method, request in calls))
        for broker in BROKERS:
            permit = admin_pb2.SetBrokerPermissionRequest(broker=broker, permission=v2.READ_WRITE)
            await admin.must(admin_rpc.SET_BROKER_PERMISSION, permit)
        after = v2.Resource(name="after")
        await admin.must(admin_rpc.CREATE_TOPIC, admin_pb2.CreateTopicRequest(name=after))
        route = await admin.must(admin_rpc.GET_ROUTE, admin_pb2.GetRouteRequest(topic=after))
        assert {queue.broker.name for queue in route.message_queues} == set(BROKERS)

    with structlog.testing.capture_logs() as logs:
        simulate(test())
    assert not [entry for entry in logs if entry["log_level"] in ("error", "critical")]
