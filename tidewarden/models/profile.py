"""What a time of day (or week) adds: one offset for each step of each season, learned from what is left unexplained.

Several seasons add up. A step's first visits weigh alike, later ones fade over seasons, however many readings
a step holds. Compiled into the kernels of other files: after an edit, `make kernels`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit

from tidewarden.frames import FloatArray, IntArray, TimeArray

OFFSET, VISITS = range(2)
LEAST_READINGS = 4  # of a season: a shorter one is not a season at this spacing
MOST_WARMUP = 100_000


class Seasons(NamedTuple):
    """Seasons as kernels take them: arrays of shape (n_seasons,)."""

    ms: TimeArray
    bins: IntArray
    gain: FloatArray  # share of a residual that an old step takes


def seasons(seasonality_ms: Sequence[int], bins: int, interval_ms: int, seasons_gain: float) -> Seasons:
    """Seasons cut into at most ``bins`` steps, none of them shorter than a reading.

    Args:
        seasonality_ms: lengths; those of fewer than `LEAST_READINGS` readings are left out.
        bins: steps of a season.
        interval_ms: expected spacing of readings.
        seasons_gain: share of an old step that one more season replaces.
    """
    ms = np.array([season for season in seasonality_ms if season >= LEAST_READINGS * interval_ms], np.int64)
    steps = np.minimum(bins, ms // interval_ms).astype(np.int64)
    readings_a_step = np.maximum(1.0, ms / interval_ms / np.maximum(steps, 1))
    return Seasons(ms, steps, 1.0 - (1.0 - seasons_gain) ** (1.0 / readings_a_step))


def two_seasons(season_ms: TimeArray, interval_ms: int, otherwise: int) -> int:
    """Readings that the first season has in two rounds: the usual warm-up; ``otherwise`` without a season."""
    return int(min(2 * season_ms[0] // interval_ms, MOST_WARMUP)) if len(season_ms) else otherwise


@njit(cache=True, nogil=True)
def steps_at(season_ms: TimeArray, bins: IntArray, timestamp: int, at: IntArray) -> None:
    """Which step of each season a time falls into, into ``at``: once a tick, whole divisions being slow."""
    for k in range(len(season_ms)):
        at[k] = (timestamp % season_ms[k]) * bins[k] // season_ms[k]


@njit(cache=True, nogil=True)
def offset_of(profile: FloatArray, at: IntArray) -> tuple[float, bool]:
    """What these steps add to the level, and whether all of them have been visited before."""
    offset = 0.0
    known = True
    for k in range(len(at)):
        offset += profile[k, at[k], OFFSET]
        known = known and profile[k, at[k], VISITS] >= 1.0
    return offset, known


@njit(cache=True, nogil=True)
def offset_after(profile: FloatArray, at: IntArray, season_ms: TimeArray, lived_ms: int) -> float:
    """What these steps add, of those seasons alone that have gone round in ``lived_ms``."""
    offset = 0.0
    for k in range(len(at)):
        if lived_ms >= season_ms[k]:
            offset += profile[k, at[k], OFFSET]
    return offset


@njit(cache=True, nogil=True)
def learn_offset(profile: FloatArray, at: IntArray, gain: FloatArray, gap: float) -> float:
    """Let each season take its share of a residual in turn; what is left of it."""
    for k in range(len(at)):
        step = profile[k, at[k]]
        visits = step[VISITS]
        taken = gap * max(1.0 / (visits + 1.0), gain[k])
        step[OFFSET] += taken
        step[VISITS] = min(visits + 1.0, 1e6)
        gap -= taken
    return gap
