"""The compiled half of `density`: readings in blocks, series as rows, histograms as lanes.

Readings are taken in blocks of at most `BLOCK` in which no series comes twice, so the order of work inside a block
does not matter. Each stage is a loop over the block, with the histograms of a reading side by side in float32: what
is plain arithmetic becomes vector instructions, and waiting for one series' memory overlaps with work on others.
Every operation is a rounded IEEE one and sums run in a fixed order, so cutting blocks otherwise changes no bit.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from tidewarden.frames import BoolArray, FloatArray, IntArray, TimeArray
from tidewarden.models.density_lanes import (
    END,
    FIRST,
    HALF,
    LN_2,
    NOWHERE,
    ONE,
    PSEUDO,
    QUARTER,
    Float32Array,
    deviations,
    distances,
    logarithms,
    means,
    places,
    ratios,
    slots,
)  # fmt: skip
from tidewarden.models.histograms import BINS, age, extend, place
from tidewarden.scoring.calibration import tail_learn, tail_log10_p

FEATURES = 8
BLOCK = 64  # readings; their scratch of some 30 KB stays in the first-level cache
MARKS = 1024  # slots that notice a series for the second time; two series in one slot only end a block early

AGE = 6000.0
SEASON_BINS = 48
SLOW = 0.0625  # share of the newest reading in a trailing mean: about sixteen readings
OUTLIER_LOG10_P = 3.0
OUTLIER_WEIGHT = 0.02  # of a surprising reading in what is learned, until so many in a row …
PATIENCE = 40.0  # … that it may be the new normal: over `ACCEPTANCE` more the weight rises to 1
ACCEPTANCE = 20.0
OUTSIDE = 5.0  # mean deviations (four sigma) from which a reading is outside for the level and the band
MIXED_WEIGHT = 0.5  # of a projection, against a feature's 1: equal weights dilute what one feature sees
LASTING_FROM = 4.0  # mean deviations (three sigma) of the trailing mean from which it adds to the surprise …
LASTING_WEIGHT = 0.3  # … so many nats for each further one …
LASTING_MOST = 12.0  # … of so many
RESIDUAL, TRAILING = 2, 4  # features: residual against the time of day, and its trailing mean
FARTHEST = 1e8  # scaled values beyond are taken as this: what float32 can square and multiply

# Columns of a series' statistics; COUNT is of the warm-up readings.
COUNT, CENTER, SCALE, LAST, FAST, LEVEL, R_FAST, R_LEVEL, ROUGH, WIDTH, MASS, FLOOR, RARE_RUN, SIDE_RUN, NEGATIVE = (
    range(15)
)
PER_SCALE = 15  # one number per feature follows: what it is multiplied by
STAT = PER_SCALE + FEATURES

# Rows of the geometry of a series' histograms, a histogram a column: where it starts and how wide a bin is (as
# `histograms.py` has them), the running mean of what came, and its mean deviation.
START, BIN_WIDTH, MEAN, DEVIATION = range(4)
EDGE = 4

# What a reading keeps between the stages.
Z, OFFSET, R, NEXT_FAST, NEXT_R_FAST, NEXT_ROUGH, SURPRISE, WEIGHT = range(8)
KEPT = 8


class Rows(NamedTuple):
    """The state of all series; see `Density` for the shapes."""

    stat: FloatArray
    season: Float32Array
    hist: Float32Array
    edge: Float32Array
    tail: FloatArray


class Fixed(NamedTuple):
    """What does not change while a model lives."""

    picks: IntArray  # (n_projections, 3): features that a projection mixes …
    weights: Float32Array  # … with these weights
    season_ms: TimeArray
    season_gain: FloatArray


class Scratch(NamedTuple):
    """A block's intermediate results; where nothing else is said, (BLOCK, histograms)."""

    kept: FloatArray  # (BLOCK, KEPT)
    outside: BoolArray  # (BLOCK): the reading lies outside of one of its histograms
    at: Float32Array  # where the reading falls
    start: Float32Array
    width: Float32Array
    mean: Float32Array
    deviation: Float32Array
    slot: npt.NDArray[np.int32]
    counts: Float32Array
    far: Float32Array
    ratio: Float32Array
    bits: npt.NDArray[np.int32]  # the same memory as ``ratio``
    log: Float32Array
    when: FloatArray  # (seasons): how far past the middle of its bin the time is, in bins
    bin: TimeArray  # (seasons): that bin
    other: TimeArray  # (seasons): the bin on the nearer side


