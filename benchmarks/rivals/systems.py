"""All who take part, and how some of them are chosen."""

from collections.abc import Sequence

from benchmarks.rivals import kafka, kourou, nats, rabbitmq, rocketmq
from benchmarks.rivals.system import Participant, System

SYSTEMS = (kourou.SYSTEM, rocketmq.SYSTEM, kafka.SYSTEM, nats.SYSTEM, rabbitmq.SYSTEM)
PARTICIPANTS: dict[str, tuple[System, Participant]] = {
    participant.name: (system, participant) for system in SYSTEMS for participant in system.participants
}


def choose(names: Sequence[str]) -> list[str]:
    """Those with these names, or with names that begin so (`kafka`, `kourou-sync`); without any, all. In our order.
    Raises ValueError for a name that fits none."""
    for name in names:
        if not any(_fits(participant, name) for participant in PARTICIPANTS):
            raise ValueError(f"nobody is called {name!r}: there are {', '.join(PARTICIPANTS)}")
    return [participant for participant in PARTICIPANTS if not names or any(_fits(participant, each) for each in names)]


def in_turn(names: Sequence[str], round_: int) -> list[str]:
    """Each round begins with another one, so that nobody always comes after the same."""
    first = round_ % len(names)
    return [*names[first:], *names[:first]]


def _fits(participant: str, name: str) -> bool:
    return participant == name or participant.startswith(name + "-")
