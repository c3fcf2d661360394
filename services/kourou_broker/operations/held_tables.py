"""What the payload of a section of held messages begins with: when each was stored, and where each lies."""

from array import array
from itertools import accumulate
from operator import add

from kourou_broker.log.section import MESSAGE_ROW
from kourou_broker.state import records


class HeldTables:
    """Made without an object for each message: there may be thousands, of which one is wanted."""

    __slots__ = ("_ends", "_numbers", "_stored_ms")

    def __init__(self, kind: int, count: int, payload: bytes) -> None:
        """`payload` may end behind the tables."""
        table_at, table_end = records.held_table_at(kind, count), held_tables_bytes(kind, count)
        self._stored_ms = array("Q", payload[table_at - 8 * count : table_at])
        self._numbers = array("I", payload[table_at:table_end])
        self._ends = list(accumulate(map(add, self._numbers[0::3], self._numbers[1::3]), initial=table_end))

    def start(self, index: int) -> int:
        """Where the message begins in the payload; it ends where the next one begins."""
        return self._ends[index]

    def head_bytes(self, index: int) -> int:
        return self._numbers[3 * index]

    def tag_hash(self, index: int) -> int:
        return self._numbers[3 * index + 2]

    def stored_ms(self, index: int) -> int:
        return self._stored_ms[index]


def held_tables_bytes(kind: int, count: int) -> int:
    """The size of all tables of a section of that kind with so many messages."""
    return records.held_table_at(kind, count) + count * MESSAGE_ROW.size
