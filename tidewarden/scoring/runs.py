"""The kernel that follows runs: scores in arrival order in, events out, one record of state a series.

`anomalies.AnomalyTracker` owns the arrays and turns the events into words.

numba's disk cache looks at this file alone to see whether `follow` is up to date, although `kinds` is
compiled into it, and `feedback.passes`: whoever edits those touches this file, too.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from tidewarden.events import AnomalyKind
from tidewarden.frames import (
    ABOVE,
    LATE,
    LEARNING,
    MISSING,
    ByteArray,
    FloatArray,
    IntArray,
    TimeArray,
)
from tidewarden.scoring import kinds
from tidewarden.scoring.feedback import passes

LASTING_READINGS = 240
"""Readings above the threshold after which a shift is the new normal: four hours at one a minute."""

MAX_REVISIONS = 6
"""Times that one anomaly is published at most, opening and closing included; feedback's bars may add a few."""

_PEAK_STEP = 0.1  # the peak is told again when it has grown by this much, more than half a decade of rarity
_MEMORY = 256.0  # calm readings over which the usual deviation is averaged
_RECENT = 8.0  # calm readings over which the level before an onset is averaged
_SELDOM = 0.3  # a series that repeats its value more often than this is never called stuck
_KIND_MISSING = int(AnomalyKind.MISSING)
_KIND_FLAT_LINE = int(AnomalyKind.FLAT_LINE)

RUN = np.dtype(
    [
        ("latest", "f8"),  # anomaly score of the newest reading, NaN before the first
        ("last_value", "f8"),
        ("stuck_since", "i8"),  # when the value that is being repeated came first
        ("repeats", "i4"),  # how often it has been repeated
        ("repeat_rate", "f8"),  # share of calm readings that repeat the one before
        ("calm_seen", "f8"),  # calm readings so far, up to _MEMORY
        ("variance", "f8"),  # of the residual in calm readings
        ("level", "f8"),  # mean of the recent calm values
        ("recent_z", "f8"),  # mean of the recent calm residuals, in usual deviations
        ("open", "u1"),
        ("mute", "u1"),
        ("kind", "u1"),
        ("opposite_before", "u1"),
        ("told_kind", "u1"),
        ("previous_side", "i1"),  # of the latest long run, 0 where there was none of late
        ("revision", "i4"),
        ("count", "i4"),  # readings above the threshold
        ("lingering", "i4"),  # readings of the run that are not above the threshold, but not back in the band either
        ("calm", "i4"),  # calm readings since the newest one above
        ("review_at", "i4"),  # length at which the kind is looked at again
        ("previous_end", "i8"),
        ("onset", "i8"),
        ("end", "i8"),
        ("updated_at", "i8"),  # time of the reading that made the newest revision
        ("flat_since", "i8"),  # when the value that the run is stuck at came first
        ("scale", "f8"),  # usual deviation, as of the onset
        ("told_peak", "f8"),
        ("peak_at", "i8"),
        ("peak_score", "f8"),
        ("peak_p", "f8"),
        ("peak_value", "f8"),
        ("peak_expected", "f8"),
        ("peak_lower", "f8"),
        ("peak_upper", "f8"),
        ("share", "f8"),  # of the node's score, at the peak
        ("siblings", "i4"),  # series of the node with a score, at the peak
    ],
    align=True,
)


def blank_runs(n: int) -> npt.NDArray[Any]:
    """State of ``n`` series that have not been seen."""
    runs = np.zeros(n, RUN)
    for name in ("latest", "last_value", "level"):
        runs[name] = np.nan
    runs["previous_end"] = np.iinfo(np.int64).min
    return runs


