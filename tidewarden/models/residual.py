"""What forecasting models keep of their residuals: how far off they usually are, so that an outlier teaches little.

A row of float64 starts with these columns; a model's own follow from `OWN` on. The spread is a mean
absolute residual and not a variance: it is what a bounded residual moves gently, and it cannot overflow.
Compiled into the kernels of other files: after an edit, `make kernels`.
"""

from __future__ import annotations

from numba import njit

from tidewarden.frames import FloatArray

BOUND = 4.0  # spreads that a residual counts as at most, when it is learned from
BAND = 3.23  # spreads on each side that hold 99 % of a normal: 2.576 · 1.2533
SIGMA = 1.2533  # mean absolute deviations of a normal in one standard deviation
YOUNG = 8  # residuals from which the spread is trusted
SPREAD_GAIN = 0.01

COUNT, SPREAD, FINEST, LAST, JUDGED = range(5)
OWN = 5


@njit(cache=True, nogil=True)
def least_spread(row: FloatArray) -> float:
    """A quarter of the finest step ever seen; of a constant, a thousandth of its level."""
    finest = float(row[FINEST])
    return finest * 0.25 if finest > 0.0 else 1e-3 * abs(float(row[LAST])) + 1e-9


@njit(cache=True, nogil=True)
def spread_of(row: FloatArray) -> float:
    """Mean absolute residual, not less than the data's own grain."""
    return max(float(row[SPREAD]), least_spread(row))


@njit(cache=True, nogil=True)
def bounded(row: FloatArray, gap: float, spread: float) -> float:
    """A residual as it is learned: at most `BOUND` spreads, as soon as there is a spread to speak of."""
    if row[JUDGED] < YOUNG:
        return gap
    return min(max(gap, -BOUND * spread), BOUND * spread)


@njit(cache=True, nogil=True)
def learn_residual(row: FloatArray, gap: float, spread: float) -> None:
    """Move the spread by a residual that `bounded` has seen: a mean at first, then a fading one."""
    judged = row[JUDGED]
    row[SPREAD] = abs(gap) if judged == 0.0 else spread + (abs(gap) - spread) * max(SPREAD_GAIN, 1.0 / (judged + 1.0))
    row[JUDGED] = judged + 1.0


@njit(cache=True, nogil=True)
def learn_grain(row: FloatArray, x: float) -> None:
    """Count a reading and note its step from the one before."""
    if row[COUNT] > 0.0:
        step = abs(x - row[LAST])
        if step > 0.0 and (row[FINEST] == 0.0 or step < row[FINEST]):
            row[FINEST] = step
    row[LAST] = x
    row[COUNT] += 1.0
