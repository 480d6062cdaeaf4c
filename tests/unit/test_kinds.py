"""Runs are called by the names that a person would give them, and stuck series are found by themselves."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewarden.frames import ABOVE, MISSING, ScoreFrame, SeriesKey, SeriesTable
from tidewarden.scoring.anomalies import AnomalyTracker
from tidewarden.scoring.flat import FlatLine

N = 700
ONSET = 300


def final_kinds(value, expected=100.0, sd=5.0, extra_p=None):
    """Kinds of the closed anomalies of one series under a model that knows its mean and deviation."""
    table = SeriesTable([SeriesKey("t", "c", "n", "m")])
    n = len(value)
    z = np.abs(value - expected) / sd
    p = np.where(np.isnan(z), 1e-6, np.clip(np.exp(-(np.where(np.isnan(z), 0, z) ** 2) / 2), 1e-12, 1))
    if extra_p is not None:
        p = np.minimum(p, extra_p)
    score = np.minimum(1, -np.log10(p) / 6)
    flags = np.where(score >= 0.8, ABOVE, 0) | np.where(np.isnan(value), MISSING, 0)
    band = np.full(n, expected)
    scores = ScoreFrame(
        table, "d", "auto/1", np.zeros(n, np.int32), np.arange(n) * 60_000, value, score, p,
        band, band - 2.6 * sd, band + 2.6 * sd, np.zeros(n, np.uint8), flags.astype(np.uint8),
    )  # fmt: skip
    told = AnomalyTracker("d", "s", "auto/1", table, quiet=10, interval_ms=60_000).observe(scores)
    return [a for a in told if a.state == "closed"]


def calm(seed):
    return 100 + np.random.default_rng(seed).normal(0, 4, N).clip(-12, 12)


def add_spike(value, rng):
    value[ONSET : ONSET + rng.integers(3, 15)] += 120


def add_dip(value, rng):
    value[ONSET : ONSET + rng.integers(3, 15)] -= 60


def add_level_shift(value, rng):
    value[ONSET:] += 50 * rng.choice([-1, 1])


def add_drift(value, rng):
    length = rng.integers(150, 250)
    value[ONSET : ONSET + length] += np.linspace(0, 60, length) * rng.choice([-1, 1])


def add_missing(value, rng):
    value[ONSET : ONSET + rng.integers(3, 15)] = np.nan


def add_noise(value, rng):
    value[ONSET : ONSET + 60] += rng.normal(0, 40, 60)


def add_trend_change(value, rng):
    value[ONSET:] += np.linspace(0, 300, N - ONSET) * rng.choice([-1, 1])


def add_seasonal_change(value, rng):
    value[ONSET:] += 45 * np.sin(np.arange(N - ONSET) / 250 * 2 * np.pi)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (add_spike, "spike"),
        (add_dip, "dip"),
        (add_level_shift, "level_shift"),
        (add_drift, "drift"),
        (add_missing, "missing"),
        (add_noise, "noise"),
        (add_trend_change, "trend_change"),
        (add_seasonal_change, "seasonal_change"),
    ],
)
def test_the_longest_run_after_a_change_gets_the_name_of_the_change(change, kind, seed):
    value = calm(seed)
    change(value, np.random.default_rng(seed))
    longest = max(final_kinds(value), key=lambda a: a.readings)
    assert longest.kind == kind


def test_a_new_level_is_a_shift_even_where_the_model_has_adapted_before_it_was_long():
    value = calm(1)
    value[ONSET:] += 80
    expected = np.where(np.arange(N) < ONSET + 5, 100.0, 180.0)
    assert [a.kind for a in final_kinds(value, expected=expected)] == ["level_shift"]


def observe(value, learn=None):
    value = np.asarray(value, np.float64)
    learn = np.ones(len(value), np.bool_) if learn is None else learn
    return FlatLine().observe(np.zeros(len(value), np.int32), value, learn)


def test_a_series_that_varies_and_then_is_stuck_becomes_rare_within_ten_readings():
    value = calm(2)
    value[ONSET : ONSET + 40] = value[ONSET - 1]
    p = observe(value)
    assert (p[:ONSET] == 1).all()
    assert p[ONSET + 5] < 1e-4
    assert p[ONSET + 9] < 1e-7
    assert (p[ONSET + 40 :] == 1).all()


def test_a_stuck_series_is_called_flat_line_and_tells_since_when():
    value = calm(2)
    value[ONSET : ONSET + 40] = value[ONSET - 1]
    (anomaly,) = final_kinds(value, extra_p=observe(value))
    assert anomaly.kind == "flat_line"
    assert anomaly.explanation.startswith(f"m stuck at {value[ONSET]:.3g}"[:11])
    assert "for 41 min, usually varies by ±" in anomaly.explanation


@pytest.mark.parametrize(
    "value",
    [
        np.zeros(N),
        np.random.default_rng(0).poisson(0.5, N),
        np.random.default_rng(1).poisson(3.0, N),
        np.repeat(np.random.default_rng(2).normal(0, 1, 40), np.random.default_rng(3).integers(5, 30, 40)),
        np.concatenate([np.full(400, 7.0), np.full(100, 8.0), np.full(200, 7.0)]),
    ],
    ids=["constant", "seldom counts", "counts", "steps", "setting"],
)
def test_counters_settings_and_constants_are_never_called_flat(value):
    assert observe(value).min() > 1e-4


def test_rounded_values_are_seldom_called_flat():
    value = np.round(np.random.default_rng(5).normal(100, 5, 20_000))
    assert (observe(value) < 10 ** (-4.8)).mean() < 1e-3


def test_a_series_that_pauses_again_and_again_is_like_that():
    rng = np.random.default_rng(6)
    value = np.concatenate([np.concatenate([rng.normal(0, 1, 100), np.full(20, 5.0)]) for _ in range(8)])
    p = observe(value)
    stuck = [p[120 * k + 101 : 120 * k + 120].min() < 1e-5 for k in range(8)]
    assert stuck[0]
    assert not any(stuck[3:])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 100), st.lists(st.integers(0, 400), max_size=6), st.permutations(range(3)))
def test_flat_lines_depend_neither_on_cuts_nor_on_numbering_nor_on_a_restart(seed, places, order):
    rng = np.random.default_rng(seed)
    value = rng.normal(0, 1, 400)
    for _ in range(6):
        start = rng.integers(200, 400)
        value[start : start + 30 : 1] = value[start]
    value[rng.integers(0, 400, 20)] = np.nan
    series = rng.integers(0, 3, 400).astype(np.int32)
    learn = rng.uniform(size=400) < 0.9
    expected = FlatLine().observe(series, value, learn)
    flat, found = FlatLine(), []
    flat.resize(3)
    renumbered = np.array(order, np.int32)
    edges = [0, *sorted(places), 400]
    for a, b in pairwise(edges):
        fresh = FlatLine()
        fresh.restore(flat.snapshot(), renumbered if a == 0 else np.arange(3))
        flat = fresh
        found.append(flat.observe(renumbered[series[a:b]], value[a:b], learn[a:b]))
    np.testing.assert_array_equal(np.concatenate(found), expected)
