"""Whether readings still come as the stream declares: series that vanish or appear, and their pace.

All in event time, from the readings' own timestamps and the newest one of their tenant:

* *vanished*: nothing came for a whole window, though the tenant's time went on;
* *appeared*: the first reading came within the last window, and more than a window after the tenant's first;
* *pace*: a whole window held fewer than half or more than twice the readings that ``interval`` promises.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numba import njit

from tidewarden.frames import FloatArray, IntArray, SeriesTable, TimeArray
from tidewarden.models.state import Column, SeriesState

SLOW, FAST = 0.5, 2.0
NEVER = np.iinfo(np.int64).min
# Columns of a series' row (int64).
FIRST, NEWEST, WINDOW, COUNT, WHOLE, LAST_COUNT = range(6)
ROW = 6


@njit(cache=True, nogil=True)
def _observe(series: IntArray, timestamp: TimeArray, value: FloatArray, window_ms: int, rows: TimeArray) -> None:
    for i in range(len(series)):
        if math.isnan(value[i]):
            continue
        row = rows[series[i]]
        window = timestamp[i] // window_ms
        if row[FIRST] == NEVER:
            row[FIRST] = timestamp[i]
            row[WINDOW] = window
            row[COUNT] = 0
            row[WHOLE] = -1
            row[LAST_COUNT] = 0
        elif window > row[WINDOW]:
            # The first window began before the series did, and one that was skipped says nothing of pace.
            row[WHOLE] += 1
            row[LAST_COUNT] = row[COUNT] if window == row[WINDOW] + 1 and row[WHOLE] > 0 else 0
            row[WINDOW] = window
            row[COUNT] = 0
        row[COUNT] += 1
        row[NEWEST] = max(row[NEWEST], timestamp[i])


class Source(SeriesState):
    """Comings and goings of every series.

    Args:
        window_ms: length of a window, in milliseconds of event time.
        interval_ms: expected spacing of readings.
    """

    def __init__(self, window_ms: int, interval_ms: int) -> None:
        super().__init__(row=Column((ROW,), np.int64, NEVER))
        self._window_ms = window_ms
        self._expected = window_ms / interval_ms
        self._tenants: dict[str, int] = {}
        self._tenant_of: IntArray = np.zeros(0, np.int32)  # number of each series' tenant

    def observe(self, series: IntArray, timestamp: TimeArray, value: FloatArray) -> None:
        """Take readings in, arrays (n,) in arrival order; absent ones (NaN) are passed over."""
        _observe(series, timestamp, value, self._window_ms, self["row"])

    def newest(self) -> FloatArray:
        """Newest timestamp of each series, ms."""
        return self["row"][: self.n_series, NEWEST].astype(np.float64)

    def found(self, table: SeriesTable, watermarks: Mapping[str, int]) -> dict[str, IntArray]:
        """Series that vanished, appeared, are slow or fast, by these words; ``watermarks`` are tenants' times in ms."""
        self._meet(table)
        row = self["row"][: self.n_series]
        n_tenants = len(self._tenants)
        now = np.array([watermarks.get(tenant, NEVER) for tenant in self._tenants], np.int64)[self._tenant_of]
        known = (row[:, FIRST] != NEVER) & (now != NEVER)
        began = np.full(n_tenants, np.iinfo(np.int64).max)
        np.minimum.at(began, self._tenant_of[known], row[known, FIRST])
        gone = known & (now - row[:, NEWEST] >= self._window_ms)
        late_comer = row[:, FIRST] - began[self._tenant_of] > self._window_ms
        appeared = known & ~gone & (now - row[:, FIRST] < self._window_ms) & late_comer
        pace = np.where(row[:, LAST_COUNT] > 0, row[:, LAST_COUNT] / self._expected, 1.0)
        there = known & ~gone
        found = {
            "vanished": gone, "appeared": appeared, "slow": there & (pace < SLOW), "fast": there & (pace > FAST)
        }  # fmt: skip
        return {word: np.flatnonzero(which).astype(np.int32) for word, which in found.items()}

    @property
    def n_tenants(self) -> int:
        """Tenants of the series, as of the last `found`."""
        return len(self._tenants)

    def _meet(self, table: SeriesTable) -> None:
        """Number the tenants of series that are new."""
        new = table.keys[len(self._tenant_of) : self.n_series]
        if new:
            numbers = [self._tenants.setdefault(key.tenant, len(self._tenants)) for key in new]
            self._tenant_of = np.concatenate([self._tenant_of, np.array(numbers, np.int32)])
