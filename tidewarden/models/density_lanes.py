"""The plain arithmetic of `density`, over flat float32 arrays.

Each is a loop that stores into one array: with more, the compiler would have to prove that they do not overlap, gives
up, and makes no vector instructions.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

from tidewarden.frames import IntArray
from tidewarden.models.histograms import BINS

Float32Array = npt.NDArray[np.float32]

ONE, QUARTER, HALF = np.float32(1.0), np.float32(0.25), np.float32(0.5)
LN_2 = math.log(2.0)
PSEUDO = np.float32(0.01)  # counts that a bin starts with
TAIL_DEVIATIONS = np.float32(2.5)
FAR_MOST = np.float32(1e24)
GAIN, GAIN_BOUND = np.float32(0.005), np.float32(4.0)  # of the running mean and deviation; in deviations
NARROWEST = np.float32(0.02)

# A histogram's row: an empty slot, the bins, and three empty ones, so that a bin's neighbours need no look at the ends.
SLOTS = BINS + 4
FIRST, END = 1, BINS + 1
NOWHERE = np.int32(BINS + 2)  # the slot of what lies outside: it and its neighbours are empty


@njit(cache=True, nogil=True, error_model="numpy")
def places(at: Float32Array, start: Float32Array, width: Float32Array, places: Float32Array, n: int) -> None:
    """Where values fall, in bins from the start."""
    for i in range(n):
        places[i] = (at[i] - start[i]) / width[i]


@njit(cache=True, nogil=True, error_model="numpy")
def slots(places: Float32Array, slot: IntArray, n: int) -> None:
    """The slots of those places; what lies outside is nowhere."""
    for i in range(n):
        b = places[i]
        slot[i] = np.int32(b) + np.int32(1) if (b >= np.float32(0.0)) & (b < np.float32(BINS)) else NOWHERE


@njit(cache=True, nogil=True, error_model="numpy")
def distances(at: Float32Array, mean: Float32Array, deviation: Float32Array, far: Float32Array, n: int) -> None:
    """Where nothing was ever seen, density falls with the fourth power of the distance.

    An empty bin next door is one thing, one ten deviations away another.
    """
    for i in range(n):
        u = (at[i] - mean[i]) / (TAIL_DEVIATIONS * deviation[i])
        u = u * u
        far[i] = ONE + min(u * u, FAR_MOST)


@njit(cache=True, nogil=True, error_model="numpy")
def ratios(count: Float32Array, far: Float32Array, width: Float32Array, ratio: Float32Array, n: int) -> None:
    """Densities, but for the mass, which is in ``ratio`` beforehand."""
    for i in range(n):
        ratio[i] = (count[i] * far[i] + PSEUDO) / (ratio[i] * width[i] * far[i])


@njit(cache=True, nogil=True, error_model="numpy")
def logarithms(bits: IntArray, ratio: Float32Array, log: Float32Array, n: int) -> None:
    """Natural logarithms of positive float32 to a few of their last bits, in what becomes vector instructions.

    Exponent and mantissa in [√½, √2), and the polynomial of Cephes' logf (Moshier 1992). ``bits`` is the memory of
    ``ratio``, as integers; both are spent.
    """
    for i in range(n):
        e = (bits[i] - np.int32(0x3F3504F3)) >> np.int32(23)
        log[i] = np.float32(e)
        bits[i] -= e << np.int32(23)
    for i in range(n):
        f = ratio[i] - ONE
        p = np.float32(7.0376836292e-2)
        p = p * f + np.float32(-1.1514610310e-1)
        p = p * f + np.float32(1.1676998740e-1)
        p = p * f + np.float32(-1.2420140846e-1)
        p = p * f + np.float32(1.4249322787e-1)
        p = p * f + np.float32(-1.6668057665e-1)
        p = p * f + np.float32(2.0000714765e-1)
        p = p * f + np.float32(-2.4999993993e-1)
        p = p * f + np.float32(3.3333331174e-1)
        square = f * f
        log[i] = f + (p * f * square - HALF * square) + log[i] * np.float32(LN_2)


@njit(cache=True, nogil=True, error_model="numpy")
def means(at: Float32Array, deviation: Float32Array, mean: Float32Array, n: int) -> None:
    """Running means take a step towards values, of bounded size."""
    for i in range(n):
        bound = GAIN_BOUND * deviation[i]
        mean[i] += GAIN * min(max(at[i] - mean[i], -bound), bound)


@njit(cache=True, nogil=True, error_model="numpy")
def deviations(at: Float32Array, mean: Float32Array, deviation: Float32Array, n: int) -> None:
    """Running mean deviations take a step towards the bounded distance from the means before their step."""
    for i in range(n):
        gap = min(abs(at[i] - mean[i]), GAIN_BOUND * deviation[i])
        deviation[i] = max(deviation[i] + GAIN * (gap - deviation[i]), NARROWEST)
