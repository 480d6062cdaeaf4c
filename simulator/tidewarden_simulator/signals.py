"""What a healthy metric looks like: level, seasons, trend, noise, and the load it shares with its node.

A reading is ``base × (1 + seasonal × day + weekly × week + trend × days + noise × n)`` with ``n`` standard
normal, part of it the load noise of the node (`load`), which ties the metrics of a node together:
throughput up, latency up. Values keep within their bounds and carry the few decimals that a monitoring
system would report, which also makes them the same on every machine: only the sine comes from the C
library, and it is rounded long before its last bits could matter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tidewarden.frames import FloatArray, TimeArray
from tidewarden.resources.metricsimulation import CustomMetric, Fleet
from tidewarden_simulator.draws import Draws

DAY_MS = 86_400_000
WEEK_MS = 7 * DAY_MS
# The load wanders from knot to knot, so that a node has good and bad quarters of an hour.
_KNOT_TICKS = 16
# Share of the wandering in the load noise; a straight line between knots keeps 2/3 of their variance,
# so the white part is what makes the sum's variance one: sqrt(1 - 0.6² × 2/3).
_WANDER = 0.6
_WHITE = math.sqrt(1 - _WANDER**2 * 2 / 3)
_BUSIEST = 14 / 24  # the day's peak at 14:00 UTC, each node up to an hour earlier or later
_PHASE_SPREAD = 1 / 24


@dataclass(frozen=True, slots=True)
class Signal:
    """Parameters of a metric; shares are of ``base``.

    Attributes:
        name: of the metric.
        base: mean level, in the metric's unit; nodes differ by up to ``spread``.
        noise: standard deviation of the noise.
        seasonal: amplitude of the daily season.
        weekly: amplitude of the weekly season.
        trend: change a day.
        load: correlation of the noise with the node's load, −1 to 1.
        lowest: no reading is below; -inf where nothing bounds it.
        highest: no reading is above; inf where nothing bounds it.
        incident: change of the level in an incident of average severity; 0: incidents do not touch it.
        spread: how far apart the levels of two nodes may be, ±.
    """

    name: str
    base: float
    noise: float
    seasonal: float
    weekly: float
    trend: float
    load: float
    lowest: float
    highest: float
    incident: float = 0.8
    spread: float = 0.1

    @property
    def decimals(self) -> int:
        """Decimals that a reading carries: five significant digits at the mean level, at most nine."""
        return 3 if self.base == 0 else min(9, max(0, 4 - math.floor(math.log10(abs(self.base)))))


_INF = math.inf
BUILT_IN: dict[str, Signal] = {
    signal.name: signal
    for signal in (
        Signal("latency_ms", 100.0, 0.15, 0.20, 0.05, 0.0, 0.5, 0.0, _INF, 1.2),
        Signal("error_rate", 2.0, 0.30, 0.25, 0.05, 0.0, 0.3, 0.0, 100.0, 2.5),
        Signal("throughput", 1000.0, 0.10, 0.15, 0.08, 0.0, 0.7, 0.0, _INF, -0.6),
        Signal("cpu_percent", 40.0, 0.12, 0.25, 0.08, 0.0, 0.7, 0.0, 100.0, 0.7),
        Signal("memory_percent", 55.0, 0.04, 0.06, 0.02, 0.0, 0.3, 0.0, 100.0, 0.3, 0.15),
        Signal("disk_percent", 45.0, 0.01, 0.01, 0.01, 0.004, 0.0, 0.0, 100.0, 0.0, 0.2),
        Signal("network_mbps", 120.0, 0.15, 0.20, 0.08, 0.0, 0.6, 0.0, _INF, -0.5),
    )
}


def signals_of(fleet: Fleet) -> list[Signal]:
    """The signals of a fleet's metrics: built in, or described under ``custom``."""
    custom = {metric.name: _from_custom(metric) for metric in fleet.custom}
    known = BUILT_IN | custom  # the resource's own check knows the same names
    wanted = list(dict.fromkeys([*fleet.metrics, *custom]))
    return [known[name] for name in wanted]


