"""The classic models against slow, plain Python versions of them, and what each promises on data made for it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tidewarden.models import ar, cusum, holt_winters, iqr, quantile, residual, stl, zscore
from tidewarden.models.contract import Judgement
from tidewarden.models.registry import build
from tidewarden.resources.models import ModelSpec
from unit.slow_models import DAY_MS, HOUR_MS, NOTHING, Said, bounded, least, readings
from unit.slow_models import agree as agree_exactly

SEEDS = range(2)
WEEK_MS = 7 * DAY_MS
MINUTE_MS = 60_000
SEASONS = [([DAY_MS], 24), ([DAY_MS, WEEK_MS], 6), ([], 48)]
FORECASTERS = ["zscore", "iqr", "cusum", "holt_winters", "stl", "ar"]


class SlowResiduals:
    """How far off a model usually is, of all that it was off before, each at most four spreads."""

    def __init__(self) -> None:
        self.past: list[float] = []
        self.n_gaps = 0
        self.run = 0.0
        self.mean = 0.0

    @property
    def spread(self) -> float:
        return max(self.mean, self.grain)

    @property
    def grain(self) -> float:
        return least(self.past, 0.25, self.past[-1] if self.past else 0.0)

    def bounded(self, gap: float) -> float:
        return gap if self.n_gaps < residual.YOUNG else bounded(gap, residual.BOUND * self.spread)

    def learn(self, gap: float) -> None:
        before, self.n_gaps = self.spread if self.n_gaps else 0.0, self.n_gaps + 1
        wild = self.n_gaps > residual.YOUNG and abs(gap) >= residual.BOUND * before
        self.run = min(self.run + 1, 2 * residual.PATIENCE) if wild else max(self.run - 2, 0)
        gain = residual.HASTE if self.run > residual.PATIENCE else residual.SPREAD_GAIN
        self.mean = before + (abs(gap) - before) * max(gain, 1 / self.n_gaps)

    def judge(self, x: float, middle: float) -> Said:
        if self.n_gaps < residual.YOUNG:
            return NOTHING
        reach = residual.BAND * self.spread
        return Said(abs(x - middle) / self.spread, middle, middle - reach, middle + reach)


class SlowZscore:
    """Mean and deviation of a list of the last readings."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.past: list[float] = []
        self.entered: list[float] = []

    def see(self, time_ms: int, x: float, learn: bool) -> Said:
        said, last = NOTHING, self.entered[-self.window :]
        if len(last) >= residual.YOUNG:
            mean = math.fsum(last) / len(last)
            deviation = math.sqrt(math.fsum((y - mean) ** 2 for y in last) / len(last))
            sigma = max(deviation, least(self.past, 0.25, self.past[-1]))
            reach = zscore.BAND * sigma
            said = Said(abs(x - mean) / sigma, mean, mean - reach, mean + reach)
            entering = mean + bounded(x - mean, residual.BOUND * sigma)
        else:
            entering = x
        if learn:
            self.past.append(x)
            self.entered.append(entering)
        return said


class SlowIqr:
    """Three quantiles that step towards each reading, by more the rarer it is on that side."""

    def __init__(self, half_life: float, fence: float) -> None:
        self.gain = 1 - 0.5 ** (1 / half_life)
        self.fence = fence
        self.past: list[float] = []
        self.quartiles = np.zeros(3)

    def see(self, time_ms: int, x: float, learn: bool) -> Said:
        low, middle, high = self.quartiles
        box = max(high - low, 2 * least(self.past, 0.25, self.past[-1] if self.past else 0.0))
        said = NOTHING
        if len(self.past) >= iqr.FIT:
            said = Said(max(low - x, x - high) / box, middle, low - self.fence * box, high + self.fence * box)
        if learn:
            self.past.append(x)
            if len(self.past) == iqr.FIT:
                self.quartiles = np.quantile(self.past, [0.25, 0.5, 0.75])
            elif len(self.past) > iqr.FIT:
                stride = iqr.STRIDE * box * max(self.gain, 1 / len(self.past))
                stepped = [
                    q + (min(x - q, stride * tau) if x > q else -min(q - x, stride * (1 - tau)))
                    for q, tau in zip(self.quartiles, (0.25, 0.5, 0.75), strict=True)
                ]
                self.quartiles = np.array([min(stepped[:2]), stepped[1], max(stepped[1:])])
        return said


