"""`pca`: the sub-space of the last readings as a model of its own, with a band.

Online principal components (Oja 1982) of windows of 24 readings, three components; surprise is the logarithm
of what they leave unexplained (see `subspace`, which `auto` takes as second opinion). It sees a shape
that is broken, such as a rush hour that does not come, where every single value is ordinary.
Where it fails: white noise has no sub-space. The band is a running median and its spread: the sub-space
says that a reading does not fit, not by how much.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numba import njit

from tidewarden.frames import BoolArray, FloatArray, IntArray, TimeArray
from tidewarden.models.band import BAND_ROW, band_learn, band_of
from tidewarden.models.contract import Judgement, Model, State
from tidewarden.models.state import Column, SeriesState
from tidewarden.models.subspace import Subspace


@njit(cache=True, nogil=True)
def _add_band(
    series: IntArray,
    value: FloatArray,
    learn: BoolArray,
    surprise: FloatArray,
    expected: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
    bands: FloatArray,
) -> None:
    for i in range(len(series)):
        if not np.isfinite(value[i]):
            continue
        band = bands[series[i]]
        if not np.isnan(surprise[i]):
            expected[i], lower[i], upper[i] = band_of(band)
        if learn[i]:
            band_learn(band, value[i])


class Pca(Model):
    """Online principal components of the last readings, and a band."""

    kind: ClassVar[str] = "pca"
    version: ClassVar[int] = 1

    def __init__(self, warmup: int) -> None:
        self._subspace = Subspace(warmup)
        self._bands = SeriesState(rows=Column((BAND_ROW,), np.float64))
        self._parts: dict[str, Subspace | SeriesState] = {"subspace": self._subspace, "band": self._bands}

    @property
    def warmup(self) -> int:
        """Readings a series needs before it is scored."""
        return self._subspace.warmup

    @property
    def state_bytes_per_series(self) -> int:
        """Memory that one more series costs."""
        return self._subspace.state_bytes_per_series + self._bands.bytes_per_series

    def resize(self, n_series: int) -> None:
        """Make room for series ids below ``n_series``."""
        for part in self._parts.values():
            part.resize(n_series)

    def observe(
        self, series: IntArray, timestamp: TimeArray, value: FloatArray, learn: BoolArray, out: Judgement
    ) -> None:
        """Score each reading in order, then learn from it where ``learn`` is set."""
        self._subspace.observe(series, timestamp, value, learn, out)
        _add_band(series, value, learn, out.surprise, out.expected, out.lower, out.upper, self._bands["rows"])

    def snapshot(self) -> State:
        """The whole state as arrays (copies), named ``part.array``."""
        return {f"{name}.{key}": array for name, part in self._parts.items() for key, array in part.snapshot().items()}

    def restore(self, state: State) -> None:
        """Go on from a snapshot; ValueError says what does not fit."""
        for name, part in self._parts.items():
            part.restore({key.split(".", 1)[1]: a for key, a in state.items() if key.startswith(name + ".")})
