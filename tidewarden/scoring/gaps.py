"""Readings that never came, noticed from the event time of their own node.

Reading by reading, in arrival order: when a node's newest timestamp has passed ``t + interval +
lateness`` and a series of that node has said nothing at its tick ``t``, an absent reading (NaN) is put
into the stream at that place; likewise when the series itself reports again beyond ``t``. After
`max_gap` absent readings in a row a series counts as gone, until it reports again. A node that is
silent altogether says nothing of time: its absences come out when it resumes, or before that when
somebody who knows the time asks for them (`GapFiller.absences`, `silence.py`).

The interval of a series is the stream's, or the median of its own last seven spacings where that is
larger. Nothing is called absent before seven spacings have been seen. Everything is a function of the
node's own readings in their order: neither frames, other nodes nor ids have a say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from tidewarden.frames import ABSENT, LATE, MISSING, BoolArray, ByteArray, FloatArray, IntArray, TimeArray
from tidewarden.models.contract import State
from tidewarden.models.state import Column, SeriesState

SPACINGS = 7
NEVER = np.iinfo(np.int64).min

# Columns of a series' row (int64).
LAST, NEWEST, ABSENT_RUN, N_SPACINGS, SPACING, NEXT = range(6)
RING = 6
ROW = RING + SPACINGS
# Columns of a node's row (int64).
NODE_NEWEST, DUE, FIRST, FINAL = range(4)


@njit(cache=True, nogil=True)
def _median_spacing(row: TimeArray) -> int:
    ordered = np.sort(row[RING : RING + SPACINGS])
    return int(ordered[SPACINGS // 2])


@njit(cache=True, nogil=True)
def _grow(array: npt.NDArray[Any], filler: Any) -> npt.NDArray[Any]:
    larger = np.full(2 * len(array), filler, array.dtype)
    larger[: len(array)] = array
    return larger


@njit(cache=True, nogil=True)
def _owe(
    row: TimeArray, s: int, now: int, slack: int, spacing: int, max_gap: int, out_series: IntArray, out_time: TimeArray,
    n: int,
) -> int:  # fmt: skip
    """Put the ticks of series ``s`` that are overdue by ``slack`` at ``now`` into the output; the new length."""
    while row[LAST] + slack < now and row[ABSENT_RUN] < max_gap:
        row[LAST] += spacing
        row[ABSENT_RUN] += 1
        out_series[n] = s
        out_time[n] = row[LAST]
        n += 1
    return n


@njit(cache=True, nogil=True)
def _note_spacing(row: TimeArray, gap: int) -> None:
    """Remember one more spacing, and the median of the last ones where it can have changed."""
    slot = RING + row[N_SPACINGS] % SPACINGS
    replaced = row[slot]
    row[slot] = gap
    row[N_SPACINGS] += 1
    known = row[N_SPACINGS] > SPACINGS
    if row[N_SPACINGS] == SPACINGS or (known and (gap != row[SPACING] or replaced != row[SPACING])):
        row[SPACING] = _median_spacing(row)


@njit(cache=True, nogil=True)
def _fill(
    series: IntArray,
    timestamp: TimeArray,
    value: FloatArray,
    rows: TimeArray,
    nodes: TimeArray,
    node_of: IntArray,
    interval: int,
    lateness: int,
    max_gap: int,
) -> tuple[IntArray, TimeArray, FloatArray, BoolArray, BoolArray, BoolArray, ByteArray]:
    """The readings with the absent ones between them: the columns of `Filled`."""
    capacity = len(series) + 64 + max_gap
    out_series = np.empty(capacity, np.int32)
    out_time = np.empty(capacity, np.int64)
    out_row = np.full(capacity, -1)  # index of the input, -1 where absent
    out_late = np.zeros(capacity, np.bool_)
    n = 0
    for i in range(len(series)):
        s = series[i]
        t = timestamp[i]
        row = rows[s]
        node = nodes[node_of[s]]
        if row[NEWEST] == NEVER and row[NEXT] == -2:
            row[NEXT] = -1
            if node[FIRST] < 0:
                node[FIRST] = s
            else:
                rows[node[FINAL], NEXT] = s
            node[FINAL] = s
        if t > node[NODE_NEWEST]:
            node[NODE_NEWEST] = t
            if t > node[DUE]:
                due = np.iinfo(np.int64).max
                sibling = node[FIRST]
                while sibling >= 0:
                    other = rows[sibling]
                    if other[N_SPACINGS] >= SPACINGS and other[ABSENT_RUN] < max_gap:
                        spacing = max(interval, other[SPACING])
                        slack = 2 * spacing + lateness
                        if other[LAST] + slack < t:
                            if n + max_gap > len(out_series):
                                out_series = _grow(out_series, 0)
                                out_time = _grow(out_time, 0)
                                out_row = _grow(out_row, -1)
                                out_late = _grow(out_late, False)
                            n = _owe(other, sibling, t, slack, spacing, max_gap, out_series, out_time, n)
                        if other[ABSENT_RUN] < max_gap:
                            due = min(due, other[LAST] + slack)
                    sibling = other[NEXT]
                # A series that is gone or new is not in the minimum: it comes back by its own reading.
                node[DUE] = due
        newest = row[NEWEST]
        late = newest != NEVER and t <= newest
        if n + max_gap + 1 > len(out_series):
            out_series = _grow(out_series, 0)
            out_time = _grow(out_time, 0)
            out_row = _grow(out_row, -1)
            out_late = _grow(out_late, False)
        if not late:
            if newest != NEVER:
                if row[N_SPACINGS] >= SPACINGS:
                    spacing = max(interval, row[SPACING])
                    if 2 * (t - row[LAST]) > 3 * spacing:
                        n = _owe(row, s, t, spacing + spacing // 2, spacing, max_gap, out_series, out_time, n)
                _note_spacing(row, t - newest)
            row[NEWEST] = t
            row[LAST] = t
            row[ABSENT_RUN] = 0
            if row[N_SPACINGS] >= SPACINGS:
                node[DUE] = min(node[DUE], t + 2 * max(interval, row[SPACING]) + lateness)
        out_series[n] = s
        out_time[n] = t
        out_row[n] = i
        out_late[n] = late
        n += 1
    out_value = np.empty(n)
    out_absent = np.empty(n, np.bool_)
    out_learn = np.empty(n, np.bool_)
    out_flags = np.empty(n, np.uint8)
    for k in range(n):
        absent = out_row[k] < 0
        x = np.nan if absent else value[out_row[k]]
        known = np.isfinite(x)
        out_value[k] = x if known else np.nan
        out_absent[k] = absent
        out_learn[k] = known and not out_late[k]
        out_flags[k] = (0 if known else MISSING) | (LATE if out_late[k] else 0) | (ABSENT if absent else 0)
    return out_series[:n], out_time[:n], out_value, out_absent, out_late[:n], out_learn, out_flags


@njit(cache=True, nogil=True)
def _absences(
    quiet: IntArray, now: TimeArray, rows: TimeArray, nodes: TimeArray, interval: int, lateness: int, max_gap: int
) -> tuple[IntArray, TimeArray]:
    """Absent readings of silent nodes: series and timestamp. Their node's time stays where it is."""
    capacity = 64 + max_gap
    out_series = np.empty(capacity, np.int32)
    out_time = np.empty(capacity, np.int64)
    n = 0
    for k in range(len(quiet)):
        s = nodes[quiet[k], FIRST]
        while s >= 0:
            row = rows[s]
            if row[N_SPACINGS] >= SPACINGS:
                spacing = max(interval, row[SPACING])
                if n + max_gap > len(out_series):
                    out_series = _grow(out_series, 0)
                    out_time = _grow(out_time, 0)
                n = _owe(row, s, now[k], 2 * spacing + lateness, spacing, max_gap, out_series, out_time, n)
            s = row[NEXT]
    return out_series[:n], out_time[:n]