@njit(cache=True, nogil=True, error_model="numpy")
def _scratch(lanes: int, seasons: int) -> Scratch:
    n = (BLOCK, lanes)
    ratio = np.empty(n, np.float32)
    return Scratch(
        np.empty((BLOCK, KEPT)), np.zeros(BLOCK, np.bool_), np.empty(n, np.float32), np.empty(n, np.float32),
        np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.int32),
        np.empty(n, np.float32), np.empty(n, np.float32), ratio, ratio.view(np.int32), np.empty(n, np.float32),
        np.empty(seasons), np.empty(seasons, np.int64), np.empty(seasons, np.int64),
    )  # fmt: skip


@njit(cache=True, nogil=True, error_model="numpy")
def _tell_time(t: int, season_ms: TimeArray, to: Scratch) -> None:
    """Where ``t`` is in each season."""
    for k in range(len(season_ms)):
        place = (t % season_ms[k]) * SEASON_BINS
        b = place // season_ms[k]
        # Means belong to the middles of their bins; between two middles the season is a line.
        past = float(place % season_ms[k]) / season_ms[k] - 0.5
        to.bin[k] = b
        to.other[k] = (b + (1 if past > 0.0 else SEASON_BINS - 1)) % SEASON_BINS
        to.when[k] = abs(past)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _features(
    stat: FloatArray,
    season: Float32Array,
    s: int,
    x: float,
    bins: TimeArray,
    other: TimeArray,
    when: FloatArray,
    at: Float32Array,
    kept: FloatArray,
    k: int,
) -> None:
    """The features of value ``x`` of series ``s``, each in its own scale, as reading ``k`` of the block."""
    z = min(max((x - stat[s, CENTER]) / stat[s, SCALE], -FARTHEST), FARTHEST)
    offset = 0.0
    known = False
    for j in range(len(bins)):
        b = np.uint64(bins[j])
        if season[s, j, b, 1] >= ONE:
            here = float(season[s, j, b, 0])
            o = np.uint64(other[j])
            if season[s, j, o, 1] >= ONE:
                here += when[j] * (float(season[s, j, o, 0]) - here)
            offset += here
            known = True
    r = z - offset if known else z - stat[s, LEVEL]
    step = z - stat[s, LAST]
    fast = stat[s, FAST] + (z - stat[s, FAST]) * SLOW
    r_fast = stat[s, R_FAST] + (r - stat[s, R_FAST]) * SLOW
    rough = stat[s, ROUGH] + (min(abs(step), 8.0) - stat[s, ROUGH]) * SLOW
    at[k, 0] = z * stat[s, PER_SCALE]
    at[k, 1] = step * stat[s, PER_SCALE + 1]
    at[k, 2] = r * stat[s, PER_SCALE + 2]
    at[k, 3] = fast * stat[s, PER_SCALE + 3]
    at[k, 4] = r_fast * stat[s, PER_SCALE + 4]
    at[k, 5] = (z - stat[s, FAST]) * stat[s, PER_SCALE + 5]
    at[k, 6] = (r - stat[s, R_FAST]) * stat[s, PER_SCALE + 6]
    at[k, 7] = math.log(rough + 0.01) * stat[s, PER_SCALE + 7]
    kept[k, Z] = z
    kept[k, OFFSET] = offset
    kept[k, R] = r
    kept[k, NEXT_FAST] = fast
    kept[k, NEXT_R_FAST] = r_fast
    kept[k, NEXT_ROUGH] = rough


