"""Threshold-free quality of a score against labels: AUC-PR and VUS-PR.

AUC-PR is average precision. VUS-PR (Paparrizos et al. 2022, "Volume Under the Surface", VLDB 15(11)) is
the average precision of labels that fade out over a buffer on both sides of each event, averaged over
buffer windows 0, 1, …, w; it forgives a score that is a few readings early or late. The discretisation
is TSB-AD's (Liu & Paparrizos 2024, `RangeAUC_volume_opt`): 250 thresholds at even ranks, weights
sqrt(1 − distance/window) up to half a window away, recall scaled by the share of events touched.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tidewarden.frames import FloatArray

Events = npt.NDArray[np.int64]

THRESHOLDS = 250  # as TSB-AD
WINDOW_MAX = 300  # TSB-AD looks for a period between 3 and 300 and takes it as the window


def runs(mask: npt.NDArray[Any]) -> Events:
    """First and last index of each run of truth in ``mask`` (n,), shape (k, 2), int64."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], np.asarray(mask) != 0, [False]]).astype(np.int8)))
    return np.stack([edges[::2], edges[1::2] - 1], axis=1).astype(np.int64)


def ranked(score: npt.NDArray[Any]) -> FloatArray:
    """Scores as float64 (n,), a NaN below everything else: what has no score is never reported first."""
    values = np.asarray(score, np.float64)
    blank = np.isnan(values)
    if not blank.any():
        return values
    finite = values[~blank]
    lowest = np.nextafter(finite.min(), -np.inf) if finite.size else 0.0
    return np.where(blank, lowest, values)


def _checked(labels: npt.NDArray[Any], score: npt.NDArray[Any]) -> tuple[npt.NDArray[np.bool_], FloatArray]:
    if len(labels) != len(score):
        raise ValueError(f"{len(labels)} labels for {len(score)} scores: pass one label for each score")
    truth = np.asarray(labels) != 0
    if not truth.any():
        raise ValueError("no reading is labelled anomalous, so there is nothing to rank: pass labels with an event")
    return truth, ranked(score)


def average_precision(labels: npt.NDArray[Any], score: npt.NDArray[Any]) -> float:
    """AUC-PR: the sum over distinct thresholds of precision × step in recall; ties count as one step.

    Args:
        labels: (n,), non-zero is anomalous; at least one must be.
        score: (n,), higher is more anomalous; NaN counts as the lowest.

    Returns:
        In (0, 1]; a random score has about the share of anomalous readings.
    """
    truth, values = _checked(labels, score)
    order = np.argsort(-values, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(values[order])), len(order) - 1)
    found = np.cumsum(truth[order])[ends]
    precision = found / (ends + 1)
    recall = found / found[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def default_window(labels: npt.NDArray[Any]) -> int:
    """The buffer window w for VUS-PR: the median length of the events in readings, at most 300."""
    events = runs(labels)
    if not len(events):
        return 0
    return min(int(np.median(events[:, 1] - events[:, 0] + 1)), WINDOW_MAX)


def _buffer(events: Events, truth: npt.NDArray[np.bool_], reach: int) -> tuple[Events, Events]:
    """Cells outside of events within ``reach`` of one: index and distance of each pair, nearest first."""
    steps = np.arange(1, reach + 1)
    cells = np.concatenate([(events[:, :1] - steps).ravel(), (events[:, 1:] + steps).ravel()])
    distance = np.tile(steps, 2 * len(events))
    inside = (cells >= 0) & (cells < len(truth))
    inside[inside] = ~truth[cells[inside]]
    cells, distance = cells[inside], distance[inside]
    order = np.argsort(distance, kind="stable")
    return cells[order], distance[order]


def _peaks(events: Events, padded: FloatArray, reach: int) -> FloatArray:
    """Highest score in each event widened by ``reach``; events whose widened forms touch are one."""
    apart = events[:-1, 1] + reach < events[1:, 0] - reach
    first = np.concatenate([[True], apart])
    last = np.concatenate([apart, [True]])
    starts = np.maximum(events[first, 0] - reach, 0)
    stops = np.minimum(events[last, 1] + reach, len(padded) - 2) + 1
    peaks: FloatArray = np.maximum.reduceat(padded, np.stack([starts, stops], axis=1).ravel())[::2]
    return peaks


def vus_pr(
    labels: npt.NDArray[Any], score: npt.NDArray[Any], window: int | None = None, thresholds: int = THRESHOLDS
) -> float:
    """VUS-PR: range-based average precision, averaged over buffer windows 0 … ``window``.

    Only cells in a buffer change from window to window, so each window costs one weighted count of
    them over the thresholds instead of a pass over all readings for each threshold.

    Args:
        labels: (n,), non-zero is anomalous; at least one must be.
        score: (n,), higher is more anomalous; NaN counts as the lowest.
        window: largest buffer window in readings; None takes `default_window`.
        thresholds: ranks at which the curve is taken.

    Returns:
        In [0, 1]; a perfect ranking comes close to 1.
    """
    truth, values = _checked(labels, score)
    events = runs(truth)
    widest = default_window(labels) if window is None else window
    if widest < 0:
        raise ValueError(f"window is {widest}: it is a number of readings, 0 or more")
    descending = -np.sort(-values)
    # Thresholds in descending order; cut[k] counts the readings at or above the k-th.
    levels = -descending[np.linspace(0, len(values) - 1, thresholds).astype(np.int64)]
    predicted = np.searchsorted(-descending, levels, side="right")
    positives = int(truth.sum())
    hits = np.searchsorted(np.sort(-values[truth]), levels, side="right")
    cells, distance = _buffer(events, truth, widest // 2)
    known, slot = np.unique(cells, return_inverse=True)
    # The first threshold that a cell reaches; cells below the last are counted nowhere.
    reached = np.searchsorted(levels, -values[known], side="left")
    padded = np.append(values, -np.inf)
    total = 0.0
    for size in range(widest + 1):
        near = int(np.searchsorted(distance, size // 2, side="right"))
        weight = np.sqrt(1.0 - distance[:near] / size) if near else np.zeros(0)
        share = np.minimum(np.bincount(slot[:near], weight, minlength=len(known)), 1.0)
        buffered = np.cumsum(np.bincount(reached, share, minlength=thresholds + 1)[:thresholds])
        found = hits + buffered
        peaks = np.sort(-_peaks(events, padded, size // 2))
        touched = np.searchsorted(peaks, levels, side="right") / len(peaks)
        recall = np.minimum(found / (positives + buffered / 2), 1.0) * touched
        total += float(np.dot(np.diff(recall, prepend=0.0), found / predicted))
    return total / (widest + 1)
