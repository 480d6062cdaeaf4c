"""From p-values to scores and flags: missing readings, warm-up, and what passes the threshold.

**Missing readings** are scored by the series' own running rate of them: a run of k has
``p = rate ** k``. The rate starts at the prior 1/500 and never falls below it, so in a series that
seldom misses one reading scores 0.45, two 0.9 and three 1. A run counts at most three readings in the
rate: one long outage does not make the next one normal.

**A budget** of B false alarms a day over n series with R readings a day each asks of a single reading
``p <= B / (n · R)``. A run of readings is one alarm, so that is the careful side. ``n`` counts the
series that share the budget and have reported so far, in order of arrival: all of the detector's, or those of
the same tenant; with ``scope: series`` each has the budget for itself, and n is 1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from tidewarden.frames import ABOVE, LEARNING, BoolArray, ByteArray, FloatArray, IntArray, TimeArray
from tidewarden.resources.anomalydetector import Alerting

DECADES = 6.0  # anomaly_score 1 is one in 10**6
DEFAULT_THRESHOLD = 0.8
MISSING_PRIOR = 500.0  # ordinary readings for each missing one, before a series has shown its own rate
MISSING_MEMORY = 2000.0
MISSING_RUN_COUNTED = 3.0
DAY_MS = 86_400_000
LEAST_BUDGET_LOG10_P = 2.0  # not even the largest budget calls one in a hundred readings an anomaly
SMALLEST_LOG10_P = 300.0
LN_10 = math.log(10.0)

SEEN, RUN, MISSES, READINGS, ACTIVE = range(5)
DECISION_ROW = 8


class Rules(NamedTuple):
    """When a scored reading passes; plain numbers for the kernel."""

    log10_p: float  # fixed threshold; with a budget, unused
    budget_per_reading: float  # B / R: allowed rate over all series; 0 without a budget
    direction: int  # +1 up, -1 down, 0 both
    min_deviation: float
    shared: bool  # whether series share the budget

    @classmethod
    def of(cls, alerting: Alerting, interval_ms: int, budget_share: float = 1.0) -> Rules:
        """The rules of a detector's alerting block, of whose budget this much is at hand."""
        threshold = DEFAULT_THRESHOLD if alerting.threshold is None else alerting.threshold
        shared = alerting.scope != "series"
        share = budget_share if shared else 1.0  # a series is a whole one wherever it is
        budget = 0.0 if alerting.budget is None else alerting.budget * share * interval_ms / DAY_MS
        direction = {"up": 1, "down": -1, "both": 0}[alerting.direction]
        return cls(threshold * DECADES, budget, direction, alerting.min_deviation, shared)

    def needed_log10_p(self, n_series: int) -> float:
        """-log10 p that a reading needs while ``n_series`` that share the budget report."""
        if self.budget_per_reading <= 0.0:
            return self.log10_p
        return max(LEAST_BUDGET_LOG10_P, math.log10(max(n_series, 1) / self.budget_per_reading))


@njit(cache=True, nogil=True)
def _decide(
    series: IntArray,
    value: FloatArray,
    log10_p: FloatArray,
    learn: BoolArray,
    late: BoolArray,
    expected: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
    flags: ByteArray,
    rows: FloatArray,
    group_of: IntArray,
    n_active: TimeArray,
    warmup: float,
    needed: FloatArray,
    budget: float,
    direction: int,
    min_deviation: float,
    score: FloatArray,
    p_value: FloatArray,
) -> None:
    for i in range(len(series)):
        s = series[i]
        if rows[s, ACTIVE] == 0.0:
            rows[s, ACTIVE] = 1.0
            group = group_of[s]
            n_active[group] += 1
            if budget > 0.0:
                needed[group] = max(LEAST_BUDGET_LOG10_P, math.log10(n_active[group] / budget))
        missing = math.isnan(value[i])
        rare = log10_p[i]
        if missing:
            run = rows[s, RUN] + (0.0 if late[i] else 1.0)
            # The rate from before this run: its own first readings do not excuse the next.
            before = max(rows[s, MISSES] - min(max(run - 1.0, 0.0), MISSING_RUN_COUNTED), 0.0)
            rate = (before + 1.0) / (rows[s, READINGS] + MISSING_PRIOR)
            rare = -max(run, 1.0) * math.log10(min(max(rate, 1.0 / MISSING_PRIOR), 0.999))
            if not late[i]:
                rows[s, RUN] = run
                if run <= MISSING_RUN_COUNTED:
                    rows[s, MISSES] += 1.0
        elif learn[i]:
            rows[s, RUN] = 0.0
        if not late[i]:
            rows[s, READINGS] += 1.0
            if rows[s, READINGS] > MISSING_MEMORY:
                rows[s, READINGS] *= 0.5
                rows[s, MISSES] *= 0.5
        learning = rows[s, SEEN] < warmup
        if learn[i]:
            rows[s, SEEN] += 1.0
        if learning:
            flags[i] |= LEARNING
            rare = 0.0
            expected[i] = np.nan
            lower[i] = np.nan
            upper[i] = np.nan
        rare = min(max(rare, 0.0), SMALLEST_LOG10_P)
        score[i] = min(1.0, rare / DECADES)
        p_value[i] = math.exp(-LN_10 * rare)
        if rare >= needed[group_of[s]]:
            above = True
            if not missing and not math.isnan(expected[i]):
                gap = value[i] - expected[i]
                above = (direction == 0 or gap * direction > 0.0) and abs(gap) >= min_deviation
            if above:
                flags[i] |= ABOVE


def decide(
    series: IntArray, value: FloatArray, log10_p: FloatArray, learn: BoolArray, late: BoolArray,
    expected: FloatArray, lower: FloatArray, upper: FloatArray, flags: ByteArray,
    rows: FloatArray, group_of: IntArray, n_active: TimeArray, warmup: int, rules: Rules,
) -> tuple[FloatArray, FloatArray]:  # fmt: skip
    """Scores and p-values of readings (n,) in order; sets LEARNING and ABOVE in ``flags``, blanks bands while learning.

    Args:
        series: own numbers of the series, rows of ``rows``.
        value: readings, NaN where missing.
        log10_p: -log10 of the calibrated p-value of each reading that has a value.
        learn: the reading counts towards the warm-up.
        late: the reading came after a newer one of its series.
        expected: expected values; blanked in place while a series learns, as ``lower`` and ``upper``.
        lower: lower end of the band.
        upper: upper end of the band.
        flags: flags so far, completed in place.
        rows: state (n_series, DECISION_ROW), changed in place.
        group_of: which budget each series has a part of, an index of ``n_active``.
        n_active: number of series that have reported, by budget, changed in place.
        warmup: readings a series needs before it is scored.
        rules: threshold or budget, direction, smallest deviation.
    """
    score = np.empty(len(series))
    p_value = np.empty(len(series))
    needed = np.array([rules.needed_log10_p(n if rules.shared else 1) for n in n_active.tolist()])
    _decide(
        series, value, log10_p, learn, late, expected, lower, upper, flags, rows, group_of, n_active, float(warmup),
        needed, rules.budget_per_reading if rules.shared else 0.0, rules.direction, rules.min_deviation,
        score, p_value,
    )  # fmt: skip
    return score, p_value
