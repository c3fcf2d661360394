"""BrokerAdmin.ListDeadLetters and ResendDeadLetters."""

from kourou.protocol.apache.rocketmq.v2 import definition_pb2
from kourou.protocol.kourou.broker.v1 import broker_pb2, broker_rpc
from kourou_broker.operations.definitions import Definitions
from kourou_broker.operations.journal import Journal
from kourou_broker.operations.resending import Letter, Resending
from kourou_broker.rpc.delivered import Deliverer
from kourou_broker.state import State
from kourou_service.door import OK, serve_unary, status
from kourou_service.engine import Call, Engine
from kourou_service.refusal import Refused

_DEFAULT_LISTED = 64
_MAX_LETTERS = 256


class DeadLetterDoor:
    def __init__(
        self,
        state: State,
        definitions: Definitions,
        journal: Journal,
        resending: Resending,
        deliverer: Deliverer,
    ) -> None:
        self._state = state
        self._definitions = definitions
        self._journal = journal
        self._resending = resending
        self._deliverer = deliverer

    def open(self, engine: Engine) -> None:
        serve_unary(engine, broker_rpc.LIST_DEAD_LETTERS, self._list)
        serve_unary(engine, broker_rpc.RESEND_DEAD_LETTERS, self._resend)

    async def _list(self, request: broker_pb2.ListDeadLettersRequest, call: Call) -> broker_pb2.ListDeadLettersResponse:
        group = self._definitions.existing_group(request.group)
        if not 0 <= request.limit <= _MAX_LETTERS:
            raise Refused(definition_pb2.BAD_REQUEST, f"the limit {request.limit} is not in 1 to {_MAX_LETTERS}")
        letters = await self._resending.letters(group, request.from_offset, request.limit or _DEFAULT_LISTED)
        return broker_pb2.ListDeadLettersResponse(
            status=OK, letters=map(self._letter, letters.found), next_offset=letters.next_offset
        )

    async def _resend(
        self, request: broker_pb2.ResendDeadLettersRequest, call: Call
    ) -> broker_pb2.ResendDeadLettersResponse:
        group = self._definitions.existing_group(request.group)
        if not 0 < len(request.offsets) <= _MAX_LETTERS:
            raise Refused(
                definition_pb2.BAD_REQUEST,
                f"1 to {_MAX_LETTERS} letters can be resent at once, not {len(request.offsets)}",
            )
        results: list[definition_pb2.Status] = []
        for offset in request.offsets:
            try:
                await self._resending.resend(group, offset)
            except Refused as problem:
                results.append(status(problem.code, problem.message))
            else:
                results.append(OK)
        await self._journal.durable()
        failed = [result for result in results if result.code != definition_pb2.OK]
        return broker_pb2.ResendDeadLettersResponse(status=_overall(failed, len(results)), results=results)

    def _letter(self, letter: Letter) -> broker_pb2.DeadLetter:
        message = self._deliverer.found(letter.queue.id, letter.stored)
        shown = broker_pb2.DeadLetter(message=message, offset=letter.stored.offset, origin_queue=-1, origin_offset=-1)
        shown.origin_topic.name = message.system_properties.dead_letter_queue.topic
        if letter.origin is not None:
            topic_id, shown.origin_queue, shown.origin_offset = letter.origin
            topic = self._state.topics_by_id.get(topic_id)
            if topic is not None:
                shown.origin_topic.CopyFrom(topic.name.resource())
        return shown


def _overall(failed: list[definition_pb2.Status], letters: int) -> definition_pb2.Status:
    if not failed:
        return OK
    text = f"{len(failed)} of {letters} letters were not resent: {failed[0].message}"
    return status(definition_pb2.MULTIPLE_RESULTS, text)
