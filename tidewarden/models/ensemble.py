"""`ensemble`: several models, each calibrated by itself, and one judgement made of theirs.

Members measure surprise on scales of their own (deviations, nats, depths of trees), which cannot be added.
So each member's surprise goes first through a calibration of its own, per series, to -log10 p; members whose
surprise is that already are taken at their word. On that scale they are combined:

- ``mean``: for members that err in different ways; noise averages out (Fisher's method but for a constant),
- ``max``: for members that each see another kind of anomaly; one is enough, and one that errs is, too,
- ``median``: the majority, whatever a minority of broken members says,
- ``weighted``: the mean with weights that somebody knows, from labelled truth say.

The result is calibrated once more by the scorer: a mean of p-values is no p-value, the least of several is
small too often, and members are far from independent.

A member that says nothing of a reading, because it still learns or its calibration is young, is left out of
it, so a slow one neither silences nor dilutes the others. Yet the warm-up is the largest of the members':
until all have a say the combination is one of fewer, on another scale, of which no score should be shown.
The band is of the first member that has one for the reading: put the one whose band is to be drawn first.
Limits (`static`) come last, since what they expect is the reading itself: a detector that looks upwards only
would find no reading above it.

Where it fails: where members fail alike (five kinds of moving mean are one opinion); and it costs the sum of its
members in time and memory. Source: Aggarwal and Sathe, Outlier Ensembles (2017), chapter 5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numba import njit

from tidewarden.frames import BoolArray, FloatArray, IntArray, TimeArray
from tidewarden.models.contract import Judgement, Model, State
from tidewarden.models.state import Column, SeriesState
from tidewarden.resources.models import Combine
from tidewarden.scoring.calibration import ROW, YOUNG, N, tail_learn, tail_log10_p

MEAN, MAX, MEDIAN = range(3)
_WAYS: dict[Combine, int] = {"mean": MEAN, "max": MAX, "median": MEDIAN, "weighted": MEAN}


@njit(cache=True, nogil=True)
def _calibrate(series: IntArray, surprise: FloatArray, learn: BoolArray, rows: FloatArray) -> None:
    """Replace surprise by -log10 p, in place; NaN where the tail is still young."""
    for i in range(len(series)):
        s = surprise[i]
        if math.isnan(s):
            continue
        k = series[i]
        surprise[i] = tail_log10_p(rows, k, s) if rows[k, N] >= YOUNG else math.nan
        if learn[i]:
            tail_learn(rows, k, s)


@njit(cache=True, nogil=True)
def _combine(said: FloatArray, weight: FloatArray, way: int, out: FloatArray) -> None:
    """Combine opinions ``said`` (members, n) into ``out`` (n,); NaN ones are left out, and NaN is no opinion at all."""
    m, n = said.shape
    given = np.empty(m)
    for i in range(n):
        count, total, weights = 0, 0.0, 0.0
        for k in range(m):
            x = said[k, i]
            if math.isnan(x):
                continue
            at = count  # sorted, for median and maximum: there are eight at most
            while at > 0 and given[at - 1] > x:
                given[at] = given[at - 1]
                at -= 1
            given[at] = x
            count += 1
            total += weight[k] * x
            weights += weight[k]
        if count == 0:
            out[i] = math.nan
        elif way == MAX:
            out[i] = given[count - 1]
        elif way == MEDIAN:
            out[i] = 0.5 * (given[(count - 1) // 2] + given[count // 2])
        else:
            out[i] = total / weights


@njit(cache=True, nogil=True)
def _fill_band(
    expected: FloatArray, lower: FloatArray, upper: FloatArray,
    out_expected: FloatArray, out_lower: FloatArray, out_upper: FloatArray,
) -> None:  # fmt: skip
    """Take over the band of readings that have none yet."""
    for i in range(len(expected)):
        if math.isnan(out_expected[i]) and not math.isnan(expected[i]):
            out_expected[i] = expected[i]
            out_lower[i] = lower[i]
            out_upper[i] = upper[i]


class Ensemble(Model):
    """Members, the calibration of each that needs one, and how they are combined.

    Args:
        members: models; each is this one's alone.
        combine: how their -log10 p become one.
        weights: one for each member, read with ``weighted``.
    """

    kind: ClassVar[str] = "ensemble"
    version: ClassVar[int] = 1

    def __init__(self, members: Sequence[Model], combine: Combine, weights: Sequence[float]) -> None:
        self._members = list(members)
        self._way = _WAYS[combine]
        self._weight = np.array(weights if combine == "weighted" else [1.0] * len(members))
        # By member, with its version: state that another version of it has written does not fit.
        names = [f"{at}-{member.kind}-{member.version}" for at, member in enumerate(members)]
        self._tails = [None if m.calibrated else SeriesState(rows=Column((ROW,), np.float64)) for m in members]
        self._parts: dict[str, Model | SeriesState] = {
            **{f"{name}.model": member for name, member in zip(names, self._members, strict=True)},
            **{f"{name}.tail": tail for name, tail in zip(names, self._tails, strict=True) if tail is not None},
        }

    @property
    def warmup(self) -> int:
        """Readings a series needs before it is scored: as many as the slowest member."""
        return max(member.warmup for member in self._members)

    @property
    def state_bytes_per_series(self) -> int:
        """Memory that one more series costs."""
        tails = sum(tail.bytes_per_series for tail in self._tails if tail is not None)
        return tails + sum(member.state_bytes_per_series for member in self._members)

    def resize(self, n_series: int) -> None:
        """Make room for series ids below ``n_series``."""
        for part in self._parts.values():
            part.resize(n_series)

    def observe(
        self, series: IntArray, timestamp: TimeArray, value: FloatArray, learn: BoolArray, out: Judgement
    ) -> None:
        """Score each reading in order, then learn from it where ``learn`` is set."""
        said = np.empty((len(self._members), len(series)))
        limits = []
        for k, (member, tail) in enumerate(zip(self._members, self._tails, strict=True)):
            own = Judgement.blank(len(series))
            member.observe(series, timestamp, value, learn, own)
            if tail is not None:
                _calibrate(series, own.surprise, learn, tail["rows"])
            said[k] = own.surprise
            if tail is None:
                limits.append(own)
            else:
                _fill_band(own.expected, own.lower, own.upper, out.expected, out.lower, out.upper)
        for own in limits:
            _fill_band(own.expected, own.lower, own.upper, out.expected, out.lower, out.upper)
        _combine(said, self._weight, self._way, out.surprise)

    def snapshot(self) -> State:
        """The whole state as arrays (copies), named ``member.part.array``."""
        return {f"{name}.{key}": array for name, part in self._parts.items() for key, array in part.snapshot().items()}

    def restore(self, state: State) -> None:
        """Go on from a snapshot; ValueError says what does not fit."""
        parts: dict[str, State] = {name: {} for name in self._parts}
        for key, array in state.items():
            member, _, rest = key.partition(".")
            part, _, own = rest.partition(".")
            if f"{member}.{part}" not in parts:
                raise ValueError(f"snapshot has the array {key!r}, but the parts of the ensemble are {sorted(parts)}")
            parts[f"{member}.{part}"][own] = array
        for name, part_state in parts.items():
            self._parts[name].restore(part_state)
