"""Each model says what a slow, plain Python version of it says, that sees one reading of one series at a time.

The slow versions keep the whole past and read off it what they need; the kernels keep a few numbers.
"""

from __future__ import annotations

import math
from statistics import median

import numpy as np
import pytest

from tidewarden.models import ewma, mad, seasonal, static, subspace
from unit.slow_models import DAY_MS, HOUR_MS, NAN, NOTHING, SEEDS, Said, agree, bounded, least, readings


class SlowEwma:
    """Mean and variance with exponentially fading weights, outliers drawn in to four deviations."""

    def __init__(self, half_life: float) -> None:
        self.gain = 1 - 0.5 ** (1 / half_life)
        self.past: list[float] = []
        self.mean = self.variance = 0.0

    def see(self, time_ms: int, x: float, learn: bool) -> Said:
        said, gap = NOTHING, x - self.mean
        if len(self.past) >= ewma.YOUNG:
            sigma = max(math.sqrt(self.variance), least(self.past, 0.5, self.mean))
            said = Said(abs(gap) / sigma, self.mean, self.mean - ewma.BAND * sigma, self.mean + ewma.BAND * sigma)
            gap = bounded(gap, ewma.BOUND * sigma)
        if learn:
            self.past.append(x)
            share = max(self.gain, 1 / len(self.past))  # the first readings weigh all alike
            if len(self.past) > 1:
                self.variance = (1 - share) * (self.variance + share * gap**2)
            self.mean += share * gap
        return said


class SlowMad:
    """A median and a median absolute deviation that take one small step towards each reading."""

    def __init__(self, half_life: float) -> None:
        self.gain = 1 - 0.5 ** (1 / half_life)
        self.past: list[float] = []
        self.median = self.mad = 0.0

    def see(self, time_ms: int, x: float, learn: bool) -> Said:
        said, width = NOTHING, max(self.mad, least(self.past, 0.25, self.median))
        if len(self.past) >= mad.FIT:
            sigma = mad.SIGMA * width
            reach = mad.BAND * sigma
            said = Said(abs(x - self.median) / sigma, self.median, self.median - reach, self.median + reach)
        if learn:
            self.past.append(x)
            if len(self.past) == mad.FIT:
                self.median = median(self.past)
                self.mad = median(abs(y - self.median) for y in self.past)
            elif len(self.past) > mad.FIT:
                self.step(x, width)
        return said

    def step(self, x: float, width: float) -> None:
        pace = max(self.gain, 1 / len(self.past))
        self.mad = width * (1 + pace if abs(x - self.median) > width else 1 - pace)
        self.median += bounded(x - self.median, pace * width)


