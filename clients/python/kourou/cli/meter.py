"""What is shown while many messages move, and the summary at the end."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeElapsedColumn


def progress_bar(*columns: ProgressColumn) -> Progress:
    """On standard error, if that is a terminal; otherwise silent."""
    console = Console(stderr=True)
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


class Meter:
    """A progress bar for messages."""

    def __init__(self, verb: str, total: int | None) -> None:
        """`total` is what the bar measures (bytes read, messages); None: not known."""
        self._progress = progress_bar(
            SpinnerColumn(),
            TextColumn(f"{verb} {{task.fields[count]:,}} messages"),
            BarColumn(),
            TextColumn("{task.fields[rate]:,.0f}/s"),
            TimeElapsedColumn(),
        )
        self._task = self._progress.add_task("", total=total, count=0, rate=0.0)
        self._started_s = time.monotonic()
        self.count = 0

    def __enter__(self) -> Meter:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def moved(self, count: int, done: int) -> None:
        """`count` more messages; `done` of the total by now."""
        self.count += count
        self._progress.update(self._task, completed=done, count=self.count, rate=self.rate())

    def rate(self, without_s: float = 0.0) -> float:
        """Messages a second since the start, the time at the end when nothing came left out."""
        return self.count / max(self.elapsed_s() - without_s, 1e-9)

    def elapsed_s(self) -> float:
        return time.monotonic() - self._started_s


def say_digest(digest: str) -> None:
    print(f"digest {digest} (SHA-256 over the sorted lines, each with its newline)", file=sys.stderr)
