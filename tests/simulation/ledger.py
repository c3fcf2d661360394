"""What the clients of one broker know, and what must therefore hold: the invariants of the simulated cluster.

The ledger learns only what a client can see. A request whose broker died has an unknown outcome, and both are allowed;
everything else is checked at once, so that a failure stands where it happened.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from kourou.protocol.apache.rocketmq.v2 import definition_pb2

DEAD_LETTERS = "%DLQ%"


class Place(NamedTuple):
    """Messages are counted by it. One that is sent again to a broker that knows its id stays where it is."""

    topic: str
    queue: int
    offset: int


@dataclass(slots=True)
class Sent:
    id: str
    topic: str
    body: bytes
    tag: str
    batch: list[str]
    outcome: str = "open"  # stored, refused, unknown
    place: Place | None = None


@dataclass(slots=True)
class Hold:
    """The newest delivery of a message to a group."""

    handle: str
    attempt: int
    until_s: float
    run: int
    moment: int
    client: str = ""
    certain: bool = False
    """Whether the lease is surely on the disk."""
    in_flight: int = 0
    void: bool = False
    """An offset was set since, or perhaps was: the handle may be good, or not."""


@dataclass(slots=True)
class GroupView:
    name: str
    max_attempts: int
    tags: frozenset[str] | None = None
    lite: bool = False
    """It reads lite topics, and nothing else."""
    settled: dict[Place, str] = field(default_factory=dict[Place, str])
    maybe_settled: set[Place] = field(default_factory=set[Place])
    holds: dict[Place, Hold] = field(default_factory=dict[Place, Hold])
    skipped_below: dict[tuple[str, int], int] = field(default_factory=dict[tuple[str, int], int])
    resets: Counter[tuple[str, int]] = field(default_factory=Counter[tuple[str, int]])
    """Begun and ended resets of a queue: odd while one is under way."""
    letters: Counter[str] = field(default_factory=Counter[str])
    resent: set[Place] = field(default_factory=set[Place])
    """Messages whose dead letters were given back: they wait for newer ones of their message group that are lent."""

    reset_letters: bool = False
    in_doubt: set[Place] = field(default_factory=set[Place])
    """Settled before an offset was set that is not confirmed."""

    def matches(self, tag: str) -> bool:
        return self.tags is None or tag in self.tags

    def version(self, place: Place) -> int:
        return self.resets[place.topic, place.queue]


class Claim(NamedTuple):
    """A request under way that would settle a message or lend it anew."""

    place: Place
    handle: str
    issued_moment: int
    version: int
    current: bool
    settled: bool
    valid: bool
    """It must succeed, unless the broker dies."""


class Ledger:
    def __init__(self, broker: str) -> None:
        self.broker = broker
        self.sent: dict[str, Sent] = {}
        self.at: dict[Place, str] = {}
        self.ends: defaultdict[tuple[str, int], int] = defaultdict(int)
        """By queue, the offset after the last message that is known to be there."""
        self.groups: dict[str, GroupView] = {}
        self.run = 0
        self.moment = 0
        self.durable_moment = 0
        self.counts: Counter[str] = Counter()

    # The broker comes and goes.

    def started(self) -> None:
        self.run += 1
        self.durable_moment = self.moment

    def died(self, *, cleanly: bool = False) -> None:
        for group in self.groups.values():
            for hold in group.holds.values():
                if hold.run == self.run:
                    hold.certain = cleanly or hold.moment <= self.durable_moment

    def tick(self) -> int:
        self.moment += 1
        return self.moment

    def durable(self, issued_moment: int) -> None:
        """An answer that waits for the disk came: what was recorded before it was asked for is there."""
        self.durable_moment = max(self.durable_moment, issued_moment)

    # Sending

    def sending(self, messages: list[Sent]) -> dict[tuple[str, int], int]:
        """Those that are sent again are where they were: only new ones have to come after what is there."""
        ends = {} if messages[0].id in self.sent else dict(self.ends)
        for message in messages:
            self.sent[message.id] = message
            if message.outcome == "refused":
                message.outcome = "open"
        return ends

    def stored(self, messages: list[Sent], offsets: list[int], queue: int, ends: dict[tuple[str, int], int]) -> None:
        assert offsets == list(range(offsets[0], offsets[0] + len(offsets))), "a batch is not in consecutive places"
        topic = messages[0].topic
        known_end = ends.get((topic, queue), 0)
        assert offsets[0] >= known_end, f"{topic}/{queue}: stored at {offsets[0]}, though it went on to {known_end}"
        for message, offset in zip(messages, offsets, strict=True):
            message.outcome = "stored"
            self._found(message, Place(topic, queue, offset))
        self.counts["stored"] += len(messages)

    def not_stored(self, messages: list[Sent], outcome: str) -> None:
        for message in messages:
            if message.outcome != "stored":  # by an earlier call
                message.outcome = outcome

    def _found(self, message: Sent, place: Place) -> None:
        there = self.at.setdefault(place, message.id)
        assert there == message.id, f"{place} holds {message.id}, and held {there}"
        assert message.place in (None, place), f"{message.id} is at {place} and at {message.place}"
        message.place = place
        self.ends[place.topic, place.queue] = max(self.ends[place.topic, place.queue], place.offset + 1)

    def seen(self, topic: str, message: definition_pb2.Message) -> Place:
        """A message was read: it is what was sent, and where it was before."""
        system = message.system_properties
        place = Place(topic, system.queue_id, system.queue_offset)
        known = self.sent.get(system.message_id)
        assert known is not None, f"{place} holds {system.message_id}, which nobody sent"
        assert message.body == known.body, f"{place}: the body of {known.id} is not what was sent"
        assert system.tag == known.tag
        if topic.startswith(DEAD_LETTERS):
            there = self.at.setdefault(place, known.id)
            assert there == known.id, f"{place} holds {known.id}, and held {there}"
            return place
        assert known.topic == topic, f"{known.id} was sent to {known.topic} and came from {topic}"
        assert known.outcome != "refused", f"{known.id} was refused, and is there"
        self._found(known, place)
        return place

    # Consuming

    def delivered(
        self, group: GroupView, topic: str, message: definition_pb2.Message, until_s: float, client: str, *, again: bool
    ) -> Place:
        """`again`: under the attempt id of an earlier call, so it may have come under the same handle."""
        place = self.seen(topic, message)
        system = message.system_properties
        fate = group.settled.get(place)
        assert fate is None, f"{group.name}: {place} was {fate}, which was confirmed, and came again"
        assert 1 <= system.delivery_attempt <= group.max_attempts, (
            f"{group.name}: {place} came in attempt {system.delivery_attempt} of {group.max_attempts}"
        )
        if topic == place.topic and not topic.startswith(DEAD_LETTERS):
            assert group.matches(system.tag), f"{group.name}: {place} with tag {system.tag!r} passed the filter"
        before = group.holds.get(place)
        if before is not None and before.handle == system.receipt_handle:
            assert again, f"{group.name}: {place} came twice under one handle"
        group.holds[place] = Hold(
            system.receipt_handle, system.delivery_attempt, until_s, self.run, self.tick(), client
        )
        self.counts["delivered"] += 1
        return place

    def claim(self, group: GroupView, place: Place, handle: str, now_s: float, *, renewed: bool) -> Claim:
        """A request with the handle goes out; `renewed`: the lease lasts as long as its client."""
        hold = group.holds.get(place)
        version = group.version(place)
        current = hold is not None and hold.handle == handle
        newer_counts = hold is not None and not hold.void and (hold.run == self.run or hold.certain)
        valid = (
            hold is not None
            and current
            and place not in group.settled
            and place not in group.maybe_settled
            and hold.run == self.run
            and not hold.in_flight
            and not hold.void
            and version % 2 == 0
            and (renewed or now_s < hold.until_s)
        )
        if hold is not None and current:
            hold.in_flight += 1
        return Claim(place, handle, self.tick(), version, current or not newer_counts, place in group.settled, valid)

    def claim_ends(self, group: GroupView, claim: Claim) -> None:
        hold = group.holds.get(claim.place)
        if hold is not None and hold.handle == claim.handle:
            hold.in_flight -= 1

    def honoured(self, group: GroupView, claim: Claim, what: str) -> None:
        assert claim.current, f"{group.name}: {claim.place} was {what} with a handle that a newer one replaced"
        assert not claim.settled, f"{group.name}: {claim.place} was {what} after it was settled"

    def settled(self, group: GroupView, claim: Claim, fate: str) -> None:
        """The broker said so, and it is on the disk."""
        self.honoured(group, claim, fate)
        self.durable(claim.issued_moment)
        self.counts[fate] += 1
        if claim.version == group.version(claim.place) and claim.version % 2 == 0:
            group.settled[claim.place] = fate
        else:
            group.maybe_settled.add(claim.place)

    def refused(self, group: GroupView, claim: Claim, what: str) -> None:
        assert not claim.valid or claim.version != group.version(claim.place), (
            f"{group.name}: {claim.place} could not be {what}, though the handle was good"
        )

    def unknown(self, group: GroupView, claim: Claim) -> None:
        if not claim.settled:
            group.maybe_settled.add(claim.place)

    def renewed(self, group: GroupView, claim: Claim, handle: str, until_s: float) -> None:
        self.honoured(group, claim, "renewed")
        hold = group.holds.get(claim.place)
        if hold is None or hold.handle != claim.handle:
            return  # it was delivered again meanwhile
        group.holds[claim.place] = Hold(handle, hold.attempt, until_s, self.run, self.tick(), hold.client)

    # Resets

    def reset_begins(self, group: GroupView, topic: str, queue: int, offset: int) -> None:
        group.resets[topic, queue] += 1
        group.skipped_below[topic, queue] = max(offset, group.skipped_below.get((topic, queue), 0))
        group.reset_letters = True
        self._forget_settled(group, topic, queue, offset)

    def reset_ends(self, group: GroupView, topic: str, queue: int, offset: int, *, surely: bool) -> None:
        """Not `surely`: it was refused, or the broker died."""
        group.resets[topic, queue] += 1
        self._forget_settled(group, topic, queue, offset)
        if surely:
            self.counts["resets"] += 1
        else:
            group.maybe_settled |= group.in_doubt
        group.in_doubt.clear()
        for place, hold in group.holds.items():
            if place[:2] == (topic, queue):
                hold.void = True

    def _forget_settled(self, group: GroupView, topic: str, queue: int, offset: int) -> None:
        for place in [place for place in group.settled if place[:2] == (topic, queue) and place.offset >= offset]:
            del group.settled[place]
            group.in_doubt.add(place)

    def resend_begins(self, group: GroupView, places: list[Place]) -> None:
        """Dead letters are given back: how their messages end is open again."""
        group.reset_letters = True
        for place in places:
            group.resets[place.topic, place.queue] += 1
            group.settled.pop(place, None)
            group.maybe_settled.add(place)
            group.resent.add(place)

    def resend_ends(self, group: GroupView, places: list[Place]) -> None:
        for place in places:
            group.resets[place.topic, place.queue] += 1
            group.settled.pop(place, None)
            if place in group.holds:
                group.holds[place].void = True

    # Dead letters

    def letter(self, group: GroupView, topic: str, message: definition_pb2.Message) -> None:
        """A message read from the group's dead-letter topic."""
        self.seen(topic, message)
        system = message.system_properties
        origin = self.sent[system.message_id]
        assert system.dead_letter_queue.topic == origin.topic
        assert system.dead_letter_queue.message_id == origin.id
        group.letters[origin.id] += 1

    # The end

    def check_fates(self, group: GroupView, first_offsets: dict[tuple[str, int], int], topics: list[str]) -> None:
        """After all was drained: each message has one fate in the group."""
        letters_expired = first_offsets.get((DEAD_LETTERS + group.name, 0), 0) > 0
        for message in self.sent.values():
            place = message.place
            if place is None or message.topic not in topics:
                continue
            fate = group.settled.get(place)
            letters = group.letters[message.id]
            if not group.reset_letters:
                assert letters <= 1, f"{group.name}: {place} is {letters} times among the dead letters"
                assert not (letters and fate == "consumed"), f"{group.name}: {place} was consumed and dead-lettered"
                assert letters or letters_expired or fate != "dead-lettered", (
                    f"{group.name}: {place} was forwarded, and is not among the dead letters"
                )
            fates = self.fates(group, message, place, first_offsets)
            self.counts["expired"] += fates == {"expired"}
            assert fates, (
                f"{group.name}: {message.id} at {place} was lost, {message.outcome}, held as {group.holds.get(place)}"
            )

    def fates(
        self, group: GroupView, message: Sent, place: Place, first_offsets: dict[tuple[str, int], int]
    ) -> set[str]:
        """What may have become of the message in the group, after all was drained: one, where a client saw its end."""
        fate = group.settled.get(place)
        if fate:
            return {fate}
        hold, letters = group.holds.get(place), group.letters[message.id]
        if letters and not group.reset_letters:
            return {"dead-lettered"}
        letters_expired = first_offsets.get((DEAD_LETTERS + group.name, 0), 0) > 0
        skipped_below = group.skipped_below.get((place.topic, place.queue), 0)
        matches = group.matches(message.tag)
        gone = place.offset < first_offsets[place.topic, place.queue]
        buried_unseen = letters_expired and (hold is not None or group.max_attempts <= 2)
        possible = {
            "consumed": place in group.maybe_settled,
            "dead-lettered": place in group.maybe_settled or letters > 0 or (matches and buried_unseen),
            "filtered": not matches,
            "skipped": place.offset < skipped_below,
            "expired": gone and (hold is None or hold.void or not hold.certain),
        }
        return {fate for fate, is_possible in possible.items() if is_possible}

    def check_stored(self, topic: str, queue: int, first_offset: int, messages: list[definition_pb2.Message]) -> None:
        """All that a queue holds, read from its first offset on."""
        places = [self.seen(topic, message) for message in messages]
        assert [place.offset for place in places] == list(range(first_offset, first_offset + len(places))), (
            f"{topic}/{queue} is not dense: {places}"
        )
        end = self.ends[topic, queue]
        assert first_offset + len(places) >= end, f"{topic}/{queue} ends at {first_offset + len(places)}, not {end}"

    def check_batches(self, first_offsets: dict[tuple[str, int], int]) -> None:
        """After all queues were read: of a batch all messages are there or none."""
        for message in self.sent.values():
            if message.place is not None:
                topic, queue, offset = message.place
                number = message.batch.index(message.id)
                for other_number, other in enumerate(message.batch):
                    there = self.sent[other].place
                    wanted = Place(topic, queue, offset + other_number - number)
                    if wanted.offset >= first_offsets[topic, queue]:
                        assert there == wanted, f"{other} is at {there}, its batch at {message.place}"
