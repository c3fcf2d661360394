"""`python -m benchmarks.rivals.markdown RESULTS.jsonl`: the results of a run as they stand in ../README.md."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks.rivals.results import Results, from_lines
from benchmarks.rivals.rows import Row, number, rows_with_sizes
from benchmarks.rivals.table import verdict_cells
from benchmarks.rivals.targets import NOT_MEASURED, verdicts

_MACHINE = (("fdatasync_p50_ms", "fdatasync of 4 KiB, ms"), ("work_on_server_core_ms", "work on the servers' core, ms"))


def tables(results: Results) -> Iterator[str]:
    """Lines: the medians of all, the machine beside them, the targets, who was left out."""
    run = results.run
    how = f"{run['rounds']} rounds of {run['seconds']:g} s a figure; medians, the best bold."
    yield f"{run['date']}, {run['machine']}, {how}"
    yield ""
    yield from _table(["", *results.participants()], _medians(results))
    yield ""
    yield from _table(["target", "", "measured", "over the rounds", ""], map(verdict_cells, verdicts(results)))
    yield ""
    yield f"{NOT_MEASURED[0].upper()}{NOT_MEASURED[1:]}."
    for name, why in results.left_out.items():
        yield f"Left out: `{name}`: {why.splitlines()[0]}."


def _medians(results: Results) -> Iterator[Sequence[str]]:
    for row, size, title in rows_with_sizes(results):
        yield [f"{title}, {row.unit}", *_row(results, row, size)]
    for key, title in _MACHINE:
        spreads = [results.beside(name, "publish", key) for name in results.participants()]
        yield [f"the machine before publishing: {title}", *("" if each is None else number(each) for each in spreads)]


def _row(results: Results, row: Row, size: int) -> Iterator[str]:
    spreads = [results.spread(name, row.measure, row.value, size) for name in results.participants()]
    medians = [spread.median for spread in spreads if spread is not None]
    best = max(medians) if row.more_is_better else min(medians)
    for spread in spreads:
        if spread is None:
            yield ""
        else:
            yield f"**{number(spread.median)}**" if spread.median == best else number(spread.median)


def _table(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> Iterator[str]:
    yield _line(headings)
    yield _line(["---"] * len(headings))
    yield from map(_line, lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print("\n".join(tables(from_lines(Path(sys.argv[1]).read_text().splitlines()))))