@njit(cache=True, nogil=True, error_model="numpy")
def _surprise(rows: Rows, fixed: Fixed, to: Scratch, series: IntArray, block: IntArray, m: int) -> None:
    """Weighted mean of -log density over all histograms, of each reading of a block, into ``kept``."""
    lanes = rows.hist.shape[1]
    mixed = lanes - FEATURES
    stat, hist, edge, picks, weights = rows.stat, rows.hist, rows.edge, fixed.picks, fixed.weights
    start, width, mean, deviation, ratio = to.start, to.width, to.mean, to.deviation, to.ratio
    kept, at, slot, count, outside, log = to.kept, to.at, to.slot, to.counts, to.outside, to.log
    for k in range(m):
        s = series[block[k]]
        for h in range(mixed):
            v = weights[h, 0] * at[k, picks[h, 0]]
            at[k, FEATURES + h] = v + (weights[h, 1] * at[k, picks[h, 1]] + weights[h, 2] * at[k, picks[h, 2]])
        mass = np.float32(stat[s, MASS]) + np.float32(BINS) * PSEUDO
        for h in range(lanes):
            start[k, h] = edge[s, START, h]
            width[k, h] = edge[s, BIN_WIDTH, h]
            mean[k, h] = edge[s, MEAN, h]
            deviation[k, h] = edge[s, DEVIATION, h]
            ratio[k, h] = mass
    n = m * lanes
    places(to.at.ravel(), to.start.ravel(), to.width.ravel(), to.counts.ravel(), n)
    slots(to.counts.ravel(), to.slot.ravel(), n)
    for k in range(m):
        s = series[block[k]]
        kept[k, SURPRISE] = 0.0
        beyond = False
        for h in range(lanes):
            b = np.uint64(slot[k, h])
            # A triangle over three bins, or chance decides by the side of an edge.
            sides = hist[s, h, b - np.uint64(1)] + hist[s, h, b + np.uint64(1)]
            count[k, h] = HALF * hist[s, h, b] + QUARTER * sides
            beyond |= slot[k, h] == NOWHERE
        outside[k] = beyond
        if beyond:
            for h in range(lanes):
                if slot[k, h] == NOWHERE:
                    weight = 1.0 if h < FEATURES else MIXED_WEIGHT
                    kept[k, SURPRISE] += weight * LN_2 * place(edge[s, :, h], at[k, h])[1]
    distances(to.at.ravel(), to.mean.ravel(), to.deviation.ravel(), to.far.ravel(), n)
    ratios(to.counts.ravel(), to.far.ravel(), to.width.ravel(), to.ratio.ravel(), n)
    logarithms(to.bits.ravel(), to.ratio.ravel(), to.log.ravel(), n)
    for k in range(m):
        own = 0.0
        for h in range(FEATURES):
            own -= log[k, h]
        other = 0.0
        for h in range(FEATURES, lanes):
            other -= log[k, h]
        total = kept[k, SURPRISE] + own + MIXED_WEIGHT * other
        kept[k, SURPRISE] = total / (FEATURES + MIXED_WEIGHT * mixed)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _lasting(edge: Float32Array, s: int, trailing: float, residual: float) -> float:
    """Nats for a deviation that is small but lasts: the trailing mean of the residual, by its own long-run spread.

    ``residual`` is that of this reading, in widths of the band.
    """
    gap = trailing - edge[s, MEAN, TRAILING]
    beyond = abs(gap) / edge[s, DEVIATION, TRAILING] - LASTING_FROM
    if beyond <= 0.0:
        return 0.0
    # A trailing mean outlives what moved it: it counts as far as this reading, too, is on that side.
    side = residual if gap > 0.0 else -residual
    return float(LASTING_WEIGHT * min(beyond, LASTING_MOST) * min(max(side, 0.0), 1.0))


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _weight(run: float) -> float:
    """What the ``run``-th surprising reading in a row weighs; ordinary ones (0) weigh 1."""
    if run <= 0.0:
        return 1.0
    return min(max((run - PATIENCE) / ACCEPTANCE, OUTLIER_WEIGHT), 1.0)


