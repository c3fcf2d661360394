"""Where the NameServers are, and which one to ask."""

import asyncio
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kourou.resolver import NamesrvList, Resolver, resolve_by_system
from tests.simulation.time import simulate


class Names:
    """Name resolution whose answers a test sets."""

    def __init__(self, **answers: list[str]) -> None:
        self.answers = answers
        self.slow_s: dict[str, float] = {}

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        await asyncio.sleep(self.slow_s.get(host, 0.01))
        if host not in self.answers:
            raise OSError(f"no address for {host}")
        return [f"{address}:{port}" for address in self.answers[host]]


def test_names_are_resolved_again_every_30_s_to_all_their_addresses():
    async def main() -> None:
        names = Names(ns=["10.0.0.2", "10.0.0.1"])
        resolver = Resolver(["ns:8081", "127.0.0.1:8082", "[::1]:8083"], names)
        changes: list[tuple[str, ...]] = []
        resolver.on_change(lambda: changes.append(resolver.known))
        first = ("10.0.0.1:8081", "10.0.0.2:8081", "127.0.0.1:8082", "[::1]:8083")
        assert resolver.known == ()
        assert await resolver.addresses() == first
        names.answers["ns"] = ["10.0.0.1", "10.0.0.2"]  # the same, in another order
        await asyncio.sleep(31)
        names.answers["ns"].append("10.0.0.3")
        await asyncio.sleep(31)
        assert "10.0.0.3:8081" in await resolver.addresses()
        del names.answers["ns"]
        await asyncio.sleep(600)
        assert "10.0.0.3:8081" in await resolver.addresses()
        assert [change for change in changes if len(change) > 2] == [first, resolver.known]
        await resolver.close()

    simulate(main())


def test_a_name_that_cannot_be_resolved_yet_comes_later():
    async def main() -> None:
        names = Names()
        resolver = Resolver(["ns:8081"], names)
        assert await resolver.addresses() == ()
        names.answers["ns"] = ["10.0.0.1"]
        await asyncio.sleep(31)
        assert await resolver.addresses() == ("10.0.0.1:8081",)
        await resolver.close()

    simulate(main())


def test_a_slow_name_holds_up_no_other():
    async def main() -> None:
        names = Names(ns=["10.0.0.1"], slow=["10.0.0.2"])
        names.slow_s["slow"] = 5.0
        resolver = Resolver(["nowhere:8081", "ns:8081", "slow:8081"], names)
        async with asyncio.timeout(0.5):
            assert await resolver.addresses() == ("10.0.0.1:8081",)
        assert await resolver.all_addresses() == ("10.0.0.1:8081", "10.0.0.2:8081")
        await resolver.close()

    simulate(main())


async def test_the_system_resolves_localhost():
    assert "127.0.0.1:80" in await resolve_by_system("localhost", 80)


@pytest.mark.parametrize("target", ["", "host", ":8081", "host:", "host:x", "host:0", "host:65536"])
def test_what_is_not_host_and_port(target: str):
    with pytest.raises(ValueError, match="host:port"):
        Resolver([target])


def test_a_random_one_first_then_round_robin():
    firsts: set[str] = set()
    for seed in range(50):
        namesrvs = NamesrvList(random.Random(seed))
        assert namesrvs.current is None
        namesrvs.update([["a:1", "b:1"], ["c:1"]])
        tried: list[str] = []
        for _ in range(6):
            assert namesrvs.current is not None
            tried.append(namesrvs.current)
            namesrvs.failed(namesrvs.current)
        firsts.add(tried[0])
        assert sorted(tried[:3]) == ["a:1", "b:1", "c:1"]
        assert tried[:3] == tried[3:]
    assert firsts == {"a:1", "b:1", "c:1"}


def test_a_failure_reported_late_moves_nobody():
    namesrvs = NamesrvList(random.Random(1))
    namesrvs.update([["a:1", "b:1", "c:1"]])
    first = namesrvs.current
    assert first is not None
    namesrvs.failed(first)
    second = namesrvs.current
    namesrvs.failed(first)
    assert namesrvs.current == second


def test_the_double_shuffle_keeps_the_addresses_of_a_name_together_and_is_fair_to_names():
    by_target = [[f"10.0.0.{number}:1" for number in range(9)], ["alone:1"]]
    alone_first = 0
    for seed in range(400):
        namesrvs = NamesrvList(random.Random(seed), double_shuffle=True)
        namesrvs.update(by_target)
        order = namesrvs.order
        assert sorted(order) == sorted(by_target[0] + by_target[1])
        assert order.index("alone:1") in (0, 9)
        alone_first += order[0] == "alone:1"
    assert 150 < alone_first < 250


@given(
    st.lists(st.lists(st.sampled_from(["a:1", "b:1", "c:1", "d:1"]), max_size=4), max_size=6),
    st.booleans(),
    st.integers(),
)
def test_the_current_one_is_kept_while_it_is_there(updates: list[list[str]], double_shuffle: bool, seed: int):
    namesrvs = NamesrvList(random.Random(seed), double_shuffle=double_shuffle)
    for addresses in updates:
        before = namesrvs.current
        namesrvs.update([addresses])
        assert sorted(namesrvs.order) == sorted(set(addresses))
        assert namesrvs.current == before or before not in addresses
        assert (namesrvs.current is None) == (not addresses)
