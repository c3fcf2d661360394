"""What is shown: everybody's figures, who won, and who was left out."""

import io

import pytest
from rich.console import Console

from benchmarks.rivals.results import Results
from benchmarks.rivals.rows import number
from benchmarks.rivals.systems import PARTICIPANTS
from benchmarks.rivals.table import show
from tests.unit.benchmarks.samples import results_of, sample


def shown(results: Results) -> list[str]:
    console = Console(width=160, file=io.StringIO(), record=True)
    show(console, results, {name: participant for name, (_, participant) in PARTICIPANTS.items()})
    return console.export_text().splitlines()


def line_with(lines: list[str], *words: str) -> str:
    (found,) = [line for line in lines if line.split()[: len(words)] == list(words)]
    return found


def test_a_row_has_the_median_the_rounds_the_ratio_and_what_the_machine_did() -> None:
    lines = shown(
        results_of(
            kourou_sync_stream__publish__per_s=[10_000, 30_000, 20_000],
            kafka_flush__publish__per_s=[20_000, 30_000, 60_000],
        )
    )
    line = line_with(lines, "kafka-flush", "30,000")
    assert line.split() == ["kafka-flush", "30,000", "20,000", "60,000", "2", "0.2", "ms", "50", "ms"]
    assert line_with(lines, "kourou-sync-stream", "20,000").split()[4] == "1"


def test_a_row_that_a_rival_wins_stays() -> None:
    lines = shown(results_of(kourou_sync_stream__one__p50_ms=[0.5], nats_default__one__p50_ms=[0.1]))
    assert any(line.startswith("publish, one at a time: 50 %") for line in lines)
    assert line_with(lines, "nats-default", "0.1").split()[4] == "0.2"
    assert any("NATS that syncs" in line and "not measured" in line for line in lines)


def test_a_missed_target_says_so() -> None:
    lines = shown(results_of(kourou_sync_stream__publish__per_s=[90_000]))
    (line,) = [line for line in lines if line.startswith("publish, stream door: 100,000/s")]
    assert line.split()[-1] == "missed"


def test_bodies_of_other_sizes_have_rows_of_their_own() -> None:
    lines = shown(Results(samples=[sample("rabbitmq-quorum", "publish", size=size, per_s=1) for size in (100, 10240)]))
    titles = [line.rstrip() for line in lines if line.startswith("publish, many under way")]
    assert titles == ["publish, many under way (100 B), messages/s", "publish, many under way (10 KiB), messages/s"]


def test_who_was_left_out_is_named_with_the_reason() -> None:
    results = results_of(kourou_sync_stream__publish__per_s=[1])
    results.left_out["kafka-flush"] = "Maven is not there (mvn)"
    assert "left out kafka-flush: Maven is not there (mvn)" in shown(results)


@pytest.mark.parametrize(
    ("value", "text"), [(123456.7, "123,457"), (999.6, "1000"), (123.4, "123"), (12.34, "12.3"), (0.12345, "0.123")]
)
def test_numbers_have_the_digits_that_mean_something(value: float, text: str) -> None:
    assert number(value) == text
