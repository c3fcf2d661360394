"""The places of a request's messages when they do not all come from one call."""

from collections.abc import Sequence

from kourou_broker.operations.journal import OnStored, Stored
from kourou_service.refusal import Refused


def place_of(where: Stored, index: int) -> Stored:
    """Of one message of a call."""
    return Stored(
        where.queue,
        where.base + index if where.base >= 0 else -1,
        where.position,
        where.place + index,
        where.recall_handles[index : index + 1],
        where.transaction_id,
    )


class GatheredPlaces:
    """Tells on_stored when all are known, or when one of them was refused."""

    def __init__(self, count: int, on_stored: OnStored) -> None:
        self._places: list[Stored | None] = [None] * count
        self._missing = count
        self._on_stored: OnStored | None = on_stored

    def takes(self, index: int, place: int) -> OnStored:
        """-> what takes the outcome of a call, of which this message stands at this place of the request."""
        return lambda where: self._take(where, [(index, place)])

    def takes_all(self, places: Sequence[Sequence[int]]) -> OnStored:
        """The same for all messages of a call; places: of each of them."""
        pairs = [(index, place) for index, at in enumerate(places) for place in at]
        return lambda where: self._take(where, pairs)

    def _take(self, where: Stored | Refused, pairs: Sequence[tuple[int, int]]) -> None:
        if self._on_stored is None:
            return
        if isinstance(where, Refused):
            self._answer(where)
            return
        for index, place in pairs:
            self._places[place] = place_of(where, index)
        self._missing -= len(pairs)
        if not self._missing:
            self._answer(_together([place for place in self._places if place is not None]))

    def _answer(self, where: Stored | Refused) -> None:
        on_stored, self._on_stored = self._on_stored, None
        assert on_stored is not None
        on_stored(where)


def _together(places: Sequence[Stored]) -> Stored:
    """As one run if they are one."""
    first = places[0]
    handles = tuple(handle for place in places for handle in place.recall_handles)
    run = first._replace(recall_handles=handles)
    if all(place == place_of(run, index) for index, place in enumerate(places)):
        return run
    return run._replace(each=tuple(places))
