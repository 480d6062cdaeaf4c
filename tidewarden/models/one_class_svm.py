"""`one_class_svm`: on which side of a boundary around nearly all that was seen?

The one-class support vector machine (Schoelkopf 2001) with a Gaussian kernel over windows of the last
readings, learned online: random Fourier features stand for the kernel (Rahimi & Recht 2007), and each
reading is one step of stochastic gradient descent on its objective. Some `nu` of the readings stay
outside. Surprise is the margin by which the boundary is missed, in margins. An online machine, because the exact
one must be solved again over all that is remembered, some ten thousand times slower (measured: 4 to 46
thousand readings/s with a refit every 500), and then again knows nothing of the last 500.
Where it fails: beyond the kernel's width all is equally far, so the distance of the newest reading beyond
`BOUND` spreads adds to the surprise; and the features are a sketch: near the boundary it errs by some
1 / sqrt(features).
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numba import njit

from tidewarden.frames import BoolArray, FloatArray, IntArray
from tidewarden.models.band import BAND_ROW, COUNT, band_learn, band_of
from tidewarden.models.lags import BOUND, push, vector
from tidewarden.models.state import Column, KernelModel, SeriesState

GAIN = 0.002  # least step: a memory of some 500 readings
FEWEST = 32  # steps from which one is judged
SMALLEST = 0.02  # least margin to divide by

N, RHO = range(2)
# cos(2πu) = Σ COSINE[k] · u^(2k), to 3e-7 for |u| ≤ 1/2.
COSINE = tuple((-1.0) ** k * (2.0 * math.pi) ** (2 * k) / math.factorial(2 * k) for k in range(10))


@njit(cache=True, nogil=True)
def sketch(turns: FloatArray, phases: FloatArray, w: FloatArray, out: FloatArray) -> None:
    """Random Fourier features of vector ``w``: inner products of two sketches are near the kernel of the two vectors.

    The cosine is a polynomial, so that the loop runs on whole vectors of features at once.
    """
    d = len(phases)
    for k in range(d):
        out[k] = phases[k]
    for j in range(len(w)):
        for k in range(d):
            out[k] += turns[j, k] * w[j]
    norm = -math.sqrt(2.0 / d)
    for k in range(d):
        u = out[k] - math.floor(out[k]) - 0.5
        v = u * u
        c = COSINE[8] + v * COSINE[9]
        c = COSINE[6] + v * (COSINE[7] + v * c)
        c = COSINE[4] + v * (COSINE[5] + v * c)
        c = COSINE[2] + v * (COSINE[3] + v * c)
        out[k] = norm * (COSINE[0] + v * (COSINE[1] + v * c))


@njit(cache=True, nogil=True)
def _inner(a: FloatArray, b: FloatArray) -> float:
    """Inner product in four partial sums, for speed."""
    s0 = s1 = s2 = s3 = 0.0
    for k in range(0, len(a), 4):
        s0 += a[k] * b[k]
        s1 += a[k + 1] * b[k + 1]
        s2 += a[k + 2] * b[k + 2]
        s3 += a[k + 3] * b[k + 3]
    return (s0 + s1) + (s2 + s3)


@njit(cache=True, nogil=True)
def _observe(
    series: IntArray,
    value: FloatArray,
    learn: BoolArray,
    surprise: FloatArray,
    expected: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
    bands: FloatArray,
    stats: FloatArray,
    lags: FloatArray,
    weights: FloatArray,
    turns: FloatArray,
    phases: FloatArray,
    nu: float,
) -> None:
    window, d = turns.shape
    w = np.empty(window)
    phi = np.empty(d)
    for i in range(len(series)):
        x = value[i]
        if not np.isfinite(x):
            continue
        s = series[i]
        band = bands[s]
        if band[COUNT] >= max(window, 8):
            st = stats[s]
            normal = weights[s]
            vector(lags[s], band, x, w)
            beyond = math.log1p(max(abs(w[0]) - BOUND, 0.0))
            w[0] = min(max(w[0], -BOUND), BOUND)
            sketch(turns, phases, w, phi)
            along = _inner(normal, phi)
            if st[N] >= FEWEST:
                surprise[i] = (st[RHO] - along) / max(st[RHO], SMALLEST) + beyond
                expected[i], lower[i], upper[i] = band_of(band)
            if learn[i]:
                st[N] += 1.0
                step = max(1.0 / (st[N] + 1.0), GAIN)
                share = step / nu if along < st[RHO] else 0.0
                for k in range(d):
                    normal[k] += share * phi[k] - step * normal[k]
                st[RHO] += step - share
        if learn[i]:
            push(lags[s], x)
            band_learn(band, x)


def frequencies(window: int, gamma: float, n_features: int, seed: int) -> tuple[FloatArray, FloatArray]:
    """Random frequencies (window, features) and phases, in turns, whose features sketch ``exp(-gamma |a - b|²)``."""
    rng = np.random.default_rng(seed)
    turns = rng.standard_normal((window, n_features)) * (math.sqrt(2.0 * gamma) / (2.0 * math.pi))
    return turns, rng.random(n_features)


class OneClassSvm(KernelModel):
    """Online one-class support vector machine on random Fourier features."""

    kind: ClassVar[str] = "one_class_svm"
    version: ClassVar[int] = 1

    def __init__(self, nu: float, gamma: float | None, window: int, features: int, seed: int, warmup: int) -> None:
        cosines = frequencies(window, 1.0 / window if gamma is None else gamma, features, seed)
        state = SeriesState(
            band=Column((BAND_ROW,), np.float64),
            stat=Column((2,), np.float64),
            lag=Column((window,), np.float64),
            weight=Column((features,), np.float64),
        )
        super().__init__(max(warmup, window + FEWEST), state, _observe, *cosines, nu)
