"""Progress against a model that keeps the fate of every offset by itself."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from kourou_broker.state.progress import Progress
from kourou_broker.state.records import Lease

END = 40
OFFSETS = st.integers(0, END - 1)


def lease(offsets: list[int], number: int = 0) -> Lease:
    return Lease(1, number, 0, 1, False, "client", offsets)


class Model(RuleBasedStateMachine):
    """Each offset is fresh, settled, or pending under a lease."""

    def __init__(self) -> None:
        super().__init__()
        self.progress = Progress(1, 1, 0, 0)
        self.fates: list[str | Lease] = ["fresh"] * END
        self.number = 0

    @property
    def fresh_from(self) -> int:
        return next((offset for offset in range(END) if self.fates[offset] == "fresh"), END)

    @rule(taken=st.lists(st.booleans(), min_size=1, max_size=8))
    def lend_fresh(self, taken: list[bool]) -> None:
        """Some of the next offsets are lent, the filter leaves out the others."""
        start = self.fresh_from
        taken = taken[: END - start]
        self.number += 1
        new = lease([start + at for at, lent in enumerate(taken) if lent], self.number)
        self.progress.lend(new, start + len(taken))
        for at, lent in enumerate(taken):
            self.fates[start + at] = new if lent else "settled"

    @rule(offsets=st.lists(OFFSETS, unique=True, max_size=6))
    def lend_again(self, offsets: list[int]) -> None:
        """Also offsets that were settled in the same turn: they stay settled."""
        offsets = [offset for offset in offsets if self.fates[offset] != "fresh"]
        self.number += 1
        new = lease(offsets, self.number)
        self.progress.lend(new, self.progress.high)
        for offset in offsets:
            if self.fates[offset] != "settled":
                self.fates[offset] = new

    @rule(offsets=st.lists(OFFSETS, max_size=8))
    def settle(self, offsets: list[int]) -> None:
        self.progress.settle(offsets)
        for offset in offsets:
            if self.fates[offset] != "fresh":
                self.fates[offset] = "settled"

    @rule(to=st.integers(0, END))
    def set(self, to: int) -> None:
        self.progress.set(to)
        self.fates = [*["settled"] * to, *["fresh"] * (END - to)]

    @rule(first=st.integers(0, END))
    def trim(self, first: int) -> None:
        self.progress.trim(first)
        for offset in range(first):
            if self.fates[offset] == "fresh":
                self.fates[offset] = "settled"

    @rule()
    def save_and_restore(self) -> None:
        saved = self.progress.leases()
        restored = Progress(1, 1, 0, self.progress.high)
        restored.restore(lease(offsets, old.number) for old, offsets in saved)
        by_number = {each.number: each for each in restored.pending.values()}
        self.fates = [by_number[fate.number] if isinstance(fate, Lease) else fate for fate in self.fates]
        self.progress = restored

    @invariant()
    def they_agree(self) -> None:
        assert self.progress.high == self.fresh_from
        pending = {offset: fate for offset, fate in enumerate(self.fates) if isinstance(fate, Lease)}
        assert self.progress.pending == pending
        assert self.progress.low == min([*pending, self.progress.high])
        held = {old.number: sorted(offsets) for old, offsets in self.progress.leases()}
        by_number: dict[int, list[int]] = {}
        for offset, fate in pending.items():
            by_number.setdefault(fate.number, []).append(offset)
        assert held == by_number


def test_progress_is_as_if_each_offset_were_kept_apart() -> None:
    run_state_machine_as_test(Model, settings=settings(max_examples=200, stateful_step_count=30, deadline=None))  # type: ignore[no-untyped-call]


@given(st.permutations(range(30)))
@settings(deadline=None)
def test_settling_in_any_order_leaves_nothing_behind(order: list[int]) -> None:
    progress = Progress(1, 1, 0, 0)
    progress.lend(lease(list(range(30))), 30)
    for count, offset in enumerate(order, 1):
        progress.settle([offset])
        assert progress.low == min({*range(30)} - {*order[:count]}, default=30)
    assert not progress.pending
