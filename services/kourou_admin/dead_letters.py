"""Dead letters of a group on all brokers: listed, and given back to the group."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection

from kourou.names import dead_letter_topic
from kourou.protocol.apache.rocketmq.v2.definition_pb2 import Code, Resource, Status
from kourou.protocol.kourou.admin.v1.admin_pb2 import (
    BrokerDeadLetter,
    ListDeadLettersRequest,
    ListDeadLettersResponse,
    Outcome,
    ResendDeadLettersRequest,
    ResendDeadLettersResponse,
)
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou.protocol.kourou.routing.v1.routing_pb2 import BrokerInfo
from kourou_admin.cluster import Cluster
from kourou_admin.definitions import check_group_name
from kourou_admin.outcomes import merge, reading
from kourou_service.door import OK
from kourou_service.refusal import Refused

DEFAULT_LIMIT = 64
MAX_LETTERS = 256


class DeadLetters:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def list(self, request: ListDeadLettersRequest) -> ListDeadLettersResponse:
        check_group_name(request.group)
        if not 0 <= request.limit <= MAX_LETTERS:
            raise Refused(Code.BAD_REQUEST, f"the limit {request.limit} is not in 1 to {MAX_LETTERS}")
        question = broker_pb2.ListDeadLettersRequest(group=request.group, limit=request.limit or DEFAULT_LIMIT)
        leaders = await self._cluster.leaders()
        answers = await self._cluster.ask_all(leaders.values(), broker_rpc.LIST_DEAD_LETTERS, question)
        responses, failures = merge(answers)
        return ListDeadLettersResponse(
            status=reading(failures),
            letters=[
                BrokerDeadLetter(broker=broker, letter=letter)
                for broker, response in responses
                for letter in response.letters
            ],
            more_on=[broker for broker, response in responses if response.HasField("next_offset")],
            failures=failures,
        )

    async def resend(self, request: ResendDeadLettersRequest) -> AsyncGenerator[ResendDeadLettersResponse, None]:
        """Raises Refused when no broker knows the group, before anything is done."""
        check_group_name(request.group)
        leaders = await self._cluster.leaders()
        question = broker_pb2.ListDeadLettersRequest(group=request.group, limit=1)
        answers = await self._cluster.ask_all(leaders.values(), broker_rpc.LIST_DEAD_LETTERS, question)
        responses, failures = merge(answers)
        resent = 0
        missing = set(request.message_ids)
        for broker, _response in responses:
            async for report in self._resend_on(leaders[broker], request.group, request.message_ids, missing):
                resent += report.resent
                failures += report.failures
                yield report
        if missing:
            which = ", ".join(sorted(missing)[:3]) + (" and others" if len(missing) > 3 else "")
            gone = Status(code=Code.MESSAGE_NOT_FOUND, message=f"no such dead letter: {which}")
            failures.append(Outcome(status=gone))
        yield ResendDeadLettersResponse(status=_overall(failures, resent), failures=failures)

    async def _resend_on(
        self, broker: BrokerInfo, group: Resource, wanted: Collection[str], missing: set[str]
    ) -> AsyncGenerator[ResendDeadLettersResponse, None]:
        """Those that are there now: one that fails again meanwhile is a new letter, and stays. Takes from missing what
        was found."""
        end = await self._end(broker, group)
        next_offset: int | None = 0
        while next_offset is not None and next_offset < end:
            question = broker_pb2.ListDeadLettersRequest(group=group, from_offset=next_offset, limit=MAX_LETTERS)
            listing = await self._cluster.ask(broker, broker_rpc.LIST_DEAD_LETTERS, question)
            if listing.response is None:
                yield ResendDeadLettersResponse(status=OK, broker=broker.name, failures=[listing.outcome])
                return
            next_offset = listing.response.next_offset if listing.response.HasField("next_offset") else None
            letters = [letter for letter in listing.response.letters if letter.offset < end]
            chosen = {letter.offset: _id(letter) for letter in letters if not wanted or _id(letter) in wanted}
            if chosen:
                missing.difference_update(chosen.values())
                yield await self._resend(broker, group, chosen)

    async def _resend(self, broker: BrokerInfo, group: Resource, chosen: dict[int, str]) -> ResendDeadLettersResponse:
        """chosen: message ids by offset."""
        order = broker_pb2.ResendDeadLettersRequest(group=group, offsets=list(chosen))
        answer = await self._cluster.ask(broker, broker_rpc.RESEND_DEAD_LETTERS, order)
        if answer.response is None:
            return ResendDeadLettersResponse(status=OK, broker=broker.name, failures=[answer.outcome])
        results = list(zip(chosen.values(), answer.response.results, strict=True))
        failures = [
            Outcome(broker=broker.name, status=Status(code=result.code, message=f"{message_id}: {result.message}"))
            for message_id, result in results
            if result.code != Code.OK
        ]
        resent = len(results) - len(failures)
        return ResendDeadLettersResponse(status=OK, broker=broker.name, resent=resent, failures=failures)

    async def _end(self, broker: BrokerInfo, group: Resource) -> int:
        """The offset after the newest letter."""
        topic = Resource(resource_namespace=group.resource_namespace, name=dead_letter_topic(group.name))
        question = broker_pb2.DescribeQueuesRequest(topic=topic)
        answer = await self._cluster.ask(broker, broker_rpc.DESCRIBE_QUEUES, question)
        return max((queue.next_offset for queue in answer.response.queues), default=0) if answer.response else 0


def _id(letter: broker_pb2.DeadLetter) -> str:
    return letter.message.system_properties.message_id


def _overall(failures: list[Outcome], resent: int) -> Status:
    if not failures:
        return OK
    first = failures[0]
    where = f"{first.broker}: " if first.broker else ""
    if not resent and len(failures) == 1:
        return Status(code=first.status.code, message=f"{where}{first.status.message}")
    message = f"{resent} letters were resent, {len(failures)} things went wrong, first {where}{first.status.message}"
    return Status(code=Code.MULTIPLE_RESULTS, message=message)