class SlowCusum:
    """Two sums of how far readings lie beyond the slack."""

    def __init__(self, half_life: float, slack: float) -> None:
        self.gain = 1 - 0.5 ** (1 / half_life)
        self.slack = slack
        self.residuals = SlowResiduals()
        self.mean = 0.0
        self.sums = {1: 0.0, -1: 0.0}

    def see(self, time_ms: int, x: float, learn: bool) -> Said:
        off, sigma = self.residuals, residual.SIGMA * self.residuals.spread
        ready = off.n_gaps >= residual.YOUNG
        said = off.judge(x, self.mean)
        if ready:
            beyond = max(before + side * (x - self.mean) / sigma for side, before in self.sums.items())
            said = said._replace(surprise=beyond - self.slack)
        if learn:
            if not off.past:
                self.mean = x
            else:
                gap = off.bounded(x - self.mean)
                if ready:
                    for side, before in self.sums.items():
                        self.sums[side] = min(max(before + side * gap / sigma - self.slack, 0.0), cusum.LIMIT)
                off.learn(gap)
                self.mean += gap * max(self.gain, 1 / (len(off.past) + 1))
            off.past.append(x)
        return said


def drawn(time_ms: int, season_ms: int, bins: int, offset: dict[int, float]) -> float:
    """What a season adds: straight between the middles of steps; the middle of a step is that of its readings."""
    readings_a_step = season_ms / HOUR_MS / bins
    step = time_ms % season_ms * bins // season_ms
    away = time_ms % season_ms * bins / season_ms - step - (0.5 - 0.5 / readings_a_step)
    beside = (step + (1 if away > 0 else -1)) % bins
    here = offset.get(step, 0.0)
    if readings_a_step < 2 or step not in offset or beside not in offset:
        return here
    return here + abs(away) * (offset[beside] - here)


