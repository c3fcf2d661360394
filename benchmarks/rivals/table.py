"""The results as tables on the terminal: one for each figure, with all who were measured, then the targets."""

from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.rivals.results import Results, Spread
from benchmarks.rivals.rows import Row, number, rows_with_sizes
from benchmarks.rivals.system import Participant
from benchmarks.rivals.targets import NOT_MEASURED, Verdict, verdicts

_REFERENCES = ("kourou-sync-stream", "kourou-sync-rocketmq")
"""The first of them that was measured is what the others are compared with."""
_OUTCOME_STYLES = {"met": "green", "missed": "red", "not measured": "dim"}


def show(console: Console, results: Results, participants: Mapping[str, Participant]) -> None:
    _show_participants(console, results, participants)
    for row, size, title in rows_with_sizes(results):
        console.print(_figures(results, row, size, title))
    _show_targets(console, verdicts(results))
    for name, why in results.left_out.items():
        console.print(f"[red]left out[/] {name}: {escape(why)}", highlight=False, soft_wrap=True)


def _show_participants(console: Console, results: Results, participants: Mapping[str, Participant]) -> None:
    table = _table("who takes part")
    table.add_column("")
    table.add_column("acknowledged means")
    table.add_column("configuration")
    for name in results.participants():
        participant = participants[name]
        table.add_row(name, participant.durability, participant.configuration)
    console.print(table)


def _figures(results: Results, row: Row, size: int, title: str) -> Table:
    table = _table(f"{title}, {row.unit}" + ("" if row.more_is_better else " (less is better)"))
    table.add_column("", no_wrap=True)
    for heading in ("median", "least", "most", "ratio", "server busy", "client busy", "fdatasync", "work"):
        table.add_column(heading, justify="right", no_wrap=True)
    reference = next((each for each in _REFERENCES if results.spread(each, row.measure, row.value, size)), None)
    spreads = {name: results.spread(name, row.measure, row.value, size) for name in results.participants()}
    measured = {name: spread for name, spread in spreads.items() if spread is not None}
    best = _best(row, measured)
    for name, spread in measured.items():
        ratio = reference and results.ratio(name, reference, row.measure, row.value, size)
        table.add_row(
            f"[bold]{name}[/]" if name == best else name,
            *(number(value) for value in (spread.median, spread.least, spread.most)),
            f"{number(ratio.median)}" if ratio else "",
            *(_percent(results, name, row, key, size) for key in ("server_busy", "client_busy")),
            *(_beside(results, name, row, key) for key in ("fdatasync_p50_ms", "work_on_server_core_ms")),
        )
    return table


def _best(row: Row, measured: Mapping[str, Spread]) -> str:
    choose = max if row.more_is_better else min
    return choose(measured, key=lambda name: measured[name].median)


def _percent(results: Results, name: str, row: Row, key: str, size: int) -> str:
    spread = results.spread(name, row.measure, key, size)
    return f"{spread.median:.0%}" if spread else ""


def _beside(results: Results, name: str, row: Row, key: str) -> str:
    value = results.beside(name, row.measure, key)
    return "" if value is None else f"{number(value)} ms"


def _show_targets(console: Console, found: list[Verdict]) -> None:
    table = _table("targets (Kourou's figure, or its ratio to the one named)")
    table.add_column("")
    for heading in ("target", "measured", "rounds", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for verdict in found:
        *cells, outcome = verdict_cells(verdict)
        table.add_row(*cells, f"[{_OUTCOME_STYLES[outcome]}]{outcome}[/]")
    console.print(table)
    console.print(NOT_MEASURED, style="dim", highlight=False)


def verdict_cells(verdict: Verdict) -> tuple[str, str, str, str, str]:
    """Text, target, measured, least to most over the rounds, met or not."""
    target = verdict.target
    bound = f"{'at most' if target.at_most else 'at least'} {number(target.bound)}"
    if verdict.measured is None or verdict.least is None or verdict.most is None:
        return target.text, bound, "", "", "not measured"
    rounds = f"{number(verdict.least)} to {number(verdict.most)}"
    return target.text, bound, number(verdict.measured), rounds, "met" if verdict.met else "missed"


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
