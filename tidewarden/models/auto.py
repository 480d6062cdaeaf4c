"""`auto`: density first, the sub-space as second opinion, on one calibrated scale.

Each opinion is turned into -log10 p by a running tail of its own, so a nat of one and a nat of the
other weigh the same; the surprise is the density's with a share of the sub-space's on top. What comes
out is calibrated again by the scorer, because two opinions on one reading are not independent.
"""

from __future__ import annotations

from typing import ClassVar

from numba import njit

from tidewarden.frames import BoolArray, FloatArray, IntArray, TimeArray
from tidewarden.models.contract import Judgement, Model, State
from tidewarden.models.density import Density
from tidewarden.models.subspace import Subspace
from tidewarden.scoring.calibration import Calibrator

SECOND_WEIGHT = 0.3


@njit(cache=True, nogil=True)
def _combine(first, second, surprise, weight):
    for i in range(len(surprise)):
        if surprise[i] == surprise[i]:
            surprise[i] = 2.302585092994046 * ((1.0 - weight) * first[i] + weight * second[i])


class Auto(Model):
    """Density over features with LODA projections, plus a sub-space second opinion."""

    kind: ClassVar[str] = "auto"
    version: ClassVar[int] = 1

    def __init__(self, warmup: int, seasonality_ms: tuple[int, ...], interval_ms: int, seed: int = 0) -> None:
        self._warmup = warmup
        self._density = Density(warmup, seasonality_ms, interval_ms, seed)
        self._subspace = Subspace(warmup)
        self._first = Calibrator()
        self._second = Calibrator()
        self._parts: dict[str, Density | Subspace | Calibrator] = {
            "density": self._density, "subspace": self._subspace, "first": self._first, "second": self._second
        }  # fmt: skip

    @property
    def warmup(self) -> int:
        """Readings a series needs before it is scored."""
        return self._warmup

    @property
    def state_bytes_per_series(self) -> int:
        """Memory that one more series costs."""
        return sum(part.state_bytes_per_series for part in self._parts.values())

    def resize(self, n_series: int) -> None:
        """Make room for series ids below ``n_series``."""
        for part in self._parts.values():
            part.resize(n_series)

    def observe(
        self, series: IntArray, timestamp: TimeArray, value: FloatArray, learn: BoolArray, out: Judgement
    ) -> None:
        """Score each reading in order, then learn from it where ``learn`` is set."""
        self._density.observe(series, timestamp, value, learn, out)
        shape = Judgement.blank(len(series))
        self._subspace.observe(series, timestamp, value, learn, shape)
        first: FloatArray = self._first.observe(series, out.surprise, learn)
        second: FloatArray = self._second.observe(series, shape.surprise, learn)
        _combine(first, second, out.surprise, SECOND_WEIGHT)

    def snapshot(self) -> State:
        """The whole state as arrays (copies), named ``part.array``."""
        return {f"{name}.{key}": array for name, part in self._parts.items() for key, array in part.snapshot().items()}

    def restore(self, state: State) -> None:
        """Go on from a snapshot; ValueError says what does not fit."""
        for name, part in self._parts.items():
            part.restore({key.split(".", 1)[1]: a for key, a in state.items() if key.startswith(name + ".")})
