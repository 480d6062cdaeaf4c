"""What a benchmark says: a table for people, JSON lines for machines."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table


class Result(NamedTuple):
    """One figure; ``ratio`` compares it as its benchmark's docstring says, None where there is nothing to compare."""

    bench: str
    subject: str
    value: float
    unit: str
    ratio: float | None = None


def as_line(result: Result) -> str:
    """One JSON line."""
    return json.dumps(result._asdict())


def print_table(results: Iterable[Result], console: Console | None = None) -> None:
    """All results, bench by bench."""
    table = Table(title="Tidewarden's benchmarks, one run, one machine", title_justify="left")
    for heading in ("bench", "subject", "value", "unit", "ratio"):
        table.add_column(heading, justify="right" if heading in ("value", "ratio") else "left")
    last = None
    for result in results:
        if last is not None and result.bench != last:
            table.add_section()
        ratio = "" if result.ratio is None else f"{result.ratio:,.2f} ×"
        table.add_row(
            result.bench if result.bench != last else "", result.subject, _short(result.value), result.unit, ratio
        )
        last = result.bench
    (console or Console()).print(table)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}"


def write_lines(results: Iterable[Result], path: Path) -> None:
    """JSON lines, replaced as a whole."""
    path.write_text("".join(as_line(result) + "\n" for result in results))
