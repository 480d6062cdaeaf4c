"""What the oracles of all families share: readings of every shape, and the comparison of a kernel with slow models."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np

from tidewarden.models.contract import Judgement, Model

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
NAN = math.nan
SEEDS = range(4)


class Said(NamedTuple):
    """What is said of one reading."""

    surprise: float = NAN
    expected: float = NAN
    lower: float = NAN
    upper: float = NAN


NOTHING = Said()


class Slow(Protocol):
    """A slow model of one series."""

    def see(self, time_ms: int, x: float, learn: bool) -> Said:
        """Judge a reading by those before it, then learn it if ``learn``."""


class Data(NamedTuple):
    """Interleaved readings of several series, as a kernel takes them."""

    series: np.ndarray
    timestamp: np.ndarray
    value: np.ndarray
    learn: np.ndarray


def readings(seed: int, n: int = 500) -> Data:
    """Eight series, a few hundred readings each: every shape and every nuisance that comes in life."""
    rng = np.random.default_rng(seed)
    hours = np.arange(n)
    shapes = [
        100 + rng.normal(0, 5, n),
        np.full(n, 42.0),  # a constant …
        np.zeros(n),  # … and the one without a level
        rng.poisson(2, n).astype(float),  # few values, many duplicates
        50 + 20 * np.sin(2 * np.pi * hours / 24) + rng.normal(0, 1, n),
        np.where(hours < n // 2, 10.0, 1000.0) + rng.normal(0, 1, n),  # a shift for good
        np.where(hours % 100 < 60, 5.0, rng.normal(5, 1, n)),  # a constant that comes to life
        -1e6 + rng.standard_cauchy(n),
    ]
    rows: list[tuple[int, int, float]] = []
    for i, shape in enumerate(shapes):
        time_ms = int(rng.integers(-3 * DAY_MS, 3 * DAY_MS))
        for x in shape.tolist():
            time_ms += HOUR_MS * (int(rng.integers(2, 200)) if rng.random() < 0.01 else 1)  # gaps
            value = NAN if rng.random() < 0.03 else x * 9 if rng.random() < 0.01 else x
            rows += [(i, time_ms, value)] * (2 if rng.random() < 0.02 else 1)  # duplicates
    # Interleaved at random, each series in its own order.
    turn = rng.permutation([i for i, _, _ in rows])
    queues = [iter([row for row in rows if row[0] == i]) for i in range(len(shapes))]
    mixed = [next(queues[i]) for i in turn]
    value = np.array([x for _, _, x in mixed])
    return Data(
        np.array([i for i, _, _ in mixed], np.int32),
        np.array([t for _, t, _ in mixed], np.int64),
        value,
        np.isfinite(value) & (rng.random(len(value)) > 0.02),  # late readings are not learned
    )


def agree(model: Model, slow: Callable[[], Slow], data: Data, rtol: float = 1e-9) -> None:
    """The kernel, in one call over all series, says what slow models, one a series, say."""
    out = Judgement.blank(len(data.series))
    model.resize(int(data.series.max()) + 1)
    model.observe(*data, out)
    slows = [slow() for _ in range(int(data.series.max()) + 1)]
    rows = zip(*(column.tolist() for column in data), strict=True)
    expected = np.array([slows[i].see(t, x, learn) if math.isfinite(x) else NOTHING for i, t, x, learn in rows])
    for k, name in enumerate(Said._fields):
        np.testing.assert_allclose(getattr(out, name), expected[:, k], rtol=rtol, atol=rtol, err_msg=name)


def finest_step(past: list[float]) -> float | None:
    """Smallest difference between neighbours that differ; None of a constant."""
    return min((abs(b - a) for a, b in pairwise(past) if a != b), default=None)


def least(past: list[float], share: float, level: float) -> float:
    """Least deviation: a share of the finest step, or a thousandth of a constant's level."""
    step = finest_step(past)
    return 1e-3 * abs(level) + 1e-9 if step is None else share * step


def bounded(gap: float, limit: float) -> float:
    return math.copysign(min(abs(gap), limit), gap)
