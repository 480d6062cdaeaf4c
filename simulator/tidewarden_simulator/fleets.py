"""Synthetic fleets: tenant → cluster → node → metric, any stretch of them at a time.

A block of ticks is a function of the fleet, the seed and the ticks alone, so memory is bounded by the
block that the caller asks for, however long the simulation is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tidewarden.events import AnomalyKind
from tidewarden.frames import ByteArray, FloatArray, SeriesKey, TimeArray
from tidewarden.resources.metricsimulation import Anomalies, Fleet
from tidewarden_simulator.anomalies import Event, Schedule, Stretch, TruthEvent, inject
from tidewarden_simulator.signals import DAY_MS, Load, SignalMaker, signals_of


@dataclass(slots=True)
class Block:
    """Readings of a whole fleet at consecutive ticks.

    Attributes:
        timestamp: of each tick, ms since the epoch, shape (ticks,).
        value: NaN where a reading is missing, shape (ticks, series).
        label: `AnomalyKind` as uint8, 0 is normal, shape (ticks, series).
    """

    timestamp: TimeArray
    value: FloatArray
    label: ByteArray


def fleet_keys(fleet: Fleet) -> list[SeriesKey]:
    """The series of ``fleet``, a node's metrics together; names sort as their numbers do."""
    metrics = [signal.name for signal in signals_of(fleet)]
    cluster_digits, node_digits = len(str(fleet.clusters)), len(str(fleet.nodes))
    return [
        SeriesKey(tenant, f"c{cluster:0{cluster_digits}d}", f"n{node:0{node_digits}d}", metric)
        for tenant in fleet.tenants
        for cluster in range(1, fleet.clusters + 1)
        for node in range(1, fleet.nodes + 1)
        for metric in metrics
    ]


class FleetMaker:
    """Makes the readings of a fleet.

    Args:
        fleet: its shape.
        anomalies: what to inject; None: nothing.
        seed: the same seed gives the same bytes, on every machine and in blocks of any size.
        interval_ms: spacing of the ticks.
        start_ms: time of tick 0.
        points: number of ticks; None: endless.
    """

    def __init__(
        self,
        fleet: Fleet,
        anomalies: Anomalies | None,
        *,
        seed: int,
        interval_ms: int,
        start_ms: int,
        points: int | None,
    ) -> None:
        self._interval_ms, self._start_ms, self._points = interval_ms, start_ms, points
        self.keys = fleet_keys(fleet)
        signals = signals_of(fleet)
        clusters = len(fleet.tenants) * fleet.clusters
        self._nodes = clusters * fleet.nodes
        self._load = Load(seed, self._nodes)
        self._makers = [SignalMaker(signal, seed, self._nodes) for signal in signals]
        self._schedule = Schedule(
            Anomalies(ratio=0) if anomalies is None else anomalies,
            seed=seed,
            signals=signals,
            node_counts=[fleet.nodes] * clusters,
            points=points,
        )

    def block(self, first: int, last: int) -> Block:
        """Readings at the ticks [first, last)."""
        if first == last:
            return Block(np.zeros(0, np.int64), np.zeros((0, len(self.keys))), np.zeros((0, len(self.keys)), np.uint8))
        ticks = np.arange(first, last, dtype=np.int64)
        timestamp = self._start_ms + ticks * self._interval_ms
        value = np.empty((len(ticks), self._nodes, len(self._makers)))
        label = np.zeros((len(ticks), self._nodes * len(self._makers)), np.uint8)
        events = self._events_by_metric(first, last)
        day, week = self._load.day(timestamp), self._load.week(timestamp)
        days = ticks.astype(np.float64) * (self._interval_ms / DAY_MS)
        load = self._load.noise(ticks)
        for metric, maker in enumerate(self._makers):
            calm, noise = maker.calm(day, week, days), maker.noise(ticks, load)
            for event in events[metric]:
                self._apply(event, first, maker, calm, noise, day)
                label[max(event.onset - first, 0) : event.end + 1 - first, event.series] = event.kind
            calm += noise
            value[:, :, metric] = maker.finish(calm)
        value = value.reshape(label.shape)
        value[label == AnomalyKind.MISSING] = np.nan
        return Block(timestamp, value, label)

    def truth(self, points: int) -> Iterator[TruthEvent]:
        """The anomalies of the first ``points`` ticks by onset; one that runs on is cut there."""
        for event in sorted(self._schedule.between(0, points), key=lambda e: (e.onset, e.series)):
            end = min(event.end, points - 1)
            yield TruthEvent(
                self.keys[event.series],
                event.onset,
                self._start_ms + event.onset * self._interval_ms,
                end,
                self._start_ms + end * self._interval_ms,
                event.kind,
                event.magnitude,
                event.incident,
            )

    def _events_by_metric(self, first: int, last: int) -> list[list[Event]]:
        events: list[list[Event]] = [[] for _ in self._makers]
        for event in self._schedule.between(first, last):
            events[event.series % len(self._makers)].append(event)
        return events

    def _apply(
        self, event: Event, first: int, maker: SignalMaker, calm: FloatArray, noise: FloatArray, day: FloatArray
    ) -> None:
        node = event.series // len(self._makers)
        begin = max(event.onset - first, 0)
        rows = slice(begin, event.end + 1 - first)
        base = float(maker.base[node])
        season = day[rows, node] * (maker.signal.seasonal * base)
        held = self._calm_at(event.onset, maker, node) if event.kind == AnomalyKind.FLAT_LINE else 0.0
        inject(event, first + begin, maker.signal, Stretch(calm[rows, node], noise[rows, node], season, base, held))

    def _calm_at(self, tick: int, maker: SignalMaker, node: int) -> float:
        """What the series would have shown at ``tick`` without noise."""
        timestamp = np.array([self._start_ms + tick * self._interval_ms], np.int64)
        days = np.array([tick * (self._interval_ms / DAY_MS)])
        return float(maker.calm(self._load.day(timestamp), self._load.week(timestamp), days)[0, node])
