"""The log and the disk below it."""

from kourou_broker.log.log import Log, SegmentInfo
from kourou_broker.metrics.table import DISK, STORAGE
from kourou_broker.operations.journal import Journal
from kourou_broker.operations.scrubbing import Scrubbing
from kourou_broker.operations.snapshots import Snapshots
from kourou_service.clock import Clock
from kourou_service.metrics.family import Family, counter, gauge, histogram


class StorageMetrics:
    def __init__(
        self,
        *,
        log: Log,
        journal: Journal,
        snapshots: Snapshots,
        scrubbing: Scrubbing,
        clock: Clock,
        watermark_bytes: int,
        recovery_ms: int,
    ) -> None:
        self._log = log
        self._journal = journal
        self._snapshots = snapshots
        self._scrubbing = scrubbing
        self._clock = clock
        self._watermark_bytes = watermark_bytes
        self._recovery_ms = recovery_ms

    async def collect(self) -> list[Family]:
        segments = self._log.segments()
        return [*self._storage(segments), *self._written(len(segments)), *self._disk(), *self._upkeep(segments)]

    def _storage(self, segments: list[SegmentInfo]) -> list[Family]:
        log = self._log
        return [
            gauge(
                "rocketmq_storage_size_bytes",
                "Size of the log, from its first message to its last.",
                {DISK: log.next_position - log.first_position},
                STORAGE,
            ),
            gauge(
                "rocketmq_storage_flush_behind_bytes",
                "What was appended to the log and is not durable yet.",
                {DISK: log.next_position - log.synced_position},
                STORAGE,
            ),
            gauge(
                "rocketmq_storage_dispatch_behind_bytes",
                "What was appended to the log and cannot be delivered yet.",
                {DISK: log.next_position - log.durable_position},
                STORAGE,
            ),
            gauge(
                "rocketmq_storage_message_reserve_time_milliseconds",
                "Age of what stands first in the log; 0 if it is empty.",
                {DISK: self._age_ms(segments[0].first_stored_ms)},
                STORAGE,
            ),
        ]

    def _written(self, segments: int) -> list[Family]:
        log = self._log
        return [
            counter("kourou_log_appended_bytes_total", "Bytes appended to the log.", log.appended_bytes),
            counter("kourou_log_frames_total", "Frames appended to the log.", log.frames),
            counter("kourou_log_groups_total", "Group commits: frames written and synced together.", log.groups),
            histogram("kourou_log_sync_seconds", "How long a sync of the log took.", log.sync_times),
            gauge("kourou_log_next_position_bytes", "Where the log ends.", log.next_position),
            gauge("kourou_log_durable_position_bytes", "Up to where the log is durable.", log.synced_position),
            gauge("kourou_log_segments", "Segments of the log.", segments),
            gauge("kourou_log_waiting_bytes", "What waits for the disk.", self._journal.waiting_bytes),
        ]

    def _disk(self) -> list[Family]:
        disk = self._log.disk
        return [
            gauge("kourou_disk_free_bytes", "Free space on the disk of the log.", disk.free_bytes),
            gauge("kourou_disk_size_bytes", "Size of the disk of the log.", disk.size_bytes),
            gauge(
                "kourou_disk_watermark_bytes",
                "With less free space new messages are refused.",
                self._watermark_bytes,
            ),
            gauge(
                "kourou_disk_writable",
                "1 if the disk has room for new messages, else 0.",
                int(self._log.writable_messages),
            ),
        ]

    def _upkeep(self, segments: list[SegmentInfo]) -> list[Family]:
        newest = self._snapshots.newest
        left_out_ms = next((segment.first_stored_ms for segment in segments if segment.base >= newest), 0)
        return [
            gauge(
                "kourou_snapshot_age_seconds",
                "Age of the oldest record that is in no snapshot: what is newer is read again at a start.",
                self._age_ms(left_out_ms) / 1000,
            ),
            gauge("kourou_recovery_seconds", "How long the last start read the log.", self._recovery_ms / 1000),
            counter(
                "kourou_scrub_faults_total",
                "Sealed segments that were found damaged since the start.",
                len(self._scrubbing.damaged),
            ),
        ]

    def _age_ms(self, stored_ms: int) -> int:
        return max(0, self._clock.now_ms() - stored_ms) if stored_ms else 0
