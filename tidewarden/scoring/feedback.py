"""What feedback makes of later anomalies: a bar for each series and kind, from the marks that people set.

A *mark* is the newest word on one anomaly. Of the marks of one (series, kind), in the order in which they were
set, each ``right`` takes back the latest ``wrong`` before it that is not taken back yet. Of the wrong ones left

* the rarest sets the **bar**: an anomaly passes if it is rarer than `MARGIN` times that many decades. The bar sinks by
  half in `HALF_LIFE_MS` of event time, so that one as rare as the marked one passes again after 0.58 of that, 17 days;
* `WRONG_TO_SILENCE` that are younger than `SILENCE_MS` **silence** the kind: none passes, however rare.

An anomaly that does not pass is tracked, kept and shown like any other, and carries ``suppressed``. What counts is
the bar at its onset. A run that is still short is called a spike or a dip whatever it will become, so while it is
open it has to pass the bars of the longer kinds, too: else every shift that is known to be wrong would begin as an
alert about a spike.

All of it is a function of the marks that stand. A revoked mark is removed, so that it is as if it had never been set.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
from numba import njit

from tidewarden.events import AnomalyKind, Feedback
from tidewarden.frames import FloatArray, IntArray, SeriesKey, SeriesTable
from tidewarden.scoring.growth import with_room

DAY_MS = 86_400_000
HALF_LIFE_MS = 30.0 * DAY_MS
MARGIN = 1.5  # decades of an anomaly that passes, for each decade of the one that was wrong
WRONG_TO_SILENCE = 3
SILENCE_MS = 2.0 * HALF_LIFE_MS
MAX_MARKS = 10_000  # of one scorer, the oldest fall out; 300 bytes each, and 800 of bars for each series: 11 MB
RAREST = 300.0  # decades, as in `decision.SMALLEST_LOG10_P`

_KINDS = len(AnomalyKind)
_PROVISIONAL = (AnomalyKind.UNSPECIFIED, AnomalyKind.SPIKE, AnomalyKind.DIP)
_LONGER = (
    AnomalyKind.LEVEL_SHIFT, AnomalyKind.DRIFT, AnomalyKind.SEASONAL_CHANGE, AnomalyKind.TREND_CHANGE,
    AnomalyKind.NOISE,
)  # fmt: skip
_HEIGHT, _SINCE, _SILENT_UNTIL = range(3)
_NEVER = -math.inf


@njit(cache=True, nogil=True)
def passes(bar: FloatArray, onset: int, p_value: float) -> bool:
    """Whether an anomaly with this onset (ms) and p-value is rarer than ``bar``, (3,) of `Marks.bars`, asks for."""
    if onset < bar[2]:
        return False
    height = bar[0] * 0.5 ** (max(0.0, onset - bar[1]) / HALF_LIFE_MS)
    return bool(rarity_of(p_value) > height)


@njit(cache=True, nogil=True)
def rarity_of(p_value: float) -> float:
    """Decades: -log10 of a p-value."""
    return -math.log10(p_value) if p_value > 0.0 else RAREST


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """The newest word on one anomaly, as far as it matters here."""

    anomaly_id: str
    series: SeriesKey
    kind: int
    right: bool
    rarity: float  # decades: -log10 of the p-value at the peak
    at: int  # ms since the epoch, event time


class Marks:
    """The marks of one scorer, and the bars that they make.

    Args:
        table: the scorer's own series.

    Attributes:
        row_of: row of each series in ``bars``, -1 where it has no mark; may be longer than there are series.
        bars: (rows, 2, kinds, 3): for closed runs and for open ones, by kind: height in decades, since when it sinks
            (ms), until when nothing passes (ms).
    """

    def __init__(self, table: SeriesTable) -> None:
        self._table = table
        self._n_series = 0
        self._marks: dict[str, Mark] = {}  # by anomaly, in the order in which they were set
        self._of_series: dict[SeriesKey, dict[str, Mark]] = {}  # the same by series
        self._rows: dict[SeriesKey, int] = {}
        self._free: list[int] = []  # rows that a series needs no more
        self.row_of: IntArray = np.zeros(0, np.int32)
        self.bars: FloatArray = _blank(0)

    def __len__(self) -> int:
        return len(self._marks)

    def resize(self, n_series: int) -> None:
        """Make room for series ids below ``n_series``, and find the marks that new ones have already."""
        self.row_of = with_room(self.row_of, n_series, lambda n: np.full(n, -1, np.int32))
        if self._rows:
            for series in range(self._n_series, n_series):
                self.row_of[series] = self._rows.get(self._table[series], -1)
        self._n_series = max(self._n_series, n_series)

    def take(self, feedback: Feedback, at: int) -> None:
        """Set, replace or revoke the mark of an anomaly; ``at`` is the event time (ms) from which its bar sinks."""
        old = self._marks.get(feedback.anomaly_id)
        if old is not None:
            self._remove(old)
        if feedback.verdict == "revoke":
            return
        self._add(
            Mark(
                feedback.anomaly_id, feedback.series, int(AnomalyKind.parse(feedback.kind)),
                feedback.verdict == "right", min(max(rarity_of(feedback.p_value), 0.0), RAREST), at,
            )
        )  # fmt: skip
        self._rebuild(feedback.series)
        if len(self._marks) > MAX_MARKS:
            self._remove(next(iter(self._marks.values())))

    def suppresses(self, series: int, kind: int, onset: int, p_value: float, *, running: bool) -> bool:
        """Whether an anomaly of this series, open (``running``) or closed, is one that nobody is to be alerted of."""
        row = int(self.row_of[series])
        return row >= 0 and not passes(self.bars[row, int(running), kind], onset, p_value)

    def save(self) -> list[Any]:
        """The marks, for JSON."""
        saved: list[Any] = msgspec.to_builtins(list(self._marks.values()))
        return saved

    def load(self, saved: list[Any]) -> None:
        """Go on with the marks of a snapshot."""
        for mark in msgspec.convert(saved, list[Mark]):
            self._add(mark)
        for series in self._of_series:
            self._rebuild(series)

    def _add(self, mark: Mark) -> None:
        self._marks[mark.anomaly_id] = mark
        self._of_series.setdefault(mark.series, {})[mark.anomaly_id] = mark

    def _remove(self, mark: Mark) -> None:
        del self._marks[mark.anomaly_id]
        del self._of_series[mark.series][mark.anomaly_id]
        self._rebuild(mark.series)

    def _rebuild(self, series: SeriesKey) -> None:
        """Make the bars of one series anew, of all its marks; without a mark it needs no row."""
        marks = list(self._of_series[series].values())
        if not marks:
            del self._of_series[series]
            self._free.append(self._rows.pop(series))
        elif series not in self._rows:
            self._rows[series] = self._free.pop() if self._free else len(self._rows)
            self.bars = with_room(self.bars, len(self._rows), _blank)
        own = self._table.find(series)
        if own is not None and own < self._n_series:
            self.row_of[own] = self._rows.get(series, -1)
        if marks:
            self.bars[self._rows[series]] = _bars(marks)


def _blank(n: int) -> FloatArray:
    bars = np.zeros((n, 2, _KINDS, 3))
    bars[..., _HEIGHT] = -1.0  # any rarity passes, even none
    bars[..., _SILENT_UNTIL] = _NEVER
    return bars


def _bars(marks: list[Mark]) -> FloatArray:
    """The bars (2, kinds, 3) of the marks of one series."""
    bars: FloatArray = _blank(1)[0]
    for kind in {mark.kind for mark in marks}:
        bars[:, kind] = _bar([mark for mark in marks if mark.kind == kind])
    for kind in _PROVISIONAL:
        for longer in _LONGER:
            bars[1, kind] = _higher(bars[1, kind], bars[0, longer])
    return bars


def _bar(marks: list[Mark]) -> FloatArray:
    """The bar (3,) of the marks of one series and kind, in the order in which they were set."""
    standing: list[Mark] = []
    for mark in marks:
        if not mark.right:
            standing.append(mark)
        elif standing:
            standing.pop()
    bar = np.array([-1.0, 0.0, _NEVER])
    for mark in standing:
        bar = _higher(bar, np.array([MARGIN * mark.rarity, float(mark.at), _NEVER]))
    if len(standing) >= WRONG_TO_SILENCE:
        bar[_SILENT_UNTIL] = sorted(mark.at for mark in standing)[-WRONG_TO_SILENCE] + SILENCE_MS
    return bar


def _higher(one: FloatArray, other: FloatArray) -> FloatArray:
    """The higher of two bars, which sink alike, so that it stays the higher one; and the longer silence."""
    if one[_HEIGHT] < 0.0 or other[_HEIGHT] < 0.0:
        higher = one if one[_HEIGHT] >= other[_HEIGHT] else other
    else:
        later = max(one[_SINCE], other[_SINCE])
        heights = [bar[_HEIGHT] * 0.5 ** ((later - bar[_SINCE]) / HALF_LIFE_MS) for bar in (one, other)]
        higher = one if heights[0] >= heights[1] else other
    return np.array([higher[_HEIGHT], higher[_SINCE], max(one[_SILENT_UNTIL], other[_SILENT_UNTIL])])
