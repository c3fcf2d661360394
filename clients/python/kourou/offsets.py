"""The progress of a broadcasting consumer, in a local file."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from kourou.errors import InvalidArgument
from kourou.route import Queue

OFFSETS_FOLDER = Path("~/.kourou/offsets")


class OffsetFile:
    """The next offset of each queue, as JSON: {topic: {broker: {queue: offset}}}. Belongs to one consumer at a time."""

    def __init__(self, path: Path) -> None:
        """Raises InvalidArgument when another consumer uses it, or when it is none of ours."""
        self._path = path
        self._lock_fd = _lock(path.with_name(path.name + ".lock"))
        self._offsets = _read(path)
        self._changed = False

    def knows_topic(self, topic: str) -> bool:
        return topic in self._offsets

    def get(self, queue: Queue) -> int | None:
        return self._offsets.get(queue.topic, {}).get(queue.broker, {}).get(str(queue.id))

    def set(self, queue: Queue, next_offset: int) -> None:
        self._offsets.setdefault(queue.topic, {}).setdefault(queue.broker, {})[str(queue.id)] = next_offset
        self._changed = True

    def take_changes(self) -> str | None:
        """The text to `write`, None when it is there already."""
        if not self._changed:
            return None
        self._changed = False
        return json.dumps(self._offsets, indent=1, sort_keys=True)

    def write(self, text: str) -> None:
        """All or nothing, also through a power failure. Blocks; may run in a thread, one at a time. Raises OSError."""
        new = self._path.with_name(self._path.name + ".new")
        try:
            with new.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        except OSError:
            self._changed = True
            raise

    def close(self) -> None:
        """Writes what is not written yet. Raises OSError."""
        try:
            text = self.take_changes()
            if text is not None:
                self.write(text)
        finally:
            os.close(self._lock_fd)


Offsets = dict[str, dict[str, dict[str, int]]]


def _read(path: Path) -> Offsets:
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise InvalidArgument(f"{path} holds no offsets: {error}") from None
    try:
        return {
            str(topic): {str(b): {str(q): int(offset) for q, offset in queues.items()} for b, queues in brokers.items()}
            for topic, brokers in found.items()
        }
    except (AttributeError, TypeError, ValueError) as error:
        raise InvalidArgument(f"{path} holds no offsets: {error}") from None


def _lock(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            text = (
                f"another consumer keeps its progress in {path.with_suffix('')}: give each an offsets_path of its own"
            )
            raise InvalidArgument(text) from None
    return fd
