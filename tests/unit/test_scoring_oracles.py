"""Calibration and decision say what slow, plain Python versions of them say, that see one reading of one series."""

from __future__ import annotations

import math
from statistics import fmean, median

import numpy as np
import pytest

from tidewarden.frames import ABOVE, LEARNING
from tidewarden.resources.anomalydetector import Alerting
from tidewarden.scoring import calibration as cal
from tidewarden.scoring import decision as dec

MINUTE_MS = 60_000
NAN = math.nan


class SlowTail:
    """How rare is a surprise: median, 98 % quantile and the mean excess above it, by name."""

    def __init__(self) -> None:
        self.first: list[float] = []
        self.n = 0
        self.median = self.quantile = self.excess = self.spread = 0.0
        self.n_excesses = 0.0
        self.run = 0

    def log10_p(self, s: float) -> float:
        if self.n < cal.YOUNG:
            return 0.0
        if s <= self.median:
            return -math.log10(1 - math.exp((s - self.median) / self.spread) / 2)
        if s <= self.quantile:  # p falls from 0.5 to 0.02, a straight line on the logarithmic scale
            share = (s - self.median) / (self.quantile - self.median)
            return -((1 - share) * math.log10(0.5) + share * math.log10(cal.TAIL_P))
        shape = cal.SHAPE + 1 / (self.n_excesses + cal.PRIOR_SHAPE)
        scale = self.excess * (1 - cal.SHAPE)
        base = 1 + shape * (s - self.quantile) / scale
        return -math.log10(cal.TAIL_P) + math.log10(base) / shape

    def learn(self, s: float) -> None:
        self.n += 1
        if self.n <= cal.YOUNG:
            self.first.append(s)
            if self.n == cal.YOUNG:
                self.settle()
            return
        median, quantile, excess, spread = self.median, self.quantile, self.excess, self.spread
        away = min(abs(s - median), 6 * spread)
        self.spread = max(spread + (away - spread) * max(0.002, 1 / self.n), cal.MIN_SPREAD)
        side = 1 if s > median else -1
        self.median = median + side * spread * max(0.01, min(0.5, 2 / self.n))
        step = excess * max(0.02, min(1.0, 1 / (cal.TAIL_P * self.n)))
        if s > quantile:
            self.quantile = quantile + cal.TAIL_Q * step
            self.learn_excess(s - quantile)
            if self.run > cal.PATIENCE:  # no incident any more: this is how the series is now
                self.quantile += cal.ACCEPTING * (s - quantile)
        else:
            self.quantile = quantile - cal.TAIL_P * step
            self.run = 0
        self.quantile = max(self.quantile, self.median + 0.5 * self.spread)

    def learn_excess(self, by: float) -> None:
        """The k-th excess of a run weighs 1/k, and none is larger than some means."""
        self.run += 1
        weight = 1 / self.run
        self.n_excesses = min(self.n_excesses + weight, cal.MEMORY_EXCESSES)
        surplus = min(by, cal.EXCESS_CAP * self.excess) - self.excess
        self.excess = max(self.excess + weight * surplus / (cal.PRIOR_EXCESSES + self.n_excesses), self.spread / 4)

    def settle(self) -> None:
        """First quantiles; an eighth of the first surprises may be wild."""
        self.median = median(self.first)
        away = sorted(abs(s - self.median) for s in self.first)
        limit = 6 * max(fmean(away[: cal.YOUNG - cal.YOUNG // 8]), cal.MIN_SPREAD)
        self.spread = max(fmean(min(a, limit) for a in away), cal.MIN_SPREAD)
        usual = self.median + 3.2 * self.spread
        top = min(max(self.first), self.median + limit)
        self.quantile = max(usual, (top + usual) / 2)
        self.excess = 1.5 * self.spread


@pytest.mark.parametrize("seed", range(6))
def test_calibration_is_a_median_a_quantile_and_a_mean_excess(seed: int) -> None:
    """The calibrator equals its slow version on interleaved surprises, some missing, some constant, some in runs."""
    rng = np.random.default_rng(seed)
    n, n_series = 1500, 6
    shapes = [
        rng.gumbel(size=n),
        rng.exponential(size=n),
        np.full(n, -3.25),
        rng.integers(0, 4, n).astype(float),
        rng.normal(size=n) + 30 * (np.arange(n) % 400 > 240),  # incidents of 160 readings
        rng.standard_cauchy(n),
    ]
    series = rng.permutation(np.repeat(np.arange(n_series, dtype=np.int32), n))
    surprise = np.empty(len(series))
    for i, shape in enumerate(shapes):
        surprise[series == i] = np.where(rng.random(n) < 0.02, NAN, shape)
    learn = rng.random(len(series)) > 0.03
    calibrator = cal.Calibrator()
    calibrator.resize(n_series)
    fast = calibrator.observe(series, surprise, learn)
    tails = [SlowTail() for _ in range(n_series)]
    slow = np.zeros(len(series))
    for k, (i, s, known) in enumerate(zip(series.tolist(), surprise.tolist(), learn.tolist(), strict=True)):
        if math.isfinite(s):
            slow[k] = tails[i].log10_p(s)
            if known:
                tails[i].learn(s)
    np.testing.assert_allclose(fast, slow, rtol=1e-9, atol=1e-9)


class SlowFleet:
    """The decisions over all series of a detector: a budget is shared by those that have reported."""

    def __init__(self, alerting: Alerting, warmup: int) -> None:
        self.alerting, self.warmup = alerting, warmup
        self.members: dict[int, SlowSeries] = {}

    def see(
        self, i: int, x: float, log10_p: float, late: bool, expected: float
    ) -> tuple[float, float, bool, bool, float]:
        """(score, p_value, learning, above, expected) of one reading of series ``i``."""
        member = self.members.setdefault(i, SlowSeries())
        missing = math.isnan(x)
        rare = member.missing(late) if missing else log10_p
        member.count(missing, late)
        learning = member.learned < self.warmup
        if not missing and not late:
            member.learned += 1
        if learning:
            rare, expected = 0.0, NAN
        rare = min(max(rare, 0.0), dec.SMALLEST_LOG10_P)
        above = rare >= self.needed() and (missing or self.matters(x - expected))
        return min(1.0, rare / dec.DECADES), 10.0**-rare, learning, above, expected

    def needed(self) -> float:
        """-log10 p that makes an anomaly: of a threshold, or of a share of the budget for each reading of a day."""
        if self.alerting.budget is None:
            threshold = dec.DEFAULT_THRESHOLD if self.alerting.threshold is None else self.alerting.threshold
            return threshold * dec.DECADES
        readings_a_day = len(self.members) * dec.DAY_MS / MINUTE_MS
        return max(dec.LEAST_BUDGET_LOG10_P, -math.log10(self.alerting.budget / readings_a_day))

    def matters(self, gap: float) -> bool:
        """Whether it went the way, and as far, as counts; without an expectation nobody can say it did not."""
        if math.isnan(gap):
            return True
        right_way = {"both": True, "up": gap > 0, "down": gap < 0}[self.alerting.direction]
        return right_way and abs(gap) >= self.alerting.min_deviation


class SlowSeries:
    """How often a series misses readings, and how many it misses now."""

    def __init__(self) -> None:
        self.learned = 0
        self.misses_before = 0.0  # this run
        self.run = 0
        self.readings = 0.0

    def counted(self) -> float:
        """Misses of this run that count in the rate: an outage does not make the next one normal."""
        return min(self.run, dec.MISSING_RUN_COUNTED)

    def missing(self, late: bool) -> float:
        """-log10 p of a missing reading: rate ** length of the run."""
        length = max(self.run + (0 if late else 1), 1)
        known = self.misses_before
        if late and self.run:  # a late one adds nothing, and the run's newest counts among those before
            known += self.counted() - min(self.run - 1, dec.MISSING_RUN_COUNTED)
        rate = (known + 1) / (self.readings + dec.MISSING_PRIOR)
        return -length * math.log10(min(max(rate, 1 / dec.MISSING_PRIOR), 0.999))

    def count(self, missing: bool, late: bool) -> None:
        if late:
            return
        if missing:
            self.run += 1
        else:
            self.misses_before += self.counted()
            self.run = 0
        self.readings += 1
        if self.readings > dec.MISSING_MEMORY:
            self.forget()

    def forget(self) -> None:
        """Halve both counts; the data below has no run of missing readings across this moment."""
        assert self.run == 0
        self.readings /= 2
        self.misses_before /= 2


ALERTING = [
    {},
    {"threshold": 0.3, "direction": "up"},
    {"threshold": 0.45, "direction": "down", "minDeviation": 4},
    {"budget": "20/day"},
    {"budget": "50000/day", "minDeviation": 2.5},  # so large that the least rarity rules
    {"budget": "300/day", "direction": "up"},
]


@pytest.mark.parametrize("n", [300, 2600])
@pytest.mark.parametrize("block", ALERTING)
def test_decisions_are_a_few_comparisons(block: dict[str, object], n: int) -> None:
    """Scores, flags and bands equal the slow version's: missing runs, warm-up, threshold, budget, direction, size."""
    alerting = Alerting.model_validate(block)
    rng = np.random.default_rng(5)
    n_series = 4
    # Series report for the first time one after the other, so that the budget's share of each shrinks.
    order = rng.permutation(np.repeat(np.arange(n_series), n))
    series = np.concatenate([np.repeat([0, 1], [40, 30]), order]).astype(np.int32)
    value, late = np.empty(len(series)), rng.random(len(series)) < 0.02
    for i in range(n_series):
        own = rng.normal(100, 5, (series == i).sum())
        for start in rng.choice(len(own) - 20, int(len(own) * (0.0, 0.002, 0.02, 0.1)[i]), replace=False):
            own[start : start + rng.integers(1, 8)] = NAN
        own[1960:2100] = 100.0  # when old misses are forgotten, nothing is missing
        value[series == i] = own
    learn = np.isfinite(value) & ~late
    log10_p = rng.exponential(1.3, len(series)) * rng.choice([1.0, 400.0], len(series), p=[0.99, 0.01])
    expected = np.where(rng.random(len(series)) < 0.05, NAN, 100.0)
    lower, upper, blanked = expected - 10, expected + 10, expected.copy()
    flags, rows, active = np.zeros(len(series), np.uint8), np.zeros((n_series, dec.DECISION_ROW)), np.zeros(1, np.int64)
    rules = dec.Rules.of(alerting, MINUTE_MS)
    score, p_value = np.empty(len(series)), np.empty(len(series))
    for lo, hi in [(0, 55), (55, 200), (200, len(series))]:  # new series also arrive between frames
        cut = slice(lo, hi)
        score[cut], p_value[cut] = dec.decide(
            series[cut], value[cut], log10_p[cut], learn[cut], late[cut], blanked[cut], lower[cut], upper[cut],
            flags[cut], rows, np.zeros(n_series, np.int32), active, 25, rules,
        )  # fmt: skip
    fleet = SlowFleet(alerting, 25)
    columns = zip(*(c.tolist() for c in (series, value, log10_p, late, expected)), strict=True)
    slow = [np.array(column) for column in zip(*(fleet.see(*row) for row in columns), strict=True)]
    np.testing.assert_allclose(score, slow[0], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(p_value, slow[1], rtol=1e-9, atol=1e-300)
    np.testing.assert_array_equal((flags & LEARNING) > 0, slow[2])
    np.testing.assert_array_equal((flags & ABOVE) > 0, slow[3])
    np.testing.assert_array_equal(blanked, slow[4])
    np.testing.assert_array_equal(lower, slow[4] - 10)
    np.testing.assert_array_equal(upper, slow[4] + 10)
    assert 0 < slow[3].sum() < len(series) / 4
