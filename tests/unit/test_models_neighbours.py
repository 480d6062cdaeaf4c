"""The models of neighbours, tails and sub-spaces against slow versions, and what each promises on data made for it.

The slow versions keep the whole past of a series and search it anew for each reading. Where the models
compare in float32, so do they, or a tie at a threshold would fall the other way.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from tidewarden.models import (
    dbscan,
    ecod,
    features,
    histogram,
    histograms,
    knn,
    lags,
    lof,
    mahalanobis,
    matrix_profile,
    one_class_svm,
    past,
    pca,
    subspace,
)
from tidewarden.models.band import BAND_ROW, band_deviation, band_learn, band_of
from tidewarden.models.contract import Judgement, Model
from unit.slow_models import HOUR_MS, NOTHING, Said, agree, readings

SEEDS = range(2)


class Band:
    """The band of one series; that it is right is tested with the band."""

    def __init__(self) -> None:
        self.row = np.zeros(BAND_ROW)
        self.count = 0

    def learn(self, x: float) -> None:
        band_learn(self.row, x)
        self.count += 1

    @property
    def middle(self) -> float:
        return float(self.row[1])

    @property
    def spread(self) -> float:
        return 1.2533 * float(band_deviation(self.row))

    def said(self, surprise: float) -> Said:
        return Said(surprise, *band_of(self.row))


class Past:
    """All readings of a series; `windows` are those still remembered, in the units of the last settling."""

    def __init__(self, history: int, window: int) -> None:
        self.history, self.window = history, window
        self.band = Band()
        self.readings: list[float] = []
        self.forgotten = self.settled = 0
        self.base = self.unit = math.nan

    def learn(self, x: float) -> bool:
        """Whether units are new."""
        self.band.learn(x)
        self.readings.append(x)
        full = len(self.readings) - self.forgotten == self.history + self.window - 1 + past.SLACK
        if full:
            self.forgotten += past.SLACK
        fill = len(self.readings) - self.forgotten
        since = fill - self.settled
        grown = self.settled > 0 and self.band.spread > 2 * self.unit and since >= past.FIRST
        due = full or since >= max(past.FIRST, min(past.SLACK, fill // 4)) or grown
        if due:
            self.base, self.unit, self.settled = self.band.middle, self.band.spread, fill
        return due

    def units(self, readings: list[float], bound: float = past.BOUND) -> np.ndarray:
        return np.clip((np.array(readings) - self.base) / self.unit, -bound, bound).astype(np.float32)

    def windows(self) -> np.ndarray:
        """Remembered windows, a row each, oldest first."""
        remembered = self.units(self.readings[self.forgotten :])
        if not self.settled or len(remembered) < self.window:
            return np.empty((0, self.window), np.float32)
        return sliding_window_view(remembered, self.window)[-self.history :]

    def query(self, x: float) -> np.ndarray:
        before = self.readings[-(self.window - 1) :] if self.window > 1 else []
        return np.concatenate([self.units(before), self.units([x], past.FAR)])


def squared(windows: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Squared distances in float32, the newest reading's part first."""
    gaps = (windows - query) ** 2
    total = gaps[:, -1].copy()
    for j in range(gaps.shape[1] - 1):
        total += gaps[:, j]
    return total


class SlowKnn:
    def __init__(self, k: int, window: int, history: int) -> None:
        self.k, self.past = k, Past(history, window)

    def see(self, time_ms: int, x: float, learn: bool) -> Said:
        said, windows = NOTHING, self.past.windows()
        if len(windows) >= max(self.k, knn.FEWEST):
            kth = np.sort(squared(windows, self.past.query(x)))[self.k - 1]
            said = self.past.band.said(0.5 * math.log(kth + past.NEAREST))
        if learn:
            self.past.learn(x)
        return said


