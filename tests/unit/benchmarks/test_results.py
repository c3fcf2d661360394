"""Medians, spreads and ratios, and a file that tells the same as the run did."""

from dataclasses import asdict
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.rivals.results import Results, Spread, from_lines, to_line
from tests.unit.benchmarks.samples import results_of, sample

FIGURES = st.floats(min_value=0.001, max_value=1e9)


@given(st.lists(FIGURES, min_size=1))
def test_a_spread_holds_its_median(values: list[float]) -> None:
    spread = Spread.of(values)
    assert spread.least <= spread.median <= spread.most
    assert spread.median == median(values)
    assert {spread.least, spread.most} <= set(values)


def test_a_ratio_compares_figures_of_the_same_round() -> None:
    """The second round was on a machine half as fast: the ratio of medians would say something else."""
    results = results_of(ours__publish__per_s=[300, 100, 120], theirs__publish__per_s=[100, 50, 40])
    ratio = results.ratio("ours", "theirs", "publish", "per_s")
    assert ratio == Spread(3, 2, 3)


def test_a_ratio_passes_over_rounds_that_only_one_was_in() -> None:
    results = Results(
        samples=[
            sample("ours", "publish", 0, per_s=10),
            sample("ours", "publish", 1, per_s=40),
            sample("theirs", "publish", 1, per_s=20),
        ]
    )
    assert results.ratio("ours", "theirs", "publish", "per_s") == Spread(2, 2, 2)
    assert results.ratio("ours", "nobody", "publish", "per_s") is None
    assert results.spread("nobody", "publish", "per_s") is None


def test_sizes_are_kept_apart() -> None:
    results = Results(samples=[sample("ours", "publish", size=100, per_s=9), sample("ours", "publish", per_s=3)])
    assert results.sizes("publish", "per_s") == [100, 1024]
    assert results.by_round("ours", "publish", "per_s", 100) == {0: 9}
    assert results.by_round("ours", "publish", "per_s") == {0: 3}


def test_a_file_tells_what_the_run_told() -> None:
    results = results_of(ours__publish__per_s=[1, 2])
    lines = [
        to_line("run", results.run),
        to_line("left_out", {"participant": "theirs", "why": "Maven is not there"}),
        *(to_line("sample", asdict(each)) for each in results.samples),
    ]
    again = from_lines(lines)
    assert again.run == results.run
    assert again.samples == results.samples
    assert again.left_out == {"theirs": "Maven is not there"}


def test_a_line_of_another_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match="'poem'"):
        from_lines([to_line("poem", {})])
