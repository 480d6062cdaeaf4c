"""`subspace`: does the shape of the last readings still lie where such shapes have lain?

Online PCA (Oja 1982 with Gram-Schmidt; three components) over windows of the last 24 readings of a
series; surprise is the logarithm of what the components leave unexplained, weighted towards the
newest reading. It sees shapes, such as a seasonal pattern that is missing, that a look at single values cannot.
Where it fails: white noise has no sub-space, and every window leaves the same; then it says nothing.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numba import njit

from tidewarden.frames import BoolArray, FloatArray, IntArray, TimeArray
from tidewarden.models.contract import Judgement
from tidewarden.models.state import ArrayModel, Column, SeriesState

LAGS = 24
COMPONENTS = 3
SCHOOL = 240.0  # readings after which the basis learns from every fourth window: neighbours overlap by 23 in 24
BOUND = 12.0  # windows are bounded to so many spreads before they are learned

COUNT, CENTER, SPREAD, HEAD, LEFT, POWER = range(6)
STAT = 6


@njit(cache=True, nogil=True)
def _observe(
    series: IntArray,
    value: FloatArray,
    learn: BoolArray,
    surprise: FloatArray,
    stats: FloatArray,
    rings: FloatArray,
    bases: FloatArray,
    start_basis: FloatArray,
) -> None:
    w = np.empty(LAGS)
    y = np.empty(COMPONENTS)
    for i in range(len(series)):
        x = value[i]
        if not np.isfinite(x):
            continue
        s = series[i]
        count = stats[s, COUNT]
        head = int(stats[s, HEAD])
        if count >= LAGS:
            # The newest reading first; what is still in the ring are the 23 before it.
            floor = max(stats[s, SPREAD], 1e-9 + 1e-6 * abs(stats[s, CENTER]))
            scale = 1.0 / floor
            w[0] = min(max((x - stats[s, CENTER]) * scale, -1e6), 1e6)
            at = head
            for j in range(1, LAGS):
                at = at - 1 if at > 0 else LAGS - 1
                w[j] = min(max((rings[s, at] - stats[s, CENTER]) * scale, -BOUND), BOUND)
            for k in range(COMPONENTS):
                dot = 0.0
                for j in range(LAGS):
                    dot += bases[s, k, j] * w[j]
                y[k] = dot
            left = 0.0
            for j in range(LAGS):
                rest = w[j]
                for k in range(COMPONENTS):
                    rest -= y[k] * bases[s, k, j]
                left += rest * rest
            newest = w[0]
            for k in range(COMPONENTS):
                newest -= y[k] * bases[s, k, 0]
            e = left / LAGS + newest * newest
            surprise[i] = 0.5 * math.log(e + 1e-4)
            if learn[i] and (count < SCHOOL or int(count) % 4 == 0):
                # Bounded, and its share of y with it: an outlier must not turn the basis towards itself.
                tame = min(max(w[0], -BOUND), BOUND)
                for k in range(COMPONENTS):
                    y[k] -= (w[0] - tame) * bases[s, k, 0]
                w[0] = tame
                _oja(bases, s, w, y, count)
        if learn[i]:
            if count == 0.0:
                stats[s, CENTER] = x
            gain = max(1.0 / (count + 1.0), 0.002)
            gap = x - stats[s, CENTER]
            limit = 5.0 * stats[s, SPREAD] if count > 8.0 else abs(gap)
            gap = min(max(gap, -limit), limit) if stats[s, SPREAD] > 0.0 else gap
            stats[s, CENTER] += gain * gap
            stats[s, SPREAD] += max(gain, 0.005) * (abs(gap) * 1.2533 - stats[s, SPREAD])
            rings[s, head] = x
            stats[s, HEAD] = head + 1 if head + 1 < LAGS else 0
            stats[s, COUNT] = count + 1.0
            if count == 0.0:
                bases[s] = start_basis


@njit(cache=True, nogil=True)
def _oja(bases: FloatArray, s: int, w: FloatArray, y: FloatArray, count: float) -> None:
    """One step of Oja's subspace rule with a bounded window, then Gram-Schmidt."""
    power = 1.0
    for j in range(LAGS):
        power += w[j] * w[j]
    gain = min(max(0.01, 1.0 / (1.0 + count)) * LAGS * 0.25, 1.0) / power
    for k in range(COMPONENTS):
        share = gain * y[k]
        for j in range(LAGS):
            bases[s, k, j] += share * w[j]
        for m in range(k):
            dot = 0.0
            for j in range(LAGS):
                dot += bases[s, k, j] * bases[s, m, j]
            for j in range(LAGS):
                bases[s, k, j] -= dot * bases[s, m, j]
        norm = 0.0
        for j in range(LAGS):
            norm += bases[s, k, j] * bases[s, k, j]
        norm = 1.0 / math.sqrt(norm + 1e-12)
        for j in range(LAGS):
            bases[s, k, j] *= norm


def cosines() -> FloatArray:
    """The smoothest orthonormal shapes over a window: constant, half a wave, one wave; (components, lags)."""
    at = (np.arange(LAGS) + 0.5) / LAGS
    basis = np.stack([np.cos(np.pi * k * at) for k in range(COMPONENTS)])
    return np.asarray(basis / np.linalg.norm(basis, axis=1, keepdims=True), np.float64)


class Subspace(ArrayModel):
    """Online PCA over the last readings."""

    kind: ClassVar[str] = "subspace"
    version: ClassVar[int] = 1

    def __init__(self, warmup: int) -> None:
        self._start = cosines()
        state = SeriesState(
            stat=Column((STAT,), np.float64),
            ring=Column((LAGS,), np.float64),
            basis=Column((COMPONENTS, LAGS), np.float64),
        )
        super().__init__(max(warmup, LAGS), state)

    def observe(
        self,
        series: IntArray,
        timestamp: TimeArray,  # noqa: ARG002 - windows count readings, not time
        value: FloatArray,
        learn: BoolArray,
        out: Judgement,
    ) -> None:
        """Score each reading in order, then learn from it where ``learn`` is set; no band of its own."""
        state = self._state
        _observe(series, value, learn, out.surprise, state["stat"], state["ring"], state["basis"], self._start)
