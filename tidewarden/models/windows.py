"""The last readings of a series as one point in space, and the chance that compiled models take.

A window is the newest reading followed by those before it. Chance is a hash of a seed and of counters of the
series (splitmix64, Steele 2014), not a stream: what is drawn for one series does not depend on what others drew.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from tidewarden.frames import FloatArray, IntArray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FIRST_MIX = np.uint64(0xBF58476D1CE4E5B9)
SECOND_MIX = np.uint64(0x94D049BB133111EB)


@njit(cache=True, nogil=True)
def chance(state: npt.NDArray[np.uint64]) -> float:
    """The next number in [0, 1) of the generator in ``state[0]``."""
    state[0] += GOLDEN
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * FIRST_MIX
    z = (z ^ (z >> np.uint64(27))) * SECOND_MIX
    return float((z ^ (z >> np.uint64(31))) >> np.uint64(11)) * 1.1102230246251565e-16  # 53 bits


@njit(cache=True, nogil=True)
def begin(state: npt.NDArray[np.uint64], seed: int, turn: int) -> None:
    """Start a generator that belongs to ``seed`` and ``turn`` alone."""
    state[0] = np.uint64(seed)
    chance(state)
    state[0] ^= np.uint64(turn) * FIRST_MIX
    chance(state)


@njit(cache=True, nogil=True)
def window_of(ring: FloatArray, head: int, x: float, out: FloatArray) -> None:
    """``x`` and the readings before it into ``out``; ``head`` is where the next reading goes in ``ring``."""
    out[0] = x
    at = head
    for j in range(1, len(out)):
        at = at - 1 if at > 0 else len(ring) - 1
        out[j] = ring[at]


def by_series(series: IntArray) -> npt.NDArray[np.int64]:
    """Rows of a frame, one series after the other and each in its order.

    A series whose state is large is best worked on as long as it is in the processor's cache; what is said of it does
    not change, because no series depends on another.
    """
    return np.argsort(series, kind="stable")


def lag_weights(n: int) -> FloatArray:
    """How often each of ``n`` lags is looked at: the newest reading is what is judged, so 1, 1/2, 1/3 …; sums to 1."""
    weights = 1.0 / np.arange(1.0, n + 1.0)
    return np.asarray(weights / weights.sum(), np.float64)
