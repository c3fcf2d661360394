"""The settings that clients are told: in answer to their own, and again when their group has changed."""

import asyncio

from kourou.protocol.apache.rocketmq.v2 import definition_pb2, service_pb2
from kourou.protocol.kourou.log.v1 import record_pb2
from kourou_broker.operations.clients import Client, Clients
from kourou_broker.operations.journal import Journal
from kourou_broker.operations.slices import in_slices
from kourou_broker.state import State
from kourou_broker.state.definitions import Group, Name
from kourou_service.client_settings import GroupFacts, settings_answer
from kourou_service.lite_rules import subscription_quota


def answer(settings: definition_pb2.Settings, group: Group | None) -> service_pb2.TelemetryCommand:
    """To the settings of a client; group: that of a consumer."""
    if group is None:
        return settings_answer(settings)
    definition = group.definition
    facts = GroupFacts(
        definition.retry,
        fifo=definition.order == record_pb2.ORDER_FIFO,
        lite_subscription_quota=subscription_quota(definition.lite),
    )
    return settings_answer(settings, facts)


class ToldSettings:
    def __init__(self, state: State, clients: Clients, journal: Journal) -> None:
        self._state = state
        self._clients = clients
        self._journal = journal
        self._telling: set[asyncio.Task[None]] = set()

    def group_changed(self, name: Name) -> None:
        """Its members are told, as soon as the change is durable."""
        members = self._clients.members(name)
        if members and name in self._state.groups:
            self._journal.when_durable(lambda: self._tell_soon(name, members))

    def _tell_soon(self, name: Name, members: list[Client]) -> None:
        task = asyncio.get_running_loop().create_task(self._tell(name, members))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self, name: Name, members: list[Client]) -> None:
        async for client in in_slices(members):
            group = self._state.groups.get(name)
            if group is not None and client.group == name and client.settings:
                client.command(answer(definition_pb2.Settings.FromString(client.settings), group))
