"""Spreading: topics come to brokers that do not have them yet, as after a shard was added."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from kourou.names import dead_letter_group
from kourou.protocol.apache.rocketmq.v2.definition_pb2 import Code, Resource
from kourou.protocol.kourou.admin.v1.admin_pb2 import SpreadTopicsRequest, SpreadTopicsResponse
from kourou.protocol.kourou.log.v1.record_pb2 import Topic
from kourou_admin.cluster import Cluster, pick
from kourou_admin.copies import GroupCopies, TopicCopies
from kourou_admin.definitions import Census, check_topic_name, key
from kourou_admin.outcomes import overall, succeeded
from kourou_service.refusal import Refused


class Spreading:
    def __init__(self, cluster: Cluster, topics: TopicCopies, groups: GroupCopies) -> None:
        self._cluster = cluster
        self._topics = topics
        self._groups = groups

    async def spread(self, request: SpreadTopicsRequest) -> AsyncGenerator[SpreadTopicsResponse, None]:
        """One response a topic. Raises Refused for a topic or broker that is not there, before anything is done."""
        for name in request.topics:
            check_topic_name(name)
        # First the groups: a consumer comes to the new queues as soon as they are in the route.
        await self._groups.level()
        async with self._topics.changing:
            census = await self._topics.census()
            targets = pick(census.leaders, request.brokers)
            topics = _chosen(census, request.topics)
            if not topics:
                raise Refused(Code.TOPIC_NOT_FOUND, "there is no topic yet that could be spread")
            for done, topic in enumerate(topics, start=1):
                lacking = targets.keys() - census.holding(topic.name).holders
                outcomes = await self._topics.put(census, lacking, topic)
                if done == len(topics):
                    # The others are in the routes by then, too: brokers report in order.
                    new = [outcome.broker for outcome in outcomes if succeeded(outcome)]
                    await self._cluster.wait_for_route(topic.name, new)
                yield SpreadTopicsResponse(
                    status=overall(outcomes), topic=topic.name, outcomes=outcomes, done=done, total=len(topics)
                )


def _chosen(census: Census[Topic], names: Sequence[Resource]) -> list[Topic]:
    """The topics of these names, or all but dead-letter topics, which a broker makes when it needs them."""
    if not names:
        live = (holding.live for _, holding in sorted(census.holdings.items()))
        return [topic for topic in live if topic is not None and dead_letter_group(topic.name.name) is None]
    chosen: dict[tuple[str, str], Topic] = {}
    for name in names:
        live = census.holding(name).live
        if live is None:
            raise census.unknown(Code.TOPIC_NOT_FOUND, "topic", name)
        chosen[key(name)] = live
    return list(chosen.values())
