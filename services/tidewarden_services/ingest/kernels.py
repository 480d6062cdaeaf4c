"""The validation kernel: one pass over a frame, state in arrays over series."""

from __future__ import annotations

import numpy as np
from numba import njit

from tidewarden.frames import BoolArray, ByteArray, FloatArray, IntArray, TimeArray

# Plain integers, because a kernel cannot read an enum; they are `reasons.Code`, and a test holds them together.
ACCEPTED, LATE, UNKNOWN_TENANT, NOT_FINITE, OUT_OF_BOUNDS, FUTURE, DUPLICATE, TOO_LATE = 0, 1, 2, 3, 4, 5, 6, 7

NEVER = np.int64(-(2**63))
"""Older than any timestamp: the newest one of a series that has none yet."""


@njit(cache=True, nogil=True)
def check(  # noqa: C901, PLR0912, PLR0915 - one pass over memory is one function
    series: IntArray,
    timestamp: TimeArray,
    value: FloatArray,
    allowed: BoolArray,
    low: FloatArray,
    high: FloatArray,
    recent: TimeArray,
    head: IntArray,
    count: IntArray,
    forgotten: TimeArray,
    lateness_ms: int,
    gap_ms: int,
    latest_ms: int,
    codes: ByteArray,
) -> tuple[int, int, int, int]:
    """Judge every reading of a frame in order, and remember the timestamps of those that pass.

    ``recent`` holds the newest accepted timestamps of each series, shape (series, capacity), as a ring
    that is sorted from ``head`` on; ``forgotten`` is the newest timestamp that fell out of it. Capacity
    is a power of two. ``codes`` is written. Returns (refused, late, gaps, newest accepted timestamp).
    """
    mask = recent.shape[1] - 1
    refused = 0
    late = 0
    gaps = 0
    newest_seen = NEVER
    for row in range(len(series)):
        s = series[row]
        t = timestamp[row]
        x = value[row]
        code = ACCEPTED
        if not allowed[s]:
            code = UNKNOWN_TENANT
        elif np.isinf(x):
            code = NOT_FINITE
        elif x < low[s] or x > high[s]:  # false for NaN: a missing value has no bounds to break
            code = OUT_OF_BOUNDS
        elif t > latest_ms:
            code = FUTURE
        else:
            n = count[s]
            h = head[s]
            newest = recent[s, (h + n - 1) & mask] if n > 0 else NEVER
            if n == 0 or t > newest:
                if n > 0 and t - newest > gap_ms:
                    gaps += 1
                if n <= mask:
                    recent[s, (h + n) & mask] = t
                    count[s] = n + 1
                else:
                    forgotten[s] = recent[s, h]
                    recent[s, h] = t
                    head[s] = (h + 1) & mask
            else:
                i = n - 1  # of the newest remembered timestamp that is not after t, or -1
                while i >= 0 and recent[s, (h + i) & mask] > t:
                    i -= 1
                if i >= 0 and recent[s, (h + i) & mask] == t:
                    code = DUPLICATE
                elif t < newest - lateness_ms or t <= forgotten[s]:
                    # At or before `forgotten` nobody can tell a late reading from a duplicate any more.
                    code = TOO_LATE
                else:
                    code = LATE
                    late += 1
                    if n <= mask:
                        for k in range(n, i + 1, -1):
                            recent[s, (h + k) & mask] = recent[s, (h + k - 1) & mask]
                        recent[s, (h + i + 1) & mask] = t
                        count[s] = n + 1
                    elif i < 0:
                        forgotten[s] = t
                    else:
                        forgotten[s] = recent[s, h]
                        for k in range(i):
                            recent[s, (h + k) & mask] = recent[s, (h + k + 1) & mask]
                        recent[s, (h + i) & mask] = t
        codes[row] = code
        if code > LATE:
            refused += 1
        elif t > newest_seen:
            newest_seen = t
    return refused, late, gaps, int(newest_seen)
