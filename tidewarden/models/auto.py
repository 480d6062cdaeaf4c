"""`auto`: density first, the sub-space as second opinion, on one calibrated scale.

The scale is the density's: nats. The sub-space's surprise is measured in spreads from its own running
median and adds `SECOND_WEIGHT` nats for each, so it speaks up where the shape of the last readings is
unusual for this series and vouches where it is not. Calibrating each opinion to a p-value of its own
first, and adding those, did worse on every labelled set: two young tails are two sources of noise.
What comes out is calibrated once, by the scorer.
Where it fails: a slow drift that stays inside the range already seen, and a shape that takes longer than the
24 readings of the sub-space and the time of day of the density: neither opinion sees these.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numba import njit

from tidewarden.frames import BoolArray, FloatArray, IntArray, TimeArray
from tidewarden.models.contract import Judgement, Model, State
from tidewarden.models.density import Density
from tidewarden.models.state import Column, SeriesState
from tidewarden.models.subspace import Subspace
from tidewarden.scoring.calibration import ROW, standing, tail_learn

PROJECTIONS = 8  # as many as features; twice as many found no more on labelled services
SECOND_WEIGHT = 0.15  # half finds more in simulated fleets, but then budgets are exceeded on calm series
SECOND_BOUND = 20.0  # spreads; the second opinion moves the sum by at most 3 nats


@njit(cache=True, nogil=True)
def _add_opinion(
    series: IntArray, second: FloatArray, learn: BoolArray, surprise: FloatArray, rows: FloatArray
) -> None:
    for i in range(len(series)):
        s = second[i]
        if math.isnan(s):
            continue
        own = standing(rows, series[i], s)
        surprise[i] += SECOND_WEIGHT * min(max(own, -SECOND_BOUND), SECOND_BOUND)
        if learn[i]:
            tail_learn(rows, series[i], s)


class Auto(Model):
    """Density over features with LODA projections, plus a sub-space second opinion."""

    kind: ClassVar[str] = "auto"
    version: ClassVar[int] = 3

    def __init__(self, warmup: int, seasonality_ms: tuple[int, ...], interval_ms: int, seed: int = 0) -> None:
        self._warmup = warmup
        self._density = Density(warmup, seasonality_ms, interval_ms, seed, PROJECTIONS)
        self._subspace = Subspace(warmup)
        self._standing = SeriesState(rows=Column((ROW,), np.float64))
        self._parts: dict[str, Density | Subspace | SeriesState] = {
            "density": self._density, "subspace": self._subspace, "standing": self._standing
        }  # fmt: skip

    @property
    def warmup(self) -> int:
        """Readings a series needs before it is scored."""
        return self._warmup

    @property
    def state_bytes_per_series(self) -> int:
        """Memory that one more series costs."""
        parts = (self._density.state_bytes_per_series, self._subspace.state_bytes_per_series)
        return sum(parts) + self._standing.bytes_per_series

    def resize(self, n_series: int) -> None:
        """Make room for series ids below ``n_series``."""
        for part in self._parts.values():
            part.resize(n_series)

    def observe(
        self, series: IntArray, timestamp: TimeArray, value: FloatArray, learn: BoolArray, out: Judgement
    ) -> None:
        """Score each reading in order, then learn from it where ``learn`` is set."""
        self._density.observe(series, timestamp, value, learn, out)
        shape = Judgement.blank(len(series))
        self._subspace.observe(series, timestamp, value, learn, shape)
        _add_opinion(series, shape.surprise, learn, out.surprise, self._standing["rows"])

    def snapshot(self) -> State:
        """The whole state as arrays (copies), named ``part.array``."""
        return {f"{name}.{key}": array for name, part in self._parts.items() for key, array in part.snapshot().items()}

    def restore(self, state: State) -> None:
        """Go on from a snapshot; ValueError says what does not fit."""
        for name, part in self._parts.items():
            part.restore({key.split(".", 1)[1]: a for key, a in state.items() if key.startswith(name + ".")})