@njit(cache=True, nogil=True)
def follow(
    row: int,
    series: IntArray,
    timestamp: TimeArray,
    value: FloatArray,
    score: FloatArray,
    p_value: FloatArray,
    expected: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
    flags: ByteArray,
    kind: ByteArray,
    runs: npt.NDArray[Any],
    tally: FloatArray,
    live: FloatArray,
    node_of: IntArray,
    first_of_node: IntArray,
    next_sibling: IntArray,
    events: npt.NDArray[Any],
    event_series: IntArray,
    bar_row: IntArray,
    bars: FloatArray,
    quiet: int,
    season_ms: int,
) -> tuple[int, int]:
    """Go over the scores from ``row`` on; returns the row to go on from and the number of events."""
    n_events = 0
    for i in range(row, len(series)):
        if n_events == len(events):  # a reading makes at most one event
            return i, n_events
        s = series[i]
        run = runs[s]
        late = flags[i] & LATE != 0
        above = flags[i] & ABOVE != 0
        missing = flags[i] & MISSING != 0 or math.isnan(value[i])
        kind[i] = 0
        told = False
        if not late:
            run.latest = score[i]
            if not missing:
                _note_repeat(run, value[i], timestamp[i])
        stuck = not missing and run.repeats >= kinds.STUCK_REPEATS and run.repeat_rate < _SELDOM
        if run.open == 0:
            # A late reading that lies within a run already told belongs to that one.
            fresh = not late or timestamp[i] > run.previous_end
            if above and fresh and (run.mute == 0 or missing):
                _open(run, tally[s], timestamp[i], lower[i], upper[i], season_ms)
                live[s, :] = tally[s]
            elif above:
                run.calm = 0
                kind[i] = run.kind
            elif not late:
                _stay_calm(run, value[i], expected[i], flags[i] & LEARNING != 0 or missing, quiet)
        if run.open != 0 and (above or not late):
            if not late:
                z = (value[i] - expected[i]) / run.scale
                kinds.add_reading(live[s], z, (value[i] - run.level) / run.scale, missing, stuck)
            lingers = not above and not missing and _lingers(run, value[i], lower[i], upper[i])
            if above or lingers:
                tally[s, :] = live[s]
                run.calm = 0
                run.end = max(run.end, timestamp[i])
                if stuck:
                    run.flat_since = min(run.flat_since, run.stuck_since)
                passed = False
                if above:
                    run.count += 1
                    if score[i] > run.peak_score or (score[i] == run.peak_score and p_value[i] < run.peak_p):
                        if bar_row[s] >= 0 and run.revision > 0:
                            bar = bars[bar_row[s], 1, run.kind]
                            passed = not passes(bar, run.onset, run.peak_p) and passes(bar, run.onset, p_value[i])
                        first = first_of_node[node_of[s]]
                        _take_peak(run, i, timestamp, value, score, p_value, expected, lower, upper)
                        run.share, run.siblings = _share_of(runs, first, next_sibling, score[i])
                else:
                    run.lingering += 1
                told = _go_on(run, tally[s], live[s])
                if passed and not told:  # it was held back because of feedback, and is not any longer
                    run.revision += 1
                    run.told_kind = run.kind
                    run.told_peak = run.peak_score
                    told = True
                if above:
                    kind[i] = run.kind
            else:
                run.calm += 1
                if run.calm >= quiet:
                    _close(run, tally[s], live[s], False)
                    told = True
        if told:
            run.updated_at = max(run.end, timestamp[i])
            events[n_events] = runs[s]
            event_series[n_events] = s
            n_events += 1
    return len(series), n_events


@njit(cache=True, nogil=True)
def close_unfinished(runs: npt.NDArray[Any], tally: FloatArray, live: FloatArray, s: int, at: int) -> None:
    """Close the run of series ``s``, of which nothing has come for long; ``at`` is the time to say so."""
    run = runs[s]
    _close(run, tally[s], live[s], False)
    run.updated_at = at


@njit(cache=True, nogil=True)
def _note_repeat(run: Any, value: float, timestamp: int) -> None:
    if value == run.last_value:
        run.repeats += 1
    else:
        run.repeats = 0
        run.stuck_since = timestamp
        run.last_value = value


@njit(cache=True, nogil=True)
def _stay_calm(run: Any, value: float, expected: float, unknown: bool, quiet: int) -> None:
    """A calm reading outside a run: it says what is usual."""
    run.calm = min(run.calm + 1, quiet)
    if run.calm >= quiet:
        run.mute = 0
    if unknown or math.isnan(expected):
        return
    run.calm_seen = min(run.calm_seen + 1.0, _MEMORY)
    weight = 1.0 / run.calm_seen
    residual = value - expected
    if run.calm_seen > _RECENT:  # a reading that only just stayed below the threshold must not widen it all
        bound = 5.0 * math.sqrt(run.variance)
        residual = min(bound, max(-bound, residual)) if bound > 0.0 else residual
    run.variance += weight * (residual * residual - run.variance)
    run.repeat_rate += weight * ((1.0 if run.repeats > 0 else 0.0) - run.repeat_rate)
    recent = max(weight, 1.0 / _RECENT)
    run.level = value if math.isnan(run.level) else run.level + recent * (value - run.level)
    deviation = math.sqrt(run.variance)
    if deviation > 0.0:
        run.recent_z += recent * (residual / deviation - run.recent_z)