@njit(cache=True, nogil=True, error_model="numpy")
def _learn_geometry(to: Scratch, n: int) -> None:
    """What the means and deviations of the block's histograms are after it."""
    at, mean, deviation = to.at.ravel(), to.mean.ravel(), to.deviation.ravel()
    deviations(at, mean, deviation, n)
    means(at, deviation, mean, n)


@njit(cache=True, nogil=True, error_model="numpy")
def _widen(hist: Float32Array, edge: Float32Array, at: Float32Array, slot: IntArray, weight: Any) -> None:
    """Learn a reading that lies outside of some of its histograms."""
    for h in range(len(slot)):
        if slot[h] != NOWHERE:
            hist[h, np.uint64(slot[h])] += weight
            continue
        extend(hist[h, FIRST:END], edge[:, h], at[h])
        b, _ = place(edge[:, h], at[h])
        if b >= 0:
            hist[h, FIRST + b] += weight


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _learn_season(season: Float32Array, s: int, gains: FloatArray, width: float, z: float, bins: TimeArray) -> None:
    rest = z
    for k in range(len(bins)):
        b = np.uint64(bins[k])
        n = float(season[s, k, b, 1])
        mean = float(season[s, k, b, 0])
        gap = rest - mean
        if n >= 1.0:
            limit = 3.0 * width + 1e-9
            gap = min(max(gap, -limit), limit)
        mean += gap * max(1.0 / (n + 1.0), gains[k])
        season[s, k, b, 0] = mean
        season[s, k, b, 1] = min(n + 1.0, 1e6)
        rest -= mean


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _learn_level(stat: FloatArray, s: int, z: float, offset: float) -> float:
    """The band: a level that moves by bounded steps, and the mean deviation from it; what the reading weighs."""
    departure = z - offset - stat[s, R_LEVEL]
    width = stat[s, WIDTH]
    limit = OUTSIDE * width
    side = stat[s, SIDE_RUN]
    share = 1.0
    if abs(departure) <= limit:
        if side > 0.0:
            stat[s, SIDE_RUN] = max(side - 2.0, 0.0)
        elif side < 0.0:
            stat[s, SIDE_RUN] = min(side + 2.0, 0.0)
    else:
        if departure > 0.0:
            side = min(max(side, 0.0) + 1.0, PATIENCE + ACCEPTANCE)
        else:
            side = max(min(side, 0.0) - 1.0, -PATIENCE - ACCEPTANCE)
        stat[s, SIDE_RUN] = side
        share = _weight(abs(side))
    limit = 4.0 * width
    bounded = min(max(departure, -limit), limit)
    stat[s, R_LEVEL] += share * bounded * 0.06
    stat[s, WIDTH] = max(width + share * (abs(bounded) - width) * 0.02, stat[s, FLOOR])
    stat[s, LEVEL] += share * (z - stat[s, LEVEL]) * 0.02
    return share


@njit(cache=True, nogil=True, error_model="numpy")
def _learn(
    rows: Rows, fixed: Fixed, to: Scratch, series: IntArray, learn: BoolArray, block: IntArray, m: int, timed: bool
) -> None:
    """Take the readings of the block into the state of their series."""
    stat, season, hist, edge = rows.stat, rows.season, rows.hist, rows.edge
    kept, at, slot, mean, deviation = to.kept, to.at, to.slot, to.mean, to.deviation
    lanes = hist.shape[1]
    _learn_geometry(to, m * lanes)
    for k in range(m):
        if not learn[block[k]]:
            continue
        s = series[block[k]]
        z = kept[k, Z]
        width = stat[s, WIDTH]
        weight = min(kept[k, WEIGHT], _learn_level(stat, s, z, kept[k, OFFSET]))
        if timed:
            _learn_season(season, s, fixed.season_gain, width, z, to.bin)
        if stat[s, CENTER] + stat[s, SCALE] * z < -1e-9 * (abs(stat[s, CENTER]) + stat[s, SCALE]):  # beyond rounding
            stat[s, NEGATIVE] = 1.0
        stat[s, LAST] = z
        stat[s, FAST] = kept[k, NEXT_FAST]
        stat[s, R_FAST] = kept[k, NEXT_R_FAST]
        stat[s, ROUGH] = kept[k, NEXT_ROUGH]
        if to.outside[k]:
            _widen(hist[s], edge[s], at[k], slot[k], np.float32(weight))
        else:
            for h in range(lanes):
                hist[s, h, np.uint64(slot[k, h])] += np.float32(weight)
        for h in range(lanes):
            edge[s, MEAN, h] = mean[k, h]
            edge[s, DEVIATION, h] = deviation[k, h]
        stat[s, MASS] += weight
        if stat[s, MASS] > AGE:
            stat[s, MASS] *= 0.5
            _age(hist[s], edge[s])


