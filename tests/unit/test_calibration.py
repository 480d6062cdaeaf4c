"""Calibrated p-values mean what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tidewarden.models.contract import Judgement
from tidewarden.models.registry import build
from tidewarden.resources.models import ModelSpec
from tidewarden.scoring.calibration import PATIENCE, ROW, YOUNG, Calibrator, tail_learn, tail_log10_p

DAY_MS = 86_400_000
MINUTE_MS = 60_000


def families(n_series: int = 40, n: int = 2000) -> dict[str, np.ndarray]:
    """Readings (n, n_series) without anomalies, of the shapes that metrics have."""
    rng = np.random.default_rng(11)
    shape = (n, n_series)
    wave = np.sin(2 * np.pi * np.arange(n)[:, None] / 1440 + rng.uniform(0, 6, n_series))
    ar = np.zeros(shape)
    noise = rng.normal(size=shape)
    for i in range(1, n):
        ar[i] = 0.9 * ar[i - 1] + noise[i]
    return {
        "gaussian": 100 + 10 * rng.normal(size=shape),
        "lognormal": 50 * np.exp(0.5 * rng.normal(size=shape)),
        "seasonal": 100 * (1 + 0.2 * wave) * (1 + 0.1 * rng.normal(size=shape)),
        "poisson": rng.poisson(3, shape).astype(float),
        "autoregressive": 50 + 5 * ar,
    }


def calibrated(kind: str, values: np.ndarray) -> np.ndarray:
    """-log10 p of ``values`` (n, n_series) by a model and, where it needs one, its calibrator."""
    n, n_series = values.shape
    series = np.tile(np.arange(n_series, dtype=np.int32), n)
    timestamp = np.repeat(np.arange(n, dtype=np.int64) * MINUTE_MS, n_series)
    learn = np.ones(n * n_series, bool)
    model = build(ModelSpec.model_validate({"kind": kind}), (DAY_MS,), MINUTE_MS)
    model.resize(n_series)
    out = Judgement.blank(n * n_series)
    model.observe(series, timestamp, values.ravel(), learn, out)
    if model.calibrated:
        return np.nan_to_num(out.surprise).reshape(n, n_series)
    calibrator = Calibrator()
    calibrator.resize(n_series)
    return calibrator.observe(series, out.surprise, learn).reshape(n, n_series)


@pytest.mark.parametrize("family", list(families(1, 10)))
@pytest.mark.parametrize("kind", ["auto", "density", "ewma", "mad"])
def test_rare_means_rare(kind, family):
    """Without anomalies p < 1e-2 happens at most twice as often as it says, p < 1e-3 at most three times,

    p < 1e-4 at most eight times (lognormal is the worst); and, for `auto`, p < 1e-2 not less than a third as often.
    """
    log10_p = calibrated(kind, families()[family])[500:]
    assert (log10_p > 2).mean() < 2 * 1e-2
    assert (log10_p > 3).mean() < 3 * 1e-3
    assert (log10_p > 4).mean() < 8 * 1e-4
    if kind == "auto":
        assert (log10_p > 2).mean() > 1e-2 / 3


@pytest.mark.parametrize("family", list(families(1, 10)))
def test_young_series_do_not_cry_wolf(family):
    """In the first 380 readings after warm-up a score of 0.8 is rarer than 1 in 1,000."""
    log10_p = calibrated("auto", families(60, 500)[family])[120:]
    assert (log10_p > 4.8).mean() < 1 / 1000


def test_p_falls_as_surprise_rises():
    """Given the state, p is in (0, 1] and strictly falling in surprise, without jumps at the joints."""
    rng = np.random.default_rng(2)
    rows = np.zeros((1, ROW))
    for s in rng.gumbel(size=3000):
        tail_learn(rows, 0, s)
    grid = np.linspace(-8, 60, 20_001)
    log10_p = np.array([tail_log10_p(rows, 0, s) for s in grid])
    assert (log10_p >= 0).all()
    assert (np.diff(log10_p) >= 0).all()
    assert np.diff(log10_p).max() < 0.02


def test_no_opinion_before_the_first_surprises():
    """Until YOUNG surprises are known p is 1, however wild they are."""
    rows = np.zeros((1, ROW))
    for i in range(YOUNG):
        assert tail_log10_p(rows, 0, 1e9) == 0.0
        tail_learn(rows, 0, float(i % 3))
    assert tail_log10_p(rows, 0, 1e9) > 3


def test_anomalies_do_not_inflate_the_tail():
    """One wild surprise in fifty, for ever, leaves a wild surprise rarer than 1 in 1,000."""
    rng = np.random.default_rng(3)
    rows = np.zeros((1, ROW))
    for i in range(20_000):
        tail_learn(rows, 0, 500.0 if i % 200 == 199 else float(rng.exponential()))
    assert tail_log10_p(rows, 0, 500.0) > 4


def test_no_state_is_an_alarm_for_ever():
    """Surprises that jump and stay are rare at first, and ordinary once they have outlasted patience by sixty more."""
    rng = np.random.default_rng(5)
    rows = np.zeros((1, ROW))
    for s in rng.exponential(size=2000):
        tail_learn(rows, 0, s)
    lasting = 40.0 + rng.exponential(size=int(PATIENCE) + 60)
    assert tail_log10_p(rows, 0, lasting[0]) > 6
    for s in lasting:
        tail_learn(rows, 0, s)
    assert tail_log10_p(rows, 0, 41.0) < 3


def test_quantiles_are_found():
    """The running median and 98 % quantile come close to those of the distribution."""
    rng = np.random.default_rng(4)
    rows = np.zeros((1, ROW))
    for s in rng.exponential(size=20_000):
        tail_learn(rows, 0, s)
    assert tail_log10_p(rows, 0, math.log(2)) == pytest.approx(-math.log10(0.5), abs=0.08)
    assert tail_log10_p(rows, 0, math.log(50)) == pytest.approx(-math.log10(0.02), abs=0.15)


def test_a_wild_warmup_recovers():
    """Wild values among the first surprises do not deafen a series: it hears its next wild one."""
    rng = np.random.default_rng(6)
    rows = np.zeros((1, ROW))
    for i in range(1500):
        tail_learn(rows, 0, 300.0 if i in {3, 11} else float(rng.exponential()))
    assert tail_log10_p(rows, 0, 60.0) > 4
