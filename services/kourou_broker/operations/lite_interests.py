"""Which client of a lite group reads which lite topics: soft state, made anew from what clients say."""

from collections.abc import Collection, Iterable, Mapping


class LiteInterests:
    """Of one group. Exclusive: a lite topic has one holder at most, else all that want it share it."""

    def __init__(self) -> None:
        self._names: dict[str, dict[str, None]] = {}
        """By client."""
        self._holders: dict[str, dict[str, None]] = {}
        """Clients by name of the lite topic; sets that keep their order, so that a simulation goes the same way."""
        self.last_synced: dict[str, float] = {}
        """By client, in the loop's time, seconds."""
        self.pairs = 0
        """Of a client and a name."""

    @property
    def clients(self) -> Mapping[str, Collection[str]]:
        """The names that each client reads."""
        return self._names

    def names(self, client: str) -> Collection[str]:
        return self._names.get(client, {})

    def holders(self, name: str) -> Collection[str]:
        return self._holders.get(name, {})

    def add(self, client: str, name: str) -> bool:
        """Whether that is new."""
        names = self._names.setdefault(client, {})
        if name in names:
            return False
        names[name] = None
        self._holders.setdefault(name, {})[client] = None
        self.pairs += 1
        return True

    def remove(self, client: str, names: Iterable[str]) -> None:
        for name in [name for name in names if client in self._holders.get(name, ())]:
            del self._names[client][name]
            del self._holders[name][client]
            self.pairs -= 1
            if not self._holders[name]:
                del self._holders[name]

    def forget(self, client: str) -> None:
        """The client is gone."""
        self.remove(client, list(self.names(client)))
        self._names.pop(client, None)
        self.last_synced.pop(client, None)