class SlowLof:
    """Breunig's definitions, over the windows that were remembered at the last settling."""

    def __init__(self, k: int, window: int, history: int) -> None:
        self.k, self.past = k, Past(history, window)
        self.reference = np.empty((0, window), np.float32)

    def reach(self, squares: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean reachability distance from the k nearest, and which these are."""
        nearest = np.argsort(squares, kind="stable")[: self.k]
        return float(np.mean(np.maximum(np.sqrt(squares[nearest]), self.k_distance[nearest]))) + lof.SAME, nearest

    def refer(self) -> None:
        self.reference = self.past.windows()
        if len(self.reference) > 2 * self.k:
            pairs = np.array([squared(self.reference, one) for one in self.reference])
            np.fill_diagonal(pairs, np.inf)
            self.k_distance = np.sqrt(np.sort(pairs, axis=1)[:, self.k - 1])
            self.mean_reach = np.array([self.reach(row)[0] for row in pairs])

    def see(self, time_ms: int, x: float, learn: bool) -> Said:
        said = NOTHING
        if len(self.reference) > 2 * self.k:
            mine, nearest = self.reach(squared(self.reference, self.past.query(x)))
            said = self.past.band.said(math.log(np.mean(1 / self.mean_reach[nearest]) * mine))
        if learn and self.past.learn(x):
            self.refer()
        return said


class SlowDbscan:
    def __init__(self, eps: float, min_samples: int, window: int, history: int) -> None:
        self.eps, self.min_samples, self.past = eps, min_samples, Past(history, window)
        self.reference = self.cores = np.empty((0, window), np.float32)

    def see(self, time_ms: int, x: float, learn: bool) -> Said:
        said = NOTHING
        if len(self.reference) > self.min_samples:
            query = self.past.query(x)
            if len(self.cores):
                ratio = (squared(self.cores, query).min() + past.NEAREST) / (self.eps**2 + past.NEAREST)
                said = self.past.band.said(0.5 * math.log(ratio))
            else:
                said = self.past.band.said(math.log1p(math.sqrt(squared(self.reference, query).min()) / self.eps))
        if learn and self.past.learn(x):
            self.reference = self.past.windows()
            near = [int((squared(self.reference, one) <= np.float32(self.eps**2)).sum()) for one in self.reference]
            self.cores = self.reference[np.array(near, int) >= self.min_samples]
        return said


class SlowMatrixProfile:
    """Every window normalised, every distance from its definition."""

    def __init__(self, window: int, history: int) -> None:
        self.window, self.exclusion = window, max(1, window // 2)
        self.history = history
        self.past = Past(history + self.exclusion, window)

    def normal(self, windows: np.ndarray, newest: float | np.ndarray) -> np.ndarray:
        """Windows, a row each, by their mean and deviation with the last value bounded; then that value in full."""
        bounded, full = windows.astype(float), windows.astype(float)
        bounded[..., -1], full[..., -1] = np.clip(newest, -past.BOUND, past.BOUND), newest
        deviation = np.maximum(bounded.std(axis=-1, keepdims=True), matrix_profile.FLAT)
        return (full - bounded.mean(axis=-1, keepdims=True)) / deviation

    def see(self, time_ms: int, x: float, learn: bool) -> Said:
        said, memory = NOTHING, self.past
        if memory.settled > self.window:
            remembered = memory.units(memory.readings[memory.forgotten :])
            fill = len(remembered)
            newest = min(max((x - memory.base) / memory.unit, -past.FAR), past.FAR)
            mine = self.normal(np.array([*remembered[fill - self.window + 1 :], 0.0]), newest)
            ends = range(max(self.window, fill - self.exclusion - self.history + 1), fill - self.exclusion + 1)
            if len(ends) >= 2 * self.window:
                others = sliding_window_view(remembered, self.window)[ends.start - self.window + 1 :][: len(ends)]
                nearest = float(((self.normal(others, others[:, -1]) - mine) ** 2).sum(axis=1).min())
                said = memory.band.said(0.5 * math.log(nearest + matrix_profile.SAME))
        if learn:
            memory.learn(x)
        return said


class SlowLooks:
    """Value, step and departure from a trailing mean; of the past, bounded."""

    def __init__(self) -> None:
        self.band = Band()
        self.last = self.trailing = 0.0
        self.looks: list[np.ndarray] = []

    def look(self, x: float) -> np.ndarray:
        return np.array([x, x - self.last, x - self.trailing])

    def learn(self, x: float) -> None:
        if self.band.count >= 8:
            reach = 10 * self.band.spread / 1.2533
            x = min(max(x, self.band.middle - reach), self.band.middle + reach)
        if not self.looks:
            self.last = self.trailing = x
        self.looks.append(self.look(x))
        self.last, self.trailing = x, self.trailing + features.TRAIL * (x - self.trailing)


class SlowEcod:
    """The three sums of Li 2022 over the last readings, in the order of the paper."""

    def __init__(self, history: int) -> None:
        self.history, self.looks = history, SlowLooks()
        self.skewed_left = np.zeros(3, bool)

    def tail(self, past_values: np.ndarray, v: float) -> float:
        """-log of the left tail's probability, ``v`` among the values; beyond them, more by the distance."""
        p = (1 + (past_values <= v).sum()) / (1 + len(past_values))
        beyond = max((past_values.min() - v) / self.looks.band.spread, 0.0)
        return float(-math.log(p) + math.log1p(min(beyond, ecod.FAR)))

    def see(self, time_ms: int, x: float, learn: bool) -> Said:
        said, looks = NOTHING, self.looks
        if len(looks.looks) >= ecod.FEWEST:
            rows = np.array(looks.looks[-self.history :]).T
            left = np.array([self.tail(row, v) for row, v in zip(rows, looks.look(x), strict=True)])
            right = np.array([self.tail(-row, -v) for row, v in zip(rows, looks.look(x), strict=True)])
            auto = np.where(self.skewed_left, left, right)
            said = looks.band.said(max(left.sum(), right.sum(), auto.sum()))
        if learn:
            looks.learn(x)
            if len(looks.looks) % ecod.SKEW_EVERY == 0:
                rows = np.array(looks.looks[-self.history :]).T
                gaps = rows - rows.mean(axis=1, keepdims=True)
                self.skewed_left = ((gaps / (np.abs(gaps).max(axis=1, keepdims=True) + 1e-300)) ** 3).sum(axis=1) < 0
            looks.band.learn(x)
        return said


class SlowHistogram:
    """Counts the past values that share the bin of a reading, on a grid that doubles its width."""

    def __init__(self) -> None:
        self.looks = SlowLooks()
        self.counted: list[list[float]] = [[], [], []]
        self.start, self.width = [-histogram.START] * 3, [2 * histogram.START / histograms.BINS] * 3
        self.mass = 0
        self.base = self.unit = math.nan

    def in_units(self, look: np.ndarray) -> np.ndarray:
        return np.clip((look - [self.base, 0, 0]) / self.unit, -histogram.FAR, histogram.FAR)

    def bin(self, j: int, v: float) -> int:
        return math.floor((v - self.start[j]) / self.width[j])

    def see(self, time_ms: int, x: float, learn: bool) -> Said:
        said, looks, bins = NOTHING, self.looks, histograms.BINS
        if self.mass >= histogram.FEWEST:
            total = 0.0
            for j, v in enumerate(self.in_units(looks.look(x))):
                b = self.bin(j, v)
                inside = 0 <= b < bins
                count = sum(self.bin(j, u) == b for u in self.counted[j]) if inside else 0
                all_counts = self.mass + bins * histogram.PSEUDO
                total -= math.log((count + histogram.PSEUDO) / all_counts / self.width[j])
                if not inside:
                    beyond = self.start[j] - v if b < 0 else v - self.start[j] - bins * self.width[j]
                    total += math.log(2) * (1 + int(math.log2(1 + max(beyond, 0.0) / (bins * self.width[j]))))
            said = looks.band.said(total)
        if learn:
            if looks.band.count == histogram.FIT:
                self.base, self.unit = looks.band.middle, looks.band.spread
            looks.learn(x)
            if looks.band.count >= histogram.FIT:
                self.mass += 1
                for j, v in enumerate(self.in_units(looks.looks[-1])):
                    self.count(j, float(v))
            looks.band.learn(x)
        return said

    def count(self, j: int, v: float) -> None:
        if not 0 <= self.bin(j, v) < histograms.BINS:
            if v < self.start[j]:
                self.start[j] -= histograms.BINS * self.width[j]
            self.width[j] *= 2
        if 0 <= self.bin(j, v) < histograms.BINS:
            self.counted[j].append(v)


class SlowLags:
    """The last readings in spreads, newest first; None while there are too few."""

    def __init__(self, window: int) -> None:
        self.window, self.band = window, Band()
        self.readings: list[float] = []

    def vector(self, x: float) -> np.ndarray | None:
        if len(self.readings) < max(self.window, 8):
            return None
        before = self.readings[: -self.window : -1] if self.window > 1 else []
        v = (np.array([x, *before]) - self.band.middle) / self.band.spread
        return np.array([np.clip(v[0], -lags.FAR, lags.FAR), *np.clip(v[1:], -lags.BOUND, lags.BOUND)])

    def learn(self, x: float) -> None:
        self.readings.append(x)
        self.band.learn(x)


class SlowMahalanobis:
    """Covariance of all tamed windows with fading weights; Ledoit and Wolf's formula; a matrix inverse."""

    def __init__(self, window: int) -> None:
        self.p, self.lags = window, SlowLags(window)
        self.tamed: list[np.ndarray] = []
        self.inverse: np.ndarray | None = None

    def see(self, time_ms: int, x: float, learn: bool) -> Said:
        said, w, distance = NOTHING, self.lags.vector(x), 0.0
        if self.inverse is not None and w is not None:
            distance = float(w @ self.inverse @ w) / self.p
            said = self.lags.band.said(0.5 * math.log(distance + mahalanobis.SMALLEST))
        if learn:
            if w is not None:
                self.tamed.append(w * min(1.0, math.sqrt(mahalanobis.LIMIT / max(distance, 1e-300))))
                if len(self.tamed) >= 2 * self.p and len(self.tamed) % mahalanobis.REFRESH == 0:
                    self.invert()
            self.lags.learn(x)
        return said

    def invert(self) -> None:
        n = len(self.tamed)
        assert n < mahalanobis.MEMORY, "all windows weigh alike"
        windows = np.array(self.tamed)
        covariance = windows.T @ windows / n
        mu = np.trace(covariance) / self.p
        target = mu * np.eye(self.p)
        from_target = ((covariance - target) ** 2).sum()
        noise = sum(((np.outer(one, one) - covariance) ** 2).sum() for one in windows) / n**2
        share = min(noise / from_target, 1.0) if from_target > 1e-12 * mu**2 else 0.0
        self.inverse = np.linalg.inv((1 - share) * covariance + share * target + mahalanobis.RIDGE * np.eye(self.p))


class SlowOneClassSvm:
    """Stochastic gradient descent on half the squared norm - rho + mean(max(0, rho - w·phi)) / nu."""

    def __init__(self, nu: float, window: int, n_features: int, seed: int) -> None:
        self.nu, self.lags = nu, SlowLags(window)
        self.turns, self.phases = one_class_svm.frequencies(window, 1 / window, n_features, seed)
        self.w, self.rho, self.n = np.zeros(n_features), 0.0, 0

    def see(self, time_ms: int, x: float, learn: bool) -> Said:
        said, v = NOTHING, self.lags.vector(x)
        if v is not None:
            near = np.clip(v, -lags.BOUND, lags.BOUND)
            phi = math.sqrt(2 / len(self.w)) * np.cos(2 * np.pi * (near @ self.turns + self.phases))
            along = float(self.w @ phi)
            if self.n >= one_class_svm.FEWEST:
                beyond = math.log1p(max(abs(float(v[0])) - lags.BOUND, 0.0))
                margin = max(self.rho, one_class_svm.SMALLEST)
                said = self.lags.band.said((self.rho - along) / margin + beyond)
            if learn:
                self.n += 1
                step = max(1 / (self.n + 1), one_class_svm.GAIN)
                outside = along < self.rho
                self.w = self.w - step * (self.w - outside * phi / self.nu)
                self.rho = self.rho + step * (1 - outside / self.nu)
        if learn:
            self.lags.learn(x)
        return said


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("k", "window", "history"), [(1, 1, 64), (5, 3, 128), (8, 6, 600)])
def test_knn_is_the_kth_smallest_distance(k: int, window: int, history: int, seed: int) -> None:
    """`knn` equals sorting the distances from all remembered windows, also where memory is full and moves on."""
    agree(knn.Knn(k, window, history, 60), lambda: SlowKnn(k, window, history), readings(seed), rtol=1e-5)


