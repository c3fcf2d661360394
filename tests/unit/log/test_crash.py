"""After any crash: all that was reported durable is there, and what is there is a prefix of what was appended."""

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kourou_broker.log.log import Log
from tests.simulation.disk import PowerCut, SimWorker
from tests.simulation.time import simulate
from tests.unit.log.logs import LogOnDisk, messages, record


class _CrashingLog:
    """Appends from a seed, crashes, recovers, and compares with what it remembers."""

    def __init__(self, seed: int, flush: str) -> None:
        self.rng = random.Random(seed)
        self.flush = flush
        self.on = LogOnDisk(seed)
        # (end, payload) of every frame appended, in order.
        self.appended: list[tuple[int, bytes]] = []
        self.power = True

    async def run(self, rounds: int) -> None:
        for _ in range(rounds):
            log = self._recover()
            self._compare(log)
            await self._append_until_power_goes(log)
        self._compare(self._recover())

    def _recover(self) -> Log:
        self.off = asyncio.Event()
        while True:
            # Power may also go in the middle of a recovery.
            if self.rng.random() < 0.5:
                self._plan_power_cut(most=6)
            try:
                log = self.on.open(worker=SimWorker(self._delay_s, self.off.set), flush=self.flush)
            except PowerCut:
                self.on.disk.cut_power()
            else:
                self._plan_power_cut(most=60)
                return log

    def _plan_power_cut(self, most: int) -> None:
        self.on.disk.power_cut_at = self.on.disk.changes + self.rng.randrange(1, most)

    def _delay_s(self) -> float:
        return self.rng.choice((0.0, 0.001, 0.01))

    async def _append_until_power_goes(self, log: Log) -> None:
        numbers = iter(range(1 << 30))
        while not self.off.is_set():
            for _ in range(self.rng.randrange(4)):
                payload = self.rng.randbytes(self.rng.choice((0, 5, 400, 1500)))
                section = self.rng.choice((record(payload), messages(1, next(numbers), 1, payload)))
                self.appended.append((log.append([section], 1).end, payload))
            await asyncio.sleep(self.rng.choice((0, 0.002, 0.5)))
        self.durable = log.synced_position
        if self.rng.random() < 0.7:
            self.on.disk.cut_power()
        else:
            self.on.disk.kill()

    durable = 0

    def _compare(self, log: Log) -> None:
        assert not self.on.failures
        found = [(frame.end, section.payload) for frame in self.on.frames for section in frame.sections]
        assert found == self.appended[: len(found)], "what is there is not what was appended"
        lost = self.appended[len(found) :]
        assert not lost or lost[0][0] > self.durable, "something durable was lost"
        assert log.next_position >= self.durable
        self.appended = found
        self.durable = log.synced_position


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 1 << 32), flush=st.sampled_from(("sync", "async")))
def test_a_crash_loses_nothing_durable_and_leaves_a_prefix(seed: int, flush: str) -> None:
    simulate(_CrashingLog(seed, flush).run(rounds=6))


def test_the_first_write_of_a_new_log_may_be_torn() -> None:
    async def main(seed: int) -> None:
        on = LogOnDisk(seed)
        log = on.open()
        log.append([record(bytes([1]) * 3000)], 1)
        on.disk.power_cut_at = on.disk.changes + 1
        with pytest.raises(PowerCut):
            on.medium.write(0, 0, [b"x" * 100])
        on.disk.cut_power()
        log = on.open()
        assert log.next_position == 0

    for seed in range(20):
        simulate(main(seed))
