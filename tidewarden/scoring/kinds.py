"""What kind of anomaly a run is: rules over a few sums that are kept while the run goes on.

A run is described by a `Tally`, a row of float64 sums over its readings. Residuals enter as
``z = (value - expected) / scale``, where the scale is the series' usual residual deviation, clipped so
that one wild reading does not hide the shape of the rest. The rules look at what a person looks at:
are there values at all, do they vary, to which side do they lie, do they stay, do they grow, do they
come back.
"""

from __future__ import annotations

import math

from numba import njit

from tidewarden.events import AnomalyKind
from tidewarden.frames import FloatArray

# Columns of a tally.
ALL = 0  # readings, missing ones included
VALUED = 1  # readings with a value and an expectation
UP = 2  # readings with z > 1
DOWN = 3  # readings with z < -1
TURNS = 4  # changes of side between successive readings with |z| > 1
SUM_Z = 5
SUM_ABS = 6
SUM_ZZ = 7
SUM_T = 8  # t counts the readings since the onset, from 0
SUM_TT = 9
SUM_TZ = 10
HEAD = 11  # sum of z of the first HEAD_READINGS readings
RAW = 12  # sum of (value - level before the onset) / scale
STUCK = 13  # readings that repeat the value before them, the fifth time or more
GONE = 14  # missing readings
SIDE = 15  # side of the latest reading with |z| > 1: -1, 0, 1
TAIL = 16  # mean z of about the last four readings
TALLY_COLUMNS = 17

HEAD_READINGS = 4
CLIP_Z = 50.0
STUCK_REPEATS = 5  # a value repeated this often, in a series that seldom repeats, is stuck
SLOW_Z = 0.7  # mean z before an onset that says it has been coming: 2.7 deviations of a mean of about 15 readings
SHORT_READINGS = 16  # spikes and dips last at most this long; longer runs to one side are shifts or drifts

_UNSPECIFIED = int(AnomalyKind.UNSPECIFIED)
_SPIKE = int(AnomalyKind.SPIKE)
_DIP = int(AnomalyKind.DIP)
_LEVEL_SHIFT = int(AnomalyKind.LEVEL_SHIFT)
_DRIFT = int(AnomalyKind.DRIFT)
_MISSING = int(AnomalyKind.MISSING)
_FLAT_LINE = int(AnomalyKind.FLAT_LINE)
_SEASONAL_CHANGE = int(AnomalyKind.SEASONAL_CHANGE)
_TREND_CHANGE = int(AnomalyKind.TREND_CHANGE)
_NOISE = int(AnomalyKind.NOISE)


@njit(cache=True, nogil=True)
def add_reading(tally: FloatArray, z: float, raw: float, missing: bool, stuck: bool) -> None:
    """Take one reading of a run into ``tally`` (TALLY_COLUMNS,).

    Args:
        tally: the sums, changed in place.
        z: residual in usual deviations; NaN where there is no value or no expectation.
        raw: distance from the level before the onset, in the same unit.
        missing: there was no value.
        stuck: the value repeats the ones before it, in a series that seldom does.
    """
    t = tally[ALL]
    tally[ALL] += 1.0
    if missing:
        tally[GONE] += 1.0
        return
    if stuck:
        tally[STUCK] += 1.0
    if math.isnan(z):
        return
    z = min(CLIP_Z, max(-CLIP_Z, z))
    if tally[VALUED] < HEAD_READINGS:
        tally[HEAD] += z
    tally[VALUED] += 1.0
    tally[TAIL] += (z - tally[TAIL]) / min(4.0, tally[VALUED])
    tally[SUM_Z] += z
    tally[SUM_ABS] += abs(z)
    tally[SUM_ZZ] += z * z
    tally[SUM_T] += t
    tally[SUM_TT] += t * t
    tally[SUM_TZ] += t * z
    if not math.isnan(raw):
        tally[RAW] += min(CLIP_Z, max(-CLIP_Z, raw))
    if abs(z) > 1.0:
        side = 1.0 if z > 0.0 else -1.0
        tally[UP if side > 0.0 else DOWN] += 1.0
        if tally[SIDE] == -side:
            tally[TURNS] += 1.0
        tally[SIDE] = side


@njit(cache=True, nogil=True)
def side_of(tally: FloatArray) -> int:
    """To which side the run lies: 1 above what was expected, -1 below, 0 undecided."""
    if tally[SUM_Z] > 0.0:
        return 1
    return -1 if tally[SUM_Z] < 0.0 else 0


