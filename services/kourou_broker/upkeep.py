"""What a helper process does for the log of a broker, which is written to at the same time."""

from contextlib import closing
from pathlib import Path

from kourou_broker.log import repair
from kourou_broker.log.file_medium import FileMedium
from kourou_broker.state import fold
from kourou_broker.state.indexing import index_segment


def fold_to(folder: Path, position: int) -> bytes:
    """The snapshot of a log position."""
    with closing(FileMedium(folder, read_only=True)) as medium:
        return fold.snapshot_at(medium, position)


def scrub(folder: Path, base: int) -> str | None:
    """What is wrong with the sealed segment at that base."""
    with closing(FileMedium(folder, read_only=True)) as medium:
        return repair.scrub(medium, base)


def index(folder: Path, base: int) -> None:
    """Builds what is missing of the indexes of the sealed segment at that base."""
    with closing(FileMedium(folder, read_only=True)) as medium:
        index_segment(medium, base)
