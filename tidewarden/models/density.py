"""`density`: how thinly populated is the place where this reading falls?

Eight features of a series (its scaled value, step, residual against the time of day, trailing means,
distance from them, roughness) and sparse random projections of them (LODA: Pevny 2016) each feed one
extendable histogram; surprise is the mean of -log density. Constant time and memory per reading.

Where it fails: a slow drift that stays inside the range already seen, and patterns longer than some
sixteen readings; `subspace` sees those. Histograms halve their counts every `AGE` readings, so what
happened `AGE` readings ago weighs half, and a lasting level shift is normal after some 5 % of `AGE`.

Anomalies are kept out of what is learned: a reading that is rare, or `OUTSIDE` mean deviations from
the level, weighs `OUTLIER_WEIGHT` in histograms, level and band, until `PATIENCE` such readings came in
a row; over `ACCEPTANCE` more its weight rises to 1. So an incident leaves the band where it was, and a
lasting change is the new normal after 60 readings. When counts age, a widened histogram closes in again.

A shift of a few deviations that lasts hardly shows in a mean over all features. So the trailing mean
of the residual, judged by its own long-run spread, adds to the surprise where it is beyond three sigma
and the reading is on the same side.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numba import njit

from tidewarden.frames import BoolArray, FloatArray, IntArray, TimeArray
from tidewarden.models.contract import Judgement
from tidewarden.models.histograms import BINS, age, extend, place
from tidewarden.models.state import ArrayModel, Column, SeriesState
from tidewarden.scoring.calibration import ROW, tail_learn, tail_log10_p

FEATURES = 8
AGE = 6000.0
FIT_MOST = 128
SEASON_BINS = 48
SLOW = 0.0625  # share of the newest reading in a trailing mean: about sixteen readings
SEASON_MEMORY = 10.0  # seasons after which a bin's mean has mostly forgotten
OUTLIER_LOG10_P = 3.0
OUTLIER_WEIGHT = 0.02  # of a surprising reading in what is learned, until so many in a row …
PATIENCE = 40.0  # … that it may be the new normal: over `ACCEPTANCE` more the weight rises to 1
ACCEPTANCE = 20.0
OUTSIDE = 5.0  # mean deviations (four sigma) from which a reading is outside for the level and the band
LN_2 = math.log(2.0)
MIXED_WEIGHT = 0.5  # of a projection, against a feature's 1: equal weights dilute what one feature sees
TAIL_DEVIATIONS = 2.5
DEVIATION_GAIN = 0.005
RESIDUAL, TRAILING = 2, 4  # features: residual against the time of day, and its trailing mean
LASTING_FROM = 4.0  # mean deviations (three sigma) of the trailing mean from which it adds to the surprise …
LASTING_WEIGHT = 0.3  # … so many nats for each further one …
LASTING_MOST = 12.0  # … of so many
PSEUDO = 0.01  # counts that a bin starts with

# Columns of a series' statistics.
COUNT, CENTER, SCALE, LAST, FAST, LEVEL, R_FAST, R_LEVEL, ROUGH, WIDTH, MASS, FLOOR, RARE_RUN, SIDE_RUN, NEGATIVE = (
    range(15)
)
SCALES = 15  # one scale per feature follows
STAT = SCALES + FEATURES


@njit(cache=True, nogil=True, error_model="numpy")
def _features(st: FloatArray, season: FloatArray, season_ms: TimeArray, t: int, x: float, out: FloatArray) -> float:
    """Features of value ``x`` at ``t`` (-1: time unknown), unscaled, and the seasonal offset."""
    z = (x - st[CENTER]) / st[SCALE]
    offset = 0.0
    known = False
    if t >= 0:
        for k in range(len(season_ms)):
            place = (t % season_ms[k]) * SEASON_BINS
            b = int(place // season_ms[k])
            if season[k, b, 1] >= 1.0:
                here = season[k, b, 0]
                # Means belong to the middles of their bins; between two middles the season is a line.
                past = float(place % season_ms[k]) / season_ms[k] - 0.5
                other = (b + (1 if past > 0.0 else SEASON_BINS - 1)) % SEASON_BINS
                if season[k, other, 1] >= 1.0:
                    here += abs(past) * (season[k, other, 0] - here)
                offset += here
                known = True
    r = z - offset if known else z - st[LEVEL]
    step = z - st[LAST]
    out[0] = z
    out[1] = step
    out[2] = r
    out[3] = st[FAST] + (z - st[FAST]) * SLOW
    out[4] = st[R_FAST] + (r - st[R_FAST]) * SLOW
    out[5] = z - st[FAST]
    out[6] = r - st[R_FAST]
    rough = st[ROUGH] + (min(abs(step), 8.0) - st[ROUGH]) * SLOW
    out[7] = math.log(rough + 0.01)
    return offset


@njit(cache=True, nogil=True, error_model="numpy")
def _surprise(
    st: FloatArray,
    hist: FloatArray,
    edge: FloatArray,
    picks: IntArray,
    weights: FloatArray,
    f: FloatArray,
    bins: TimeArray,
    at: FloatArray,
    far: FloatArray,
) -> float:
    """Weighted mean of -log density over all histograms; leaves bins in ``bins``, places in ``at``; ``far`` is scratch.

    One loop for each kind of work, plain arithmetic apart from looking up: twice as fast as one loop for all.
    """
    for h in range(FEATURES):
        at[h] = f[h]
    for h in range(FEATURES, len(hist)):
        v = weights[h, 0] * f[picks[h, 0]]
        at[h] = v + (weights[h, 1] * f[picks[h, 1]] + weights[h, 2] * f[picks[h, 2]])
    for h in range(len(hist)):
        v = at[h]
        b = (v - edge[h, 0]) / edge[h, 1]
        bins[h] = int(b) if 0.0 <= b < BINS else -1
        # Where nothing was ever seen, density falls with the fourth power of the distance: an empty
        # bin next door is one thing, one ten deviations away another.
        u = (v - edge[h, 2]) / (TAIL_DEVIATIONS * edge[h, 3])
        far[h] = 1.0 + min(u * u * u * u, 1e30)
    mass = st[MASS] + BINS * PSEUDO
    own = 0.0
    total = 0.0
    # One logarithm and one division for several densities: both products stay far within 1e±308.
    above = 1.0
    below = 1.0
    for h in range(len(hist)):
        b = bins[h]
        c = 0.0
        # A triangle over three bins, or chance decides by the side of an edge.
        if 0 < b < BINS - 1:
            c = 0.5 * hist[h, b] + 0.25 * hist[h, b - 1] + 0.25 * hist[h, b + 1]
        elif b == 0:
            c = 0.5 * hist[h, 0] + 0.25 * hist[h, 1]
        elif b > 0:
            c = 0.5 * hist[h, b] + 0.25 * hist[h, b - 1]
        else:
            total += LN_2 * place(edge[h], at[h])[1]
        above *= c * far[h] + PSEUDO
        below *= mass * edge[h, 1] * far[h]
        if h == FEATURES - 1 or not (1e-200 < below < 1e200 and 1e-200 < above < 1e200):
            total += math.log(below / above)
            above = 1.0
            below = 1.0
            if h == FEATURES - 1:
                own = total
                total = 0.0
    mixed = total + math.log(below / above)
    return (own + MIXED_WEIGHT * mixed) / (FEATURES + MIXED_WEIGHT * (len(hist) - FEATURES))


@njit(cache=True, nogil=True, error_model="numpy")
def _lasting(st: FloatArray, edge: FloatArray, f: FloatArray) -> float:
    """Nats for a deviation that is small but lasts: the trailing mean of the residual, by its own long-run spread."""
    gap = f[TRAILING] - edge[TRAILING, 2]
    beyond = abs(gap) / edge[TRAILING, 3] - LASTING_FROM
    if beyond <= 0.0:
        return 0.0
    # A trailing mean outlives what moved it: it counts as far as this reading, too, is on that side.
    residual = f[RESIDUAL] * st[SCALES + RESIDUAL] * math.copysign(1.0, gap) / st[WIDTH]
    return float(LASTING_WEIGHT * min(beyond, LASTING_MOST) * min(max(residual, 0.0), 1.0))


@njit(cache=True, nogil=True, error_model="numpy")
def _weight(run: float) -> float:
    """What the ``run``-th surprising reading in a row weighs; ordinary ones (0) weigh 1."""
    if run <= 0.0:
        return 1.0
    return min(max((run - PATIENCE) / ACCEPTANCE, OUTLIER_WEIGHT), 1.0)


@njit(cache=True, nogil=True, error_model="numpy")
def _learn(
    st: FloatArray,
    season: FloatArray,
    season_ms: TimeArray,
    hist: FloatArray,
    edge: FloatArray,
    f: FloatArray,
    bins: TimeArray,
    at: FloatArray,
    t: int,
    z: float,
    offset: float,
    season_gain: FloatArray,
    weight: float,
) -> None:
    r = f[RESIDUAL] * st[SCALES + RESIDUAL]
    departure = z - offset - st[R_LEVEL]
    limit = OUTSIDE * st[WIDTH]
    side = st[SIDE_RUN]
    if departure > limit:
        side = max(side, 0.0) + 1.0
    elif departure < -limit:
        side = min(side, 0.0) - 1.0
    else:
        side = math.copysign(max(abs(side) - 2.0, 0.0), side)
    st[SIDE_RUN] = min(max(side, -PATIENCE - ACCEPTANCE), PATIENCE + ACCEPTANCE)
    share = _weight(abs(side)) if abs(departure) > limit else 1.0
    weight = min(weight, share)
    if st[CENTER] + st[SCALE] * z < -1e-9 * (abs(st[CENTER]) + st[SCALE]):  # beyond the rounding of a zero
        st[NEGATIVE] = 1.0
    for h in range(len(hist)):
        b = bins[h]
        if b < 0:
            extend(hist[h], edge[h], at[h])
            b, _ = place(edge[h], at[h])
        if b >= 0:
            hist[h, b] += weight
    for h in range(len(hist)):
        deviation = edge[h, 3]
        gap = min(max(at[h] - edge[h, 2], -4.0 * deviation), 4.0 * deviation)
        edge[h, 2] += DEVIATION_GAIN * gap
        edge[h, 3] = max(deviation + DEVIATION_GAIN * (abs(gap) - deviation), 0.02)
    st[MASS] += weight
    if st[MASS] > AGE:
        st[MASS] *= 0.5
        for h in range(len(hist)):
            age(hist[h], edge[h])
    if t >= 0:
        rest = z
        for k in range(len(season_ms)):
            b = int((t % season_ms[k]) * SEASON_BINS // season_ms[k])
            n = season[k, b, 1]
            mean = season[k, b, 0]
            gap = rest - mean
            if n >= 1.0:
                limit = 3.0 * st[WIDTH] + 1e-9
                gap = min(max(gap, -limit), limit)
            season[k, b, 0] = mean + gap * max(1.0 / (n + 1.0), season_gain[k])
            season[k, b, 1] = min(n + 1.0, 1e6)
            rest -= season[k, b, 0]
    st[LAST] = z
    st[FAST] += (z - st[FAST]) * SLOW
    st[R_FAST] += (r - st[R_FAST]) * SLOW
    st[ROUGH] += (min(abs(f[1] * st[SCALES + 1]), 8.0) - st[ROUGH]) * SLOW
    # The band: a level that moves by bounded steps, and the mean deviation from it.
    limit = 4.0 * st[WIDTH]
    bounded = min(max(departure, -limit), limit)
    st[R_LEVEL] += share * bounded * 0.06
    st[WIDTH] = max(st[WIDTH] + share * (abs(bounded) - st[WIDTH]) * 0.02, st[FLOOR])
    st[LEVEL] += share * (z - st[LEVEL]) * 0.02


@njit(cache=True, nogil=True, error_model="numpy")
def _fit(
    st: FloatArray,
    season: FloatArray,
    season_ms: TimeArray,
    hist: FloatArray,
    edge: FloatArray,
    picks: IntArray,
    weights: FloatArray,
    buffer: FloatArray,
    season_gain: FloatArray,
) -> None:
    """Scales from the warm-up readings, then all of them again through the histograms."""
    n = len(buffer)
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
    f = np.empty(FEATURES)
    seen = np.empty((FEATURES, n))
    for phase in range(2):
        z0 = (buffer[0] - center) / st[SCALE]
        st[LAST] = z0
        st[FAST] = 0.0
        st[R_FAST] = 0.0
        st[LEVEL] = 0.0
        st[R_LEVEL] = 0.0
        st[ROUGH] = 0.0
        st[WIDTH] = 1.0
        bins = np.empty(len(hist), np.int64)
        at = np.empty(len(hist))
        far = np.empty(len(hist))
        for i in range(n):
            offset = _features(st, season, season_ms, -1, buffer[i], f)
            z = f[0]
            if phase == 0:
                for j in range(FEATURES):
                    seen[j, i] = f[j]
                r = f[2]
                st[LAST] = z
                st[FAST] += (z - st[FAST]) * SLOW
                st[R_FAST] += (r - st[R_FAST]) * SLOW
                st[ROUGH] += (min(abs(f[1]), 8.0) - st[ROUGH]) * SLOW
                st[LEVEL] += (z - st[LEVEL]) * 0.02
            else:
                for j in range(FEATURES):
                    f[j] /= st[SCALES + j]
                _surprise(st, hist, edge, picks, weights, f, bins, at, far)
                _learn(st, season, season_ms, hist, edge, f, bins, at, -1, z, offset, season_gain, 1.0)
        if phase == 0:
            for j in range(FEATURES):
                ranked = np.sort(np.abs(seen[j] - np.median(seen[j])))
                st[SCALES + j] = max(1.2533 * ranked[:keep].mean(), 0.05)
            for h in range(len(hist)):
                edge[h, 0] = -6.0
                edge[h, 1] = 12.0 / BINS
                edge[h, 2] = 0.0
                edge[h, 3] = 1.0


@njit(cache=True, nogil=True, error_model="numpy")
def _observe(
    series: IntArray,
    timestamp: TimeArray,
    value: FloatArray,
    learn: BoolArray,
    surprise: FloatArray,
    expected: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
    buffers: FloatArray,
    stats: FloatArray,
    seasons: FloatArray,
    hists: FloatArray,
    edges: FloatArray,
    tails: FloatArray,
    picks: IntArray,
    weights: FloatArray,
    season_ms: TimeArray,
    season_gain: FloatArray,
    as_log10_p: bool,
) -> None:
    f = np.empty(FEATURES)
    bins = np.empty(hists.shape[1], np.int64)
    at = np.empty(hists.shape[1])
    far = np.empty(hists.shape[1])
    n_fit = buffers.shape[1]
    for i in range(len(series)):
        x = value[i]
        if not np.isfinite(x):
            continue
        s = series[i]
        st = stats[s]
        count = st[COUNT]
        if count < n_fit:
            if learn[i]:
                buffers[s, int(count)] = x
                st[COUNT] = count + 1.0
                if count + 1.0 == n_fit:
                    _fit(st, seasons[s], season_ms, hists[s], edges[s], picks, weights, buffers[s], season_gain)
            continue
        t = timestamp[i]
        offset = _features(st, seasons[s], season_ms, t, x, f)
        z = f[0]
        for j in range(FEATURES):
            f[j] /= st[SCALES + j]
        here = _surprise(st, hists[s], edges[s], picks, weights, f, bins, at, far)
        here += _lasting(st, edges[s], f)
        rare = tail_log10_p(tails[s], here)
        surprise[i] = rare if as_log10_p else here
        middle = offset + st[R_LEVEL]
        # 2.576 sigma on each side hold 99 % of a normal; sigma is 1.2533 mean deviations.
        half = 3.23 * st[WIDTH]
        # What has never been negative is not expected to become so.
        least = -np.inf if st[NEGATIVE] > 0.0 else 0.0
        expected[i] = max(st[CENTER] + st[SCALE] * middle, least)
        lower[i] = max(st[CENTER] + st[SCALE] * (middle - half), least)
        upper[i] = max(st[CENTER] + st[SCALE] * (middle + half), least)
        if learn[i]:
            tail_learn(tails[s], here)
            if rare > OUTLIER_LOG10_P:
                st[RARE_RUN] = min(st[RARE_RUN] + 1.0, PATIENCE + ACCEPTANCE)
                weight = _weight(st[RARE_RUN])
            else:
                st[RARE_RUN] = max(st[RARE_RUN] - 2.0, 0.0)
                weight = 1.0
            _learn(
                st,
                seasons[s],
                season_ms,
                hists[s],
                edges[s],
                f,
                bins,
                at,
                t,
                z,
                offset,
                season_gain,
                weight,
            )
            st[COUNT] = count + 1.0


def projections(seed: int, n: int) -> tuple[IntArray, FloatArray]:
    """Features and weights of ``n`` histograms, each (n, 3): one per feature, then sparse random mixtures."""
    rng = np.random.default_rng(seed)
    picks = np.zeros((n, 3), np.int32)
    weights = np.zeros((n, 3))
    for h in range(n):
        if h < FEATURES:
            picks[h] = h
            weights[h, 0] = 1.0
        else:
            picks[h] = rng.choice(FEATURES, 3, replace=False)
            draw = rng.standard_normal(3)
            weights[h] = draw / np.sqrt((draw**2).sum())
    return picks, weights


class Density(ArrayModel):
    """Density of features and of sparse random projections of them."""

    kind: ClassVar[str] = "density"
    version: ClassVar[int] = 2

    def __init__(
        self,
        warmup: int,
        seasonality_ms: tuple[int, ...],
        interval_ms: int,
        seed: int = 0,
        n_projections: int = 4,
        *,
        alone: bool = False,
    ) -> None:
        # It keeps the tail of its own surprise anyway, to know what not to learn. So where nothing is added to the
        # surprise, calibrating it once more would only say the same again.
        self.calibrated = alone
        self._picks, self._weights = projections(seed, FEATURES + n_projections)
        seasons = [season for season in seasonality_ms if season >= 4 * interval_ms]
        self._season_ms = np.array(seasons, np.int64)
        per_visit = np.maximum(1.0, self._season_ms / SEASON_BINS / interval_ms)
        self._season_gain = 1.0 / (SEASON_MEMORY * per_visit)
        n = len(self._picks)
        state = SeriesState(
            buffer=Column((min(FIT_MOST, max(8, warmup // 2)),), np.float64),
            stat=Column((STAT,), np.float64),
            season=Column((len(seasons), SEASON_BINS, 2), np.float32),
            hist=Column((n, BINS), np.float32),
            edge=Column((n, 4), np.float64),
            tail=Column((ROW,), np.float64),
        )
        super().__init__(warmup, state)

    def observe(
        self, series: IntArray, timestamp: TimeArray, value: FloatArray, learn: BoolArray, out: Judgement
    ) -> None:
        """Score each reading in order, then learn from it where ``learn`` is set."""
        state = self._state
        _observe(
            series, timestamp, value, learn, out.surprise, out.expected, out.lower, out.upper,
            state["buffer"], state["stat"], state["season"], state["hist"], state["edge"], state["tail"],
            self._picks, self._weights, self._season_ms, self._season_gain, self.calibrated,
        )  # fmt: skip
