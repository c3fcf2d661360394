"""Figures before they are served: histograms, the limit of series, several nodes in one text."""

from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_open_metrics
from prometheus_client.registry import Collector

from kourou_service.metrics.exposition import Node, NodeExposition, merged
from kourou_service.metrics.family import Family, counter, gauge, histogram
from kourou_service.metrics.folding import Folding
from kourou_service.metrics.histogram import Histogram
from tests.unit.service.scraping import Shown

NODE = Node("kourou", "broker", "broker-a")


class Ready(Collector):
    def __init__(self, metrics: Any) -> None:
        self._metrics = metrics

    def collect(self) -> Any:
        return self._metrics


def shown(*nodes: tuple[NodeExposition, list[Family]]) -> Shown:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Ready(list(merged(metric for node, families in nodes for metric in node.metrics(families)))))
    assert generate_open_metrics(registry).endswith(b"# EOF\n")
    return Shown(generate_latest(registry).decode())


def test_a_bound_belongs_to_its_bucket() -> None:
    counted = Histogram((1, 5, 10))
    for value in (0, 1, 1.5, 5, 10, 11, 10_000):
        counted.observe(value)
    assert counted.counts == [2, 2, 1, 2]
    assert counted.cumulative() == [(1, 2), (5, 4), (10, 5), (float("inf"), 7)]
    assert (counted.count, counted.sum) == (7, 10_028.5)
    both = counted + counted
    assert (both.counts, both.sum, counted.count) == ([4, 4, 2, 4], 20_057, 7)


@pytest.mark.parametrize("bounds", [(1, 1), (2, 1)])
def test_bounds_ascend(bounds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="do not ascend"):
        Histogram(bounds)


def test_what_is_shown_of_a_family() -> None:
    sizes = Histogram((10, 20))
    sizes.observe(15)
    page = shown(
        (
            NodeExposition(NODE, 10),
            [
                counter(
                    "in_total", "Stored.", {("orders", "NORMAL"): 3, ("it's \"\\\n", "NORMAL"): 1}, ("topic", "type")
                ),
                counter("plain_total", "Without labels.", 2),
                gauge("depth", "Now.", [(("x",), 1.5)], ("queue",)),
                histogram("size_bytes", "Sizes.", {("orders",): sizes}, ("topic",)),
                histogram("bare", "No labels.", sizes),
            ],
        )
    )
    own = {"cluster": "kourou", "node_type": "broker", "node_id": "broker-a"}
    assert page.labels("in_total") == [
        {**own, "topic": "orders", "type": "NORMAL"},
        {**own, "topic": "it's \"\\\n", "type": "NORMAL"},
    ]
    assert page.sum("in_total", topic="orders") == 3
    assert page.sum("plain_total", **own) == 2
    assert page.sum("depth", queue="x") == 1.5
    assert [page.sum("size_bytes_bucket", topic="orders", le=le) for le in ("10.0", "20.0", "+Inf")] == [0, 1, 1]
    assert (page.sum("size_bytes_count", topic="orders"), page.sum("size_bytes_sum", topic="orders")) == (1, 15)
    assert page.sum("bare_count") == 1
    assert page.sum("kourou_metrics_folded_series") == 0
    assert "# TYPE in_total counter" in page.text
    assert "# TYPE size_bytes histogram" in page.text


def test_a_counter_is_named_as_one() -> None:
    with pytest.raises(ValueError, match="_total"):
        counter("messages", "Stored.", 1)


def test_nodes_of_one_process_share_a_text() -> None:
    other = Node("kourou", "admin", "127.0.0.1:9080")
    families = [gauge("up", "Up.", 1)]
    page = shown((NodeExposition(NODE, 10), families), (NodeExposition(other, 10), families))
    assert page.text.count("# TYPE up gauge") == 1
    assert [labels["node_type"] for labels in page.labels("up")] == ["broker", "admin"]


LABELS = ("topic", "is_system")


def sent(*topics: str, each: float = 1) -> Family:
    return counter("in_total", "Stored.", {(topic, "false"): each for topic in topics}, LABELS)


def test_beyond_the_limit_series_are_summed() -> None:
    node = NodeExposition(NODE, 3)
    page = shown((node, [sent("a", "b", "c", "d", "e", each=2)]))
    assert [labels["topic"] for labels in page.labels("in_total")] == ["a", "b", "c", "*"]
    assert page.sum("in_total", topic="*", is_system="false") == 4
    assert page.sum("in_total") == 10
    assert page.sum("kourou_metrics_folded_series") == 2
    # Which ones are summed does not change, though a place is free; what is new may take it.
    page = shown((node, [sent("b", "c", "d", "e", "f", each=3)]))
    assert [labels["topic"] for labels in page.labels("in_total")] == ["b", "c", "f", "*"]
    assert page.sum("in_total", topic="*") == 6


def test_a_sum_of_counters_never_shrinks_and_one_of_gauges_does() -> None:
    counters, gauges = Folding(1), Folding(1)

    def total(folding: Folding, family: Family) -> Any:
        return dict(folding.fold(family))[("*", "false")]

    assert total(counters, sent("a", "b", "c", each=5)) == 10
    assert total(counters, sent("a", "b", each=6)) == 5 + 6
    assert total(counters, sent("a")) == 5 + 6
    assert total(counters, sent("a", "b", each=1)) == 5 + 6 + 1
    depth = gauge("depth", "Now.", {("a", "false"): 1, ("b", "false"): 2, ("c", "false"): 3}, LABELS)
    assert total(gauges, depth) == 5
    assert dict(gauges.fold(gauge("depth", "Now.", {("a", "false"): 1}, LABELS))) == {("a", "false"): 1}


def test_histograms_are_summed_and_few_valued_labels_are_kept() -> None:
    each = Histogram((1,))
    each.observe(0.5)
    rows = {(topic, system): each for topic in "abc" for system in ("false", "true")}
    page = shown((NodeExposition(NODE, 2), [histogram("size", "Sizes.", rows, LABELS)]))
    assert page.sum("size_count", topic="*", is_system="false") == 2
    assert page.sum("size_bucket", topic="*", is_system="true", le="1.0") == 2
    assert page.sum("size_count") == 6
    assert each.count == 1
