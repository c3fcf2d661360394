"""Many metrics of the same things: their rows are made in one walk, which gives way to the loop."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from kourou.names import is_retry_topic, is_system_name
from kourou_broker.operations.slices import in_slices
from kourou_broker.state.definitions import Group, Topic
from kourou_service.metrics.family import Family

T = TypeVar("T")

Labels = tuple[str, ...]

BY_GROUP = ("topic", "consumer_group")
BY_GROUP_AND_SYSTEM = (*BY_GROUP, "is_system")
BY_GROUP_AND_KIND = (*BY_GROUP_AND_SYSTEM, "is_retry")

STORAGE = ("storage_type", "storage_medium")
DISK = ("local", "disk")
"""The values of STORAGE."""


@dataclass(frozen=True)
class Column(Generic[T]):
    """A metric of each T: `build` is counter, gauge or histogram."""

    build: Callable[[str, str, Any, Sequence[str]], Family]
    name: str
    documentation: str
    labels: Sequence[str]
    value: Callable[[T], Any]


async def families(columns: Sequence[Column[T]], rows: Iterable[tuple[Labels, T]]) -> list[Family]:
    """A column whose labels are fewer takes the first ones of each row."""
    cells: list[list[tuple[Labels, Any]]] = [[] for _ in columns]
    filled = list(zip(columns, cells, strict=True))
    async for labels, item in in_slices(rows):
        for column, into in filled:
            into.append((labels[: len(column.labels)], column.value(item)))
    built: list[Family] = []
    async for column, into in in_slices(filled):
        built.append(column.build(column.name, column.documentation, into, column.labels))
    return built


def group_labels(group: Group, topic: Topic) -> Labels:
    """The values of BY_GROUP_AND_KIND."""
    is_system = is_system_name(topic.name.name) or is_system_name(group.name.name)
    return str(topic.name), str(group.name), flag(is_system), flag(is_retry_topic(topic.name.name))


def flag(value: bool) -> str:
    return "true" if value else "false"
