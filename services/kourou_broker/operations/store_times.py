"""When messages were stored, for one who asks again and again, mostly for the same ones."""

from time import perf_counter

from kourou_broker.log.errors import LogError
from kourou_broker.log.log import Log
from kourou_broker.operations.section_reader import SectionReader
from kourou_broker.state.definitions import Queue

_LOOKING_S = 0.05
"""So much time a round may take for what the active segment does not tell."""


class StoreTimes:
    """A round is one walk over what interests; what a round did not ask for is forgotten after it.

    Messages of the active segment are found in its index at once. Older ones need another index, or the disk for a
    copy that was carried forward; when a round has used up its time for these, it gets the time from which on it must
    have been stored at the latest, and a later round gets the right one.
    """

    def __init__(self, log: Log, reader: SectionReader) -> None:
        self._log = log
        self._reader = reader
        self._last: dict[tuple[int, int, int], int] = {}
        self._known: dict[tuple[int, int, int], int] = {}
        self._left_s = 0.0
        self._latest_ms = 0

    def begin(self) -> None:
        """A new round."""
        self._last, self._known = self._known, {}
        self._left_s = _LOOKING_S
        self._latest_ms = self._log.segments()[-1].first_stored_ms

    def known(self, queue: Queue, offset: int) -> int | None:
        """When the first message at the offset or after it was stored, ms; None if that takes time to say."""
        entry = self._log.find_active(queue.topic.id, queue.id, offset)
        if entry is not None:
            return entry.stored_ms
        key = (queue.topic.id, queue.id, offset)
        stored_ms = self._known.get(key) or self._last.get(key)
        if stored_ms is not None:
            self._known[key] = stored_ms
        return stored_ms

    async def find(self, queue: Queue, offset: int) -> int | None:
        """The same for what is not known; None if nothing is there."""
        if self._left_s <= 0:
            return self._latest_ms or None  # 0: the active segment is empty
        began_s = perf_counter()
        try:
            stored_ms = await self._reader.stored_ms(queue, offset)
        except (LogError, OSError):  # it was dropped meanwhile, or its consumers will complain
            return None
        finally:
            self._left_s -= perf_counter() - began_s
        if stored_ms is not None:
            self._known[queue.topic.id, queue.id, offset] = stored_ms
        return stored_ms
