"""A node as a whole: the compiled distance against numpy, and what it is there for."""

from __future__ import annotations

import numpy as np
import pytest

from tidewarden.scoring.joint import RIDGE, _distance, _factor, joint_surprise


def test_the_distance_is_mahalanobis() -> None:
    """Cholesky by hand agrees with numpy's inverse, and the shares add up to the distance."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(5, 5))
    covariance = a @ a.T
    z = rng.normal(size=5)
    lower, half, solved = np.zeros((5, 5)), np.zeros(5), np.zeros(5)
    _factor(covariance, lower)
    distance = _distance(lower, z, half, solved)
    inverse = np.linalg.inv(covariance + RIDGE * np.eye(5))
    assert distance == pytest.approx(z @ inverse @ z)
    assert solved == pytest.approx(inverse @ z)
    assert (z * solved).sum() == pytest.approx(distance)


def _pair(n: int = 1500) -> np.ndarray:
    rng = np.random.default_rng(1)
    load = 50 + 10 * np.sin(np.arange(n) / 40) + rng.normal(0, 0.5, n)
    return np.stack([load, 2 * load + rng.normal(0, 1, n), rng.normal(0, 1, n)], axis=1)


def test_a_broken_relation_between_calm_metrics_is_seen() -> None:
    """Each value has been seen a hundred times, only never together; the two metrics concerned are named."""
    values = _pair()
    high = values[:, 0].argmax()
    values[1400, 1] = 2 * values[high, 0]
    values[1400, 0] = values[:, 0].min()
    surprise, share = joint_surprise(values)
    assert surprise.argmax() == 1400
    assert surprise[1400] > 2 * np.delete(surprise, 1400).max()
    assert share[1400, :2].sum() > 0.9 * share[1400].sum()


def test_scale_and_missing_values_do_not_matter() -> None:
    """Any unit gives the same surprise, a missing value is as expected, a constant metric is harmless."""
    values = _pair()
    plain, _ = joint_surprise(values)
    scaled, _ = joint_surprise(values * np.array([1e6, 1e-3, 1.0]))
    assert scaled == pytest.approx(plain, rel=0.05, abs=0.05)
    holes = values.copy()
    holes[::7, 2] = np.nan
    constant = np.column_stack([holes, np.full(len(holes), 3.0)])
    surprise, _ = joint_surprise(constant)
    assert np.isfinite(surprise).all()
    assert surprise.max() < 10


def test_the_past_alone_decides() -> None:
    """What comes later changes nothing that was said, so a file may be cut anywhere."""
    values = _pair(400)
    whole, _ = joint_surprise(values)
    part, _ = joint_surprise(values[:300])
    assert (whole[:300] == part).all()
    assert joint_surprise(np.zeros((0, 3)))[0].shape == (0,)
