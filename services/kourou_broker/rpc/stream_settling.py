"""Settle, of Stream.Consume: what becomes of the messages under leases."""

import asyncio
from collections.abc import Callable, Sequence

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.kourou.stream.v1 import stream_pb2
from kourou_broker.operations import receipt
from kourou_broker.operations.delivery import Deliveries
from kourou_broker.operations.journal import Journal
from kourou_broker.rpc.stream_deliveries import lease_of
from kourou_broker.state import State
from kourou_broker.state.definitions import Group, Topic
from kourou_broker.state.progress import Progress
from kourou_broker.state.records import Lease
from kourou_service.door import OK, reason, status
from kourou_service.engine import Call
from kourou_service.refusal import Refused
from kourou_service.wire_times import milliseconds

MAX_SETTLEMENTS = 4096
MAX_OFFSETS = 65_536
"""Named by one settlement."""

OnSettled = Callable[[stream_pb2.Settled], None]


class StreamSettling:
    def __init__(self, state: State, deliveries: Deliveries, journal: Journal) -> None:
        self._state = state
        self._deliveries = deliveries
        self._journal = journal

    def settle(
        self, group: Group, topic: Topic, request: stream_pb2.Settle, call: Call, on_settled: OnSettled
    ) -> asyncio.Task[None] | None:
        """on_settled is called when all of it is on the disk. -> a task that must live until then, for dead letters."""
        if not 0 < len(request.settlements) <= MAX_SETTLEMENTS:
            text = f"1 to {MAX_SETTLEMENTS} settlements can be in one request, not {len(request.settlements)}"
            on_settled(stream_pb2.Settled(number=request.number, status=status(definition_pb2.BAD_REQUEST, text)))
            return None
        settling = _Settling(self._state, self._deliveries, group, topic, request.number, call)
        if any(each.HasField("dead_letter") for each in request.settlements):
            return asyncio.create_task(self._settle_slowly(settling, request, on_settled))
        for each in request.settlements:
            settling.settle(each)
        self._answer(settling, on_settled)
        return None

    async def _settle_slowly(self, settling: "_Settling", request: stream_pb2.Settle, on_settled: OnSettled) -> None:
        for each in request.settlements:
            if each.HasField("dead_letter"):
                await settling.bury(each)
            else:
                settling.settle(each)
        self._answer(settling, on_settled)

    def _answer(self, settling: "_Settling", on_settled: OnSettled) -> None:
        answer = settling.answer()
        self._journal.when_durable(lambda: on_settled(answer))


class _Settling:
    """Of one request, a settlement after the other."""

    def __init__(
        self, state: State, deliveries: Deliveries, group: Group, topic: Topic, number: int, call: Call
    ) -> None:
        self._state = state
        self._deliveries = deliveries
        self._group = group
        self._topic = topic
        self._call = call
        self._results: list[definition_pb2.Status] = []
        self._answer = stream_pb2.Settled(number=number)

    def settle(self, settlement: stream_pb2.Settlement) -> None:
        try:
            progress, lease, offsets, all_held = self._held(settlement)
            match settlement.WhichOneof("outcome"):
                case "acknowledged":
                    self._deliveries.acknowledge(progress, offsets)
                case "again_after":
                    after_ms = milliseconds(settlement.again_after, definition_pb2.ILLEGAL_INVISIBLE_TIME)
                    anew, _ = self._deliveries.lend_anew(self._group, self._topic, progress, lease, offsets, after_ms)
                    if all_held:
                        self._answer.leases.append(lease_of(progress.queue, anew))
                case _:
                    raise Refused(definition_pb2.BAD_REQUEST, "a settlement has no outcome")
            self._add(all_held)
        except Exception as problem:
            self._results.append(reason(problem, self._call))

    async def bury(self, settlement: stream_pb2.Settlement) -> None:
        try:
            progress, lease, offsets, all_held = self._held(settlement)
            await self._deliveries.bury_held(self._group, self._topic, progress, lease, offsets)
            self._add(all_held)
        except Exception as problem:
            self._results.append(reason(problem, self._call))

    def answer(self) -> stream_pb2.Settled:
        results = self._results
        failed = [result for result in results if result.code != definition_pb2.OK]
        if not failed:
            self._answer.status.CopyFrom(OK)
        else:
            self._answer.results.extend(results)
            several = len(failed) < len(results)
            text = f"{len(failed)} of {len(results)} settlements failed: {failed[0].message}"
            self._answer.status.CopyFrom(status(definition_pb2.MULTIPLE_RESULTS, text) if several else failed[0])
        return self._answer

    def _add(self, all_held: bool) -> None:
        self._results.append(OK if all_held else reason(receipt.expired(), self._call))

    def _held(self, settlement: stream_pb2.Settlement) -> tuple[Progress, Lease, Sequence[int], bool]:
        """-> what the lease holds of the messages that are named, and whether that is all of them. Raises Refused."""
        self._deliveries.require_room()
        named = settlement.lease
        name = receipt.LeaseName(named.queue, named.incarnation, named.number)
        offsets = _offsets(settlement.ranges)
        progress, lease = receipt.find(self._state, self._group.id, self._topic.id, name, offsets)
        holders = list(map(progress.pending.get, offsets))
        if holders.count(lease) == len(holders):
            return progress, lease, offsets, True
        return progress, lease, [o for o, holder in zip(offsets, holders, strict=True) if holder is lease], False


def _offsets(ranges: Sequence[stream_pb2.OffsetRange]) -> Sequence[int]:
    """Raises Refused."""
    if not ranges or not all(each.count for each in ranges):
        raise Refused(definition_pb2.BAD_REQUEST, "a settlement names no message")
    if sum(each.count for each in ranges) > MAX_OFFSETS:
        raise Refused(definition_pb2.PAYLOAD_TOO_LARGE, f"over {MAX_OFFSETS} messages in one settlement")
    if len(ranges) == 1:
        return range(ranges[0].first, ranges[0].first + ranges[0].count)
    return sorted({offset for each in ranges for offset in range(each.first, each.first + each.count)})
