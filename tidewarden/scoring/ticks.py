"""Ticks of tenants, and when they close: a kernel over scores in arrival order.

A tick closes when every series expected in it has a score, or when the tenant's newest timestamp is
`wait_ms` past its start. Expected is who reported within `max_gap` ticks before it. A tick does not
close as complete while series join or come back, nor where series report several times a tick:
then nobody knows when it is complete, and time decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from tidewarden.frames import BoolArray, FloatArray, IntArray, SeriesKey, SeriesTable, TimeArray
from tidewarden.models.contract import State
from tidewarden.scoring.growth import NameOrder, with_room

NEVER = -(2**62)
MAX_OPEN_TICKS = 256  # a bound on memory: a tenant this many ticks ahead no longer waits, whatever the lateness
_NOT_EXPECTED = -1.0
_EXPECTED = -2.0
_NAME_SEPARATOR = "\x00"  # sorts before everything that names are made of, so a node's series stay together
_PER_TENANT = ("newest", "horizon", "settled_from", "late")
_PER_SLOT = ("slot_tick", "slot_open", "slot_expected", "slot_reported")


@dataclass(slots=True, eq=False)
class ClosedTicks:
    """Ticks that closed, with the score of each series in them.

    Attributes:
        tick: number of the tick (timestamp // interval) for each closing, shape (m,).
        closing: index into ``tick``, rising, shape (n,).
        series: series id; within a closing ordered by name, shape (n,).
        score: highest score of the series in the tick, shape (n,).
    """

    tick: TimeArray
    closing: IntArray
    series: IntArray
    score: FloatArray


class Ticks:
    """Open ticks of all tenants.

    Args:
        table: the series; ids in `observe` are its own.
        interval_ms: length of a tick.
        wait_ms: how far a tenant's newest timestamp must be past the start of a tick to close it.
        max_gap: ticks of silence after which a series is no longer expected.
    """

    def __init__(self, table: SeriesTable, *, interval_ms: int, wait_ms: int, max_gap: int) -> None:
        self._table = table
        self._interval_ms = interval_ms
        self._wait_ms = min(wait_ms, (MAX_OPEN_TICKS - 2) * interval_ms)
        self._max_gap = max_gap
        self._n_slots = math.ceil(self._wait_ms / interval_ms) + 2
        self._tenants: list[str] = []
        self._tenant_of = _unseen(0)  # by series id, -1 where never seen
        self._last_tick = _never(0)
        self._slots = self._no_slots(0)
        self._members = NameOrder()
        self._state: State = {
            **{name: np.zeros(0, np.int64) for name in _PER_TENANT},
            **{name: np.zeros((0, self._n_slots), np.int64) for name in _PER_SLOT},
        }

    @property
    def late(self) -> dict[str, int]:
        """Scores that came after their tick had closed, by tenant."""
        return dict(zip(self._tenants, self._state["late"].tolist(), strict=True))

    def observe(self, series: IntArray, timestamp: TimeArray, score: FloatArray, absent: BoolArray) -> ClosedTicks:
        """Take scores in, in arrival order, and return the ticks that closed.

        Args:
            series: series ids, shape (n,).
            timestamp: milliseconds since the epoch, shape (n,).
            score: in [0, 1], shape (n,).
            absent: scores of readings that never came: they count, but do not make a series active.
        """
        if len(series):
            self._meet(np.unique(series))
        room = max(2 * len(series), 2 * (self._n_slots + 1) * self._members.largest)
        parts: list[tuple[npt.NDArray[Any], ...]] = []
        row = n_closings = 0
        while row < len(series):
            tick = np.empty(len(series) + self._n_slots + 1, np.int64)
            closing, out_series, out_score = np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room)
            s = self._state
            row, n_ticks, n = _observe(
                row, series, timestamp, score, absent, self._tenant_of, self._last_tick, self._slots,
                self._members.first, self._members.after, self._members.largest,
                s["newest"], s["horizon"], s["settled_from"], s["late"],
                s["slot_tick"], s["slot_open"], s["slot_expected"], s["slot_reported"],
                self._interval_ms, self._wait_ms, self._max_gap, tick, closing, out_series, out_score,
            )  # fmt: skip
            parts.append((tick[:n_ticks], closing[:n] + n_closings, out_series[:n], out_score[:n]))
            n_closings += n_ticks
        if not parts:
            return ClosedTicks(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0))
        return ClosedTicks(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    def _meet(self, ids: IntArray) -> None:
        """Make room for series that appear for the first time, and for their tenants."""
        n = int(ids[-1]) + 1
        self._tenant_of = with_room(self._tenant_of, n, _unseen)
        self._last_tick = with_room(self._last_tick, n, _never)
        self._slots = with_room(self._slots, n, self._no_slots)
        fresh = ids[self._tenant_of[ids] < 0]
        if len(fresh) == 0:
            return
        number = {tenant: i for i, tenant in enumerate(self._tenants)}
        for series in fresh.tolist():
            key = self._table[series]
            tenant = number.setdefault(key.tenant, len(number))
            self._tenant_of[series] = tenant
            self._members.add(tenant, series, _NAME_SEPARATOR.join(key))
        more = len(number) - len(self._tenants)
        self._tenants = list(number)
        for name in _PER_TENANT:
            start = 0 if name == "late" else NEVER
            self._state[name] = np.concatenate([self._state[name], np.full(more, start, np.int64)])
        for name in _PER_SLOT:
            start = NEVER if name == "slot_tick" else 0
            self._state[name] = np.concatenate([self._state[name], np.full((more, self._n_slots), start, np.int64)])

    def _no_slots(self, n: int) -> FloatArray:
        return np.full((n, self._n_slots), _NOT_EXPECTED)

    def snapshot(self) -> tuple[dict[str, Any], State]:
        """Names (tenants, series as lists of four) and arrays in their order."""
        known = np.flatnonzero(self._tenant_of >= 0)
        names = {"tenants": self._tenants, "series": [list(self._table[int(i)]) for i in known]}
        arrays = {"last_tick": self._last_tick[known], "slots": self._slots[known]}
        return names, {**arrays, **{name: array.copy() for name, array in self._state.items()}}

    def restore(self, names: dict[str, Any], arrays: State) -> None:
        """Go on from a snapshot, into whatever ids the table gives; ValueError says what does not fit."""
        n_tenants, n_series = len(names["tenants"]), len(names["series"])
        shapes: dict[str, tuple[int, ...]] = {"last_tick": (n_series,), "slots": (n_series, self._n_slots)}
        shapes |= dict.fromkeys(_PER_TENANT, (n_tenants,))
        shapes |= dict.fromkeys(_PER_SLOT, (n_tenants, self._n_slots))
        for name, shape in shapes.items():
            found = arrays[name].shape if name in arrays else None
            if found != shape:
                raise ValueError(
                    f"rollup snapshot: {name} has shape {found}, expected {shape}: interval or lateness has changed, "
                    "start without the snapshot"
                )
        self._tenants = list(names["tenants"])
        number = {tenant: i for i, tenant in enumerate(self._tenants)}
        keys = [SeriesKey(*key) for key in names["series"]]
        ids = np.array([self._table.id_of(key) for key in keys], np.intp)
        size = int(ids.max()) + 1 if n_series else 0
        self._tenant_of, self._last_tick, self._slots = _unseen(size), _never(size), self._no_slots(size)
        self._members = NameOrder()
        for series, key in zip(ids.tolist(), keys, strict=True):
            self._tenant_of[series] = number[key.tenant]
            self._members.add(number[key.tenant], series, _NAME_SEPARATOR.join(key))
        self._last_tick[ids] = arrays["last_tick"]
        self._slots[ids] = arrays["slots"]
        self._state = {name: arrays[name].copy() for name in (*_PER_TENANT, *_PER_SLOT)}


def _unseen(n: int) -> IntArray:
    return np.full(n, -1, np.int32)


def _never(n: int) -> TimeArray:
    return np.full(n, NEVER, np.int64)


@njit(cache=True, nogil=True)
def _observe(
    row: int,
    series: IntArray,
    timestamp: TimeArray,
    score: FloatArray,
    absent: BoolArray,
    tenant_of: IntArray,
    last_tick: TimeArray,
    slots: FloatArray,
    first_member: IntArray,
    next_member: IntArray,
    n_members: int,
    newest: TimeArray,
    horizon: TimeArray,
    settled_from: TimeArray,
    late: TimeArray,
    slot_tick: TimeArray,
    slot_open: TimeArray,
    slot_expected: TimeArray,
    slot_reported: TimeArray,
    interval_ms: int,
    wait_ms: int,
    max_gap: int,
    out_tick: TimeArray,
    out_closing: IntArray,
    out_series: IntArray,
    out_score: FloatArray,
) -> tuple[int, int, int]:
    """Go over the scores from ``row`` on; returns the row to go on from, closings, and rows written."""
    n_slots = slots.shape[1]
    n_ticks = n = 0
    for i in range(row, len(series)):
        s = series[i]
        t = tenant_of[s]
        first = first_member[t]
        if n + (n_slots + 1) * n_members > len(out_series) or n_ticks + n_slots + 1 > len(out_tick):
            return i, n_ticks, n
        tick = timestamp[i] // interval_ms
        if timestamp[i] > newest[t]:
            newest[t] = timestamp[i]
            passed = (timestamp[i] - wait_ms) // interval_ms  # ticks up to this one have waited long enough
            if passed > horizon[t]:
                oldest = _oldest(slot_tick[t], slot_open[t])
                for old in range(oldest, min(passed, oldest + n_slots) + 1):  # the open ones lie close together
                    slot = old % n_slots
                    if slot_tick[t, slot] == old and slot_open[t, slot] == 1:
                        slot_open[t, slot] = 0
                        n = _write_out(first, next_member, slots, slot, n_ticks, out_closing, out_series, out_score, n)
                        out_tick[n_ticks] = old
                        n_ticks += 1
                horizon[t] = passed
        slot = tick % n_slots
        if tick <= horizon[t] or (slot_tick[t, slot] == tick and slot_open[t, slot] == 0):
            late[t] += 1
            if tick > horizon[t]:  # it had been complete without this one
                if slots[s, slot] >= 0.0:
                    settled_from[t] = max(settled_from[t], tick + 1 + max_gap)
                elif slots[s, slot] == _NOT_EXPECTED:
                    settled_from[t] = max(settled_from[t], tick + n_slots)
            if not absent[i] and tick > last_tick[s]:
                last_tick[s] = tick
            continue
        if slot_tick[t, slot] != tick:
            slot_tick[t, slot] = tick
            slot_open[t, slot] = 1
            slot_reported[t, slot] = 0
            slot_expected[t, slot] = _expect(first, next_member, slots, slot, last_tick, tick - max_gap)
        if slots[s, slot] < 0.0:
            slot_reported[t, slot] += 1
            if slots[s, slot] == _NOT_EXPECTED:  # new, or back again: others may be on their way
                slot_expected[t, slot] += 1
                settled_from[t] = max(settled_from[t], tick + n_slots)
            slots[s, slot] = score[i]
        else:
            slots[s, slot] = max(slots[s, slot], score[i])
            settled_from[t] = max(settled_from[t], tick + 1 + max_gap)
        if not absent[i] and tick > last_tick[s]:
            last_tick[s] = tick
        if slot_reported[t, slot] == slot_expected[t, slot] and tick >= settled_from[t]:
            slot_open[t, slot] = 0
            n = _write_out(first, next_member, slots, slot, n_ticks, out_closing, out_series, out_score, n)
            out_tick[n_ticks] = tick
            n_ticks += 1
    return len(series), n_ticks, n


@njit(cache=True, nogil=True)
def _oldest(slot_tick: TimeArray, slot_open: TimeArray) -> int:
    oldest = 2**62
    for slot in range(len(slot_tick)):
        if slot_open[slot] == 1 and slot_tick[slot] < oldest:
            oldest = slot_tick[slot]
    return oldest


@njit(cache=True, nogil=True)
def _expect(first: int, next_member: IntArray, slots: FloatArray, slot: int, last_tick: TimeArray, since: int) -> int:
    """Begin a tick: nobody has reported; how many are expected."""
    expected = 0
    s = first
    while s >= 0:
        active = last_tick[s] >= since
        slots[s, slot] = _EXPECTED if active else _NOT_EXPECTED
        expected += active
        s = next_member[s]
    return expected


@njit(cache=True, nogil=True)
def _write_out(
    first: int,
    next_member: IntArray,
    slots: FloatArray,
    slot: int,
    closing: int,
    out_closing: IntArray,
    out_series: IntArray,
    out_score: FloatArray,
    n: int,
) -> int:
    s = first
    while s >= 0:
        if slots[s, slot] >= 0.0:
            out_closing[n] = closing
            out_series[n] = s
            out_score[n] = slots[s, slot]
            n += 1
        s = next_member[s]
    return n