class SlowProfile:
    """An offset for each step of each season, that takes its share of what is left."""

    def __init__(self, seasons_ms: list[int], bins: int, share: float) -> None:
        # A reading an hour; a step holds at least one.
        self.bins = {season: min(bins, season // HOUR_MS) for season in seasons_ms}
        self.gain = {season: 1 - (1 - share) ** (n * HOUR_MS / season) for season, n in self.bins.items()}
        self.offset: dict[int, dict[int, float]] = {season: {} for season in seasons_ms}
        self.visits: dict[tuple[int, int], int] = {}

    def at(self, time_ms: int, lived_ms: float = math.inf) -> float:
        bins = {season: n for season, n in self.bins.items() if lived_ms >= season}
        return sum(drawn(time_ms, season, n, self.offset[season]) for season, n in bins.items())

    def knows(self, time_ms: int) -> bool:
        return all(time_ms % season * n // season in self.offset[season] for season, n in self.bins.items())

    def learn(self, time_ms: int, gap: float) -> float:
        for season, n in self.bins.items():
            step = time_ms % season * n // season
            visits = self.visits[season, step] = self.visits.get((season, step), 0) + 1
            taken = gap * max(1 / visits, self.gain[season])
            self.offset[season][step] = self.offset[season].get(step, 0.0) + taken
            gap -= taken
        return gap


class SlowHoltWinters:
    """Level, damped trend and offsets, corrected by the error of the forecast."""

    def __init__(self, alpha: float, beta: float, gamma: float, damping: float, profile: SlowProfile) -> None:
        self.alpha, self.beta, self.damping = alpha, beta, damping
        self.profile = profile
        self.residuals = SlowResiduals()
        self.level = self.trend = 0.0
        self.time_ms = 0

    def see(self, time_ms: int, x: float, learn: bool) -> Said:
        off, known = self.residuals, self.profile.knows(time_ms)
        ahead = min(max((time_ms - self.time_ms) / HOUR_MS, 0), holt_winters.MOST_STEPS)
        level = self.level + self.damping * self.trend * ahead
        middle = level + self.profile.at(time_ms)
        said = off.judge(x, middle) if known else NOTHING
        if learn:
            if not off.past:
                self.level = x
                self.profile.learn(time_ms, 0.0)
            else:
                gap = x - middle
                if known:
                    gap = off.bounded(gap)
                    off.learn(gap)
                gap = self.profile.learn(time_ms, gap)
                self.level = level + self.alpha * gap
                self.trend = self.damping * self.trend + self.alpha * self.beta * gap
            self.time_ms = time_ms
            off.past.append(x)
        return said


class SlowQuantile:
    """`numpy.quantile` of the first readings."""

    def __init__(self, lower: float, upper: float, window: int) -> None:
        self.quantiles, self.window = (lower, upper), window
        self.past: list[float] = []

    def see(self, time_ms: int, x: float, learn: bool) -> Said:
        if len(self.past) < self.window:
            if learn:
                self.past.append(x)
            return NOTHING
        lower, upper = np.quantile(self.past, self.quantiles)
        width = max(upper - lower, 1e-3 * max(abs(lower), abs(upper)), 1e-9)
        return Said(max(lower - x, x - upper) / width, float(np.clip(x, lower, upper)), lower, upper)


class SlowAr:
    """Weights of the lags by solving the faded normal equations anew at each reading."""

    def __init__(self, order: int, half_life: float, profile: SlowProfile) -> None:
        self.order, self.keep, self.profile = order, 0.5 ** (1 / half_life), profile
        self.residuals = SlowResiduals()
        self.center = self.width = self.scale = 0.0
        self.first_ms = 0
        self.lags = np.zeros(order)  # newest first
        self.weights = np.zeros(order)
        self.normal = np.eye(order) / ar.PRIOR

    def see(self, time_ms: int, x: float, learn: bool) -> Said:
        off = self.residuals
        if learn and not off.past:
            self.center, self.first_ms = x, time_ms
        base = self.center + self.profile.at(time_ms, time_ms - self.first_ms)
        scale = max(self.scale, off.grain)
        z = np.clip(self.lags / scale, -ar.FAR, ar.FAR)
        middle = base + scale * bounded(float(self.weights @ z), ar.FAR)
        said = off.judge(x, middle)
        if learn:
            gap = off.bounded(x - middle)
            if len(off.past) >= residual.YOUNG + self.order:
                off.learn(gap)
                gap = gap if off.run <= self.order else x - middle
                self.fit(z, bounded(gap / scale, ar.FAR))
            if len(off.past) >= residual.YOUNG:
                self.lags = np.array([middle + gap - base, *self.lags[:-1]])
            share, away = 1 / (len(off.past) + 1), x - base
            beyond = abs(away) - self.scale
            self.scale += min(beyond * max(ar.RISE_GAIN if beyond > 0 else ar.FALL_GAIN, share), scale)
            if len(off.past) > residual.YOUNG:
                away = bounded(away, residual.BOUND * max(self.width, off.grain))
            self.center += away * max(ar.CENTER_GAIN, share)
            self.width += (abs(away) - self.width) * max(ar.WIDTH_GAIN, share)
            self.profile.learn(time_ms, away)
            off.past.append(x)
        return said

    def fit(self, z: np.ndarray, error: float) -> None:
        square = np.outer(z, z)
        fades = np.trace(np.linalg.inv(self.normal)) < ar.WOUND_UP * self.order
        self.weights = self.weights + np.linalg.solve(self.keep * self.normal + square, z) * error
        self.normal = self.keep * self.normal + square if fades else self.normal + square / self.keep


class SlowSeason:
    """The part of a reading that repeats: closed steps in a list, and what is made of them."""

    def __init__(self, season_ms: int, bins: int, half_life: float) -> None:
        self.season_ms, self.bins = season_ms, min(bins, season_ms // HOUR_MS)
        self.gain = 1 - 0.5 ** (1 / half_life)
        self.closed: list[int] = []
        self.latest: dict[int, float] = {}
        self.offset: dict[int, float] = {}
        self.open: list[float] = []
        self.step = 0
        self.first_ms: int | None = None
        self.round = False

    def at(self, time_ms: int) -> float:
        return drawn(time_ms, self.season_ms, self.bins, self.offset) if self.round else 0.0

    def learn(self, time_ms: int, x: float) -> None:
        step = time_ms % self.season_ms * self.bins // self.season_ms
        if self.first_ms is None:
            self.first_ms = time_ms
        elif step != self.step:
            self.close(time_ms - self.first_ms >= self.season_ms)
            self.open = []
        self.step = step
        self.open.append(x)

    def close(self, over: bool) -> None:
        self.closed.append(self.step)
        self.latest[self.step] = sum(self.open) / len(self.open)
        middle = sum(self.latest.values()) / len(self.latest)
        if self.round:
            share = max(1 / self.closed.count(self.step), self.gain)
            before = self.offset.get(self.step, 0.0)
            self.offset[self.step] = before + share * (self.latest[self.step] - middle - before)
        elif over:
            self.round = True
            self.offset = {step: mean - middle for step, mean in self.latest.items()}


class SlowStl:
    """A weighted mean of the last readings without their seasons, and the seasons."""

    def __init__(self, trend: int, seasons: list[SlowSeason]) -> None:
        self.trend, self.seasons = trend, seasons
        self.residuals = SlowResiduals()
        self.calm: list[float] = []  # readings without season, and with less of what was too much

    def see(self, time_ms: int, x: float, learn: bool) -> Said:
        off, offsets = self.residuals, [season.at(time_ms) for season in self.seasons]
        last = self.calm[: -self.trend - 1 : -1]
        weights = [(1 - (age / self.trend) ** 3) ** 3 for age in range(len(last))]
        trend = float(np.average(last, weights=weights)) if last else x - sum(offsets)
        middle = trend + sum(offsets)
        known = not self.seasons or any(season.round for season in self.seasons)
        said = off.judge(x, middle) if known else NOTHING
        if learn:
            gap = off.bounded(x - middle)
            if self.calm:
                off.learn(gap)
            self.calm.append(trend + gap)
            for season, offset in zip(self.seasons, offsets, strict=True):
                season.learn(time_ms, trend + gap + offset)
            off.past.append(x)
        return said


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("window", [16, 240])
def test_zscore_is_mean_and_deviation_of_a_window(window: int, seed: int) -> None:
    """`zscore` equals the statistics of a list of the last readings, of windows that slide often and seldom."""
    agree_exactly(zscore.Zscore(window, 60), lambda: SlowZscore(window), readings(seed), 1e-7)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("half_life", "fence"), [(3.0, 3.0), (240.0, 1.5)])
def test_iqr_is_three_quantiles_that_step(half_life: float, fence: float, seed: int) -> None:
    """`iqr` equals its slow version on eight interleaved series of every shape."""
    agree_exactly(iqr.Iqr(half_life, fence, 60), lambda: SlowIqr(half_life, fence), readings(seed))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("method", "patience"), [("cusum", 1), ("page_hinkley", cusum.PATIENCE)])
def test_cusum_is_two_sums(method: str, patience: float, seed: int) -> None:
    """`cusum` equals its slow version, by both methods."""
    agree_exactly(cusum.Cusum(method, 30, 0.5, 60), lambda: SlowCusum(30 * patience, 0.5), readings(seed))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("seasons_ms", "bins"), SEASONS)
def test_holt_winters_is_level_trend_and_season(seasons_ms: list[int], bins: int, seed: int) -> None:
    """`holt_winters` equals its slow version, with no season, one and two."""
    shares = (0.2, 0.1, 0.3, 0.9)
    model = holt_winters.HoltWinters(*shares, bins, None, seasons_ms, HOUR_MS)
    agree_exactly(model, lambda: SlowHoltWinters(*shares, SlowProfile(seasons_ms, bins, 0.3)), readings(seed))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("lower", "upper", "window"), [(0.005, 0.995, 300), (0.0, 1.0, 20), (0.5, 0.5, 31)])