@pytest.mark.parametrize(("k", "window", "history"), [(2, 1, 64), (10, 3, 128)])
def test_lof_is_breunigs(k: int, window: int, history: int) -> None:
    """`lof` equals the local outlier factor from its definition."""
    agree(lof.Lof(k, window, history, 60), lambda: SlowLof(k, window, history), readings(0, 300), rtol=1e-4)


@pytest.mark.parametrize(("eps", "min_samples", "window"), [(0.5, 5, 2), (0.1, 30, 1), (2.0, 3, 4)])
def test_dbscan_is_the_distance_to_the_nearest_core(eps: float, min_samples: int, window: int) -> None:
    """`dbscan` equals a search for cores by definition, with many cores, few and none."""
    model = dbscan.Dbscan(eps, min_samples, window, 100, 60)
    agree(model, lambda: SlowDbscan(eps, min_samples, window, 100), readings(0), rtol=1e-4)


@pytest.mark.parametrize(("window", "history"), [(4, 64), (24, 100)])
def test_matrix_profile_is_the_nearest_normalised_window(window: int, history: int) -> None:
    """`matrix_profile` equals normalising every window and measuring every distance, reading after reading."""
    model = matrix_profile.MatrixProfile(window, history, 60)
    agree(model, lambda: SlowMatrixProfile(window, history), readings(0, 300), rtol=2e-3)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("history", [32, 256])
