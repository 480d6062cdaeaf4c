"""Random numbers as a function of their place, so that any reading can be made without the ones before it.

A generator that is drawn from in sequence ties its bytes to the order and the size of the draws. Here a
draw is a hash of (seed, stream, tick, lane): block sizes, restarts and machines cannot change it. The
hash is SplitMix64 (Steele, Lea, Flood 2014), integer arithmetic throughout; normals come from a table of
rounded quantiles, so that no transcendental function of the processor or the C library is involved.
"""

from __future__ import annotations

import functools
import hashlib
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from tidewarden.frames import FloatArray, TimeArray

UintArray = npt.NDArray[np.uint64]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
# 2^24 groups of four lanes: 67 million nodes; leaves 2^40 ticks, 35 years of milliseconds.
_GROUP_BITS = np.uint64(24)
_CELLS = 65_536


def _mix(state: UintArray) -> UintArray:
    """SplitMix64's finaliser, in place."""
    scratch = state >> np.uint64(30)
    state ^= scratch
    state *= _MIX_1
    np.right_shift(state, np.uint64(27), out=scratch)
    state ^= scratch
    state *= _MIX_2
    np.right_shift(state, np.uint64(31), out=scratch)
    state ^= scratch
    return state


@functools.cache
def _quantiles() -> FloatArray:
    """Standard normal quantiles at the middles of 65,536 cells, rounded to 1e-9: the same on every machine."""
    inverse = NormalDist().inv_cdf
    lower = [round(inverse((cell + 0.5) / _CELLS), 9) for cell in range(_CELLS // 2)]
    half = np.array(lower)
    return np.concatenate([half, -half[::-1]])


class Draws:
    """One stream of draws: those of ``seed`` for the purpose called ``stream``."""

    def __init__(self, seed: int, stream: str) -> None:
        digest = hashlib.blake2b(f"{seed}/{stream}".encode(), digest_size=8).digest()
        self._base = np.uint64(int.from_bytes(digest, "little"))

    def raw(self, ticks: TimeArray, groups: int) -> UintArray:
        """64 random bits for each tick and group, shape (len(ticks), groups)."""
        with np.errstate(over="ignore"):  # wrapping around is what the hash is made of
            rows = (ticks.astype(np.uint64) << _GROUP_BITS) * _GAMMA + self._base
            columns = np.arange(1, groups + 1, dtype=np.uint64) * _GAMMA
            return _mix(rows[:, None] + columns[None, :])

    def normal(self, ticks: TimeArray, lanes: int) -> FloatArray:
        """Standard normals, shape (len(ticks), lanes): four from each 64-bit draw.

        The outermost cells of the table, 1 draw in 32,768, are drawn again from the tail behind them, so
        that rare values are as rare as they should be.
        """
        raw = self.raw(ticks, -(-lanes // 4))
        cells = raw.astype("<u8", copy=False).view("<u2")
        values: FloatArray = _quantiles().take(cells)
        edges = np.flatnonzero((cells == 0) | (cells == _CELLS - 1))
        if len(edges):
            values.ravel()[edges] = self._tails(raw.ravel()[edges // 4], edges % 4, cells.ravel()[edges])
        return np.ascontiguousarray(values[:, :lanes])

    @staticmethod
    def _tails(raw: UintArray, lane: npt.NDArray[np.intp], cells: npt.NDArray[np.uint16]) -> FloatArray:
        with np.errstate(over="ignore"):
            again = _mix(raw + (lane.astype(np.uint64) + np.uint64(1)) * _GAMMA)
        inverse = NormalDist().inv_cdf
        shares = ((again >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
        sizes = np.array([round(inverse(share / _CELLS), 9) for share in shares.tolist()])
        tails: FloatArray = np.where(cells == 0, sizes, -sizes)
        return tails

    def uniform(self, ticks: TimeArray, lanes: int) -> FloatArray:
        """Uniform draws in (0, 1), shape (len(ticks), lanes)."""
        return ((self.raw(ticks, lanes) >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53

    def row(self, tick: int, lanes: int) -> FloatArray:
        """Uniform draws in (0, 1) of one tick, shape (lanes,)."""
        draws: FloatArray = self.uniform(np.array([tick], np.int64), lanes)[0]
        return draws

    def order(self, tick: int, lanes: int) -> npt.NDArray[np.intp]:
        """A random order of ``range(lanes)``; ties of the 64-bit keys fall back to the index."""
        return np.argsort(self.raw(np.array([tick], np.int64), lanes)[0], kind="stable")