def test_quantile_is_numpys(lower: float, upper: float, window: int, seed: int) -> None:
    """`quantile` equals `numpy.quantile` of the training window, at the extremes and in the middle, too."""
    model = quantile.Quantile(lower, upper, window)
    agree_exactly(model, lambda: SlowQuantile(lower, upper, window), readings(seed))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("seasons_ms", "bins"), SEASONS)
def test_stl_takes_a_reading_apart(seasons_ms: list[int], bins: int, seed: int) -> None:
    """`stl` equals its slow version, with steps of one reading and of several, with no season, one and two."""
    model = stl.Stl(30, 2.0, bins, None, seasons_ms, HOUR_MS)
    agree_exactly(model, lambda: SlowStl(30, [SlowSeason(season, bins, 2.0) for season in seasons_ms]), readings(seed))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("order", "seasons_ms", "bins"), [(1, [], 48), (8, [DAY_MS], 24), (3, [DAY_MS, WEEK_MS], 6)])
def test_ar_solves_the_normal_equations(order: int, seasons_ms: list[int], bins: int, seed: int) -> None:
    """`ar` equals least squares solved anew at each reading, with no season, one and two."""
    model = ar.Ar(order, 100.0, bins, 60, seasons_ms, HOUR_MS)
    agree_exactly(model, lambda: SlowAr(order, 100.0, SlowProfile(seasons_ms, bins, 0.13)), readings(seed), 1e-6)


