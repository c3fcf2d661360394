"""Families of one or several nodes as metrics of prometheus-client. Runs outside of the event loop."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString  # pyright: ignore[reportUnknownVariableType]

from kourou_service.metrics.family import Family, LabelValues, Row, gauge
from kourou_service.metrics.folding import Folding
from kourou_service.metrics.histogram import Histogram

_TURN_SAMPLES = 64
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

    def _metric(self, family: Family, rows: Iterable[Row]) -> Metric:
        metric = _KINDS[family.kind](family.name, family.documentation)
        for values, value in rows:
            labels = {**self._labels, **_named(family, values)}
            if isinstance(value, Histogram):
                metric.samples.extend(_histogram_samples(family.name, labels, value))
            else:
                metric.samples.append(Sample(family.name, labels, value))
        return metric


def merged(metrics: Iterable[Metric]) -> Iterator[Metric]:
    """One metric for each name, as the format demands."""
    by_name: dict[str, Metric] = {}
    for metric in metrics:
        known = by_name.setdefault(metric.name, metric)
        if known is not metric:
            known.samples.extend(metric.samples)
    for metric in by_name.values():
        metric.samples = _GivingWay(metric.samples)
        yield metric


class _GivingWay(list[Sample]):
    """Whoever renders many samples lets the event loop have the interpreter in between: else each turn of the loop
    would wait for the switch interval, 5 ms."""

    def __iter__(self) -> Iterator[Sample]:
        for number, sample in enumerate(super().__iter__(), 1):
            if number % _TURN_SAMPLES == 0:
                time.sleep(_PAUSE_S)
            yield sample


_KINDS: Mapping[str, type[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


def _named(family: Family, values: LabelValues) -> dict[str, str]:
    return dict(zip(family.labels, values, strict=True))


def _histogram_samples(name: str, labels: dict[str, str], value: Histogram) -> Iterator[Sample]:
    count = 0
    for bound, count in value.cumulative():
        yield Sample(f"{name}_bucket", {**labels, "le": floatToGoString(bound)}, count)
    yield Sample(f"{name}_count", labels, count)
    yield Sample(f"{name}_sum", labels, value.sum)
