"""The broker as a member of its cluster: what it tells the NameServers, and what it hears from them."""

from collections.abc import Iterable, Mapping, Sequence

from kourou.protocol.apache.rocketmq.v2 import definition_pb2 as v2
from kourou.protocol.kourou.log.v1 import record_pb2
from kourou.protocol.kourou.registry.v1 import registry_pb2
from kourou.resolver import Resolver
from kourou.transport import Transport
from kourou_broker.core import BrokerCore
from kourou_broker.operations.assignment import QueueId
from kourou_broker.operations.definitions import can_read
from kourou_broker.registration import Registration
from kourou_broker.report import BrokerReport
from kourou_broker.routes import Peers, Routes
from kourou_broker.settings import BrokerSettings
from kourou_broker.state import records
from kourou_broker.state.definitions import Name, Topic
from kourou_service.refusal import Refused


class Membership:
    def __init__(
        self, core: BrokerCore, report: BrokerReport, settings: BrokerSettings, namesrvs: Resolver, transport: Transport
    ) -> None:
        self._core = core
        self._report = report
        self._listener = settings.listeners[0].name
        self.registration = Registration(
            report,
            namesrvs,
            transport,
            self._refused,
            heartbeat_interval_s=settings.heartbeat_interval_s,
        )
        self._peers = Peers(namesrvs, transport, self._met)
        self.routes = Routes(report, namesrvs, transport, core.deliveries.route_changed)
        self._namesrvs = namesrvs
        self._sorted: dict[Name, tuple[Sequence[v2.MessageQueue], list[QueueId]]] = {}
        """Of each topic that was asked for, the route and what it comes to: it is asked at every join."""
        for topic in core.state.topics.values():
            report.put_topic(_state_of(topic))
        report.set_known_brokers(core.state.broker.known_brokers)
        core.definitions.on_topic = self._topic_changed
        core.assignments.route = self._route
        core.clients.on_topics_change = self._follow

    async def start(self) -> None:
        await self.registration.start()
        self._peers.start()

    async def stop(self) -> None:
        """Says goodbye."""
        self._peers.close()
        self.routes.close()
        await self.registration.stop()
        await self._namesrvs.close()

    def _refused(self, reason: str) -> None:
        """A broker that a NameServer does not take must not take messages either: nobody would find them."""
        self._core.sending.refused_reason = reason

    def forget(self, broker: str) -> None:
        """Strikes a peer from those that are known. Raises Refused for this broker itself."""
        if broker == self._report.broker_name:
            raise Refused(v2.BAD_REQUEST, f"{broker} cannot forget itself")
        self._core.journal.require_room()
        self._know({*self._core.state.broker.known_brokers} - {broker})

    def _met(self, permissions: Mapping[str, v2.Permission]) -> None:
        """Peers are kept in the log, so that a NameServer that starts knows whom to wait for.

        One that permits nothing was taken out of the cluster: nobody waits for it.
        """
        drained = {name for name, permission in permissions.items() if permission == v2.NONE}
        if self._core.journal.has_room:
            self._know({*self._core.state.broker.known_brokers, *permissions} - drained)

    def _know(self, brokers: Iterable[str]) -> None:
        known = sorted({*brokers, self._report.broker_name})
        if known != self._core.state.broker.known_brokers:
            changed = record_pb2.Broker()
            changed.CopyFrom(self._core.state.broker)
            changed.known_brokers[:] = known
            self._core.journal.emit(records.broker(changed))
            self._report.set_known_brokers(known)

    def _topic_changed(self, name: Name) -> None:
        self._report.set_permission(self._core.state.broker.permission)
        topic = self._core.state.topics.get(name)
        if topic is not None:
            self._report.put_topic(_state_of(topic))
        else:
            self._report.remove_topic(name)
            self._sorted.pop(name, None)
        self._follow()
        self._core.topic_changed(name)

    def _follow(self) -> None:
        """Routes are followed for this broker's topics that somebody consumes here, whatever else clients may name."""
        known = self._core.state.topics
        self.routes.follow(filter(known.__contains__, self._core.clients.consumed_topics()), [self._listener])

    def _route(self, topic: Topic) -> list[QueueId]:
        queues = self.routes.queues(topic.name, self._listener)
        known = self._sorted.get(topic.name)
        if known is None or known[0] is not queues:
            readable = (queue for queue in queues if can_read(queue.permission))
            known = queues, sorted(QueueId(queue.broker.name, queue.id) for queue in readable)
            self._sorted[topic.name] = known
        return known[1]


def _state_of(topic: Topic) -> registry_pb2.TopicState:
    definition = topic.definition
    return registry_pb2.TopicState(
        topic=definition.name,
        type=definition.type,
        queues=definition.queues,
        permission=definition.permission,
        version=definition.version,
    )
