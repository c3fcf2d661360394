"""The indexes that tell of single messages, built from a sealed segment: of ids and keys, and of their history."""

from collections.abc import Callable

from kourou_broker.log.history_index import SealedHistory, history_blob
from kourou_broker.log.key_index import GrowingKeys, KeyIndex, key_index_blob
from kourou_broker.log.medium import Medium, SegmentFile
from kourou_broker.log.reading import scan_segment, segments
from kourou_broker.log.section import MESSAGE_KINDS
from kourou_broker.state.history import Historian


def index_segment(medium: Medium, base: int) -> None:
    """Builds what is missing or damaged of the indexes of the sealed segment at `base`. Raises OSError.

    Nothing happens if the segment was dropped meanwhile, or is damaged itself: scrubbing tells of that.
    """
    for file, following in segments(medium):
        if file.base == base and following is not None and not _is_indexed(medium, base):
            _build(medium, file, following)


def _is_indexed(medium: Medium, base: int) -> bool:
    return _is_whole(lambda: KeyIndex(medium.view_blob(key_index_blob(base)), base)) and _is_whole(
        lambda: SealedHistory(medium.view_blob(history_blob(base)), base)
    )


def _is_whole(open_index: Callable[[], object]) -> bool:
    try:
        open_index()
    except (ValueError, FileNotFoundError):
        return False
    return True


def _build(medium: Medium, file: SegmentFile, following: int) -> None:
    keys, historian = GrowingKeys(file.base), Historian(file.base)
    try:
        scan = scan_segment(medium, file, following)
    except FileNotFoundError:
        return  # dropped meanwhile
    for frame in scan.frames():
        for section in frame.sections:
            if section.kind in MESSAGE_KINDS:
                keys.add(section)
            historian.add(section, frame.stored_ms)
    if not scan.damage:
        medium.write_blob(key_index_blob(file.base), keys.seal())
        medium.write_blob(history_blob(file.base), historian.index.seal())
