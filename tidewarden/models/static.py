"""`static`: limits that a person knows.

A reading outside scores 1, one inside 0; there is nothing to learn or to calibrate.
Where it fails: as fixed limits do, it knows neither the time of day nor what is usual for this series.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from tidewarden.frames import BoolArray, FloatArray, IntArray, TimeArray
from tidewarden.models.contract import Judgement, Model, State

OUTSIDE_LOG10_P = 6.0  # anomaly_score 1


class Static(Model):
    """Fixed limits."""

    kind: ClassVar[str] = "static"
    version: ClassVar[int] = 1
    calibrated = True

    def __init__(self, lower: float | None, upper: float | None) -> None:
        self._lower = -np.inf if lower is None else lower
        self._upper = np.inf if upper is None else upper
        self._n_series = 0

    @property
    def warmup(self) -> int:
        """None: limits are known from the start."""
        return 0

    @property
    def state_bytes_per_series(self) -> int:
        """Memory that one more series costs: none."""
        return 0

    def resize(self, n_series: int) -> None:
        """Make room for series ids below ``n_series``."""
        self._n_series = max(self._n_series, n_series)

    def observe(
        self,
        series: IntArray,  # noqa: ARG002 - all series have the same limits
        timestamp: TimeArray,  # noqa: ARG002 - at all times
        value: FloatArray,
        learn: BoolArray,  # noqa: ARG002 - there is nothing to learn
        out: Judgement,
    ) -> None:
        """Score each reading; expected is the nearest value inside, a limit that is not set stays NaN."""
        given = np.isfinite(value)
        x = value[given]
        outside = (x < self._lower) | (x > self._upper)
        out.surprise[given] = np.where(outside, OUTSIDE_LOG10_P, 0.0)
        out.expected[given] = np.clip(x, self._lower, self._upper)
        out.lower[given] = self._lower if np.isfinite(self._lower) else np.nan
        out.upper[given] = self._upper if np.isfinite(self._upper) else np.nan

    def snapshot(self) -> State:
        """How many series there are; the limits are parameters, not state."""
        return {"n_series": np.array([self._n_series], np.int64)}

    def restore(self, state: State) -> None:
        """Go on from a snapshot; ValueError says what does not fit."""
        if set(state) != {"n_series"} or state["n_series"].shape != (1,):
            raise ValueError(f"snapshot has arrays {sorted(state)}, expected n_series of one element")
        self._n_series = int(state["n_series"][0])
