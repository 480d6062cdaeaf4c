"""AUC-PR and VUS-PR against slow oracles and hand-computed values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from tidewarden.evaluate.curves import average_precision, default_window, runs, vus_pr


def _slow_average_precision(labels: npt.NDArray[np.int64], score: npt.NDArray[np.float64]) -> float:
    area, recall_before = 0.0, 0.0
    for threshold in sorted(set(score.tolist()), reverse=True):
        said = score >= threshold
        recall = (labels[said] > 0).sum() / (labels > 0).sum()
        area += (recall - recall_before) * (labels[said] > 0).mean()
        recall_before = recall
    return area


def _slow_vus_pr(labels: npt.NDArray[np.int64], score: npt.NDArray[np.float64], window: int) -> float:
    """Paparrizos et al. 2022 in the discretisation of TSB-AD, one threshold and window after the other."""
    n = len(labels)
    events = [(int(a), int(b)) for a, b in runs(labels)]
    levels = -np.sort(-score)[np.linspace(0, n - 1, 250).astype(int)]
    areas = []
    for size in range(window + 1):
        half = size // 2
        soft = (labels > 0).astype(float)
        for start, end in events:
            for i in range(end + 1, min(end + half + 1, n)):
                soft[i] += np.sqrt(1 - (i - end) / size)
            for i in range(max(start - half, 0), start):
                soft[i] += np.sqrt(1 - (start - i) / size)
        soft = np.minimum(soft, 1.0)
        widened: list[tuple[int, int]] = []
        for start, end in events:
            if widened and widened[-1][1] >= start - half:
                widened[-1] = (widened[-1][0], min(end + half, n - 1))
            else:
                widened.append((max(start - half, 0), min(end + half, n - 1)))
        area, recall_before = 0.0, 0.0
        for level in levels:
            said = score >= level
            hits = float((soft * said).sum())
            mass = np.where(labels > 0, 1.0, soft * said).sum()
            exists = np.mean([said[a : b + 1].any() for a, b in widened])
            recall = min(hits / (((labels > 0).sum() + mass) / 2), 1.0) * exists
            area += (recall - recall_before) * hits / said.sum()
            recall_before = recall
        areas.append(area)
    return float(np.mean(areas))


def _case(seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(260, 420))
    labels = np.zeros(n, np.int64)
    for start in rng.integers(0, n, rng.integers(1, 5)):
        labels[start : start + rng.integers(1, 30)] = 1
    score = rng.normal(size=n) + labels * rng.uniform(0, 3)
    return labels, np.round(score, 1) if seed % 2 else score


@pytest.mark.parametrize("seed", range(6))
def test_average_precision_agrees_with_the_slow_definition(seed: int) -> None:
    """Ties are one step of the curve."""
    labels, score = _case(seed)
    assert average_precision(labels, score) == pytest.approx(_slow_average_precision(labels, score), abs=1e-12)


@pytest.mark.parametrize(("seed", "window"), [(0, 0), (1, 1), (2, 7), (3, 12), (4, 20), (5, 33)])
def test_vus_pr_agrees_with_the_slow_definition(seed: int, window: int) -> None:
    """The counted form gives what a pass over all readings for each window and threshold gives."""
    labels, score = _case(seed)
    assert vus_pr(labels, score, window) == pytest.approx(_slow_vus_pr(labels, score, window), abs=1e-12)


def test_hand_computed_average_precision() -> None:
    """Ranks 1 and 3 of four: 1/2 · 1 + 1/2 · 2/3."""
    assert average_precision(np.array([0, 1, 0, 1]), np.array([0.1, 0.9, 0.8, 0.7])) == pytest.approx(5 / 6)


def test_a_perfect_ranking_is_1_and_nearly_1_with_buffers() -> None:
    """Without a buffer a perfect score has VUS-PR 1; early or late warnings cost less than with AUC-PR."""
    labels = np.zeros(1000, np.int64)
    labels[400:450] = 1
    assert average_precision(labels, labels.astype(float)) == 1.0
    assert vus_pr(labels, labels.astype(float), 0) == pytest.approx(1.0)
    late = np.roll(labels, 8).astype(float) + np.random.default_rng(0).random(1000) * 1e-3
    assert vus_pr(labels, late, 40) > average_precision(labels, late)


def test_a_random_score_has_about_the_share_of_anomalies() -> None:
    """Neither curve rewards noise, unlike point-adjusted F1."""
    rng = np.random.default_rng(5)
    labels = np.zeros(20_000, np.int64)
    for start in range(500, 20_000, 1000):
        labels[start : start + 20] = 1
    score = rng.random(20_000)
    assert average_precision(labels, score) == pytest.approx(0.02, abs=0.01)
    assert vus_pr(labels, score) == pytest.approx(0.02, abs=0.015)


def test_missing_scores_rank_last_and_mistakes_are_named() -> None:
    """NaN never comes first; labels of another length, or none at all, are refused with the remedy."""
    labels = np.array([0, 1, 0, 1])
    assert average_precision(labels, np.array([np.nan, 0.9, np.nan, 0.7])) == 1.0
    with pytest.raises(ValueError, match="3 labels for 4 scores"):
        average_precision(labels[:3], np.zeros(4))
    with pytest.raises(ValueError, match="nothing to rank"):
        vus_pr(np.zeros(4), np.zeros(4))
    with pytest.raises(ValueError, match="window is -1"):
        vus_pr(labels, np.zeros(4), -1)


def test_runs_and_the_default_window() -> None:
    """Runs touch both ends; the window is the median event length, at most 300."""
    assert runs(np.array([1, 1, 0, 1, 0, 2])).tolist() == [[0, 1], [3, 3], [5, 5]]
    assert runs(np.zeros(3)).shape == (0, 2)
    labels = np.zeros(2000)
    labels[:10] = labels[100:130] = 1
    assert default_window(labels) == 20
    assert default_window(np.ones(2000)) == 300
    assert default_window(np.zeros(5)) == 0