@njit(cache=True, nogil=True, error_model="numpy")
def _age(hist: Float32Array, edge: Float32Array) -> None:
    for h in range(len(hist)):
        age(hist[h, FIRST:END], edge[:, h])


@njit(cache=True, nogil=True, error_model="numpy")
def _fit(rows: Rows, fixed: Fixed, to: Scratch, s: int, buffer: FloatArray) -> None:
    """Scales from the warm-up readings, then all of them again through the histograms."""
    n = len(buffer)
    st = rows.stat[s]
    ordered = np.sort(buffer)
    center = np.median(ordered)
    away = np.sort(np.abs(ordered - center))
    keep = max(1, (9 * n) // 10)
    spread = max(1.4826 * np.median(away), 1.2533 * np.mean(away[:keep]))
    if spread <= 0.0:  # nine tenths are one value: the smallest step there is, else a share of the level
        spread = away[keep:].mean() * 0.1 if away[n - 1] > 0.0 else 0.0
    finest = 0.0
    for i in range(1, n):
        gap = ordered[i] - ordered[i - 1]
        if gap > 0.0 and (finest == 0.0 or gap < finest):
            finest = gap
    st[CENTER] = center
    st[SCALE] = max(spread, 0.25 * finest, 1e-3 * abs(center), 1e-9)
    st[FLOOR] = max(0.02, 0.25 * finest / st[SCALE])
    st[PER_SCALE:] = 1.0
    _start(st, (buffer[0] - center) / st[SCALE])
    seen = np.empty((FEATURES, n))
    none = to.bin[:0]  # the season is learned from the first reading after the warm-up on
    for i in range(n):
        _features(rows.stat, rows.season, s, buffer[i], none, to.other, to.when, to.at, to.kept, 0)
        seen[:, i] = to.at[0, :FEATURES]
        st[LAST] = to.kept[0, Z]
        st[FAST] = to.kept[0, NEXT_FAST]
        st[R_FAST] = to.kept[0, NEXT_R_FAST]
        st[ROUGH] = to.kept[0, NEXT_ROUGH]
        st[LEVEL] += (to.kept[0, Z] - st[LEVEL]) * 0.02
    for j in range(FEATURES):
        ranked = np.sort(np.abs(seen[j] - np.median(seen[j])))
        st[PER_SCALE + j] = 1.0 / max(1.2533 * ranked[:keep].mean(), 0.05)
    edge = rows.edge[s]
    edge[START] = -6.0
    edge[BIN_WIDTH] = 12.0 / BINS
    edge[MEAN] = 0.0
    edge[DEVIATION] = 1.0
    _start(st, (buffer[0] - center) / st[SCALE])
    series, block, learn = np.full(1, s, np.int32), np.zeros(1, np.int32), np.ones(1, np.bool_)
    for i in range(n):
        _features(rows.stat, rows.season, s, buffer[i], none, to.other, to.when, to.at, to.kept, 0)
        _surprise(rows, fixed, to, series, block, 1)
        to.kept[0, WEIGHT] = 1.0
        _learn(rows, fixed, to, series, learn, block, 1, False)


@njit(cache=True, nogil=True, error_model="numpy")
def _start(st: FloatArray, z: float) -> None:
    """What moves along with a series, as if ``z`` had been the reading before the first."""
    st[LAST] = z
    st[FAST] = st[R_FAST] = st[LEVEL] = st[R_LEVEL] = st[ROUGH] = 0.0
    st[WIDTH] = 1.0


@njit(cache=True, nogil=True, error_model="numpy")
def _look(series: IntArray, value: FloatArray, rows: Rows, to: Scratch, block: IntArray, m: int) -> None:
    stat, season, at, kept = rows.stat, rows.season, to.at, to.kept
    bins, other, when = to.bin, to.other, to.when
    for k in range(m):
        _features(stat, season, series[block[k]], value[block[k]], bins, other, when, at, kept, k)


@njit(cache=True, nogil=True, error_model="numpy")
def _say(
    series: IntArray,
    learn: BoolArray,
    surprise: FloatArray,
    expected: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
    rows: Rows,
    to: Scratch,
    block: IntArray,
    m: int,
    as_log10_p: bool,
) -> None:
    """Surprise and band of each reading of the block, and how much of it is to be learned."""
    stat, kept, tail = rows.stat, to.kept, rows.tail
    for k in range(m):
        i = block[k]
        s = series[i]
        width = stat[s, WIDTH]
        here = kept[k, SURPRISE] + _lasting(rows.edge, s, float(to.at[k, TRAILING]), kept[k, R] / width)
        rare = tail_log10_p(tail, s, here)
        surprise[i] = rare if as_log10_p else here
        middle = kept[k, OFFSET] + stat[s, R_LEVEL]
        # 2.576 sigma on each side hold 99 % of a normal; sigma is 1.2533 mean deviations.
        half = 3.23 * width
        # What has never been negative is not expected to become so.
        least = -np.inf if stat[s, NEGATIVE] > 0.0 else 0.0
        expected[i] = max(stat[s, CENTER] + stat[s, SCALE] * middle, least)
        lower[i] = max(stat[s, CENTER] + stat[s, SCALE] * (middle - half), least)
        upper[i] = max(stat[s, CENTER] + stat[s, SCALE] * (middle + half), least)
        if not learn[i]:
            continue
        tail_learn(tail, s, here)
        kept[k, WEIGHT] = 1.0
        if rare > OUTLIER_LOG10_P:
            stat[s, RARE_RUN] = min(stat[s, RARE_RUN] + 1.0, PATIENCE + ACCEPTANCE)
            kept[k, WEIGHT] = _weight(stat[s, RARE_RUN])
        elif stat[s, RARE_RUN] > 0.0:
            stat[s, RARE_RUN] = max(stat[s, RARE_RUN] - 2.0, 0.0)


@njit(cache=True, nogil=True, error_model="numpy")
def observe(
    series: IntArray,
    timestamp: TimeArray,
    value: FloatArray,
    learn: BoolArray,
    surprise: FloatArray,
    expected: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
    buffers: FloatArray,
    rows: Rows,
    fixed: Fixed,
    as_log10_p: bool,
) -> None:
    """Judge readings (n,) in order, then learn from each where ``learn`` is set."""
    to = _scratch(rows.hist.shape[1], len(fixed.season_ms))
    block = np.empty(BLOCK, np.int32)
    marks = np.full(MARKS, -1, np.int32)
    n_fit = buffers.shape[1]
    first = 0
    number = 0
    while first < len(series):
        m = 0
        i = first
        t = timestamp[first]
        while i < len(series) and m < BLOCK and timestamp[i] == t:
            s = series[i]
            if marks[s % MARKS] == number:
                break
            if np.isfinite(value[i]):
                marks[s % MARKS] = number
                count = rows.stat[s, COUNT]
                if count >= n_fit:
                    block[m] = i
                    m += 1
                elif learn[i]:
                    buffers[s, int(count)] = value[i]
                    rows.stat[s, COUNT] = count + 1.0
                    if count + 1.0 == n_fit:
                        _fit(rows, fixed, to, s, buffers[s])
            i += 1
        first = i
        number += 1
        if m == 0:
            continue
        _tell_time(t, fixed.season_ms, to)
        _look(series, value, rows, to, block, m)
        _surprise(rows, fixed, to, series, block, m)
        _say(series, learn, surprise, expected, lower, upper, rows, to, block, m, as_log10_p)
        _learn(rows, fixed, to, series, learn, block, m, True)