def test_ecod_is_the_papers(history: int, seed: int) -> None:
    """`ecod` equals the paper's three sums of tail probabilities, and goes on beyond the extremes."""
    agree(ecod.Ecod(history, 60), lambda: SlowEcod(history), readings(seed, 400))


@pytest.mark.parametrize("seed", SEEDS)
def test_histogram_counts_who_shares_the_bin(seed: int) -> None:
    """`histogram` equals counting past values in the bin of each feature, while the bins widen."""
    agree(histogram.Histogram(10_000, 60), SlowHistogram, readings(seed, 300), rtol=1e-5)


@pytest.mark.parametrize("window", [1, 5, 8])
def test_mahalanobis_is_a_shrunk_covariance(window: int) -> None:
    """`mahalanobis` equals Ledoit and Wolf's estimator over all windows, those too far out drawn in."""
    agree(mahalanobis.Mahalanobis(window, 60), lambda: SlowMahalanobis(window), readings(0, 400), rtol=1e-5)


@pytest.mark.parametrize(("nu", "window"), [(0.1, 4), (0.5, 1)])
def test_one_class_svm_is_gradient_descent(nu: float, window: int) -> None:
    """`one_class_svm` equals descent in plain numpy with numpy's own cosine."""
    model = one_class_svm.OneClassSvm(nu, None, window, 64, 0, 60)
    agree(model, lambda: SlowOneClassSvm(nu, window, 64, 0), readings(0), rtol=1e-4)