def judged(kind: str, value: np.ndarray, seasons_ms: tuple[int, ...] = (), **parameters: float | str) -> Judgement:
    """What a model says of one series, a reading a minute."""
    model = build(ModelSpec.model_validate({"kind": kind, kind: parameters}), seasons_ms, MINUTE_MS)
    out = Judgement.blank(len(value))
    model.resize(1)
    times = np.arange(len(value), dtype=np.int64) * MINUTE_MS
    model.observe(np.zeros(len(value), np.int32), times, value, np.isfinite(value), out)
    return out


def noise(n: int, seed: int = 0) -> np.ndarray:
    return 100 + np.random.default_rng(seed).normal(0, 2, n)


@pytest.mark.parametrize("kind", [*FORECASTERS, "quantile"])
def test_an_incident_is_seen_to_its_end_and_forgotten(kind: str) -> None:
    """A burst of wild readings does not hide the next outlier, nor leave the band off the signal."""
    value = noise(2400)
    value[1800:1810] += 100.0 * (-1.0) ** np.arange(10)
    value[1900] += 60.0
    out = judged(kind, value, **{"window": 1440} if kind == "quantile" else {})
    calm = np.r_[1500:1800, 1950:2400]
    assert out.surprise[1900] > np.max(out.surprise[calm])
    assert np.min(out.surprise[1800:1810]) > np.quantile(out.surprise[calm], 0.99)
    assert np.abs(out.expected[1950:] - 100).max() < 8
    assert np.max(out.upper[1950:] - out.lower[1950:]) < 2.5 * np.max(out.upper[1600:1800] - out.lower[1600:1800])


@pytest.mark.parametrize("kind", FORECASTERS)
def test_a_lasting_shift_becomes_the_new_normal(kind: str) -> None:
    """A level thirty deviations away is inside the band a day later, and the band is as narrow as before."""
    value = noise(1500 + 1440)
    value[1500:] += 60.0
    out = judged(kind, value, **{"half_life": 60.0} if kind == "iqr" else {})
    late = slice(-200, None)
    assert out.surprise[1500] > 2 * np.max(out.surprise[1000:1500])
    assert np.mean((value[late] >= out.lower[late]) & (value[late] <= out.upper[late])) > 0.9
    assert np.median(out.upper[late] - out.lower[late]) < 2 * np.median((out.upper - out.lower)[1000:1500])


@pytest.mark.parametrize("kind", ["cusum", "holt_winters", "stl", "ar"])
def test_a_signal_that_comes_to_life_is_soon_inside_the_band(kind: str) -> None:
    """Noise ten thousand times as strong as before is inside the band two hours later."""
    value = noise(2400)
    value[:1800] = 100 + 1e-4 * (value[:1800] - 100)
    out = judged(kind, value)
    assert out.surprise[1800] > 1000
    late = slice(1920, None)
    assert np.mean((value[late] >= out.lower[late]) & (value[late] <= out.upper[late])) > 0.97


def test_quantile_never_forgets_what_normal_was() -> None:
    """Of a signal that has moved for good the trained limits say so for ever."""
    value = noise(4000)
    value[2000:] += 30
    assert np.min(judged("quantile", value).surprise[2000:]) > 0.5


@pytest.mark.parametrize("method", ["cusum", "page_hinkley"])
def test_cusum_finds_a_shift_that_no_reading_gives_away(method: str) -> None:
    """A shift of one deviation is beyond all of a calm day within thirty readings; a z-score does not see it."""
    found = seen = 0
    for seed in range(20):
        value = noise(1440 + 60, seed)
        value[1440:] += 2.0
        for kind, parameters in (("cusum", {"method": method}), ("zscore", {})):
            surprise = judged(kind, value, **parameters).surprise
            beyond = bool(np.max(surprise[1440:1470]) > np.max(surprise[60:1440]))
            found += beyond and kind == "cusum"
            seen += beyond and kind == "zscore"
    assert found >= 15
    assert seen <= 5


def test_page_hinkley_has_the_longer_memory() -> None:
    """A shift stays news several times as long as by the other method, because the reference gives way more slowly."""
    value = noise(6000)
    value[3000:] += 4.0
    news = []
    for method in ("cusum", "page_hinkley"):
        surprise = judged("cusum", value, method=method, half_life=120.0).surprise
        news.append(int((surprise[3000:] > np.max(surprise[1000:3000])).sum()))
    assert 100 < news[0] < 1000
    assert news[1] > 3 * news[0]


