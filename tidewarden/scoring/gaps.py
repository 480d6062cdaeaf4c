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
def _median_spacing(rows: TimeArray, s: int) -> int:
    ordered = np.sort(rows[s, RING : RING + SPACINGS])
    return int(ordered[SPACINGS // 2])


@njit(cache=True, nogil=True)
def _grow(array: npt.NDArray[Any], filler: Any) -> npt.NDArray[Any]:
    larger = np.full(2 * len(array), filler, array.dtype)
    larger[: len(array)] = array
    return larger


@njit(cache=True, nogil=True)
def _owe(
    rows: TimeArray,
    s: int,
    now: int,
    slack: int,
    spacing: int,
    max_gap: int,
    out_series: IntArray,
    out_time: TimeArray,
    n: int,
) -> int:
    """Put the ticks of series ``s`` that are overdue by ``slack`` at ``now`` into the output; the new length."""
    while rows[s, LAST] + slack < now and rows[s, ABSENT_RUN] < max_gap:
        rows[s, LAST] += spacing
        rows[s, ABSENT_RUN] += 1
        out_series[n] = s
        out_time[n] = rows[s, LAST]
        n += 1
    return n


@njit(cache=True, nogil=True)
def _note_spacing(rows: TimeArray, s: int, gap: int) -> None:
    """Remember one more spacing, and the median of the last ones where it can have changed."""
    slot = RING + rows[s, N_SPACINGS] % SPACINGS
    replaced = rows[s, slot]
    rows[s, slot] = gap
    rows[s, N_SPACINGS] += 1
    known = rows[s, N_SPACINGS] > SPACINGS
    if rows[s, N_SPACINGS] == SPACINGS or (known and (gap != rows[s, SPACING] or replaced != rows[s, SPACING])):
        rows[s, SPACING] = _median_spacing(rows, s)


@njit(cache=True, nogil=True)
def _notice(
    series: IntArray,
    timestamp: TimeArray,
    value: FloatArray,
    rows: TimeArray,
    nodes: TimeArray,
    node_of: IntArray,
    interval: int,
    lateness: int,
    max_gap: int,
    late: BoolArray,
    learn: BoolArray,
    flags: ByteArray,
    owed_series: IntArray,
    owed_time: TimeArray,
    owed_before: IntArray,
    first: int,
) -> tuple[int, bool, int]:
    """Fill ``late``, ``learn`` and ``flags`` (n,) of the readings from ``first`` on, and what is absent before them.

    An absent reading is a series, a timestamp and the index of the reading that it comes before. There must be room for
    two ``max_gap`` of every series: one reading can make all series of its node absent, and itself.

    Returns:
        The first reading not looked at, for want of such room; whether all before have a value; how many are absent.
    """
    n = 0
    whole = True
    room = len(owed_series) // 2
    for i in range(first, len(series)):
        if (
            n > room
        ):  # asking here, and growing in Python: arrays that may be replaced make this loop three times slower
            return i, whole, n
        s = series[i]
        t = timestamp[i]
        node = node_of[s]
        known = n
        if rows[s, NEWEST] == NEVER and rows[s, NEXT] == -2:
            rows[s, NEXT] = -1
            if nodes[node, FIRST] < 0:
                nodes[node, FIRST] = s
            else:
                rows[nodes[node, FINAL], NEXT] = s
            nodes[node, FINAL] = s
        if t > nodes[node, NODE_NEWEST]:
            nodes[node, NODE_NEWEST] = t
            if t > nodes[node, DUE]:
                due = np.iinfo(np.int64).max
                sibling = nodes[node, FIRST]
                while sibling >= 0:
                    if rows[sibling, N_SPACINGS] >= SPACINGS and rows[sibling, ABSENT_RUN] < max_gap:
                        spacing = max(interval, rows[sibling, SPACING])
                        slack = 2 * spacing + lateness
                        if rows[sibling, LAST] + slack < t:
                            n = _owe(rows, sibling, t, slack, spacing, max_gap, owed_series, owed_time, n)
                        if rows[sibling, ABSENT_RUN] < max_gap:
                            due = min(due, rows[sibling, LAST] + slack)
                    sibling = rows[sibling, NEXT]
                # A series that is gone or new is not in the minimum: it comes back by its own reading.
                nodes[node, DUE] = due
        newest = rows[s, NEWEST]
        late[i] = newest != NEVER and t <= newest
        if not late[i]:
            if newest != NEVER:
                if rows[s, N_SPACINGS] >= SPACINGS:
                    spacing = max(interval, rows[s, SPACING])
                    if 2 * (t - rows[s, LAST]) > 3 * spacing:
                        n = _owe(rows, s, t, spacing + spacing // 2, spacing, max_gap, owed_series, owed_time, n)
                _note_spacing(rows, s, t - newest)
            rows[s, NEWEST] = t
            rows[s, LAST] = t
            rows[s, ABSENT_RUN] = 0
            if rows[s, N_SPACINGS] >= SPACINGS:
                nodes[node, DUE] = min(nodes[node, DUE], t + 2 * max(interval, rows[s, SPACING]) + lateness)
        for k in range(known, n):
            owed_before[k] = i
        has_value = np.isfinite(value[i])
        whole &= has_value
        learn[i] = has_value and not late[i]
        flags[i] = (0 if has_value else MISSING) | (LATE if late[i] else 0)
    return len(series), whole, n


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
            if rows[s, N_SPACINGS] >= SPACINGS:
                spacing = max(interval, rows[s, SPACING])
                if n + max_gap > len(out_series):
                    out_series = _grow(out_series, 0)
                    out_time = _grow(out_time, 0)
                n = _owe(rows, s, now[k], 2 * spacing + lateness, spacing, max_gap, out_series, out_time, n)
            s = rows[s, NEXT]
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

        A value that is not finite counts as missing. Columns may be the given arrays themselves.
        """
        n = len(series)
        late, learn, flags = np.empty(n, np.bool_), np.empty(n, np.bool_), np.empty(n, np.uint8)
        room = 4 * self._limits[2] * (self._series.n_series + 1)
        owed: list[tuple[IntArray, TimeArray, IntArray]] = []
        first, whole = 0, True
        while first < n:
            own = np.empty(room, np.int32), np.empty(room, np.int64), np.empty(room, np.int32)
            first, here, found = _notice(
                series, timestamp, value, self._series["row"], self._nodes["row"], node_of, *self._limits,
                late, learn, flags, *own, first,
            )  # fmt: skip
            whole &= here
            if found:
                owed.append((own[0][:found], own[1][:found], own[2][:found]))
        if not whole:
            value = np.where(np.isfinite(value), value, np.nan)
        if not owed:
            return Filled(series, timestamp, value, np.zeros(n, np.bool_), late, learn, flags)
        absent, at, before = (np.concatenate(columns) for columns in zip(*owed, strict=True))
        return Filled(
            np.insert(series, before, absent),
            np.insert(timestamp, before, at),
            np.insert(value, before, np.nan),
            np.insert(np.zeros(n, np.bool_), before, True),
            np.insert(late, before, False),
            np.insert(learn, before, False),
            np.insert(flags, before, MISSING | ABSENT),
        )

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
