"""Histograms of the density model against obvious ones, and what learning promises."""

from __future__ import annotations

import numpy as np
import pytest

from tidewarden.models.auto import Auto
from tidewarden.models.contract import Judgement
from tidewarden.models.density import Density, projections
from tidewarden.models.density_kernel import FEATURES
from tidewarden.models.density_lanes import logarithms
from tidewarden.models.histograms import BINS, age, extend, place
from tidewarden.scoring.calibration import Calibrator

MINUTE_MS = 60_000
DAY_MS = 86_400_000


def scores(values: np.ndarray, seed: int = 0) -> np.ndarray:
    """anomaly_score of one series by `auto`, uncapped decades / 6."""
    n = len(values)
    model, calibrator = Auto(120, (DAY_MS,), MINUTE_MS, seed), Calibrator()
    model.resize(1)
    calibrator.resize(1)
    out = Judgement.blank(n)
    series, learn = np.zeros(n, np.int32), np.isfinite(values)
    model.observe(series, np.arange(n, dtype=np.int64) * MINUTE_MS, values, learn, out)
    return calibrator.observe(series, out.surprise, learn) / 6


def test_density_alone_is_calibrated_to_the_same_p_values():
    """To the last bit: its own tail says what a calibrator fed with its surprise says, late readings included."""
    rng = np.random.default_rng(4)
    n = 3_000
    values = 100 + 5 * rng.normal(size=n)
    values[rng.random(n) < 0.01] += 100
    series, at = np.zeros(n, np.int32), np.arange(n, dtype=np.int64) * MINUTE_MS
    learn = rng.random(n) > 0.05
    said = []
    for alone in (False, True):
        model, out = Density(120, (DAY_MS,), MINUTE_MS, 0, 2, alone=alone), Judgement.blank(n)
        model.resize(1)
        model.observe(series, at, values, learn, out)
        said.append(out.surprise)
    calibrator = Calibrator()
    calibrator.resize(1)
    expected = calibrator.observe(series, said[0], learn)
    assert expected.max() > 3
    assert expected.tobytes() == np.nan_to_num(said[1]).tobytes()