@njit(cache=True, nogil=True)
def classify(  # noqa: PLR0911 - a list of rules, one return each
    run: FloatArray,
    live: FloatArray,
    before_z: float,
    opposite_before: bool,
    closing: bool,
    lasting: bool,
) -> int:
    """The kind of a run, as an `AnomalyKind` number.

    Args:
        run: tally from the onset to the newest reading that exceeded, shape (TALLY_COLUMNS,).
        live: the same, going on to the newest reading; what it has on top are the calm ones.
        before_z: mean z of the few readings before the onset: a drift has been coming for a while.
        opposite_before: a long run to the other side ended within half a season before this one.
        closing: the run is over, so the calm readings tell whether the value came back.
        lasting: the run is closed because it lasted, not because it calmed.
    """
    n = run[VALUED]
    if run[GONE] * 2.0 >= run[ALL]:
        return _MISSING
    if run[STUCK] * 2.0 >= run[ALL]:
        return _FLAT_LINE
    if n == 0.0:
        return _UNSPECIFIED
    sided = run[UP] + run[DOWN]
    mixed = min(run[UP], run[DOWN]) / sided if sided > 0.0 else 0.0
    if sided >= 6.0 and mixed >= 0.2:
        if run[TURNS] >= 0.2 * (sided - 1.0):
            return _NOISE
        if n >= 2.0 * SHORT_READINGS:
            return _SEASONAL_CHANGE
    side = 1.0 if run[SUM_Z] >= 0.0 else -1.0
    if run[ALL] <= SHORT_READINGS:
        if closing and not _came_back(run, live):
            return _LEVEL_SHIFT
        if run[SUM_Z] == 0.0:
            return _UNSPECIFIED
        return _SPIKE if side > 0.0 else _DIP
    if opposite_before or (closing and _rose_and_fell(run, live, side, before_z)):
        return _SEASONAL_CHANGE
    if _grows(run, side, before_z):
        return _TREND_CHANGE if lasting and _goes_on_growing(run, side) else _DRIFT
    return _LEVEL_SHIFT


@njit(cache=True, nogil=True)
def _came_back(run: FloatArray, live: FloatArray) -> bool:
    """Whether the readings after the run lie where those before it lay.

    Raw levels are compared, not residuals: a model that adapts quickly calls a new level normal.
    """
    calm = live[VALUED] - run[VALUED]
    if calm < 3.0 or run[VALUED] == 0.0:
        return True
    after = (live[RAW] - run[RAW]) / calm
    during = run[RAW] / run[VALUED]
    return bool(abs(after) < 3.0 or after * during < 0.5 * during * during)


@njit(cache=True, nogil=True)
def _fit(run: FloatArray) -> tuple[float, float, float]:
    """Straight line through z over the run: its start, its end, and the share of variance it explains."""
    n = run[VALUED]
    tt = run[SUM_TT] - run[SUM_T] * run[SUM_T] / n
    zz = run[SUM_ZZ] - run[SUM_Z] * run[SUM_Z] / n
    tz = run[SUM_TZ] - run[SUM_T] * run[SUM_Z] / n
    if tt <= 0.0 or zz <= 0.0:
        mean = run[SUM_Z] / n
        return mean, mean, 0.0
    slope = tz / tt
    start = (run[SUM_Z] - slope * run[SUM_T]) / n
    return start, start + slope * (run[ALL] - 1.0), tz * tz / (tt * zz)


@njit(cache=True, nogil=True)
def _grows(run: FloatArray, side: float, before_z: float) -> bool:
    """Whether the residual came slowly: it grows along the run, or it began before the onset."""
    start, end, explained = _fit(run)
    if explained >= 0.25 and end * side > 1.6 * max(start * side, 0.5):
        return True
    n = run[VALUED]
    jump = (run[HEAD] / min(n, HEAD_READINGS) - before_z) * side
    return bool(before_z * side > SLOW_Z and jump < 0.35 * run[SUM_Z] / n * side)


@njit(cache=True, nogil=True)
def _goes_on_growing(run: FloatArray, side: float) -> bool:
    """Whether a straight line describes the whole run: a new trend rather than a drift that levels out."""
    start, end, explained = _fit(run)
    return bool(explained >= 0.6 and end * side > 1.6 * max(start * side, 0.5))


@njit(cache=True, nogil=True)
def _rose_and_fell(run: FloatArray, live: FloatArray, side: float, before_z: float) -> bool:
    """Whether a long run came slowly and went slowly: half a wave, as a changed season leaves behind."""
    fell = run[TAIL] * side < 0.7 * run[SUM_Z] / run[VALUED] * side
    return bool(before_z * side > SLOW_Z and fell and _came_back(run, live))
