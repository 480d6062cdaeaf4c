"""What a person at the terminal sees while the process runs, and at its end."""

from __future__ import annotations

import logging
import sys
import time

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tidewarden.telemetry import RateMeter
from tidewarden_cli.local.pipeline import LocalPipeline
from tidewarden_cli.local.summary import Summary, Totals, accepted, totals

PLAIN_EVERY_S = 5.0  # lines in a log, not in a terminal, are for later reading: a few suffice


class Progress:
    """Live lines on a terminal, or a plain line now and then where stderr is a file or a pipe."""

    def __init__(self, pipeline: LocalPipeline, console: Console, address: str | None) -> None:
        self._pipeline = pipeline
        self._console = console
        self._address = address
        self._began = time.monotonic()
        self._rate = RateMeter()
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        self._next_plain = self._began + PLAIN_EVERY_S

    def __enter__(self) -> Progress:
        if self._address:
            self._console.print(
                f"[bold]Tidewarden[/bold] is watching; the page: [bold cyan]{self._address}[/]  (Ctrl-C ends)"
            )
        if self._live:
            self._live.start()
            _log_to_stderr()  # which the live display has just replaced, so that log lines scroll above it
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()
            _log_to_stderr()

    def update(self) -> None:
        """Show the state of things."""
        rate = self._rate.mark(accepted(self._pipeline))
        if self._live:
            self._live.update(self._picture(totals(self._pipeline), rate))
        elif time.monotonic() >= self._next_plain:
            self._next_plain = time.monotonic() + PLAIN_EVERY_S
            now = totals(self._pipeline)
            self._console.print(_line(now, rate, time.monotonic() - self._began).plain, highlight=False, soft_wrap=True)

    def _picture(self, now: Totals, rate: float) -> RenderableType:
        lines: list[RenderableType] = [_line(now, rate, time.monotonic() - self._began)]
        board = self._pipeline.telemetry.board.read()
        table = Table.grid(padding=(0, 2))
        for name, facts in sorted(board.get("simulations", {}).items()):
            played, total = facts.get("played", 0), facts.get("total")
            share = f"{100 * played / total:3.0f} %" if total else f"{played:,}"
            table.add_row("simulation", name, share, "")
        for name, facts in sorted(board.get("detectors", {}).items()):
            table.add_row("detector", name, f"{facts.get('series', 0)} series", str(facts.get("message", "")))
        for name, facts in sorted(board.get("candidates", {}).items()):
            table.add_row(
                "candidate", f"{name}: {facts.get('version', '')}", str(facts.get("mode", "")), facts["message"]
            )
        lines.append(table)
        return Group(*lines)


def _log_to_stderr() -> None:
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stderr)


def _line(now: Totals, rate: float, seconds: float) -> Text:
    text = Text()
    text.append(f"{seconds:6.0f} s  ")
    text.append(f"{now.readings:,} readings", style="bold")
    text.append(f"  {rate:,.0f}/s  ")
    text.append(f"{now.rejected:,} rejected  ", style="yellow" if now.rejected else "")
    text.append(f"{now.anomalies:,} anomalies  ", style="magenta" if now.anomalies else "")
    text.append(f"{now.alerts:,} alerts ({now.firing} firing)  ", style="red" if now.firing else "")
    text.append(f"lag {now.lag_records:,}")
    return text


def show_summary(summary: Summary, console: Console) -> None:
    """The last words: counts, and how the detectors did where there was truth."""
    console.print(
        f"{summary.readings:,} readings in {summary.seconds:.1f} s ({summary.readings_per_second:,.0f}/s), "
        f"{summary.rejected:,} rejected, {summary.anomalies:,} anomalies, {summary.alerts:,} alerts",
        highlight=False,
    )
    if not summary.evaluation:
        return
    console.print("Against the truth of the simulations:")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("detector", "simulation", "precision", "recall", "F1", "VUS-PR", "delay", "false/day"):
        table.add_column(heading, justify="left" if heading in ("detector", "simulation") else "right")
    for row in summary.evaluation:
        delay = "–" if row.delay_median_s is None else f"{row.delay_median_s:.0f} s"
        table.add_row(
            row.detector, row.simulation, _share(row.precision), _share(row.recall), _share(row.f1),
            _share(row.vus_pr), delay, "–" if row.false_alarms_per_day is None else f"{row.false_alarms_per_day:.2f}",
        )  # fmt: skip
    console.print(table)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
