"""Whether a detector's p-values are what they claim, and its alarms within what was allowed.

Windows of event time over all series of the detector, in the order of arrival. A window that ends says:

* *calibration*: the share of readings with p ≤ 0.01 over 0.01. 1 is perfect, below 1 is careful. From `OVER` on the
  model has drifted: four times as many readings look unusual as a calibrated model would call so.
* *alarms*: anomalies opened, against the number that the budget (or the threshold's own p) allows in such a window,
  and against the upper end of its Poisson interval at `POISSON`.

A model that learns while it scores recovers from many a change of the data by itself: then there is data drift, and
soon no model drift any more. A real incident raises both figures, too; the message says so.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numba import njit

from tidewarden.frames import LEARNING, ByteArray, FloatArray, TimeArray
from tidewarden.models.contract import State

LEVEL = 0.01
OVER = 4.0
POISSON = 0.999
LEAST_READINGS = 2_000  # 20 of them below 0.01 by chance
# Places of the state (float64).
END, READINGS, RARE, ALARMS, LAST_READINGS, LAST_RARE, LAST_ALARMS = range(7)


@njit(cache=True, nogil=True)
def _observe(timestamp: TimeArray, p_value: FloatArray, flags: ByteArray, window_ms: int, state: FloatArray) -> None:
    for i in range(len(timestamp)):
        if timestamp[i] >= state[END]:
            if state[READINGS] > 0.0:
                state[LAST_READINGS] = state[READINGS]
                state[LAST_RARE] = state[RARE]
                state[LAST_ALARMS] = state[ALARMS]
            state[READINGS] = 0.0
            state[RARE] = 0.0
            state[ALARMS] = 0.0
            state[END] = (timestamp[i] // window_ms + 1) * window_ms
        if not flags[i] & LEARNING:
            state[READINGS] += 1.0
            state[RARE] += p_value[i] <= LEVEL


class ModelDrift:
    """Counts of the running window and of the last one that ended.

    Args:
        window_ms: length of a window, in milliseconds of event time.
        allowed: false alarms that the detector may raise in a window; None: as many as its threshold's p gives.
        threshold_p: p-value at which a reading counts, where there is no budget.
    """

    def __init__(self, window_ms: int, allowed: float | None, threshold_p: float) -> None:
        self._window_ms = window_ms
        self._allowed = allowed
        self._threshold_p = threshold_p
        self._state = np.zeros(7)

    def observe(self, timestamp: TimeArray, p_value: FloatArray, flags: ByteArray, opened: int) -> None:
        """Take scores in, arrays (n,); ``opened`` anomalies began with them."""
        _observe(timestamp, p_value, flags, self._window_ms, self._state)
        self._state[ALARMS] += opened

    @property
    def judged(self) -> bool:
        """Whether a window has ended that says something."""
        return bool(self._state[LAST_READINGS] >= LEAST_READINGS)

    @property
    def calibration(self) -> float:
        """Share of readings with p ≤ 0.01, over 0.01."""
        return float(self._state[LAST_RARE] / self._state[LAST_READINGS] / LEVEL) if self.judged else 1.0

    def alarms(self, budgets: int = 1) -> tuple[int, float, int]:
        """Anomalies of the last window, how many are allowed in one, and how many chance makes of that at most.

        Args:
            budgets: how many budgets there are, where each tenant or series has its own.
        """
        allowed = None if self._allowed is None else self._allowed * budgets
        if allowed is None:
            allowed = float(self._state[LAST_READINGS]) * self._threshold_p
        return int(self._state[LAST_ALARMS]), allowed, poisson_quantile(allowed, POISSON)

    def snapshot(self) -> State:
        """The whole state as arrays (copies)."""
        return {"counts": self._state.copy()}

    def restore(self, state: State) -> None:
        """Go on from a snapshot."""
        self._state = state["counts"].astype(np.float64)


def poisson_quantile(mean: float, share: float) -> int:
    """The smallest count that a Poisson variable of ``mean`` does not exceed with probability ``share``.

    Above a mean of 500, where the terms underflow, by the normal approximation.
    """
    if mean > 500.0:
        return math.ceil(NormalDist(mean, math.sqrt(mean)).inv_cdf(share))
    term = math.exp(-mean)
    below, count = term, 0
    while below < share:
        count += 1
        term *= mean / count
        below += term
    return count