@pytest.mark.parametrize("v", [-40.0, -6.01, 6.0, 17.3, 400.0])
def test_widening_keeps_every_count_where_it_was(v):
    """Doubling the width until a value fits merges bins, loses no count, and moves none out of its new bin."""
    rng = np.random.default_rng(1)
    edge = np.array([-6.0, 12 / BINS])
    hist = np.zeros(BINS, np.float32)
    points = rng.normal(0, 2, 500).clip(-5.9, 5.9)
    for point in points:
        hist[place(edge, point)[0]] += 1
    expected_doublings = place(edge, v)[1]
    doublings = 0
    while place(edge, v)[0] < 0:
        extend(hist, edge, v)
        doublings += 1
    assert doublings == expected_doublings
    naive = np.zeros(BINS)
    for point in points:
        naive[int((point - edge[0]) // edge[1])] += 1
    np.testing.assert_array_equal(hist, naive)


def test_ageing_halves_and_closes_in():
    """Ageing halves the mass, and gives resolution back once the outer bins are empty."""
    edge = np.array([-6.0, 1.0])
    hist = np.zeros(BINS, np.float32)
    hist[3:9] = 100
    age(hist, edge)
    assert hist.sum() == pytest.approx(300)
    assert edge[1] == 0.5
    centers = edge[0] + edge[1] * (np.arange(BINS) + 0.5)
    assert centers[hist > 0].min() > -3.1
    assert centers[hist > 0].max() < 3.1


def test_a_constant_does_not_close_its_histogram_in_for_ever():
    """However often counts age, a bin keeps a width that float32 can divide by, and the counts stay in their place."""
    edge = np.array([-6.0, 12 / BINS], np.float32)
    hist = np.zeros(BINS, np.float32)
    for _ in range(500):
        b, _ = place(edge, 0.0)
        hist[b] = 3000
        age(hist, edge)
    assert 0.25e-6 < edge[1] < 2e-6
    assert place(edge, 0.0)[0] >= 0
    assert np.isfinite(hist).all()


def test_projections_come_from_the_seed_alone():
    """The same seed gives the same projections of unit length, another seed others."""
    picks, weights = projections(7, 4)
    again, _ = projections(7, 4)
    assert (picks == again).all()
    assert (picks < FEATURES).all()
    assert (weights != projections(8, 4)[1]).any()
    np.testing.assert_allclose((weights**2).sum(1), 1, rtol=1e-6)


def test_logarithms_are_those_of_the_library():
    """Over the whole range of float32, to a few of its last bits."""
    x = np.exp(np.random.default_rng(3).uniform(-80, 80, 10_000)).astype(np.float32)
    given, said = x.copy(), np.empty_like(x)
    logarithms(given.view(np.int32), given, said, len(x))
    np.testing.assert_allclose(said, np.log(x.astype(np.float64)), rtol=3e-7, atol=3e-7)


def test_blocks_change_nothing():
    """Readings of many series in one frame are judged as one reading at a time is, to the last bit."""
    rng = np.random.default_rng(8)
    n, series = 400, 150  # more than a block
    at = np.repeat(np.arange(n, dtype=np.int64) * MINUTE_MS, series)
    ids = np.concatenate([rng.permutation(series) for _ in range(n)]).astype(np.int32)
    values = np.exp(rng.normal(3, 0.5, n * series)) * (1 + 50 * (rng.random(n * series) < 0.01))
    learn = rng.random(n * series) > 0.05
    said = []
    for step in (n * series, 1):
        model, out = Density(60, (DAY_MS,), MINUTE_MS, 0, 3), Judgement.blank(n * series)
        model.resize(series)
        for lo in range(0, n * series, step):
            here = slice(lo, lo + step)
            part = Judgement(out.surprise[here], out.expected[here], out.lower[here], out.upper[here])
            model.observe(ids[here], at[here], values[here], learn[here], part)
        said.append(out)
    for name in ("surprise", "expected", "lower", "upper"):
        assert getattr(said[0], name).tobytes() == getattr(said[1], name).tobytes(), name
    assert np.isfinite(said[0].surprise).any()


def test_a_lasting_shift_is_reported_then_learned():
    """A lasting shift by ten deviations scores at least 0.8 at once, and below 0.8 for good within 240 readings."""
    rng = np.random.default_rng(0)
    values = rng.normal(100, 5, 3000)
    values[1500:] += 50
    said = scores(values)
    assert said[1500:1503].max() >= 0.8
    assert said[1740:].max() < 0.8


def test_anomalies_do_not_poison():
    """After thirty readings of an incident, the same incident a day later scores 0.6 again, 1 in 4,000.

    That is the mean over eight noises; none is below 0.5.
    """
    again = []
    for seed in range(8):
        values = np.random.default_rng(seed).normal(100, 5, 4000)
        values[1500:1530] += 60
        values[2940:2970] += 60
        said = scores(values)
        assert said[1500:1503].max() >= 0.8
        again.append(said[2940:2943].max())
    assert np.mean(again) >= 0.6
    assert min(again) >= 0.5


def judged(values: np.ndarray) -> Judgement:
    """What `auto` says of one series, a reading a minute."""
    model = Auto(120, (DAY_MS,), MINUTE_MS)
    model.resize(1)
    out = Judgement.blank(len(values))
    n = len(values)
    model.observe(np.zeros(n, np.int32), np.arange(n, dtype=np.int64) * MINUTE_MS, values, np.ones(n, bool), out)
    return out


@pytest.mark.parametrize("seed", range(4))
def test_the_band_does_not_chase_an_incident(seed):
    """Eight doubled readings move the expected value by less than a band's half, and widen the band by less than 15 %,

    during the incident as in the two hours after it.
    """
    values = np.random.default_rng(seed).normal(100, 10, 2400)
    values[1500:1508] *= 2
    out = judged(values)
    width = out.upper - out.lower
    usual, calm = width[1400:1500].mean(), out.expected[1400:1500].mean()
    assert width[1500:1628].max() < 1.15 * usual
    assert np.abs(out.expected[1500:1628] - calm).max() < usual / 2


@pytest.mark.parametrize("seed", range(4))
def test_the_band_follows_a_change_that_lasts(seed):
    """A level that rises by half for good is in the band within 120 readings, and calm from then on."""
    values = np.random.default_rng(seed).normal(100, 8, 2400)
    values[1500:] += 50
    out = judged(values)
    inside = (values >= out.lower) & (values <= out.upper)
    assert inside[1500:1520].mean() < 0.5
    assert inside[1620:1800].mean() > 0.9
    assert scores(values)[1620:].max() < 0.8


def test_the_band_keeps_to_the_sign_of_its_series():
    """A series that has never been negative has no negative band; one that has been may have."""
    values = np.random.default_rng(0).poisson(1.0, 1500).astype(float)
    out = judged(values)
    assert np.nanmin(out.lower) == 0.0
    assert np.nanmin(out.upper) > 0.0
    assert np.nanmin(judged(values - 1.0).lower) < -1.0


def test_an_anomalous_warmup_is_survived():
    """Wild values while learning leave the model able to report a spike later."""
    rng = np.random.default_rng(0)
    values = rng.normal(100, 5, 1500)
    values[[20, 41, 77]] = 5000
    values[1200] = 300
    assert scores(values)[1200] >= 0.7


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_spikes_dips_and_stuck_values_are_seen(seed):
    """A spike and a dip of six deviations score at least 0.6, whatever the seed."""
    rng = np.random.default_rng(seed)
    values = rng.normal(100, 5, 2500)
    values[1500:1505] += 30
    values[2000:2005] -= 30
    said = scores(values, seed)
    assert said[1500:1505].max() >= 0.6
    assert said[2000:2005].max() >= 0.6
