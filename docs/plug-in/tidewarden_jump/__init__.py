"""`jump`: how unusual the step from the reading before is, in mean steps of the series.

Right for signals that wander without a level, where the change is news and the value is not.
Where it fails: a slow drift has no step, and a signal that goes up and down by turns has a large one always.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numba import njit
from pydantic import Field

from tidewarden.frames import BoolArray, FloatArray, IntArray
from tidewarden.models.state import Column, KernelModel, SeriesState
from tidewarden.resources.base import Model as Parameters

YOUNG = 8  # readings from which the mean step is taken seriously
BOUND = 4.0  # mean steps that a step counts for at most, so that one jump widens the band a little only
HOLDS_99 = 3.23  # mean steps on each side that hold 99 % of the steps of a normal

COUNT, LAST, STEP, COLUMNS = range(4)


class JumpParams(Parameters, extra="forbid"):
    """Parameters of `jump`, as `spec.model.parameters` has them."""

    half_life: float = Field(240.0, gt=0, description="Readings after which a step's weight has halved.")
    warmup: int = Field(60, ge=10, le=100_000, description="Readings a series needs before it is scored.")


@njit(cache=True, nogil=True)
def _observe(
    series: IntArray, value: FloatArray, learn: BoolArray, surprise: FloatArray, expected: FloatArray,
    lower: FloatArray, upper: FloatArray, rows: FloatArray, gain: float,
) -> None:  # fmt: skip
    for i in range(len(series)):
        x = value[i]
        if not np.isfinite(x):
            continue
        row = rows[series[i]]
        count, last = row[COUNT], row[LAST]
        # A constant has no steps: a thousandth of its level.
        mean = row[STEP] if row[STEP] > 0.0 else 1e-3 * abs(last) + 1e-9
        step = abs(x - last)
        if count >= YOUNG:
            surprise[i] = step / mean
            expected[i] = last
            lower[i] = last - HOLDS_99 * mean
            upper[i] = last + HOLDS_99 * mean
            step = min(step, BOUND * mean)
        if learn[i]:
            if count > 0.0:
                row[STEP] += max(gain, 1.0 / count) * (step - row[STEP])
            row[LAST] = x
            row[COUNT] = count + 1.0


class Jump(KernelModel):
    """The step from the reading before, in mean steps."""

    kind: ClassVar[str] = "jump"
    version: ClassVar[int] = 1

    def __init__(self, half_life: float, warmup: int) -> None:
        gain = 1.0 - 0.5 ** (1.0 / half_life)
        super().__init__(warmup, SeriesState(rows=Column((COLUMNS,), np.float64)), _observe, gain)


def build(parameters: Mapping[str, Any], seasonality_ms: tuple[int, ...], interval_ms: int) -> Jump:  # noqa: ARG001 - steps know no season
    """What the entry point leads to: the model of ``spec.model.parameters``."""
    given = JumpParams.model_validate(parameters)
    return Jump(given.half_life, given.warmup)
