"""Families of one or several nodes as metrics of prometheus-client. Runs outside of the event loop."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString  # pyright: ignore[reportUnknownVariableType]

from kourou_service.metrics.family import Family, Row, gauge
from kourou_service.metrics.folding import Folding
from kourou_service.metrics.histogram import Histogram

_TURN_ROWS = 64
_PAUSE_S = 0.0001


@dataclass(frozen=True)
class Node:
    """Which service the figures are of: labels of all its metrics."""

    cluster: str
    type: str
    """`broker`, `nameserver` or `admin`."""
    id: str

    @property
    def labels(self) -> dict[str, str]:
        return {"cluster": self.cluster, "node_type": self.type, "node_id": self.id}


class NodeExposition:
    """Keeps between scrapes what the limit of series asks for."""

    def __init__(self, node: Node, max_series: int) -> None:
        self._labels = node.labels
        self._foldings: dict[str, Folding] = defaultdict(lambda: Folding(max_series))

    def metrics(self, families: Iterable[Family]) -> Iterator[Metric]:
        for family in families:
            yield self._metric(family, self._foldings[family.name].fold(family))
        folded = sum(folding.folded_series for folding in self._foldings.values())
        told = gauge("kourou_metrics_folded_series", "Series beyond metrics_max_series, summed into `*`.", folded)
        yield self._metric(told, told.rows)

    def labelled(self, metrics: Iterable[Metric]) -> Iterator[Metric]:
        """Metrics of the process, made by others, as this node's."""
        for metric in metrics:
            metric.samples = [sample._replace(labels={**self._labels, **sample.labels}) for sample in metric.samples]
            yield metric

    def _metric(self, family: Family, rows: Sequence[Row]) -> Metric:
        metric: Any = _KINDS[family.kind](family.name, family.documentation)
        metric.samples = _Samples(family, self._labels, rows)
        return metric


def merged(metrics: Iterable[Metric]) -> Iterable[Metric]:
    """One metric for each name, as the format demands."""
    by_name: dict[str, Any] = {}
    for metric in metrics:
        known = by_name.setdefault(metric.name, metric)
        if known is not metric:
            known.samples = _Both(known.samples, metric.samples)
    return by_name.values()


class _Samples:
    """Made one by one while they are rendered: thousands of them at a time would keep the garbage collector busy.

    And whoever renders lets the event loop have the interpreter in between: else each turn of the loop would wait for
    the switch interval, 5 ms.
    """

    def __init__(self, family: Family, node_labels: Mapping[str, str], rows: Sequence[Row]) -> None:
        self._family = family
        self._node_labels = node_labels
        self._rows = rows

    def __iter__(self) -> Iterator[Sample]:
        name = self._family.name
        for number, (values, value) in enumerate(self._rows, 1):
            if number % _TURN_ROWS == 0:
                time.sleep(_PAUSE_S)
            labels = {**self._node_labels, **dict(zip(self._family.labels, values, strict=True))}
            if isinstance(value, Histogram):
                yield from _histogram_samples(name, labels, value)
            else:
                yield Sample(name, labels, value)


class _Both:
    def __init__(self, first: Iterable[Sample], second: Iterable[Sample]) -> None:
        self._parts = (first, second)

    def __iter__(self) -> Iterator[Sample]:
        return chain.from_iterable(self._parts)


_KINDS: Mapping[str, type[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


def _histogram_samples(name: str, labels: dict[str, str], value: Histogram) -> Iterator[Sample]:
    count = 0
    for bound, count in value.cumulative():
        yield Sample(f"{name}_bucket", {**labels, "le": floatToGoString(bound)}, count)
    yield Sample(f"{name}_count", labels, count)
    yield Sample(f"{name}_sum", labels, value.sum)
