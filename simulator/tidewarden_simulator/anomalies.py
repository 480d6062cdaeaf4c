"""Injected anomalies: when and where they are (`Schedule`), and what they do to readings (`inject`).

A schedule is planned in epochs: a finite simulation is one epoch, an endless one plans `EPOCH_TICKS` at
a time, so that any stretch can be made without the stretches before it. The first fifth of the first
epoch stays clean: that is what detectors learn on.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tidewarden.events import AnomalyKind
from tidewarden.frames import FloatArray, IntArray, SeriesKey
from tidewarden.resources.metricsimulation import Anomalies
from tidewarden_simulator.draws import Draws
from tidewarden_simulator.signals import Signal, turn

EPOCH_TICKS = 1_440  # a day of minutes
CLEAN_SHARE = 0.2
CLASSIC_MIX: dict[str, float] = {"spike": 20, "level_shift": 20, "drift": 20, "missing": 20, "seasonal_change": 20}


@dataclass(frozen=True, slots=True)
class Shape:
    """Length of an anomaly in readings, and its size: a factor, or a share of the mean."""

    shortest: int
    longest: int
    smallest: float = 0.0
    largest: float = 0.0
    signed: bool = False  # up or down at random


SHAPES: dict[AnomalyKind, Shape] = {
    AnomalyKind.SPIKE: Shape(3, 15, 2.0, 4.0),  # times
    AnomalyKind.DIP: Shape(3, 15, 2.0, 4.0),  # divided by
    AnomalyKind.LEVEL_SHIFT: Shape(60, 240, 0.5, 0.5, signed=True),  # of the mean
    AnomalyKind.DRIFT: Shape(100, 300, 0.3, 0.3, signed=True),  # of the mean, reached at the end
    AnomalyKind.MISSING: Shape(3, 15),
    AnomalyKind.FLAT_LINE: Shape(20, 60),
    AnomalyKind.SEASONAL_CHANGE: Shape(120, 360, 2.0, 2.0),  # times the seasonal amplitude
    AnomalyKind.TREND_CHANGE: Shape(100, 300, 0.6, 0.6, signed=True),  # of the mean, rise and fall
    AnomalyKind.NOISE: Shape(20, 60, 3.0, 5.0),  # times
}
_FACTORS = (AnomalyKind.SPIKE, AnomalyKind.DIP, AnomalyKind.NOISE)
_INCIDENT = (10, 40)  # length in readings
_LAG_TICKS = 3  # nodes of an incident follow each other within fewer ticks than this
_CYCLES = 4  # of the foreign season within a seasonal change
_LEAST_SEASON = 0.2  # a metric without a season of its own gets one of this share in a seasonal change


class Event(NamedTuple):
    """One anomaly of one series.

    Attributes:
        series: index of the series in the fleet.
        onset: tick of its first reading.
        end: tick of its last reading.
        kind: what it is.
        magnitude: factor (spike, dip, noise), signed share of the mean (level shift, drift, trend change),
            multiple of the seasonal amplitude (seasonal change); 0 where size means nothing.
        incident: number of the incident it belongs to, counted within its epoch, or -1.
    """

    series: int
    onset: int
    end: int
    kind: AnomalyKind
    magnitude: float
    incident: int


class TruthEvent(NamedTuple):
    """What a simulation or a labelled replay knows of one anomaly; for evaluation only.

    Attributes:
        series: whose anomaly it is.
        onset_index: index of its first reading among the readings of its series.
        onset: time of that reading, ms since the epoch.
        end_index: index of its last reading.
        end: time of that reading, ms since the epoch.
        kind: UNSPECIFIED where labels say only that something was wrong.
        magnitude: see `Event.magnitude`; NaN for replays.
        incident: number of the incident, or -1.
    """

    series: SeriesKey
    onset_index: int
    onset: int
    end_index: int
    end: int
    kind: AnomalyKind
    magnitude: float
    incident: int = -1


class Schedule:
    """Which anomalies a fleet suffers, and when.

    Args:
        anomalies: ratio, mix, sizes.
        seed: of the simulation.
        signals: metrics of each node, in order.
        node_counts: nodes of each cluster, in order.
        points: ticks of the simulation, None where it is endless.
    """

    def __init__(
        self,
        anomalies: Anomalies,
        *,
        seed: int,
        signals: Sequence[Signal],
        node_counts: Sequence[int],
        points: int | None,
    ) -> None:
        self._anomalies = anomalies
        self._seed = seed
        self._signals = signals
        self._first_nodes = np.concatenate([[0], np.cumsum(node_counts)])
        self._length = EPOCH_TICKS if points is None else points
        self._epochs = None if points is None else 1
        self._recent: dict[int, Epoch] = {}

    def between(self, first: int, last: int) -> Iterator[Event]:
        """Events with a tick in [first, last), in the order in which they are to be applied."""
        until = (last - 1) // self._length + 1
        if self._epochs is not None:
            until = min(until, self._epochs)
        for number in range(first // self._length, until):
            yield from self._epoch(number).between(first, last)

    def _epoch(self, number: int) -> Epoch:
        epoch = self._recent.get(number)
        if epoch is None:
            while len(self._recent) >= 2:  # a block touches two epochs at most, unless it is huge
                self._recent.pop(next(iter(self._recent)))
            epoch = self._recent[number] = self._plan(number)
        return epoch

    def _plan(self, number: int) -> Epoch:
        draws = Draws(self._seed, f"anomalies/{number}")
        # Later epochs keep one clean tick, so that no anomaly runs on from the epoch before.
        clean = math.ceil(CLEAN_SHARE * self._length) if number == 0 else 1
        first, span = number * self._length + clean, self._length - clean
        single = self._plan_single(draws, first, span)
        return Epoch.join([single, *self._plan_incidents(Draws(self._seed, f"incidents/{number}"), first, span)])

    def _plan_single(self, draws: Draws, first: int, span: int) -> Epoch:
        """Anomalies of single series: ``per_series`` slots of equal length, one anomaly in each."""
        total = int(self._first_nodes[-1]) * len(self._signals)
        slots = min(self._anomalies.per_series, span)
        affected = math.floor(self._anomalies.ratio * total + 0.5)
        count = affected * slots
        if count == 0:
            return Epoch.empty()
        series = np.repeat(np.sort(draws.order(0, total)[:affected]), slots)
        kinds = self._deal(count)[draws.order(1, count)]
        shapes = np.array([_shape_row(kind) for kind in range(max(AnomalyKind) + 1)])[kinds]
        shortest, longest, smallest, largest, signed = shapes.T
        slot = span // slots
        duration = np.floor(shortest + draws.row(2, count) * (longest - shortest + 1))
        duration = np.minimum(duration, max(1, slot // 2))
        onset = first + np.tile(np.arange(slots) * slot, affected) + np.floor(draws.row(3, count) * (slot - duration))
        size = smallest + draws.row(4, count) * (largest - smallest)
        factor = np.isin(kinds, _FACTORS)
        size = np.where(factor, 1 + (size - 1) * self._anomalies.magnitude, size * self._anomalies.magnitude)
        size *= np.where(signed.astype(bool) & self._down(series, size, draws.row(5, count)), -1.0, 1.0)
        return Epoch(series, onset, onset + duration - 1, kinds, size, np.full(count, -1))

    def _down(self, series: npt.NDArray[np.intp], size: FloatArray, draw: FloatArray) -> FloatArray:
        """Which signed anomalies go down: half of them, and those with no room above."""
        head_room = np.array([s.highest / s.base - 1 if s.base > 0 else math.inf for s in self._signals])
        return np.asarray((draw < 0.5) | (head_room[series % len(self._signals)] < size))

    def _deal(self, count: int) -> IntArray:
        """``count`` kinds in the shares of the mix, to the last one (largest remainders)."""
        mix = {str(kind): weight for kind, weight in (self._anomalies.mix or CLASSIC_MIX).items()}
        weights = np.array([max(0.0, weight) for weight in mix.values()])
        if not weights.sum() > 0:
            raise ValueError(f"anomalies.mix: the weights {mix} add up to nothing; give one kind a weight above 0")
        exact = weights / weights.sum() * count
        counts = np.floor(exact).astype(np.int64)
        counts[np.argsort(counts - exact, kind="stable")[: count - counts.sum()]] += 1
        return np.repeat(np.array([AnomalyKind.parse(kind) for kind in mix], np.int32), counts)

    def _plan_incidents(self, draws: Draws, first: int, span: int) -> Iterator[Epoch]:
        touched = np.flatnonzero([signal.incident != 0 for signal in self._signals])
        changes = np.array([signal.incident for signal in self._signals])[touched]
        shortest, longest = _INCIDENT
        for incident in range(self._anomalies.incidents):
            place, whole, share, length, when, severity = draws.row(2 * incident, 6).tolist()
            cluster = int(place * (len(self._first_nodes) - 1))
            low, high = int(self._first_nodes[cluster]), int(self._first_nodes[cluster + 1])
            hit = high - low if whole < 0.5 else max(min(2, high - low), int((0.3 + 0.4 * share) * (high - low)))
            lane = draws.row(2 * incident + 1, high - low)
            nodes = low + np.sort(np.argsort(lane, kind="stable")[:hit])
            duration = min(shortest + int(length * (longest - shortest + 1)), span // 2)
            if duration <= _LAG_TICKS or not len(touched):
                return
            onset = first + int(when * (span - duration - _LAG_TICKS)) + np.floor(lane[nodes - low] * _LAG_TICKS)
            series = (nodes[:, None] * len(self._signals) + touched).ravel()
            sizes = np.tile(changes * (0.8 + 0.6 * severity) * self._anomalies.magnitude, hit)
            begins = np.repeat(onset, len(touched))
            yield Epoch(
                series,
                begins,
                begins + duration - 1,
                np.full(len(series), int(AnomalyKind.LEVEL_SHIFT)),
                np.maximum(sizes, -0.95),  # a level never falls below a twentieth
                np.full(len(series), incident),
            )


@functools.cache
def _shape_row(kind: int) -> tuple[float, float, float, float, float]:
    shape = SHAPES.get(AnomalyKind(kind), Shape(1, 1))
    return shape.shortest, shape.longest, shape.smallest, shape.largest, float(shape.signed)


class Epoch:
    """The events of one epoch as columns, in the order in which they are applied."""

    def __init__(self, *columns: object) -> None:
        series, onset, end, kind, magnitude, incident = (np.asarray(column) for column in columns)
        self.onset, self.end = onset.astype(np.int64), end.astype(np.int64)
        self.series, self.kind, self.incident = (c.astype(np.int64) for c in (series, kind, incident))
        self.magnitude = magnitude.astype(np.float64)

    @classmethod
    def empty(cls) -> Epoch:
        """No events."""
        return cls(*[[]] * 6)

    @classmethod
    def join(cls, parts: Sequence[Epoch]) -> Epoch:
        """Several one after the other; later ones win where they overlap."""
        names = ("series", "onset", "end", "kind", "magnitude", "incident")
        return cls(*[np.concatenate([getattr(part, name) for part in parts]) for name in names])

    def between(self, first: int, last: int) -> Iterator[Event]:
        """Events with a tick in [first, last)."""
        for i in np.flatnonzero((self.onset < last) & (self.end >= first)).tolist():
            yield Event(
                int(self.series[i]), int(self.onset[i]), int(self.end[i]), AnomalyKind(int(self.kind[i])),
                float(self.magnitude[i]), int(self.incident[i]),
            )  # fmt: skip


@dataclass(slots=True)
class Stretch:
    """The readings of one series at the ticks of an event that fall into a block; views, changed in place.

    Attributes:
        calm: readings without noise, shape (k,).
        noise: the noise that will be added, shape (k,).
        season: the daily season in the metric's unit, part of ``calm``, shape (k,).
        base: mean level of the series.
        held: what a flat line shows.
    """

    calm: FloatArray
    noise: FloatArray
    season: FloatArray
    base: float
    held: float


def inject(event: Event, first: int, signal: Signal, stretch: Stretch) -> None:
    """Apply ``event`` to the readings from tick ``first`` on; missing values are left to the caller."""
    size = event.magnitude
    length = event.end - event.onset + 1
    # Share of the event's length that has gone by at each reading, 0 < share <= 1.
    share = (np.arange(len(stretch.calm)) + (first - event.onset + 1)) / length
    match event.kind:
        case AnomalyKind.SPIKE:
            stretch.calm *= size
            stretch.noise *= size
        case AnomalyKind.DIP:
            stretch.calm /= size
            stretch.noise /= size
        case AnomalyKind.LEVEL_SHIFT:
            stretch.calm += stretch.base * size
        case AnomalyKind.DRIFT:
            stretch.calm += stretch.base * size * share
        case AnomalyKind.TREND_CHANGE:
            stretch.calm += stretch.base * size * (1 - np.abs(2 * share - 1))
        case AnomalyKind.SEASONAL_CHANGE:
            amplitude = stretch.base * size * max(signal.seasonal, _LEAST_SEASON)
            stretch.calm += amplitude * turn(share * _CYCLES) - stretch.season
        case AnomalyKind.NOISE:
            stretch.noise *= size
        case AnomalyKind.FLAT_LINE:
            stretch.calm[:] = stretch.held
            stretch.noise[:] = 0.0
