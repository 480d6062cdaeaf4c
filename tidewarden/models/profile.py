"""What a time of day (or week) adds: one offset for each step of each season, learned from what is left unexplained.

Several seasons add up. Between the middles of steps the offset is drawn straight, so that a smooth day has no
stairs. A step's first visits weigh alike, later ones fade over seasons, however many readings a step holds.
Kernels index whole arrays by the series ``s`` and take no views of its rows: numba counts the references of
each view. Compiled into the kernels of other files: after an edit, `make kernels`.
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
    bins: TimeArray
    middle: FloatArray  # where in a step its readings have their middle; 0 where a step holds but one
    gain: FloatArray  # share of a residual that an old step takes


def seasons(seasonality_ms: Sequence[int], bins: int, interval_ms: int, share: float) -> Seasons:
    """Seasons cut into at most ``bins`` steps, none of them shorter than a reading.

    Args:
        seasonality_ms: lengths; those of fewer than `LEAST_READINGS` readings are left out.
        bins: steps of a season.
        interval_ms: expected spacing of readings.
        share: of an old step, that one more season replaces.
    """
    ms = np.array([season for season in seasonality_ms if season >= LEAST_READINGS * interval_ms], np.int64)
    steps = np.minimum(bins, ms // interval_ms).astype(np.int64)
    readings = np.maximum(1.0, ms / interval_ms / np.maximum(steps, 1))  # of a step: the first lies at its start
    middle = np.where(readings >= 2.0, 0.5 - 0.5 / readings, 0.0)
    return Seasons(ms, steps, middle, 1.0 - (1.0 - share) ** (1.0 / readings))


def two_seasons(season_ms: TimeArray, interval_ms: int, otherwise: int) -> int:
    """Readings that the first season has in two rounds: the usual warm-up; ``otherwise`` without a season."""
    return int(min(2 * season_ms[0] // interval_ms, MOST_WARMUP)) if len(season_ms) else otherwise


@njit(cache=True, nogil=True)
def steps_at(
    season_ms: TimeArray,
    bins: IntArray,
    middle: FloatArray,
    timestamp: int,
    at: IntArray,
    beside: IntArray,
    away: FloatArray,
) -> None:
    """Where in each season a time falls: done once a tick, whole divisions being slow.

    ``at`` receives the step, ``beside`` its neighbour on the side of its middle where the time falls, and ``away``
    how far from its middle that is, in steps.
    """
    for k in range(len(season_ms)):
        phase = (timestamp % season_ms[k]) * bins[k]
        at[k] = phase // season_ms[k]
        off = phase / season_ms[k] - at[k] - middle[k] if middle[k] > 0.0 else 0.0
        away[k] = abs(off)
        beside[k] = (at[k] + (1 if off > 0.0 else -1)) % bins[k]


@njit(cache=True, nogil=True)
def drawn(profiles: FloatArray, s: int, k: int, at: int, beside: int, away: float) -> float:
    """What season ``k`` adds, between a step and its neighbour; a step never visited is not drawn to."""
    here = float(profiles[s, k, at, OFFSET])
    if away == 0.0 or profiles[s, k, at, VISITS] == 0.0 or profiles[s, k, beside, VISITS] == 0.0:
        return here
    return here + away * (float(profiles[s, k, beside, OFFSET]) - here)


@njit(cache=True, nogil=True)
def offset_of(profiles: FloatArray, s: int, at: IntArray, beside: IntArray, away: FloatArray) -> tuple[float, bool]:
    """What this time adds to the level, and whether all its steps have been visited before."""
    offset = 0.0
    known = True
    for k in range(len(at)):
        offset += drawn(profiles, s, k, at[k], beside[k], away[k])
        known = known and profiles[s, k, at[k], VISITS] >= 1.0
    return offset, known


@njit(cache=True, nogil=True)
def offset_after(
    profiles: FloatArray, s: int, at: IntArray, beside: IntArray, away: FloatArray, season_ms: TimeArray, lived_ms: int
) -> float:
    """What this time adds, of those seasons alone that have gone round in ``lived_ms``."""
    offset = 0.0
    for k in range(len(at)):
        if lived_ms >= season_ms[k]:
            offset += drawn(profiles, s, k, at[k], beside[k], away[k])
    return offset


@njit(cache=True, nogil=True)
def learn_offset(profiles: FloatArray, s: int, at: IntArray, gain: FloatArray, gap: float) -> float:
    """Let each season take its share of a residual in turn; what is left of it."""
    for k in range(len(at)):
        visits = profiles[s, k, at[k], VISITS]
        taken = gap * max(1.0 / (visits + 1.0), gain[k])
        profiles[s, k, at[k], OFFSET] += taken
        profiles[s, k, at[k], VISITS] = min(visits + 1.0, 1e6)
        gap -= taken
    return gap
