"""What forecasting models keep of their residuals: how far off they usually are, so that an outlier teaches little.

A row of a series starts with these columns; a model's own follow from `OWN` on. The spread is a mean
absolute residual and not a variance: it is what a bounded residual moves gently, and it cannot overflow.
Functions index whole arrays by the series ``s`` and take no views of its row: numba counts the references of each
view. Compiled into the kernels of other files: after an edit, `make kernels`.
"""

from __future__ import annotations

from numba import njit

from tidewarden.frames import FloatArray

BOUND = 4.0  # spreads that a residual counts as at most, when it is learned from
BAND = 3.23  # spreads on each side that hold 99 % of a normal: 2.576 · 1.2533
SIGMA = 1.2533  # mean absolute deviations of a normal in one standard deviation
YOUNG = 8  # residuals from which the spread is trusted
SPREAD_GAIN = 0.01
PATIENCE = 60.0  # residuals out of bounds in a row: an incident may be as long, what is longer is news no more
HASTE = 0.1  # gain of the spread from then on: it grows by BOUND · 0.1 - 0.1, some third, with each residual

COUNT, SPREAD, FINEST, LAST, JUDGED, RUN = range(6)
OWN = 6


@njit(cache=True, nogil=True)
def least_spread(rows: FloatArray, s: int) -> float:
    """A quarter of the finest step ever seen; of a constant, a thousandth of its level."""
    finest = float(rows[s, FINEST])
    return finest * 0.25 if finest > 0.0 else 1e-3 * abs(float(rows[s, LAST])) + 1e-9


@njit(cache=True, nogil=True)
def spread_of(rows: FloatArray, s: int) -> float:
    """Mean absolute residual, not less than the data's own grain."""
    return float(max(rows[s, SPREAD], least_spread(rows, s)))


@njit(cache=True, nogil=True)
def bounded(rows: FloatArray, s: int, gap: float, spread: float) -> float:
    """A residual as it is learned: at most `BOUND` spreads, as soon as there is a spread to speak of."""
    if rows[s, JUDGED] < YOUNG:
        return gap
    return min(max(gap, -BOUND * spread), BOUND * spread)


@njit(cache=True, nogil=True)
def learn_residual(rows: FloatArray, s: int, gap: float, spread: float) -> None:
    """Move the spread by a residual that `bounded` has seen: a mean at first, then a fading one.

    Out of bounds it grows by three hundredths a residual, so that a burst does not hide the next; a signal
    that has come to life, a thousand times as lively as before, would be news for hours, but for `PATIENCE`.
    """
    judged = rows[s, JUDGED]
    rows[s, JUDGED] = judged + 1.0
    if judged == 0.0:
        rows[s, SPREAD] = abs(gap)
        return
    wild = judged >= YOUNG and abs(gap) >= BOUND * spread
    rows[s, RUN] = min(rows[s, RUN] + 1.0, 2.0 * PATIENCE) if wild else max(rows[s, RUN] - 2.0, 0.0)
    gain = HASTE if rows[s, RUN] > PATIENCE else SPREAD_GAIN
    rows[s, SPREAD] = spread + (abs(gap) - spread) * max(gain, 1.0 / (judged + 1.0))


@njit(cache=True, nogil=True)
def learn_grain(rows: FloatArray, s: int, x: float) -> None:
    """Count a reading and note its step from the one before."""
    if rows[s, COUNT] > 0.0:
        step = abs(x - rows[s, LAST])
        if step > 0.0 and (rows[s, FINEST] == 0.0 or step < rows[s, FINEST]):
            rows[s, FINEST] = step
    rows[s, LAST] = x
    rows[s, COUNT] += 1.0
