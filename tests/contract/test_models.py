"""What every model promises, run on all that the registry knows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tidewarden.models.contract import Judgement, Model
from tidewarden.models.registry import build, kinds
from tidewarden.resources.models import PARAMETERS, ModelSpec, at_defaults

DAY_MS = 86_400_000
STEP_MS = 300_000
BLOCKS = {
    "auto": {"warmup": 60},
    "density": {"warmup": 60, "projections": 2},
    "ewma": {"warmup": 30},
    "mad": {"warmup": 30},
    "seasonal": {"warmup": 300},
    "static": {"lower": 40, "upper": 160},
    "zscore": {"warmup": 30, "window": 200},
    "iqr": {"warmup": 30},
    "cusum": {"warmup": 30, "half_life": 10},  # well below the season
    "holt_winters": {"warmup": 300},
    "quantile": {"window": 300},
    "stl": {"warmup": 300},
    "ar": {"warmup": 60},
    "half_space_trees": {"warmup": 60},
    "isolation_forest": {"warmup": 60, "window": 256, "refit": 256},
    "loda": {"warmup": 60},
    "random_cut_forest": {"warmup": 60, "subsample": 32, "memory": 160},
    "knn": {"warmup": 60},
    "lof": {"warmup": 60},
    "dbscan": {"warmup": 60},
    "ecod": {"warmup": 60},
    "histogram": {"warmup": 60},
    "matrix_profile": {"warmup": 100, "history": 256},
    "pca": {"warmup": 60},
    "mahalanobis": {"warmup": 60, "window": 8},
    "one_class_svm": {"warmup": 60},
    "ensemble": {
        "combine": "median",
        "members": [{"kind": k, k: {"warmup": w}} for k, w in (("ewma", 30), ("pca", 100), ("mad", 60))],
    },
    "ensemble-weighted": {
        "combine": "weighted",
        "members": [
            {"kind": "static", "static": {"upper": 160}},
            {"kind": "zscore", "weight": 3, "zscore": {"warmup": 30}},
        ],
    },
}
# State of one series in bytes, at most: counts and trees are what these models are, and each says what it needs.
MEMORY_BYTES = {
    "half_space_trees": 27_000,  # 25 trees of 256 leaves with two 16-bit numbers
    "isolation_forest": 60_000,  # 32 trees of 256 cuts of 32 bits and 256 leaves of 16, and the past
    "random_cut_forest": 120_000,  # 24 trees of 64 points, and as many boxes of two corners
    "matrix_profile": 12_000,  # 256 shapes with three numbers each, their products, and the past
}
FIELDS = ("surprise", "expected", "lower", "upper")


def make(variant: str) -> Model:
    kind = variant.split("-", maxsplit=1)[0]
    # Plug-ins that are installed are held to it, too, at their defaults.
    given = {"kind": kind, kind: BLOCKS[variant]} if kind in PARAMETERS else at_defaults(kind)
    spec = ModelSpec.model_validate(given)
    return build(spec, (DAY_MS,), STEP_MS)


@pytest.fixture(params=[*kinds(), "ensemble-weighted"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def readings(n_series: int = 4, n: int = 700, seed: int = 0):
    """Interleaved noisy daily waves, some readings missing."""
    rng = np.random.default_rng(seed)
    series = np.tile(np.arange(n_series, dtype=np.int32), n)
    timestamp = np.repeat(np.arange(n, dtype=np.int64) * STEP_MS, n_series)
    value = 100 + 20 * np.sin(timestamp * 2 * np.pi / DAY_MS) + rng.normal(0, 5, len(series))
    value[rng.random(len(series)) < 0.01] = np.nan
    return series, timestamp, value, np.isfinite(value)


def observe(model: Model, series, timestamp, value, learn) -> Judgement:
    model.resize(int(series.max(initial=-1)) + 1)
    out = Judgement.blank(len(series))
    model.observe(series, timestamp, value, learn, out)
    return out


def same(a: Judgement, b: Judgement, rows=slice(None)) -> None:
    for field in FIELDS:
        assert getattr(a, field)[rows].tobytes() == getattr(b, field).tobytes(), field


def test_two_runs_agree_to_the_last_bit(kind):
    """Nothing random happens while a model runs."""
    same(observe(make(kind), *readings()), observe(make(kind), *readings()))


def test_frames_may_be_cut_anywhere(kind):
    """Cutting the readings into frames changes nothing."""
    data = readings()
    whole = observe(make(kind), *data)
    model = make(kind)
    cuts = [0, 1, 7, 500, 501, 1500, len(data[0])]
    for lo, hi in itertools.pairwise(cuts):
        model.resize(4)
        out = Judgement.blank(hi - lo)
        model.observe(*(column[lo:hi] for column in data), out)
        same(whole, out, slice(lo, hi))


def test_a_series_depends_on_itself_alone(kind):
    """The same readings alone, beside others and under another id give the same judgement."""
    series, timestamp, value, learn = readings()
    whole = observe(make(kind), series, timestamp, value, learn)
    mine = series == 2
    alone = observe(make(kind), np.full(mine.sum(), 9, np.int32), timestamp[mine], value[mine], learn[mine])
    same(whole, alone, mine)


def test_snapshot_round_trips(kind):
    """A model restored from a snapshot goes on as if nothing had happened, and the snapshot is a copy."""
    data = readings()
    whole = observe(make(kind), *data)
    first, second = make(kind), make(kind)
    half = len(data[0]) // 2
    observe(first, *(column[:half] for column in data))
    state = first.snapshot()
    observe(first, *(column[half:] for column in data))
    second.restore(state)
    same(whole, observe(second, *(column[half:] for column in data)), slice(half, None))


def test_a_foreign_snapshot_is_refused(kind):
    """State that does not fit is an error, not a guess."""
    model = make(kind)
    with pytest.raises(ValueError, match="snapshot"):
        model.restore({"something": np.zeros((3, 2))})


def test_high_is_anomalous(kind):
    """A value far outside of all that was seen is the most surprising one since warm-up."""
    series, timestamp, value, learn = readings(1, 900)
    value[800] = 400.0
    learn = np.isfinite(value)
    out = observe(make(kind), series, timestamp, value, learn)
    assert np.nanargmax(out.surprise[400:]) == 400


def test_missing_readings_leave_no_trace(kind):
    """NaN and infinities are not judged, and do not change what is said of the others."""
    series, timestamp, value, learn = readings(1, 600)
    given = np.isfinite(value)
    value[~given] = np.where(np.arange((~given).sum()) % 2, np.inf, np.nan)
    out = observe(make(kind), series, timestamp, value, learn)
    assert np.isnan(out.surprise[~given]).all()
    clean = observe(make(kind), series[given], timestamp[given], value[given], learn[given])
    same(out, clean, given)


def test_what_is_not_learned_leaves_no_trace(kind):
    """Readings with learn unset are judged and then forgotten."""
    series, timestamp, value, _ = readings(1, 600)
    given = np.isfinite(value)
    series, timestamp, value = series[given], timestamp[given], value[given]
    keep = np.ones(len(value), bool)
    keep[400:420] = False
    out = observe(make(kind), series, timestamp, value, keep)
    same(out, observe(make(kind), series[keep], timestamp[keep], value[keep], keep[keep]), keep)
    assert np.isfinite(out.surprise[400:420]).all()


@pytest.mark.parametrize("level", [0.0, 100.0, -3e9, 1e-9])
def test_constants_are_calm_until_they_change(kind, level):
    """A constant series gives finite, calm judgements; its first change, if visible, is more surprising."""
    n = 500
    value = np.full(n, level)
    value[450] = level + max(1.0, abs(level))
    series, timestamp = np.zeros(n, np.int32), np.arange(n, dtype=np.int64) * STEP_MS
    out = observe(make(kind), series, timestamp, value, np.ones(n, bool))
    said = out.surprise[300:]
    assert not np.isinf(said).any()
    if kind != "static":
        judged = said[np.isfinite(said)]
        assert out.surprise[450] > np.nanmax(out.surprise[300:450])
        assert len(judged) > 0


def test_odd_times_and_sizes_break_nothing(kind):
    """Duplicates, jumps back, year-long gaps, negative times and huge values give finite or NaN judgements."""
    rng = np.random.default_rng(5)
    n = 800
    timestamp = np.sort(rng.integers(-(10**12), 10**13, n))
    timestamp[::50] = timestamp[::50] - 10**11
    value = rng.normal(0, 1, n) * 10.0 ** rng.integers(-200, 200, n).astype(float)
    out = observe(make(kind), np.zeros(n, np.int32), timestamp, value, np.ones(n, bool))
    assert not np.isinf(out.surprise).any()


def test_the_band_holds_most_normal_readings(kind):
    """After warm-up the band is finite where there is a judgement, and holds nearly all normal readings."""
    series, timestamp, value, learn = readings(4, 1500)
    out = observe(make(kind), series, timestamp, value, learn)
    late = (np.arange(len(series)) > 4 * 900) & learn
    inside = (value[late] >= out.lower[late]) & (value[late] <= out.upper[late])
    assert np.isfinite(out.expected[late]).all()
    assert inside.mean() > 0.95


def test_memory_and_warmup_are_declared(kind):
    """State costs at most 10 KB a series, or what the model is granted; warm-up is at least 0 readings."""
    model = make(kind)
    assert 0 <= model.state_bytes_per_series <= MEMORY_BYTES.get(kind, 10_240)
    assert model.warmup >= 0
    model.resize(100)
    rows = sum(array.nbytes for array in model.snapshot().values())
    assert rows <= 100 * model.state_bytes_per_series + 64