class SlowSeasonal:
    """Level plus one offset for each step of each season, each moved by its share of what is left unexplained."""

    def __init__(self, half_life: float, bins: int, seasons_ms: list[int], interval_ms: int) -> None:
        self.bins, self.seasons_ms = bins, seasons_ms
        readings_each = [max(1.0, season / interval_ms) for season in seasons_ms]
        # A half-life counts seasons, and a step of a season sees several readings each time round.
        self.gains = [1 - 0.5 ** (1 / (half_life * max(1.0, n / bins))) for n in readings_each]
        self.level_gain = 1 - 0.5 ** (4 / max(4.0, readings_each[0]))
        self.past: list[float] = []
        self.level = self.spread = 0.0
        self.offset: dict[tuple[int, int], float] = {}
        self.visits: dict[tuple[int, int], int] = {}

    def see(self, time_ms: int, x: float, learn: bool) -> Said:
        steps = [(season, time_ms % season * self.bins // season) for season in self.seasons_ms]
        known = all(step in self.visits for step in steps)
        ready = known and len(self.past) >= 8
        spread = max(self.spread, self.least_spread())
        middle = self.level + sum(self.offset.get(step, 0.0) for step in steps)
        reach = seasonal.BAND * spread
        said = Said(abs(x - middle) / spread, middle, middle - reach, middle + reach) if ready else NOTHING
        if learn:
            if not self.past:
                self.level = middle = x
            gap = bounded(x - middle, seasonal.BOUND * spread) if ready else x - middle
            self.learn_spread(x, gap, spread, known)
            for step, gain in zip(steps, self.gains, strict=True):
                self.visits[step] = self.visits.get(step, 0) + 1
                share = max(1 / self.visits[step], gain)
                self.offset[step] = self.offset.get(step, 0.0) + share * gap
                gap -= share * gap
            self.level += self.level_gain * gap
        return said

    def least_spread(self) -> float:
        return least(self.past, 0.25, self.past[-1] if self.past else 0.0)

    def learn_spread(self, x: float, gap: float, spread: float, known: bool) -> None:
        before = self.past[-1] if self.past else 0.0
        self.past.append(x)
        if not known:  # nothing was expected, so nothing was missed by much or little
            self.spread = max(self.spread, least(self.past, 0.25, before))
        elif len(self.past) > 8:
            self.spread = spread + (abs(gap) - spread) * max(seasonal.SPREAD_GAIN, 1 / len(self.past))


class SlowStatic:
    """Inside is 0, outside is anomaly_score 1."""

    def __init__(self, lower: float | None, upper: float | None) -> None:
        self.lower, self.upper = lower, upper

    def see(self, time_ms: int, x: float, learn: bool) -> Said:
        ends = (NAN if self.lower is None else self.lower, NAN if self.upper is None else self.upper)
        if self.lower is not None and x < self.lower:
            return Said(static.OUTSIDE_LOG10_P, self.lower, *ends)
        if self.upper is not None and x > self.upper:
            return Said(static.OUTSIDE_LOG10_P, self.upper, *ends)
        return Said(0.0, x, *ends)


class SlowSubspace:
    """Windows of the last readings, newest first, against three directions that turn towards what they see."""

    def __init__(self) -> None:
        self.past: list[float] = []
        self.center = self.spread = 0.0
        self.basis = subspace.cosines()  # a direction a row

    def see(self, time_ms: int, x: float, learn: bool) -> Said:
        said, n = NOTHING, len(self.past)
        if n >= subspace.LAGS:
            scale = max(self.spread, 1e-9 + 1e-6 * abs(self.center))
            window = (np.array([x, *self.past[: -subspace.LAGS : -1]]) - self.center) / scale
            tame = np.clip(window, -subspace.BOUND, subspace.BOUND)
            window = np.array([np.clip(window[0], -1e6, 1e6), *tame[1:]])
            along = self.basis @ window
            rest = window - along @ self.basis
            said = Said(0.5 * math.log(np.mean(rest**2) + rest[0] ** 2 + 1e-4))
            if learn and (n < subspace.SCHOOL or n % 4 == 0):
                self.turn(tame, self.basis @ tame)
        if learn:
            self.learn_scale(x)
            self.past.append(x)
        return said

    def turn(self, window: np.ndarray, along: np.ndarray) -> None:
        """Oja's rule: each direction moves towards the window by how far the window lies along it."""
        gain = max(0.01, 1 / (1 + len(self.past))) * subspace.LAGS * 0.25
        turned = self.basis + min(gain, 1.0) / (1 + window @ window) * np.outer(along, window)
        for k in range(len(turned)):  # Gram-Schmidt
            for before in turned[:k]:
                turned[k] -= (turned[k] @ before) * before
            turned[k] /= math.sqrt(turned[k] @ turned[k] + 1e-12)
        self.basis = turned

    def learn_scale(self, x: float) -> None:
        n = len(self.past)
        if n == 0:
            self.center = x
        gain, gap = max(1 / (n + 1), 0.002), x - self.center
        if n > 8 and self.spread > 0:
            gap = bounded(gap, 5 * self.spread)
        self.center += gain * gap
        self.spread += max(gain, 0.005) * (abs(gap) * 1.2533 - self.spread)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("half_life", [0.5, 30.0])
def test_ewma_is_a_fading_mean(half_life: float, seed: int) -> None:
    """`ewma` equals its slow version on eight interleaved series of every shape."""
    agree(ewma.Ewma(half_life, 60), lambda: SlowEwma(half_life), readings(seed))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("half_life", [2.0, 240.0])
def test_mad_is_a_median_that_steps(half_life: float, seed: int) -> None:
    """`mad` equals its slow version on eight interleaved series of every shape."""
    agree(mad.Mad(half_life, 60), lambda: SlowMad(half_life), readings(seed))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("seasons_ms", "bins"), [([DAY_MS], 24), ([DAY_MS, 7 * DAY_MS], 7), ([5 * HOUR_MS], 2)])
def test_seasonal_is_a_level_and_an_offset_for_each_step(seasons_ms: list[int], bins: int, seed: int) -> None:
    """`seasonal` equals its slow version, with one season and two, with bins of one reading and of many."""
    model = seasonal.Seasonal(3.0, bins, None, seasons_ms, HOUR_MS)
    agree(model, lambda: SlowSeasonal(3.0, bins, seasons_ms, HOUR_MS), readings(seed))


@pytest.mark.parametrize("seed", SEEDS)
def test_subspace_is_oja_on_windows(seed: int) -> None:
    """`subspace` equals its slow version, on matrices one window at a time."""
    agree(subspace.Subspace(60), SlowSubspace, readings(seed))


@pytest.mark.parametrize(("lower", "upper"), [(None, 42.0), (42.0, None), (0.0, 100.0)])
def test_static_is_two_comparisons(lower: float | None, upper: float | None) -> None:
    """`static` equals two comparisons; a value on the limit is inside."""
    agree(static.Static(lower, upper), lambda: SlowStatic(lower, upper), readings(0))
