"""The fold over a medium's sealed segments: how the state is found at a start, and how a snapshot is made."""

from kourou_broker.log.medium import Medium
from kourou_broker.log.reading import scan_segment
from kourou_broker.state import snapshot
from kourou_broker.state.snapshot import DamagedSnapshot
from kourou_broker.state.state import State

_PREFIX = "snapshot-"
GENERATIONS = 2


def snapshot_name(position: int) -> str:
    return f"{_PREFIX}{position:016x}"


def snapshots(medium: Medium) -> list[int]:
    """The log positions of the snapshots that are there, newest first."""
    names = (name for name in medium.list_blobs() if name.startswith(_PREFIX))
    return sorted((int(name.removeprefix(_PREFIX), 16) for name in names), reverse=True)


def newest(medium: Medium, at_most: int | None = None) -> tuple[State, int, list[str]]:
    """-> the state of the newest whole snapshot, its position, and what is wrong with those that had to be passed over.

    With at_most, of those that stand there or below.

    A new state at position 0 when there is no snapshot. Whether the log reaches back to it is the log's to see.
    """
    faults: list[str] = []
    for position in snapshots(medium):
        if at_most is not None and position > at_most:
            continue
        try:
            state, at = snapshot.decode(medium.read_blob(snapshot_name(position)))
        except DamagedSnapshot as problem:
            faults.append(f"snapshot {snapshot_name(position)} is damaged: {problem}")
        else:
            return state, at, faults
    return State(), 0, faults


def snapshot_at(medium: Medium, position: int) -> bytes:
    """A snapshot of the state after all records below position, where a segment ends. Reads only what is durable."""
    state, at, _faults = newest(medium, position)
    files = medium.segments()
    for number, file in enumerate(files):
        following = files[number + 1].base if number + 1 < len(files) else None
        if at >= position or file.base >= position:
            break
        if following is not None and following <= at:
            continue
        scan = scan_segment(medium, file, following)
        for frame in scan.frames():
            if frame.position >= at and frame.end <= position:
                for section in frame.sections:
                    state.apply(section, section.position)
                at = frame.end
        if scan.damage:
            raise DamagedSnapshot(f"the log is damaged at {scan.end}: {scan.damage}")
    if at != position:
        raise DamagedSnapshot(f"the log ends at {at}, not at {position}")
    data = snapshot.encode(state, position)
    snapshot.decode(data)  # segments go on its word: it must be readable before it counts
    return data