@njit(cache=True, nogil=True)
def _open(run: Any, tally: FloatArray, timestamp: int, lower: float, upper: float, season_ms: int) -> None:
    run.open = 1
    run.kind = 0
    run.told_kind = 0
    run.revision = 0
    run.count = 0
    run.lingering = 0
    run.review_at = 1
    run.onset = timestamp
    run.end = timestamp
    run.flat_since = timestamp
    run.peak_score = -1.0
    run.scale = math.sqrt(run.variance)
    if run.calm_seen < _RECENT or not run.scale > 0.0:
        run.scale = (upper - lower) / 5.15  # the band holds 99 %: 2.58 deviations to each side
    if not (run.scale > 0.0 and math.isfinite(run.scale)):
        run.scale = max(1e-9, 1e-6 * abs(run.last_value)) if math.isfinite(run.last_value) else 1.0
    if timestamp - run.previous_end > season_ms // 2 or run.previous_end == np.iinfo(np.int64).min:
        run.previous_side = 0
    tally[:] = 0.0


@njit(cache=True, nogil=True)
def _lingers(run: Any, value: float, lower: float, upper: float) -> bool:
    """Whether a reading below the threshold is still outside the band, on the side of the peak.

    Calibration gets used to a lasting anomaly before it is over; the band tells when it is.
    """
    return bool(value > upper and run.peak_value > run.peak_upper) or bool(
        value < lower and run.peak_value < run.peak_lower
    )


@njit(cache=True, nogil=True)
def _take_peak(
    run: Any,
    i: int,
    timestamp: TimeArray,
    value: FloatArray,
    score: FloatArray,
    p_value: FloatArray,
    expected: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
) -> None:
    run.peak_at = timestamp[i]
    run.peak_score = score[i]
    run.peak_p = p_value[i]
    run.peak_value = value[i]
    run.peak_expected = expected[i]
    run.peak_lower = lower[i]
    run.peak_upper = upper[i]


@njit(cache=True, nogil=True)
def _share_of(runs: npt.NDArray[Any], first: int, next_sibling: IntArray, score: float) -> tuple[float, int]:
    """Share of the node's score that a series with ``score`` has, weighted as in the rollup, and of how many."""
    total = 0.0
    n = 0
    sibling = first
    while sibling >= 0:
        latest = runs[sibling].latest
        if not math.isnan(latest):
            total += 10.0 ** (6.0 * latest)
            n += 1
        sibling = next_sibling[sibling]
    return min(1.0, 10.0 ** (6.0 * score) / total) if total > 0.0 else 1.0, max(n, 1)


@njit(cache=True, nogil=True)
def _go_on(run: Any, tally: FloatArray, live: FloatArray) -> bool:
    """A reading that belongs to a run: look at the kind again where due; whether that is worth telling."""
    length = int(tally[kinds.ALL])
    if length >= run.review_at or run.kind == 0:
        _review(run, tally, live, False, False)
        # At lengths 1, 2, 4, 8, 16, 17, 34 …: a kind that changes at every reading would help nobody.
        run.review_at = min(2 * length, kinds.SHORT_READINGS + 1) if length <= kinds.SHORT_READINGS else 2 * length
    stays = run.kind in (_KIND_MISSING, _KIND_FLAT_LINE)
    if run.count + run.lingering >= LASTING_READINGS and not stays:
        _close(run, tally, live, True)
        return True
    grown = run.kind != run.told_kind or run.peak_score >= run.told_peak + _PEAK_STEP
    if run.revision > 0 and (not grown or run.revision >= MAX_REVISIONS - 1):
        return False
    run.revision += 1
    run.told_kind = run.kind
    run.told_peak = run.peak_score
    return True


@njit(cache=True, nogil=True)
def _review(run: Any, tally: FloatArray, live: FloatArray, closing: bool, lasting: bool) -> None:
    opposite = run.previous_side != 0 and run.previous_side == -kinds.side_of(tally)
    run.kind = kinds.classify(tally, live, run.recent_z, opposite, closing, lasting)


@njit(cache=True, nogil=True)
def _close(run: Any, tally: FloatArray, live: FloatArray, lasting: bool) -> None:
    """The run is over: its final kind, and what the series remembers of it."""
    _review(run, tally, live, True, lasting)
    run.revision += 1
    run.open = 0
    run.mute = 1 if lasting else 0
    run.previous_end = run.end
    if tally[kinds.ALL] > kinds.SHORT_READINGS:  # a spike between two halves of a wave changes nothing
        run.previous_side = kinds.side_of(tally)
    calm = live[kinds.VALUED] - tally[kinds.VALUED]
    if calm > 0.0:  # what is usual now is what came after the run
        run.level += run.scale * (live[kinds.RAW] - tally[kinds.RAW]) / calm
        run.recent_z = (live[kinds.SUM_Z] - tally[kinds.SUM_Z]) / calm
