"""Frames that are whole by themselves, and still not of this log."""

from kourou_broker.log.frame import Sealed, seal
from kourou_broker.log.scan import SegmentScan
from tests.unit.log.logs import record


def _frame(payload: bytes, position: int, prev_crc: int) -> Sealed:
    return seal([record(payload)], prev_crc=prev_crc, epoch=0, position=position, durable=0, stored_ms=1)


def _bytes(frame: Sealed) -> bytes:
    return b"".join((frame.head, *frame.body))


def test_a_frame_of_another_history_is_not_taken_though_its_checksum_and_position_fit() -> None:
    ours, theirs = _frame(b"ours", 0, 0), _frame(b"xxxx", 0, 0)
    end = len(_bytes(ours))
    next_of_ours, next_of_theirs = _frame(b"next", end, ours.crc), _frame(b"next", end, theirs.crc)
    whole = SegmentScan(_bytes(ours) + _bytes(next_of_ours), 0, chain=0)
    assert len(list(whole.frames())) == 2
    assert whole.damage is None
    spliced = SegmentScan(_bytes(ours) + _bytes(next_of_theirs), 0, chain=0)
    assert len(list(spliced.frames())) == 1
    assert spliced.end == end
    assert spliced.damage == "a frame does not follow the one before it"