def test_iqr_finds_the_quartiles_of_skewed_readings() -> None:
    """On log-normal readings the box is that of the distribution, within a tenth."""
    value = np.exp(np.random.default_rng(3).normal(0, 1, 60_000))
    out = judged("iqr", value, half_life=2000.0, fence=1.0)
    low, middle, high = np.exp([-0.6745, 0, 0.6745])
    box = high - low
    late = slice(30_000, None)
    assert np.mean(out.expected[late]) == pytest.approx(middle, rel=0.1)
    assert np.mean(out.lower[late]) == pytest.approx(low - box, rel=0.1)
    assert np.mean(out.upper[late]) == pytest.approx(high + box, rel=0.1)


def wave(n: int, per_day: float = 0.0) -> np.ndarray:
    """A day's curve with a sharp morning, on a line."""
    minutes = np.arange(n)
    day = minutes * 2 * np.pi / 1440
    return 200 + 40 * np.sin(day) + 15 * np.cos(2 * day) + minutes * per_day / 1440


@pytest.mark.parametrize("kind", ["holt_winters", "stl", "ar"])
@pytest.mark.parametrize("per_day", [0.0, 20.0])
def test_season_and_trend_are_expected(kind: str, per_day: float) -> None:
    """After a week what is expected is the curve without its noise, on a level and on a line, also after a spike."""
    truth = wave(7 * 1440, per_day)
    value = truth + np.random.default_rng(1).normal(0, 3, len(truth))
    value[5 * 1440 : 5 * 1440 + 20] += 300
    out = judged(kind, value, (DAY_MS,))
    late = slice(6 * 1440, None)
    assert np.sqrt(np.mean((out.expected[late] - truth[late]) ** 2)) < 2.0
    assert np.mean((value[late] >= out.lower[late]) & (value[late] <= out.upper[late])) > 0.97


def test_stl_follows_a_level_that_steps_under_a_season() -> None:
    """Where `seasonal` takes a day for a new level, the trend of `stl` takes two hours."""
    truth = wave(6 * 1440)
    truth[5 * 1440 :] += 30
    value = truth + np.random.default_rng(2).normal(0, 3, len(truth))
    after = slice(5 * 1440 + 120, 5 * 1440 + 240)
    off = {kind: np.abs(judged(kind, value, (DAY_MS,)).expected - truth)[after].mean() for kind in ("stl", "seasonal")}
    assert off["stl"] < 4
    assert off["seasonal"] > 2 * off["stl"]


def second_order(n: int) -> np.ndarray:
    """An AR(2) process whose innovations have deviation 1."""
    shocks = np.random.default_rng(4).normal(0, 1, n)
    value = np.zeros(n)
    for i in range(2, n):
        value[i] = 1.5 * value[i - 1] - 0.7 * value[i - 2] + shocks[i]
    return value


def test_ar_finds_the_weights_of_its_process() -> None:
    """Of a simulated AR(2) the error of the forecast is the innovation, and its weights are those of the process."""
    value = second_order(20_000)
    model = ar.Ar(2, 5000.0, 48, 120, (), MINUTE_MS)
    model.resize(1)
    out = Judgement.blank(len(value))
    times = np.arange(len(value), dtype=np.int64) * MINUTE_MS
    model.observe(np.zeros(len(value), np.int32), times, value, np.ones(len(value), bool), out)
    np.testing.assert_allclose(model.snapshot()["weights"][0], [1.5, -0.7, 0, 0, 0, 0, 0, 0], atol=0.05)
    assert np.std(value[10_000:] - out.expected[10_000:]) == pytest.approx(1.0, rel=0.05)


def test_ar_keeps_its_footing_in_a_constant() -> None:
    """A signal that stands still for a week is forecast as well as before when it moves again."""
    moving = second_order(2000)
    value = np.concatenate([moving, np.full(10_000, moving[-1]), moving[::-1]])
    off = np.abs(judged("ar", value, half_life=200.0).expected - value)
    assert off[-1000:].mean() < 1.2 * off[1000:2000].mean()


def test_quantiles_that_would_cost_too_much_are_refused() -> None:
    """Limits that keep more than 500 readings a side name the window, the number and the remedy."""
    with pytest.raises(ValueError, match=r"window 20000 has more than 500 readings.*0.95: take a shorter window"):
        ModelSpec.model_validate({"kind": "quantile", "quantile": {"window": 20_000, "upper": 0.95}})
