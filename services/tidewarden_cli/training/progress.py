"""How far training and search are: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

PLAIN_EVERY_S = 5.0  # lines in a log are for later reading: a few suffice


class _Bar:
    """A bar, or nothing where there is no terminal."""

    def __init__(self, console: Console, text: str, total: int) -> None:
        self._console = console
        self._total = max(total, 1)
        self._text = text
        self._done = 0
        self._next_plain = time.monotonic() + PLAIN_EVERY_S
        self._progress: Progress | None = None
        if console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
            self._progress = Progress(*columns, console=console, transient=True)
            self._task = self._progress.add_task(text, total=self._total)

    def __enter__(self) -> Self:
        if self._progress:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._progress:
            self._progress.stop()

    def _advance(self, by: int, text: str | None = None) -> None:
        self._done += by
        if self._progress:
            self._progress.update(self._task, advance=by, description=text or self._text)
        elif time.monotonic() >= self._next_plain:
            self._next_plain = time.monotonic() + PLAIN_EVERY_S
            share = min(1.0, self._done / self._total)
            self._console.print(f"{text or self._text}: {share:.0%}", highlight=False, soft_wrap=True)


class Readings(_Bar):
    """Of one training: told how many readings were dealt with."""

    def __call__(self, readings: int) -> None:
        """So many more."""
        self._advance(readings)


class Trials(_Bar):
    """Of a search: told of each trial."""

    def __init__(self, console: Console, total: int) -> None:
        super().__init__(console, "searching", total)

    def __call__(self, number: int, value: float | None, best: float | None) -> None:
        """A trial has ended, with this value unless it was given up."""
        shown = "given up" if value is None else f"{value:.3f}"
        best_shown = "none yet" if best is None else f"{best:.3f}"
        self._advance(number + 1 - self._done, f"searching: trial {number + 1} {shown}, best {best_shown}")
