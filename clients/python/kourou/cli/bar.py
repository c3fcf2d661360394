"""How far something is that takes long: a bar on a terminal, else nothing but what is printed."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class Bar:
    """A context: the bar is gone when it ends."""

    def __init__(self, what: str) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn(what),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task("", total=None, note="")
        self.total = 0

    def show(self, done: int, total: int | None, note: str = "") -> None:
        """`total`: None while nobody knows."""
        self.total = total or 0
        self._progress.update(self._task, completed=done, total=total, note=note)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._progress.stop()
