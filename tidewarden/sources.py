"""The interface of every source of readings.

A source turns something outside into batches. Ingest validates each batch and publishes what passes;
it owns back-pressure (it asks for the next batch only when the last one is on the bus) and statistics.
A new source is one file that implements `Source`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from tidewarden.frames import Frame


@dataclass(slots=True, eq=False)
class Refused:
    """Something a source could not even turn into a reading; ingest keeps it as a rejection."""

    reason: str
    detail: str
    origin: str
    raw: str | None = None
    fields: dict[str, object] = field(default_factory=dict)  # tenant, metric … as far as they were read


@dataclass(slots=True, eq=False)
class Batch:
    """Readings as a source read them, before validation.

    Attributes:
        frame: the readings in the order in which they arrived.
        refused: what could not be parsed.
        position: where to go on after this batch, in the source's own words, or None where a source
            cannot go back (push). The same position always yields the same batches from there on: that
            is what makes a replay after a crash reproduce the same scores.
        origins: for each reading where it came from (line, row), if that says more than ``origin``.
        origin: where the batch came from: a file, a peer address, a simulation.
        arrived: seconds since the epoch when the first byte was here, for latency figures.
    """

    frame: Frame
    refused: list[Refused] = field(default_factory=list)
    position: str | None = None
    origins: Sequence[str] | None = None
    origin: str = ""
    arrived: float = 0.0


class Source(Protocol):
    """Where readings come from."""

    name: str
    kind: str  # http, file, simulation …

    def batches(self, position: str | None, stop: threading.Event) -> Iterator[Batch]:
        """Yield batches from ``position`` on (None: the beginning) until the end or until ``stop`` is set.

        A paced source waits on ``stop``, never in a bare sleep. Ends by returning; raises `SourceError`
        where it cannot go on.
        """

    def progress(self) -> tuple[int, int | None]:
        """Readings yielded so far and in all (None where endless or unknown)."""


@runtime_checkable
class CuttingSource(Protocol):
    """A source whose batches are cut by time and chance, so that a replay must be told where they ended."""

    def cut_at(self, positions: Sequence[str]) -> None:
        """Called before `batches`: end a batch at exactly each of these positions, in whatever order they come."""


@runtime_checkable
class ReportingSource(Protocol):
    """A source that may have to wait, and says why."""

    def report_to(self, say: Callable[[Literal["running", "waiting"], str], None]) -> None:
        """Called before `batches`, which calls ``say`` with a state and a sentence (or none) while it works."""


class SourceError(Exception):
    """A source cannot go on: says which, why, and the remedy."""
