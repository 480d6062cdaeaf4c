"""Flat lines: a series that normally varies repeats exactly one value.

Density models call a stuck sensor perfectly normal, so this looks for it separately. The p-value of
k repeats in a row is rate^k with the series' own rate of repeats, taken on the cautious side:

* the rate is never below `MIN_RATE`, because a rounded value may well come twice;
* repeats up to twice the longest run seen so far count nothing, because series that pause, pause again;
* before `MIN_READINGS` comparisons nothing is said.

Counters, flags and idle series repeat themselves often and are never called flat.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from tidewarden.frames import BoolArray, FloatArray, IntArray
from tidewarden.models.contract import State
from tidewarden.scoring.growth import with_room

MIN_RATE = 0.15  # six repeats are then as rare as 1 in 88,000, a score of 0.82
MIN_READINGS = 60
_SMALLEST_P = 1e-300
_SURPRISING_P = 1e-4  # a run that got this rare is an incident, and is not learned from …
_HABIT = 3  # … until it is the third one: then the series is like that

_STATE = np.dtype(
    [
        ("last", "f8"),
        ("repeats", "f8"),  # of the run in hand
        ("learned", "f8"),  # those of them that may be learned from
        ("compared", "f8"),  # readings compared with the one before
        ("repeated", "f8"),  # those that were equal to it
        ("longest", "f8"),  # longest run learned from
        ("incidents", "f8"),  # surprising runs so far
    ]
)


class FlatLine:
    """Detector of series that are stuck at one value; the state is arrays over series.

    Attributes:
        state_bytes_per_series: memory that one more series costs.
    """

    state_bytes_per_series = _STATE.itemsize

    def __init__(self) -> None:
        self._n_series = 0
        self._state = _blank(0)

    def resize(self, n_series: int) -> None:
        """Make room for series ids below ``n_series``; known series keep their state."""
        self._n_series = max(n_series, self._n_series)
        self._state = with_room(self._state, n_series, _blank)

    def observe(self, series: IntArray, value: FloatArray, learn: BoolArray) -> FloatArray:
        """The p-value of each reading, in arrival order: how rare so many repeats are in this series.

        Args:
            series: series ids, shape (n,).
            value: readings; NaN (missing, or late and so out of order) is passed over with p-value 1.
            learn: whether the series' habits may be learned from this reading.

        Returns:
            p-values in (0, 1], shape (n,); 1 wherever the value is not a repeat.
        """
        p_value = np.ones(len(series))
        if len(series):
            self.resize(int(series.max()) + 1)
            _observe(series, value, learn, p_value, self._state)
        return p_value

    def raise_log10_p(
        self, series: IntArray, value: FloatArray, late: BoolArray, learn: BoolArray, log10_p: FloatArray
    ) -> None:
        """The same as `observe`, taken into ``log10_p`` (n,), which is -log10 of p-values: the rarer one stays."""
        if len(series):
            self.resize(int(series.max()) + 1)
            _raise(series, value, late, learn, log10_p, self._state)

    def snapshot(self) -> State:
        """The whole state: plain arrays (copies) whose first axis is the series, in the order of their ids."""
        return {name: self._state[name][: self._n_series].copy() for name in _STATE.names or ()}

    def restore(self, state: State, rows: IntArray | npt.NDArray[np.intp] | Sequence[int]) -> None:
        """Go on from a snapshot; ``rows[i]`` is the id that its series number i has now.

        Raises:
            ValueError: an array is missing or has a wrong shape.
        """
        at = np.asarray(rows, np.intp)
        for name in _STATE.names or ():
            found = state[name].shape if name in state else None
            if found != (len(at),):
                raise ValueError(f"snapshot of flat lines: {name} has shape {found}, expected {(len(at),)}: discard it")
        self._n_series = int(at.max()) + 1 if len(at) else 0
        self._state = _blank(self._n_series)
        for name in _STATE.names or ():
            self._state[name][at] = state[name]


def _blank(n: int) -> npt.NDArray[Any]:
    state = np.zeros(n, _STATE)
    state["last"] = np.nan
    return state


@njit(cache=True, nogil=True)
def _observe(
    series: IntArray, value: FloatArray, learn: BoolArray, p_value: FloatArray, state: npt.NDArray[Any]
) -> None:
    for i in range(len(series)):
        if not math.isnan(value[i]):
            p_value[i] = _judged(state[series[i]], value[i], learn[i])


@njit(cache=True, nogil=True)
def _raise(
    series: IntArray,
    value: FloatArray,
    late: BoolArray,
    learn: BoolArray,
    log10_p: FloatArray,
    state: npt.NDArray[Any],
) -> None:
    for i in range(len(series)):
        if late[i] or math.isnan(value[i]):
            continue
        p_value = _judged(state[series[i]], value[i], learn[i])
        if p_value < 1.0:
            log10_p[i] = max(log10_p[i], -math.log10(p_value))


@njit(cache=True, nogil=True)
def _judged(own: Any, x: float, learn: bool) -> float:
    """The p-value of one reading of a series, which then is taken in."""
    if x == own.last:
        own.repeats += 1.0
        if learn:
            own.learned += 1.0
        return float(_rarity(own))
    if own.repeats > 0.0:
        _end_run(own)
    if learn and not math.isnan(own.last):
        own.compared += 1.0
    own.last = x
    return 1.0


@njit(cache=True, nogil=True)
def _rarity(own: Any) -> float:
    """How rare the run in hand is among the runs before it."""
    counted = own.repeats - 2.0 * own.longest
    if counted <= 0.0 or own.compared < MIN_READINGS:
        return 1.0
    # Two repeats more than were seen, so that a short history does not look like a firm one.
    rate = max(MIN_RATE, (own.repeated + 2.0) / (own.compared + 4.0))
    return float(max(_SMALLEST_P, min(1.0, rate) ** counted))


@njit(cache=True, nogil=True)
def _end_run(own: Any) -> None:
    """The value has changed: learn from the run that ended, unless it was an incident."""
    surprising = _rarity(own) < _SURPRISING_P
    if surprising:
        own.incidents += 1.0
    if not surprising or own.incidents >= _HABIT:
        own.compared += own.learned
        own.repeated += own.learned
        own.longest = max(own.longest, own.repeats if surprising else own.learned)
    own.repeats = 0.0
    own.learned = 0.0
