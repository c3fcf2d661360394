"""What can go wrong with a log.

LogError
|-- DataLocked       another process has the data folder
|-- NewerFormat      written by a newer Kourou
|-- DamagedLog       damage below what was durable; needs `kourou log repair`
|-- MissingLog       the log does not reach back to where the snapshot stands
|-- LogFull          the disk is full and the reserved space is used up
|-- LogFailed        a write or a sync failed, or the log is closed
|-- FrameTooLarge    the frame does not fit a segment
`-- Dropped          the position lies in a segment that is no more
"""


class LogError(Exception):
    """Base of all errors of the log."""


class DataLocked(LogError):
    """Another process has the data folder open."""


class NewerFormat(LogError):
    """The data was written in a newer format than this program reads."""


class DamagedLog(LogError):
    """The log is damaged below what was known to be durable."""

    def __init__(self, segment: str, position: int, what: str, data: str) -> None:
        self.segment = segment
        self.position = position
        self.what = what
        super().__init__(
            f"the log is damaged in segment {segment} at position {position}: {what}. "
            f"Nothing was changed. Look at it and repair it with: kourou log repair --data {data}"
        )


class MissingLog(LogError):
    """The log does not reach back to where it is needed from."""

    def __init__(self, data: str, start: int, first: int | None) -> None:
        begins = "there is no log" if first is None else f"it begins at {first}"
        super().__init__(f"the log in {data} is needed from position {start} on, but {begins}")


class LogFull(LogError):
    """The disk is full and the reserved space is used up; nothing was changed."""


class LogFailed(LogError):
    """A write or a sync failed earlier, or the log is closed: no append is taken any more."""


class FrameTooLarge(LogError):
    """The sections together do not fit into one segment."""


class Dropped(LogError):
    """The position lies before the first segment that is left."""
