"""A MetricSimulation as a source of readings: a fleet or a replay, paced, and resumable at any tick.

Frames are cut at ticks that depend on the resource alone, never on how fast the pipeline takes them, so
a run that was interrupted goes on with the very batches it would have had.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from tidewarden.clock import Clock
from tidewarden.frames import Frame, IntArray, SeriesKey, SeriesTable
from tidewarden.resources.metricsimulation import MetricSimulation
from tidewarden.sources import Batch, SourceError
from tidewarden_simulator import replay
from tidewarden_simulator.anomalies import TruthEvent
from tidewarden_simulator.fleets import FleetMaker, fleet_keys

FRAME_READINGS = 10_000  # measured: decoding and scoring gain nothing from larger frames
AHEAD_READINGS = 200_000  # made at once, as making a few ticks costs as much as making fifty: 2 MB, 10 ms
FLUSH_MS = 50  # a paced source waits for no more readings than this


def series_keys(resource: MetricSimulation, base_dir: Path = Path()) -> list[SeriesKey]:
    """The series that ``resource`` plays, in the order in which it plays them."""
    spec = resource.spec
    if spec.fleet is not None:
        return fleet_keys(spec.fleet)
    return [one.key for one in _recorded(resource, base_dir)]


def truth(
    resource: MetricSimulation, start_ms: int, *, base_dir: Path = Path(), points: int | None = None
) -> list[TruthEvent]:
    """The anomalies of a simulation, for evaluation only.

    Args:
        resource: the simulation.
        start_ms: time of its first reading, ms since the epoch.
        base_dir: folder of the resource file.
        points: only the first so many ticks of a fleet; an endless one needs it.
    """
    spec = resource.spec
    if spec.fleet is None:
        return list(replay.truth_of(_recorded(resource, base_dir), start_ms=_rebased(resource, start_ms)))
    ticks = [n for n in (spec.points, points) if n is not None]
    if not ticks:
        raise ValueError(
            f"simulation {resource.metadata.name!r} is endless: say for how many points you want its truth"
        )
    return list(_fleet_maker(resource, start_ms).truth(min(ticks)))


class SimulationSource:
    """The readings of a MetricSimulation, with their labels.

    Args:
        resource: the simulation.
        table: where its series get their ids.
        start_ms: time of the first reading, ms since the epoch; a replay that is not rebased ignores it.
        clock: what pacing waits on.
        base_dir: folder of the resource file.

    Raises:
        SourceError: the resource names data that cannot be played.
    """

    kind = "simulation"

    def __init__(
        self, resource: MetricSimulation, *, table: SeriesTable, start_ms: int, clock: Clock, base_dir: Path = Path()
    ) -> None:
        self.name = resource.metadata.name
        self._speed = resource.spec.speed
        self._table = table
        self._clock = clock
        self._yielded = 0
        self._cuts: list[int] = []
        try:
            self._player: _Player = (
                _FleetPlayer(resource, start_ms)
                if resource.spec.fleet is not None
                else _ReplayPlayer(resource, start_ms, base_dir)
            )
        except ValueError as error:
            raise SourceError(f"simulation {self.name!r}: {error}") from error
        self._ids = table.ids_of(self._player.keys)

    @staticmethod
    def start_for(resource: MetricSimulation, now_ms: int, base_dir: Path = Path()) -> int:
        """Time of the first reading where the resource names none: the last one is at ``now_ms``.

        An endless simulation starts now. Times fall on whole intervals.
        """
        spec = resource.spec
        span = 0
        if spec.fleet is None:
            span = max(int(one.timestamp[-1] - one.timestamp[0]) for one in _recorded(resource, base_dir))
        elif spec.points is not None:
            span = (spec.points - 1) * spec.interval
        return (now_ms - span) // spec.interval * spec.interval

    def progress(self) -> tuple[int, int | None]:
        """Readings yielded so far and in all (None where endless)."""
        ticks = self._player.ticks
        return self._yielded, None if ticks is None else self._player.readings_before(ticks)

    def cut_at(self, positions: Sequence[str]) -> None:
        """End a batch at exactly each of these ticks: a process killed at another speed cut differently."""
        self._cuts = sorted(self._tick_of(position) for position in positions)

    def batches(self, position: str | None, stop: threading.Event) -> Iterator[Batch]:
        """Yield batches from tick ``position`` on until the end or until ``stop`` is set."""
        first = self._tick_of(position)
        ticks = self._player.ticks
        self._yielded = self._player.readings_before(first)
        begun, begun_at = self._clock.monotonic(), None
        while not stop.is_set() and (ticks is None or first < ticks):
            last = min([self._player.cut(first), *(cut for cut in self._cuts if cut > first)])
            due_ms = self._player.time_of(last - 1)
            if begun_at is None:
                begun_at = due_ms
            frame = self._player.frame(first, last, self._table, self._ids)
            if self._speed > 0:
                wait_s = (due_ms - begun_at) / 1000 / self._speed - (self._clock.monotonic() - begun)
                if wait_s > 0 and self._clock.wait(stop, wait_s):
                    return
            self._yielded += len(frame)
            yield Batch(
                frame,
                position=str(last),
                origin=f"simulation {self.name}, tick {first}",
                arrived=self._clock.now_ms() / 1000,
            )
            first = last

    def _tick_of(self, position: str | None) -> int:
        if position is None:
            return 0
        if not position.isdecimal():
            raise SourceError(f"simulation {self.name!r}: position {position!r} is no tick; remove the saved position")
        return int(position)


class _Player(Protocol):
    """What `SimulationSource` plays: ticks of readings."""

    keys: list[SeriesKey]
    ticks: int | None

    def cut(self, first: int) -> int:
        """The tick after the last one of the frame that begins at ``first``."""

    def time_of(self, tick: int) -> int:
        """Ms since the epoch."""

    def readings_before(self, tick: int) -> int:
        """Readings of all ticks before ``tick``."""

    def frame(self, first: int, last: int, table: SeriesTable, ids: IntArray) -> Frame:
        """Readings of the ticks [first, last); ``ids`` are those of ``keys``."""


class _FleetPlayer:
    def __init__(self, resource: MetricSimulation, start_ms: int) -> None:
        spec = resource.spec
        self._maker = _fleet_maker(resource, start_ms)
        self._start_ms, self._interval_ms = start_ms, spec.interval
        self.keys = self._maker.keys
        self.ticks = spec.points
        self._frame_ticks = max(1, FRAME_READINGS // len(self.keys))
        self._ahead_ticks = max(1, AHEAD_READINGS // len(self.keys))
        self._block_first, self._block = 0, self._maker.block(0, 0)
        if spec.speed > 0:
            self._frame_ticks = max(1, min(self._frame_ticks, int(FLUSH_MS * spec.speed / spec.interval)))

    def cut(self, first: int) -> int:
        last = (first // self._frame_ticks + 1) * self._frame_ticks
        return last if self.ticks is None else min(last, self.ticks)

    def time_of(self, tick: int) -> int:
        return self._start_ms + tick * self._interval_ms

    def readings_before(self, tick: int) -> int:
        return tick * len(self.keys)

    def frame(self, first: int, last: int, table: SeriesTable, ids: IntArray) -> Frame:
        begin = first - self._block_first
        if begin < 0 or last - self._block_first > len(self._block.timestamp):
            until = max(last, first + self._ahead_ticks)
            until = until if self.ticks is None else min(until, self.ticks)
            begin, self._block_first, self._block = 0, first, self._maker.block(first, until)
        rows = slice(begin, begin + last - first)
        return Frame(
            table,
            np.tile(ids, last - first),
            np.repeat(self._block.timestamp[rows], len(ids)),
            self._block.value[rows].ravel(),
            self._block.label[rows].ravel(),
        )


class _ReplayPlayer:
    def __init__(self, resource: MetricSimulation, start_ms: int, base_dir: Path) -> None:
        self._data = replay.join(_recorded(resource, base_dir), start_ms=_rebased(resource, start_ms))
        self.keys = self._data.keys
        self.ticks: int | None = len(self._data.tick_times)
        bucket = self._data.tick_rows[:-1] // FRAME_READINGS
        changes = np.diff(bucket) != 0
        if resource.spec.speed > 0:
            flush_ms = max(1, int(FLUSH_MS * resource.spec.speed))
            changes |= np.diff((self._data.tick_times - self._data.tick_times[0]) // flush_ms) != 0
        self._cuts = np.append(np.flatnonzero(changes) + 1, self.ticks)

    def cut(self, first: int) -> int:
        return int(self._cuts[np.searchsorted(self._cuts, first, side="right")])

    def time_of(self, tick: int) -> int:
        return int(self._data.tick_times[tick])

    def readings_before(self, tick: int) -> int:
        return int(self._data.tick_rows[min(tick, len(self._data.tick_rows) - 1)])

    def frame(self, first: int, last: int, table: SeriesTable, ids: IntArray) -> Frame:
        rows = slice(int(self._data.tick_rows[first]), int(self._data.tick_rows[last]))
        data = self._data
        # Copies: whoever gets the frame may keep it, or change it, without the recording.
        return Frame(
            table, ids[data.series[rows]], data.timestamp[rows].copy(), data.value[rows].copy(), data.label[rows].copy()
        )


def _fleet_maker(resource: MetricSimulation, start_ms: int) -> FleetMaker:
    spec = resource.spec
    assert spec.fleet is not None
    return FleetMaker(
        spec.fleet, spec.anomalies, seed=spec.seed, interval_ms=spec.interval, start_ms=start_ms, points=spec.points
    )


def _recorded(resource: MetricSimulation, base_dir: Path) -> list[replay.Recorded]:
    spec = resource.spec
    assert spec.replay is not None
    return replay.load(spec.replay, interval_ms=spec.interval, base_dir=base_dir, points=spec.points)


def _rebased(resource: MetricSimulation, start_ms: int) -> int | None:
    assert resource.spec.replay is not None
    return start_ms if resource.spec.replay.rebase else None
