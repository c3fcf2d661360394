"""The README's tables."""

from benchmarks.rivals.markdown import tables
from tests.unit.benchmarks.samples import results_of


def test_the_best_of_a_row_is_bold_and_what_was_not_measured_is_empty() -> None:
    results = results_of(
        kourou_sync_stream__publish__per_s=[100_000, 110_000],
        kafka_default__publish__per_s=[120_000, 130_000],
        nats_sync__one__p50_ms=[0.5],
    )
    results.run["seconds"] = 2.0
    results.left_out["rabbitmq-quorum"] = "Debian's apt-get is not there\nmore"
    lines = list(tables(results))
    assert lines[0] == "2026-01-01, a machine, 2 rounds of 2 s a figure; medians, the best bold."
    assert "|  | kourou-sync-stream | kafka-default | nats-sync |" in lines
    assert "| publish, many under way (1 KiB), messages/s | 105,000 | **125,000** |  |" in lines
    assert "| publish, one at a time: 50 %, ms |  |  | **0.5** |" in lines
    assert "| publish, stream door: Kafka, at last | at least 1 | 0.84 | 0.833 to 0.846 | missed |" in lines
    assert "| publish, stream door: 10 x RocketMQ | at least 10 |  |  | not measured |" in lines
    assert "Left out: `rabbitmq-quorum`: Debian's apt-get is not there." in lines
