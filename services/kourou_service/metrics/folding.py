"""The limit of series: a metric with a label for each topic or group must not bring down who collects it.

The series that came first are shown, the rest is summed. A series that is summed stays so while it lives, and a sum of
counters never shrinks when one of them goes away: Prometheus would take that for a restart and count all of it anew.
"""

from collections.abc import Iterable
from operator import itemgetter
from typing import Any

from kourou_service.metrics.family import Family, LabelValues, Row

FOLDED = "*"
_OPEN = frozenset({"topic", "consumer_group", "broker", "namesrv", "language", "version"})
"""Labels with as many values as users like; those of the others are few, and are kept."""
_key = itemgetter(0)


class Folding:
    """Of one metric of one node, over all its scrapes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._shown: set[LabelValues] = set()
        self._summed: dict[LabelValues, Any] = {}
        self._gone: dict[LabelValues, Any] = {}

    @property
    def folded_series(self) -> int:
        """How many were summed in the last scrape."""
        return len(self._summed)

    def fold(self, family: Family) -> list[Row]:
        """The rows to show: at most `limit`, and one or a few sums of the rest."""
        if len(family.rows) <= self._limit and not self._shown:
            return list(family.rows)
        self._shown.intersection_update(map(_key, family.rows))
        shown, summed = self._divide(family.rows)
        if family.kind != "gauge":
            self._keep_gone(family, summed)
        self._summed = summed
        sums = dict(self._gone)
        for key, value in summed.items():
            _add(sums, _folded_key(family, key), value)
        return [*shown, *sums.items()]

    def _divide(self, rows: Iterable[Row]) -> tuple[list[Row], dict[LabelValues, Any]]:
        shown: list[Row] = []
        summed: dict[LabelValues, Any] = {}
        for row in rows:
            key, value = row
            if key in self._shown or (len(self._shown) < self._limit and key not in self._summed):
                self._shown.add(key)
                shown.append(row)
            else:
                summed[key] = value
        return shown, summed

    def _keep_gone(self, family: Family, summed: dict[LabelValues, Any]) -> None:
        for key in self._summed.keys() - summed.keys():
            _add(self._gone, _folded_key(family, key), self._summed[key])


def _folded_key(family: Family, key: LabelValues) -> LabelValues:
    return tuple(FOLDED if label in _OPEN else value for label, value in zip(family.labels, key, strict=True))


def _add(sums: dict[LabelValues, Any], key: LabelValues, value: Any) -> None:
    sums[key] = sums[key] + value if key in sums else value