def _from_custom(metric: CustomMetric) -> Signal:
    lowest = -_INF if metric.min is None else metric.min
    highest = _INF if metric.max is None else metric.max
    if lowest > highest:
        raise ValueError(f"fleet.custom {metric.name!r}: min {lowest:g} is above max {highest:g}; swap them")
    return Signal(
        metric.name, metric.base, metric.noise, metric.seasonal, metric.weekly, metric.trend, metric.load,
        lowest, highest,
    )  # fmt: skip


def turn(share: FloatArray) -> FloatArray:
    """Sine of ``share`` turns, rounded to 1e-9 so that it is the same on every machine."""
    return np.asarray(np.round(np.sin(share * (2 * math.pi)), 9), np.float64)


class Load:
    """What the metrics of a node have in common: the time of its day and its load noise."""

    def __init__(self, seed: int, nodes: int) -> None:
        self._nodes = nodes
        self._white = Draws(seed, "load")
        self._knots = Draws(seed, "load/knots")
        phase = (Draws(seed, "phase").row(0, nodes) * 2 - 1) * _PHASE_SPREAD
        self._phase_sin, self._phase_cos = turn(phase), turn(phase + 0.25)

    def day(self, timestamp: TimeArray) -> FloatArray:
        """Each node's place in its day, −1 to 1, shape (len(timestamp), nodes)."""
        share = (timestamp % DAY_MS) / DAY_MS - _BUSIEST + 0.25
        return turn(share)[:, None] * self._phase_cos - turn(share + 0.25)[:, None] * self._phase_sin

    @staticmethod
    def week(timestamp: TimeArray) -> FloatArray:
        """The place in the week, −1 (Sunday) to 1 (mid-week), shape (len(timestamp),)."""
        share = (timestamp % WEEK_MS) / WEEK_MS  # the epoch was a Thursday: 0 is mid-week
        return turn(share + 0.25)

    def noise(self, ticks: TimeArray) -> FloatArray:
        """Load noise, standard normal, shape (len(ticks), nodes); ``ticks`` is a range of step one."""
        first = int(ticks[0]) // _KNOT_TICKS
        last = int(ticks[-1]) // _KNOT_TICKS + 1
        knots = self._knots.normal(np.arange(first, last + 1), self._nodes)
        at = ticks // _KNOT_TICKS - first
        share = ((ticks % _KNOT_TICKS) / _KNOT_TICKS * _WANDER)[:, None]
        noise = self._white.normal(ticks, self._nodes)
        noise *= _WHITE
        noise += knots[at] * (_WANDER - share)
        noise += knots[at + 1] * share
        return noise


class SignalMaker:
    """Readings of one metric on every node of a fleet."""

    def __init__(self, signal: Signal, seed: int, nodes: int) -> None:
        self.signal = signal
        self._own = Draws(seed, f"noise/{signal.name}")
        level = Draws(seed, f"level/{signal.name}").row(0, nodes) * 2 - 1
        self.base: FloatArray = signal.base * (1 + signal.spread * level)

    def calm(self, day: FloatArray, week: FloatArray, days: FloatArray) -> FloatArray:
        """Readings without noise; ``day`` has shape (ticks, nodes), ``week`` and ``days`` (ticks,)."""
        share = day * self.signal.seasonal
        share += (1 + self.signal.weekly * week + self.signal.trend * days)[:, None]
        share *= self.base
        return share

    def noise(self, ticks: TimeArray, load: FloatArray) -> FloatArray:
        """Noise in the metric's unit, shape (ticks, nodes)."""
        noise = self._own.normal(ticks, len(self.base))
        noise *= math.sqrt(1 - self.signal.load**2) * self.signal.noise
        if self.signal.load:
            noise += load * (self.signal.load * self.signal.noise)
        noise *= self.base
        return noise

    def finish(self, values: FloatArray) -> FloatArray:
        """Keep ``values`` within the bounds and to the decimals of the metric, in place."""
        if math.isfinite(self.signal.lowest) or math.isfinite(self.signal.highest):
            np.clip(values, self.signal.lowest, self.signal.highest, out=values)
        return np.round(values, self.signal.decimals, out=values)
