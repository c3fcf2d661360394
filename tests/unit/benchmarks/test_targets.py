"""Targets are met or missed by what was measured, and neither if it was not."""

from benchmarks.rivals.results import Results
from benchmarks.rivals.rows import ROWS
from benchmarks.rivals.systems import PARTICIPANTS
from benchmarks.rivals.targets import TARGETS, Verdict, verdicts
from tests.unit.benchmarks.samples import results_of


def verdict_of(results: Results, text: str) -> Verdict:
    (found,) = [verdict for verdict in verdicts(results) if verdict.target.text == text]
    return found


def test_every_target_names_participants_and_figures_that_there_are() -> None:
    shown = {(row.measure, row.value) for row in ROWS}
    for target in TARGETS:
        assert target.ours in PARTICIPANTS
        assert not target.other or target.other in PARTICIPANTS
        assert (target.measure, target.value) in shown
    assert len({target.text for target in TARGETS}) == len(TARGETS)


def test_a_value_at_least() -> None:
    text = "publish, stream door: 100,000/s"
    assert verdict_of(results_of(kourou_sync_stream__publish__per_s=[100_000]), text).met is True
    assert verdict_of(results_of(kourou_sync_stream__publish__per_s=[99_999]), text).met is False


def test_a_ratio_at_most() -> None:
    text = "server memory: 1/8 of RocketMQ"
    verdict = verdict_of(
        results_of(
            kourou_sync_stream__memory__most_own_mib=[100, 300], rocketmq_async__memory__most_own_mib=[1000, 1000]
        ),
        text,
    )
    assert (verdict.measured, verdict.least, verdict.most) == (0.2, 0.1, 0.3)
    assert verdict.met is False


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    results = results_of(kourou_sync_stream__publish__per_s=[100_000])
    verdict = verdict_of(results, "publish, stream door: 10 x RocketMQ")
    assert verdict.measured is None
    assert verdict.met is None