def said(model: Model, value: np.ndarray) -> Judgement:
    """What a model says of one series, one reading an hour."""
    model.resize(1)
    out = Judgement.blank(len(value))
    timestamp = np.arange(len(value), dtype=np.int64) * HOUR_MS
    model.observe(np.zeros(len(value), np.int32), timestamp, value, np.isfinite(value), out)
    return out


def test_pca_is_the_subspace_with_a_band() -> None:
    """`pca` says what `subspace` says to the last bit, and has a band wherever it speaks."""
    data = readings(0)
    ours, theirs = Judgement.blank(len(data.series)), Judgement.blank(len(data.series))
    for model, out in ((pca.Pca(60), ours), (subspace.Subspace(60), theirs)):
        model.resize(8)
        model.observe(*data, out)
    assert ours.surprise.tobytes() == theirs.surprise.tobytes()
    spoken = np.isfinite(ours.surprise)
    assert spoken.any()
    assert (ours.lower[spoken] < ours.upper[spoken]).all()
    assert np.isnan(ours.expected[~spoken]).all()


def test_a_second_outlier_of_a_kind_is_no_neighbour_yet() -> None:
    """With k = 5 the fourth outlier of a kind surprises `knn` as the first did; with k = 1 the first vouches for it."""
    value = np.random.default_rng(0).normal(100, 5, 500)
    value[[300, 330, 360, 390]] = 150.0
    for k, still in ((5, True), (1, False)):
        surprise = said(knn.Knn(k, 1, 256, 60), value).surprise
        assert (surprise[390] > surprise[300] - 0.1) == still


def test_lof_judges_by_the_neighbourhood() -> None:
    """The same distance is more surprising from a tight cloud than from a wide one, where `knn` says the opposite."""
    rng = np.random.default_rng(0)
    calm, lively = rng.normal(0, 0.2, 600), rng.normal(30, 5, 600)
    value = np.where(np.arange(600) % 2, calm, lively)
    from_tight, from_wide = value.copy(), value.copy()
    from_tight[500], from_wide[500] = calm.min() - 6, lively.max() + 6
    for model, sign in ((lof.Lof, 1), (knn.Knn, -1)):
        tight, wide = (said(model(10, 1, 256, 60), v).surprise[500] for v in (from_tight, from_wide))
        assert sign * (tight - wide) > 0.3


