"""What a broker knows, as a fold of its log: the same records in the same order always give the same state."""

from kourou_broker.state.records import Fate, Kind, Resolution
from kourou_broker.state.state import State

__all__ = ["Fate", "Kind", "Resolution", "State"]
