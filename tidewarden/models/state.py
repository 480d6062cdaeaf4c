"""State of many series in arrays: rows are series, and a row is contiguous: one series, one walk through memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tidewarden.frames import BoolArray, FloatArray, IntArray, TimeArray
from tidewarden.models.contract import Judgement, Model, State


class Column(NamedTuple):
    """One array of the state: what a row looks like, and what a new series starts with."""

    shape: tuple[int, ...]
    dtype: npt.DTypeLike
    start: float = 0


class SeriesState:
    """Named arrays with the series as first axis, grown together.

    Capacity grows by half, so that a fleet that appears one series at a time costs amortised constant
    time; what lies beyond `n_series` is untouched and not part of a snapshot.
    """

    def __init__(self, **columns: Column) -> None:
        self._columns = columns
        self.n_series = 0
        self._arrays: dict[str, npt.NDArray[Any]] = {
            name: np.zeros((0, *column.shape), column.dtype) for name, column in columns.items()
        }

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """The array called ``name``; its first axis may be longer than `n_series`."""
        return self._arrays[name]

    def arrays(self) -> tuple[npt.NDArray[Any], ...]:
        """All arrays, in the order of the columns; their first axis may be longer than `n_series`."""
        return tuple(self._arrays.values())

    @property
    def bytes_per_series(self) -> int:
        """Memory of one row over all columns."""
        return sum(
            int(np.prod(column.shape, dtype=np.int64)) * np.dtype(column.dtype).itemsize
            for column in self._columns.values()
        )

    def resize(self, n_series: int) -> None:
        """Make room for ``n_series``; never shrinks."""
        if n_series <= self.n_series:
            return
        capacity = len(next(iter(self._arrays.values())))
        if n_series > capacity:
            capacity = max(n_series, capacity + capacity // 2)
            for name, column in self._columns.items():
                grown = np.full((capacity, *column.shape), column.start, column.dtype)
                grown[: self.n_series] = self._arrays[name][: self.n_series]
                self._arrays[name] = grown
        self.n_series = n_series

    def snapshot(self) -> State:
        """Copies of all arrays, cut to `n_series`."""
        return {name: array[: self.n_series].copy() for name, array in self._arrays.items()}

    def restore(self, state: State) -> None:
        """Replace everything by a snapshot; ValueError names the array that does not fit."""
        rows = {len(array) for array in state.values()}
        if set(state) != set(self._columns) or len(rows) != 1:
            raise ValueError(f"snapshot has arrays {sorted(state)}, expected {sorted(self._columns)} of one length")
        for name, column in self._columns.items():
            array = state[name]
            if array.shape[1:] != column.shape or array.dtype != np.dtype(column.dtype):
                raise ValueError(
                    f"snapshot array {name!r} has rows of {array.dtype}{array.shape[1:]}, "
                    f"expected {np.dtype(column.dtype)}{column.shape}: it was written with other parameters"
                )
        self._arrays = {name: np.array(state[name], order="C") for name in self._columns}
        self.n_series = rows.pop()


class ArrayModel(Model):
    """A model whose whole state is one `SeriesState`: what is left to write is its kernel.

    Args:
        warmup: readings a series needs before it is scored.
        state: the arrays that the kernel works on.
    """

    def __init__(self, warmup: int, state: SeriesState) -> None:
        self._warmup = warmup
        self._state = state

    @property
    def warmup(self) -> int:
        """Readings a series needs before it is scored."""
        return self._warmup

    @property
    def state_bytes_per_series(self) -> int:
        """Memory that one more series costs."""
        return self._state.bytes_per_series

    def resize(self, n_series: int) -> None:
        """Make room for series ids below ``n_series``."""
        self._state.resize(n_series)

    def snapshot(self) -> State:
        """The whole state as arrays (copies)."""
        return self._state.snapshot()

    def restore(self, state: State) -> None:
        """Go on from a snapshot; ValueError says what does not fit."""
        self._state.restore(state)


class KernelModel(ArrayModel):
    """A model that is one kernel over its arrays.

    Args:
        warmup: readings a series needs before it is scored.
        state: the arrays that the kernel works on.
        kernel: called as ``kernel(series, value, learn, surprise, expected, lower, upper, *arrays, *constants)``, with
            the timestamps behind the series where ``timed``; the arrays are the state's, in the order of their
            columns. It scores each reading in order, then learns from it where ``learn`` is set.
        constants: what the kernel needs beyond the arrays.
        timed: whether it looks at the clock.
    """

    def __init__(
        self, warmup: int, state: SeriesState, kernel: Callable[..., None], *constants: Any, timed: bool = False
    ) -> None:
        super().__init__(warmup, state)
        self._kernel = kernel
        self._constants = constants
        self._timed = timed

    def observe(
        self, series: IntArray, timestamp: TimeArray, value: FloatArray, learn: BoolArray, out: Judgement
    ) -> None:
        """Score each reading in order, then learn from it where ``learn`` is set."""
        clock = (timestamp,) if self._timed else ()
        arrays = self._state.arrays()
        self._kernel(
            series, *clock, value, learn, out.surprise, out.expected, out.lower, out.upper, *arrays, *self._constants
        )
