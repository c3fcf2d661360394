"""Several brokers' outcomes as one status, and their readings as one list."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kourou.protocol.apache.rocketmq.v2.definition_pb2 import Code, Status
from kourou.protocol.kourou.admin.v1.admin_pb2 import Outcome
from kourou_admin.cluster import A, Answer
from kourou_service.door import OK
from kourou_service.refusal import Refused

# One broker may not hold what another does: no failure as long as one answers.
_ABSENT = frozenset(
    {
        Code.NOT_FOUND,
        Code.TOPIC_NOT_FOUND,
        Code.CONSUMER_GROUP_NOT_FOUND,
        Code.MESSAGE_NOT_FOUND,
        Code.OFFSET_NOT_FOUND,
    }
)


def succeeded(outcome: Outcome) -> bool:
    return outcome.status.code == Code.OK


def overall(outcomes: Sequence[Outcome]) -> Status:
    """OK when all succeeded, MULTIPLE_RESULTS when some did, else the first failure."""
    failed = [outcome for outcome in outcomes if not succeeded(outcome)]
    if not failed:
        return OK
    if len(failed) == len(outcomes):
        return failed[0].status
    details = "; ".join(f"{outcome.broker}: {outcome.status.message}" for outcome in failed)
    message = f"{len(outcomes) - len(failed)} of {len(outcomes)} brokers did it, the others not ({details})"
    return Status(code=Code.MULTIPLE_RESULTS, message=message)


def merge(answers: Iterable[Answer[A]]) -> tuple[list[tuple[str, A]], list[Outcome]]:
    """The responses by broker, and the failures. Raises Refused when there are only failures."""
    responses: list[tuple[str, A]] = []
    failures: list[Answer[A]] = []
    for answer in answers:
        if answer.response is None:
            failures.append(answer)
        else:
            responses.append((answer.broker, answer.response))
    if not responses and failures:
        # An unreachable broker says more than one that does not hold the thing, and may hold it.
        worst = min(failures, key=lambda answer: answer.status.code in _ABSENT)
        raise Refused(worst.status.code, worst.status.message)
    return responses, [answer.outcome for answer in failures if answer.status.code not in _ABSENT]


def reading(failures: Sequence[Outcome]) -> Status:
    """The status of a listing that lacks the brokers that failed."""
    if not failures:
        return OK
    missing = ", ".join(outcome.broker for outcome in failures)
    return Status(code=Code.MULTIPLE_RESULTS, message=f"without {missing}: {failures[0].status.message}")
