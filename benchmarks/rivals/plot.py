"""`python -m benchmarks.rivals.plot RESULTS.jsonl PLOT.svg`: medians as bars, with the span of the rounds."""

# pyright: reportMissingImports=false

import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

from benchmarks.rivals.results import Results, from_lines
from benchmarks.rivals.rows import Row, number, rows_with_sizes

_COLUMNS = 3
_COLORS = {"kourou": "#b3442b", "rocketmq": "#c98a2b", "kafka": "#3f3f46", "nats": "#2b7fb3", "rabbitmq": "#7a9a3a"}


def draw(results: Results, path: Path) -> None:
    rows = list(rows_with_sizes(results))
    lines = -(-len(rows) // _COLUMNS)
    figure, axes = pyplot.subplots(lines, _COLUMNS, figsize=(5.2 * _COLUMNS, 2.7 * lines), squeeze=False)
    for axis, (row, size, title) in zip(axes.flat, rows, strict=False):
        _bars(axis, results, row, size, title)
    for axis in list(axes.flat)[len(rows) :]:
        axis.set_visible(False)
    run = results.run
    figure.suptitle(f"{run['machine']}, {run['date']}: medians of {run['rounds']} rounds, lines from least to most")
    figure.tight_layout(rect=(0, 0, 1, 0.985))
    figure.savefig(path, metadata={"Date": None})


def _bars(axis: Any, results: Results, row: Row, size: int, title: str) -> None:
    names = [name for name in results.participants() if results.spread(name, row.measure, row.value, size)][::-1]
    for at, name in enumerate(names):
        spread = results.spread(name, row.measure, row.value, size)
        assert spread is not None
        axis.barh(at, spread.median, color=_COLORS[name.partition("-")[0]])
        axis.plot([spread.least, spread.most], [at, at], color="black", linewidth=1)
        axis.annotate(f" {number(spread.median)}", (spread.most, at), va="center", fontsize=8)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_title(f"{title}, {row.unit}" + ("" if row.more_is_better else " (less is better)"), fontsize=8, loc="left")
    axis.margins(x=0.2)
    axis.tick_params(axis="x", labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    draw(from_lines(Path(sys.argv[1]).read_text().splitlines()), Path(sys.argv[2]))