@dataclass(slots=True, eq=False)
class Filled:
    """Readings with the absent ones between them; arrays of shape (m,), m ≥ n."""

    series: IntArray
    timestamp: TimeArray
    value: FloatArray
    absent: BoolArray  # no reading came
    late: BoolArray  # not newer than the newest reading of its series
    learn: BoolArray  # has a value and is not late
    flags: ByteArray  # of the ScoreFrame that follow: MISSING, LATE, ABSENT


class GapFiller:
    """Notices absent and late readings of many series."""

    def __init__(self, interval_ms: int, lateness_ms: int, max_gap: int) -> None:
        self._limits = (interval_ms, lateness_ms, max_gap)
        self._series = SeriesState(row=Column((ROW,), np.int64))
        self._nodes = SeriesState(row=Column((4,), np.int64))

    @property
    def state_bytes_per_series(self) -> int:
        """Memory that one more series costs."""
        return self._series.bytes_per_series

    def resize(self, n_series: int, n_nodes: int) -> None:
        """Make room for series and nodes with ids below these."""
        known, known_nodes = self._series.n_series, self._nodes.n_series
        self._series.resize(n_series)
        self._nodes.resize(n_nodes)
        self._series["row"][known:n_series, NEWEST] = NEVER
        self._series["row"][known:n_series, NEXT] = -2
        self._nodes["row"][known_nodes:n_nodes] = (NEVER, np.iinfo(np.int64).max, -1, -1)

    def fill(self, series: IntArray, timestamp: TimeArray, value: FloatArray, node_of: IntArray) -> Filled:
        """Readings (n,) in arrival order with absent ones put between them; ``node_of`` maps series to node.

        A value that is not finite counts as missing.
        """
        return Filled(*_fill(series, timestamp, value, self._series["row"], self._nodes["row"], node_of, *self._limits))

    def absences(self, quiet: IntArray, now: TimeArray) -> Filled:
        """What silent nodes (m,) owe by the time ``now`` (m,) of their tenants, at most ``max_gap`` a series.

        The same absent readings that would come out when the node resumes, only earlier; then they do not
        come out again.
        """
        series, timestamp = _absences(quiet, now, self._series["row"], self._nodes["row"], *self._limits)
        n = len(series)
        none = np.zeros(n, np.bool_)
        flags = np.full(n, MISSING | ABSENT, np.uint8)
        return Filled(series, timestamp, np.full(n, np.nan), np.ones(n, np.bool_), none, none, flags)

    def snapshot(self) -> State:
        """The whole state as arrays (copies)."""
        return {"series": self._series.snapshot()["row"], "nodes": self._nodes.snapshot()["row"]}

    def restore(self, state: State) -> None:
        """Go on from a snapshot; ValueError says what does not fit."""
        self._series.restore({"row": state["series"]})
        self._nodes.restore({"row": state["nodes"]})
