"""Listings: the same rows as a table for people or as JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

Row = Mapping[str, object]
# A table in a pipe is not cut to the width of a terminal that is not there.
_PIPE_WIDTH_CHARS = 500


def show_rows(rows: Sequence[Row], as_json: bool, columns: Sequence[str], empty: str) -> None:
    """`columns` are the fields that the table shows; JSON has all of them. `empty` is said when there are no rows."""
    if as_json:
        show_json(rows)
        return
    if not rows:
        print(empty, file=sys.stderr)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        numeric = all(isinstance(row[column], int) and not isinstance(row[column], bool) for row in rows)
        table.add_column(_label(column), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(column, row[column])) for column in columns))
    stdout().print(table)


def show_fields(row: Row, as_json: bool) -> None:
    if as_json:
        show_json(row)
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in row.items():
        table.add_row(Text(_label(name)), Text(_cell(name, value)))
    stdout().print(table)


def stdout() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=_PIPE_WIDTH_CHARS)


def show_json(value: object) -> None:
    """For programs."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


def _label(field: str) -> str:
    # Milliseconds are shown as a date.
    return field.removesuffix("_ms").replace("_", " ")


def _cell(name: str, value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith("_ms") and isinstance(value, int):
        return local_time(value)
    if isinstance(value, list):
        return ", ".join(str(part) for part in value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, dict):
        return ", ".join(f"{key}={part}" for key, part in value.items())  # pyright: ignore[reportUnknownVariableType]
    return str(value)


def local_time(time_ms: int) -> str:
    """For people, to the second; "-" for none."""
    if time_ms == 0:
        return "-"
    return datetime.fromtimestamp(time_ms / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
