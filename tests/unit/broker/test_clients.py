"""Who is in which group, and what is consumed: kept up to date at every change, never searched for."""

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou_broker.operations.clients import Client, Clients
from kourou_broker.state.definitions import Name
from tests.unit.broker.alone import settings_command

GROUPS, TOPICS = [Name("", name) for name in "gh"], [Name("", name) for name in "tuv"]
TYPES = (definition_pb2.PUSH_CONSUMER, definition_pb2.SIMPLE_CONSUMER, definition_pb2.PRODUCER)
STEP = st.tuples(
    st.sampled_from(("join", "configure", "leave")),
    st.sampled_from("abcde"),
    st.sampled_from(TYPES),
    st.sampled_from(GROUPS),
    st.sets(st.sampled_from(TOPICS)),
)


@given(steps=st.lists(STEP, max_size=30))
def test_what_is_kept_of_groups_is_what_a_walk_over_all_clients_finds(steps: list[Any]) -> None:
    async def run() -> None:
        clients = Clients(silence_s=60, stream_grace_s=5, max_clients=100)
        changed: set[Name] = set()
        followed: set[Name] = set()

        def follow() -> None:
            followed.clear()
            followed.update(clients.consumed_topics())

        clients.on_group_change = changed.add
        clients.on_topics_change = follow
        for what, id_, type_, group, topics in steps:
            before = _groups(clients)
            changed.clear()
            if what == "leave":
                clients.leave(id_)
            elif what == "configure":
                command = settings_command(type_, group.name, [topic.name for topic in topics])
                clients.configure(clients.touch(id_, _Caller()), command.settings)
            elif type_ != definition_pb2.PRODUCER:
                clients.join(clients.touch(id_, _Caller()), type_, group, next(iter(topics), None))
            after = _groups(clients)
            for group in GROUPS:
                assert clients.members(group) == [client for _id, client in sorted(after[group].items())]
                assert clients.has_simple_consumer(group) == any(c.is_simple_consumer for c in after[group].values())
                for topic in TOPICS:
                    assert list(clients.push_consumers(group, topic)) == sorted(
                        id_ for id_, c in after[group].items() if c.is_push_consumer and topic in c.subscriptions
                    )
                if before[group].keys() != after[group].keys():
                    assert group in changed
            consumed = {topic for group in GROUPS for client in after[group].values() for topic in client.subscriptions}
            assert followed == consumed == set(clients.consumed_topics())
        clients.close()

    asyncio.run(run())


class _Caller:
    peer = "sim"


def _groups(clients: Clients) -> dict[Name, dict[str, Client]]:
    return {group: {client.id: client for client in clients if client.group == group} for group in GROUPS}