def test_dbscan_calls_noise_what_is_beyond_reach() -> None:
    """Surprise is above 0 exactly where no core is within eps: of a normal some percents, of an outlier always."""
    value = np.random.default_rng(0).normal(100, 5, 2000)
    value[1500] = 160.0
    surprise = said(dbscan.Dbscan(0.5, 5, 1, 256, 60), value).surprise
    assert 0.001 < (surprise[300:] > 0).mean() < 0.1
    assert surprise[1500] > 2.0


def test_matrix_profile_misses_a_shape() -> None:
    """A wave that pauses at an ordinary level is a shape that never came, and size and level of a wave are none."""
    hour = np.arange(1200)
    wave = np.sin(2 * np.pi * hour / 48) + np.random.default_rng(0).normal(0, 0.05, 1200)
    paused = wave.copy()
    paused[800:824] = wave[800]
    surprise = said(matrix_profile.MatrixProfile(24, 256, 120), paused).surprise
    assert surprise[800:824].max() > np.nanmax(surprise[300:800]) + 0.5
    doubled = wave.copy()
    doubled[800:] = 2 * wave[800:] + 0.5
    surprise = said(matrix_profile.MatrixProfile(24, 256, 120), doubled).surprise
    assert np.median(surprise[850:900]) < np.nanmax(surprise[300:800])


def test_ecod_ranks_records() -> None:
    """Beyond all that was seen, the higher of two values is still the more surprising one."""
    value = np.random.default_rng(0).normal(0, 1, 300)
    surprises = [said(ecod.Ecod(256, 60), np.append(value, top)).surprise[-1] for top in (5.0, 10.0, 100.0)]
    assert surprises == sorted(surprises)
    assert surprises[0] < surprises[1] < surprises[2]


def test_histogram_takes_in_a_lasting_change() -> None:
    """A hundred readings after a shift by a hundred spreads the new level is ordinary, and so is the old one."""
    rng = np.random.default_rng(0)
    value = np.concatenate([rng.normal(0, 1, 400), rng.normal(100, 1, 400)])
    surprise = said(histogram.Histogram(2000, 60), value).surprise
    ordinary = np.nanquantile(surprise[200:400], 0.98)
    assert surprise[400] > ordinary + 5.0
    assert np.median(surprise[500:]) < ordinary


def test_mahalanobis_minds_a_step_within_the_range() -> None:
    """In a slow wave a jump to a value that is ordinary at another hour is the most surprising reading."""
    value = 10 * np.sin(2 * np.pi * np.arange(1000) / 200) + np.random.default_rng(0).normal(0, 0.1, 1000)
    value[850] = 0.0
    assert abs(value[849]) > 5.0
    surprise = said(mahalanobis.Mahalanobis(4, 60), value).surprise
    assert 850 <= np.nanargmax(surprise[300:]) + 300 < 854


@pytest.mark.parametrize("nu", [0.05, 0.2])
def test_one_class_svm_leaves_its_share_outside(nu: float) -> None:
    """Some `nu` of normal readings are outside of the boundary, and a stranger is farther out than any of them."""
    value = np.random.default_rng(0).normal(100, 5, 6000)
    value[5990] = 150.0
    surprise = said(one_class_svm.OneClassSvm(nu, None, 2, 128, 0, 60), value).surprise
    assert 0.6 * nu < (surprise[2000:] > 0).mean() < 1.6 * nu
    assert np.nanargmax(surprise[2000:]) == 3990


def test_sketches_stand_for_the_kernel() -> None:
    """Inner products of random Fourier features are the Gaussian kernel, up to the noise of so many features."""
    turns, phases = one_class_svm.frequencies(3, 0.4, 4096, 7)
    rng = np.random.default_rng(0)
    vectors = rng.normal(0, 1, (20, 3))
    sketches = np.empty((20, 4096))
    for vector, out in zip(vectors, sketches, strict=True):
        one_class_svm.sketch(turns, phases, vector, out)
    gaps = ((vectors[:, None] - vectors[None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(sketches @ sketches.T, np.exp(-0.4 * gaps), atol=5 / math.sqrt(4096))
