"""What a service tells of one metric: a name, and a value for each set of labels.

Made on the event loop from plain dicts and numbers, which costs next to nothing; text is made of it in another thread.
So the rows are taken over here. Histograms are not copied: that thread may see one's sum a value apart from its counts.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from kourou_service.metrics.histogram import Histogram

LabelValues = tuple[str, ...]
Numbers = float | Mapping[LabelValues, float] | Sequence[tuple[LabelValues, float]]
Histograms = Histogram | Mapping[LabelValues, Histogram] | Sequence[tuple[LabelValues, Histogram]]
Row = tuple[LabelValues, float | Histogram]


@dataclass(frozen=True, slots=True)
class Family:
    kind: Literal["counter", "gauge", "histogram"]
    name: str
    documentation: str
    labels: tuple[str, ...]
    """Their names; those of the node itself (cluster, node_type, node_id) are added later."""
    rows: Sequence[Row]


Collect = Callable[[], Awaitable[Iterable[Family]]]
"""Called on the loop for each scrape. One with much to walk through gives way now and then (`await asyncio.sleep(0)`
every some hundred items), so that no turn of the loop is long."""


def counter(name: str, documentation: str, values: Numbers, labels: Sequence[str] = ()) -> Family:
    """What only grows while the process lives; its name ends in `_total`.

    `values` is one number when there are no labels, else label values with their number: a dict or pairs. Series come
    in an order that lasts, oldest first: beyond the limit of series it decides which are shown one by one.
    """
    if not name.endswith("_total"):
        raise ValueError(f"the name of the counter {name} does not end in _total")
    return Family("counter", name, documentation, tuple(labels), _numbers(values))


def gauge(name: str, documentation: str, values: Numbers, labels: Sequence[str] = ()) -> Family:
    """What goes up and down; `values` as of a counter."""
    return Family("gauge", name, documentation, tuple(labels), _numbers(values))


def histogram(name: str, documentation: str, values: Histograms, labels: Sequence[str] = ()) -> Family:
    """`values`: one histogram when there are no labels, else label values with theirs, all of the same bounds."""
    if isinstance(values, Histogram):
        rows: Iterable[Row] = (((), values),)
    else:
        rows = values.items() if isinstance(values, Mapping) else values
    return Family("histogram", name, documentation, tuple(labels), list(rows))


def _numbers(values: Numbers) -> list[Row]:
    if isinstance(values, (int, float)):
        return [((), values)]
    return list(values.items() if isinstance(values, Mapping) else values)
