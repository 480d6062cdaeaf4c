"""The score of a node at each time, and the metrics that drive it.

It is the mean of two opinions. One is the mean of the node's three most unusual metrics: on labelled
server metrics (ASD, JumpStarter, SMD) three ranked incidents better than the worst metric alone, which
one noisy metric can fake, and than all, among which an incident of a few drowns. The other looks at the
metrics together (`tidewarden.scoring.joint`). Contributions add up to the score.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tidewarden.frames import LEARNING, BoolArray, FloatArray, NodeKey, SeriesKey, SeriesTable
from tidewarden.scoring.joint import joint_surprise
from tidewarden_cli.offline.reading import Readings
from tidewarden_cli.offline.run import FileScores

DRIVERS = 3
DECADES = 6.0  # a score of 1 is this many decades of rarity
SHOWN = 5  # contributions in the text; smaller ones than LEAST_SHOWN are left out
LEAST_SHOWN = 0.001

Positions = npt.NDArray[np.int64]


@dataclass(slots=True, eq=False)
class NodeScores:
    """One entry for each node and time, by first appearance in the file; n of them.

    Attributes:
        first_row: input row at which it first appears, int64 (n,).
        anomaly_score: (n,), in [0, 1].
        p_value: (n,), ``10 ** (-6 * score)``: the scale of the metrics' scores, for ranking.
        contributions: (n,), as ``m3 0.301; m7 0.021``, largest first; all together they are the score.
        learning: all metrics that reported were still learning, bool (n,).
        group: entry that each reading of the file went into, int64 (readings,).
    """

    first_row: Positions
    anomaly_score: FloatArray
    p_value: FloatArray
    contributions: list[str]
    learning: BoolArray
    group: Positions


class _Sheet(NamedTuple):
    """The readings of one node as a table over time."""

    metrics: list[str]
    entry: Positions  # (ticks,) entry of each row
    values: FloatArray  # (ticks, metrics)


def node_scores(readings: Readings, scores: FileScores, warm: Readings | None = None) -> NodeScores:
    """Roll the scores of a file's readings up to its nodes.

    Args:
        readings: the file.
        scores: what the detector said of its readings.
        warm: the clean file that the detector learned from first, if any, placed before ``readings``.
    """
    group, first_row = _groups(readings)
    n = len(first_row)
    # Each reading's part in the first opinion: a third of its score if it is among the top three.
    order = np.lexsort((-scores.anomaly_score, group))
    start = np.searchsorted(group[order], np.arange(n))
    top = order[np.arange(len(order)) - start[group[order]] < DRIVERS]
    counted = np.minimum(np.bincount(group, minlength=n), DRIVERS)
    part = np.zeros(len(readings))
    part[top] = 0.5 * scores.anomaly_score[top] / counted[group[top]]
    _add_joint(readings, group, warm, part)
    total = np.bincount(group, part, minlength=n)
    score: FloatArray = np.minimum(total, 1.0).astype(np.float64)  # halves of thirds may exceed 1 by a rounding
    p_value: FloatArray = np.power(10.0, -DECADES * score)
    ready = np.bincount(group, (scores.flags & LEARNING) == 0, minlength=n) > 0
    return NodeScores(first_row, score, p_value, _texts(readings, group, part, n), ~ready, group)


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


def _add_joint(readings: Readings, group: Positions, warm: Readings | None, part: FloatArray) -> None:
    """Add each reading's share of the second opinion to ``part``, node by node."""
    before = {node: sheet for node, sheet, _ in _sheets(warm, _groups(warm)[0])} if warm is not None else {}
    for node, sheet, rows in _sheets(readings, group):
        values = sheet.values
        learned = before.get(node)
        if learned is not None:
            known = np.full((len(learned.values), len(sheet.metrics)), np.nan)
            for column, metric in enumerate(sheet.metrics):
                if metric in learned.metrics:
                    known[:, column] = learned.values[:, learned.metrics.index(metric)]
            values = np.concatenate([known, values])
        surprise, share = joint_surprise(values)
        surprise, share = surprise[-len(sheet.values) :], share[-len(sheet.values) :]
        amount = share.sum(axis=1, keepdims=True)
        share = np.divide(share, amount, out=np.zeros_like(share), where=amount > 0.0)
        opinion = 0.5 * (1.0 - np.exp(-surprise / DECADES))  # saturates without ties: they would spoil the ranking
        tick = np.empty(int(sheet.entry.max()) + 1, np.int64)
        tick[sheet.entry] = np.arange(len(sheet.entry))
        column_of = np.zeros(len(readings.keys), np.int64)
        places = {metric: column for column, metric in enumerate(sheet.metrics)}
        for series in np.unique(readings.series[rows]):
            column_of[series] = places[readings.keys[series].metric]
        at = tick[group[rows]]
        columns = column_of[readings.series[rows]]
        # A reading that came twice shares what is its metric's.
        cell = at * len(places) + columns
        times = np.bincount(cell, minlength=share.size)[cell]
        part[rows] += opinion[at] * share[at, columns] / times


def _sheets(readings: Readings, group: Positions) -> Iterator[tuple[NodeKey, _Sheet, npt.NDArray[np.intp]]]:
    """Each node with its values over time and the positions of its readings."""
    table = SeriesTable(readings.keys)
    node = table.node_of[readings.series]
    order = np.lexsort((readings.timestamp, node))
    cuts = np.searchsorted(node[order], np.arange(len(table.nodes) + 1))
    for number, name in enumerate(table.nodes):
        rows = order[cuts[number] : cuts[number + 1]]
        if not len(rows):
            continue
        series, column = np.unique(readings.series[rows], return_inverse=True)
        entry, first, tick = np.unique(group[rows], return_index=True, return_inverse=True)
        by_time = np.argsort(first, kind="stable")  # rows are in time order, and so are first appearances
        place = np.empty_like(by_time)
        place[by_time] = np.arange(len(by_time))
        values = np.full((len(entry), len(series)), np.nan)
        values[place[tick], column] = readings.value[rows]
        yield name, _Sheet([readings.keys[s].metric for s in series], entry[by_time], values), rows


def _groups(readings: Readings) -> tuple[Positions, Positions]:
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


def _texts(readings: Readings, group: Positions, part: FloatArray, n: int) -> list[str]:
    """The largest contributions of each entry as text."""
    shown = np.flatnonzero(part >= LEAST_SHOWN)
    shown = shown[np.lexsort((-part[shown], group[shown]))]
    names = [key.metric for key in readings.keys]
    texts: list[list[str]] = [[] for _ in range(n)]
    triples = zip(group[shown].tolist(), readings.series[shown].tolist(), part[shown].tolist(), strict=True)
    for where, series, value in triples:
        if len(texts[where]) < SHOWN:
            texts[where].append(f"{names[series]} {value:.3f}")
    return ["; ".join(text) for text in texts]
