"""What a benchmark gives: figures, each beside the bare echo's, and what it shall reach."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    name: str
    unit: str
    value: float
    beside: float | None = None
    """The same of what it is compared with."""
    beside_name: str = "bare echo"
    ratio: float | None = None
    """value / beside; of several rounds, the median of their ratios."""
    target: str = ""
    met: bool | None = None
    """None: there is no target."""
    details: dict[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def of_rounds(
        cls,
        name: str,
        unit: str,
        values: Sequence[float],
        besides: Sequence[float],
        *,
        least: float | None,
        **more: Any,
    ) -> "Figure":
        """A ratio of figures taken in turn; `least` is the ratio to reach."""
        ratio = median(value / beside for value, beside in zip(values, besides, strict=True))
        return cls(
            name,
            unit,
            median(values),
            median(besides),
            ratio=ratio,
            target="" if least is None else f"at least {least:.0%}",
            met=None if least is None else ratio >= least,
            **more,
        )

    @classmethod
    def at_most(cls, name: str, unit: str, value: float, most: float, **more: Any) -> "Figure":
        return cls(name, unit, value, target=f"at most {most:g} {unit}", met=value <= most, **more)


@dataclass(frozen=True)
class Result:
    benchmark: str
    figures: list[Figure]
    fdatasync: dict[str, dict[str, float]]
    """The raw disk just before, by the size of a write."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def show(console: Console, result: Result) -> None:
    table = Table(title=result.benchmark, title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column("Kourou", justify="right", no_wrap=True)
    table.add_column("beside", justify="right", no_wrap=True)
    table.add_column("ratio", justify="right", no_wrap=True)
    table.add_column("target", no_wrap=True)
    for figure in result.figures:
        met = {None: "", True: " [green]met[/]", False: " [red]not met[/]"}[figure.met]
        beside = "" if figure.beside is None else f"{figure.beside_name} {_number(figure.beside)}"
        ratio = "" if figure.ratio is None else f"{figure.ratio:.0%}"
        table.add_row(figure.name, f"{_number(figure.value)} {figure.unit}", beside, ratio, figure.target + met)
    console.print(table)
    for figure in result.figures:
        for name, value in figure.details.items():
            console.print(f"  {figure.name}: {name}: {value}", style="dim", highlight=False, soft_wrap=True)
    disk = ", ".join(f"{size} {times['p50_ms']} / {times['p99_ms']} ms" for size, times in result.fdatasync.items())
    console.print(f"  raw fdatasync, median / 99 %: {disk}\n", style="dim", highlight=False, soft_wrap=True)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:,.1f}" if value >= 10 else f"{value:,.2f}"
