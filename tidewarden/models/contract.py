"""The contract that every detector model passes (`tests/contract/test_models.py` runs it on all of them).

A model holds the state of many series in arrays and looks at readings in arrival order, scoring each
one against what was known before it and then learning from it. It does so in a compiled kernel: one
call a frame, no Python per reading. The result must depend on each series' own readings alone, in
their order, and never on how they are cut into frames.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from tidewarden.frames import FloatArray, IntArray, TimeArray

State = dict[str, npt.NDArray[np.generic]]


@dataclass(slots=True, eq=False)
class Judgement:
    """What a model says of each reading, before calibration; all arrays have shape (n,), float64.

    Attributes:
        surprise: any real number, higher is more anomalous, comparable within one series only;
            NaN while the series warms up or where the value is missing.
        expected: expected value, NaN while warming up.
        lower: lower end of the band that holds about 99 % of normal readings, NaN while warming up.
        upper: upper end of that band.
    """

    surprise: FloatArray
    expected: FloatArray
    lower: FloatArray
    upper: FloatArray

    @classmethod
    def blank(cls, n: int) -> Judgement:
        """A judgement of ``n`` readings, all NaN, for a kernel to fill."""
        return cls(np.full(n, np.nan), np.full(n, np.nan), np.full(n, np.nan), np.full(n, np.nan))


class Model(ABC):
    """A detector model over many series.

    Deterministic under its parameters and seed. `State` arrays have the series as first axis; a
    snapshot is plain arrays, written with a version and read back by the same or a newer version.
    """

    kind: ClassVar[str]
    version: ClassVar[int]
    # True where surprise is already -log10 p, as of limits that a person knows: it is not calibrated again.
    calibrated: bool = False

    @property
    @abstractmethod
    def warmup(self) -> int:
        """Readings a series needs before it is scored."""

    @property
    @abstractmethod
    def state_bytes_per_series(self) -> int:
        """Memory that one more series costs."""

    @abstractmethod
    def resize(self, n_series: int) -> None:
        """Make room for series ids below ``n_series``; known series keep their state."""

    @abstractmethod
    def observe(
        self,
        series: IntArray,
        timestamp: TimeArray,
        value: FloatArray,
        learn: npt.NDArray[np.bool_],
        out: Judgement,
    ) -> None:
        """Score each reading in order, then learn from it where ``learn`` is set. NaN is "missing"."""

    @abstractmethod
    def snapshot(self) -> State:
        """The whole state as arrays (copies)."""

    @abstractmethod
    def restore(self, state: State) -> None:
        """Go on from a snapshot; ValueError says what does not fit."""
