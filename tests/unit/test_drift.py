"""Drift: found where there is one, hardly ever where there is none, and the three kinds are told apart."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from tidewarden.drift.adwin import Adwin
from tidewarden.drift.distribution import BINS, Distribution, compare
from tidewarden.drift.model import ModelDrift, poisson_quantile
from tidewarden.drift.monitor import DriftMonitor
from tidewarden.drift.source import Source
from tidewarden.frames import Frame, SeriesKey, SeriesTable
from tidewarden.resources import AnomalyDetectorSpec
from tidewarden.scoring.scorer import Scorer, ScorerConfig

MINUTE_MS = 60_000
DAY = 1_440
DAY_MS = DAY * MINUTE_MS


def ticks(values: np.ndarray, start: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Readings (n, series) by the minute as series, timestamp and value (n · series,)."""
    n, n_series = values.shape
    timestamp = np.repeat(np.arange(start, start + n, dtype=np.int64) * MINUTE_MS, n_series)
    return np.tile(np.arange(n_series, dtype=np.int32), n), timestamp, values.ravel().copy()


def stationary(family: str, n: int, n_series: int, seed: int) -> np.ndarray:
    """Readings (n, n_series) whose distribution stays what it is."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(n, n_series))
    if family == "noise":
        return noise
    if family == "wave":
        return 5.0 * np.sin(2 * np.pi * np.arange(n)[:, None] / DAY) + noise
    if family == "counts":
        return rng.poisson(0.7, size=(n, n_series)).astype(float)
    if family == "constant":
        return np.full((n, n_series), 42.0)
    slow = np.zeros((n, n_series))  # autocorrelated: neighbours say the same twice
    for i in range(1, n):
        slow[i] = 0.95 * slow[i - 1] + noise[i]
    return slow


@pytest.mark.parametrize("family", ["noise", "wave", "counts", "constant", "slow"])
def test_a_series_that_stays_as_it_is_does_not_drift(family: str) -> None:
    """Of 100 series over five compared days each, at most one is said to drift, in every family of signals."""
    watch = Distribution(DAY_MS)
    watch.resize(100)
    drifted: set[int] = set()
    values = stationary(family, 9 * DAY, 100, seed=3)
    for day in range(9):
        watch.observe(*ticks(values[day * DAY : (day + 1) * DAY], day * DAY))
        drifted |= set(watch.drifting().tolist())
    assert len(watch.compared()) == 100
    assert len(drifted) <= 1


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("noise", lambda x: x + 1.5),
        ("noise", lambda x: 3.0 * x),
        ("wave", lambda x: x + 3.0),
        ("counts", lambda x: 3.0 * x),
        ("constant", lambda x: x - 1.0),
        ("constant", lambda x: x + 1.0),
    ],
)
def test_another_distribution_is_found_when_its_first_window_ends(family: str, change: object) -> None:
    """A moved, widened or scaled series drifts at the end of its first changed day, and the others do not."""
    watch = Distribution(DAY_MS)
    watch.resize(20)
    values = stationary(family, 5 * DAY + 1, 20, seed=5)
    values[4 * DAY : 5 * DAY, :5] = change(values[4 * DAY : 5 * DAY, :5])  # type: ignore[operator]
    watch.observe(*ticks(values))
    assert sorted(watch.drifting().tolist()) == [0, 1, 2, 3, 4]


def test_what_stays_changed_becomes_the_reference() -> None:
    """After three windows of drift the series is taken to be like that now: no drift is reported for ever."""
    watch = Distribution(DAY_MS)
    watch.resize(1)
    values = stationary("noise", 14 * DAY, 1, seed=1)
    values[4 * DAY :] += 4.0
    days = []
    for day in range(14):
        watch.observe(*ticks(values[day * DAY : (day + 1) * DAY], day * DAY))
        days.append(bool(len(watch.drifting())))
    assert days == [False] * 5 + [True] * 3 + [False] * 6
    assert watch.compared().tolist() == [0]


def test_the_figures_are_those_of_the_books() -> None:
    """PSI and the Kolmogorov-Smirnov distance over bins are what numpy and scipy say of the same counts."""
    rng = np.random.default_rng(2)
    reference = rng.integers(1, 200, BINS).astype(np.float32)
    counts = rng.integers(1, 200, BINS).astype(np.float32)
    psi, distance = compare(reference, counts)
    p, q = reference / reference.sum(), counts / counts.sum()
    assert psi == pytest.approx(float(((q - p) * np.log(q / p)).sum()), rel=1e-5)
    places = np.arange(BINS)
    wanted = stats.ks_2samp(np.repeat(places, reference.astype(int)), np.repeat(places, counts.astype(int)))
    assert distance == pytest.approx(wanted.statistic, rel=1e-5)


def residuals(n: int, n_series: int, seed: int) -> np.ndarray:
    """White residuals (n, n_series), in halves of a band of 99 %."""
    return np.random.default_rng(seed).normal(size=(n, n_series)) / 2.58


def _feed(adwin: Adwin, values: np.ndarray, start: int = 0) -> None:
    series, timestamp, value = ticks(values, start)
    zeros = np.zeros(len(value))
    adwin.observe(series, timestamp, value, zeros, zeros - 1.0, zeros + 1.0)


def test_residuals_that_keep_their_mean_are_not_cut() -> None:
    """Of 200 series of 10,000 white residuals at most one is cut."""
    adwin = Adwin()
    adwin.resize(200)
    _feed(adwin, residuals(10_000, 200, seed=4))
    assert len(adwin.cut_since(np.full(200, 10_000.0 * MINUTE_MS), 10_000 * MINUTE_MS)) <= 1


def test_residuals_with_another_mean_are_cut_soon() -> None:
    """A shift of half a band is found within 256 readings, and what came before it is forgotten."""
    adwin = Adwin()
    adwin.resize(10)
    _feed(adwin, residuals(5_000, 10, seed=6))
    _feed(adwin, residuals(256, 10, seed=7) + 0.5, start=5_000)
    newest = np.full(10, 5_255.0 * MINUTE_MS)
    assert adwin.cut_since(newest, 256 * MINUTE_MS).tolist() == list(range(10))
    kept = (adwin["buckets"][:10, :12] * 2.0 ** np.arange(12)).sum(axis=1)
    assert (kept < 1_000).all()
    mean = adwin["sums"][0].reshape(12, 3)
    n = adwin["buckets"][0, :12]
    total = sum(mean[power, : n[power]].sum() for power in range(12))
    assert total / kept[0] > 0.25


def test_a_window_is_the_sum_of_its_buckets() -> None:
    """Whatever was merged, the buckets hold exactly the readings that were given: their count and their sum."""
    adwin = Adwin()
    adwin.resize(1)
    values = np.round(residuals(3_000, 1, seed=8) * 64) / 64  # exact in float32
    _feed(adwin, values)
    n = adwin["buckets"][0, :12]
    assert sum(int(n[power]) << power for power in range(12)) == 3_000
    sums = adwin["sums"][0].reshape(12, 3)
    assert sum(sums[power, : n[power]].sum() for power in range(12)) == values.sum()


def test_p_values_that_are_rare_too_often_are_a_drift_of_the_model() -> None:
    """Uniform p-values are calibrated, p-values five times as often below 0.01 are not."""
    rng = np.random.default_rng(9)
    for share, drifted in ((0.01, False), (0.05, True)):
        watch = ModelDrift(DAY_MS, allowed=1.0, threshold_p=1e-5)
        p = rng.uniform(0.01, 1.0, 40 * DAY)
        p[rng.random(len(p)) < share] = 0.005
        timestamp = np.repeat(np.arange(2 * DAY, dtype=np.int64) * MINUTE_MS, 20)
        watch.observe(timestamp, p, np.zeros(len(p), np.uint8), 0)
        assert watch.judged
        assert (watch.calibration >= 4.0) == drifted
        assert watch.calibration == pytest.approx(100 * share, rel=0.2)


def test_alarms_are_judged_against_the_budget_of_a_window() -> None:
    """What chance makes of a budget at most is the 99.9 % quantile of a Poisson count."""
    for mean in (0.1, 1.0, 7.0, 120.0, 900.0):
        assert poisson_quantile(mean, 0.999) == pytest.approx(stats.poisson.ppf(0.999, mean), abs=0.01 * mean)
    watch = ModelDrift(DAY_MS, allowed=2.0, threshold_p=1e-5)
    timestamp = np.repeat(np.arange(DAY + 1, dtype=np.int64) * MINUTE_MS, 2)
    watch.observe(timestamp[: 2 * DAY], np.ones(2 * DAY), np.zeros(2 * DAY, np.uint8), 9)
    watch.observe(timestamp[2 * DAY :], np.ones(2), np.zeros(2, np.uint8), 0)
    assert watch.alarms() == (9, 2.0, int(stats.poisson.ppf(0.999, 2.0)))


def test_the_source_is_watched_for_what_vanishes_appears_and_changes_its_pace() -> None:
    """One series stops, one begins late, one slows down: each is told as what it is, the fourth not at all."""
    table = SeriesTable(SeriesKey("shop", "eu", "n1", name) for name in ("steady", "stops", "begins", "slows"))
    source = Source(DAY_MS, MINUTE_MS)
    source.resize(4)
    minutes = np.arange(6 * DAY)
    for series, kept in enumerate(
        (minutes >= 0, minutes < 3 * DAY, minutes >= 5.5 * DAY, (minutes < 3 * DAY) | (minutes % 4 == 0))
    ):
        at = minutes[kept].astype(np.int64) * MINUTE_MS
        source.observe(np.full(len(at), series, np.int32), at, np.ones(len(at)))
    found = source.found(table, {"shop": 6 * DAY_MS - MINUTE_MS})
    assert {word: of.tolist() for word, of in found.items()} == {
        "vanished": [1], "appeared": [2], "slow": [3], "fast": []
    }  # fmt: skip


SPEC = {"stream": "shop", "model": {"kind": "ewma"}, "drift": {"window": "4h"}, "seasonality": ["4h"]}


def scored(values: np.ndarray, cut: int, *, restart: bool = False) -> Scorer:
    """A scorer that was given these readings in frames of so many minutes, interrupted between them or not."""
    table = SeriesTable(SeriesKey("shop", "eu", "n1", f"m{i}") for i in range(values.shape[1]))
    config = ScorerConfig("watch", "shop", AnomalyDetectorSpec.model_validate(SPEC), MINUTE_MS, MINUTE_MS)
    scorer = Scorer(config, table)
    for start in range(0, len(values), cut):
        scorer.score(Frame(table, *ticks(values[start : start + cut], start)))
        if restart:
            state = scorer.snapshot()
            scorer = Scorer(config, table)
            scorer.restore(state)
    return scorer


def test_what_is_found_depends_neither_on_frames_nor_on_restarts() -> None:
    """Cut into other frames, or snapshotted and restored between all of them, a detector finds the same drift."""
    values = stationary("noise", 6 * DAY // 4, 4, seed=11)
    values[5 * DAY // 4 :, 1] += 2.0
    time = {"shop": len(values) * MINUTE_MS}
    whole = scored(values, len(values)).drift(time)
    assert whole.data.drifting == 1
    assert "shop/eu/n1/m1 (PSI" in whole.data.message
    assert whole == scored(values, 7).drift(time)
    assert whole == scored(values, 97, restart=True).drift(time)


def test_a_snapshot_of_before_drift_was_watched_is_taken() -> None:
    """A detector goes on from a snapshot without a drift part, and begins to watch from there."""
    values = stationary("noise", 300, 2, seed=12)
    table = SeriesTable(SeriesKey("shop", "eu", "n1", f"m{i}") for i in range(2))
    blind = AnomalyDetectorSpec.model_validate({**SPEC, "drift": {"watch": False}})
    before = Scorer(ScorerConfig("watch", "shop", blind, MINUTE_MS, MINUTE_MS), table)
    before.score(Frame(table, *ticks(values)))
    assert before.drift({"shop": 0}).data.judged == 0
    after = Scorer(ScorerConfig("watch", "shop", AnomalyDetectorSpec.model_validate(SPEC), MINUTE_MS, MINUTE_MS), table)
    after.restore(before.snapshot())
    after.score(Frame(table, *ticks(values, 300)))
    assert after.drift({"shop": 600 * MINUTE_MS}).source.judged == 2


def test_each_of_the_three_says_only_its_own() -> None:
    """A vanished series is no drift of the data, changed values are none of the source."""
    monitor_spec = AnomalyDetectorSpec.model_validate(SPEC)
    assert DriftMonitor(monitor_spec, MINUTE_MS).state_bytes_per_series < 800
    values = stationary("noise", 6 * DAY // 4, 4, seed=13)
    values[5 * DAY // 4 :, 0] += 2.0
    values[5 * DAY // 4 - 30 :, 3] = math.nan
    found = scored(values, 60).drift({"shop": len(values) * MINUTE_MS})
    assert found.data.drifting == 1
    assert found.source.drifting == 1
    assert "say nothing any more: shop/eu/n1/m3" in found.source.message
    assert found.series["values"] == 1
    assert found.series["vanished"] == 1
