"""The score of a node at each time, from its metrics' scores, and the metrics that drive it.

It is the mean of the node's three most unusual metrics, each at most 1, so the contributions shown add
up to it. Three, because on labelled server metrics (ASD, JumpStarter, SMD) the mean of three ranked
incidents better than the worst metric alone, which one noisy metric can fake, and than the mean of
all, in which an incident of a few metrics drowns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tidewarden.frames import LEARNING, BoolArray, FloatArray, SeriesKey, SeriesTable
from tidewarden_cli.offline.reading import Readings
from tidewarden_cli.offline.run import FileScores

DRIVERS = 3
DECADES = 6.0  # a score of 1 is this many decades of rarity
LEAST_SHOWN = 0.01  # smaller contributions are left out of the text


@dataclass(slots=True, eq=False)
class NodeScores:
    """One entry for each node and time, by first appearance in the file; n of them.

    Attributes:
        first_row: input row at which it first appears, int64 (n,).
        anomaly_score: (n,), in [0, 1].
        p_value: (n,), ``10 ** (-6 * score)``.
        contributions: (n,), as ``m3 0.301; m7 0.021``, largest first; they add up to the score.
        learning: all metrics that reported were still learning, bool (n,).
        group: entry that each reading of the file went into, int64 (readings,).
    """

    first_row: npt.NDArray[np.int64]
    anomaly_score: FloatArray
    p_value: FloatArray
    contributions: list[str]
    learning: BoolArray
    group: npt.NDArray[np.int64]


def node_scores(readings: Readings, scores: FileScores) -> NodeScores:
    """Roll the scores of a file's readings up to its nodes."""
    group, first_row = _groups(readings)
    n_groups = len(first_row)
    # Readings group by group, the most unusual first; equal ones in input order.
    order = np.lexsort((-scores.anomaly_score, group))
    start = np.searchsorted(group[order], np.arange(n_groups))
    rank = np.arange(len(order)) - start[group[order]]
    top = order[rank < DRIVERS]
    counted = np.minimum(np.bincount(group, minlength=n_groups), DRIVERS)
    share = scores.anomaly_score[top] / counted[group[top]]
    total = np.bincount(group[top], share, minlength=n_groups)
    score: FloatArray = np.minimum(total, 1.0).astype(np.float64)  # three thirds may exceed 1 by a rounding
    p_value: FloatArray = np.power(10.0, -DECADES * score)
    ready = np.bincount(group, (scores.flags & LEARNING) == 0, minlength=n_groups) > 0
    return NodeScores(first_row, score, p_value, _texts(readings, top, group, share, n_groups), ~ready, group)


def as_series(readings: Readings, nodes: NodeScores) -> Readings:
    """The nodes of a file as series of their own, so that they are judged like any; the values are NaN.

    A node is labelled where any of its readings is.
    """
    table = SeriesTable(readings.keys)
    begins = np.unique(nodes.group, return_index=True)[1]
    truth = None
    if readings.truth is not None:
        truth = np.zeros(len(nodes.first_row), np.uint8)
        np.maximum.at(truth, nodes.group, readings.truth[readings.row])
    return replace(
        readings,
        form="single",
        rows=readings.rows.take(pa.array(nodes.first_row)),
        metrics=[],
        keys=[SeriesKey(*node, metric="node") for node in table.nodes],
        series=table.node_of[readings.series[begins]],
        timestamp=readings.timestamp[begins],
        value=np.full(len(begins), np.nan),
        truth=truth,
    )


def _groups(readings: Readings) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Group (node, time) of each reading (n,), numbered by first appearance, and the row it first appears in."""
    row = readings.row
    if readings.form != "long":
        return row, np.unique(row)
    node = SeriesTable(readings.keys).node_of[readings.series].astype(np.int64)
    order = np.lexsort((readings.timestamp, node))
    if not len(order):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    new = np.ones(len(order), np.bool_)
    new[1:] = (np.diff(node[order]) != 0) | (np.diff(readings.timestamp[order]) != 0)
    sorted_group = np.cumsum(new) - 1
    first = np.minimum.reduceat(row[order], np.flatnonzero(new))
    by_appearance = np.argsort(first, kind="stable")
    renumber = np.empty_like(by_appearance)
    renumber[by_appearance] = np.arange(len(by_appearance))
    group = np.empty(len(order), np.int64)
    group[order] = renumber[sorted_group]
    return group, first[by_appearance]


def _texts(
    readings: Readings,
    top: npt.NDArray[np.intp],
    group: npt.NDArray[np.int64],
    share: FloatArray,
    n_groups: int,
) -> list[str]:
    parts: list[list[str]] = [[] for _ in range(n_groups)]
    shown = share >= LEAST_SHOWN
    names = [key.metric for key in readings.keys]
    triples = zip(group[top[shown]].tolist(), readings.series[top[shown]].tolist(), share[shown].tolist(), strict=True)
    for where, series, value in triples:
        parts[where].append(f"{names[series]} {value:.3f}")
    return ["; ".join(part) for part in parts]
